"""What the store costs: writing beside ``df.to_parquet``, ``load`` beside its peers.

Each figure is the median of the repeats, taken in turns so that a slow moment of the machine hits
both sides. Files are written to a temporary folder on disk, and fsync is taken apart: neither side
of a ratio has it.

``python -m benchmarks store``
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from benchmarks.harness import Goal, Options, scratch
from benchmarks.table import Table
from research_jobs.protocol import PartitionKey
from research_jobs.store import files as disk
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish
from research_jobs.store.load import load

__all__ = ["run"]

ROWS = 10_000_000


class NoSync(disk.Files):
    """The file operations without bringing anything to the disk."""

    def sync_file(self, path: Path) -> None:
        """Leave the file in the page cache."""

    def sync_folder(self, path: Path) -> None:
        """Leave the folder in the page cache."""


def frame(rows: int) -> pd.DataFrame:
    """Daily prices of many tickers, sorted by date: 8 columns."""
    random = np.random.default_rng(0)
    tickers = np.array([f"T{number:03d}" for number in range(500)])
    days = -(-rows // len(tickers))
    dates = np.repeat(pd.bdate_range("1980-01-01", periods=days).to_numpy(), len(tickers))[:rows]
    return pd.DataFrame(
        {
            "date": dates,
            "ticker": pd.Series(np.tile(tickers, days)[:rows]),
            "open": random.normal(100, 10, rows),
            "high": random.normal(101, 10, rows),
            "low": random.normal(99, 10, rows),
            "close": random.normal(100, 10, rows),
            "volume": random.integers(0, 1_000_000, rows),
            "adjusted": random.random(rows) < 0.01,
        }
    )


def in_turns(repeats: int, **sides: Callable[[], Any]) -> dict[str, float]:
    """Median seconds of each side, the sides taken in turns; ``_cpu`` of all threads together.

    On a machine that others use too, the ratio of CPU seconds says more than that of the clock.
    """
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, run in sides.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run()
            times.setdefault(name, []).append(time.perf_counter() - clock)
            times.setdefault(f"{name}_cpu", []).append(time.process_time() - cpu)
    return {name: statistics.median(taken) for name, taken in times.items()}


def writing(data: pd.DataFrame, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to write, ours beside pandas' with the same settings, and what fsync adds."""
    settings: dict[str, Any] = {"compression": "zstd", "row_group_size": 256 * 1024}
    ours, theirs = folder / "ours.parquet", folder / "theirs.parquet"
    synced = disk.FILES

    def write(files: disk.Files) -> None:
        disk.FILES = files
        write_output("prices", data, ours, options=settings, metadata={"notebook": "bench"})
        disk.FILES = synced

    os.sync()
    times = in_turns(
        repeats,
        to_parquet=lambda: data.to_parquet(theirs, engine="pyarrow", **settings),
        write_output=lambda: write(NoSync()),
    )
    with_sync = in_turns(1, write_output=lambda: write(synced))["write_output"]
    return times | {
        "ratio": times["write_output"] / times["to_parquet"],
        "ratio_cpu": times["write_output_cpu"] / times["to_parquet_cpu"],
        "write_output_with_fsync": with_sync,
        "bytes_ours": ours.stat().st_size,
        "bytes_theirs": theirs.stat().st_size,
    }


