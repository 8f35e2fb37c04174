"""``research-jobs``: find the command, call it, turn errors into one line and an exit code.

Exit codes: 0 success; 1 a notebook did not succeed, something needs attention, `check` found an
error, or `diff` a difference; 2 an invalid call (unknown notebook, bad parameter, no project); 130
interrupted.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import keyword
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn, Protocol, cast

import research_jobs
from research_jobs.errors import (
    ProjectError,
    ResearchJobsError,
    did_you_mean,
    innermost,
    innermost_line,
)
from research_jobs.process import gc_paused

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "run": "run notebooks now",
    "backfill": "run notebooks over many partitions",
    "status": "what needs attention, what is unusual, and all notebooks at a glance",
    "account": "every tick that schedules owed, and what became of it",
    "alerts": "what is open, what was sent lately; --test sends one through each channel",
    "doctor": "everything about this installation that can be wrong, and how to mend it",
    "list": "all notebooks: outputs, schedule, last ending, next tick",
    "show": "one notebook: parameters, outputs, last runs; or an output's first rows",
    "check": "mistakes in notebooks and manifest, and differences from the editor",
    "lock": "resolve the packages that notebooks ask for, and keep their versions",
    "reuse": "functions and setup cells that notebooks repeat, and the helper for each",
    "diff": "what differs between two runs of a notebook: its outputs and what it shows",
    "try": "run notebooks as they stand, and compare with what is published; nothing counts",
    "rerun": "run a past run again, with its code, parameters and inputs, and compare",
    "debug": "a prompt or a kernel in the process of a failed run, before the cells that remain",
    "lookahead": "whether notebooks used what was not known yet: a sample, with inputs cut",
    "pull": "published outputs of another machine, whole or a sample, for load() here",
    "attach": "what runs on another machine: its log from where it was seen last, up to its end",
    "report": "the last report of a notebook: print its path, open it, or export it as one file",
    "deliver": "the last report of a notebook as a mail: send it now, or look at it",
    "init": "make a repository a project: write what is missing, after showing it",
    "adopt": "run notebooks that the manifest does not name, and keep what they show",
    "new": "create a notebook from a template",
    "convert": "turn an .ipynb into a percent script",
    "completion": "a shell's completion of commands, notebooks and outputs",
    "ui": "Dagster's UI, its daemon and the reports, until Ctrl-C",
    "host": "a process that is ready to run notebooks, for a server",
    "watch": "restart services that are dead, and have somebody told what is wrong",
    "backup": "store the whole project with restic, or prove the last backup",
    "restore": "build a working project from a backup, in an empty folder",
    "space": "how much room each notebook takes: outputs, older versions, reports",
    "prune": "remove what nobody reads any more, as the nightly job does; --dry-run says what",
    "deploy": "check new code and put it into service, on a server",
}
"""Command to summary, in the order of the help."""

GROUPS = {
    "Run": ("run", "backfill", "try", "rerun", "debug", "attach"),
    "Look": ("status", "list", "show", "pull", "report", "diff", "account", "space"),
    "Write": (
        "new",
        "init",
        "convert",
        "adopt",
        "check",
        "lookahead",
        "reuse",
        "lock",
        "completion",
    ),
    "Serve": (
        "ui",
        "deploy",
        "doctor",
        "alerts",
        "deliver",
        "watch",
        "host",
        "prune",
        "backup",
        "restore",
    ),
}
"""Heading to commands, as the help shows them."""

HIDDEN = {"remote-serve": "answer another machine's research-jobs, which calls this over ssh"}
"""Commands that programs call."""

HOSTED = ("run", "backfill", "try", "rerun", "lookahead")
"""The commands that a host runs, where there is one."""

ELSEWHERE = (
    "status",
    "list",
    "show",
    "account",
    "space",
    "report",
    "diff",
    "doctor",
    "ui",
    "run",
    "try",
    "backfill",
    "debug",
)
"""The commands that can be given for another machine."""

FINDS_HOSTS = ("deploy", "host", "ui")
"""The commands that know a host by the environment without the project's ``.env``."""

READS_REPORTS = ("debug", "diff", "lookahead", "report", "rerun", "show", "try", "ui")
"""The commands that read reports and records, also those of other machines."""


class Command(Protocol):
    """What each command's module has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit code."""
        ...


