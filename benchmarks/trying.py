"""A change of one line, tried: `research-jobs try` of one of 100 notebooks, and five that read it.

Whole commands are timed, from the change to the verdict; what the six notebooks took themselves,
imports included, is subtracted. The host runs and is warm, and has not seen the change.

``python -m benchmarks trying``
"""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import (
    BIN,
    Goal,
    Options,
    clean_environment,
    names,
    scratch,
    seconds,
    timed,
)
from benchmarks.table import Table, in_turns

__all__ = ["run"]

NOTEBOOKS, READERS = 100, 5
LIMIT_S = 3.0
NOTEBOOK = """\
# %%
import time
from pathlib import Path

began = time.time()

# %%
import numpy as np
import pandas as pd
{more}
# %%
days = pd.date_range("2020-01-01", periods=1000, freq="D")
frame = pd.DataFrame({{"price": np.linspace(1.0, {last}, 1000), "volume": range(1000)}}, index=days)
{read}
# %%
Path({noted!r}).write_text(str(time.time() - began))
"""


class _Project:
    """The notebooks: the first ones are that which changes and those that read it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.changes = 0
        self.all = names(NOTEBOOKS)
        self.tried = self.all[: READERS + 1]
        for folder in ("notebooks", "noted"):
            (root / folder).mkdir(parents=True)
        for name in self.all:
            self._write(name, "2.0")
        lines = [f"  {name}: {{outputs: [frame]}}\n" for name in self.all]
        (root / "notebooks" / "manifest.yaml").write_text("notebooks:\n" + "".join(lines))

    def _write(self, name: str, last: str) -> None:
        reads = name in self.tried[1:]
        text = NOTEBOOK.format(
            more="from research_jobs import load\n" if reads else "",
            read=f"frame['price'] += load('{self.all[0]}', 'frame')['price']\n" if reads else "",
            last=last,
            noted=str(self.root / "noted" / name),
        )
        (self.root / "notebooks" / f"{name}.py").write_text(text)

    def change(self) -> None:
        """Change one line of the first notebook."""
        self.changes += 1
        self._write(self.all[0], f"{2 + self.changes / 10:.1f}")

    def own_s(self) -> float:
        """What the notebooks that were tried took themselves, the last time."""
        return sum(float((self.root / "noted" / name).read_text()) for name in self.tried)


@contextmanager
def _host(project: _Project) -> Generator[None]:
    """A host that answers."""
    with (project.root / "host.log").open("w") as log, subprocess.Popen(
        [BIN / "research-jobs", "host", "--with-stdin"],
        cwd=project.root, env=clean_environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
    ) as host:  # fmt: skip
        assert host.stdin is not None
        assert host.stdout is not None
        try:
            said = host.stdout.readline()
            assert "ready" in said, (project.root / "host.log").read_text()
            yield
        finally:
            host.stdin.close()
            host.wait(30)


def _try(project: _Project, own: dict[str, list[float]], side: str, *words: str) -> float:
    project.change()

    def all_differ(said: str) -> bool:
        return said.count("differs from what is published") == READERS + 1

    command = [BIN / "research-jobs", "try", *words]
    taken = timed(command, project.root, check=all_differ, code=1)
    own.setdefault(side, []).append(project.own_s())
    return taken - own[side][-1]


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    own: dict[str, list[float]] = {}
    first = names(1)[0]
    with scratch() as folder:
        project = _Project(folder / "project")
        timed([BIN / "research-jobs", "run", "--all"], project.root)
        sides = {
            "try NOTEBOOK, beside a host": (first,),
            "try, beside a host": (),
            "try NOTEBOOK, no host": (first, "--no-host"),
        }
        with _host(project):
            _try(project, {}, "", first)
            found = in_turns(
                options.runs,
                {
                    side: lambda side=side, words=words: _try(project, own, side, *words)
                    for side, words in sides.items()
                },
            )
    table = Table(
        f"One line of one of {NOTEBOOKS} notebooks changed, {READERS} read it: until the verdict",
        ["how", "beyond the notebooks' own work", "their own work, all six"],
    )
    for side, figure in found.items():
        low, high = min(own[side]), max(own[side])
        table.add(side, seconds(figure), f"{low:.2f} to {high:.2f} s")
    goals = [
        Goal.at_most(f"{side}, beyond own work", LIMIT_S, found[side], " s")
        for side in list(sides)[:2]
    ]
    return [table], goals
