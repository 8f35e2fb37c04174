"""A project of 25 notebooks, and an overview of it in which every state occurs."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.status import PartitionStatus
from research_jobs.orchestration.operations.overview import Attention, NotebookLine, Overview
from research_jobs.outcome import Failure, Outcome, State, Tone
from research_jobs.project import find_project

__all__ = ["every_state"]

GROUPS = {
    "market data": ["prices/equities", "prices/rates", "prices/fx", "prices/commodities"],
    "volatility": [
        "volatility/garch",
        "volatility/realised",
        "volatility/surface_calibration_with_a_name_that_is_long",
        "volatility/implied",
    ],
    "signals": ["signals/momentum", "signals/carry", "signals/value", "signals/seasonality"],
    "reports": [
        "reports/daily_risk",
        "reports/performance",
        "reports/attribution",
        "reports/exposure",
        "reports/liquidity",
    ],
    None: [
        "backtest",
        "cleaning",
        "experiments/hmm",
        "experiments/kalman",
        "experiments/old_model",
        "scratch",
        "universe",
        "calendar",
    ],
}
LAST = {
    "prices/fx": State.FAILED,
    "prices/commodities": State.FAILED,
    "prices/rates": State.FAILED,
    "volatility/garch": State.REFUSED,
    "volatility/implied": State.BLOCKED,
    "volatility/surface_calibration_with_a_name_that_is_long": State.TIMED_OUT,
    "signals/momentum": State.SUCCEEDED,
    "signals/carry": State.OUT_OF_MEMORY,
    "signals/value": State.SKIPPED,
    "reports/daily_risk": State.CRASHED,
    "reports/exposure": State.RUNNING,
    "reports/liquidity": State.WAITING,
    "backtest": State.CANCELLED,
    "cleaning": State.EXITED,
    "scratch": State.NEVER_RUN,
    "universe": State.BLOCKED,
}
VENDOR = "ConnectionError: no route to host data.vendor.example"
REASONS = {
    State.FAILED: VENDOR,
    State.REFUSED: "check not_null of output forecast: 3 of 250 rows of sigma are null",
    State.BLOCKED: "what it depends on failed: volatility/garch",
    State.TIMED_OUT: "it ran longer than 30 min and was ended",
    State.OUT_OF_MEMORY: "it used more than its 2 GiB",
    State.CRASHED: "SIGSEGV in numpy.linalg.svd",
    State.EXITED: "it called sys.exit(3)",
    State.CANCELLED: "interrupted",
}


def every_state(root: Path, *, copies: int = 1) -> tuple[Catalog, Overview]:
    """Write the notebooks, and tell what became of them on a Friday morning.

    Parameters
    ----------
    root : Path
    copies : int
        How many times as many notebooks.
    """
    names = [(group, name) for group, some in GROUPS.items() for name in some]
    every = [
        (group, name if copy == 0 else f"{name}_{copy}", name)
        for copy in range(copies)
        for group, name in names
    ]
    lines: list[str] = ["notebooks:"]
    for group, name, _ in every:
        path = root / "notebooks" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# %% [markdown]\n# # {name}\n#\n# What {name} is about.\n# %%\nx = 1\n")
        said = f"group: {group.replace(' ', '_')}, " if group else ""
        lines.append(f"  {name}: {{{said}owners: [team:desk], tags: {{speed: daily}}}}")
    (root / "notebooks" / "manifest.yaml").write_text("\n".join(lines) + "\n")
    catalog = load_catalog(find_project(root))
    now = datetime(2026, 11, 27, 7, 12, tzinfo=ZoneInfo("Europe/Zagreb"))
    rows = [
        _line(catalog, name, LAST.get(original, State.SUCCEEDED), number, now)
        for number, (_, name, original) in enumerate(every)
    ]
    attention = [one for row in rows for one in _attention(row)]
    attention += [
        Attention(
            "signals/momentum",
            State.FAILED,
            "2026-11-20, 2026-11-23...2026-11-25",
            (now - timedelta(days=6)).timestamp(),
            "signals/momentum.py:31, cell 4: KeyError: 'Close'",
            None,
            "research-jobs backfill signals/momentum --failed",
            4,
        ),
        Attention(
            "signals/seasonality",
            State.MISSING,
            "2026-11-02...2026-11-04",
            None,
            "3 partitions have no data",
            None,
            "research-jobs backfill signals/seasonality --missing",
            3,
        ),
        Attention(
            "calendar",
            State.LATE,
            None,
            (now - timedelta(hours=1)).timestamp(),
            "nothing has run since its tick at Fri 27 Nov 06:00",
            None,
            "research-jobs run calendar",
        ),
    ]
    attention.sort(key=lambda one: (one.state is State.CANCELLED, -one.state.order, one.notebook))
    since = now.replace(hour=0, minute=0) - timedelta(days=1)
    ended = {State.SUCCEEDED: 92, State.SKIPPED: 4, State.REFUSED: 1, State.FAILED: 7}
    return catalog, Overview(tuple(attention), tuple(rows), now, since, ended)


def _line(catalog: Catalog, name: str, state: State, number: int, now: datetime) -> NotebookLine:
    chance = random.Random(number)
    began = now.timestamp() - 3600 - 60 * number
    took = chance.uniform(2, 400)
    reason = REASONS.get(state)
    place = f'notebooks/{name}.py:{10 + number}, cell 3 "Load": ' if state is State.FAILED else ""
    failure = Failure(place + reason) if reason else None
    report = catalog.project.reports / name / "_runs" / "20261127T060000-1" / "report.html"
    if state is not State.NEVER_RUN:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text("<!doctype html><title>report</title>")
    ran = state.ended
    last = Outcome(
        state,
        failure,
        notebook=name,
        started_at=began if state is not State.NEVER_RUN else 0.0,
        duration_s=took if ran else 0.0,
        report=str(report) if ran else None,
    )
    strip = [
        Outcome(
            chance.choice([State.SUCCEEDED] * 12 + [State.SKIPPED, State.FAILED]),
            notebook=name,
            started_at=began - 86400 * day,
            duration_s=took * chance.uniform(0.8, 1.2),
        )
        for day in range(13 if number % 5 else 4, 0, -1)
    ]
    partitions = None
    if name.startswith("signals/"):
        keys = tuple(f"2026-{number:04}" for number in range(1, 227))
        done = frozenset(keys[: 226 if "carry" in name else 215])
        failed = frozenset(keys[-4:]) if name == "signals/momentum" else frozenset[str]()
        partitions = PartitionStatus(keys, done, failed, frozenset(), frozenset(), done)
    reads = 0 if name.startswith(("reports", "experiments", "scratch")) else number % 7 + 1
    return NotebookLine(
        name,
        state,
        last,
        () if state is State.NEVER_RUN else (*strip, last),
        partitions,
        next_tick=now + timedelta(hours=23) if number % 4 else None,
        used_by=reads,
        slower="took 312 s, usually 90 s" if name == "reports/performance" else None,
        larger="used 3.1 GiB, usually 900 MiB" if name == "volatility/realised" else None,
        group=catalog.entries[name].spec.group,
    )


def _attention(line: NotebookLine) -> list[Attention]:
    last = line.last
    if last.state.tone not in (Tone.BAD, Tone.HELD):
        return []
    return [
        Attention(
            line.notebook,
            last.state,
            since=last.started_at,
            reason=last.reason,
            report=last.report,
            rerun=f"research-jobs run {line.notebook}",
            times=1 + len(line.notebook) % 3,
        )
    ]
