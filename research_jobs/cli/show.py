"""``research-jobs show``: one notebook, or the first rows of one of its outputs."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.cli.output import ago, duration, iso, print_json, print_table
from research_jobs.errors import OutputNotFoundError, StoreError, did_you_mean
from research_jobs.outcome import to_json
from research_jobs.project import Project, find_project
from research_jobs.units import readable_size

if TYPE_CHECKING:
    from research_jobs.orchestration.model.catalog import Catalog, Entry

__all__ = ["add_arguments", "newest_partition", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebook", metavar="NOTEBOOK")
    parser.add_argument(
        "output", nargs="?", metavar="OUTPUT", help="show the first rows of this output"
    )
    parser.add_argument("--partition", metavar="KEY", help="the partition (default: the newest)")
    parser.add_argument(
        "--rows", type=int, default=10, metavar="N", help="how many rows (%(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=10, metavar="N", help="how many runs (%(default)s)"
    )
    parser.add_argument(
        "--lineage",
        action="store_true",
        help="show the files, commits and runs behind the output, and what reads it",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.operations.entries import find_entries

    project = find_project(arguments.project)
    catalog = load_catalog(project)
    entry = find_entries(catalog, [arguments.notebook])[0]
    if arguments.output is not None:
        _check_declared(entry, arguments.output)
        if arguments.lineage:
            return _show_lineage(project, catalog, entry, arguments)
        return _show_output(project, entry, arguments)
    if arguments.lineage:
        hint = did_you_mean("", entry.spec.outputs, label="Its outputs") or "It declares none."
        raise OutputNotFoundError("--lineage shows where an output comes from; name one", hint=hint)
    return _show_notebook(project, catalog, entry, arguments)


# ---- an output


def _check_declared(entry: Entry, name: str) -> None:
    if name not in entry.spec.outputs:
        hint = did_you_mean(name, entry.spec.outputs, label="Its outputs")
        raise OutputNotFoundError(
            f"'{entry.name}' declares no output '{name}'", hint=hint or "It declares none."
        )


def _show_lineage(
    project: Project, catalog: Catalog, entry: Entry, arguments: argparse.Namespace
) -> int:
    from research_jobs.orchestration.model.partitions import partition_key_of
    from research_jobs.provenance.lineage import origin_of, readers_of
    from research_jobs.provenance.record import Load
    from research_jobs.store.layout import folders_of
    from research_jobs.store.stored import stored_versions

    wanted = arguments.partition or newest_partition(project, entry)
    partition = partition_key_of(entry.spec, wanted) if wanted is not None else None
    versions = stored_versions(project.store, entry.name, partition)
    if not versions or arguments.output not in versions[0].outputs:
        which = f" for {wanted}" if wanted else ""
        raise OutputNotFoundError(
            f"'{entry.name}' has no '{arguments.output}' in the store{which}",
            hint=f"Run it: research-jobs run {entry.name}",
        )
    segments = folders_of(partition)
    current = versions[0]
    asked = Load(entry.name, arguments.output, segments, current.id, current.run_id)
    origin = origin_of(project.reports, asked)
    others = [each.name for each in catalog if each.name != entry.name]
    declared = [
        each.name
        for each in catalog
        for call in each.notebook.loads
        if call.notebook == entry.name and call.output in (None, arguments.output)
    ]
    readers = readers_of(project.reports, asked, others, declared)
    if arguments.json:
        print_json(
            {"origin": origin.to_json(), "readers": [reader.to_json() for reader in readers]}
        )
        return 0
    print("\n".join(origin.lines()))
    _section("Read by", "" if readers else "nothing that is known")
    for reader in readers:
        print(f"  {reader.line(current.id)}")
    return 0


def _show_output(project: Project, entry: Entry, arguments: argparse.Namespace) -> int:
    from research_jobs.store.load import load

    name: str = arguments.output
    partition = arguments.partition or newest_partition(project, entry)
    value = load(entry.name, name, partition, project=project)
    if arguments.json:
        print_json(
            {
                "notebook": entry.name,
                "output": name,
                "partition": partition,
                "kind": f"{type(value).__module__.split('.')[0]}.{type(value).__qualname__}",
                "rows": len(value) if hasattr(value, "__len__") else None,
                "head": _records(value, arguments.rows),
            }
        )
        return 0
    print(_text(value, arguments.rows))
    return 0


def newest_partition(project: Project, entry: Entry) -> str | None:
    """The last of the partitions that have data; None for a notebook without partitions."""
    if not entry.partitioned:
        return None
    from research_jobs.orchestration.model.partitions import newest_stored

    newest = newest_stored(project.store, entry.name, entry.spec)
    if newest is None:
        raise OutputNotFoundError(
            f"'{entry.name}' has no partition with data yet",
            hint=f"Run it: research-jobs run {entry.name}",
        )
    return newest


def _text(value: Any, rows: int) -> str:
    """A value as a person reads it, at most so many rows of it."""
    kind = type(value).__module__.split(".")[0]
    if kind == "pandas" and hasattr(value, "to_string"):
        shown = value.head(rows).to_string()
        left = len(value) - rows
        return f"{shown}\n… {left:,} more rows" if left > 0 else str(shown)
    if kind == "polars" and hasattr(value, "head"):
        return str(value.head(rows))
    import pprint

    return pprint.pformat(value, width=100, sort_dicts=False)


def _records(value: Any, rows: int) -> Any:
    kind = type(value).__module__.split(".")[0]
    if kind == "pandas" and hasattr(value, "to_frame"):  # a Series or an Index
        value = value.to_frame()
    if kind == "pandas":
        frame = value.head(rows)
        named = [name for name in frame.index.names if name is not None]
        return (frame.reset_index() if named else frame).to_dict(orient="records")
    if kind == "polars":
        return value.head(rows).to_dicts() if hasattr(value, "to_dicts") else value.to_list()
    if isinstance(value, list):
        return value[:rows]  # pyright: ignore[reportUnknownVariableType] - of anything
    return value


# ---- a notebook


def _show_notebook(
    project: Project, catalog: Catalog, entry: Entry, arguments: argparse.Namespace
) -> int:
    from research_jobs.orchestration.model.instance import enter_project, open_instance
    from research_jobs.orchestration.operations.history import (
        next_ticks,
        read_history,
        schedules_of,
    )

    enter_project(project)
    with open_instance(project) as instance:
        history = read_history(instance, catalog, entry, limit=arguments.runs)
        tick = next_ticks(instance, catalog).get(entry.name)
    outputs = [_stored(project, entry, name) for name in entry.spec.outputs]
    schedules = schedules_of(catalog).get(entry.name, [])
    parameters = [
        {
            "name": parameter.name,
            "type": parameter.type,
            "default": entry.parameters.get(parameter.name, parameter.default)
            if parameter.has_default
            else parameter.default_source,
            "description": parameter.description,
        }
        for parameter in entry.notebook.parameters
    ]
    if arguments.json:
        print_json(
            {
                "notebook": entry.name,
                "path": str(entry.notebook.path),
                "description": entry.notebook.description,
                "problem": entry.error.headline if entry.error else None,
                "loads": list(entry.upstream),
                "parameters": parameters,
                "outputs": outputs,
                "schedules": schedules,
                "next_tick": tick.isoformat() if tick else None,
                "runs": [to_json(line) | {"at": iso(line.started_at)} for line in history],
            }
        )
        return 0
    _print_notebook(project, entry, parameters, outputs)
    when = (
        f"{', '.join(schedules)}; next {tick:%a %d %b %H:%M %Z}" if tick else ", ".join(schedules)
    )
    _section("Schedule", when or "none")
    now = time.time()
    _section("Last runs", "" if history else "none")
    if history:
        rows = [
            [
                ago(now - line.started_at) if line.started_at else "",
                line.state,
                duration(line.duration_s or None),
                line.partition or "",
                line.run_id[:8],
                line.reason or "",
            ]
            for line in history
        ]
        print_table(["when", "ending", "took", "partition", "run", "why"], rows, right=["took"])
    return 0


def _print_notebook(
    project: Project, entry: Entry, parameters: list[dict[str, Any]], outputs: list[dict[str, Any]]
) -> None:
    print(f"{entry.name}   {project.display(entry.notebook.path)}")
    if entry.notebook.description:
        print(f"\n{entry.notebook.description.strip()}")
    if entry.error is not None:
        _section("Cannot run", entry.error.headline)
    if entry.upstream:
        _section("Loads", ", ".join(entry.upstream))
    if parameters:
        _section("Parameters")
        print_table(
            ["name", "type", "default", "what it is"],
            [[p["name"], p["type"], str(p["default"]), p["description"]] for p in parameters],
        )
    _section("Outputs", "" if outputs else "none declared")
    if outputs:
        rows = [
            [
                output["name"],
                output["kind"] or "",
                "" if output["rows"] is None else f"{output['rows']:,}",
                readable_size(output["bytes"]) if output["bytes"] else "",
                project.display(output["path"] or ""),
            ]
            for output in outputs
        ]
        print_table(["output", "kind", "rows", "size", "path"], rows, right=["rows", "size"])


def _section(title: str, text: str = "") -> None:
    print(f"\n{title}{': ' if text else ''}{text}")


def _stored(project: Project, entry: Entry, name: str) -> dict[str, Any]:
    """What is in the store of an output, or that nothing is."""
    from research_jobs.store.codec.api import describe
    from research_jobs.store.commit import refuse_any_foreign
    from research_jobs.store.stored import stored_outputs, stored_partitions

    nothing = {"name": name, "kind": None, "rows": None, "bytes": None, "columns": [], "path": None}
    if not project.store_is_local:
        return nothing
    try:
        refuse_any_foreign(project.store, entry.name, [name], partitioned=entry.partitioned)
    except StoreError as error:
        print(error.headline, file=sys.stderr)
        if not entry.partitioned:  # else other partitions may well be ours
            return nothing
    try:
        newest_first = reversed(stored_partitions(project.store, entry.name))
        keys = newest_first if entry.partitioned else (None,)
        stored = (stored_outputs(project.store, entry.name, key) for key in keys)
        path = next((outputs[name] for outputs in stored if name in outputs), None)
    except StoreError as error:
        print(error.headline, file=sys.stderr)
        return nothing
    if path is None:
        return nothing
    if entry.partitioned:
        folder = Path(project.store, entry.name, name)
        return nothing | {"path": str(folder), "kind": "partitions"}
    try:
        described = describe(name, path)
    except (StoreError, OSError) as error:
        print(error.headline if isinstance(error, StoreError) else error, file=sys.stderr)
        return nothing | {"path": str(path)}
    return {
        "name": name,
        "kind": described.kind,
        "rows": described.rows,
        "bytes": described.bytes,
        "columns": [{"name": column, "type": type_} for column, type_ in described.columns],
        "path": str(path),
    }
