"""The bytes of a source file as text, or an error that names the line.

Standard library only: the fresh process imports this too.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from research_jobs.errors import NotebookError, NotebookSyntaxError, SourceLocation

__all__ = ["decode_source", "line_feeds", "read_bytes", "shown_path"]

SIZE_LIMIT = 32 * 1024 * 1024


def shown_path(path: Path) -> str:
    """A file's name in messages: from the folder ``notebooks`` on if it is below one."""
    parts = path.parts
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "notebooks":
            return "/".join(parts[index:])
    return str(path)


def read_bytes(path: Path) -> bytes:
    """A source file's bytes; `NotebookError` if it cannot be read or is too large for source."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - thousands of these
            too_large = os.fstat(file.fileno()).st_size > SIZE_LIMIT
            data = b"" if too_large else file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise NotebookError(
            f"cannot be read: {reason}", where=SourceLocation(shown_path(path))
        ) from error
    if too_large:
        raise NotebookError(
            f"is larger than {SIZE_LIMIT // 2**20} MiB, so it is data, not source code",
            where=SourceLocation(shown_path(path)),
            hint="Keep data in a separate file and read it from there.",
        )
    return data


_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BOM = b"\xef\xbb\xbf"


def decode_source(data: bytes, path: Path) -> str:
    """Decode source: byte order marks, PEP 263 lines and all line ends are understood.

    Raises
    ------
    NotebookSyntaxError
        When the encoding is unknown or the bytes do not decode; the line is named.
    """
    encoding = "utf-8"
    if data.startswith(_BOM):
        data = data[len(_BOM) :]
    else:
        for line in data.split(b"\n", 2)[:2]:
            coding = _CODING.match(line)
            if coding:
                encoding = coding[1].decode("ascii", "replace")
                break
            if line.strip() and not line.lstrip().startswith(b"#"):
                break
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise NotebookSyntaxError(
            f"the coding line names an unknown encoding '{encoding}'",
            where=SourceLocation(shown_path(path), 1),
            hint="Remove the line and save the file as UTF-8.",
        ) from error
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        raise NotebookSyntaxError(
            f"byte 0x{data[error.start]:02x} is not {encoding}",
            where=SourceLocation(shown_path(path), line, error.start - before.rfind(b"\n")),
            hint="Save the file as UTF-8.",
        ) from error
    except (UnicodeError, ValueError, AssertionError) as error:  # odd codecs have odd errors
        raise NotebookSyntaxError(
            f"cannot be read as {encoding}",
            where=SourceLocation(shown_path(path), 1),
            hint="Remove the coding line and save the file as UTF-8.",
        ) from error
    return line_feeds(text)


def line_feeds(text: str) -> str:
    """A text whose lines all end with a line feed."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
