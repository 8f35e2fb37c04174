"""How a line silences a code, and the calls that differ in batch."""

from __future__ import annotations

import re

__all__ = ["APPS", "CALLS", "READS", "SERVES", "silenced"]

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
