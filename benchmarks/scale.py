"""What grows with what: commands, ticks, the watch and the UI at three sizes of a project.

A project of many notebooks, with partitions, a store, reports and a long history on Postgres
(`benchmarks.scale_project`), is made in each size. What a person waits for is a process of its own
and is measured from outside: wall, CPU and the largest memory. Beside it stands Dagster alone: a
location of as many assets with the same keys, partitions and checks, and nothing of ours.

``python -m benchmarks scale``; ``python -m benchmarks.scale --notebooks 100 --runs 2000 --only
commands`` measures a part in a size of one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.harness import BIN, PYTHON, Goal, Options, scratch
from benchmarks.scale_project import PARTITIONS, Made, Size, make
from benchmarks.services import answers, free_port, postgres, wait_until
from benchmarks.table import Table

__all__ = ["run"]

SIZES = (Size(100, 2_000), Size(1_000, 20_000), Size(5_000, 100_000))
MIB = 2**20

# Seconds without an answer after which a page of the UI has all it asks for.
QUIET_S = 5.0
PAGE_S = 120.0


@dataclass(frozen=True)
class Took:
    """What something took.

    Parameters
    ----------
    wall_s, cpu_s : float
    mib : float
        The largest memory of one of its processes, in MiB; 0 where it is a part of a process.
    database_s : float
        CPU of PostgreSQL meanwhile, seconds.
    note : str
    """

    wall_s: float
    cpu_s: float
    mib: float = 0.0
    note: str = ""
    database_s: float = 0.0

    def __str__(self) -> str:
        cpu = _digits(self.cpu_s)
        cpu += f" + {_digits(self.database_s)}" if self.database_s >= 0.05 else ""
        parts = [f"{_digits(self.wall_s)} s", f"{cpu} s"]
        parts += [f"{self.mib:.0f} MiB"] if self.mib else []
        return " / ".join(parts) + (f" ({self.note})" if self.note else "")


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


Results = dict[str, Took]

# The largest memory of a process is never less than that of the one that started it.
LAUNCHER = """\
import json, os, sys, time
started = time.perf_counter()
process = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
taken = time.perf_counter() - started
with open(sys.argv[1], "w") as file:
    json.dump([taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""

LOAD = """\
from research_jobs.definitions import defs
repository = defs.get_repository_def()
print(len(repository.asset_graph.get_all_asset_keys()))
"""
PLAIN_LOAD = """\
from plain import defs
repository = defs.get_repository_def()
print(len(repository.asset_graph.get_all_asset_keys()))
"""
PLAIN = '''\
"""As many assets as the project has notebooks, in plain Dagster."""

import sys
from datetime import date, timedelta

import dagster as dg

from benchmarks.scale_project import names_of, read_by

START = {start!r}


def asset(name):
    partitioned, study = name.startswith("daily"), name.startswith("study")

    @dg.asset(
        name=name,
        deps=[read_by(name)] if study else [],
        partitions_def=dg.DailyPartitionsDefinition(START) if partitioned else None,
        check_specs=[] if partitioned else [dg.AssetCheckSpec("frame_min_rows", asset=name)],
        code_version="1",
    )
    def made(context):
        raise NotImplementedError

    return made


assets = [asset(name) for name in names_of({count})]
everything = dg.define_asset_job("everything", selection="*")


def schedule(name, block, cron):
    keys = [one.key for one in block]

    @dg.schedule(
        name=name, cron_schedule=cron, job_name="everything",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def due(context):
        return dg.RunRequest(run_key=str(context.scheduled_execution_time), asset_selection=keys)

    return due


schedules = [
    schedule(f"morning_{{n // 100:02}}", assets[n : n + 100], "30 6 * * *")
    for n in range(0, {count}, 100)
]
defs = dg.Definitions(assets=assets, jobs=[everything], schedules=schedules)
'''

TICK = """\
import json, sys, time
from datetime import datetime, timezone
import dagster as dg
from research_jobs.definitions import defs
repository = defs.get_repository_def()
takes = []
with dg.DagsterInstance.get() as instance:
    for name in ("morning_00", "nightly_00"):
        for _ in range(2):
            cron = repository.get_schedule_def(name).cron_schedule.split()
            due = datetime.now(timezone.utc).replace(
                hour=int(cron[1]), minute=int(cron[0]), second=0, microsecond=0
            )
            context = dg.build_schedule_context(
                instance, scheduled_execution_time=due, repository_def=repository
            )
            wall, cpu = time.perf_counter(), time.process_time()
            data = repository.get_schedule_def(name).evaluate_tick(context)
            takes.append([
                name, time.perf_counter() - wall, time.process_time() - cpu,
                len(data.run_requests or ()),
            ])
print(json.dumps(takes))
"""

LOOK = """\
import json, time
from research_jobs.orchestration.model.instance import enter_project
from research_jobs.orchestration.operations.watch import Watch, _History
from research_jobs.project import find_project
import dagster as dg
import resource

project = find_project(None)
enter_project(project)
history = _History(project, print)
takes = []
def look(what):
    wall, cpu = time.perf_counter(), time.process_time()
    seen = history.look(time.time())
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    takes.append([what, time.perf_counter() - wall, time.process_time() - cpu, size])
    assert history._broken_since is None, seen.conditions
look("first")
look("nothing has changed")
with dg.DagsterInstance.get() as instance:
    instance.report_runless_asset_event(dg.AssetObservation(dg.AssetKey("source_00001")))
look("after one event")
history._looked_at = 0.0
look("once a minute")
history.close()
print(json.dumps(takes))
"""

# An iteration of the daemon's scheduler. The runs that it requests stay in the queue.
ITERATION = """\
import json, logging, sys, time
import dagster._daemon
from datetime import datetime, timedelta, timezone
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._scheduler.scheduler import launch_scheduled_runs
takes = []
with DagsterInstance.get() as instance, WorkspaceProcessContext(
    instance, WorkspaceFileTarget([sys.argv[1]])
) as workspace:
    now, times = datetime.now(timezone.utc), {}
    tomorrow = now + timedelta(days=1)
    for what, at in (("first", now), ("idle", now), ("due", tomorrow)):
        wall, cpu = time.perf_counter(), time.process_time()
        list(launch_scheduled_runs(workspace, logging.getLogger("tick"), at, times))
        takes.append([what, time.perf_counter() - wall, time.process_time() - cpu])
print(json.dumps(takes))
"""


def measured(
    made: Made,
    command: Sequence[str | os.PathLike[str]],
    *,
    codes: tuple[int, ...] = (0,),
    extra: dict[str, str] | None = None,
) -> tuple[Took, str]:
    """What a whole command takes, and what it printed."""
    takes = made.root.parent / "takes.json"
    before = _database_s(made)
    ended = subprocess.run(
        [PYTHON, "-S", "-E", "-c", LAUNCHER, str(takes), *map(str, command)],
        cwd=made.root,
        env={**made.environment, **(extra or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode not in codes:
        said = ended.stdout + ended.stderr
        raise RuntimeError(f"{command} ended with {ended.returncode}:\n{said[-4000:]}")
    wall, cpu, mib = json.loads(takes.read_text())
    return Took(wall, cpu, mib, database_s=_database_s(made) - before), ended.stdout


def _database_s(made: Made) -> float:
    """CPU seconds of PostgreSQL, with its processes that have ended."""
    server = psutil.Process(made.server.pid)
    every = [server, *server.children(recursive=True)]
    found = 0.0
    for one in every:
        with suppress(psutil.NoSuchProcess):
            found += sum(one.cpu_times()[:4])
    return found


# -- parts -----------------------------------------------------------------------------------------


def load(made: Made) -> Iterator[tuple[str, Took]]:
    """The code location, and Dagster's share of it."""
    shutil.rmtree(made.root / ".research_jobs" / "cache", ignore_errors=True)
    for row in ("load, cold", "load, warm"):
        yield row, _loaded(made, LOAD)
    _write_plain(made)
    yield "load, Dagster alone", _loaded(made, PLAIN_LOAD)


def _loaded(made: Made, program: str) -> Took:
    took, said = measured(made, [PYTHON, "-c", program], extra=_plain_path(made))
    assert int(said) == made.size.notebooks, said
    return took


def _plain_path(made: Made) -> dict[str, str]:
    here = Path(__file__).resolve().parents[1]
    return {"PYTHONPATH": f"{made.root.parent}{os.pathsep}{here}"}


def _write_plain(made: Made) -> None:
    manifest = yaml.safe_load((made.root / "notebooks" / "manifest.yaml").read_text())
    start = str(manifest["notebooks"]["daily_00000"]["partitions"]["start"])
    text = PLAIN.format(count=made.size.notebooks, start=start)
    (made.root.parent / "plain.py").write_text(text)


COMMANDS: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...] = (
    ("list", ("list",), (0,)),
    ("status", ("status",), (1,)),
    ("check", ("check",), (0,)),
    ("account", ("account",), (0, 1)),
    ("space", ("space",), (0,)),
    ("report (the page of all)", ("report",), (0,)),
    ("run --stale --dry-run", ("run", "--stale", "--dry-run", "--no-host"), (0,)),
)


def commands(made: Made) -> Iterator[tuple[str, Took]]:
    """What a person types."""
    measured(made, [BIN / "research-jobs", "check"])  # leaves the cache of a scan
    for row, words, codes in COMMANDS:
        yield row, measured(made, [BIN / "research-jobs", *words], codes=codes)[0]


def ticks(made: Made) -> Iterator[tuple[str, Took]]:
    """A tick of one schedule without partitions, and of one with, in a warm process."""
    _, said = measured(made, [PYTHON, "-c", TICK])
    for name, wall, cpu, count in json.loads(said)[1::2]:
        kind = "partitions" if name.startswith("nightly") else "no partitions"
        yield f"tick, {kind}", Took(wall, cpu, note=f"{count} runs")


def looks(made: Made) -> Iterator[tuple[str, Took]]:
    """The watch at the history: its first look, and those that follow."""
    _, said = measured(made, [PYTHON, "-c", LOOK])
    for what, wall, cpu, mib in json.loads(said.splitlines()[-1]):
        yield f"watch, {what}", Took(wall, cpu, mib)


def runs(made: Made) -> Iterator[tuple[str, Took]]:
    """One notebook from a shell, in a process of its own and beside a host."""
    command = [BIN / "research-jobs", "run", "source_00001"]
    yield "run of one notebook", measured(made, [*command, "--no-host"])[0]
    with _service(made, "host", [BIN / "research-jobs", "host"]) as host:
        wait_until(lambda: "ready" in host.said(), "the host is ready")
        time.sleep(1)
        measured(made, command)  # starts the template
        before = host.cpu_s()
        took, _ = measured(made, command)
        mib = host.process.memory_info().rss / MIB
        note = f"host: {mib:.0f} MiB"
        yield (
            "run of one notebook, beside a host",
            replace(took, cpu_s=took.cpu_s + host.cpu_s() - before, mib=0, note=note),
        )


def iterations(made: Made) -> Iterator[tuple[str, Took]]:
    """The daemon's scheduler: with nothing due, and with every schedule due at once."""
    with _code_server(made, ["-m", "research_jobs.definitions"]) as (server, workspace):
        before = server.cpu_s()
        _, said = measured(made, [PYTHON, "-c", ITERATION, workspace])
        names = {
            "idle": "scheduler's look, nothing due",
            "due": f"scheduler's look, all {len(made.schedules)} schedules due",
        }
        for what, wall, cpu in json.loads(said.splitlines()[-1]):
            if what in names:
                note = f"code server: {server.cpu_s() - before:.1f} s" if what == "due" else ""
                yield names[what], Took(wall, cpu, note=note)


def prune(made: Made) -> Iterator[tuple[str, Took]]:
    """Retention: what would go, and then it goes."""
    command = [BIN / "research-jobs", "prune"]
    yield "prune --dry-run", measured(made, [*command, "--dry-run"])[0]
    took, said = measured(made, command)
    gone = [line.split() for line in said.splitlines() if line.startswith("logs of runs")]
    yield "prune", replace(took, note=f"{gone[0][3]} runs thinned")


def pages(made: Made) -> Iterator[tuple[str, Took]]:
    """What two pages of Dagster's UI ask for, beside what they ask of Dagster alone."""
    _write_plain(made)
    for whose, location in (
        ("", ["-m", "research_jobs.definitions"]),
        (", Dagster alone", ["-f", str(made.root.parent / "plain.py")]),
    ):
        with ExitStack() as stack:
            server, workspace = stack.enter_context(_code_server(made, location))
            port = free_port()
            listen = ["--host", "127.0.0.1", "--port", str(port)]
            web = stack.enter_context(
                _service(made, "web", [BIN / "dagster-webserver", "-w", workspace, *listen])
            )
            began = time.perf_counter()
            url = f"http://127.0.0.1:{port}"
            wait_until(partial(_loaded_in, url), "the webserver has the location", 0.1)
            cpu = web.cpu_s() + server.cpu_s()
            yield f"webserver's start{whose}", Took(time.perf_counter() - began, cpu)
            for page, path in (("global asset graph", "/asset-groups"), ("catalog", "/assets")):
                yield f"{page}{whose}", _page(made, f"{url}{path}", web, server)


def _loaded_in(url: str) -> bool:
    query = "{workspaceOrError{... on Workspace{locationEntries{loadStatus}}}}"
    try:
        answer = json.loads(_post(url, json.dumps({"query": query}).encode()))
    except OSError:
        return False
    entries = answer["data"]["workspaceOrError"]["locationEntries"]
    return bool(entries) and all(entry["loadStatus"] == "LOADED" for entry in entries)


def _post(url: str, body: bytes) -> bytes:
    request = urllib.request.Request(
        f"{url.split('/asset', maxsplit=1)[0]}/graphql", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        return answer.read()


def _page(made: Made, url: str, web: _Service, server: _Service) -> Took:
    """Ask again, one after another, what a browser asks on a page; the slowest is noted."""
    asked = _asked(url)
    before, database = web.cpu_s() + server.cpu_s(), _database_s(made)
    size, slowest, total = 0, (0.0, ""), 0.0
    for body in asked:
        began = time.perf_counter()
        size += len(_post(url, body))
        taken = time.perf_counter() - began
        total += taken
        slowest = max(slowest, (taken, json.loads(body).get("operationName") or ""))
    note = f"{len(asked)} queries, {size / 1e6:.1f} MB, {slowest[1]} {_digits(slowest[0])} s"
    cpu = web.cpu_s() + server.cpu_s() - before
    mib = web.process.memory_info().rss / MIB
    return Took(total, cpu, mib, note, _database_s(made) - database)


def _asked(url: str) -> list[bytes]:
    """What a browser asks the webserver for, until it is quiet for a while."""
    from playwright.sync_api import sync_playwright

    found: list[bytes] = []
    waiting: set[int] = set()
    last = time.monotonic()

    def sent(request: Any) -> None:
        nonlocal last
        if request.url.endswith("/graphql") or "/graphql?" in request.url:
            if request.method == "POST":
                found.append(request.post_data.encode())
            waiting.add(id(request))
            last = time.monotonic()

    def over(request: Any) -> None:
        nonlocal last
        if id(request) in waiting:
            waiting.discard(id(request))
            last = time.monotonic()

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.on("request", sent)
        page.on("requestfinished", over)
        page.on("requestfailed", over)
        page.goto(url)
        end = time.monotonic() + PAGE_S
        while time.monotonic() < end and (
            not found or waiting or time.monotonic() - last < QUIET_S
        ):
            page.wait_for_timeout(200)
        browser.close()
    # What it asks for again and again is asked for once.
    return list(dict.fromkeys(found))


# -- services --------------------------------------------------------------------------------------


class _Service:
    """A process that serves, with its children."""

    def __init__(self, made: Made, name: str, command: Sequence[Any]) -> None:
        self.log = made.root.parent / f"{name}.log"
        with self.log.open("wb") as sink:
            self._popen = subprocess.Popen(
                [str(part) for part in command], cwd=made.root,
                env=made.environment | (_plain_path(made) if name == "code" else {}),
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
        self.process = psutil.Process(self._popen.pid)

    def said(self) -> str:
        """What it has printed; raises when it has ended."""
        text = self.log.read_text(errors="replace")
        if self._popen.poll() is not None:
            raise RuntimeError(f"{self._popen.args} ended:\n{text[-4000:]}")
        return text

    def cpu_s(self) -> float:
        """CPU seconds of it, of its children, and of those that have ended."""
        every = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:4]) for one in every)

    def stop(self) -> None:
        """End it with all that it has started."""
        children = self.process.children(recursive=True)
        self._popen.terminate()
        try:
            self._popen.wait(20)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        for child in children:
            if child.is_running():
                child.kill()


@contextmanager
def _service(made: Made, name: str, command: Sequence[Any]) -> Iterator[_Service]:
    service = _Service(made, name, command)
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def _code_server(made: Made, location: Sequence[str]) -> Iterator[tuple[_Service, Path]]:
    port = free_port()
    workspace = made.root.parent / "workspace.yaml"
    server = {"host": "127.0.0.1", "port": port, "location_name": "research_jobs"}
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    listen = ["--host", "127.0.0.1", "--port", str(port), "--location-name", "research_jobs"]
    command = [BIN / "dagster", "code-server", "start", *location, *listen]
    with _service(made, "code", command) as service:
        wait_until(lambda: (service.said(), answers(port))[1], "the code server answers")
        yield service, workspace


# -- all of it -------------------------------------------------------------------------------------

# In this order: what changes the history comes last.
PARTS: dict[str, Callable[[Made], Iterator[tuple[str, Took]]]] = {
    "load": load, "commands": commands, "ticks": ticks, "looks": looks, "pages": pages,
    "runs": runs, "prune": prune, "iterations": iterations,
}  # fmt: skip


def measure(size: Size, *only: str) -> Results:
    """Make a project and measure it."""
    found: Results = {}
    with scratch() as folder, postgres() as server:
        began = time.monotonic()
        made = make(folder, size, server)
        print(f"  {size}: made in {time.monotonic() - began:.0f} s", flush=True)
        for name, part in PARTS.items():
            if only and name not in only:
                continue
            for row, took in part(made):
                found[row] = took
                print(f"  {size}: {row}: {took}", flush=True)
    return found


NOTE = f"""\
One notebook of ten has {PARTITIONS} daily partitions with data; a hundred share two schedules.
After a plus: CPU of PostgreSQL. What has no memory is a part of a process. In brackets: what came
of it, and of a page of the UI how many queries it sends, what they answer in all, and the slowest
of them."""


def table_of(results: dict[Size, Results]) -> Table:
    """All sizes side by side."""
    table = Table(
        "Wall / CPU / largest memory",
        ["what", *(str(size) for size in results)],
        notes=[NOTE],
    )
    for row in dict.fromkeys(row for found in results.values() for row in found):
        table.add(row, *(found.get(row, "") for found in results.values()))
    return table


def run(options: Options, sizes: Sequence[Size] = (), *only: str) -> tuple[list[Table], list[Goal]]:
    """Measure each size once: the growth is what counts."""
    sizes = sizes or (SIZES if options.full else SIZES[:-1])
    results = {size: measure(size, *only) for size in sizes}
    goals = [
        Goal.at_most(f"{row}, {size}", limit, found[row].wall_s, " s")
        for size, found in list(results.items())[-1:]
        for row, limit in (
            ("tick, no partitions", 1), ("tick, partitions", 1), ("list", 10), ("status", 10),
        )
        if row in found
    ]  # fmt: skip
    return [table_of(results)], goals


def main() -> None:
    """Measure some parts in a size of one's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notebooks", type=int, nargs="+", default=[100], help="how many (100)")
    parser.add_argument("--runs", type=int, nargs="+", help="of history (20 of each notebook)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    counts = given.runs or [20 * count for count in given.notebooks]
    sizes = [Size(*pair) for pair in zip(given.notebooks, counts, strict=True)]
    tables, goals = run(Options(), sizes, *given.only)
    print("\n".join(table.text() for table in tables))
    for goal in goals:
        print(f"{goal.name}: {goal.target}, {goal.reached}, {'met' if goal.met else 'not met'}")


if __name__ == "__main__":
    main()
