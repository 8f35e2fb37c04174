"""Several partitions as one table, with their keys as columns. pyarrow is needed here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from research_jobs.errors import StoreError, first_line
from research_jobs.store.codec.base import PANDAS_KINDS
from research_jobs.store.codec.parquet import decoding
from research_jobs.store.codec.reading import read_file
from research_jobs.store.codec.registry import is_table
from research_jobs.store.codec.source import Source, normal_form, open_source, read_table

__all__ = ["read_partitions"]

Part = tuple[Mapping[str, str], Path]
THREADS = 8  # files are opened in parallel: most of the time is spent waiting for footers


def read_partitions(
    parts: Sequence[Part], *, columns: Sequence[Any] | None, filters: Any, as_: str
) -> Any:
    """Read several files as one value.

    Parameters
    ----------
    parts : sequence of (mapping, Path)
        Dimension to key, and the file.
    columns, filters
        As in `read_output`; they may also name the partition's columns.
    as_ : str

    Returns
    -------
    object
        One table with the keys as last columns; for other values, a dict from partition key to
        value.
    """
    parts, wanted = _prune(parts, filters)
    if isinstance(columns, str):
        columns = [columns]
    with decoding(parts[0][1].parent):
        return _read_parts(parts, wanted, columns, as_)


def _read_parts(
    parts: Sequence[Part], wanted: Sequence[Any], columns: Sequence[Any] | None, as_: str
) -> Any:
    if as_ == "lazy":
        return _lazy(parts, wanted, columns)
    with ThreadPoolExecutor(THREADS) as pool:
        sources = list(pool.map(lambda part: open_source(part[1]), parts))
        kinds = {source.kind for source in sources}
        if as_ == "native" and kinds == {"polars.LazyFrame"}:
            return _lazy(parts, wanted, columns)
        if as_ == "native" and not all(map(is_table, kinds)):
            return {
                "|".join(keys.values()): read_file(path, columns=columns, filters=rest, as_=as_)
                for (keys, path), rest in zip(parts, wanted, strict=True)
            }
        form = _form(as_, kinds)
        own = [_file_columns(source, sources, parts, columns) for source in sources]
        if form == "pandas" and len(kinds) == 1 and _same_recipe(sources):
            found = _as_pandas_at_once(pool, sources, parts, wanted, own[0], columns)
        else:
            paths = [path for _, path in parts]
            values = list(pool.map(_reader(form), paths, wanted, own))
            with _joining():
                found = _JOINS[form](values, [keys for keys, _ in parts], columns)
    if columns is None or {label for labels in own for label in labels or ()} <= set(columns):
        return found
    return found[list(columns)] if form == "pandas" else found.select(list(columns))


@contextmanager
def _joining() -> Generator[None]:
    """Whatever a library raises for types that it cannot join becomes an error of ours."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise StoreError(
            f"a column differs in type between these partitions: {first_line(error)}",
            hint='Read them one by one, or as_="pandas".',
        ) from error


def _form(as_: str, kinds: set[str]) -> str:
    if as_ != "native":
        return as_
    families = {kind.split(".")[0] for kind in kinds}
    if families == {"polars"}:
        return "polars"
    return "arrow" if families == {"pyarrow"} else "pandas"


def _reader(form: str) -> Callable[[Path, Any, Sequence[Any] | None], Any]:
    def read(path: Path, filters: Any, columns: Sequence[Any] | None) -> Any:
        nothing = filters is _NOTHING
        value = read_file(path, columns=columns, filters=None if nothing else filters, as_=form)
        if not nothing:
            return value
        return value.slice(0, 0) if form == "arrow" else value.head(0)

    return read


def _prune(parts: Sequence[Part], filters: Any) -> tuple[list[Part], list[Any]]:
    """The partitions whose keys match the filters, each with the remaining filters."""
    dimensions = set(parts[0][0]) if parts else set[str]()
    if filters is None or not isinstance(filters, (list, tuple)):
        return list(parts), [filters] * len(parts)
    groups = normal_form(filters)
    kept: list[Part] = []
    rests: list[Any] = []
    for keys, path in parts:
        rest: list[Any] = []
        for group in groups:
            tests = [term for term in group if term[0] in dimensions]
            if all(_holds(keys[name], operator, value) for name, operator, value in tests):
                rest.append([term for term in group if term[0] not in dimensions])
        if rest:
            kept.append((keys, path))
            rests.append(None if not all(rest) else rest)
    if not kept and parts:  # no rows at all: the columns of one, without rows
        keys, path = parts[0]
        return [(keys, path)], [_NOTHING]
    return kept, rests


_NOTHING: list[Any] = []


def _holds(key: str, operator: str, value: Any) -> bool:
    if operator in ("in", "not in"):
        return (key in {_text(item) for item in value}) == (operator == "in")
    text = _text(value)
    return {
        "=": key == text,
        "==": key == text,
        "!=": key != text,
        "<": key < text,
        "<=": key <= text,
        ">": key > text,
        ">=": key >= text,
    }[operator]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _file_columns(
    source: Source, sources: Sequence[Source], parts: Sequence[Part], columns: Sequence[Any] | None
) -> list[Any] | None:
    """The columns to read from a file: the requested ones that it has.

    One that is in other files only is missing in its rows. If it has none of them, any other
    column is read: a table without columns has no rows to which keys could be added.
    """
    if columns is None:
        return None
    for label in columns:
        if label not in parts[0][0] and not any(label in each.labels for each in sources):
            source.field(label)  # raises
    return [label for label in columns if label in source.labels] or list(source.labels)[:1]


