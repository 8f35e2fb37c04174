"""`decide`: what is said of what is wrong, over written and generated histories."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from research_jobs.notify.condition import Condition, Kind, Severity
from research_jobs.notify.deciding import (
    DAY,
    GATHER_S,
    HOUR,
    SETTLE_S,
    AlertBook,
    cause_key,
    decide,
)
from research_jobs.notify.rules import Rules
from research_jobs.notify.wording import body_of, title_of

NOON = 1_764_072_000.0  # 25 November 2025, 12:00 UTC
BOOK = TypeAdapter(AlertBook)


def rules(**channels) -> Rules:
    """Rules with these channels; their addresses do not matter here."""
    made = {name: {"email": "a@b.ch"} | spec for name, spec in channels.items()}
    return Rules.model_validate({"channels": made})


def wrong(subject: str, reason: str = "no file", kind: Kind = Kind.FAILED, **more) -> Condition:
    """Something that is wrong."""
    return replace(Condition(kind, subject, reason, NOON, notebook=subject), **more)


class History:
    """Looks, each so long after the one before; the book goes through JSON each time."""

    def __init__(self, of: Rules) -> None:
        self.rules, self.book, self.now = of, AlertBook(), NOON
        self.said: list[tuple[float, str, str]] = []

    def look(self, after: float, *conditions: Condition, unknown=()) -> list[str]:
        self.now += after
        book, messages = decide(self.book, conditions, self.rules, self.now, unknown=unknown)
        self.book = BOOK.validate_json(BOOK.dump_json(book))
        assert self.book == book
        self.last = messages
        return [
            f"{one.event} {len({c.subject for c in one.incident.conditions})}" for one in messages
        ]

    def looks(self, *times: float | tuple[float, ...], of: tuple[Condition, ...]) -> list[str]:
        return [said for after in times for said in self.look(after, *of)]


def test_what_fails_together_is_one_message():
    """It waits until nobody has joined for ten seconds, and counts everyone."""
    history = History(rules(ops={}))
    a, b, c = wrong("a"), wrong("b"), wrong("c", "c.py:7:1: no file")
    assert history.look(0, a) == []
    assert history.look(8, a, b) == []
    assert history.look(8, a, b, c) == []
    assert history.look(8, a, b, c) == []
    assert history.look(8, a, b, c) == ["new 3"]
    assert history.looks(10, HOUR, 10, of=(a, b, c)) == []


def test_what_keeps_joining_is_told_after_a_minute():
    """Somebody who joins every five seconds does not put the message off for ever."""
    history = History(rules(ops={}))
    said: list[str] = []
    for count in range(1, 20):
        said += history.look(5, *(wrong(f"n{i}") for i in range(count)))
    assert said == ["new 13"]


def test_who_joins_later_is_told_once_an_hour():
    """The cause is known by then; the message counts all and says how many are new."""
    history = History(rules(ops={}))
    a, b, c = wrong("a"), wrong("b"), wrong("c")
    assert history.looks(0, 10, of=(a,)) == ["new 1"]
    assert history.looks(60, 600, of=(a, b)) == []
    assert history.looks(600, HOUR - 1300, of=(a, b, c)) == []
    assert history.look(60, a, b, c) == ["more 3"]
    assert "2 more since the last message" in body_of(history.last[0], "UTC")


def test_a_reminder_a_day_and_one_when_it_is_over():
    """Three days of the same are three reminders; `remind` changes that."""
    history = History(rules(ops={}, rare={"remind": "none"}))
    a = wrong("a")
    assert history.looks(0, 10, of=(a,)) == ["new 1", "new 1"]
    assert history.looks(*[HOUR] * 72, of=(a,)) == ["still 1"] * 3
    assert history.looks(10, 10, of=()) == ["over 1", "over 1"]
    assert history.looks(*[HOUR] * 48, of=()) == []
    assert history.book == AlertBook({"ops": (), "rare": ()})


def test_another_reason_is_no_recovery():
    """A notebook that fails otherwise, or is refused instead, is told within the hour as such."""
    history = History(rules(ops={}))
    assert history.looks(0, 10, of=(wrong("a"),)) == ["new 1"]
    other = wrong("a", "too few rows", Kind.REFUSED)
    assert history.looks(60, 60, 600, of=(other,)) == []
    assert history.look(HOUR, other) == ["more 1"]
    assert "The reason is another one now." in body_of(history.last[0], "UTC")
    assert history.looks(10, 10, of=()) == ["over 1"]
    assert title_of(history.last[0], "p").startswith("p: a is published again (after ")


def test_what_lasts_is_since_its_first_look():
    """Who says at each look that it is so now is told of with the time of the first."""
    history = History(rules(ops={"remind": "1h"}))
    for _ in range(14):
        disk = wrong("the disk of /data", "little is free", Kind.DISK, since=history.now + 300)
        history.look(300, disk)
    assert title_of(history.last[0], "p") == (
        "p: still: the disk of /data is nearly full (for 65 min): little is free"
    )
    assert len(history.last) == 1


def test_code_that_does_not_load_is_one_cause():
    """Whether the code server or the webserver says so, it is the project's code."""
    history = History(rules(ops={}))
    said = [wrong(name, f"{name}: no", Kind.CODE) for name in ("code server", "webserver")]
    assert history.looks(0, 10, of=tuple(said)) == ["new 2"]
    assert title_of(history.last[0], "p") == "p: the code does not load: code server: no"


