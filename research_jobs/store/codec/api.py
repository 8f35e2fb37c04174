"""Write and read one output."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.errors import OutputError, ResearchJobsError, StoreError
from research_jobs.failpoints import failpoint
from research_jobs.filesystem import temporary_path
from research_jobs.outcome import StagedOutput
from research_jobs.store.files import disk

if TYPE_CHECKING:
    from research_jobs.store.codec.base import Encoded, ErrorContext
    from research_jobs.store.codec.parquet import Header

__all__ = ["FORMS", "WRITE_FAILPOINTS", "read_file_header", "read_output", "write_output"]

WRITE_FAILPOINTS = ("write.begin", "write.written", "write.synced", "write.renamed")
FORMS = ("native", "pandas", "polars", "arrow", "path", "lazy")


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
            raise _not_parquet(name, value, error) from error
        failpoint("write.written")
        if encoded.frame is not None:
            from research_jobs.store.codec import polars_codec

            polars_codec.check_schema(encoded.frame, temporary, _context(name))
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
    return StagedOutput(
        name=name,
        path=str(path),
        kind=staged.kind,
        rows=staged.rows,
        bytes=staged.bytes,
        columns=staged.columns,
        preview=staged.preview,
        statistics=staged.statistics,
    )


def _context(name: str) -> ErrorContext:
    from research_jobs.store.codec.base import ErrorContext

    return ErrorContext(name)


def _not_parquet(name: str, value: Any, error: Exception) -> OutputError:
    from research_jobs.store.codec.typed_json import type_name

    reason = (str(error).splitlines() or [""])[0]
    return _context(name).error(f"type {type_name(value)} ({reason})")


def encode_value(name: str, value: Any) -> Encoded:
    """A value as columns; only its own library is imported."""
    from research_jobs.store.codec import plain

    place = _context(name)
    encoded: Encoded | None = None
    for cls in type(value).__mro__:
        module = cls.__module__.split(".")[0]
        if module == "pandas":
            from research_jobs.store.codec import pandas_codec

            encoded = pandas_codec.encode_pandas(value, place)
        elif module == "polars":
            from research_jobs.store.codec import polars_codec

            encoded = polars_codec.encode_polars(value, place)
        elif module == "pyarrow":
            from research_jobs.store.codec import arrow_codec

            encoded = arrow_codec.encode_arrow(value, place)
        elif module == "numpy":
            from research_jobs.store.codec import numpy_codec

            encoded = numpy_codec.encode_numpy(value, place)
        if encoded is not None:
            return encoded
    return plain.encode_plain(value, place)


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
    except FileNotFoundError:
        raise
    except ResearchJobsError:
        raise
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
