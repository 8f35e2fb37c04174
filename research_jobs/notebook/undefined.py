"""Names that a notebook uses where nothing binds them, as reported by ruff.

Ruff runs as a subprocess, only for `research-jobs check`: no scan and no run waits for it. It
sees the whole file and the names that the editor provides, but none of the project's settings.
"""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError

__all__ = ["GIVEN", "KERNEL_NAMES", "UndefinedName", "undefined_names"]

KERNEL_NAMES = frozenset({"In", "Out", "_", "__", "___", "_ih", "_oh", "_i", "_ii", "_dh"})
"""Names that only the editor's kernel fills."""

GIVEN = frozenset({
    "__file__", "__name__", "__doc__", "__spec__", "__loader__", "__package__", "__builtins__",
    "__annotations__", "__path__", "__cached__", "display", "get_ipython", "exit", "quit",
    "copyright", "credits", "license", "help", "WindowsError",
})  # fmt: skip
"""Names that a notebook has without assigning them, in the editor and in batch."""


@dataclass(frozen=True)
class UndefinedName:
    """One use of a name that is not bound.

    Parameters
    ----------
    name : str
    line, column : int
        1-based; the column counts characters.
    """

    name: str
    line: int
    column: int


def undefined_names(texts: Iterable[str]) -> list[tuple[UndefinedName, ...]]:
    """The names that each file uses without binding them, in one call of ruff.

    Parameters
    ----------
    texts : iterable of str
        Files that parse.

    Raises
    ------
    ResearchJobsError
        When ruff is not installed or fails.
    """
    by_file: list[list[UndefinedName]] = []
    with tempfile.TemporaryDirectory(prefix="research-jobs-check-") as folder:
        for text in texts:
            path = Path(folder, f"{len(by_file)}.py")
            path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
            by_file.append([])
        if by_file:
            for row in _ruff(folder):
                name = row["message"].split("`")[1]
                place = row["location"]
                by_file[int(Path(row["filename"]).stem)].append(
                    UndefinedName(name, place["row"], place["column"])
                )
    return [tuple(names) for names in by_file]


def _ruff(folder: str) -> list[dict[str, Any]]:
    names = sorted({*dir(builtins), *GIVEN, *KERNEL_NAMES})
    try:
        from ruff import find_ruff_bin

        done = subprocess.run(
            [
                find_ruff_bin(), "check", "--isolated", "--no-cache", "--ignore-noqa",
                "--exit-zero", "--select", "F821", "--output-format", "json",
                "--target-version", f"py3{min(sys.version_info[1], 14)}",
                "--config", f"builtins = {json.dumps(names)}", folder,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )  # fmt: skip
        rows = json.loads(done.stdout)
    except (ImportError, OSError, ValueError) as error:
        raise ResearchJobsError(
            "names cannot be checked: ruff does not run", hint="pip install ruff"
        ) from error
    return [row for row in rows if row["code"] == "F821"]