def test_a_reason_that_is_measured_is_one_cause():
    """A disk that fills further is no new message, nor are other late notebooks' other ticks."""
    history = History(rules(ops={}))
    for percent in range(90, 99):
        disk = wrong("/data", f"{percent}% full", Kind.DISK)
        late = [wrong(n, f"nothing since {percent}", Kind.LATE) for n in "abc"]
        history.said += history.look(30, disk, *late)
    assert sorted(history.said) == ["new 1", "new 3"]


def test_what_flaps_is_told_less_and_less():
    """Two days of a service that dies and comes back each four minutes are some dozen messages."""
    history = History(rules(ops={}))
    dead = wrong("daemon", "no heartbeat", Kind.SERVICE, notebook=None)
    said: list[str] = []
    for _ in range(2 * 24 * 15):
        said += history.looks(30, 30, 60, of=(dead,))
        said += history.looks(30, 30, 60, of=())
    assert said.count("new 1") == 1
    assert 4 <= said.count("again 1") <= 7
    assert len(said) < 16
    assert history.looks(*[HOUR] * 26, of=()) == ["was 1"]
    assert history.looks(*[HOUR] * 26, of=()) == []


def test_what_comes_and_goes_between_is_told_as_over():
    """What was over before anything could be said of it is said once, as what was."""
    history = History(rules(ops={}))
    dead = wrong("daemon", "no heartbeat", Kind.SERVICE, notebook=None)
    assert history.look(0, dead) == []
    assert history.looks(5, 10, of=()) == ["was 1"]
    assert title_of(history.last[0], "p") == (
        "p: the service daemon did not answer, over after 5 s: no heartbeat"
    )


def test_quiet_hours_hold_back_what_is_not_critical():
    """At 23:00 only the disk is told; at 07:00 what is the case by then, and what was."""
    history = History(rules(ops={"quiet": {"from": "22:00", "to": "07:00", "timezone": "UTC"}}))
    history.now = NOON + 11 * HOUR
    disk = wrong("/data", "99% full", Kind.DISK, notebook=None)
    a, b = wrong("a"), wrong("b", "other")
    assert history.looks(0, 20, of=(disk, a, b)) == ["new 1"]
    assert history.last[0].incident.kind is Kind.DISK
    assert history.looks(HOUR, 10, of=(b,)) == ["over 1"]
    assert history.looks(HOUR, of=(b, wrong("c", "other"))) == []
    assert history.looks(*[600] * 36, of=(b, wrong("c", "other"))) == ["was 1", "new 2"]


def test_what_a_look_cannot_see_lasts():
    """A notebook that runs again has not recovered, nor has anything while Dagster is away."""
    history = History(rules(ops={}))
    a, late = wrong("a"), wrong("b", "late", Kind.LATE)
    assert history.looks(0, 10, of=(a, late)) == ["new 1", "new 1"]
    for unknown in (["a", "b"], [Kind.FAILED, "late"]):
        assert [s for _ in range(3) for s in history.look(60, unknown=unknown)] == []
    assert history.look(60, late, unknown=["a"]) == []
    assert history.looks(60, 10, of=(late,)) == ["over 1"]