def reading(data: pd.DataFrame, folder: Path, repeats: int) -> dict[str, Any]:
    """Seconds to read one year of dates, and everything, ours beside pandas and polars."""
    store = str(folder / "data")
    os.environ["RESEARCH_JOBS_STORE"] = store
    (folder / "notebooks").mkdir()
    with open_staging(store, "bench") as staging:
        path = staging.path / "prices.parquet"
        staged = write_output("prices", data, path, options={}, metadata={})
        publish(store, "bench", [staged], staging=staging, partition=None, run_id="bench")
    plain = folder / "data" / "bench" / "prices.parquet"
    low, high = data["date"].iloc[len(data) // 2], data["date"].iloc[len(data) // 2 + 126_000]
    wanted = [("date", ">=", low), ("date", "<", high)]
    between = (pl.col("date") >= low) & (pl.col("date") < high)
    filtered = in_turns(
        repeats * 3,
        load=lambda: load("bench", "prices", filters=wanted, project=folder),
        load_polars=lambda: load("bench", "prices", filters=wanted, as_="polars", project=folder),
        read_parquet=lambda: pd.read_parquet(plain, filters=wanted),
        scan_parquet=lambda: pl.scan_parquet(plain).filter(between).collect(),
    )
    whole = in_turns(
        repeats,
        load=lambda: load("bench", "prices", project=folder),
        read_parquet=lambda: pd.read_parquet(plain),
    )
    return {
        "filtered": filtered,
        "filtered_ratio_to_pandas": filtered["load"] / filtered["read_parquet"],
        "filtered_ratio_to_polars": filtered["load_polars"] / filtered["scan_parquet"],
        "whole": whole,
        "whole_ratio": whole["load"] / whole["read_parquet"],
        "whole_ratio_cpu": whole["load_cpu"] / whole["read_parquet_cpu"],
    }


def partitions(folder: Path, repeats: int, count: int = 1000) -> dict[str, Any]:
    """Seconds to publish and to read many small partitions."""
    store = str(folder / "parts")
    os.environ["RESEARCH_JOBS_STORE"] = store
    small = frame(500)
    start = time.perf_counter()
    for day in pd.bdate_range("2015-01-01", periods=count):
        key = str(day.date())
        with open_staging(store, "bench") as staging:
            path = staging.path / "signals.parquet"
            staged = write_output("signals", small, path, options={}, metadata={})
            where = PartitionKey(key, {"run_date": key})
            publish(store, "signals", [staged], staging=staging, partition=where, run_id="bench")
    published = (time.perf_counter() - start) / count
    tree = folder / "parts" / "signals" / "signals"
    times = in_turns(
        repeats,
        load=lambda: load("signals", "signals", project=folder),
        read_parquet=lambda: pd.read_parquet(tree),
        scan_parquet=lambda: pl.scan_parquet(tree).collect(),
    )
    return times | {
        "partitions": count,
        "publish_each": published,
        "ratio_to_pandas": times["load"] / times["read_parquet"],
    }


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    data = frame(ROWS)
    with scratch() as folder:
        written = writing(data, folder, options.runs)
        read = reading(data, folder, options.runs)
        parts = partitions(folder, options.runs)
    writes = Table(f"Writing {ROWS:,} rows by 8 columns", ["how", "time", "CPU", "bytes"])
    for name, size in (("to_parquet", "theirs"), ("write_output", "ours")):
        writes.add(
            f"`{name}`",
            f"{written[name]:.2f} s",
            f"{written[f'{name}_cpu']:.2f} s",
            f"{written[f'bytes_{size}']:,}",
        )
    writes.add("`write_output`, synced", f"{written['write_output_with_fsync']:.2f} s", "", "")
    writes.notes.append(
        f"`write_output` takes {written['ratio']:.2f} of `to_parquet` with the same settings "
        f"({written['ratio_cpu']:.2f} of its CPU time)."
    )
    reads = Table("Reading", ["what", "ours", "pandas", "ours as polars", "polars"])
    filtered, whole = read["filtered"], read["whole"]
    reads.add(
        "126,000 rows of them, by date",
        *(_ms(filtered[name]) for name in ("load", "read_parquet", "load_polars", "scan_parquet")),
    )
    reads.add("all", _ms(whole["load"]), _ms(whole["read_parquet"]), "", "")
    reads.add(
        f"{parts['partitions']:,} partitions of 500 rows",
        *(_ms(parts[name]) for name in ("load", "read_parquet")),
        "",
        _ms(parts["scan_parquet"]),
    )
    reads.notes.append(f"Publishing one such partition, synced: {_ms(parts['publish_each'])}.")
    goal = Goal.at_most("writing 10 million rows, of to_parquet", 1.05, written["ratio"])
    return [writes, reads], [goal]


def _ms(taken: float) -> str:
    return f"{taken * 1000:.0f} ms"
