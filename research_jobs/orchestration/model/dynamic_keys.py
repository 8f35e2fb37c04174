"""Partition keys that a notebook's output lists, read and handed to Dagster.

The output is read in another process
(``python -m research_jobs.orchestration.model.dynamic_keys``): a code server or a run worker
that once imported pandas keeps its memory for good.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from research_jobs.errors import OutputNotFoundError, PartitionError
from research_jobs.manifest.partitions import dimension_specs
from research_jobs.manifest.values import check_key
from research_jobs.orchestration.model.answers import ask_python
from research_jobs.project import Project

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from research_jobs.manifest import DynamicSpec, NotebookSpec

__all__ = ["dynamic_sources", "keys_of", "newest_dynamic_keys", "read_keys"]


def newest_dynamic_keys(instance: DagsterInstance, project: Project, spec: DynamicSpec) -> None:
    """Bring dynamic partitions up to what the output lists; without an output they stay.

    Raises
    ------
    PartitionError
        When the output cannot be read; or when there is none and no key is known either.
    """
    listed = _read(project, spec)
    if listed is not None:
        _apply(instance, spec, *_changes(instance, spec, listed))
    elif not instance.get_dynamic_partitions(spec.definition_name):
        raise _not_made(spec)


def dynamic_sources(spec: NotebookSpec) -> list[DynamicSpec]:
    """The outputs that list partitions of a notebook."""
    return [d.dynamic for d in dimension_specs(spec).values() if d.dynamic is not None]


def changes(
    instance: DagsterInstance, project: Project, spec: DynamicSpec
) -> tuple[list[str], list[str]]:
    """Keys that the output lists and Dagster does not know; with ``prune``, those to remove."""
    return _changes(instance, spec, read_keys(project, spec))


def _changes(
    instance: DagsterInstance, spec: DynamicSpec, listed: Sequence[str]
) -> tuple[list[str], list[str]]:
    known = instance.get_dynamic_partitions(spec.definition_name)
    present, wanted = set(known), set(listed)
    added = [key for key in listed if key not in present]
    removed = [key for key in known if key not in wanted] if spec.prune else []
    return added, removed


def _apply(
    instance: DagsterInstance, spec: DynamicSpec, added: Sequence[str], removed: Sequence[str]
) -> None:
    if added:
        instance.add_dynamic_partitions(spec.definition_name, added)
    for key in removed:
        instance.delete_dynamic_partition(spec.definition_name, key)


def read_keys(project: Project, spec: DynamicSpec) -> list[str]:
    """The keys that the stored output lists, in its order.

    Raises
    ------
    PartitionError
        When there is no such output yet, or it is not a list of keys.
    """
    keys = _read(project, spec)
    if keys is None:
        raise _not_made(spec)
    return keys


def _not_made(spec: DynamicSpec) -> PartitionError:
    return PartitionError(
        f"partitions are listed by {spec.notebook}, output {spec.output}, which has not run yet",
        hint=f"Run it first: research-jobs run {spec.notebook}",
    )


def _read(project: Project, spec: DynamicSpec) -> list[str] | None:
    """As `read_keys`; None where there is no such output yet."""
    asked = {
        "root": str(project.root),
        "store": project.store,
        "notebook": spec.notebook,
        "output": spec.output,
        "column": spec.column,
    }
    # A sensor's evaluation has a minute.
    answer = ask_python(["-m", __spec__.name, json.dumps(asked)], 50)
    if answer.get("missing"):
        return None
    if "error" in answer:
        raise PartitionError(f"partitions from {spec.notebook}/{spec.output}: {answer['error']}")
    return [str(key) for key in answer["keys"]]


def keys_of(value: Any, column: str | None = None) -> list[str]:
    """A value's partition keys: of a list, a set, a dict's keys, a series, or a table's column.

    Parameters
    ----------
    value : Any
        Whatever `research_jobs.load` gives.
    column : str, optional
        The column of a table.

    Returns
    -------
    list of str
        In order, each once, without missing ones.

    Raises
    ------
    ValueError
        When it does not list keys, or has an entry that cannot be a key.
    """
    value = _column(value, column)
    for method in ("to_list", "tolist"):
        if hasattr(value, method):
            value = getattr(value, method)()
            break
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError(f"a {type(value).__name__} is not a list of keys")  # noqa: TRY004 - as its siblings
    found: dict[str, None] = {}
    for item in value:
        if item is None or item != item:  # noqa: PLR0124 - nan and NaT differ from themselves
            continue
        found[check_key(_text(item))] = None
    return list(found)


def _column(value: Any, column: str | None) -> Any:
    """A table's column of keys; anything else as it is."""
    columns = getattr(value, "columns", None)
    if columns is None or isinstance(value, (dict, str)):
        if column is not None:
            raise ValueError(f"column '{column}' is named, but a {type(value).__name__} has none")
        return value
    names = [str(name) for name in columns]
    if column is None and len(names) != 1:
        raise ValueError(f"a table of {len(names)} columns: name one with column:")
    wanted = column if column is not None else names[0]
    if wanted not in names:
        raise ValueError(f"no column '{wanted}'; there are {', '.join(names)}")
    return value[columns[names.index(wanted)]]


def _text(item: Any) -> str:
    if isinstance(item, datetime) and item.time() == datetime.min.time():
        item = item.date()
    return item.isoformat() if isinstance(item, date) else str(item)


def _main(argument: str) -> None:
    request = json.loads(argument)
    from pathlib import Path

    from research_jobs.store.load import load

    project = Project(root=Path(request["root"]), store=request["store"])
    try:
        value = load(request["notebook"], request["output"], project=project)
        answer: dict[str, Any] = {"keys": keys_of(value, request["column"])}
    except OutputNotFoundError:
        answer = {"missing": True}
    except Exception as error:  # noqa: BLE001 - the parent tells it, whatever it is
        text = str(error).splitlines()
        answer = {"error": text[0] if text else type(error).__name__}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1])
