"""Where a version was pulled from, and what was left out. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Cut", "Origin", "Sample"]


@dataclass(frozen=True)
class Cut:
    """What is taken of a table; the rest is left out.

    Parameters
    ----------
    rows : int or None
        The last rows, at most so many.
    since : str or None
        Rows from this moment on, ISO 8601.
    columns : tuple of str
        All if empty.
    """

    rows: int | None = None
    since: str | None = None
    columns: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Cut()

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Cut:
        """What `asdict` wrote."""
        rows, since = record.get("rows"), record.get("since")
        return cls(
            rows=None if rows is None else int(rows),
            since=None if since is None else str(since),
            columns=tuple(map(str, record.get("columns") or ())),
        )

    def __str__(self) -> str:
        parts = [
            f"since {self.since}" if self.since else "",
            f"the last {self.rows:,}" if self.rows is not None else "",
            f"columns {', '.join(self.columns)}" if self.columns else "",
        ]
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class Sample:
    """An output of which a part was pulled.

    Parameters
    ----------
    cut : Cut
    rows : int
        How many there are.
    of_rows : int
        How many the whole output has.
    """

    cut: Cut
    rows: int
    of_rows: int

    def __str__(self) -> str:
        return f"{self.rows:,} of {self.of_rows:,} rows ({self.cut})"


@dataclass(frozen=True)
class Origin:
    """Where a version was pulled from.

    Parameters
    ----------
    remote : str
        The remote's name.
    place : str
        Its host and folder.
    version, published_at : str
        The version there, and when it was published.
    pulled_at : str
        ISO 8601, UTC.
    samples : mapping of str to Sample
        Output to what is here of it; whole outputs are not in it.
    """

    remote: str
    place: str
    version: str
    published_at: str
    pulled_at: str
    samples: Mapping[str, Sample] = field(default_factory=dict[str, Sample])

    def as_json(self) -> dict[str, Any]:
        """As `of` reads it."""
        return asdict(self)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Origin:
        """What `as_json` wrote; a malformed record raises whatever it raises."""
        texts = {name: str(record[name]) for name in cls.__dataclass_fields__ if name != "samples"}
        samples = {
            str(name): Sample(Cut.of(item["cut"]), int(item["rows"]), int(item["of_rows"]))
            for name, item in record["samples"].items()
        }
        return cls(**texts, samples=samples)

    def describe(self, notebook: str, output: str) -> str | None:
        """That an output is a sample, of what and from when; None if it is whole."""
        sample = self.samples.get(output)
        if sample is None or (sample.rows == sample.of_rows and not sample.cut.columns):
            return None
        moment = datetime.fromisoformat(self.published_at).astimezone()
        return (
            f"{notebook}.{output} is a sample: {sample}, from {self.remote}, "
            f"published {moment:%Y-%m-%d %H:%M}"
        )
