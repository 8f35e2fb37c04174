"""A stored table by its column of time: which one that is, and the table up to a moment.

A row of a day belongs to the whole day, so it is known when the day is over. A time without a zone
is local time. One that the clocks repeat is taken for the earlier of the two.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from datetime import datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from research_jobs.comparison.side import open_side
from research_jobs.store.codec import read_output, write_output
from research_jobs.store.codec.source import open_source

pc: Any = importlib.import_module("pyarrow.compute")  # its functions are created at run time
t: Any = pa.types

__all__ = ["NoTimeError", "Timeline", "cut_file", "open_timeline"]

KNOWN = ("asof", "as_of")  # when a row was known, whatever it is about
NAMES = (*KNOWN, "date", "time", "timestamp", "datetime", "day", "ts")
MICROSECOND = timedelta(microseconds=1)


class NoTimeError(Exception):
    """A value cannot be cut at a moment; the text says why and what to declare."""


@dataclass(frozen=True)
class Timeline:
    """A table's times.

    Parameters
    ----------
    column : str
        As a person knows it.
    field : str
        As the file does.
    times : pyarrow.Array
        Days, moments, or local times.
    zone : zoneinfo.ZoneInfo
        Where local times are.
    """

    column: str
    field: str
    times: Any
    zone: ZoneInfo

    def before(self, moment: datetime) -> Any:
        """Numpy.ndarray of bool: the rows that are known before a moment, or have no time."""
        kind = self.times.type
        if t.is_date(kind):
            limit = pa.scalar(moment.astimezone(self.zone).date(), pa.date32())
            found = pc.less(self.times.cast(pa.date32()), limit)
        else:
            if kind.tz is None:
                moment = _wall(moment, self.zone)
            found = pc.less(self.times, pa.scalar(moment, pa.timestamp("us", kind.tz)))
        return np.asarray(pc.fill_null(found, True))

    @property
    def daily(self) -> bool:
        """Bool: whether each time is a day."""
        if t.is_date(self.times.type):
            return True
        if self.times.type.tz is not None:
            return False
        days = pc.floor_temporal(self.times, unit="day")
        return bool(pc.all(pc.equal(days, self.times)).as_py() in (True, None))

    def moments(self) -> list[datetime]:
        """The distinct times, each as the first moment at which its rows are known, in order."""
        found = pc.unique(self.times).drop_null()
        if t.is_date(found.type) or self.daily:
            days = [day.date() if isinstance(day, datetime) else day for day in _python(found)]
            return sorted(
                datetime.combine(day + timedelta(days=1), time(), self.zone) for day in days
            )
        moments = _python(found)
        aware = [each if each.tzinfo else each.replace(tzinfo=self.zone) for each in moments]
        return sorted(each + MICROSECOND for each in aware)


def _python(times: Any) -> list[Any]:
    if t.is_timestamp(times.type):
        times = times.cast(pa.timestamp("us", times.type.tz), safe=False)
    return times.to_pylist()


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """A moment as local time, such that it is after all local times that may be before it."""
    local = moment.astimezone(zone)
    offset = local.replace(fold=0).utcoffset()
    assert offset is not None
    return moment.astimezone(timezone(offset)).replace(tzinfo=None)


def open_timeline(path: Path, zone: ZoneInfo, declared: str | None = None) -> Timeline:
    """A table's column of time.

    The declared one, one called ``asof``, an index, the only one, or one with another such name.

    Raises
    ------
    NoTimeError
    CorruptOutputError, StoreError, FileNotFoundError
    """
    side = open_side(path)
    if "row" in side.source.header.detail:
        raise NoTimeError("it has no rows")  # the entries of a dict
    if declared is not None and declared not in side.places:
        raise NoTimeError(f"it has no column {declared!r}, which `time` declares")
    names = [declared] if declared is not None else _candidates(side)
    if not names:
        raise NoTimeError("it has no column of time; declare it with `time: COLUMN`")
    if len(names) > 1:
        raise NoTimeError(
            f"it has several columns of time ({', '.join(names)}); declare one with `time: COLUMN`"
        )
    name = names[0]
    field = side.source.schema.names[side.places[name]]
    column = pq.read_table(path, columns=[field]).column(0).combine_chunks()
    return Timeline(name, field, _times(name, column), zone)


def _candidates(side: Any) -> list[str]:
    timed = [
        name
        for name in side.places
        if t.is_date(kind := side.arrow_type(name)) or t.is_timestamp(kind)
    ]
    levels = [name for name in timed if name in side.levels]
    if known := [name for name in timed if name.lower() in KNOWN]:
        return known
    if len(levels) == 1 or len(timed) == 1:
        return levels or timed
    named = [name for known in NAMES for name in timed if name.lower() == known]
    if named or timed:
        return named[:1] or timed
    text = [name for name in side.places if _is_text(side.arrow_type(name))]
    return [name for known in NAMES for name in text if name.lower() == known][:1]


def _is_text(kind: Any) -> bool:
    if t.is_dictionary(kind):
        kind = kind.value_type
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def _times(name: str, column: Any) -> Any:
    """A column as days or times."""
    if t.is_dictionary(column.type):
        column = column.dictionary_decode()
    if t.is_date(column.type) or t.is_timestamp(column.type):
        return column
    if _is_text(column.type):
        for kind in (pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
            try:
                return column.cast(pa.string()).cast(kind)
            except pa.ArrowInvalid:  # noqa: PERF203 - three times
                continue
    raise NoTimeError(f"its column {name!r} has no dates or times, but {column.type}")


def cut_file(timeline: Timeline, path: Path, moment: datetime, to: Path) -> int:
    """Write the rows of a table that are known before a moment.

    Parameters
    ----------
    timeline : Timeline
        Of the table.
    path : Path
    moment : datetime
    to : Path

    Returns
    -------
    int
        How many rows are left out.

    Raises
    ------
    NoTimeError
        For values whose rows cannot be selected.
    """
    known = timeline.before(moment)
    source = open_source(path)
    value = _rows(read_output(path), source.kind, known)
    write_output(to.stem, value, to, options={}, metadata=dict(source.header.metadata))
    return int(len(known) - known.sum())


def _rows(value: Any, kind: str, known: Any) -> Any:
    """The same kind of value, with these rows."""
    count = int(known.sum())
    library, _, name = kind.partition(".")
    if library == "pandas":
        rows = value if name == "Index" else value.iloc
        return rows[:count] if known[:count].all() else rows[known]
    if library == "polars":
        if name == "LazyFrame":
            return _rows(value.collect(), "polars.DataFrame", known).lazy()
        return value.filter(known)
    if library == "pyarrow":
        if name == "RecordBatchReader":
            table = value.read_all().filter(pa.array(known))
            return pa.RecordBatchReader.from_batches(table.schema, table.to_batches())
        return value.filter(pa.array(known))
    if isinstance(value, list) and len(value) == len(known):  # pyright: ignore[reportUnknownArgumentType]
        return [row for row, keep in zip(value, known, strict=True) if keep]  # pyright: ignore[reportUnknownVariableType]
    raise NoTimeError(f"rows of a {kind} cannot be left out")
