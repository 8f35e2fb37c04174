"""The notebooks that a call names, and the parameters that it gives. Nothing of Dagster here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from research_jobs.errors import NotebookNotFoundError, ParameterError, did_you_mean
from research_jobs.notebook.discovery import why_not
from research_jobs.notebook.parameters import convert_parameters
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.config import partition_parameters, settable_parameters
from research_jobs.project import notebook_name

__all__ = ["find_entries", "given_parameters"]


def find_entries(catalog: Catalog, names: Iterable[str]) -> list[Entry]:
    """The named notebooks, in the order given; all of them when none is named.

    Raises
    ------
    NotebookNotFoundError
        With close names, or with the reason why a file of the name is not a notebook.
    """
    found: dict[str, Entry] = {}
    for text in names:
        name = notebook_name(text)
        entry = catalog.entries.get(name)
        if entry is None:
            reason = why_not(catalog.project.notebooks, text)
            if reason is not None:
                raise reason
            raise NotebookNotFoundError(
                f"there is no notebook '{text}' in {catalog.project.notebooks}",
                hint=did_you_mean(name, catalog.entries, label="Notebooks")
                or "Begin one with `research-jobs new NAME`.",
            )
        found[name] = entry
    return list(found.values()) or list(catalog)


def given_parameters(
    catalog: Catalog, names: Iterable[str], values: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Values from the command line, by notebook: each for those that have the parameter.

    Raises
    ------
    ParameterError
        When none has it, or a value does not convert.
    """
    if not values:
        return {}
    entries = [catalog.entries[name] for name in names if name in catalog.entries]
    _check_names(entries, values)
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        mine = {name: value for name, value in values.items() if name in settable_parameters(entry)}
        if mine:
            found[entry.name] = {}
            for name, value in mine.items():
                found[entry.name] |= convert_parameters(
                    entry.notebook.parameters,
                    {name: value},
                    notebook=entry.name,
                    where=f"-p {name}",
                    text=True,
                )
    return found


def _check_names(entries: Sequence[Entry], values: Mapping[str, str]) -> None:
    known = {name for entry in entries for name in settable_parameters(entry)}
    for name in values:
        if name in known:
            continue
        for entry in entries:
            entry.spec.refuse_secrets([name])
            if name in partition_parameters(entry):
                raise ParameterError(
                    f"-p {name}: it is set by {entry.name}'s partitions",
                    hint="Say which partition: --partition KEY (of run), or --partitions KEY"
                    " (of backfill).",
                )
        which = entries[0].name if len(entries) == 1 else "none of these notebooks"
        has = "has no" if len(entries) == 1 else "has a"
        raise ParameterError(
            f"-p {name}: {which} {has} parameter '{name}'",
            hint=did_you_mean(name, known, label="Parameters")
            or 'Tag the cell that assigns it: # %% tags=["parameters"]',
        )
