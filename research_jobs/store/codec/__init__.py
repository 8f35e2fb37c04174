"""Any value that a notebook makes, as one Parquet file, and back: equal, type included.

pyarrow is imported when a value is written or read, not before; pandas, polars and numpy only
where a value is theirs. There is no pickle in either direction.
"""

from __future__ import annotations

from research_jobs.store.codec.api import read_file_header, read_output, write_output

__all__ = ["read_file_header", "read_output", "write_output"]