def test_a_clock_that_was_ahead_stops_nothing():
    """Set back by a year, it still tells what is new, what lasts and what is over."""
    history = History(rules(ops={}))
    a = wrong("a")
    history.now += 365 * DAY
    assert history.looks(0, 10, of=(a,)) == ["new 1"]
    history.now = NOON
    assert history.looks(0, DAY, of=(a,)) == ["still 1"]
    assert history.looks(10, 10, of=()) == ["over 1"]


def test_a_channel_is_told_of_what_it_is_for():
    """Kinds, severity, tags, groups, owners and patterns; what is the project's goes to ops."""
    found = rules(
        ops={},
        bad={"severity": "critical"},
        late={"kinds": ["late"]},
        tag={"for": {"tags": {"desk": "rates"}}},
        group={"for": {"groups": ["risk"]}},
        owner={"for": {"owners": ["o@b.ch"]}},
        name={"for": {"notebooks": ["risk/*"]}},
    )

    def told(condition: Condition) -> set[str]:
        return set(found.recipients(condition))

    assert told(wrong("a")) == {"ops"}
    assert told(wrong("a", kind=Kind.LATE)) == {"ops", "late"}
    assert told(wrong("a", tags={"desk": "fx"})) == {"ops"}
    assert told(wrong("a", tags={"desk": "rates"})) == {"ops", "tag"}
    assert told(wrong("risk/a", group="risk", owners=("o@b.ch",))) == {
        "ops", "group", "owner", "name"
    }  # fmt: skip
    disk = Condition(Kind.DISK, "/", "full", NOON)
    assert told(disk) == {"ops", "bad"}
    assert told(Condition(Kind.CHANNEL, "ops", "down", NOON)) == {"bad"}
    only = rules(late={"kinds": ["late"], "for": {"groups": ["x"]}})
    assert set(only.recipients(disk)) == set()
    assert set(only.recipients(Condition(Kind.MANIFEST, "m", "x", NOON))) == {"late"}
    both = rules(a={"for": {"groups": ["x"]}}, b={"for": {"groups": ["y"]}})
    assert set(both.recipients(disk)) == {"a", "b"}


def test_a_notebook_says_who_is_told_of_it():
    """None, other channels, only some kinds, as bad as it says; an unknown channel is ignored."""
    found = rules(ops={}, desk={"for": {"groups": ["risk"]}, "severity": "critical"})

    def told(**own) -> dict[str, Severity]:
        return found.model_copy(
            update={"notebooks": Rules.model_validate({"notebooks": {"a": own}}).notebooks}
        ).recipients(wrong("a"))

    assert told() == {"ops": Severity.WARNING}
    assert told(channels=[]) == {}
    assert told(kinds=["late"]) == {}
    assert told(channels=["desk"], severity="critical") == {"desk": Severity.CRITICAL}
    assert told(severity="info") == {"ops": Severity.INFO}
    assert told(channels=["gone"]) == {"ops": Severity.WARNING}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("count", [1, 3])
def test_every_kind_has_a_first_line_in_words(kind, count):
    """Of one and of several, while it lasts and when it is over: one line, no placeholder."""
    history = History(rules(ops={}))
    conditions = [
        wrong(f"n{i}", "why\nit is", kind, partition="2026-01-01", run_id="r", rerun="do it")
        for i in range(count)
    ]
    lines = []
    for _ in range(3):
        history.look(30, *conditions)
        lines += [title_of(one, "research") for one in history.last]
    history.look(60)
    history.look(60)
    lines += [title_of(one, "research") for one in history.last]
    assert len(lines) >= 2
    for line in lines:
        assert line.startswith("research: ")
        assert not {"\n", "{", "  "} & {*line, *[line[i : i + 2] for i in range(99)]}


# --- generated histories --------------------------------------------------------------------------

