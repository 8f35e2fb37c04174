"""The published values that conditions of deliveries ask for, read from their Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, cast

from research_jobs.errors import ResearchJobsError, did_you_mean
from research_jobs.manifest.expression import ConditionError, parse_condition
from research_jobs.report.limits import OverBudgetError
from research_jobs.store.load import Outputs

__all__ = ["PublishedValues", "holds"]

TABLES = ("DataFrame", "LazyFrame", "Series", "Index", "Table", "RecordBatch", "table")


def holds(text: str | None, values: PublishedValues) -> bool | str:
    """Whether a condition holds; a line that says why that is not known.

    Parameters
    ----------
    text : str or None
        None holds always.
    values : PublishedValues
    """
    if text is None:
        return True
    try:
        return parse_condition(text).holds(values)
    except ConditionError as error:
        return " ".join(f"{error.what}. {error.hint}".split()).rstrip(".")
    except ResearchJobsError as error:
        return error.headline
    except (MemoryError, OverBudgetError):
        return "its values are too large to be compared"
    except Exception as error:  # noqa: BLE001 - a file, a store or a library: the report is made all the same
        return f"its values cannot be read: {type(error).__name__}: {error}".split("\n")[0]


class PublishedValues:
    """The outputs of one run of a notebook.

    Parameters
    ----------
    store, notebook : str
    partition : mapping of str to str or None
        Dimension to key.
    changed : bool or None
    """

    def __init__(
        self, store: str, notebook: str, partition: Mapping[str, str] | None, changed: bool | None
    ) -> None:
        self.changed = changed
        self._where = store, notebook, dict(partition) if partition else None
        self._open: Outputs | None = None

    @property
    def _outputs(self) -> Outputs:
        if self._open is None:
            store, notebook, partition = self._where
            self._open = Outputs(store, notebook, partition)
        return self._open

    def rows(self, output: str) -> int:
        """How many rows an output has; entries, of a mapping or a list."""
        known = self._outputs.described(output).get("rows")
        if not isinstance(known, int):
            raise ConditionError(f"{output} has no rows")
        return known

    def value(self, output: str, keys: Sequence[str | int]) -> Any:
        """What is in an output, below these keys."""
        from research_jobs.store.codec import read_output
        from research_jobs.store.codec.source import open_source

        path = self._outputs.paths(output)[0]
        kind = open_source(path).kind
        if kind.rpartition(".")[2] in TABLES:
            return _plain(_in_table(path, kind, output, keys), output, keys)
        found: Any = read_output(path)
        said = output
        for key in keys:
            found = _below(found, key, said)
            said = f"{said}.{key}" if isinstance(key, str) else f"{said}[{key}]"
        return _plain(found, output, keys)


def _below(value: Any, key: str | int, said: str) -> Any:
    if isinstance(value, Mapping):
        known = cast("Mapping[Any, Any]", value)
        if key in known:
            return known[key]
        named = {str(name): name for name in known}
        if str(key) in named:
            return known[named[str(key)]]
        hint = did_you_mean(str(key), named, label="It has")
        raise ConditionError(f"{said} has no '{key}'", hint)
    if isinstance(key, int) and hasattr(value, "__getitem__") and not isinstance(value, str):
        try:
            return value[key]
        except (IndexError, KeyError, TypeError):
            raise ConditionError(f"{said} has no entry {key}") from None
    raise ConditionError(f"{said} has nothing in it that '{key}' could name")


def _in_table(path: Any, kind: str, output: str, keys: Sequence[str | int]) -> Any:
    """A value of a frame (``prices.close[-1]``) or of a series, by label or position."""
    from research_jobs.store.codec.source import open_source, read_table

    source = open_source(path)
    left = list(keys)
    series = kind.endswith(("Series", "Index"))
    if not left:
        raise ConditionError(f"{output} is a table", f"Write rows({output}) or {output}.column[0].")
    if not series:
        label = left.pop(0)
        labels = {str(name): name for name in source.labels}
        if str(label) not in labels:
            hint = did_you_mean(str(label), labels, label="Columns")
            raise ConditionError(f"{output} has no column '{label}'", hint)
        field = source.labels[labels[str(label)]]
        column = read_table(source, [labels[str(label)]], None).column(field)
        output = f"{output}.{label}"
    else:
        table = read_table(source, None, None)
        values = [name for name in table.schema.names if name not in source.levels]
        column = table.column(values[0] if values else 0)
        if left and isinstance(left[0], str) and source.levels:
            left[0] = _position(table.column(source.levels[0]), left[0], output)
    if len(left) != 1 or not isinstance(left[0], int):
        rows = f"{len(column):,} rows"
        raise ConditionError(f"{output} has {rows}", f"Write {output}[0] or {output}[-1].")
    if not -len(column) <= left[0] < len(column):
        raise ConditionError(f"{output} has {len(column):,} rows, so no {left[0]}")
    return column[left[0] % len(column)].as_py()


def _position(level: Any, label: str, output: str) -> int:
    labels = [str(one) for one in level.to_pylist()]
    if label not in labels:
        raise ConditionError(f"{output} has no '{label}'", did_you_mean(label, labels))
    return labels.index(label)


def _plain(value: Any, output: str, keys: Sequence[str | int]) -> Any:
    """A value that can be compared: times as ISO 8601, decimals as numbers."""
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # of numpy
        value = value.item()
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    said = output + "".join(f".{key}" if isinstance(key, str) else f"[{key}]" for key in keys)
    raise ConditionError(f"{said} is a {type(value).__name__}, not a single value")
