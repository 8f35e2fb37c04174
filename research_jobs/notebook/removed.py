"""Names that old notebooks use and installed versions of common libraries no longer have.

Libraries make such names at run time or not at all, so their text does not tell; this table does.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from research_jobs.notebook.walk import dotted_name, nodes_of

__all__ = ["RemovedName", "removed_names"]

Node = ast.expr | ast.stmt


@dataclass(frozen=True)
class RemovedName:
    """A use of a name that is gone.

    Parameters
    ----------
    name : str
        Dotted.
    library : str
        With the version that is installed.
    node : ast.expr or ast.stmt
    """

    name: str
    library: str
    node: Node


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


# Distribution, the version that dropped them, and the names. What begins with a dot is an attribute
# that only pandas' objects had (dicts had iteritems in Python 2).
_TABLE = """
numpy 1.24: numpy.float numpy.int numpy.object numpy.complex numpy.str numpy.unicode
numpy 2.0: numpy.NaN numpy.NAN numpy.Inf numpy.Infinity numpy.infty numpy.PINF numpy.NINF
numpy 2.0: numpy.float_ numpy.complex_ numpy.unicode_ numpy.string_ numpy.product
numpy 2.0: numpy.cumproduct numpy.alltrue numpy.sometrue numpy.round_ numpy.asfarray numpy.msort
numpy 2.0: numpy.cast numpy.find_common_type numpy.asscalar numpy.recfromcsv
numpy 2.4: numpy.trapz numpy.in1d
pandas 1.0: pandas.Panel pandas.TimeGrouper pandas.rolling_mean pandas.rolling_std pandas.ewma
pandas 1.0: pandas.rolling_sum pandas.rolling_corr pandas.rolling_apply pandas.expanding_mean
pandas 1.0: pandas.ewmstd pandas.SparseDataFrame pandas.SparseSeries pandas.scatter_matrix
pandas 1.0: pandas.datetools pandas.lib pandas.tslib pandas.DataFrame.from_csv
pandas 1.0: .ix .as_matrix
pandas 2.0: .iteritems
pandas 2.0: pandas.datetime pandas.np pandas.Int64Index pandas.Float64Index pandas.UInt64Index
matplotlib 3.9: matplotlib.cm.get_cmap matplotlib.pyplot.cm.get_cmap
scikit-learn 1.2: sklearn.datasets.load_boston sklearn.datasets.fetch_mldata
scipy 1.12: scipy.stats.binom_test scipy.stats.median_absolute_deviation
scipy 1.13: scipy.signal.gaussian scipy.signal.hann scipy.signal.hamming scipy.signal.blackman
scipy 1.14: scipy.integrate.trapz scipy.integrate.simps scipy.integrate.cumtrapz
"""
_STYLES = {"style seaborn": ("matplotlib", (3, 8))}
_REMOVED = {
    name: (head.split()[0], _version(head.split()[1]))
    for head, _, names in (line.partition(":") for line in _TABLE.strip().split("\n"))
    for name in names.split()
} | _STYLES


def removed_names(
    tree: ast.Module, origins: Mapping[str, str], versions: Mapping[str, str] | None = None
) -> Iterator[RemovedName]:
    """Find uses of names that the installed versions do not have.

    Parameters
    ----------
    tree : ast.Module
    origins : mapping of str to str
        As `dotted_name` takes them.
    versions : mapping of str to str, optional
        Distribution to version; by default those of this interpreter.
    """
    pandas = "pandas" in origins.values()
    for node in nodes_of(tree):
        for name, place in _uses(node, origins):
            method = f".{name.rpartition('.')[2]}"
            for gone in (name, method) if pandas else (name,):
                distribution, since = _REMOVED.get(gone, ("", (0,)))
                installed = _installed(distribution, versions) if distribution else None
                if installed is not None and _version(installed) >= since:
                    yield RemovedName(gone, f"{distribution} {installed}", place)


def _uses(node: ast.AST, origins: Mapping[str, str]) -> Iterator[tuple[str, Node]]:
    """The dotted names that a node reads or imports, and styles by their old names."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield dotted_name(node, origins) or f".{node.attr}", node
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        for alias in node.names:
            yield f"{node.module}.{alias.name}", node
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        style = str(node.args[0].value)
        called = dotted_name(node.func, origins)
        if called.endswith("style.use") and re.match(r"seaborn(?!-v0_8)", style):
            yield "style seaborn", node.args[0]


def _installed(distribution: str, versions: Mapping[str, str] | None) -> str | None:
    if versions is not None:
        return versions.get(distribution)
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
