"""A stored table with fewer rows and columns, cut row group by row group: memory for one of them.

The file reads as `load()` reads the whole one with these columns and filters. pyarrow is needed
here, and the library that the value is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from research_jobs.errors import StoreError
from research_jobs.store.codec.base import FOREIGN, PANDAS_KINDS, ROW_GROUP
from research_jobs.store.codec.parquet import KEY, Header, decoding, open_parquet
from research_jobs.store.codec.source import Source, open_source, selected_fields, typed_value
from research_jobs.store.origin import Cut

__all__ = ["cut_file"]


@dataclass(frozen=True)
class _Since:
    """Rows from a moment on."""

    field: str
    moment: Any

    def matches(self, batch: Any) -> Any:
        return pc.call_function("greater_equal", [batch.column(self.field), self.moment])


def cut_file(path: Path, target: Path, cut: Cut) -> tuple[int, int]:
    """Write a file with a part of a table.

    Parameters
    ----------
    path, target : Path
    cut : Cut

    Returns
    -------
    rows, of_rows : int
        How many rows the new file and the whole one have.

    Raises
    ------
    StoreError
        When there is no such column, or none of times where it is needed.
    """
    source = open_source(path)
    with open_parquet(path, source.footer) as file, decoding(path):
        labels = {str(label): label for label in source.labels}
        columns = [labels.get(text, text) for text in cut.columns] or None
        names: list[str] = selected_fields(source, columns) or list(source.schema.names)
        since = _since(source, cut.since) if cut.since is not None else None
        counts = _counts(file, since)
        wanted = sum(counts) if cut.rows is None else min(cut.rows, sum(counts))
        schema = _schema(source, names, wanted)
        with pq.ParquetWriter(str(target), schema, compression="zstd") as writer:
            for batch in _batches(file, counts, sum(counts) - wanted, names, since):
                cut_batch = batch.replace_schema_metadata(schema.metadata)
                writer.write_batch(cut_batch, row_group_size=ROW_GROUP)
    return wanted, source.footer.num_rows


def _since(source: Source, text: str) -> _Since:
    """The column of times by which rows are chosen: of the index, else the first."""
    ordered = [*source.levels, *(name for name in source.schema.names)]
    for name in ordered:
        kind = source.schema.field(name).type
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return _Since(name, pa.scalar(typed_value(text, kind), type=kind))
    raise StoreError(
        f"{source.path} has no column of times to choose rows by",
        hint="Use --rows, or leave --since out.",
    )


def _counts(file: Any, since: _Since | None) -> list[int]:
    """The rows that are chosen of each row group."""
    if since is None:
        return [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    return [
        sum(since.matches(batch).true_count for batch in _group(file, n, [since.field]))
        for n in range(file.num_row_groups)
    ]


def _group(file: Any, number: int, names: Sequence[str]) -> Iterator[Any]:
    yield from file.iter_batches(
        batch_size=ROW_GROUP, row_groups=[number], columns=list(names), use_threads=False
    )


def _batches(
    file: Any, counts: Sequence[int], skip: int, names: Sequence[str], since: _Since | None
) -> Iterator[Any]:
    """The chosen rows behind the first `skip` of them."""
    read = list(dict.fromkeys([*names, since.field])) if since is not None else names
    for number, count in enumerate(counts):
        if count <= skip:
            skip -= count
            continue
        for batch in _group(file, number, read):
            chosen = batch if since is None else batch.filter(since.matches(batch))
            here = chosen.num_rows
            if here > skip:
                yield chosen.slice(skip).select(list(names))
            skip = max(skip - here, 0)


def _schema(source: Source, names: Sequence[str], rows: int) -> Any:
    """The new file's schema, with our record of the value as it is now."""
    header = source.header
    if header.kind in PANDAS_KINDS:
        from research_jobs.store.codec.pandas_decode import cut_detail

        detail = cut_detail(header.detail, source.schema.names, names, rows)
        header = Header(header.kind, detail, header.metadata)
    whole = source.schema.metadata or {}
    metadata = whole if header.kind == FOREIGN else whole | {KEY: header.dump().encode()}
    fields = [source.schema.field(name) for name in names]
    return pa.schema(fields, metadata=metadata or None)
