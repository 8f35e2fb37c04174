"""Imports that will fail: nothing of that name is installed, or it has no such part.

Standard library only. Nothing is imported: packages are looked at as folders, modules as text.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from research_jobs.notebook.assigned import assigned_names
from research_jobs.notebook.walk import children, dotted_name

__all__ = [
    "RequiredImport",
    "bound_names",
    "distribution_of",
    "installed",
    "locate",
    "missing_attribute",
    "missing_part",
    "module_attributes",
    "required_imports",
]

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
class RequiredImport:
    """An import statement that nothing in the file guards.

    Parameters
    ----------
    module : str
        Dotted.
    names : tuple of str
        What is imported from it.
    line, column : int
        1-based.
    """

    module: str
    names: tuple[str, ...]
    line: int
    column: int

    @property
    def top(self) -> str:
        """str: the name of the top-level module."""
        return _top(self.module)


def plain_name(distribution: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def distribution_of(module: str) -> str:
    """The name by which a top-level module is installed."""
    return _DISTRIBUTIONS.get(module, module.replace("_", "-"))


def required_imports(tree: ast.Module) -> tuple[RequiredImport, ...]:
    """The imports that run whenever the file does, relative ones left out.

    Imports under ``try`` with a handler, under ``if``, and in functions may never run. A handler
    that imports again what failed in the ``try`` (below an installation, often) fails too.
    """
    return tuple(
        RequiredImport(module, names, node.lineno, node.col_offset + 1)
        for node in _unguarded(tree.body)
        for module, names in _modules(node)
    )


def _modules(node: ast.Import | ast.ImportFrom) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(node, ast.Import):
        return [(alias.name, ()) for alias in node.names]
    if node.level or not node.module:
        return []
    return [(node.module, tuple(alias.name for alias in node.names if alias.name != "*"))]


def _unguarded(body: Sequence[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for statement in body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            yield statement
        elif isinstance(statement, ast.Try) and statement.handlers:
            tried = {
                _top(module) for one in _unguarded(statement.body) for module, _ in _modules(one)
            }
            for handler in statement.handlers:
                for again in _unguarded(handler.body):
                    if tried.issuperset(_top(module) for module, _ in _modules(again)):
                        yield again
        elif isinstance(statement, (ast.With, ast.For, ast.ClassDef, ast.Try)):
            yield from _unguarded(statement.body)


def _top(module: str) -> str:
    return module.partition(".")[0]


def installed(modules: Collection[str], python: str | None = None) -> frozenset[str]:
    """Those top-level modules that an interpreter finds."""
    return frozenset(locate(modules, python))


def locate(modules: Collection[str], python: str | None = None) -> dict[str, tuple[str, ...]]:
    """The top-level modules that an interpreter finds, each with the folders of its package.

    Parameters
    ----------
    modules : collection of str
    python : str, optional
        An interpreter other than this one, which is asked once for all. If it does not answer, it
        has them all: that it cannot start is another finding.
    """
    if not modules:
        return {}
    # Not by what links lead to: environments made from one Python share its program.
    if python is None or Path(python).absolute() == Path(sys.executable).absolute():
        return {name: folders for name in modules if (folders := _folders(name)) is not None}
    try:
        done = subprocess.run(
            [python, "-c", _ASK],
            input=json.dumps(sorted(modules)),
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(python).anchor or None,
        )
        answer: dict[str, list[str]] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return dict.fromkeys(modules, ())
    return {name: tuple(folders) for name, folders in answer.items()}


_ASK = """
import importlib.util, json, sys
found = {}
for name in json.load(sys.stdin):
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found[name] = []
    else:
        if spec is not None:
            found[name] = list(spec.submodule_search_locations or ())
