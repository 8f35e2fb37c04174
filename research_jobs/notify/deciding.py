"""What to say of what is wrong: once for each cause, counted, repeated daily, and when it is over.

`decide` is pure. It gets what was said so far, all that is wrong now and the rules, and returns
what to say and the book to keep. Each channel has a book of its own, as each is for other
notebooks and has other quiet hours.

An *incident* is all conditions of one kind and one cause, from its first condition to the moment
when none is left. This is said of it:

- ``new``, when no condition has joined it for ten seconds, or after a minute;
- ``more``, at most once an hour, when others have joined since or the reason has changed;
- ``still``, once a day (the channel's ``remind``) while it lasts;
- ``over``, when none has been left for ten seconds;
- ``again``, when it comes back after that, but not within an hour of the last time; if it keeps
  coming back, not within two, four, ... and at most 24 hours;
- ``was``, when it is over before anything was said of it.

In quiet hours nothing is said that is not critical. What is due then is said when they end, as it
is by that time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from research_jobs.manifest.alerts import ChannelSpec
from research_jobs.notify.condition import Condition, Kind, Severity
from research_jobs.notify.rules import Rules

__all__ = ["AlertBook", "Event", "Incident", "Message", "decide"]

_Trouble: TypeAlias = tuple[str, str]
Event: TypeAlias = Literal["new", "more", "still", "over", "again", "was"]

SETTLE_S = 10.0
GATHER_S = 60.0
HOUR = 3600.0
DAY = 86400.0

# The reason of these is measured or is another for each subject, so their cause is their kind...
_ONE_CAUSE = (
    Kind.LATE, Kind.MISSING, Kind.MISSED_TICK, Kind.SLOW, Kind.LARGE, Kind.MANIFEST, Kind.CODE
)  # fmt: skip
# ... or their kind and subject.
_OWN_CAUSE = (Kind.DISK, Kind.STORE, Kind.CLOCK, Kind.SERVICE, Kind.CHANNEL)
# A notebook that fails otherwise than before has not recovered.
_NOT_RUNNING = (Kind.FAILED, Kind.REFUSED, Kind.BLOCKED)


@dataclass(frozen=True)
class Incident:
    """All conditions of one cause, and what one channel has said of them.

    Parameters
    ----------
    kind : Kind
    cause : str
    severity : Severity
        The worst among its conditions so far.
    conditions : tuple of Condition
        Those that last; once it is over, the last ones.
    began, grew : float
        When its first and its newest condition were seen.
    thread : str
        The same for as long as it lasts, whatever its cause becomes.
    over : float or None
        When none was left.
    said : {"", "open", "over"}
        What was said last.
    said_at, opened_at : float
        When; and when it was last said to be open anew.
    subjects : tuple of str
        Of whom it was said that it is open.
    cause_said : str
        For which reason.
    returns : int
        How often it came back since something was said.
    rounds : int
        How often it was said that it came back.
    """

    kind: Kind
    cause: str
    severity: Severity
    conditions: tuple[Condition, ...]
    began: float
    grew: float
    thread: str = ""
    over: float | None = None
    said: Literal["", "open", "over"] = ""
    said_at: float = 0.0
    opened_at: float = 0.0
    subjects: tuple[str, ...] = ()
    cause_said: str = ""
    returns: int = 0
    rounds: int = 0

    @property
    def key(self) -> tuple[Kind, str]:
        """Tuple: what identifies it."""
        return self.kind, self.cause


@dataclass(frozen=True)
class AlertBook:
    """What was said so far: the incidents of each channel.

    Parameters
    ----------
    channels : mapping of str to tuple of Incident
    """

    channels: Mapping[str, tuple[Incident, ...]] = field(
        default_factory=dict[str, tuple[Incident, ...]]
    )


@dataclass(frozen=True)
class Message:
    """Something to say to one channel.

    Parameters
    ----------
    id, thread : str
        The same for the same message, and for all of one incident.
    channel : str
    event : {"new", "more", "still", "over", "again", "was"}
    incident : Incident
        As it is then.
    at : float
        Unix time, seconds.
    """

    id: str
    thread: str
    channel: str
    event: Event
    incident: Incident
    at: float


def decide(
    book: AlertBook,
    conditions: Sequence[Condition],
    rules: Rules,
    now: float,
    *,
    unknown: Collection[str] = (),
) -> tuple[AlertBook, tuple[Message, ...]]:
    """What is to be said now.

    Parameters
    ----------
    book : AlertBook
    conditions : sequence of Condition
        All that is wrong now. What was wrong before and is not among them is over.
    rules : Rules
    now : float
        Unix time, seconds.
    unknown : collection of str
        Kinds and subjects of which this look could not see whether something is wrong: what was
        wrong with them lasts.

    Returns
    -------
    AlertBook
        The book to keep.
    tuple of Message
        To be delivered once each.
    """
    incidents: dict[str, tuple[Incident, ...]] = {}
    messages: list[Message] = []
    everyone = {_trouble(one) for one in conditions}
    wanted = [(one, rules.recipients(one)) for one in conditions]
    for name, spec in rules.channels.items():
        mine = [(one, chosen[name]) for one, chosen in wanted if name in chosen]
        kept: list[Incident] = []
        for known in _followed(book.channels.get(name, ()), mine, everyone, now, unknown):
            event = _due(known, spec, now)
            incident = known if event is None else _told(known, event, now)
            if event is not None:
                messages.append(_message(name, event, known, now))
            if not _forgotten(incident, now):
                kept.append(incident)
        incidents[name] = tuple(kept)
    return AlertBook(incidents), tuple(messages)


def cause_key(condition: Condition) -> str:
    """What conditions of one kind share if they are one incident."""
    if condition.kind in _ONE_CAUSE:
        return ""
    if condition.kind in _OWN_CAUSE:
        return condition.subject
    return condition.cause or condition.subject


def _followed(
    before: Sequence[Incident],
    mine: Sequence[tuple[Condition, Severity]],
    everyone: AbstractSet[_Trouble],
    now: float,
    unknown: Collection[str],
) -> list[Incident]:
    """A channel's incidents as they are now, before anything is said."""
    before = [_no_later(incident, now) for incident in before]
    groups: dict[tuple[Kind, str], list[tuple[Condition, Severity]]] = {}
    for one, severity in mine:
        groups.setdefault((one.kind, cause_key(one)), []).append((one, severity))
    for incident, one in _hidden(before, unknown):
        if _trouble(one) not in everyone:
            groups.setdefault(incident.key, []).append((one, incident.severity))
    followed: list[Incident] = []
    moved: list[Incident] = []
    for incident in before:
        if (group := groups.pop(incident.key, None)) is not None:
            followed.append(_lasting(incident, group, now, incident.key))
        elif incident.over is not None:
            followed.append(incident)
        elif any(_trouble(one) in everyone for one in incident.conditions):
            moved.append(incident)  # for another reason, or no longer for this channel
        else:
            followed.append(replace(incident, over=now))
    for key, group in groups.items():
        former = _former(moved, group)
        if former is not None:
            moved.remove(former)
        followed.append(_lasting(former or _fresh(key, now), group, now, key))
    # Nobody is told that these are over. If they come back soon they are nothing new.
    return followed + [replace(one, over=now, said="over") for one in moved if one.said == "open"]


