"""Small pandas notebooks in one run, whole command: ours, Dagster's executor, dagstermill, a shell.

Every contender imports the same notebook N times, each time in a process of its own, two at a time.
The Dagster ones materialise N assets in one run on a SQLite instance of their own that exists
already; ours declares an output as well, so it writes and publishes N Parquet files and N reports.

``python -m benchmarks engine``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import (
    BIN,
    PYTHON,
    SMALL_NOTEBOOK,
    Goal,
    Options,
    dagster_home,
    ipynb,
    make_project,
    names,
    ratio,
    scratch,
    seconds,
    timed,
)
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

SMALL, LARGE = 20, 100
FIRST = "ours, the first run ever"

MULTIPROCESS = """\
import subprocess
import sys

import dagster as dg


def asset_of(name):
    @dg.asset(name=name)
    def asset():
        subprocess.run([sys.executable, "-c", f"import {{name}}"], check=True, cwd={notebooks!r})

    return asset


assets = [asset_of(name) for name in {names!r}]
defs = dg.Definitions(
    assets=assets,
    jobs=[dg.define_asset_job("nbs", selection="*")],
    executor=dg.multiprocess_executor.configured({{"max_concurrent": 2}}),
)
"""

DAGSTERMILL = """\
import dagster as dg
from dagstermill import ConfigurableLocalOutputNotebookIOManager, define_dagstermill_asset

