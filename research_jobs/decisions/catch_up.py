"""What a tick of a schedule requests, from facts alone.

At each tick a schedule requests what is missing: its unpartitioned notebooks in one run, and of its
partitioned ones the newest partition and those missing within ``catch_up``, each once, oldest
first. Nothing is remembered between ticks: the facts are what is there and what was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

__all__ = [
    "LATE",
    "MOST_REQUESTS",
    "DueTick",
    "Facts",
    "Group",
    "Member",
    "Request",
    "Status",
    "requests",
]

# A tick evaluated later than this counts as missed; a busy daemon is only minutes late.
LATE = timedelta(minutes=10)
# Without `catch_up`, how far back a schedule looks for partitions that it should have requested.
LOOK_BACK = {"hour": 168, "cron": 168}
LOOK_BACK_DAYS = 31
# At most this many runs are requested per tick; the next one continues.
MOST_REQUESTS = 250


@dataclass(frozen=True)
class Member:
    """A notebook of a schedule.

    Parameters
    ----------
    name : str
    retries : int
        How many failed runs of a partition are retried.
    by : str or None
        The manifest's ``by`` for time partitions.
    """

    name: str
    retries: int = 0
    by: str | None = None


@dataclass(frozen=True)
class DueTick:
    """A tick that is evaluated.

    Parameters
    ----------
    at : datetime
        When it was due.
    now : datetime
        When it is evaluated: much later if the daemon was down.
    catch_up : int or "none" or None
    edited_at : datetime or None
        When the manifest was last changed.
    """

    at: datetime
    now: datetime
    catch_up: int | Literal["none"] | None = None
    edited_at: datetime | None = None


@dataclass(frozen=True)
class Request:
    """A run that a tick requests.

    Parameters
    ----------
    notebooks : tuple of str
    partition : str or None
    """

    notebooks: tuple[str, ...]
    partition: str | None = None


class Status(Protocol):
    """What became of some partitions of a notebook."""

    @property
    def missing(self) -> tuple[str, ...]:
        """Tuple of str: not made, not being made and not skipped; those that failed included."""
        ...

    @property
    def failed(self) -> frozenset[str]:
        """Frozenset of str: the last attempt failed."""
        ...

    @property
    def in_progress(self) -> frozenset[str]:
        """Frozenset of str: being made, or about to be."""
        ...

    @property
    def ever(self) -> bool:
        """bool: whether any partition was ever made or tried."""
        ...


class Group(Protocol):
    """Notebooks of a schedule that share their partitions, which are those at the tick's time."""

    @property
    def members(self) -> Sequence[Member]:
        """Sequence of Member: in the schedule's order."""
        ...

    @property
    def timed(self) -> bool:
        """bool: whether the partitions, or one dimension of them, are windows of time."""
        ...

    def windows(self, count: int) -> Sequence[str]:
        """The last windows of time that are over, the newest last."""
        ...

    def keys_of(self, window: str) -> Sequence[str]:
        """The partitions of a window: several where there is a second dimension."""
        ...

    def position(self, windows: Sequence[str], moment: datetime) -> int:
        """The index of the first of `windows` that is not before the newest one at a moment."""
        ...

    def all_keys(self) -> Sequence[str]:
        """All partitions, where they are not of time; those with the oldest data first."""
        ...

    def status(self, member: Member, keys: Sequence[str]) -> Status:
        """What became of some partitions of a member."""
        ...

    def failures(self, member: Member, key: str, at_most: int) -> int:
        """How many runs failed because of a member in a partition; counting stops at `at_most`."""
        ...


class Facts(Protocol):
    """What a tick must know of the world."""

    @property
    def plain(self) -> Sequence[Member]:
        """Sequence of Member: the notebooks without partitions."""
        ...

    @property
    def groups(self) -> Sequence[Group]:
        """Sequence of Group: the others."""
        ...

    def was_owed(self, moment: datetime) -> bool:
        """Whether the schedule had a tick at a past moment, as it was defined then."""
        ...

    def first_due(self) -> datetime | None:
        """When the first tick was due that requested a run; None if there was none."""
        ...


