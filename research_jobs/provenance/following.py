"""Follow a difference to its cause: an input that changed is followed to why it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from research_jobs.comparison.changes import OutputChange
from research_jobs.comparison.outputs import compare_output
from research_jobs.errors import ResearchJobsError
from research_jobs.provenance.causes import Cause, causes
from research_jobs.provenance.record import Load, find_record
from research_jobs.store.layout import read_segments
from research_jobs.store.stored import published_files

__all__ = ["Two", "briefly", "changed_input", "explain", "key_of"]

DEPTH = 6


@dataclass(frozen=True)
class Two:
    """Two runs of a notebook.

    Parameters
    ----------
    notebook : str
    before, after : str
        Their ids.
    partition : str or None
    """

    notebook: str
    before: str
    after: str
    partition: str | None = None


def explain(
    two: Two,
    *,
    reports: Path,
    store: str,
    folder: Path | None = None,
    differ: bool = True,
    first_cell: str | None = None,
    depth: int = DEPTH,
) -> tuple[Cause, ...]:
    """Why two runs made different outputs.

    Parameters
    ----------
    two : Two
    reports : Path
        The folder of all reports.
    store : str
    folder : Path, optional
        For tables that are too large to be compared in memory.
    differ : bool
        Whether their outputs differ.
    first_cell : str, optional
        The first cell that showed something else.
    depth : int
        How many notebooks upstream are followed.

    Returns
    -------
    tuple of Cause
    """
    runs = (two.before, two.after)
    found = [find_record(reports, two.notebook, run, two.partition) for run in runs]
    if found[0] is None or found[1] is None:
        missing = two.before if found[0] is None else two.after
        return (Cause("unknown", f"the report of run {missing[:8]} is not kept"),) if differ else ()
    before, after = found[0][1], found[1][1]

    def followed(old: Load, new: Load) -> Cause | None:
        cause = changed_input(old, new, store=store, folder=folder)
        if cause is None or depth <= 0:
            return cause
        above = Two(new.notebook, old.run_id, new.run_id, key_of(new.partition))
        because = explain(above, reports=reports, store=store, folder=folder, depth=depth - 1)
        return replace(cause, because=because)

    return causes(
        reports, before, after, differ=differ, input_cause=followed, first_cell=first_cell
    )


def changed_input(old: Load, new: Load, *, store: str, folder: Path | None) -> Cause | None:
    """The cause that another version of an input is; None where it holds the same.

    Parameters
    ----------
    old, new : Load
    store : str
        The project's.
    folder : Path or None
        As in `explain`.
    """
    change = _compared(old, new, store, folder)
    if change is not None and change.equal:
        return None
    return Cause("input", f"{new.name} {briefly(change) if change is not None else 'changed'}")


def key_of(segments: Sequence[str]) -> str | None:
    """The partition of a load's folders; None without one."""
    return read_segments(tuple(segments)).key if segments else None


def _compared(old: Load, new: Load, store: str, folder: Path | None) -> OutputChange | None:
    """What differs between two versions of an input; None where one is no longer kept."""
    place = (new.notebook, new.partition)
    try:
        with (
            published_files(old.store or store, *place, old.version) as was,
            published_files(new.store or store, *place, new.version) as now,
        ):
            if was is None or now is None:
                return None
            return compare_output(was[1][new.output], now[1][new.output], folder=folder)
    except (ResearchJobsError, OSError, KeyError):
        return None


def briefly(change: OutputChange) -> str:
    """What differs in an output, in a few words: ``got 1 row, 3 rows changed``."""
    if change.status != "both":
        return f"was {change.status}"
    if change.kind_before != change.kind_after:
        return f"is a {change.kind_after}, and was a {change.kind_before}"
    return ", ".join(_counts(change)) or "; ".join(change.notes) or "changed"


def _counts(change: OutputChange) -> Iterator[str]:
    table, parts = change.table, change.parts
    if table is not None:
        rows = (
            ("got", table.rows_added, ""),
            ("lost", table.rows_removed, ""),
            ("has", table.rows_changed, " that changed"),
        )
        for verb, count, tail in rows:
            if count:
                yield f"{verb} {count:,} row{'s' if count > 1 else ''}{tail}"
        odd = [name for name, column in table.columns.items() if column.status != "changed"]
        if odd:
            yield f"columns {', '.join(odd[:5])} came or went"
    elif parts is not None:
        number = parts.added + parts.removed + parts.changed
        first = parts.changes[0] if parts.changes else None
        if first is not None and number == 1 and first.what == "changed":
            place = f" at {first.path}" if first.path else ""
            yield f"changed{place}: {first.before} → {first.after}"
        else:
            yield f"has {number:,} parts that differ"
