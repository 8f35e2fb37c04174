"""What the benchmarks of whole commands share: projects to run, commands to time, goals to meet.

A contender is a shell command and is timed as a whole process, from its start to its end. The
contenders of one table take turns, round by round, so that a slow moment of the machine hits all
of them; what is quoted is the median, with the smallest and the largest beside it. A ratio is taken
within each round and its median quoted.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.table import Figure

__all__ = [
    "BIN",
    "PYTHON",
    "SMALL_NOTEBOOK",
    "Goal",
    "Options",
    "clean_environment",
    "dagster_home",
    "ipynb",
    "make_project",
    "names",
    "ratio",
    "scratch",
    "seconds",
    "timed",
]

PYTHON = sys.executable
BIN = Path(PYTHON).parent

SMALL_NOTEBOOK = """\
# %%
import numpy as np
import pandas as pd

# %%
days = pd.date_range("2020-01-01", periods=1000, freq="D")
frame = pd.DataFrame({"price": np.linspace(1.0, 2.0, 1000), "volume": range(1000)}, index=days)
"""


@dataclass(frozen=True)
class Options:
    """How thorough to be.

    Parameters
    ----------
    runs : int
        Rounds.
    full : bool
        Measure everything at its full size and in every round.
    """

    runs: int = 3
    full: bool = False

    @property
    def slow_runs(self) -> int:
        """int: rounds of what takes minutes and shows little."""
        return self.runs if self.full else 1


@dataclass(frozen=True)
class Goal:
    """A figure that was set beforehand, and what came of it.

    Parameters
    ----------
    name : str
    target : str
    reached : str
    met : bool
    """

    name: str
    target: str
    reached: str
    met: bool

    @classmethod
    def at_most(cls, name: str, target: float, reached: Figure | float, unit: str = "") -> Goal:
        """A figure that must not be larger."""
        value = reached.median if isinstance(reached, Figure) else reached
        return cls(name, f"at most {target:.3g}{unit}", f"{value:.3g}{unit}", value <= target)

    @classmethod
    def at_least(cls, name: str, target: float, reached: Figure | float, unit: str = "") -> Goal:
        """A figure that must not be smaller."""
        value = reached.median if isinstance(reached, Figure) else reached
        return cls(name, f"at least {target:.3g}{unit}", f"{value:.3g}{unit}", value >= target)


def names(count: int) -> list[str]:
    """Names of so many notebooks."""
    return [f"nb_{number:04d}" for number in range(count)]


def make_project(folder: Path, count: int, *, source: str = SMALL_NOTEBOOK) -> Path:
    """A project of `count` equal notebooks with one declared output each."""
    notebooks = folder / "notebooks"
    notebooks.mkdir(parents=True)
    for name in names(count):
        (notebooks / f"{name}.py").write_text(source)
    lines = [f"  {name}: {{outputs: [frame]}}\n" for name in names(count)]
    (notebooks / "manifest.yaml").write_text("notebooks:\n" + "".join(lines))
    return folder


def ipynb(path: Path, source: str, *, tags: Mapping[int, Sequence[str]] | None = None) -> Path:
    """The same notebook for peers that want an ``.ipynb``."""
    cells = [cell.strip() for cell in source.split("# %%")[1:]]
    found = tags or {}
    path.write_text(
        json.dumps(
            {
                "cells": [
                    {
                        "cell_type": "code",
                        "id": f"cell{number}",
                        "metadata": {"tags": list(found.get(number, ()))},
                        "execution_count": None,
                        "outputs": [],
                        "source": cell.partition("\n")[2] if cell.startswith("tags=") else cell,
                    }
                    for number, cell in enumerate(cells)
                ],
                "metadata": {
                    "kernelspec": {
                        "display_name": "Python 3",
                        "language": "python",
                        "name": "python3",
                    }
                },
                "nbformat": 4,
                "nbformat_minor": 5,
            }
        )
    )
    return path


def dagster_home(folder: Path) -> Path:
    """A SQLite instance of a peer's own."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return folder


# Without bytecode every process would compile us anew, and the peers' packages not.
_ODD = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH")


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what would point a contender elsewhere."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_")) and name not in _ODD
    }
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"} | more


def timed(
    command: Sequence[str | os.PathLike[str]] | str,
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    check: Callable[[str], bool] | None = None,
    code: int = 0,
) -> float:
    """Seconds that a whole command takes; one that fails ends the benchmark with its output.

    Parameters
    ----------
    command : sequence of str, or str
        A string is given to the shell.
    folder : Path
        Where it runs.
    env : mapping, optional
        On top of `clean_environment`.
    check : callable, optional
        Whether the output is that of a command that did what it should.
    code : int
        With which exit code it must end.
    """
    with tempfile.TemporaryFile("w+") as log:
        started = time.perf_counter()
        ended = subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=folder,
            env=clean_environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        ).returncode
        taken = time.perf_counter() - started
        log.seek(0)
        said = log.read()
    if ended != code or (check is not None and not check(said)):
        raise RuntimeError(f"{command} ended with {ended}:\n{said[-4000:]}")
    return taken


def ratio(one: Figure, other: Figure) -> Figure:
    """How many times `other` goes into `one`: round by round where both have the same rounds."""
    if len(one.takes) == len(other.takes):
        return Figure(tuple(a / b for a, b in zip(one.takes, other.takes, strict=True)))
    return Figure(tuple(a / other.median for a in one.takes))


def seconds(figure: Figure) -> str:
    """A figure in seconds, for a table: median, smallest and largest."""
    text = _seconds(figure.median)
    if len(figure.takes) == 1:
        return f"{text} s (once)"
    return f"{text} s ({_seconds(min(figure.takes))} to {_seconds(max(figure.takes))})"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def median(values: Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


@contextmanager
def scratch() -> Generator[Path]:
    """A temporary folder for one benchmark."""
    with tempfile.TemporaryDirectory(prefix="research_jobs_bench_") as folder:
        yield Path(folder).resolve()