POOL = [
    wrong("a", "x"), wrong("a", "y"), wrong("b", "x"), wrong("c", "y", Kind.REFUSED),
    wrong("c", "late", Kind.LATE), wrong("b", "late", Kind.LATE),
    wrong("/data", "full", Kind.DISK, notebook=None),
]  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from([3.0, 10.0, 20.0, 60.0, 600.0, HOUR, 5 * HOUR, 30 * HOUR]),
        st.sets(st.integers(0, len(POOL) - 1), max_size=4),
    ),
    min_size=1,
    max_size=40,
)
CHANNELS = rules(
    all={},
    night={"quiet": {"from": "22:00", "to": "07:00", "timezone": "Pacific/Apia"}},
    once={"remind": "none", "kinds": ["failed", "disk"]},
)


def _is_open(event: str) -> bool:
    return event in ("new", "again", "more", "still")


@settings(max_examples=300)
@given(STEPS)
def test_every_alert_is_told_once_and_in_time(steps):
    """Over any history: nothing is told twice, late, in quiet hours or of what is not wrong; all
    that is told is told to be over.
    """
    history = History(CHANNELS)
    quiet = CHANNELS.channels["night"].quiet
    assert quiet is not None
    opened: dict[tuple[str, str], float] = {}  # when an opening message named whom for what
    threads: dict[tuple[str, str, Kind], list[str]] = defaultdict(list)
    waiting: dict[tuple[str, Kind, str], float] = {}
    told: dict[tuple[str, Kind, str], float] = {}
    calm = [(30.0, frozenset[int]())] * 2 + [(8 * HOUR, frozenset[int]())] * 6
    for after, indices in (*steps, *calm):
        # A subject fails for one reason at a time.
        active = list({(POOL[i].kind, POOL[i].subject): POOL[i] for i in sorted(indices)}.values())
        history.look(after, *active)
        now = history.now
        for message in history.last:
            incident, channel = message.incident, message.channel
            threads[channel, message.thread, incident.kind].append(message.event)
            if channel == "night" and incident.severity is not Severity.CRITICAL:
                assert not quiet.covers(now)
            if _is_open(message.event):
                assert {(c.kind, c.subject) for c in incident.conditions} <= {
                    (c.kind, c.subject) for c in active
                }
            if message.event != "over":
                for one in incident.conditions:
                    told[channel, one.kind, f"{one.subject} {cause_key(one)}"] = now
            if message.event in ("new", "again", "was"):
                key = (channel, f"{incident.kind} {incident.cause} {incident.began}")
                assert now - opened.get(key, -DAY) >= HOUR
                opened[key] = now
        _in_time(active, now, waiting, told)
    for (_, _, kind), events in threads.items():
        if kind not in (Kind.FAILED, Kind.REFUSED):  # they may go on for another reason
            _well_formed(events)
    assert all(not incidents for incidents in history.book.channels.values())


def _in_time(active, now, waiting, told) -> None:
    """What lasts is told to a channel without quiet hours within a day, and before that if new."""
    lasting = {("all", one.kind, f"{one.subject} {cause_key(one)}") for one in active}
    for key in list(waiting):
        if key not in lasting:
            del waiting[key]
    for key in lasting:
        first = waiting.setdefault(key, now)
        if now - first > DAY + GATHER_S:
            assert now - told[key] <= DAY
        recent = [at for (_, kind, _), at in told.items() if kind is key[1] and at < first]
        if now - first >= max(GATHER_S, SETTLE_S) and all(first - at > 2 * DAY for at in recent):
            # It may have been told for the reason that it had a moment before.
            assert key in told or any(
                kind is key[1] and name.split()[0] == key[2].split()[0] and at >= first
                for (channel, kind, name), at in told.items()
                if channel == key[0]
            )


def _well_formed(events: list[str]) -> None:
    """Opened, perhaps repeated, over; perhaps again."""
    is_open = False
    for event in events:
        assert is_open == (event in ("more", "still", "over"))
        is_open = event in ("new", "again", "more", "still")
    assert not is_open


def test_the_cause_key_of_each_kind_says_what_is_one_incident():
    """Told reasons group by reason, measured ones by kind or by subject."""
    assert cause_key(wrong("a", "a.py:3: x")) == cause_key(wrong("b", "b.py:4: x")) == "x"
    assert cause_key(wrong("a", "", Kind.FAILED)) == "a"
    assert cause_key(wrong("a", "1", Kind.SLOW)) == cause_key(wrong("b", "2", Kind.SLOW))
    assert cause_key(wrong("/", "1", Kind.DISK)) != cause_key(wrong("/d", "1", Kind.DISK))
