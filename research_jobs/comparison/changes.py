"""What differs, as data: of a table, of a value, of an output."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "CellChange",
    "ColumnChange",
    "Comparison",
    "OutputChange",
    "RowChange",
    "TableChange",
    "ValueChange",
    "ValuesChange",
    "to_json",
]


@dataclass(frozen=True)
class CellChange:
    """One value of a table, before and after.

    Parameters
    ----------
    key : str
        The row, as ``2018-11-01, AAPL``.
    before, after : object
        Numbers as they are, everything else as short text; None where it is missing.
    change : float
        ``after - before``.
    relative : float
        The size of the change as a part of what was there; infinite where that was 0.
    """

    key: str
    before: Any
    after: Any
    change: float
    relative: float


@dataclass(frozen=True)
class ColumnChange:
    """What differs in one column.

    Parameters
    ----------
    status : {"added", "removed", "changed"}
    type_before, type_after : str or None
        Types, where the column is new, gone, or has another one.
    changed : int
        Values that differ, in rows that both sides have.
    appeared, vanished : int
        Those of them that were missing before, and that are missing now.
    largest, largest_relative : CellChange or None
        Of a column of numbers: the largest change, and the largest as a part of what was there.
    typical, typical_relative : float or None
        The median size of the changes.
    compared : bool
        False where values of the two types cannot be compared.
    """

    status: str = "changed"
    type_before: str | None = None
    type_after: str | None = None
    changed: int = 0
    appeared: int = 0
    vanished: int = 0
    largest: CellChange | None = None
    largest_relative: CellChange | None = None
    typical: float | None = None
    typical_relative: float | None = None
    compared: bool = True


@dataclass(frozen=True)
class RowChange:
    """A row as an example.

    Parameters
    ----------
    key : str
    cells : mapping of str to (str, str)
        Column to its value before and after; empty for a row that only one side has.
    """

    key: str
    cells: Mapping[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])


@dataclass(frozen=True)
class TableChange:
    """What differs between two tables.

    Parameters
    ----------
    rows_before, rows_after : int
    rows_added, rows_removed, rows_changed : int
    key : tuple of str
        The columns by which rows were matched.
    key_reason : str
        Where that key is from, or how rows were matched without one.
    columns : mapping of str to ColumnChange
        Those that differ.
    shared : tuple of str
        The columns that both versions have.
    added, removed, changed : tuple of RowChange
        A few examples of each.
    """

    rows_before: int
    rows_after: int
    rows_added: int = 0
    rows_removed: int = 0
    rows_changed: int = 0
    key: tuple[str, ...] = ()
    key_reason: str = ""
    columns: Mapping[str, ColumnChange] = field(default_factory=dict[str, ColumnChange])
    shared: tuple[str, ...] = ()
    added: tuple[RowChange, ...] = ()
    removed: tuple[RowChange, ...] = ()
    changed: tuple[RowChange, ...] = ()

    @property
    def equal(self) -> bool:
        """Bool: whether nothing differs."""
        return not (self.rows_added or self.rows_removed or self.rows_changed or self.columns)


@dataclass(frozen=True)
class ValueChange:
    """A part of a value that is no table.

    Parameters
    ----------
    path : str
        ``best.sharpe``, ``[3]``; empty for the value itself.
    what : {"added", "removed", "changed", "type"}
    before, after : object
        Numbers as they are, everything else as short text.
    change, relative : float or None
        As in `CellChange`, of numbers.
    """

    path: str
    what: str
    before: Any = None
    after: Any = None
    change: float | None = None
    relative: float | None = None


@dataclass(frozen=True)
class ValuesChange:
    """What differs between two values that are no tables.

    Parameters
    ----------
    compared : int
        Parts that were compared.
    added, removed, changed : int
    changes : tuple of ValueChange
        The first ones.
    """

    compared: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    changes: tuple[ValueChange, ...] = ()

    @property
    def equal(self) -> bool:
        """Bool: whether nothing differs."""
        return not (self.added or self.removed or self.changed)


@dataclass(frozen=True)
class OutputChange:
    """What differs in one output.

    Parameters
    ----------
    status : {"both", "added", "removed"}
        Whether both versions have it.
    kind_before, kind_after : str or None
        The values' types.
    table : TableChange or None
    parts : ValuesChange or None
        Of a value that is no table.
    notes : tuple of str
        What else differs, such as an array's shape.
    """

    status: str = "both"
    kind_before: str | None = None
    kind_after: str | None = None
    table: TableChange | None = None
    parts: ValuesChange | None = None
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Bool: whether nothing differs."""
        compared = (self.table, self.parts)
        return (
            self.status == "both"
            and self.kind_before == self.kind_after
            and not self.notes
            and all(part is None or part.equal for part in compared)
        )


@dataclass(frozen=True)
class Comparison:
    """What differs between two versions of a notebook's outputs.

    Parameters
    ----------
    outputs : mapping of str to OutputChange
    """

    outputs: Mapping[str, OutputChange] = field(default_factory=dict[str, OutputChange])

    @property
    def equal(self) -> bool:
        """Bool: whether nothing differs."""
        return all(output.equal for output in self.outputs.values())


def to_json(change: Any) -> Any:
    """A comparison or a part of it as JSON.

    Each output has ``equal``, ``rows_added``, ``rows_removed``, ``rows_changed`` and ``columns``,
    whatever it is: of a value that is no table, these are its parts.
    """
    if isinstance(change, Comparison):
        outputs = {name: to_json(output) for name, output in change.outputs.items()}
        return {"equal": change.equal, "outputs": outputs}
    if isinstance(change, OutputChange):
        return _output(change)
    if dataclasses.is_dataclass(change) and not isinstance(change, type):
        fields = dataclasses.fields(change)
        return {each.name: to_json(getattr(change, each.name)) for each in fields}
    if isinstance(change, Mapping):
        return {str(key): to_json(item) for key, item in change.items()}
    if isinstance(change, (list, tuple)):
        return [to_json(item) for item in change]
    if isinstance(change, float) and not math.isfinite(change):
        return str(change)
    return change


def _output(change: OutputChange) -> dict[str, Any]:
    table, parts = change.table, change.parts
    found: dict[str, Any] = {
        "equal": change.equal,
        "status": change.status,
        "kind_before": change.kind_before,
        "kind_after": change.kind_after,
        "notes": list(change.notes),
        "rows_added": 0,
        "rows_removed": 0,
        "rows_changed": 0,
        "columns": {},
    }
    if table is not None:
        found |= to_json(table)
    elif parts is not None:
        found |= {f"rows_{name}": getattr(parts, name) for name in ("added", "removed", "changed")}
        found["parts"] = to_json(parts.changes)
    return found
