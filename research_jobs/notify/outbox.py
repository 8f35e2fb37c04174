"""What waits to be delivered and what became of it: values, and pure functions on them.

A letter waits until a channel has accepted it, or it is three days old. Each failed attempt
doubles the wait before the next one, up to a quarter of an hour. What a channel accepts once is
not sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Letter", "Outbox", "Sent", "Trouble", "add", "due", "settle"]

FIRST_WAIT_S = 15.0
LONGEST_WAIT_S = 900.0
OLDEST_S = 3 * 86400.0
MOST_WAITING = 200
AT_ONCE = 8
SENT_KEPT = 100
# A first failure is often none: servers put off who they do not know yet, or restart.
TROUBLE_AFTER = 2


@dataclass(frozen=True)
class Letter:
    """One message as one channel is to get it.

    Parameters
    ----------
    id, thread, channel, title, body, severity : str
    over : bool
        Whether it says that something is over.
    at : float
        Unix time, seconds, like `next_try`.
    attempts : int
    next_try : float
    mail : str
        The file of a report's mail.
    once : bool
        It is a report: rather not delivered than delivered twice.
    """

    id: str
    thread: str
    channel: str
    title: str
    body: str
    severity: str
    over: bool
    at: float
    attempts: int = 0
    next_try: float = 0.0
    mail: str = ""
    once: bool = False


@dataclass(frozen=True)
class Sent:
    """A letter that was delivered, or given up.

    Parameters
    ----------
    channel, title : str
    at : float
    delivered : bool
    answer : str
        What came back.
    """

    channel: str
    title: str
    at: float
    delivered: bool
    answer: str


@dataclass(frozen=True)
class Trouble:
    """A channel that did not deliver at the last attempt.

    Parameters
    ----------
    since : float
    answer : str
        What came back last.
    failures : int
        Attempts in a row.
    """

    since: float
    answer: str
    failures: int


@dataclass(frozen=True)
class Outbox:
    """All channels' letters.

    Parameters
    ----------
    waiting : tuple of Letter
    sent : tuple of Sent
        The last ones, the newest last.
    troubles : mapping of str to Trouble
    """

    waiting: tuple[Letter, ...] = ()
    sent: tuple[Sent, ...] = ()
    troubles: Mapping[str, Trouble] = field(default_factory=dict[str, Trouble])


def add(outbox: Outbox, letters: Iterable[Letter], channels: Collection[str], now: float) -> Outbox:
    """The outbox with new letters, without those that no channel is there for any more.

    Parameters
    ----------
    outbox : Outbox
    letters : iterable of Letter
    channels : collection of str
    now : float
    """
    waiting: list[Letter] = []
    lost: list[Sent] = []
    for letter in (*outbox.waiting, *letters):
        if letter.channel not in channels:
            continue
        if now - letter.at > OLDEST_S:
            why = f"given up after {letter.attempts} attempts"
            lost.append(Sent(letter.channel, letter.title, now, False, why))
        else:
            waiting.append(letter)
    for name in channels:
        mine = [letter for letter in waiting if letter.channel == name]
        for letter in mine[: max(0, len(mine) - MOST_WAITING)]:
            waiting.remove(letter)
            why = f"given up: more than {MOST_WAITING} wait"
            lost.append(Sent(name, letter.title, now, False, why))
    troubles = {name: one for name, one in outbox.troubles.items() if name in channels}
    sent = (*outbox.sent, *lost)[-SENT_KEPT:]
    return Outbox(tuple(waiting), sent, troubles)


def due(outbox: Outbox, channel: str, now: float) -> tuple[Letter, ...]:
    """The letters of a channel that are to be tried now, the oldest first."""
    mine = [one for one in outbox.waiting if one.channel == channel]
    # A next try far ahead was set by a clock that was wrong.
    ready = [one for one in mine if not now < one.next_try <= now + LONGEST_WAIT_S]
    return tuple(ready[:AT_ONCE])


def settle(
    outbox: Outbox,
    channel: str,
    tried: Sequence[Letter],
    answers: Sequence[Mapping[str, Any]],
    now: float,
) -> Outbox:
    """The outbox after an attempt.

    Parameters
    ----------
    outbox : Outbox
    channel : str
    tried : sequence of Letter
    answers : sequence of mapping
        As `sender` gives them; one with the id None is for all that have none.
    now : float
    """
    said = {answer["id"]: answer for answer in answers}
    rest = said.get(None, {"ok": False, "answer": "it did not end in time"})
    outcome = {letter.id: said.get(letter.id, rest) for letter in tried}
    good = {id_ for id_, answer in outcome.items() if answer["ok"]}
    bad = [answer for answer in outcome.values() if not answer["ok"] or answer.get("partly")]
    waiting: list[Letter] = []
    for letter in outbox.waiting:
        if letter.id in good:
            continue
        if letter.id in outcome:
            wait = min(FIRST_WAIT_S * 2 ** min(letter.attempts, 10), LONGEST_WAIT_S)
            letter = replace(letter, attempts=letter.attempts + 1, next_try=now + wait)  # noqa: PLW2901
        elif letter.channel == channel and good:  # it delivers again
            letter = replace(letter, next_try=0.0)  # noqa: PLW2901
        waiting.append(letter)
    sent = [
        Sent(channel, letter.title, now, not answer.get("doubtful"), str(answer["answer"]))
        for letter in tried
        if (answer := outcome[letter.id])["ok"]
    ]
    troubles = dict(outbox.troubles)
    last = troubles.pop(channel, None)
    if bad:
        since, failures = (last.since, last.failures) if last else (now, 0)
        troubles[channel] = Trouble(min(since, now), str(bad[-1]["answer"]), failures + 1)
    return Outbox(tuple(waiting), (*outbox.sent, *sent)[-SENT_KEPT:], troubles)
