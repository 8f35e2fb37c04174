"""``research-jobs attach``: what runs on another machine, its log from where it was seen last."""

from __future__ import annotations

import argparse
import codecs
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain, for_terminal, is_terminal, print_table
from research_jobs.errors import RemoteError
from research_jobs.project import Project, find_project

if TYPE_CHECKING:
    from collections.abc import Callable

    from research_jobs.manifest.remotes import RemoteSpec
    from research_jobs.remote.connection import Connection
    from research_jobs.remote.runs import Ended, RemoteRun

__all__ = ["add_arguments", "follow", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="its id, or the beginning (default: the newest that runs, or else the newest)",
    )
    parser.add_argument("--on", required=True, metavar="REMOTE", help="a name under remotes")
    parser.add_argument("--list", action="store_true", help="list all that are kept there")
    parser.add_argument("--end", action="store_true", help="interrupt it, as Ctrl-C would")
    parser.add_argument("--all", action="store_true", help="its whole log, and not what is new")
    parser.add_argument("--open", action="store_true", help="open its reports in a browser")
    parser.epilog = "Ctrl-C detaches: the run goes on. Exit code: that of the run."


def run(arguments: argparse.Namespace) -> int:
    """Find it, and follow it to its end."""
    from research_jobs import __version__
    from research_jobs.remote.connection import Connection
    from research_jobs.remote.remotes import find_remote
    from research_jobs.remote.runs import RemoteRun

    project = find_project(arguments.project)
    spec = find_remote(project, arguments.on)
    with Connection(arguments.on, spec, __version__) as connection:
        if arguments.list:
            return _list(connection)
        said = connection.ask({"ask": "find", "run": arguments.run, "end": arguments.end})
    found = RemoteRun.of(project, said)
    if arguments.all:
        found.seen = 0
    if arguments.end and said["code"] is not None:
        complain(f"Run {found.run} has ended: exit code {said['code']}.")
        return 0
    what = "Interrupts run" if arguments.end else "Run"
    complain(f"{what} {found.run}: {' '.join(found.shown)}")
    before = found.seen
    code = follow(project, arguments.on, spec, found, open_pages=arguments.open)
    if before and found.seen == before:
        complain(f"Nothing new: it has ended with exit code {code}. --all shows its whole log.")
    return 0 if arguments.end else code


def _list(connection: Connection) -> int:
    rows = [
        [
            one["run"],
            f"{datetime.fromtimestamp(one['started']).astimezone():%Y-%m-%d %H:%M}",
            "runs" if one["code"] is None else f"exit code {one['code']}",
            " ".join(one["words"]),
        ]
        for one in connection.ask({"ask": "runs"})["runs"]
    ]
    print_table(["run", "started", "", "command"], rows)
    return 0


def follow(
    project: Project,
    name: str,
    spec: RemoteSpec,
    found: RemoteRun,
    *,
    open_pages: bool,
    first: Callable[[Connection], None] | None = None,
) -> int:
    """Start a run if need be, and print what it prints, up to its end.

    Parameters
    ----------
    project : Project
    name : str
    spec : RemoteSpec
    found : RemoteRun
    open_pages : bool
        Whether its reports are opened.
    first : callable, optional
        Called with a connection before the run is started.

    Returns
    -------
    int
        The exit code.
    """
    from research_jobs import __version__
    from research_jobs.remote.connection import persist
    from research_jobs.remote.frames import CutError

    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    stream = sys.stderr if "--json" in found.shown else sys.stdout

    shown = for_terminal if is_terminal(stream) else str

    def out(block: bytes) -> None:
        stream.write(shown(decoder.decode(block)))
        stream.flush()

    def work(connection: Connection) -> Ended:
        if first is not None and not found.asked:
            first(connection)
        return found.carry_on(connection, out, complain)

    again = f"research-jobs attach {found.run} --on {name}"
    try:
        ended = persist(name, spec, __version__, work, tell=complain, endless=True)
    except CutError as error:
        hint = f"The run goes on there: {again}" if found.asked else "Nothing was started there."
        raise RemoteError(error.what, hint=hint) from error
    except KeyboardInterrupt:
        if not found.asked:
            raise
        complain(f"\nDetached, the run goes on. Attach: {again}. End it: {again} --end")
        return 130
    if ended.result is not None:
        print(ended.result, end="")
    for page in ended.pages:
        complain(f"Report: {project.display(page)}")
        if open_pages:
            from research_jobs.cli.report import open_page

            open_page(page)
    return ended.code
