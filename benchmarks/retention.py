"""What a run leaves on the disk, and what is left of it once its log is removed.

``python -m benchmarks retention``. A notebook with a partition, two outputs and three checks runs
some times in a process, on SQLite and on Postgres; every byte of the history is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from benchmarks.harness import Goal, Options, scratch
from benchmarks.services import postgres
from benchmarks.table import Table
from research_jobs import build_defs
from research_jobs.filesystem import folder_bytes
from research_jobs.orchestration.compat import pruning
from research_jobs.orchestration.compat.assets import execute_run
from research_jobs.orchestration.compat.run_files import copy_run_files

RUNS = 20
NOTEBOOK = """\
# %% tags=["parameters"]
day = "2024-01-01"
# %%
import pandas as pd
prices = pd.DataFrame({"date": pd.date_range(day, periods=500), "close": range(500), "volume": 1})
summary = prices.describe()
summary
"""
MANIFEST = {
    "notebooks": {
        "prices": {
            "outputs": {
                "prices": {"min_rows": 1, "not_null": ["close"], "unique": ["date"]},
                "summary": {},
            },
            "partitions": {"by": "day", "start": "2024-01-01", "parameter": "day"},
        }
    }
}


@contextmanager
def _server(kind: str) -> Iterator[dict[str, Any]]:
    if kind == "SQLite":
        yield {}
        return
    with postgres() as server:
        yield {"storage": server.storage()}


def _runs(project: Path, instance: dg.DagsterInstance, first: int, count: int) -> list[str]:
    repository = build_defs(project).get_repository_def()
    key = dg.AssetKey("prices")
    job = repository.get_implicit_job_def_for_assets([key])
    done: list[str] = []
    for number in range(first, first + count):
        run = instance.create_run_for_job(
            job_def=job,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={"dagster/partition": f"2024-01-{number + 1:02}"},
            asset_selection=frozenset({key}),
        )
        list(execute_run(job, run, instance))
        done.append(run.run_id)
    assert all(run.is_success for run in instance.get_runs())
    return done


def _history_bytes(instance: dg.DagsterInstance, home: Path) -> int:
    """All bytes of a history, without those that are free."""
    logs = folder_bytes(home / "storage")
    storage: Any = instance.event_log_storage
    if storage.is_run_sharded:
        return folder_bytes(home / "history") + logs
    with storage.index_connection() as connection:
        connection.exec_driver_sql("VACUUM FULL")
        found = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
        return int(found.scalar()) + logs


def _measure(kind: str) -> tuple[float, float, float]:
    """Bytes of a run, of one without its log, and of its report."""
    with scratch() as folder, _server(kind) as settings:
        project, home = folder / "project", folder / "home"
        (project / "notebooks").mkdir(parents=True)
        home.mkdir()
        (project / "notebooks" / "prices.py").write_text(NOTEBOOK)
        (project / "notebooks" / "manifest.yaml").write_text(yaml.safe_dump(MANIFEST))
        (home / "dagster.yaml").write_text(
            yaml.safe_dump({"telemetry": {"enabled": False}, **settings})
        )
        copy_run_files()
        with dg.DagsterInstance.from_config(str(home)) as instance:
            _runs(project, instance, 0, 1)
            before = _history_bytes(instance, home)
            done = _runs(project, instance, 1, RUNS)
            after = _history_bytes(instance, home)
            for run_id in done:
                assert pruning.thin_run(instance, run_id)
            thin = _history_bytes(instance, home)
        reports = folder_bytes(project / "reports" / "prices" / "_runs") / (RUNS + 1)
        return (after - before) / RUNS, (thin - before) / RUNS, reports


def run(_options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure both kinds of database."""
    columns = ["", "a run", "without its log", "its report"]
    table = Table("What a run of two outputs and three checks leaves, in kB", columns)
    year = Table(
        "A year of 100 notebooks a day, in MB of history", ["", "all of it", "with retention"]
    )
    for kind in ("SQLite", "Postgres"):
        whole, thin, report = _measure(kind)
        table.add(kind, *(f"{size / 1000:.1f}" for size in (whole, thin, report)))
        bound = 90 * 100 * whole
        partitions = 365 * 100 * thin
        year.add(kind, f"{365 * 100 * whole / 1e6:,.0f}", f"{bound / 1e6:,.0f}, and up to "
                 f"{partitions / 1e6:,.0f} where all have daily partitions")  # fmt: skip
    year.notes.append(
        "With retention: 90 days whole, and of each partition its last run without a log."
    )
    return [table, year], []