def _former(
    moved: Sequence[Incident], group: Sequence[tuple[Condition, Severity]]
) -> Incident | None:
    """The incident that goes on as this group, for another reason."""
    troubles = {_trouble(one) for one, _ in group}
    return next(
        (one for one in moved if any(_trouble(c) in troubles for c in one.conditions)), None
    )


def _fresh(key: tuple[Kind, str], now: float) -> Incident:
    thread = _digest(*key, f"{now:.3f}")
    return Incident(*key, Severity.INFO, (), began=now, grew=now, thread=thread)


def _hidden(
    before: Sequence[Incident], unknown: Collection[str]
) -> Iterator[tuple[Incident, Condition]]:
    """What was wrong with whom this look could not see."""
    for incident in before:
        for one in incident.conditions if incident.over is None else ():
            if one.kind in unknown or one.subject in unknown:
                yield incident, one


def _trouble(one: Condition) -> _Trouble:
    """With whom what kind of thing is wrong, whatever the reason."""
    return "" if one.kind in _NOT_RUNNING else one.kind.value, one.subject


def _no_later(incident: Incident, now: float) -> Incident:
    """The incident with no time after now: the clock was wrong then, and was set back."""
    if max(incident.grew, incident.said_at, incident.over or 0.0) <= now:
        return incident
    return replace(
        incident,
        began=min(incident.began, now),
        grew=min(incident.grew, now),
        over=None if incident.over is None else min(incident.over, now),
        said_at=min(incident.said_at, now),
        opened_at=min(incident.opened_at, now),
    )


