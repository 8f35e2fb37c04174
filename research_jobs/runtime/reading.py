"""Note what a notebook reads besides outputs: files, databases, hosts, programs.

The functions by which notebooks read are replaced while one runs. What compiled code reads on its
own is not seen. An audit hook would see more, and
makes ``copy.deepcopy`` three times slower.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import builtins
import functools
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from glob import iglob
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from research_jobs.runtime.browsers import replace_attribute
from research_jobs.store.view import View, current_view

__all__ = ["READERS", "adapters", "watch_open"]

_Adapter: TypeAlias = Callable[[Any], None]

_POLARS = ("avro", "csv", "delta", "excel", "ipc", "json", "ndjson", "parquet")
# Module to its functions, or classes, that read what their first argument names.
READERS: dict[str, tuple[str, ...]] = {
    "polars": tuple(f"{verb}_{kind}" for kind in _POLARS for verb in ("read", "scan")),
    "pyarrow": ("memory_map",),
    "pyarrow.csv": ("read_csv", "open_csv"),
    "pyarrow.dataset": ("dataset", "parquet_dataset"),
    "pyarrow.feather": ("read_feather", "read_table"),
    "pyarrow.json": ("read_json",),
    "pyarrow.orc": ("read_table",),
    "pyarrow.parquet": ("read_table", "read_pandas", "ParquetFile", "ParquetDataset"),
    "sqlite3": ("connect",),
    "sqlite3.dbapi2": ("connect",),
}
# Modules that hold `open` under a name of their own, from before it was replaced.
_HELD = {"bz2": "_builtin_open", "tarfile": "bltn_open"}
_NUMPY = ("loadtxt", "genfromtxt", "fromregex")  # they hold it likewise, in a mapping
_DUCKDB = ("read_csv", "read_json", "read_parquet", "from_csv_auto", "from_parquet")
_SQL = ("sql", "query", "execute", "from_query")
_QUOTED = re.compile(r"'([^'\n]{1,1000})'")
FILES_OF_A_PATTERN = 1000


def watch_open(undo: ExitStack) -> None:
    """Note what is opened to be read, hosts that are looked up and programs that are started.

    Parameters
    ----------
    undo : ExitStack
        Puts the functions back when it closes.
    """
    view = current_view()
    if view is None:
        return
    opened = builtins.open

    @functools.wraps(opened)
    def noted(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        stream = opened(file, mode, *arguments, **named)
        with suppress(Exception):  # the working directory may be gone, or the disk full
            if "r" in mode or "+" in mode:
                _note(view, "open", file)
            if "r" not in mode or "+" in mode:
                _note(view, "", file, kind="written")
        return stream

    for owner in (builtins, io):
        replace_attribute(undo, owner, "open", noted)
    for module, name in _HELD.items():
        if getattr(sys.modules.get(module), name, None) is opened:
            replace_attribute(undo, sys.modules[module], name, noted)
    _wrap(undo, socket, "getaddrinfo", lambda host, *_, **__: _note_other(view, "host", host))
    _wrap_method(undo, subprocess.Popen, "__init__", lambda args, *_, **__: _program(view, args))


def adapters(undo: ExitStack) -> dict[str, _Adapter]:
    """What to do when a library that reads files is imported.

    Parameters
    ----------
    undo : ExitStack
        Puts its functions back when it closes.
    """
    view = current_view()
    if view is None:
        return {}
    found: dict[str, _Adapter] = {
        module: functools.partial(_adapt, undo, view, module, names)
        for module, names in READERS.items()
    }
    found["numpy"] = functools.partial(_adapt_numpy, undo, view)
    found["duckdb"] = functools.partial(_adapt_duckdb, undo, view)
    found["multiprocessing.process"] = lambda module: _wrap_method(
        undo, module.BaseProcess, "start", lambda: _note_other(view, "workers", "processes")
    )
    return found


def _adapt(undo: ExitStack, view: View, library: str, names: Iterable[str], module: Any) -> None:
    def note(*arguments: Any, **named: Any) -> None:
        source = arguments[0] if arguments else next(iter(named.values()), None)
        _note(view, library, source)

    for name in names:
        reader = getattr(module, name, None)
        if isinstance(reader, type):
            _wrap_method(undo, reader, "__init__", note)
        elif reader is not None:
            _wrap(undo, module, name, note)


def _adapt_numpy(undo: ExitStack, view: View, module: Any) -> None:
    def note(*arguments: Any, **named: Any) -> None:
        source = arguments[0] if arguments else named.get("fname", named.get("file"))
        if not isinstance(source, (list, tuple)):  # lines, not files
            _note(view, "numpy", source)

    for name in _NUMPY:
        _wrap(undo, module, name, note)


def _adapt_duckdb(undo: ExitStack, view: View, module: Any) -> None:
    _adapt(undo, view, "duckdb", (*_DUCKDB, "connect"), module)
    connection = getattr(module, "DuckDBPyConnection", None)

    def in_query(query: Any = "", *_: Any, **__: Any) -> None:
        for path in _QUOTED.findall(query) if isinstance(query, str) else ():
            if "/" in path or "." in path:
                # As SQL writes it: relative or not, ``**`` included.
                for file in islice(iglob(path, recursive=True), FILES_OF_A_PATTERN):  # noqa: PTH207 - a string
                    _note(view, "duckdb", file)

    for name in _SQL:
        _wrap(undo, module, name, in_query)
        if connection is not None:
            _wrap_method(undo, connection, name, in_query)
    for name in _DUCKDB if connection is not None else ():
        _wrap_method(undo, connection, name, lambda *given, **_: _note(view, "duckdb", given[0]))


def _wrap(undo: ExitStack, owner: Any, name: str, note: Callable[..., None]) -> None:
    """Have a function say what it is called with, once it has returned."""
    called = getattr(owner, name, None)
    if called is None:
        return

    @functools.wraps(called)
    def noted(*arguments: Any, **named: Any) -> Any:
        result = called(*arguments, **named)
        with suppress(Exception):
            note(*arguments, **named)
        return result

    replace_attribute(undo, owner, name, noted)


def _wrap_method(undo: ExitStack, owner: Any, name: str, note: Callable[..., None]) -> None:
    """As `_wrap`, of a method, whose object is not said."""
    with suppress(TypeError):  # a compiled class that takes no attributes
        _wrap(undo, owner, name, lambda _self, *given, **named: note(*given, **named))


def _note(view: View, reader: str, source: Any, kind: str = "file") -> None:
    """Note files and addresses; streams were noted when they were opened."""
    if isinstance(source, (list, tuple)):
        for each in source[:FILES_OF_A_PATTERN]:
            _note(view, reader, each)
        return
    if isinstance(source, bytes):
        source = os.fsdecode(source) if len(source) < 4096 else ""
    if not isinstance(source, (str, os.PathLike)):
        return
    path = os.fspath(source)
    if not isinstance(path, str) or not path or path == ":memory:" or "\n" in path:
        return
    if "://" in path[:12] and not path.startswith("file://"):
        view.note({"address": path.partition("?")[0][:1000], "by": reader})
        return
    # Not resolved: what a link leads to is looked up when the record is written.
    place = os.path.abspath(path.removeprefix("file://"))  # noqa: PTH100
    if not place.startswith(("/proc/", "/sys/", "/dev/")):
        view.note({kind: place[:4096], "by": reader})


def _note_other(view: View, kind: str, what: Any) -> None:
    if isinstance(what, bytes):
        what = what.decode("utf-8", "replace")
    if isinstance(what, str) and what not in ("localhost", "127.0.0.1", "::1"):
        view.note({kind: what[:300]})


def _program(view: View, command: Any) -> None:
    first = command if isinstance(command, (str, bytes, os.PathLike)) else command[0]
    words = os.fsdecode(first).split() if first else []
    if words:
        _note_other(view, "program", Path(words[0]).name)
