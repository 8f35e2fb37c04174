"""Where the time of one run of 100 notebooks goes: the command's milestones, then the CPU time.

The command runs as always, in a process that notes when it comes by certain places. Wall times say
what a person waits for; CPU times (the command's own, and those of the warm interpreter, the
guardians and the notebooks' processes together) say what there is to save.

``python -m benchmarks timeline``
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import PYTHON, Goal, Options, clean_environment, make_project, scratch
from benchmarks.table import Table

__all__ = ["run"]

COUNT = 100

PROGRAM = """\
import sys, time
began, cpu = time.perf_counter(), time.process_time()
import json
marks = []
def mark(name):
    marks.append((name, time.perf_counter() - began, time.process_time() - cpu))
def after(owner, attribute, name):
    original = getattr(owner, attribute)
    def wrapper(*args, **kwargs):
        found = original(*args, **kwargs)
        if not any(known == name for known, _, _ in marks):
            mark(name)
        return found
    setattr(owner, attribute, wrapper)

from research_jobs.cli.main import main
from research_jobs.supervisor.supervise import Supervisor
mark("interpreter and command line")
after(Supervisor, "warm", "(warm interpreter ready)")
import research_jobs.supervisor.shared as supervisors
from research_jobs.project import find_project
supervisors.warm_up(find_project(sys.argv[1]))
supervisors.warm_up = lambda project: None
import dagster
mark("import dagster")
from research_jobs.orchestration.operations import launch, session
mark("import our own modules")
after(session, "end_dead_runs", "open the instance (SQLite)")
after(session, "load_catalog", "scan notebooks, read the manifest")
after(session, "Launcher", "definitions and repository")
after(dagster.DagsterInstance, "create_run_for_job", "create the run, plan 100 assets")
FIRST = "first step begins"
see = launch._Watch.see
def seen(self, event):
    for found in see(self, event):
        if isinstance(found, launch.Started) and not ended and marks[-1][0] != FIRST:
            mark(FIRST)
        if isinstance(found, launch.Outcome):
            ended.append((time.perf_counter() - began, time.process_time() - cpu))
        yield found
ended = []
launch._Watch.see = seen
code = main(["run", "--all", "--project", sys.argv[1]])
marks.append(("first notebook ends", *ended[0]))
marks.append(("last notebook ends", *ended[-1]))
mark("table printed")
supervisors.close_supervisors()
mark("warm interpreter ended")
with open(sys.argv[2], "w") as file:
    json.dump({"code": code, "marks": marks}, file)
"""

PROFILE = """\
import cProfile, json, pstats, sys, threading, time
profiles = []
run = threading.Thread.run
def profiled(self):
    profile = cProfile.Profile(time.thread_time)
    profiles.append(profile)
    profile.enable()
    try:
        run(self)
    finally:
        profile.disable()
threading.Thread.run = profiled
from research_jobs.cli.main import main
main(["run", "--all", "--project", sys.argv[1]])
stats = None
for profile in profiles:
    try:
        stats = pstats.Stats(profile) if stats is None else stats.add(profile)
    except TypeError:
        continue  # a thread that never ran
found = {}
for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
    found.setdefault(file.rpartition("/site-packages/")[2].rpartition("/research_jobs/")[2]
                     + ":" + function, cumulative)
json.dump(found, open(sys.argv[2], "w"))
"""

# What a step's thread does in the run worker; the first is all of it.
PARTS = {
    "all of a step's thread": "run_loop.py:_run_attempt",
    "Dagster stores events": "event_methods.py:handle_new_event",
    "of that, a materialisation's row of the asset": "sql_event_log.py:_store_asset_event",
    "publish the outputs": "io_manager.py:publish",
    "report and gallery": "reports.py:make_run_report",
    "metadata of the materialisation": "work.py:metadata",
    "supervise the notebook's process": "supervise.py:run",
}


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    del options
    with scratch() as folder:
        project = make_project(folder / "project", COUNT)
        _python(PROGRAM, project, folder / "first.json")  # makes the instance and the caches
        found = _python(PROGRAM, project, folder / "marks.json")
        profile = _python(PROFILE, project, folder / "profile.json")
    return [_milestones(found), _cpu(found), _parts(profile)], []


def _python(program: str, project: Path, result: Path) -> dict[str, Any]:
    done = subprocess.run(
        [PYTHON, "-c", program, project, result],
        cwd=project,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(result.read_text())


def _milestones(found: dict[str, Any]) -> Table:
    table = Table(
        f"Timeline of `research-jobs run --all`, {COUNT} notebooks",
        ["until", "wall, s", "CPU of the command, s"],
    )
    for name, wall, cpu in sorted(found["marks"], key=lambda mark: mark[1]):
        table.add(name, f"{wall:.2f}", f"{cpu:.2f}")
    table.notes.append(
        "The warm interpreter imports pandas and pyarrow beside the command's own imports."
    )
    return table


def _cpu(found: dict[str, Any]) -> Table:
    at = {name: cpu for name, _, cpu in found["marks"]}
    steps = at["last notebook ends"] - at["first step begins"]
    table = Table(f"CPU time of that run, and for each of {COUNT} notebooks", ["", "s", "ms each"])
    table.add("the command before its first step", f"{at['first step begins']:.2f}", "")
    table.add("the command while notebooks run", f"{steps:.2f}", f"{steps / COUNT * 1000:.0f}")
    return table


def _parts(profile: dict[str, float]) -> Table:
    def of(place: str) -> float:
        return max((taken for name, taken in profile.items() if name.endswith(place)), default=0.0)

    whole = of(next(iter(PARTS.values())))
    table = Table("What the command's own CPU time while notebooks run goes to", ["", "share"])
    for name, place in PARTS.items():
        table.add(name, f"{of(place) / whole:.0%}")
    table.notes.append("By a profile of the steps' threads, which slows small functions most.")
    return table