def _lasting(
    incident: Incident,
    group: Sequence[tuple[Condition, Severity]],
    now: float,
    key: tuple[Kind, str],
) -> Incident:
    came_back = incident.over is not None
    # Whoever only sees that something is wrong now says so at each look.
    since = (
        {}
        if came_back
        else {(one.subject, one.partition): one.since for one in incident.conditions}
    )
    found = [
        replace(one, since=min(one.since, since.get((one.subject, one.partition), one.since)))
        for one, _ in group
    ]
    conditions = tuple(sorted(found, key=lambda one: (one.since, one.subject)))
    worst = max((incident.severity, *(s for _, s in group)), key=lambda severity: severity.order)
    known = {one.subject for one in incident.conditions}
    joined = any(one.subject not in known for one in conditions)
    return replace(
        incident,
        kind=key[0],
        cause=key[1],
        severity=worst,
        conditions=conditions,
        grew=now if joined or came_back else incident.grew,
        over=None,
        returns=incident.returns + came_back,
    )


def _due(incident: Incident, spec: ChannelSpec, now: float) -> Event | None:
    """What is to be said of an incident now, if anything."""
    quiet = spec.quiet is not None and spec.quiet.covers(now)
    if quiet and incident.severity is not Severity.CRITICAL:
        return None
    settled = now - incident.grew >= SETTLE_S or now - incident.began >= GATHER_S
    ended = incident.over is not None and now - incident.over >= SETTLE_S
    calm = now - incident.opened_at >= _interval(incident)
    event: Event | None = None
    if incident.said == "":
        event = "was" if ended else "new" if incident.over is None and settled else None
    elif incident.said == "over":
        if calm and incident.returns > 0:
            event = "was" if ended else "again" if incident.over is None else None
    elif ended:
        event = "over"
    elif incident.over is None:
        joined = any(one.subject not in incident.subjects for one in incident.conditions)
        changed = incident.cause != incident.cause_said
        if (joined or changed) and now - incident.said_at >= HOUR:
            event = "more"
        elif spec.remind is not None and now - incident.said_at >= spec.remind:
            event = "still"
    return event


def _told(incident: Incident, event: Event, now: float) -> Incident:
    """The incident after something was said of it."""
    subjects = () if event in ("new", "again", "was") else incident.subjects
    subjects = dict.fromkeys((*subjects, *(one.subject for one in incident.conditions)))
    opened = event in ("new", "again", "was")
    return replace(
        incident,
        said="over" if event in ("over", "was") else "open",
        said_at=now,
        opened_at=now if opened else incident.opened_at,
        subjects=tuple(subjects),
        cause_said=incident.cause,
        returns=0,
        rounds=incident.rounds + (opened and incident.said == "over"),
    )


def _interval(incident: Incident) -> float:
    """How long after it was opened it is not opened again."""
    return min(HOUR * 2 ** min(incident.rounds, 5), DAY)


def _forgotten(incident: Incident, now: float) -> bool:
    """Whether it is so long over that the same would be something new."""
    return incident.said == "over" and incident.over is not None and now - incident.over >= DAY


def _message(channel: str, event: Event, incident: Incident, now: float) -> Message:
    thread = _digest(channel, incident.thread)
    return Message(_digest(thread, event, f"{now:.3f}"), thread, channel, event, incident, now)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).hexdigest()[:24]
