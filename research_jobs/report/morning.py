"""The morning page: what needs attention, what is unusual, then all notebooks, as one static file.

``reports/index.html`` is written whole by whoever has looked at the project (see
`research_jobs.orchestration.operations.morning`). Runs that end later add a line to
``reports/gallery.js``, and the page shows them when it is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from markupsafe import Markup

from research_jobs.outcome import State
from research_jobs.report.assets import asset_text, install_asset
from research_jobs.report.templates import render

__all__ = [
    "DATA",
    "FailedCheck",
    "MorningPage",
    "Problem",
    "Row",
    "Run",
    "Trouble",
    "render_morning",
]

DATA = "gallery.js"
# The watch has the doctor look once a day.
_LATE = timedelta(days=2)


@dataclass(frozen=True)
class Trouble:
    """One notebook of a problem.

    Parameters
    ----------
    notebook : str
    partition : str or None
    report : str or None
        Address of its report, relative to the page.
    """

    notebook: str
    partition: str | None = None
    report: str | None = None


@dataclass(frozen=True)
class Problem:
    """What needs attention for one reason.

    Parameters
    ----------
    state : State
    troubles : tuple of Trouble
    reason : str or None
        One line.
    since : datetime or None
    reruns : tuple of str
        Commands that run it again.
    times : int
        Failures in a row.
    groups : tuple of str
        Of its notebooks.
    """

    state: State
    troubles: tuple[Trouble, ...]
    reason: str | None = None
    since: datetime | None = None
    reruns: tuple[str, ...] = ()
    times: int = 1
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One cell of a strip.

    Parameters
    ----------
    state : State
    text : str
        When it was, which partition, how long it took.
    """

    state: State
    text: str = ""


@dataclass(frozen=True)
class Row:
    """One notebook in the table.

    Parameters
    ----------
    notebook : str
    state : State
    group : str
    description : str
    tags, owners : tuple of str
    report : str or None
        Address of its last report, relative to the page.
    thumbnail : str or None
        Of its last chart.
    ended, next_tick : datetime or None
    started : float
        Of its last run, Unix time; 0 where there is none.
    took : float or None
        Seconds.
    strip : tuple of Run
        The newest last.
    made, partitions, failed : int or None
        How many of its partitions have data, of how many, and how many failed.
    used_by : int
    unusual : tuple of str
    attention : bool
    """

    notebook: str
    state: State = State.NEVER_RUN
    group: str = "default"
    description: str = ""
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    report: str | None = None
    thumbnail: str | None = None
    ended: datetime | None = None
    next_tick: datetime | None = None
    started: float = 0.0
    took: float | None = None
    strip: tuple[Run, ...] = ()
    made: int | None = None
    partitions: int | None = None
    failed: int = 0
    used_by: int = 0
    unusual: tuple[str, ...] = ()
    attention: bool = False

    @property
    def flags(self) -> str:
        """str: what the page's filters know it by."""
        flags = {
            "attention": self.attention,
            "unusual": bool(self.unusual),
            "unused": not self.used_by,
            "never": self.state is State.NEVER_RUN,
        }
        return " ".join(name for name, is_so in flags.items() if is_so)


@dataclass(frozen=True)
class FailedCheck:
    """What the doctor found wrong.

    Parameters
    ----------
    check, detail : str
    fix : str
        A command or an edit.
    """

    check: str
    detail: str
    fix: str


@dataclass(frozen=True)
class MorningPage:
    """All that the page shows.

    Parameters
    ----------
    now : datetime or None
        When it was so, in the zone of all its times; None before anybody has looked.
    zone : str
        The name of that zone.
    since : str
        From when on endings are counted.
    ended : str
        How many runs ended how.
    problems : tuple of Problem
    rows : tuple of Row
    account : mapping of str to int
        What became of the ticks that schedules owed; empty where nobody knows.
    accounted : str
        From when on ticks are accounted for.
    backup : str
        How old the last backup is; empty without `backup` in the manifest.
    examined : datetime or None
        When the doctor looked last.
    wrong : tuple of FailedCheck
        What it found.
    """

    now: datetime | None = None
    zone: str = "UTC"
    since: str = ""
    ended: str = ""
    problems: tuple[Problem, ...] = ()
    rows: tuple[Row, ...] = ()
    account: Mapping[str, int] = field(default_factory=dict[str, int])
    accounted: str = ""
    backup: str = ""
    examined: datetime | None = None
    wrong: tuple[FailedCheck, ...] = ()

    @property
    def examined_late(self) -> bool:
        """bool: whether the doctor should have looked again since."""
        return bool(self.now and self.examined and self.now - self.examined > _LATE)

    @property
    def unusual(self) -> list[Row]:
        """List of Row: those that were slower or larger than usual."""
        return [row for row in self.rows if row.unusual]

    @property
    def groups(self) -> list[tuple[str, list[Row]]]:
        """List of tuple: each asset group with its rows, by name; the default group is last."""
        groups: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: (row.group == "default", row.group)):
            groups.setdefault(row.group, []).append(row)
        return list(groups.items())

    @property
    def counts(self) -> list[tuple[str, str, int]]:
        """List of tuple: filter, words and number of what the page can be narrowed to."""
        words = {
            "attention": "need attention",
            "unusual": "unusual",
            "unused": "used by nobody",
            "never": "never run",
        }
        flags = [row.flags.split() for row in self.rows]
        counts = {name: sum(name in flag for flag in flags) for name in words}
        if counts["attention"] == 1:
            words["attention"] = "needs attention"
        return [(name, said, counts[name]) for name, said in words.items() if counts[name]]


def render_morning(reports: Path, page: MorningPage) -> str:
    """The page as HTML; its script is put beside it.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    page : MorningPage
    """
    script = install_asset(reports, "morning.js")
    return render(
        "morning.html",
        page=page,
        blank=Row(""),
        unknown=Problem(State.FAILED, (Trouble("", "-", "-"),), reruns=("",)),
        options={
            "group": ("Any group", _distinct([row.group for row in page.rows])),
            "tag": ("Any tag", _distinct([tag for row in page.rows for tag in row.tags])),
            "owner": ("Any owner", _distinct([name for row in page.rows for name in row.owners])),
        },
        states=json.dumps({it.value: [it.heading, it.tone.value, it.order] for it in State}),
        scripts=[script, DATA],
        style=Markup(asset_text("gallery.css")),  # noqa: S704 - ours
    )


def _distinct(values: Sequence[str]) -> list[str]:
    return sorted(set(values))
