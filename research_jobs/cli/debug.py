"""``research-jobs debug``: a prompt in the process of a failed run."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import termios
from collections.abc import Generator, Sequence
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain
from research_jobs.errors import ResearchJobsError, RunError
from research_jobs.outcome import State
from research_jobs.process import handling
from research_jobs.project import Project, find_project, notebook_name
from research_jobs.supervisor.kept import KeptProcess, Visit, kept_processes

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.debugging import Debugged

__all__ = ["add_arguments", "run"]

HELP = (
    "%failed runs the failed cell again, %remaining the cells after it: both as the file has them "
    "now.\nNothing here is published."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebook", metavar="NOTEBOOK", help="as in: volatility/garch")
    parser.add_argument(
        "--run", metavar="RUN", help="the run to repeat (default: the last that failed, if one did)"
    )
    parser.add_argument("--partition", metavar="KEY", help="of this partition")
    parser.add_argument(
        "--kernel",
        action="store_true",
        help="no prompt: a Jupyter server for this process, to which VS Code, JupyterLab and "
        "jupyter console attach",
    )
    parser.add_argument(
        "--end", action="store_true", help="end what `run --keep-on-failure` has kept of it"
    )
    parser.epilog = "Exit code: 0, or 1 where nothing can be entered."


def run(arguments: argparse.Namespace) -> int:
    """Enter a process, and leave it."""
    try:
        return _run(arguments)
    except RunError as error:
        complain(f"research-jobs debug: {error.headline}")
        if error.details:
            complain(error.details)
        return 1


def _run(arguments: argparse.Namespace) -> int:
    project = find_project(arguments.project)
    name, partition = notebook_name(arguments.notebook), arguments.partition
    kept = [
        one
        for one in kept_processes(project)
        if one.notebook == name and partition in (None, one.partition)
    ]
    if arguments.end:
        return _end(name, kept)
    if arguments.kernel:
        from research_jobs.cli.serving_kernel import require_server

        require_server()
    if kept and (arguments.run is None or kept[0].run_id.startswith(arguments.run)):
        until = datetime.fromtimestamp(kept[0].until).astimezone()
        print(
            f"Enters the process that run {kept[0].run_id[:8]} left, kept until {until:%a %H:%M}."
        )
        _enter(kept[0], kernel=arguments.kernel)
        print(f"It stays until {until:%a %H:%M}: research-jobs debug --end {name} ends it.")
        return 0
    return _debug(project, name, arguments.run, partition, kernel=arguments.kernel)


def _end(name: str, kept: Sequence[KeptProcess]) -> int:
    if not kept:
        complain(f"No process of {name} is kept.")
        return 1
    for one in kept:
        one.end()
        print(f"Ended the process of {one.label} that run {one.run_id[:8]} left.")
    return 0


def _debug(
    project: Project, name: str, run_id: str | None, partition: str | None, *, kernel: bool
) -> int:
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.operations.debugging import failed_run, run_and_keep
    from research_jobs.orchestration.operations.entries import find_entries
    from research_jobs.orchestration.operations.trial import open_trial
    from research_jobs.supervisor.shared import close_supervisors, warm_up

    warm_up(project)
    real = load_catalog(project)
    name = find_entries(real, [name])[0].name
    record = failed_run(project, name, run_id, partition)
    how = f"as run {record.run_id[:8]} did" if record is not None else "as it stands: none failed"
    print(f"Runs {name} {how}.", flush=True)
    try:
        with _ended_by_hangup(), open_trial(real) as trial:
            try:
                debugged = run_and_keep(real, trial, name, record, partition)
            except ResearchJobsError as error:
                complain(f"Nothing to enter, nothing of it ran: {error.headline}")
                return 1
            process = debugged.process
            if process is None:
                return _not_kept(debugged)
            try:
                for line in debugged.not_restored:
                    complain(f"Not as it was: {line}")
                _enter(process, kernel=kernel)
            finally:
                process.end()
    finally:
        close_supervisors()
    return 0


def _not_kept(debugged: Debugged) -> int:
    """Say why there is nothing to enter."""
    outcome, failure = debugged.outcome, debugged.outcome.failure
    began = failure is not None and failure.cell is not None and failure.exception != "SyntaxError"
    why = f"a process that {outcome.state.words} cannot be kept" if began else "nothing of it ran"
    complain(f"Nothing to enter, {why}: {outcome.reason or outcome.state.words}")
    if outcome.details:
        complain(outcome.details)
    return 1


def _enter(process: KeptProcess, *, kernel: bool) -> None:
    _describe(process)
    if kernel:
        from research_jobs.cli.serving_kernel import serve_kernel

        with _ended_by_hangup(), process.entered("Kernel") as visit, serve_kernel(visit) as url:
            print(f"\nURL for VS Code and JupyterLab:  {url}")
            print(f"Or:  jupyter console --existing {visit.file}")
            print("Ctrl-C ends it.", flush=True)
            with contextlib.suppress(KeyboardInterrupt):
                visit.wait()
        return
    with contextlib.ExitStack() as stack:
        for context in (_ended_by_hangup(), _same_terminal()):
            stack.enter_context(context)
        visit = stack.enter_context(process.entered("Terminal", (0, 1, 2)))
        stack.enter_context(_passing_on(visit))
        said = visit.wait()
    if said:
        raise RunError(f"the prompt failed: {said}", ending="")


def _describe(process: KeptProcess) -> None:
    state = State(process.state)
    print(f"\n{process.label} {state.words}{f': {process.headline}' if process.headline else ''}")
    for text in (process.traceback, process.cell):
        if text:
            print(text)
    titles = [f'cell {n} "{title}"' if title else f"cell {n}" for n, title in process.remaining]
    more = f" and {len(titles) - 8} more" if len(titles) > 8 else ""
    print(f"\nRemaining: {', '.join(titles[:8])}{more}" if titles else "\nNo cell is left to run.")
    print(HELP, flush=True)


def _passing_on(visit: Visit) -> contextlib.AbstractContextManager[None]:
    """Signals of the terminal go to the process that has it."""
    # Our stop would leave it alone with the terminal.
    stop = {signal.SIGTSTP: signal.SIG_IGN}
    return handling({signal.SIGINT: visit.pass_on, signal.SIGWINCH: visit.pass_on, **stop})


def _ended_by_hangup() -> contextlib.AbstractContextManager[None]:
    """A closed terminal and a polite kill end this command in order, as Ctrl-C does."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    return handling({signal.SIGHUP: leave, signal.SIGTERM: leave})


@contextlib.contextmanager
def _same_terminal() -> Generator[None]:
    """With the terminal's settings as they were, however the prompt ends."""
    settings = None
    with contextlib.suppress(termios.error, OSError, ValueError):
        settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        if settings is not None:
            with contextlib.suppress(termios.error, OSError, ValueError):
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
