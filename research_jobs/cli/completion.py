"""``research-jobs completion``: what a shell needs to complete commands, notebooks and outputs.

The shell calls research-jobs for each Tab, so what is offered comes from text and names of
folders: nothing here imports Dagster, pandas or pyarrow, or asks a server.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from research_jobs.project import Project, find_project

__all__ = ["SHELLS", "add_arguments", "complete", "run"]

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_ARGCOMPLETE"  # argcomplete's: the number of words that name the program

MakeParser = Callable[[str], argparse.ArgumentParser]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "shell",
        nargs="?",
        choices=SHELLS,
        metavar="SHELL",
        help="bash, zsh or fish (default: that of SHELL)",
    )
    parser.epilog = (
        "Add a line to the shell's settings:\n"
        '  ~/.bashrc                   eval "$(research-jobs completion bash)"\n'
        '  ~/.zshrc, after compinit    eval "$(research-jobs completion zsh)"\n'
        "  ~/.config/fish/config.fish  research-jobs completion fish | source"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the shell's code."""
    from argcomplete.shell_integration import shellcode

    shell = arguments.shell or os.path.basename(os.environ.get("SHELL", ""))  # noqa: PTH119 - a name
    if shell not in SHELLS:
        print("research-jobs completion: say which shell: bash, zsh or fish.", file=sys.stderr)
        return 2
    print(shellcode(["research-jobs"], shell=shell))
    return 0


def complete(commands: Iterable[str], make_parser: MakeParser) -> None:
    """Answer the shell that asks for completions, and exit; return if none does.

    Parameters
    ----------
    commands : iterable of str
    make_parser : callable
        The parser of a command.
    """
    if _VARIABLE not in os.environ or "COMP_LINE" not in os.environ:
        return
    import argcomplete
    from argcomplete.lexers import split_line

    # The words before the one that is completed.
    words = split_line(os.environ["COMP_LINE"], int(os.environ["COMP_POINT"]))[3]
    name = words[1] if len(words) > 1 else None
    if name is None:
        parser = argparse.ArgumentParser(prog="research-jobs")
        parser.add_argument("--version", action="store_true")
        parser.add_argument("command", choices=list(commands))
    elif name in commands:
        parser = make_parser(name)
        os.environ[_VARIABLE] = "2"  # a command's words begin behind its name
    else:
        sys.exit(1)
    for action in parser._actions:  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - argparse has no list
        if action.metavar in _COMPLETERS:
            setattr(action, "completer", _quiet(_COMPLETERS[action.metavar]))  # noqa: B010 - argcomplete's attribute
    argcomplete.autocomplete(parser, always_complete_options=False)


# -- what is offered ---------------------------------------------------------------------------

Completer = Callable[[Project, argparse.Namespace], Iterable[str]]


def _quiet(completer: Completer) -> Callable[..., list[str]]:
    """A completer for argcomplete; one that fails offers nothing."""

    def offer(parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        with suppress(Exception):
            return list(completer(find_project(parsed_args.project), parsed_args))
        return []

    return offer


def _notebooks(project: Project, arguments: argparse.Namespace) -> Iterator[str]:
    """The notebooks that are not named yet."""
    from research_jobs.notebook.scan import scan

    named = _named(arguments)
    return (each.name for each in scan(project).notebooks if each.name not in named)


def _outputs(project: Project, arguments: argparse.Namespace) -> Iterable[str]:
    """The stored outputs of the notebook that is named."""
    from research_jobs.store.backends.base import current_version
    from research_jobs.store.view import Reader

    reader = Reader(project.store)
    for name in _named(arguments) if project.store_is_local else ():
        for unit in reader.units(name):
            return tuple(current_version(reader, unit).outputs)
    return ()


def _partitions(project: Project, arguments: argparse.Namespace) -> Iterator[str]:
    """The stored partitions of the notebooks that are named."""
    from research_jobs.store.layout import read_segments
    from research_jobs.store.view import Reader

    reader = Reader(project.store)
    for name in _named(arguments) if project.store_is_local else ():
        for unit in reader.units(name):
            if unit.segments:
                yield read_segments(unit.segments).key


def _runs(project: Project, arguments: argparse.Namespace) -> Iterator[str]:
    """The beginnings of the ids of runs that have a report: of the notebook, or of all."""
    from research_jobs.provenance.record import RUNS

    for name in _named(arguments) or tuple(_notebooks(project, arguments)):
        for folder in (project.reports / name / RUNS).glob("*-*-*"):
            yield folder.name.split("-")[1]


def _named(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The notebooks on the line."""
    from research_jobs.project import notebook_name

    one = getattr(arguments, "notebook", None)
    several = getattr(arguments, "notebooks", None) or ()
    return tuple(map(notebook_name, (one,) if isinstance(one, str) else several))


_COMPLETERS: dict[Any, Completer] = {
    "NOTEBOOK": _notebooks,
    "OUTPUT": _outputs,
    "KEY": _partitions,
    "RUN": _runs,
    "ID": _runs,
}
"""What an argument is called in the help, to what is offered for it."""
