"""Runs that Dagster's daemon launches, one notebook each, beside bare imports and Dagster's own.

What a server does is measured on a server: a code server, a daemon and our host, each in a control
group of its own (`benchmarks.services`). The notebooks import numpy and pandas, make a frame of
1,000 rows and, where they are ours, keep it. They note when they begin and end.

``python -m benchmarks schedules``; ``python -m benchmarks.schedules --only PART`` measures one
part in a small size, for whoever works on it.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from dagster import DagsterRun

from benchmarks.harness import (
    BIN,
    PYTHON,
    SMALL_NOTEBOOK,
    Goal,
    Options,
    names,
    ratio,
    scratch,
    seconds,
    timed,
)
from benchmarks.services import Deployment, Reading, metering, postgres, wait_until
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

BEGINS = "import time\n\nbegan = time.time()\n"
ENDS = """
# %%
from pathlib import Path

Path({folder!r}, {name!r}).write_text(f"{{began}} {{time.time()}}")
"""
WAITS = """
while not Path({folder!r}, "go").exists():
    time.sleep(0.1)
"""

PEER = """\
import subprocess
import sys

import dagster as dg


def asset_of(name):
    @dg.asset(name=name)
    def asset():
        subprocess.run([sys.executable, "-c", f"import {{name}}"], check=True, cwd={folder!r})

    return asset