def requests(tick: DueTick, facts: Facts) -> list[Request] | str:
    """The runs that a schedule requests at a tick.

    Parameters
    ----------
    tick : DueTick
    facts : Facts

    Returns
    -------
    list of Request or str
        Oldest partition first. Unpartitioned notebooks run together with the newest partition,
        so that one that it loads runs before it. If there is nothing to do, the reason.
    """
    late = tick.now - tick.at
    if tick.catch_up == "none" and late > LATE:
        return f"due {tick.at:%Y-%m-%d %H:%M %Z}, {_length(late)} ago; catch_up: none"
    if _edited_since(tick, facts):
        return (
            f"the schedule was edited after {tick.at:%Y-%m-%d %H:%M %Z};"
            " an edit never triggers past runs"
        )
    plain = [member.name for member in facts.plain]
    groups = facts.groups
    found: list[Request] = []
    share = MOST_REQUESTS // max(len(groups), 1)
    first_due = facts.first_due() if groups and tick.catch_up is None else None
    for number, group in enumerate(groups):
        wanted = _wanted(group, tick, first_due)
        if len(wanted) > share:  # the newest in any case: the day's own work
            wanted = [*wanted[: share - 1], wanted[-1]]
        for position, (key, needing) in enumerate(wanted):
            together: list[str] = []
            if number == 0 and position == len(wanted) - 1:
                together, plain = plain, []
            found.append(Request((*together, *(member.name for member in needing)), key))
    if plain:
        found.insert(0, Request(tuple(plain)))
    return found or "every partition exists, is running, was skipped or has failed too often"


def _wanted(
    group: Group, tick: DueTick, first_due: datetime | None
) -> list[tuple[str, list[Member]]]:
    """Partitions to request, oldest first, each with the notebooks that miss it."""
    if not group.timed:
        return _all_keys(group)
    windows = group.windows(_look_back(tick, group.members[0]) + 1)
    keys = {window: group.keys_of(window) for window in windows}
    wanted: dict[str, list[Member]] = {key: [] for window in windows for key in keys[window]}
    for member in group.members:
        status = group.status(member, list(wanted))
        begin = 0
        if tick.catch_up is None:
            # what the schedule itself missed, not the history from before its start
            begin = (
                group.position(windows, first_due)
                if status.ever and first_due is not None
                else max(len(windows) - 1, 0)
            )
        missing = set(status.missing)
        for window in windows[begin:]:
            for key in keys[window]:
                if key in missing and not _given_up(group, member, key, status.failed):
                    wanted[key].append(member)
    return [(key, needing) for key, needing in wanted.items() if needing]


def _look_back(tick: DueTick, member: Member) -> int:
    """How many windows before the newest are looked at."""
    if tick.catch_up == "none":
        return 0
    if tick.catch_up is None:
        return LOOK_BACK.get(member.by or "", LOOK_BACK_DAYS)
    return tick.catch_up


def _all_keys(group: Group) -> list[tuple[str, list[Member]]]:
    """Without time there is no newest partition: each tick requests all of them."""
    keys = list(group.all_keys())
    running = {m.name: group.status(m, keys).in_progress for m in group.members}
    wanted = [(key, [m for m in group.members if key not in running[m.name]]) for key in keys]
    return [(key, needing) for key, needing in wanted if needing]


def _given_up(group: Group, member: Member, key: str, failed: frozenset[str]) -> bool:
    if key not in failed:
        return False
    allowed = member.retries + 1
    return group.failures(member, key, allowed) >= allowed


def _edited_since(tick: DueTick, facts: Facts) -> bool:
    """Whether the tick is before an edit that brought it about.

    Dagster saves its progress once an hour. A daemon that restarts within that hour would fire
    for a time that is in the new expression but was not in the old one.
    """
    if tick.edited_at is None or tick.at >= tick.edited_at:
        return False
    return not facts.was_owed(tick.at)


def _length(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
