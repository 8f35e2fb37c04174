"""``research-jobs pull``: another machine's published outputs, whole or a sample, for `load()`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain, is_terminal, print_json
from research_jobs.errors import ParameterError
from research_jobs.project import find_project
from research_jobs.units import readable_size

if TYPE_CHECKING:
    from research_jobs.remote.pulling import Pulled, RemoteUnit, Wanted

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NOTEBOOK",
        help="a notebook, one of its outputs (market_data.prices), or a pattern ('models/*')",
    )
    parser.add_argument("--all", action="store_true", help="everything that is published there")
    parser.add_argument(
        "--from", dest="remote", required=True, metavar="REMOTE", help="a name under remotes"
    )
    parser.add_argument("--rows", type=_count, metavar="N", help="the last N rows of each table")
    parser.add_argument(
        "--since",
        type=_moment,
        metavar="DATE",
        help="rows, and partitions of time, from this date on: 2018-11-01",
    )
    parser.add_argument(
        "--columns", type=_names_in, metavar="A,B", help="these columns of each table"
    )
    parser.add_argument(
        "--partitions",
        metavar="A..B",
        help="partitions from A to B, or keys and patterns: '2018-*'",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would come, and its size")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_count.__name__ = "number of rows"


def _names_in(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


_names_in.__name__ = "list of columns"


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


_moment.__name__ = "date"


def run(arguments: argparse.Namespace) -> int:
    """Pull, and say what came."""
    from research_jobs import __version__
    from research_jobs.manifest import load_manifest
    from research_jobs.notebook.scan import scan
    from research_jobs.remote.connection import Connection, persist
    from research_jobs.remote.pulling import ask_units, missing, pull_unit
    from research_jobs.remote.remotes import find_remote
    from research_jobs.store.origin import Cut

    if bool(arguments.names) == arguments.all:
        raise ParameterError("name what to pull", hint="A notebook, an output, or --all.")
    project = find_project(arguments.project)
    manifest = load_manifest(project, [each.name for each in scan(project).notebooks])
    cut = Cut(arguments.rows, arguments.since, arguments.columns or ())
    spec = find_remote(project, arguments.remote)
    done: dict[tuple[str, tuple[str, ...]], dict[str, object]] = {}

    def work(connection: Connection) -> bool:
        units = ask_units(connection, arguments.names, cut, arguments.partitions)
        for unit in units:
            if arguments.dry_run:
                _show_plan(unit, missing(project, connection, unit))
            elif (unit.notebook, unit.segments) not in done:  # before the connection was cut
                outputs = manifest.spec(unit.notebook).outputs
                pulled = pull_unit(
                    project,
                    connection,
                    unit,
                    keep={name: output.keep for name, output in outputs.items()},
                    group=manifest.project.group,
                    progress=_progress(unit) if is_terminal(sys.stderr) else None,
                    tell=complain,
                )
                done[unit.notebook, unit.segments] = _json(unit, pulled)
                if not arguments.json:
                    _show(unit, pulled)
        return bool(units)

    some = persist(arguments.remote, spec, __version__, work, tell=complain)
    if arguments.dry_run:
        return 0
    if arguments.json:
        print_json(list(done.values()))
    elif not some:
        print("Nothing is published there" + (f" since {arguments.since}." if cut.since else "."))
    return 0


def _title(unit: RemoteUnit) -> str:
    return unit.notebook if unit.partition is None else f"{unit.notebook} [{unit.partition.key}]"


def _show_plan(unit: RemoteUnit, missing: Sequence[Wanted]) -> None:
    parts: list[str] = []
    for output in missing:
        of = f"{output.rows:,} rows, " if output.rows is not None else ""
        size = f"{of}{readable_size(output.bytes)}"
        parts.append(
            f"{output.name}, {output.cut} of {size}" if output.cut else f"{output.name}, {size}"
        )
    print(f"{_title(unit)}: {'; '.join(parts) or 'unchanged'}")


def _progress(unit: RemoteUnit) -> Callable[[str, int, int], None]:
    shown = -1

    def show(output: str, came: int, size: int) -> None:
        nonlocal shown
        percent = 100 * came // max(size, 1)
        if percent != shown:
            shown = percent
            line = f"{_title(unit)}: {output} {percent} % of {readable_size(size)}"
            end = "\n" if came >= size else ""
            print(f"\r{line}\033[K", end=end, file=sys.stderr, flush=True)

    return show


def _show(unit: RemoteUnit, pulled: Pulled) -> None:
    if not pulled.fetched:
        print(f"{_title(unit)}: unchanged")
        return
    parts: list[str] = []
    for output in pulled.fetched:
        sample = pulled.samples.get(output.name)
        rows = f"{output.rows:,} rows" if output.rows is not None else output.kind
        parts.append(f"{output.name}, {sample or rows}, {readable_size(output.bytes)}")
    print(f"{_title(unit)}: {'; '.join(parts)}")
    if pulled.left:
        print(f"  {', '.join(pulled.left)} was not pulled, and stays in the version before.")


def _json(unit: RemoteUnit, pulled: Pulled) -> dict[str, object]:
    return {
        "notebook": unit.notebook,
        "partition": unit.partition.key if unit.partition is not None else None,
        "version": unit.version,
        "published_at": unit.published_at,
        "outputs": {
            output.name: {
                "rows": output.rows,
                "bytes": output.bytes,
                "sample": str(pulled.samples[output.name])
                if output.name in pulled.samples
                else None,
            }
            for output in pulled.fetched
        },
        "unchanged": [name for name in pulled.outputs if name not in _names(pulled)],
    }


def _names(pulled: Pulled) -> set[str]:
    return {output.name for output in pulled.fetched}