class Parser(argparse.ArgumentParser):
    """argparse's, with one line for each mistake."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the call and where the help is."""
        self.exit(2, f"{self.prog}: {message}. See `{self.prog} --help`.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The words behind ``research-jobs``; by default the process's own.

    Returns
    -------
    int
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _begin_program()
    if not words or words[0].startswith("-"):
        return _without_command(words)
    name = words[0]
    if name not in COMMANDS and name not in HIDDEN:
        hint = did_you_mean(name, COMMANDS, label="Commands")
        print(f"research-jobs: no command '{name}'. {hint}", file=sys.stderr)
        return 2
    command = _command(name)
    arguments = _parser(name, command).parse_args(words[1:])
    try:
        status = _by_another(arguments, words, hosted=argv is None and name in HOSTED)
        if status is not None:
            return status
        _enter_project(name, arguments)
        with gc_paused():  # of a short command's time, a tenth
            return command.run(arguments)
    except ResearchJobsError as error:
        print(f"research-jobs {name}: {error.headline}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read us has seen enough (`| head`); keep Python from saying so again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        line = _outside_cause(error)
        if line is None:
            raise  # a mistake of ours: its traceback is what a report of it needs
        print(f"research-jobs {name}: {line}", file=sys.stderr)
        return 2
    finally:
        gc.unfreeze()  # for a program that calls us: what the command has set aside


def _enter_project(name: str, arguments: argparse.Namespace) -> None:
    """Read the project's ``.env``, and the reports of its other machines if the command does."""
    from research_jobs.project import SHARED_REPORTS_VARIABLE, enter_environment, find_project

    if name in HIDDEN:
        return  # the other side says which project
    with suppress(ProjectError):  # the command says so itself
        project = find_project(arguments.project)
        before = dict(os.environ)
        enter_environment(project)
        # `show` reads reports for --lineage only.
        reads = name in READS_REPORTS and getattr(arguments, "lineage", True)
        if reads and SHARED_REPORTS_VARIABLE in os.environ:
            from research_jobs.orchestration.execution.gallery import exchange_reports
            from research_jobs.orchestration.model.catalog import load_catalog

            exchange_reports(load_catalog(project))
        if name in FINDS_HOSTS:
            os.environ.clear()
            os.environ.update(before)


def _begin_program() -> None:
    """Answer a shell that asks what a line can go on with, or prepare stdout."""
    if "_ARGCOMPLETE" in os.environ:
        from research_jobs.cli.completion import complete

        complete(COMMANDS, lambda name: _parser(name, _command(name)))
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What a terminal's encoding does not have (LANG=C) is escaped, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")


def _command(name: str) -> Command:
    module = f"{name}_" if keyword.iskeyword(name) else name.replace("-", "_")
    return cast("Command", importlib.import_module(f"research_jobs.cli.{module}"))


def _parser(name: str, command: Command) -> Parser:
    summary = COMMANDS.get(name) or HIDDEN[name]
    parser = Parser(
        prog=f"research-jobs {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--project",
        metavar="DIR",
        help="the folder that contains notebooks/ (default: RESEARCH_JOBS_PROJECT, else the "
        "working directory or the nearest folder above it that contains one)",
    )
    command.add_arguments(parser)
    if name in ELSEWHERE:
        parser.add_argument(
            "--on", metavar="REMOTE", help="on another machine: a name under remotes"
        )
    elif name != "attach":
        parser.add_argument("--on", type=_refuse_remote, help=argparse.SUPPRESS)
    if name in HOSTED:
        parser.add_argument(
            "--no-host", action="store_true", help="run in this process, even if a host is ready"
        )
    return parser


def _refuse_remote(_: str) -> NoReturn:
    raise argparse.ArgumentTypeError(
        "this command works on this machine only; --on goes with "
        f"{', '.join(ELSEWHERE)} and attach, and pull has --from"
    )


def _by_another(arguments: argparse.Namespace, words: Sequence[str], *, hosted: bool) -> int | None:
    """Have another machine or the project's host run the command; None where we do."""
    if words[0] in ELSEWHERE and arguments.on is not None:
        from research_jobs.cli.elsewhere import run_elsewhere

        return run_elsewhere(arguments, words)
    return _by_host(arguments, words) if hosted else None


def _by_host(arguments: argparse.Namespace, words: Sequence[str]) -> int | None:
    """Have the project's host run the command; None where there is none."""
    from research_jobs.project import find_project
    from research_jobs.resident.client import NoHostError, run_command

    if arguments.no_host:
        return None
    try:
        return run_command(find_project(arguments.project), words)
    except NoHostError:
        return None


def _outside_cause(error: BaseException) -> str | None:
    """The innermost cause in one line, where that is the file system's or a database's."""
    cause = innermost(error)
    if isinstance(cause, OSError) or type(cause).__name__ == "OperationalError":
        line = innermost_line(cause)
        return line if isinstance(cause, OSError) else f"the database: {line}"
    return None


def _group(heading: str, names: Sequence[str]) -> str:
    lines = [f"  {name:10} {COMMANDS[name]}" for name in names if name in COMMANDS]
    return "\n".join((f"{heading}:", *lines))


def _without_command(words: list[str]) -> int:
    parser = Parser(
        prog="research-jobs",
        description="A folder of research notebooks as scheduled Dagster assets.",
        epilog="\n\n".join(_group(heading, names) for heading, names in GROUPS.items())
        + "\n\n`research-jobs COMMAND --help` shows the options of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="research-jobs [--help] [--version] COMMAND ...",
    )
    parser.add_argument("--version", action="version", version=research_jobs.__version__)
    parser.parse_args(words)
    parser.print_help(sys.stderr if not words else sys.stdout)
    return 0 if words else 2


if __name__ == "__main__":
    sys.exit(main())
