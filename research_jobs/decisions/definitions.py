"""How schedules were defined over time: an append-only log, and the ticks owed by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

__all__ = [
    "Definition",
    "OwedTick",
    "Ticks",
    "changes",
    "latest",
    "owed_at",
    "owed_ticks",
    "read_log",
    "switches",
]

Ticks: TypeAlias = Callable[[Sequence[str], str, float], Iterator[datetime]]
"""``ticks(crons, zone, after)``: the ticks at or after a Unix time, in order. Dagster's own rules
decide when a tick is due, so this is passed in."""


@dataclass(frozen=True)
class Definition:
    """A schedule as it stood from one moment on.

    Parameters
    ----------
    schedule : str
    at : float
        Unix time, seconds: it is in force from then until the schedule's next definition.
    crons : tuple of str
    zone : str
    notebooks : tuple of str
    catch_up : int or "none" or None
    enabled : bool
        Whether it is on by the manifest.
    switched : bool or None
        Whether somebody switched it on or off in Dagster's UI.
    removed : bool
        Whether it is no longer in the manifest.
    broken : str or None
        What is wrong with it in the manifest: it is not served, and its ticks are owed still.
    """

    schedule: str
    at: float
    crons: tuple[str, ...]
    zone: str
    notebooks: tuple[str, ...] = ()
    catch_up: int | Literal["none"] | None = None
    enabled: bool = True
    switched: bool | None = None
    removed: bool = False
    broken: str | None = None

    @property
    def on(self) -> bool:
        """bool: whether it owes ticks."""
        return not self.removed and (self.enabled if self.switched is None else self.switched)

    @property
    def line(self) -> str:
        """str: its line of the log."""
        return json.dumps(asdict(self), separators=(",", ":"))


@dataclass(frozen=True)
class OwedTick:
    """A tick that a schedule owed.

    Parameters
    ----------
    schedule : str
    at : datetime
    definition : Definition or None
        The schedule as it stood; None for a tick that Dagster evaluated and the log does not know.
    off_at : float or None
        When it was next seen to be switched off in Dagster's UI, Unix time in seconds.
    """

    schedule: str
    at: datetime
    definition: Definition | None = None
    off_at: float | None = None


def read_log(lines: Iterable[str]) -> list[Definition]:
    """The definitions of a log, in order. Lines that are damaged, or cut off, are passed over.

    Not by time: a later line is the newer one although the clock was set back between them.
    """
    found = (_read(line) for line in lines)
    return [one for one in found if one is not None]


def _read(line: str) -> Definition | None:
    try:
        said: dict[str, Any] = json.loads(line)
        return Definition(
            schedule=str(said["schedule"]),
            at=float(said["at"]),
            crons=tuple(map(str, said["crons"])),
            zone=str(said["zone"]),
            notebooks=tuple(map(str, said["notebooks"])),
            catch_up=said.get("catch_up"),
            enabled=bool(said.get("enabled", True)),
            switched=said.get("switched"),
            removed=bool(said.get("removed")),
            broken=said.get("broken"),
        )
    except (ValueError, KeyError, TypeError):
        return None


def latest(log: Iterable[Definition]) -> dict[str, Definition]:
    """The last definition of each schedule."""
    return {definition.schedule: definition for definition in log}


def owed_at(log: Iterable[Definition], schedule: str, moment: float, ticks: Ticks) -> bool | None:
    """Whether a schedule had a tick at a moment, as it was defined then; None if unknown."""
    last = None
    for definition in log:
        if definition.schedule == schedule and definition.at <= moment:
            last = definition
    if last is None:
        return None
    return last.on and next(ticks(last.crons, last.zone, moment)).timestamp() == moment


def changes(
    log: Iterable[Definition],
    now: float,
    stated: Mapping[str, Definition],
    broken: Mapping[str, str],
    *,
    readable: str | None = None,
) -> list[Definition]:
    """What is to be added to the log after the manifest was read.

    Parameters
    ----------
    log : iterable of Definition
    now : float
        Unix time, seconds.
    stated : mapping of str to Definition
        What the manifest says of each schedule without a mistake.
    broken : mapping of str to str
        The others, each with its mistake.
    readable : str, optional
        The mistake for which the manifest's schedules are not known at all.

    Returns
    -------
    list of Definition
        A schedule that is broken keeps its last sound definition; one that was switched in
        Dagster's UI stays so.
    """
    before = latest(log)
    after: dict[str, Definition] = {
        name: replace(one, switched=before[name].switched if name in before else one.switched)
        for name, one in stated.items()
    }
    for name, known in before.items():
        if name in after:
            continue
        mistake = broken.get(name, readable)
        after[name] = (
            replace(known, broken=mistake)
            if mistake is not None and not known.removed
            else replace(known, removed=True, broken=None)
        )
    return [
        replace(one, at=now)
        for name, one in after.items()
        if name not in before or replace(one, at=before[name].at) != before[name]
    ]


def switches(
    log: Iterable[Definition],
    now: float,
    states: Mapping[str, tuple[bool | None, float | None]],
) -> list[Definition]:
    """What is to be added to the log for the switches of Dagster's UI.

    Parameters
    ----------
    log : iterable of Definition
    now : float
        Unix time, seconds.
    states : mapping of str to pair
        How each schedule was switched (None: not at all), and since when it is on. Dagster stores
        when a schedule was switched on, and only that it is off.
    """
    found: list[Definition] = []
    for name, known in latest(log).items():
        said, since = states.get(name, (None, None))
        if known.removed or said == known.switched:
            continue
        at = since if said and since is not None and since > known.at else now
        found.append(replace(known, at=at, switched=said))
    return found


def owed_ticks(
    log: Sequence[Definition], start: float, end: float, ticks: Ticks
) -> Iterator[OwedTick]:
    """The ticks that were due from one moment until before another, by schedule."""
    by_schedule: dict[str, list[Definition]] = {}
    for definition in log:
        by_schedule.setdefault(definition.schedule, []).append(definition)
    for name, theirs in by_schedule.items():
        off_at: float | None = None
        later = end
        for definition in reversed(theirs):
            first, last = max(start, definition.at), min(end, later)
            if definition.on and first < last:
                for at in ticks(definition.crons, definition.zone, first):
                    if at.timestamp() >= last:
                        break
                    yield OwedTick(name, at, definition, off_at)
            later = definition.at
            if definition.switched is not None:
                off_at = None if definition.switched else definition.at
