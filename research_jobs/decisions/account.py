"""The account: what became of every tick that schedules owed, from facts alone."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from research_jobs.decisions.catch_up import LATE
from research_jobs.decisions.definitions import Definition, OwedTick, Ticks, owed_ticks

__all__ = [
    "Account",
    "AccountFacts",
    "AccountedTick",
    "Became",
    "Evaluated",
    "Evaluation",
    "Made",
    "Outage",
    "Owes",
    "TickRun",
    "account",
]

# A tick is judged as soon as it was evaluated, and no later than so many seconds after it was due.
PATIENCE_S = 120.0
LATE_S = LATE.total_seconds()


class Became(StrEnum):
    """What became of a tick."""

    RAN = "ran"
    NOTHING_TO_DO = "nothing_to_do"
    HEALED = "healed"
    MISSED = "missed"
    FAILED = "failed"
    UNACCOUNTED = "unaccounted"


class Evaluated(StrEnum):
    """How Dagster's evaluation of a tick ended."""

    REQUESTED = "requested"
    SKIPPED = "skipped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Evaluation:
    """A tick that Dagster's daemon evaluated.

    Parameters
    ----------
    schedule : str
    at : datetime
        When it was due.
    ended : Evaluated
    when : float or None
        Unix time, seconds: when the evaluation ended.
    reason : str or None
        Why it requested nothing, or failed.
    """

    schedule: str
    at: datetime
    ended: Evaluated
    when: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class TickRun:
    """A run that a tick requested, a retry of it included.

    Parameters
    ----------
    id : str
    created : float
        Unix time, seconds.
    well : bool or None
        None while it is not over.
    notebooks : tuple of str
        What it runs.
    partition : str or None
    """

    id: str
    created: float
    well: bool | None
    notebooks: tuple[str, ...] = ()
    partition: str | None = None


@dataclass(frozen=True)
class Made:
    """A notebook, or a partition of it, was made or had nothing to do.

    Parameters
    ----------
    at : float
        Unix time, seconds.
    run : str or None
    """

    at: float
    run: str | None = None


@dataclass(frozen=True)
class Owes:
    """What a notebook owed at a tick.

    Parameters
    ----------
    keys : tuple of str or None
        Partitions; a single None for a notebook without.
    anew : bool
        Whether each tick makes it anew, or once is enough as for a window of time.
    """

    keys: tuple[str | None, ...]
    anew: bool


@dataclass(frozen=True)
class Outage:
    """A time in which nothing could be evaluated.

    Parameters
    ----------
    start : float
        Unix time, seconds.
    end : float or None
        None while it lasts.
    reason : str
    """

    start: float
    end: float | None
    reason: str


class AccountFacts(Protocol):
    """What an account must know of the world."""

    @property
    def now(self) -> float:
        """float: Unix time, seconds."""
        ...

    @property
    def definitions(self) -> Sequence[Definition]:
        """Sequence of Definition: the log of definitions, in order."""
        ...

    @property
    def ticks(self) -> Ticks:
        """Ticks: when ticks are due."""
        ...

    @property
    def outages(self) -> Sequence[Outage]:
        """Sequence of Outage: those that somebody wrote down."""
        ...

    @property
    def kept_since(self) -> float:
        """float: Unix time, seconds: of ticks due before it, records may have been deleted."""
        ...

    def evaluations(self) -> Iterable[Evaluation]:
        """What Dagster evaluated, of the ticks due in the account's time and after it."""
        ...

    def runs(self, schedule: str, at: float) -> Sequence[TickRun]:
        """The runs of a tick, the oldest first."""
        ...

    def failure(self, run: TickRun) -> str | None:
        """Why a run did not end well, in one line."""
        ...

    def owes(self, notebook: str, at: datetime) -> Owes | None:
        """What a notebook owes at a tick; None where it does not exist any more."""
        ...

    def made(self, notebook: str, key: str | None) -> Sequence[Made]:
        """When it was made, the oldest first; `Made.at` may be 0 for long ago."""
        ...


@dataclass(frozen=True)
class AccountedTick:
    """A tick and what became of it.

    Parameters
    ----------
    schedule : str
    at : datetime
    became : Became
    late_s : float or None
        How long after it was due it ran, or was made up for.
    reason : str or None
        One line.
    runs : tuple of str
        Its own runs.
    healed_by : tuple of str
        The runs that made what it owed.
    """

    schedule: str
    at: datetime
    became: Became
    late_s: float | None = None
    reason: str | None = None
    runs: tuple[str, ...] = ()
    healed_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Account:
    """Every tick owed between two moments, once.

    Parameters
    ----------
    start, end : float
        Unix time, seconds.
    ticks : tuple of AccountedTick
        In order of time.
    """

    start: float
    end: float
    ticks: tuple[AccountedTick, ...]

    @property
    def owed(self) -> int:
        """int: how many ticks were owed."""
        return len(self.ticks)

    @property
    def counts(self) -> Mapping[Became, int]:
        """Mapping of Became to int: how many became what; they add up to `owed`."""
        counts = dict.fromkeys(Became, 0)
        for tick in self.ticks:
            counts[tick.became] += 1
        return counts

    @property
    def good(self) -> bool:
        """bool: whether nothing is missed, failed or unaccounted for."""
        counts = self.counts
        return not (counts[Became.MISSED] or counts[Became.FAILED] or counts[Became.UNACCOUNTED])

    def as_dict(self) -> dict[str, Any]:
        """The account for programs."""
        return {
            "owed": self.owed,
            **{became.value: count for became, count in self.counts.items()},
            "ticks": [
                {
                    "schedule": tick.schedule,
                    "at": tick.at.isoformat(),
                    "became": tick.became.value,
                    "late_s": tick.late_s,
                    "reason": tick.reason,
                    "runs": list(tick.runs),
                    "healed_by": list(tick.healed_by),
                }
                for tick in self.ticks
            ],
        }