print(json.dumps(found))
"""


def _folders(module: str) -> tuple[str, ...] | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a module without a spec, or one that is broken
        return ()
    return None if spec is None else tuple(spec.submodule_search_locations or ())


def missing_part(
    required: RequiredImport, located: Mapping[str, tuple[str, ...]]
) -> tuple[str, str] | None:
    """The first part of an import that an installed package has not, and what has it not.

    Parameters
    ----------
    required : RequiredImport
    located : mapping
        As `locate` returns it.

    Returns
    -------
    (str, str) or None
        ``("cross_validation", "sklearn")``. None where all is there, and where the text of the
        package does not tell: compiled modules, names made at run time.
    """
    folders = located.get(required.top, ())
    parent = required.top
    for part in required.module.split(".")[1:]:
        if not folders:
            return None
        below, plain = _below(folders, part)
        if below is None and not plain:
            return None if _makes_modules(folders) else (part, parent)
        parent, folders = f"{parent}.{part}", below or ()
        if plain and not folders:
            return _missing_name(required.names, plain, parent)
    if not folders:
        return None
    for name in required.names:
        below, plain = _below(folders, name)
        if below is None and not plain:
            missing = _missing_name((name,), str(Path(folders[0], "__init__.py")), parent)
            if missing is not None:
                return missing
    return None


def module_attributes(tree: ast.Module) -> Iterator[tuple[ast.Attribute, str, tuple[str, ...]]]:
    """What a file reads from modules: the place, what its import bound, and the attributes.

    Names that are bound in another way too are left out, and so is all below ``if``, which may ask
    whether an attribute is there.
    """
    nodes = list(_outside_conditions(tree))
    modules = {name: module for node in nodes for name, module in _bound_modules(node)}
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            modules.pop(node.id, None)
        elif isinstance(node, ast.arg):
            modules.pop(node.arg, None)
    for node in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            root, *names = dotted_name(node, {}).split(".")
            if root in modules and not any(name.startswith("__") for name in names):
                yield node, modules[root], tuple(names)


def _bound_modules(node: ast.AST) -> Iterator[tuple[str, str]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or _top(alias.name), alias.name if alias.asname else _top(alias.name)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _outside_conditions(tree: ast.Module) -> Iterator[ast.AST]:
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, (ast.If, ast.IfExp, ast.BoolOp)):
            todo.extend(children(node))


def missing_attribute(
    module: str, attributes: Sequence[str], located: Mapping[str, tuple[str, ...]]
) -> tuple[str, str] | None:
    """The first attribute that a module does not bind, and what does not bind it.

    Parameters
    ----------
    module : str
        Dotted: what an import statement binds.
    attributes : sequence of str
        What is read from it, one from the other.
    located : mapping
        As `locate` returns it.
    """
    folders = located.get(_top(module), ())
    file, parent = "", _top(module)
    for part in [*module.split(".")[1:], *attributes]:
        if not folders:
            if file:  # a module: the part is a name in it
                return _missing_name((part,), file, parent)
            return None
        below, plain = _below(folders, part)
        if below is None and not plain:
            return _missing_name((part,), str(Path(folders[0], "__init__.py")), parent)
        parent, folders, file = f"{parent}.{part}", below or (), plain
    return None


def _missing_name(names: Sequence[str], file: str, module: str) -> tuple[str, str] | None:
    doubtful = [name for name in names if not _plainly_bound(name, file)]
    known = bound_names(file) if doubtful else None  # most names need no parsing
    if known is None:
        return None
    return next(((name, module) for name in doubtful if name not in known), None)


@lru_cache(maxsize=20_000)
def _plainly_bound(name: str, file: str) -> bool:
    text = _text(file) or ""
    if name not in text:
        return False
    word = re.escape(name)
    plain = rf"^(?:(?:def|class) {word}\b|{word} *[:=]|(?:from|import) .*\b{word}\b|    {word},?$)"
    return re.search(plain, text, re.MULTILINE) is not None


def _below(folders: Sequence[str], part: str) -> tuple[tuple[str, ...] | None, str]:
    """The folders of a subpackage, and the file of a module."""
    for folder in map(Path, folders):
        if any((folder / f"{part}{suffix}").is_file() for suffix in _SUFFIXES):
            return None, str(folder / f"{part}.py")
    existing = tuple(str(Path(folder, part)) for folder in folders if Path(folder, part).is_dir())
    return (existing or None), ""


_SUFFIXES = (".py", ".pyc", *EXTENSION_SUFFIXES)


# What makes names in a module, or modules in a package, that its text does not show.
_NAMES = re.compile(
    r"import \*|__getattr__|globals\(\)|locals\(\)|vars\(\)|setattr\(|exec\(|sys\.modules|lazy"
)
_MODULES = re.compile(r"sys\.modules|__path__|meta_path|extend_path|lazy")


def _makes_modules(folders: Sequence[str]) -> bool:
    text = _text(str(Path(folders[0], "__init__.py")))
    return text is None or bool(_MODULES.search(text))


@lru_cache(maxsize=2000)
def _text(file: str) -> str | None:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


@lru_cache(maxsize=2000)
def bound_names(file: str) -> frozenset[str] | None:
    """The names that a module binds; None where its text does not tell."""
    text = _text(file)
    if text is None or len(text) > 500_000 or _NAMES.search(text):
        return None
    try:
        return frozenset(assigned_names(ast.parse(text)))
    except (SyntaxError, ValueError, RecursionError):
        return None
