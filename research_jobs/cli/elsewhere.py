"""``--on REMOTE``: the same command on another machine, and its UI through a tunnel.

A `run`, `try` or `backfill` there goes on without this machine; the others end with the
connection.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from research_jobs.cli.output import complain
from research_jobs.errors import ParameterError
from research_jobs.filesystem import write_atomically
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.notebook.scan import find_notebook
from research_jobs.project import Project, find_project
from research_jobs.remote.remotes import find_remote
from research_jobs.remote.running import kernel_there, report_there, run_there, tunnel

__all__ = ["run_elsewhere"]

ERROR = 2  # the exit code of a command that could not do what it was asked for

_REFUSED = {
    "run": ("all", "select", "stale", "keep-on-failure"),
    "try": ("publish", "keep", "reports"),
}
"""What a command does not take there, where it publishes nothing."""


def run_elsewhere(arguments: argparse.Namespace, words: Sequence[str]) -> int:
    """Run the command that is written, there.

    Parameters
    ----------
    arguments : Namespace
        Its arguments, with `on`.
    words : sequence of str
        As they were typed: the command's name first.
    """
    project = find_project(arguments.project)
    name: str = arguments.on
    spec = find_remote(project, name)
    if words[0] == "ui":
        return _ui(name, spec, arguments)
    there = list(_without(words, "--on"))
    if words[0] in ("run", "backfill", "try") and not getattr(arguments, "dry_run", False):
        return _run(project, name, spec, there, arguments)
    if getattr(arguments, "html", None) is not None:
        raise ParameterError(
            f"{words[0]} --on {name} does not take --html",
            hint="It prints the same without, and --json has all of it.",
        )
    if words[0] == "debug" and arguments.kernel:
        code = _kernel(name, spec, there)
    elif words[0] == "report" and (arguments.open or arguments.standalone is not None):
        there = [word for word in _without(there, "--standalone") if not _is(word, "--open")]
        code = _report(name, spec, there, arguments)
    else:
        code = run_there(name, spec, there)
    if code == ERROR:
        complain(f"That is what research-jobs says on {name} ({spec.ssh}).")
    return code


def _without(words: Sequence[str], option: str) -> Iterator[str]:
    """Words without an option and its value."""
    rest = iter(words)
    for word in rest:
        if not _is(word, option):
            yield word
        elif "=" not in word:
            next(rest, None)


def _is(word: str, option: str) -> bool:
    """Whether a word is an option, or the beginning of it that argparse has found unambiguous."""
    name = word.partition("=")[0]
    return len(name) > 2 and option.startswith(name)


def _run(
    project: Project,
    name: str,
    spec: RemoteSpec,
    words: Sequence[str],
    arguments: argparse.Namespace,
) -> int:
    from research_jobs.cli.attach import follow
    from research_jobs.remote.runs import new_run, refuse_other_code

    shown = list(_without(words, "--project"))
    publishes = words[0] == "backfill" or (words[0] == "run" and arguments.publish)
    ours = ("--publish", "--open", "--no-host")
    there = [word for word in shown if not any(_is(word, option) for option in ours)]
    if not publishes:
        given = [one for one in _REFUSED[words[0]] if getattr(arguments, one.replace("-", "_"))]
        if given or (words[0] == "run" and not arguments.notebooks):
            raise ParameterError(
                f"{words[0]} --on {name} runs the working tree of this machine and publishes "
                "nothing: " + (f"it does not take --{given[0]}" if given else "name the notebooks"),
                hint=f"`run --on {name} --publish` is an ordinary run there.",
            )
        for notebook in arguments.notebooks:
            find_notebook(project, notebook)  # before anything is sent
        there = ["try", *there[1:], *(["--only"] if words[0] == "run" else [])]
    return follow(
        project,
        name,
        spec,
        new_run(project, there, shown, send=not publishes),
        open_pages=words[0] == "run" and arguments.open,
        first=partial(refuse_other_code, project) if words[0] == "run" and publishes else None,
    )


def _report(
    name: str, spec: RemoteSpec, words: Sequence[str], arguments: argparse.Namespace
) -> int:
    if arguments.notebook is None:
        raise ParameterError(
            f"report --on {name}: name the notebook whose report is to come here",
            hint=f"The page of all: research-jobs ui --on {name}.",
        )
    code, page = report_there(name, spec, words)
    if code:
        return code
    target: Path | None = arguments.standalone
    if target is None:
        target = Path(tempfile.mkdtemp(prefix="research_jobs-report-")) / "report.html"
    write_atomically(target, page)
    print(target)
    if arguments.open:
        from research_jobs.cli.report import open_page

        open_page(target)
    return 0


def _kernel(name: str, spec: RemoteSpec, words: Sequence[str]) -> int:
    from research_jobs.cli.ui import choose_port

    def choose(port: int) -> int:
        return choose_port("127.0.0.1", None, port)

    try:
        return kernel_there(name, spec, words, choose, partial(print, flush=True))
    except KeyboardInterrupt:
        return 0


def _ui(name: str, spec: RemoteSpec, arguments: argparse.Namespace) -> int:
    from research_jobs.cli.ui import choose_port
    from research_jobs.hosts import address

    port = choose_port("127.0.0.1", arguments.port, spec.ui_port)
    reports = choose_port("127.0.0.1", arguments.reports_port, spec.reports_port, taken=port)

    def ready(answers: bool) -> None:
        print(f"Dagster's UI   {address('127.0.0.1', port)}")
        print(f"Reports        {address('127.0.0.1', reports)}")
        print(f"Both are those of {name} ({spec.ssh}). Ctrl-C ends the tunnel.", flush=True)
        if not answers:
            complain(
                f"Nothing answers on port {spec.ui_port} there yet. Start its services, or "
                f"`research-jobs ui`; remotes.{name}.ui_port names another port."
            )

    try:
        tunnel(name, spec, [(port, spec.ui_port), (reports, spec.reports_port)], ready)
    except KeyboardInterrupt:
        return 0