defs = dg.Definitions(assets=[asset_of(name) for name in {names!r}])
"""

SERVICES = ("daemon", "code", "host")
STOCK_LAUNCHER = {"run_launcher": {"module": "dagster", "class": "DefaultRunLauncher"}}
INTERVALS = (5, 1)
FIRST_DAY = date(2024, 1, 1)
# The services and one loop of xargs need less than this.
LEAD_S = 25.0
MIB = 2**20


@dataclass(frozen=True)
class Sizes:
    """How much is measured in a round."""

    launches: int = 10
    slow_launches: int = 4
    notebooks: int = 100
    partitions: int = 100
    workers: int = 10
    window_s: float = 20.0


Part = Callable[[Path, Options, Sizes], tuple[list[Table], list[Goal]]]


def run(options: Options, sizes: Sizes | None = None, *only: str) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    tables: list[Table] = []
    goals: list[Goal] = []
    for name in only or PARTS:
        print(f"  {name}", flush=True)
        with scratch() as folder:
            found = PARTS[name](folder, options, sizes or Sizes())
        tables += found[0]
        goals += found[1]
    return tables, goals


def _write(folder: Path, count: int, *, manifest: str = "", waits: bool = False) -> Path:
    """A project of notebooks that note when they begin and end."""
    (folder / "notebooks").mkdir(parents=True)
    (folder / "noted").mkdir()
    for name in names(count):
        more = (ENDS + WAITS if waits else ENDS).format(folder=str(folder / "noted"), name=name)
        text = f"# %%\n{BEGINS}\n{SMALL_NOTEBOOK}{more}"
        (folder / "notebooks" / f"{name}.py").write_text(text)
    _write_manifest(folder, count, manifest)
    return folder


def _write_manifest(folder: Path, count: int, more: str = "") -> None:
    lines = [f"  {name}: {{outputs: [frame]}}\n" for name in names(count)]
    (folder / "notebooks" / "manifest.yaml").write_text("notebooks:\n" + "".join(lines) + more)


def _noted(folder: Path, name: str) -> tuple[float, float]:
    """When a notebook began and ended."""
    began, ended = (folder / "noted" / name).read_text().split()
    return float(began), float(ended)


def _bare_cpu(folder: Path, count: int) -> float:
    """CPU seconds of one bare import."""

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    for name in names(count):
        timed([PYTHON, "-c", f"import {name}"], folder / "notebooks")
    return (used() - before) / count


# -- one run ----------------------------------------------------------------------------------

HOSTED, UNHOSTED, STOCK, BARE = (
    "ours, host", "ours, no host", "Dagster's launcher and executor", "python -c 'import nb'"
)  # fmt: skip


def launched(folder: Path, options: Options, sizes: Sizes) -> tuple[list[Table], list[Goal]]:
    """CPU of one run, time to its first cell; a command beside the host; a host that waits."""
    peer = _write(folder / "peer", sizes.slow_launches)
    text = PEER.format(folder=str(peer / "notebooks"), names=names(sizes.slow_launches))
    (peer / "defs.py").write_text(text)
    deployments = {
        HOSTED: Deployment(_write(folder / "host", sizes.launches)),
        UNHOSTED: Deployment(_write(folder / "none", sizes.slow_launches), host=False),
        STOCK: Deployment(
            peer, location=("-f", "defs.py"), host=False, config=STOCK_LAUNCHER
        ),
    }  # fmt: skip
    spent: dict[str, list[Reading]] = {name: [] for name in deployments}
    waited: dict[str, list[float]] = {name: [] for name in deployments}
    with ExitStack() as stack:
        for one in deployments.values():
            stack.enter_context(one.running())
        for one in deployments.values():  # what happens once: folders, bytecode, a host anew
            _round(one, 2)
            _round(one, 1)
        idle = _idle(deployments, sizes.window_s)

        def side(name: str) -> float:
            one = deployments[name]
            count = sizes.launches if name == HOSTED else sizes.slow_launches
            before = one.reading()
            runs = _round(one, count)
            used = one.reading().since(before).beyond(idle[name])
            spent[name].append(used.over(count))
            waited[name] += [_to_first_cell(one, run) for run in runs]
            return spent[name][-1].total

        found = in_turns(
            options.runs,
            {name: lambda name=name: side(name) for name in deployments}
            | {
                BARE: lambda: _bare_cpu(peer, sizes.slow_launches),
                "command": lambda: _command(deployments[HOSTED]),
            },
        )
    table = Table(
        "One run that the daemon launches, CPU in ms",
        ["how", "CPU", "of the bare import", "worker, notebook, report", *SERVICES,
         "launch to first cell"],
    )  # fmt: skip
    for name in deployments:
        table.add(
            name,
            _ms(found[name].takes),
            ratio(found[name], found[BARE]),
            _ms([one.work for one in spent[name]]),
            *(_ms([one.own.get(service, 0) for one in spent[name]]) for service in SERVICES),
            seconds(Figure(tuple(waited[name]))),
        )
    table.add(BARE, _ms(found[BARE].takes), "1", *[""] * 5)
    waiting = Figure((100 * idle[HOSTED].all["host"] / idle[HOSTED].at,))
    table.notes.append(
        f"By {metering()}, beyond an idle window of {sizes.window_s:g} s. "
        f"{sizes.launches} runs a round, {sizes.slow_launches} where no host forks them; the UI's "
        "mutation puts them into the queue."
    )
    table.notes.append(
        "`research-jobs run` beside a host, beyond the notebook's own work: "
        f"{seconds(found['command'])}. A host that waits: {waiting} % of a core."
    )
    work = Figure(tuple(one.work for one in spent[HOSTED]))
    goals = [
        Goal.at_most("a run by the daemon, CPU of a bare import", 1.3,
                     ratio(found[HOSTED], found[BARE])),
        Goal.at_most("of which worker, notebook and report", 0.8, ratio(work, found[BARE])),
        Goal.at_most("launch to first cell", 0.5, Figure(tuple(waited[HOSTED])), " s"),
        Goal.at_most("research-jobs run beside a host, beyond own work", 0.5, found["command"],
                     " s"),
        Goal.at_most("a host that waits, of a core", 0.1, waiting, " %"),
    ]  # fmt: skip
    return [table], goals


def _ms(takes: Sequence[float]) -> str:
    return f"{Figure(tuple(takes)).median * 1000:.0f}"


def _idle(deployments: Mapping[str, Deployment], window_s: float) -> dict[str, Reading]:
    """What services use that have nothing to do, all over the same while."""
    before = {name: one.reading() for name, one in deployments.items()}
    time.sleep(window_s)
    return {name: one.reading().since(before[name]) for name, one in deployments.items()}


def _round(deployment: Deployment, count: int) -> Sequence[DagsterRun]:
    """Launch notebooks one after another and wait for all."""
    done = deployment.instance.get_runs_count()
    for name in names(count):
        deployment.submit(name)
        time.sleep(0.5)
    return deployment.runs(done + count)[:count]


def _to_first_cell(deployment: Deployment, run: DagsterRun) -> float:
    assert run.asset_selection is not None
    (key,) = run.asset_selection
    launch = deployment.instance.get_run_stats(run.run_id).launch_time
    assert launch is not None
    return _noted(deployment.project, key.path[-1])[0] - launch


def _command(deployment: Deployment) -> float:
    words = [BIN / "research-jobs", "run", "nb_0000"]
    taken = timed(words, deployment.project, env=deployment.settings)
    began, ended = _noted(deployment.project, "nb_0000")
    return taken - (ended - began)


# -- many runs --------------------------------------------------------------------------------


def due(folder: Path, options: Options, sizes: Sizes) -> tuple[list[Table], list[Goal]]:
    """Notebooks on as many schedules, due in the same minute."""
    project = _write(folder / "ours", sizes.notebooks)
    bare = _write(folder / "bare", sizes.notebooks) / "notebooks"
    shell = f"ls nb_*.py | sed 's/.py$//' | xargs -P2 -I{{}} {PYTHON} -c 'import {{}}'"
    spent: dict[str, list[float]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(postgres())

        def side(name: str, config: dict[str, Any]) -> float:
            taken, cpu = _due(project, sizes, config)
            spent.setdefault(name, []).append(cpu)
            return taken

        loop = "xargs -P2, bare imports"
        found = in_turns(
            options.runs,
            {
                loop: lambda: timed(shell, bare),
                "SQLite": lambda: side("SQLite", {}),
                "Postgres": lambda: side("Postgres", {"storage": server.storage()}),
            },
        )
    table = Table(
        f"{sizes.notebooks} notebooks on {sizes.notebooks} schedules due in the same minute",
        ["how", "first launch to last success", "of the loop", "CPU of a run, ms"],
    )
    for name, figure in found.items():
        cpu = _ms(spent[name]) if name in spent else ""
        table.add(name, seconds(figure), ratio(figure, found[loop]), cpu)
    table.notes.append(
        "The queue's settings are those of the project's dagster.yaml. Postgres does not sync. "
        "The CPU is that of all services over these seconds, without that of Postgres."
    )
    goals = [
        Goal.at_most(f"{sizes.notebooks} schedules, of xargs -P2, {name}", 1.3,
                     ratio(found[name], found[loop]))
        for name in ("SQLite", "Postgres")
    ]  # fmt: skip
    return [table], goals


def _due(project: Path, sizes: Sizes, config: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds from the first launch to the last success, and CPU seconds of a run."""
    minute = datetime.now(UTC) + timedelta(seconds=60 + LEAD_S)
    cron = f'"{minute.minute} {minute.hour} * * *"'
    lines = [
        f"  {name}: {{cron: {cron}, timezone: UTC, notebooks: [{name}]}}\n"
        for name in names(sizes.notebooks)
    ]
    _write_manifest(project, sizes.notebooks, "schedules:\n" + "".join(lines))
    with Deployment(project, config=config).running() as one:
        time.sleep(max(0.0, minute.replace(second=0, microsecond=0).timestamp() - time.time() - 1))
        before = one.reading()
        runs = one.runs(sizes.notebooks)
        used = one.reading().since(before)
        stats = [one.instance.get_run_stats(run.run_id) for run in runs]
    first = min(found.launch_time or 0 for found in stats)
    last = max(found.end_time or 0 for found in stats)
    return last - first, used.over(sizes.notebooks).total


