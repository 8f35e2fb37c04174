"""What the benchmarks share: taking sides in turns, tables, and the machine's description."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from research_jobs.process import usable_cores

__all__ = ["Figure", "Table", "in_turns", "machine"]

PACKAGES = ("dagster", "papermill", "dagstermill", "pandas", "pyarrow", "ipykernel")


@dataclass(frozen=True)
class Figure:
    """Several takes of one measurement.

    Parameters
    ----------
    takes : tuple of float
        In the order in which they were taken.
    """

    takes: tuple[float, ...]

    @property
    def median(self) -> float:
        """float: what is quoted."""
        return statistics.median(self.takes)

    def __str__(self) -> str:
        spread = f" ({min(self.takes):.3g} to {max(self.takes):.3g})" if len(self.takes) > 1 else ""
        return f"{self.median:.3g}{spread}"


def in_turns(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, Figure]:
    """Take each side once a round, so that a slow moment of the machine hits all of them.

    Parameters
    ----------
    rounds : int
    sides : mapping of str to callable
        Each measures once and returns what it measured.

    Returns
    -------
    dict of str to Figure
    """
    takes: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, measure in sides.items():
            takes[name].append(measure())
            print(f"  round {number + 1}, {name}: {takes[name][-1]:.3g}", flush=True)
    return {name: Figure(tuple(taken)) for name, taken in takes.items()}


@dataclass
class Table:
    """A table for a person, in Markdown.

    Parameters
    ----------
    title : str
    columns : list of str
    rows : list of tuple of str
    notes : list of str
        Lines below it.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        """Add one row."""
        self.rows.append(tuple(str(cell) for cell in cells))

    def text(self) -> str:
        """The table as Markdown, padded so that it reads well as plain text too."""
        lines = [tuple(self.columns), *self.rows]
        widths = [max(len(line[index]) for line in lines) for index in range(len(self.columns))]

        def row(cells: tuple[str, ...]) -> str:
            padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
            return f"| {' | '.join(padded)} |"

        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        body = [row(lines[0]), rule, *map(row, lines[1:])]
        notes = [f"\n{note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *body, *notes, ""])


def machine() -> str:
    """One paragraph: processor, cores, memory, system, Python, versions, load."""
    parts = [
        f"{_cpu()}, {usable_cores()} cores, {_memory()}",
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        f"load average before: {os.getloadavg()[0]:.1f}",
    ]
    return "; ".join(parts) + "."


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "memory unknown"
    return f"{total / 2**30:.0f} GiB"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
