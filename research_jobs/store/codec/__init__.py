"""Any value of a notebook as one Parquet file, and back: equal, including its type.

pyarrow is imported when a value is written or read, not before; pandas, polars and numpy only for
their own values. Nothing is pickled in either direction.
"""

from __future__ import annotations

from research_jobs.store.codec.api import read_file_header, read_output, write_output

__all__ = ["read_file_header", "read_output", "write_output"]