def queue(folder: Path, options: Options, sizes: Sizes) -> tuple[list[Table], list[Goal]]:
    """What a shorter interval of the queue costs a daemon that has nothing to do."""
    deployments: dict[str, Deployment] = {}
    takes: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for interval in INTERVALS:
            project = _write(folder / str(interval), 2)
            one = Deployment(project, host=False, interval=interval)
            deployments[f"{interval} s"] = stack.enter_context(one.running())
        for _ in range(options.runs):
            for name, used in _idle(deployments, sizes.window_s).items():
                takes.setdefault(name, []).append(100 * used.all["daemon"] / used.at)
    table = Table("A daemon that has nothing to do", ["dequeue_interval_seconds", "% of a core"])
    for name, found in takes.items():
        table.add(name, Figure(tuple(found)))
    return [table], []


def backfill(folder: Path, options: Options, sizes: Sizes) -> tuple[list[Table], list[Goal]]:
    """One run for each partition, by Dagster's own command."""
    end = FIRST_DAY + timedelta(days=sizes.partitions)
    asked = (options.runs, options.slow_runs)
    sides = {"ours, host": Deployment(_days(folder / "host", end))}
    sides["Dagster's launcher"] = Deployment(
        _days(folder / "peer", end), host=False, config=STOCK_LAUNCHER
    )
    found: dict[str, Figure] = {}
    with ExitStack() as stack:
        for one in sides.values():
            stack.enter_context(one.running())
        for (name, one), rounds in zip(sides.items(), asked, strict=True):
            found |= in_turns(rounds, {name: lambda one=one: _backfill(one, sizes.partitions)})
    ours, peer = found.values()
    table = Table(
        f"{sizes.partitions} partitions by `dagster job backfill`, a run each",
        ["launched by", "command's start to last success", "ours takes"],
    )
    for name, figure in found.items():
        table.add(name, seconds(figure), "" if figure is ours else f"{ratio(ours, figure)} of it")
    goal = Goal.at_most("a run for each partition, of Dagster's launcher", 1 / 4, ratio(ours, peer))
    return [table], [goal]


