"""What a run's record adds to a run: noting what is read, and writing the record.

Both are measured in this process, by what a run calls: a notebook with a helper module, a `load()`
and files reads them with and without the watched readers; then its record is written as the report
process does, with the hashes of its files remembered.

``python -m benchmarks provenance``
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.harness import BIN, Goal, Options, scratch, timed
from benchmarks.table import Figure, Table
from research_jobs import load
from research_jobs.outcome import Outcome, State
from research_jobs.provenance.assembling import RunFacts, assemble
from research_jobs.runtime.reading import adapters, watch_open
from research_jobs.store import view

__all__ = ["run"]

FILES, RUNS = 5, 40
LIMIT_MS = 3.0
# What a notebook has imported that is watched; it is there before the clock starts.
LIBRARIES = ("numpy", "pandas", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet", "polars")
SOURCES = {
    "prices": "# %%\nimport pandas as pd\nprices = pd.DataFrame({'close': range(1000)})\n",
    "report": "# %%\nfrom help_report import scale\nfrom research_jobs import load\n"
    "result = scale(load('prices', 'prices'))\n",
    "help_report": "def scale(table):\n    return 2 * table\n",
}
MANIFEST = "notebooks:\n  prices: {outputs: [prices]}\n  report: {outputs: [result]}\n"


def _make(root: Path) -> RunFacts:
    (root / "notebooks").mkdir(parents=True)
    (root / "raw").mkdir()
    for name, text in SOURCES.items():
        (root / "notebooks" / f"{name}.py").write_text(text)
    (root / "notebooks" / "manifest.yaml").write_text(MANIFEST)
    for number in range(FILES):
        (root / "raw" / f"{number}.csv").write_text("day,close\n2024-01-02,1.5\n")
    timed([BIN / "research-jobs", "run", "--all"], root)
    return RunFacts(
        project_root=str(root),
        store=str(root / "data"),
        state=str(root / ".research_jobs"),
        notebook=str(root / "notebooks" / "report.py"),
        search=(str(root / "notebooks"), str(root)),
        helpers=("help_report",),
        third_party=("pandas",),
        manifest=str(root / "notebooks" / "manifest.yaml"),
        code_version="0" * 16,
        git_commit="0" * 40,
        data_version="0" * 16,
    )


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """As in a notebook's process; the libraries are adapted within the time that counts."""
    os.environ[view.VIEW_VARIABLE] = str(folder)
    view._noted.clear()  # noqa: SLF001 - as in a new process
    try:
        with ExitStack() as undo:
            watch_open(undo)
            for module, adapt in adapters(undo).items():
                if module in sys.modules:
                    adapt(sys.modules[module])
            yield
    finally:
        del os.environ[view.VIEW_VARIABLE]


def _read(root: Path) -> None:
    """What the notebook reads."""
    for number in range(FILES):
        (root / "raw" / f"{number}.csv").read_text()
    load("prices", "prices", project=root)


def _ms(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    for name in LIBRARIES:
        importlib.import_module(name)
    takes: dict[str, list[float]] = {"without": [], "with": [], "record": []}
    with scratch() as folder:
        root = folder / "project"
        facts = _make(root)
        outcome = Outcome(State.SUCCEEDED, notebook="report", run_id="0" * 8)

        def watched_reads(noted: Path) -> None:
            with _watched(noted):
                _read(root)

        def once(number: int) -> dict[str, float]:
            noted, report = folder / f"run-{number}", root / "reports" / "report" / f"{number}"
            for each in (noted, report):
                each.mkdir(parents=True)
            found = {
                "without": _ms(lambda: _read(root)),
                "with": _ms(lambda: watched_reads(noted)),
                "record": _ms(
                    lambda: _write(facts, outcome, noted, report, root / "reports")
                ),
            }  # fmt: skip
            shutil.rmtree(noted)
            return found

        once(-1)
        for number in range(options.runs * RUNS):
            for name, taken in once(number).items():
                takes[name].append(taken)
    noting = Figure(tuple(takes["with"])).median - Figure(tuple(takes["without"])).median
    record = Figure(tuple(takes["record"])).median
    table = Table(
        f"What the record of a run adds that reads {FILES} files and one output",
        ["what", "ms"],
    )
    table.add("readers are watched, and what they read is noted", f"{noting:.2f}")
    table.add("the record is written, with hashes that are remembered", f"{record:.2f}")
    table.add("together", f"{noting + record:.2f}")
    table.notes.append(f"Medians of {options.runs * RUNS} runs in one process.")
    return [table], [Goal.at_most("what a run's record adds", LIMIT_MS, noting + record, " ms")]


def _write(facts: RunFacts, outcome: Outcome, noted: Path, report: Path, reports: Path) -> None:
    record = assemble(facts, outcome, noted, report, reports)
    assert len(record.reads) == FILES, record.reads
    assert len(record.loads) == 1, record.loads