def account(facts: AccountFacts, start: float, end: float) -> Account:
    """Account for every tick due from one moment until before another.

    Parameters
    ----------
    facts : AccountFacts
    start, end : float
        Unix time, seconds.

    Returns
    -------
    Account
        Without ticks of the last two minutes that nobody evaluated yet.
    """
    evaluated: dict[tuple[str, float], Evaluation] = {}
    for one in facts.evaluations():
        evaluated[one.schedule, one.at.timestamp()] = one
    owed = {
        (tick.schedule, tick.at.timestamp()): tick
        for tick in owed_ticks(facts.definitions, start, min(end, facts.now), facts.ticks)
    }
    for key, evaluation in evaluated.items():
        if key not in owed and start <= key[1] < end:
            owed[key] = OwedTick(evaluation.schedule, evaluation.at)
    judge = _Judge(facts, evaluated)
    found = (judge.judge(tick, evaluated.get(key)) for key, tick in owed.items())
    ticks = sorted(
        (tick for tick in found if tick is not None),
        key=lambda tick: (tick.at.timestamp(), tick.schedule),
    )
    return Account(start, end, tuple(ticks))


@dataclass(frozen=True)
class _Healing:
    """What a tick owed is there.

    Parameters
    ----------
    at : float or None
        When the last of it was made; None where all was there before the tick.
    by : tuple of str
        The runs that made it.
    """

    at: float | None
    by: tuple[str, ...]


