"""``python -m benchmarks``: run them, print the tables, keep them in ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib
import json
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, Options
from benchmarks.table import Table, machine

BENCHMARKS = {
    "engine": "20 and 100 notebooks in one run, beside Dagster, dagstermill and a shell loop",
    "call": "one notebook by run_notebook() in a warm program, beside papermill",
    "load": "load of the code location with 100, 1,000 and 5,000 notebooks",
    "memory": "memory of the run worker while a notebook publishes a frame of 2 GB",
    "backfill": "365 daily partitions, and the status of 5,000",
    "idle": "CPU of a run that waits",
    "schedules": "one notebook a run, launched by the daemon, beside bare imports and Dagster",
    "timeline": "where the time of one run of 100 notebooks goes",
    "store": "writing 10 million rows beside pandas, reading beside pandas and polars",
    "scale": "commands, ticks, the watch and the UI with 100, 1,000 and 5,000 notebooks",
    "transfers": "200 MB to an S3 server and back, beside pyarrow, s3fs and obstore",
    "retention": "what a run leaves on the disk, and a year of runs",
    "compare": "what differs between two versions of 10 million rows, beside a join of polars",
    "trying": "a change of one line until the verdict of `research-jobs try`",
    "provenance": "what a run's record adds to a run",
    "versions": "what 20 daily versions of a table take, in the store and in a backup",
    "display": "what showing tables and charts costs, and their report",
}
"""Name to summary, in the order in which they run."""

INTRODUCTION = """\
Written by `make bench` (`python -m benchmarks`). `benchmarks/README.md` says what each figure is
and how it is taken. Medians, with the smallest and the largest take in brackets; ratios are taken
within a round."""

RESULTS = Path(__file__).with_name("RESULTS.md")
KEPT = Path(__file__).resolve().parents[1] / ".research_jobs" / "benchmarks"


def main() -> None:
    """Run, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which ({', '.join(BENCHMARKS)}); all by default"
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds (3)")
    parser.add_argument(
        "--full",
        action="store_true",
        help="dagstermill with 100 notebooks, scale with 5,000, longer windows: about an hour",
    )
    parser.add_argument("--no-write", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    options = Options(runs=arguments.runs, full=arguments.full)
    head = machine()
    print(head, flush=True)
    for name in arguments.names or BENCHMARKS:
        print(f"\n{name}: {BENCHMARKS[name]}", flush=True)
        started = time.monotonic()
        tables, goals = _run(name, options)
        text = "\n".join(table.text() for table in tables)
        against = _goals(goals).text() if goals else ""
        print(f"\n{text}\n{against}\n({time.monotonic() - started:.0f} s)", flush=True)
        if not arguments.no_write:
            _keep(name, text, goals, head, options)
    if not arguments.no_write:
        _write()
        print(f"Kept in benchmarks/{RESULTS.name}")


def _run(name: str, options: Options) -> tuple[list[Table], list[Goal]]:
    module: Any = importlib.import_module(f"benchmarks.{name}")
    return module.run(options)


def _goals(goals: list[Goal]) -> Table:
    table = Table("Against what was set", ["figure", "set", "reached", ""])
    for goal in goals:
        table.add(goal.name, goal.target, goal.reached, "met" if goal.met else "**not met**")
    return table


def _keep(name: str, text: str, goals: list[Goal], head: str, options: Options) -> None:
    """Keep one benchmark's part, so that one run by name renews its part of RESULTS.md alone."""
    KEPT.mkdir(parents=True, exist_ok=True)
    part = {
        "text": text,
        "goals": [asdict(goal) for goal in goals],
        "machine": head,
        "commit": _commit(),
        "when": f"{dt.datetime.now(tz=dt.timezone.utc):%Y-%m-%d %H:%M} UTC",
        "command": f"python -m benchmarks {name} --runs {options.runs}"
        + (" --full" if options.full else ""),
    }
    (KEPT / f"{name}.json").write_text(json.dumps(part))


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def _write() -> None:
    """RESULTS.md, from the last result of each benchmark."""
    parts = {
        name: json.loads((KEPT / f"{name}.json").read_text())
        for name in BENCHMARKS
        if (KEPT / f"{name}.json").is_file()
    }
    goals = [Goal(**goal) for part in parts.values() for goal in part["goals"]]
    lines = [
        "# Benchmarks: the last results",
        "",
        INTRODUCTION,
        "",
        _goals(goals).text(),
    ]
    for name, part in parts.items():
        lines += [
            f"# {name}: {BENCHMARKS[name]}",
            "",
            f"`{part['command']}`, {part['when']}, commit {part['commit']}. {part['machine']}",
            "",
            part["text"],
        ]
    notes = RESULTS.with_name("notes.md")
    if notes.is_file():
        lines.append(notes.read_text())
    RESULTS.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
