"""A random project: notebooks, schedules, and how the manifest is edited."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from research_jobs.decisions.catch_up import Member
from simulator.times import ZONES

NOTEBOOKS = 20


@dataclass(frozen=True)
class Notebook:
    """A notebook and how it behaves; `by` is None, a span of time, ``values`` or ``both``."""

    name: str
    by: str | None
    zone: str
    retries: int
    fails: float
    skips: float
    seconds: float

    @property
    def member(self) -> Member:
        return Member(self.name, self.retries, "day" if self.by == "both" else self.by)

    def duration(self, random: Random) -> float:
        """Seconds of one run; now and then a very long one."""
        return self.seconds * math.exp(random.gauss(0, 0.6)) * (20 if random.random() < 0.01 else 1)


@dataclass(frozen=True)
class Schedule:
    """A schedule of the manifest."""

    name: str
    crons: tuple[str, ...]
    zone: str
    notebooks: tuple[str, ...]
    catch_up: int | Literal["none"] | None
    enabled: bool = True
    broken: bool = False


# Six kinds: about ten ticks a day together.
CRONS = (
    (("30 1 * * *",), ("30 2 * * *",), ("0 0 * * *",)),
    (("15 6 * * *",), ("0 6 * * 1-5",), ("45 23 * * *",)),
    (("0 */6 * * *",), ("20 1-23/5 * * *",), ("5 0,8,16,20 * * *",)),
    (("0 7 * * 1",), ("0 3 1 * *",), ("30 2 * * 0",)),
    (("30 8 * * 1-5", "0 17 * * *"), ("0 9 * * *", "0 2 * * *")),
    (("10 4 * * *", "10 16 * * *"), ("30 2,14 * * *",)),
)
BYS = ((None,), ("day",), ("hour",), ("week", "month"), (None, "day"), ("both", "values", "day"))
CATCH_UPS = ((None,), (None, 7), (48, 300), (2, None), ("none",), (3, 0))


def notebooks(random: Random) -> dict[str, Notebook]:
    """Twenty notebooks of all kinds."""
    kinds = [None] * 6 + ["day"] * 5 + ["hour", "hour", "week", "month", "both", "both", "values"]
    kinds += [None, "day"]
    zones = [random.choice(ZONES) for _ in range(3)]
    return {
        f"n{number:02}": Notebook(
            f"n{number:02}",
            by,
            random.choice(zones),
            retries=random.choice((0, 0, 1, 3)),
            fails=random.choice((0.0, 0.002, 0.01, 0.05)),
            skips=random.choice((0.0, 0.0, 0.1)),
            seconds=random.choice((2.0, 30.0, 300.0, 1800.0)),
        )
        for number, by in enumerate(kinds[:NOTEBOOKS])
    }


def schedules(random: Random, of: dict[str, Notebook]) -> dict[str, Schedule]:
    """Six schedules, one of each kind; some share notebooks."""
    return {
        f"s{kind}": Schedule(
            f"s{kind}",
            random.choice(CRONS[kind]),
            random.choice(ZONES),
            members(random, of, kind),
            random.choice(CATCH_UPS[kind]),
        )
        for kind in range(len(CRONS))
    }


def members(random: Random, of: dict[str, Notebook], kind: int) -> tuple[str, ...]:
    """Notebooks that fit a kind of schedule."""
    fitting = [name for name, notebook in of.items() if notebook.by in BYS[kind]]
    return tuple(sorted(random.sample(fitting, min(len(fitting), random.randint(1, 4)))))


def edited(random: Random, schedule: Schedule, of: dict[str, Notebook]) -> Schedule | None:
    """The schedule after an edit of the manifest; None where it was removed."""
    kind = int(schedule.name[1:])
    match random.randrange(8):
        case 0 | 1:
            return replace(schedule, crons=random.choice(CRONS[kind]), broken=False)
        case 2:
            return replace(schedule, zone=random.choice(ZONES), broken=False)
        case 3:
            return replace(schedule, catch_up=random.choice(CATCH_UPS[kind]), broken=False)
        case 4:
            return replace(schedule, notebooks=members(random, of, kind), broken=False)
        case 5:
            return replace(schedule, enabled=not schedule.enabled, broken=False)
        case 6:
            return replace(schedule, broken=not schedule.broken)
        case _:
            return None
