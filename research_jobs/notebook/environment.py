"""Imports that will fail because nothing of that name is installed, and what to install.

Standard library only. Nothing is imported.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Import", "distribution_of", "installed", "required_imports"]

_DISTRIBUTIONS = {
    "Bio": "biopython", "Crypto": "pycryptodome", "OpenSSL": "pyOpenSSL", "PIL": "pillow",
    "attr": "attrs", "bs4": "beautifulsoup4", "cairo": "pycairo", "cv2": "opencv-python",
    "dateutil": "python-dateutil", "docx": "python-docx", "dotenv": "python-dotenv",
    "fitz": "PyMuPDF", "git": "GitPython", "jwt": "PyJWT", "magic": "python-magic",
    "mpl_toolkits": "matplotlib", "MySQLdb": "mysqlclient", "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary", "pylab": "matplotlib", "pywt": "PyWavelets",
    "ruamel": "ruamel.yaml", "serial": "pyserial", "skimage": "scikit-image",
    "sklearn": "scikit-learn", "slugify": "python-slugify", "talib": "TA-Lib",
    "umap": "umap-learn", "usb": "pyusb", "wx": "wxPython", "yaml": "PyYAML", "zmq": "pyzmq",
    "pkg_resources": "setuptools", "IPython": "ipython", "mysql": "mysql-connector-python",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """An import that fails the file if its module is not there.

    Parameters
    ----------
    module : str
        Its top-level name.
    line, column : int
        1-based.
    """

    module: str
    line: int
    column: int


def distribution_of(module: str) -> str:
    """The name by which a top-level module is installed."""
    return _DISTRIBUTIONS.get(module, module.replace("_", "-"))


def required_imports(tree: ast.Module) -> tuple[Import, ...]:
    """The first import of each top-level module that nothing in the file guards.

    Imports under ``try`` with a handler for them, under ``if``, and in functions may never run.
    """
    found: dict[str, Import] = {}
    for node in _unguarded(tree.body):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if not node.level
            else []
        )
        for name in names:
            top = name.partition(".")[0]
            if top:
                found.setdefault(top, Import(top, node.lineno, node.col_offset + 1))
    return tuple(found.values())


def _unguarded(body: Sequence[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield statement
        elif isinstance(statement, (ast.With, ast.For, ast.ClassDef)) or (
            isinstance(statement, ast.Try) and not statement.handlers
        ):
            yield from _unguarded(statement.body)


def installed(modules: Collection[str], python: str | None = None) -> frozenset[str]:
    """Those top-level modules that an interpreter finds; another one is asked once for all.

    An interpreter that does not answer has all of them: that it cannot start is another finding.
    """
    if not modules:
        return frozenset()
    if python is None or os.path.realpath(python) == os.path.realpath(sys.executable):
        return frozenset(_found(modules))
    code = (
        "import importlib.util, json, sys\n"
        "found = lambda name: name in sys.modules or importlib.util.find_spec(name)\n"
        "print(json.dumps([name for name in json.load(sys.stdin) if found(name)]))"
    )
    try:
        done = subprocess.run(
            [python, "-c", code],
            input=json.dumps(sorted(modules)),
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(python).anchor or None,
        )
        return frozenset(json.loads(done.stdout))
    except (OSError, ValueError, subprocess.SubprocessError):
        return frozenset(modules)


def _found(modules: Iterable[str]) -> Iterator[str]:
    for name in modules:
        try:
            if name in sys.modules or importlib.util.find_spec(name) is not None:
                yield name
        except (ImportError, ValueError):  # noqa: PERF203 - a module without a spec, or one that is broken
            yield name