def _added(keys: Mapping[str, str], has: Callable[[str], bool], columns: Any) -> dict[str, str]:
    """The partition columns to add to a table: the requested ones that it does not have."""
    return {
        name: key
        for name, key in keys.items()
        if not has(name) and (columns is None or name in columns)
    }


def _same_recipe(sources: Sequence[Source]) -> bool:
    first = sources[0]
    return first.kind in PANDAS_KINDS and all(
        source.schema.equals(first.schema) and _recipe(source) == _recipe(first)
        for source in sources
    )


def _recipe(source: Source) -> dict[str, Any]:
    """What must match for tables to be joined before they become frames."""
    detail = dict(source.header.detail)
    index = dict(detail["index"])
    if "range" in index:
        index["range"] = "range" if "levels" not in index else index["range"]
    index.pop("freq", None)
    return detail | {"index": index}


def _as_pandas_at_once(
    pool: ThreadPoolExecutor,
    sources: Sequence[Source],
    parts: Sequence[Part],
    filters: Sequence[Any],
    own: Sequence[Any] | None,
    columns: Any,
) -> Any:
    """Join in Arrow, then create one frame: thousands of small frames would take far longer."""
    from research_jobs.store.codec.pandas_decode import decode_pandas

    tables = list(pool.map(lambda source, wanted: _table(source, own, wanted), sources, filters))
    first = sources[0]
    joined = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    frame = decode_pandas(
        joined, first.kind, first.header.detail, first.schema.names, filtered=True
    )
    lengths = [table.num_rows for table in tables]
    return _with_keys(frame, [keys for keys, _ in parts], lengths, columns)


def _table(source: Source, columns: Sequence[Any] | None, filters: Any) -> Any:
    if filters is _NOTHING:
        return read_table(source, columns, None).slice(0, 0)
    return read_table(source, columns, filters)


def _with_keys(
    frame: Any, keys: Sequence[Mapping[str, str]], lengths: Sequence[int], columns: Any
) -> Any:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        frame = frame.to_frame(**({"index": False} if isinstance(frame, pd.Index) else {}))
    own = set(frame.index.names)
    if frame.columns.nlevels > 1:
        own.update(label[0] for label in frame.columns)
    for name in keys[0]:
        if _added({name: ""}, lambda name: name in frame.columns or name in own, columns):
            texts = pd.array([item[name] for item in keys], dtype=pd.Series([""]).dtype)
            frame[name] = texts.repeat(lengths)
    return frame


def _join_pandas(values: list[Any], keys: Sequence[Mapping[str, str]], columns: Any) -> Any:
    import pandas as pd

    frames = [
        _with_keys(value, [each], [len(value)], columns)
        for value, each in zip(values, keys, strict=True)
    ]
    # pandas takes dtypes from frames without rows too; only frames with rows should decide.
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    running = all(type(frame.index) is pd.RangeIndex for frame in filled)
    return pd.concat(filled, ignore_index=running)


def _join_polars(values: list[Any], keys: Sequence[Mapping[str, str]], columns: Any) -> Any:
    import polars as pl

    frames: list[Any] = []
    for value, each in zip(values, keys, strict=True):
        frame = value.to_frame() if isinstance(value, pl.Series) else value
        added = _added(each, frame.columns.__contains__, columns)
        frames.append(frame.with_columns(**{name: pl.lit(key) for name, key in added.items()}))
    return pl.concat(frames, how="diagonal_relaxed")


def _join_arrow(values: list[Any], keys: Sequence[Mapping[str, str]], columns: Any) -> Any:
    tables: list[Any] = []
    for value, each in zip(values, keys, strict=True):
        table = value.replace_schema_metadata(None)
        for name, key in _added(each, table.schema.names.__contains__, columns).items():
            column = pa.repeat(pa.scalar(key, pa.string()), table.num_rows)
            table = table.append_column(name, column)
        tables.append(table)
    return pa.concat_tables(tables, promote_options="permissive")


_JOINS: dict[str, Callable[[list[Any], Sequence[Mapping[str, str]], Any], Any]] = {
    "pandas": _join_pandas,
    "polars": _join_polars,
    "arrow": _join_arrow,
}


def _lazy(parts: Sequence[Part], filters: Sequence[Any], columns: Sequence[Any] | None) -> Any:
    import polars as pl

    frames: list[Any] = []
    for (keys, path), wanted in zip(parts, filters, strict=True):
        nothing = wanted is _NOTHING
        frame = read_file(path, columns=None, filters=None if nothing else wanted, as_="lazy")
        if nothing:
            frame = frame.head(0)
        names = frame.collect_schema().names()
        added = _added(keys, names.__contains__, None)
        frames.append(frame.with_columns(**{name: pl.lit(key) for name, key in added.items()}))
    with _joining():
        joined = pl.concat(frames, how="diagonal_relaxed")
        known = joined.collect_schema().names()
    if columns is None:
        return joined
    missing = [label for label in columns if label not in known]
    if missing:
        raise StoreError(f"there is no column {missing[0]!r} in these partitions")
    return joined.select(list(columns))
