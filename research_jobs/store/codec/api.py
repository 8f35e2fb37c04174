"""Write and read one output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.errors import ResearchJobsError, StoreError, first_line
from research_jobs.failpoints import failpoint
from research_jobs.filesystem import temporary_path
from research_jobs.outcome import StagedOutput
from research_jobs.store.files import disk

if TYPE_CHECKING:
    from research_jobs.store.codec.base import Encoded
    from research_jobs.store.codec.parquet import Header

__all__ = ["WRITE_FAILPOINTS", "read_file_header", "read_output", "write_output"]

WRITE_FAILPOINTS = ("write.begin", "write.written", "write.synced", "write.renamed")


def write_output(
    name: str,
    value: Any,
    path: Path,
    *,
    options: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> StagedOutput:
    """Write an output's value as Parquet, completely and synced, or not at all.

    Parameters
    ----------
    name : str
        The variable's name.
    value : object
    path : Path
        The file's path. An existing file is replaced only by a complete one.
    options : mapping
        ``compression``, ``compression_level``, ``row_group_size`` (rows), ``statistics``,
        ``dictionary``; other keys are ignored.
    metadata : mapping of str to str
        Notebook, run id, partition, code version: written into the footer.

    Returns
    -------
    StagedOutput

    Raises
    ------
    OutputNotParquetError
        When it would not be read back unchanged; names the output, the column and the type.
    StoreError
        When the file cannot be written.
    """
    from research_jobs.store.codec import parquet
    from research_jobs.store.codec.base import ErrorContext
    from research_jobs.store.codec.typed_json import type_name

    encoded = encode_value(name, value)
    path = Path(path)
    temporary = temporary_path(path)
    failpoint("write.begin")
    try:
        try:
            parquet.write_encoded(encoded, temporary, parquet.WriteOptions.of(options), metadata)
        except (OSError, ResearchJobsError):
            raise
        except Exception as error:
            # Streams and lazy frames run the notebook's own code here: it may raise anything.
            kind = f"type {type_name(value)} ({first_line(error)})"
            raise ErrorContext(name).error(kind) from error
        failpoint("write.written")
        if encoded.check is not None:
            encoded.check(temporary)
        staged = describe(name, temporary)
        disk().sync_file(temporary)
        failpoint("write.synced")
        disk().rename(temporary, path)
        failpoint("write.renamed")  # the name need not be durable: publishing moves the file
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(
            f"output '{name}' cannot be written to {path}: {reason}",
            hint="What was published before is unchanged.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return replace(staged, path=str(path))


def encode_value(name: str, value: Any) -> Encoded:
    """A value as columns; only its own library is imported."""
    from research_jobs.store.codec.base import ErrorContext
    from research_jobs.store.codec.plain import encode_plain
    from research_jobs.store.codec.registry import codec_of

    place = ErrorContext(name)
    for cls in type(value).__mro__:
        codec = codec_of(cls.__module__)
        encoded = None if codec is None else codec.encode(value, place)
        if encoded is not None:
            return encoded
    return encode_plain(value, place)


def describe(name: str, path: Path) -> StagedOutput:
    """The description of a written file, from its footer and first rows."""
    from research_jobs.store.codec import parquet

    with parquet.open_parquet(path) as file, parquet.decoding(path):
        header = parquet.read_header(path, file.metadata)
        schema = file.schema_arrow
        return StagedOutput(
            name=name,
            path=str(path),
            kind=header.kind,
            rows=_rows(file.metadata, header),
            bytes=path.stat().st_size,
            columns=tuple((field.name, str(field.type)) for field in schema),
            preview=parquet.preview(file, header),
            statistics=parquet.statistics(file.metadata, schema),
        )


def _rows(metadata: Any, header: Header) -> int:
    """The number of rows; for a dict its entries, though they are stored in one row."""
    if "row" in header.detail:
        return len(header.detail["row"])
    return metadata.num_rows


def read_file_header(path: Path) -> Header:
    """The record in a file's footer.

    Raises
    ------
    CorruptOutputError, StoreError
    """
    from research_jobs.store.codec import parquet

    with parquet.open_parquet(Path(path)) as file:
        return parquet.read_header(Path(path), file.metadata)


def read_output(
    path: Path,
    *,
    columns: Sequence[Any] | None = None,
    filters: Any = None,
    as_: str = "native",
) -> Any:
    """Read a file's value.

    Parameters
    ----------
    path : Path
    columns : sequence, optional
        Labels; for values that are tables.
    filters : list of tuple, list of list of tuple, or pyarrow.compute.Expression, optional
        As in pandas and pyarrow: ``[("date", ">=", "2018-11-01")]``.
    as_ : str
        ``native`` returns the original value; ``pandas``, ``polars``, ``arrow`` a table of that
        library; ``lazy`` a polars LazyFrame; ``path`` the path.

    Returns
    -------
    object

    Raises
    ------
    CorruptOutputError
        When it is not a complete Parquet file of ours.
    StoreError
        When a newer research_jobs wrote it, or it has no such column.
    """
    from research_jobs.store.codec import reading

    try:
        return reading.read_file(Path(path), columns=columns, filters=filters, as_=as_)
    except (FileNotFoundError, ResearchJobsError):
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
