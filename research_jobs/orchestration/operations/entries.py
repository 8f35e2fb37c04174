"""Find the notebooks that a call names. Nothing of Dagster here."""

from __future__ import annotations

from collections.abc import Iterable

from research_jobs.errors import NotebookNotFoundError, did_you_mean
from research_jobs.notebook.discovery import why_not
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.project import notebook_name

__all__ = ["find_entries"]


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
