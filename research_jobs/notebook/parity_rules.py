"""The codes of `check`, how a line silences one, and the calls that differ in batch."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["APPS", "CALLS", "CODES", "READS", "SERVES", "silenced"]

CODES: Mapping[str, str] = {
    "syntax": "the file does not parse (magics included)",
    "input-call": "waits for keyboard input",
    "kernel-call": "calls IPython's kernel",
    "kernel-name": "uses In, Out or _, which only the editor's kernel fills",
    "main-guard": "`if __name__ == '__main__':` is false in batch",
    "outside-path": "a relative path leads out of the notebook's folder",
    "home-path": "an absolute path on one person's machine",
    "sys-argv": "reads the command line",
    "interactive-plot": "switches charts to a window",
    "blocking-call": "starts a server or debugger that does not return",
    "exit-call": "ends the process and so the run",
    "chdir": "changes the working directory for all later cells",
    "loads-itself": "reads its own earlier outputs",
    "hidden-load": "loads something known only at run time, so it is not a dependency",
    "star-import": "assigns names that are not visible in the text",
    "relative-import": "a relative import fails in the editor, and at the top in batch too",
    "imports-notebook": "runs another notebook again instead of reading its outputs",
    "missing-module": "a module is not installed for the notebook's interpreter",
    "missing-name": "the installed package has no such module or name",
    "removed-name": "the installed version of a library no longer has a name",
    "missing-file": "a literal path that is read does not exist",
    "batch-only-import": "a helper is found in batch, and not in the editor",
    "hides-module": "has the name of a standard library module, or of an installed one",
    "used-before-assigned": "a cell uses a name that a later cell assigns",
    "undefined-name": "uses a name that nothing in the file assigns",
    "code-in-prose": "code in a prose cell runs in batch only",
    "other-language": "a cell of another language is not run",
    "commented-magic": "an assignment behind a magic is in a comment",
    "marker-metadata": "the metadata of a marker do not parse",
    "unread-parameter": "no cell reads a parameter",
    "split-statement": "a marker is inside a statement",
    "second-parameters": "only the first cell tagged `parameters` counts",
    "untagged-parameters": "a cell is titled parameters but not tagged",
    "parameter-lost": "a parameter is assigned again, which undoes the batch value",
}
"""What each code is about."""

# What is called: the code and the message.
CALLS = {
    "input": ("input-call", "input() has nobody to ask in batch; make it a parameter"),
    "getpass.getpass": (
        "input-call",
        "getpass() has nobody to ask in batch; read an environment variable",
    ),
    "breakpoint": (
        "blocking-call",
        "breakpoint() waits for a debugger, and batch has none; remove it",
    ),
    "pdb.set_trace": (
        "blocking-call",
        "set_trace() waits for a debugger, and batch has none; remove it",
    ),
    "os.chdir": (
        "chdir",
        "os.chdir() affects all later cells; build paths from Path(__file__).parent",
    ),
    "exit": ("exit-call", "exit() ends the run; use research_jobs.skip(reason) or raise"),
    "quit": ("exit-call", "quit() ends the run; use research_jobs.skip(reason) or raise"),
    "os._exit": ("exit-call", "os._exit() ends the process without a result"),
    "sys.exit": ("exit-call", "sys.exit() ends the run; use research_jobs.skip(reason) or raise"),
    "matplotlib.pyplot.ion": (
        "interactive-plot",
        "plt.ion() needs a window; leave it out, charts are shown anyway",
    ),
    "matplotlib.use": (
        "interactive-plot",
        "matplotlib.use() replaces the backend that collects charts; leave it out",
    ),
    "matplotlib.pyplot.switch_backend": (
        "interactive-plot",
        "switch_backend() replaces the backend that collects charts; leave it out",
    ),
}
SERVES = {"run_server", "serve_forever", "run_forever", "launch"}
APPS = {"app", "server", "dash_app", "flask_app", "demo", "uvicorn", "api"}
READS = re.compile(r"(?:open|read_\w+|scan_\w+|load\w*|Path|imread|loadtxt|genfromtxt|connect)$")

_SILENCE = re.compile(r"#\s*parity:\s*ignore(?:\[([\w\-, ]*)\])?")


def silenced(line: str, code: str) -> bool:
    """Whether a comment on a line silences a code."""
    found = _SILENCE.search(line)
    if found is None:
        return False
    return found[1] is None or code in re.split(r"[, ]+", found[1])
