"""The watch of a simulated server: what it says, and whether it says it once and in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from research_jobs.manifest.alerts import ChannelSpec
from research_jobs.notify import deciding
from research_jobs.notify.condition import Condition, Kind, Severity
from research_jobs.notify.rules import Rules
from simulator.times import ZONES

if TYPE_CHECKING:
    from simulator.world import World

CHANNEL = "mail"
HOUR, DAY = 3600.0, 86400.0
# Between two looks when nothing happens; a change is looked at soon, and once more.
PAUSE, SOON = 3 * HOUR, 30.0
# New conditions are gathered for a minute at most, and an end is believed after ten seconds.
GATHERED, ENDED = 61.0, 11.0

Cause = tuple[Kind, str]


class Watch:
    """Looks at a world, as `research-jobs watch` does, unless the machine is down."""

    def __init__(self, world: World) -> None:
        self._world = world
        random = world.random
        quiet = f"22:00-07:00 {random.choice(ZONES)}" if random.random() < 0.7 else None
        self._spec = ChannelSpec.model_validate({"url": "json://localhost/", "quiet": quiet})
        self._rules = Rules(channels={CHANNEL: self._spec})
        self._book = deciding.AlertBook()
        self._before: frozenset[tuple[str, str]] = frozenset()
        self._coming = False
        # Since which look a cause is there, or gone.
        self._seen: dict[Cause, float] = {}
        self._gone: dict[Cause, float] = {}
        # Of which causes it was said that they are there; when, and when something was said last.
        self._open: dict[Cause, float] = {}
        self._opened: dict[Cause, float] = {}
        self._said: dict[Cause, float] = {}
        self.messages = 0

    def begin(self) -> None:
        """Look again and again."""
        self.look()
        self._world.after(PAUSE, self.begin)

    def changed(self) -> None:
        """Something has changed that a look may see."""
        if not self._coming:
            self._coming = True
            self._world.after(SOON, self.look)

    def look(self) -> None:
        """See what is wrong, and say what is to be said."""
        self._coming = False
        world = self._world
        if world.down["machine"]:
            return
        conditions = self._conditions()
        now = world.wall
        self._book, messages = deciding.decide(self._book, conditions, self._rules, now)
        active: dict[Cause, None] = {
            (one.kind, deciding.cause_key(one)): None for one in conditions
        }
        self._note(active)
        for message in messages:
            self._hear(message, active, now)
        if world.now - world.set_at > 600:  # the clock tells nothing of how long something lasts
            self._check(active, now)
        state = frozenset((one.kind.value, one.subject) for one in conditions)
        if state != self._before:
            self._before = state
            self._coming = True
            world.after(GATHERED + 10, self.look)

    def _conditions(self) -> list[Condition]:
        world = self._world
        found = [
            Condition(Kind.FAILED, name, f"the source {int(name[1:]) % 4} is away", since, name)
            for name, since in world.failing.items()
        ]
        found += [
            Condition(Kind.SERVICE, kind, f"the {kind} is away", world.wall)
            for kind in ("daemon", "code")
            if world.down[kind]
        ]
        return found

    def _note(self, active: dict[Cause, None]) -> None:
        for cause in active:
            self._seen.setdefault(cause, self._world.now)
            self._gone.pop(cause, None)
        for cause in [cause for cause in self._seen if cause not in active]:
            del self._seen[cause]
            self._gone[cause] = self._world.now

    def _hear(self, message: deciding.Message, active: dict[Cause, None], now: float) -> None:
        """Each message makes sense after those before it."""
        self.messages += 1
        incident = message.incident
        cause: Cause = (incident.kind, incident.cause)
        said = f"{message.event} of {incident.kind.value} ({incident.cause})"
        opens = message.event in ("new", "again", "was")
        if opens == (cause in self._open):
            self._wrong(f"{said} was said although that was {'known' if opens else 'over'}")
        if (message.event in ("over", "was")) == (cause in active):
            self._wrong(f"{said} is not true")
        if self._quiet(incident.kind, now):
            self._wrong(f"{said} was said in quiet hours")
        if message.event in ("new", "again", "was"):
            self._opened[cause] = self._world.now
        if message.event in ("new", "again"):
            self._open[cause] = self._world.now
        elif message.event == "over":
            self._open.pop(cause, None)
        self._said[cause] = now

    def _check(self, active: dict[Cause, None], now: float) -> None:
        """Nothing that had to be said by now is left."""
        true = self._world.now
        for cause in active:
            if self._quiet(cause[0], now):
                continue
            lasts = true - self._seen[cause]
            rested = cause not in self._opened or true - self._opened[cause] > DAY + HOUR
            if cause not in self._open and lasts > GATHERED and rested:
                self._wrong(f"{cause[0].value} ({cause[1]}) lasts for {lasts:.0f} s, and not told")
            if cause in self._open and now - self._said[cause] > DAY:
                self._wrong(f"{cause[0].value} ({cause[1]}) was not told of for a day")
        for cause in self._open:
            if cause not in active and not self._quiet(cause[0], now):
                over = true - self._gone[cause]
                if over > ENDED:
                    self._wrong(f"{cause[0].value} is over for {over:.0f} s, and not told")

    def _quiet(self, kind: Kind, now: float) -> bool:
        quiet = self._spec.quiet
        return kind.severity is not Severity.CRITICAL and quiet is not None and quiet.covers(now)

    def _wrong(self, line: str) -> None:
        self._world.wrong.append(f"alert at {self._world.wall:.0f}: {line}")