def _days(folder: Path, end: date) -> Path:
    manifest = f"{{by: day, start: {FIRST_DAY}, end: {end}}}"
    project = _write(folder, 1)
    (project / "notebooks" / "manifest.yaml").write_text(
        f"notebooks:\n  nb_0000: {{outputs: [frame], partitions: {manifest}}}\n"
    )
    return project


def _backfill(deployment: Deployment, count: int) -> float:
    done = deployment.instance.get_runs_count()
    began = time.time()
    workspace = deployment.home / "workspace.yaml"
    words = ["job", "backfill", "-w", workspace, "-j", "notebooks_by_day", "--noprompt"]
    timed([BIN / "dagster", *words, "--all", "yes"], deployment.project, env=deployment.settings)
    runs = deployment.runs(done + count)[:count]
    ends = [deployment.instance.get_run_stats(run.run_id).end_time or 0 for run in runs]
    return max(ends) - began


# -- memory -----------------------------------------------------------------------------------


def memory(folder: Path, options: Options, sizes: Sizes) -> tuple[list[Table], list[Goal]]:
    """Private memory of run workers whose notebooks wait."""
    more = f"defaults: {{concurrency: {sizes.workers}}}\n"
    project = _write(folder / "ours", sizes.workers, manifest=more, waits=True)
    takes: list[float] = []
    with Deployment(project).running() as one:
        host = psutil.Process(one.services["host"].process.pid)
        for _ in range(options.runs):
            done = one.instance.get_runs_count()
            for path in (project / "noted").iterdir():
                path.unlink()
            for name in names(sizes.workers):
                one.submit(name)
            wait_until(
                lambda: len(list((project / "noted").iterdir())) == sizes.workers, "all wait"
            )
            time.sleep(1)
            workers = [child for child in host.children() if child.name() == "rj-run"]
            assert len(workers) == sizes.workers
            takes += [_private(worker.pid) / MIB for worker in workers]
            (project / "noted" / "go").touch()
            one.runs(done + sizes.workers)
    figure = Figure(tuple(takes))
    table = Table(f"Private memory (USS), {sizes.workers} runs at once, MiB", ["of", "MiB"])
    table.add("a run worker", figure)
    return [table], [Goal.at_most("private memory of a run worker", 55, figure, " MiB")]


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = [int(line.split()[1]) for line in lines if line.startswith("Private_")]
    return 1024 * sum(found)


PARTS: dict[str, Part] = {
    "launched": launched, "due": due, "queue": queue, "backfill": backfill, "memory": memory
}  # fmt: skip


def main() -> None:
    """Measure some parts in a small size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--count", type=int, default=4, help="of notebooks, runs, partitions")
    parser.add_argument("--window", type=float, default=8.0, help="seconds of an idle window")
    given = parser.parse_args()
    sizes = Sizes(*[given.count] * 5, window_s=given.window)
    tables, goals = run(Options(runs=given.runs), sizes, *given.only)
    print("\n".join(table.text() for table in tables))
    for goal in goals:
        print(f"{goal.name}: {goal.target}, {goal.reached}, {'met' if goal.met else 'not met'}")


if __name__ == "__main__":
    main()