assets = [
    define_dagstermill_asset(name=name, notebook_path=f"{notebooks}/{{name}}.ipynb")
    for name in {names!r}
]
defs = dg.Definitions(
    assets=assets,
    jobs=[dg.define_asset_job("nbs", selection="*")],
    resources={{
        "output_notebook_io_manager": ConfigurableLocalOutputNotebookIOManager(
            base_dir={output!r}, asset_key_prefix=[]
        )
    }},
    executor=dg.multiprocess_executor.configured({{"max_concurrent": 2}}),
)
"""


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    with scratch() as folder:
        sides = {count: _sides(folder / str(count), count, options) for count in (SMALL, LARGE)}
        # 20 and 100 side by side: what one more costs is their difference at the same moment.
        quick = {
            f"{side}, {count}": sides[count].quick[side]
            for side in sides[SMALL].quick
            for count in sides
        }
        slow = {f"{side}, {SMALL}": take for side, take in sides[SMALL].slow.items()}
        slowest = {f"{side}, {LARGE}": take for side, take in sides[LARGE].slow.items()}
        if options.full:
            taken = in_turns(options.runs, quick | slow | slowest)
        else:  # minutes a take
            taken = in_turns(options.runs, quick | slow) | in_turns(1, slowest)
    found: dict[int, dict[str, Figure]] = {
        count: {FIRST: Figure((sides[count].first,))} for count in sides
    }
    for name, figure in taken.items():
        side, _, count = name.rpartition(", ")
        found[int(count)][side] = figure
    return _tables(found), _goals(found)


@dataclass(frozen=True)
class _Sides:
    """Ways to run so many notebooks: the first run ever of ours, and what is timed in turns."""

    first: float
    quick: dict[str, Callable[[], float]]
    slow: dict[str, Callable[[], float]]


def _sides(folder: Path, count: int, options: Options) -> _Sides:
    project = make_project(folder / "ours", count)
    plain = folder / "plain"
    plain.mkdir()
    for name in names(count):
        (plain / f"{name}.py").write_text(SMALL_NOTEBOOK)

    def ours() -> float:
        return timed(
            [BIN / "research-jobs", "run", "--all", "--project", project],
            folder,
            check=lambda said: said.count("succeeded") >= count,
        )

    def stock() -> float:
        return timed(
            f"{BIN}/dagster asset materialize --select '*' -m research_jobs.definitions",
            project,
            env={"RESEARCH_JOBS_PROJECT": str(project), "DAGSTER_HOME": str(ours_home)},
        )

    def shell() -> float:
        loop = f"ls nb_*.py | sed 's/.py$//' | xargs -P2 -I{{}} {PYTHON} -c 'import {{}}'"
        return timed(loop, plain)

    ours_home = dagster_home(folder / "ours_home")
    first = timed([BIN / "research-jobs", "run", "--all", "--project", project], folder)
    stock()
    quick = {"ours": ours, "ours, dagster asset materialize": stock, "shell loop": shell}
    slow = {
        "multiprocess": _job(folder / "multiprocess", MULTIPROCESS, count, notebooks=str(plain))
    }
    if count == SMALL or options.full:
        books = folder / "ipynb"
        books.mkdir()
        for name in names(count):
            ipynb(books / f"{name}.ipynb", SMALL_NOTEBOOK)
        slow["dagstermill"] = _job(
            folder / "dagstermill",
            DAGSTERMILL,
            count,
            notebooks=str(books),
            output=str(folder / "executed"),
        )
    return _Sides(first, quick, slow)


def _job(folder: Path, template: str, count: int, **places: str) -> Callable[[], float]:
    """A Dagster job of a peer; its instance is made beforehand."""
    home = dagster_home(folder / "home")
    definitions = folder / "defs.py"
    definitions.write_text(template.format(names=names(count), **places))
    environment = {"DAGSTER_HOME": str(home)}
    timed([BIN / "dagster", "run", "list"], folder, env=environment)

    def measure() -> float:
        return timed(
            [BIN / "dagster", "job", "execute", "-f", definitions, "-j", "nbs"],
            folder,
            env=environment,
            check=lambda said: "RUN_SUCCESS" in said,
        )

    return measure


def _tables(found: dict[int, dict[str, Figure]]) -> list[Table]:
    table = Table(
        "Notebooks in one run, whole command, two at a time",
        ["how", f"{SMALL} notebooks", "ours takes", f"{LARGE} notebooks", "ours takes"],
    )
    order = [*(side for side in found[SMALL] if side != FIRST), FIRST]
    for side in order:
        cells: list[str] = []
        for count in (SMALL, LARGE):
            figure = found[count].get(side)
            cells.append(seconds(figure) if figure else "-")
            beside = figure if not side.startswith("ours") else None
            cells.append(f"{ratio(found[count]['ours'], beside)} of it" if beside else "")
        table.add(side, *cells)
    table.notes.append(
        f"One more notebook in a run of ours: {_marginal(found, 'ours')} ms "
        f"(T{LARGE} - T{SMALL} of the same round, over {LARGE - SMALL}); in the shell loop "
        f"{_marginal(found, 'shell loop')} ms."
    )
    return [table]


def _marginal(found: dict[int, dict[str, Figure]], side: str) -> Figure:
    """What one more notebook costs, milliseconds."""
    pairs = zip(found[LARGE][side].takes, found[SMALL][side].takes, strict=True)
    return Figure(tuple((many - few) / (LARGE - SMALL) * 1000 for many, few in pairs))


def _goals(found: dict[int, dict[str, Figure]]) -> list[Goal]:
    small, large = found[SMALL], found[LARGE]
    goals = [
        Goal.at_most(
            f"{SMALL} notebooks, of Dagster's multiprocess executor",
            1 / 6,
            ratio(small["ours"], small["multiprocess"]),
        ),
        Goal.at_most(
            f"{SMALL} notebooks, of dagstermill",
            1 / 12,
            ratio(small["ours"], small["dagstermill"]),
        ),
    ]
    # A peer's cost is linear in the notebooks: what it takes for 100 is known from 20 at worst.
    scale = LARGE / SMALL
    for side, name, target in (
        ("multiprocess", "Dagster's multiprocess executor", 1 / 6),
        ("dagstermill", "dagstermill", 1 / 12),
    ):
        if side in large:
            goals.append(
                Goal.at_most(
                    f"{LARGE} notebooks, of {name}", target, ratio(large["ours"], large[side])
                )
            )
        else:
            scaled = Figure(tuple(take * scale for take in small[side].takes))
            goals.append(
                Goal.at_most(
                    f"{LARGE} notebooks, of {name} (its {SMALL}, times {scale:.0f})",
                    target,
                    ratio(large["ours"], scaled),
                )
            )
    goals += [
        Goal.at_most(
            f"{LARGE} notebooks, of the shell loop",
            0.35,
            ratio(large["ours"], large["shell loop"]),
        ),
        Goal.at_most("one more notebook in a run", 50, _marginal(found, "ours"), " ms"),
    ]
    return goals