class _Judge:
    def __init__(
        self, facts: AccountFacts, evaluated: Mapping[tuple[str, float], Evaluation]
    ) -> None:
        self._facts = facts
        self._signs = sorted(one.when for one in evaluated.values() if one.when is not None)
        self._evaluated: dict[str, list[float]] = {}
        for schedule, at in sorted(evaluated):
            self._evaluated.setdefault(schedule, []).append(at)

    def judge(self, tick: OwedTick, evaluation: Evaluation | None) -> AccountedTick | None:
        """What became of a tick; None where it is too early to say."""
        runs = self._facts.runs(tick.schedule, tick.at.timestamp())
        if runs:
            return self._of_runs(tick, evaluation, runs)
        if evaluation is None:
            if self._facts.now - tick.at.timestamp() < PATIENCE_S:
                return None
            return self._healed(tick) or self._lost(tick)
        if evaluation.ended is Evaluated.SKIPPED:
            return self._skipped(tick, evaluation)
        healed = self._healed(tick)
        if healed is not None:
            return healed
        if evaluation.ended is Evaluated.REQUESTED:
            return _told(tick, Became.UNACCOUNTED, "its runs were deleted")
        if evaluation.ended is Evaluated.INTERRUPTED:
            if self._facts.now - tick.at.timestamp() < PATIENCE_S:
                return None
            return _told(tick, Became.MISSED, "the daemon ended while it evaluated the tick")
        return _told(tick, Became.FAILED, evaluation.reason or "its evaluation failed")

    def _skipped(self, tick: OwedTick, evaluation: Evaluation) -> AccountedTick:
        definition = tick.definition
        at = tick.at.timestamp()
        late = evaluation.when is not None and evaluation.when - at > LATE_S
        if late and definition is not None and definition.catch_up == "none":
            return self._healed(tick) or _told(tick, Became.MISSED, evaluation.reason)
        return _told(tick, Became.NOTHING_TO_DO, evaluation.reason or "nothing was requested")

    def _of_runs(
        self, tick: OwedTick, evaluation: Evaluation | None, runs: Sequence[TickRun]
    ) -> AccountedTick:
        at = tick.at.timestamp()
        ids = tuple(run.id for run in runs)
        late = max(runs[0].created - at, 0.0)
        if any(run.well is None for run in runs):
            return AccountedTick(tick.schedule, tick.at, Became.RAN, late, "still running", ids)
        by: dict[str, None] = {}
        when = 0.0
        for run in (run for run in runs if not run.well):
            healing = self._run_healing(tick, run)
            if healing is None:
                reason = self._facts.failure(run) or "a run failed"
                return AccountedTick(tick.schedule, tick.at, Became.FAILED, late, reason, ids)
            by |= dict.fromkeys(healing.by)
            when = max(when, healing.at or 0.0)
        others = tuple(run for run in by if run not in ids)
        if others:
            why = "a run failed, and a later one made what it owed"
            return AccountedTick(
                tick.schedule, tick.at, Became.HEALED, max(when - at, 0.0), why, ids, others
            )
        cut_off = evaluation is not None and evaluation.ended is not Evaluated.REQUESTED
        if evaluation is not None and cut_off and self._healing(tick) is None:
            why = evaluation.reason or "the daemon ended while it evaluated the tick"
            return AccountedTick(tick.schedule, tick.at, Became.FAILED, late, why, ids)
        reason = "after a retry" if by else None
        return AccountedTick(tick.schedule, tick.at, Became.RAN, late, reason, ids)

    def _run_healing(self, tick: OwedTick, run: TickRun) -> _Healing | None:
        """How what a failed run owed was made all the same."""
        made: list[Made] = []
        for notebook in run.notebooks:
            # A run that has a partition may run notebooks without partitions too.
            owes = self._facts.owes(notebook, tick.at)
            plain = owes is not None and None in owes.keys
            key = None if plain else run.partition
            later = _first(self._facts.made(notebook, key), run.created)
            if later is None:
                return None
            made.append(later)
        return _together(made) if made else None

    def _healing(self, tick: OwedTick) -> _Healing | None:
        """How all that a tick owed was made."""
        if tick.definition is None:
            return None
        at = tick.at.timestamp()
        made: list[Made] = []
        for notebook in tick.definition.notebooks:
            owes = self._facts.owes(notebook, tick.at)
            if owes is None:
                return None
            for key in owes.keys:
                times = self._facts.made(notebook, key)
                if not owes.anew and times and times[0].at < at:
                    continue  # it was there, so the tick had nothing to do for it
                later = _first(times, at)
                if later is None:
                    return None
                made.append(later)
        return _together(made) if made else _Healing(None, ())

    def _healed(self, tick: OwedTick) -> AccountedTick | None:
        healing = self._healing(tick)
        if healing is None:
            return None
        if healing.at is None:
            return _told(tick, Became.NOTHING_TO_DO, "not evaluated; every partition was there")
        late = healing.at - tick.at.timestamp()
        why = "not evaluated; a later run made what it owed"
        return AccountedTick(tick.schedule, tick.at, Became.HEALED, late, why, healed_by=healing.by)

    def _lost(self, tick: OwedTick) -> AccountedTick:
        """Why a tick was not evaluated."""
        at = tick.at.timestamp()
        for outage in self._facts.outages:
            if outage.start <= at and (outage.end is None or at < outage.end):
                until = f"to {_moment(outage.end, tick)}" if outage.end else "and still"
                why = f"{outage.reason} from {_moment(outage.start, tick)} {until}"
                return _told(tick, Became.MISSED, why)
        if at < self._facts.kept_since:
            return _told(tick, Became.UNACCOUNTED, "Dagster no longer keeps its record, if any")
        if tick.definition is not None and tick.definition.broken:
            return _told(tick, Became.MISSED, f"it was broken: {tick.definition.broken}")
        following = self._next_evaluated(tick.schedule, at)
        if tick.off_at is not None and (following is None or following >= tick.off_at):
            why = f"it was switched off by {_moment(tick.off_at, tick)}"
            return _told(tick, Became.NOTHING_TO_DO, why)
        number = bisect.bisect_right(self._signs, at)
        sign = self._signs[number] if number < len(self._signs) else None
        if sign is None or sign - at > LATE_S:
            since = f"from {_moment(self._signs[number - 1], tick)} " if number else ""
            until = f"to {_moment(sign, tick)}" if sign is not None else "until now"
            return _told(tick, Became.MISSED, f"nothing was evaluated {since}{until}")
        if following is not None:
            return _told(tick, Became.MISSED, "Dagster went on with a later tick")
        return _told(tick, Became.UNACCOUNTED, "the daemon was there and did not evaluate it")

    def _next_evaluated(self, schedule: str, at: float) -> float | None:
        """The next tick of a schedule that was evaluated."""
        known = self._evaluated.get(schedule, [])
        number = bisect.bisect_right(known, at)
        return known[number] if number < len(known) else None


def _first(times: Sequence[Made], since: float) -> Made | None:
    number = bisect.bisect_left(times, since, key=lambda one: one.at)
    return times[number] if number < len(times) else None


def _together(made: Sequence[Made]) -> _Healing:
    by = dict.fromkeys(one.run for one in made if one.run is not None)
    return _Healing(max(one.at for one in made), tuple(by))


def _told(tick: OwedTick, became: Became, reason: str | None) -> AccountedTick:
    return AccountedTick(tick.schedule, tick.at, became, reason=reason)


def _moment(at: float, tick: OwedTick) -> str:
    return f"{datetime.fromtimestamp(at, tick.at.tzinfo):%Y-%m-%d %H:%M %Z}"
