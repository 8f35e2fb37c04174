"""A message as text: a first line that says it all, then what each line behind it needs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from research_jobs.notify.condition import Condition, Kind
from research_jobs.notify.deciding import Event, Incident, Message

__all__ = ["body_of", "line_of", "title_of"]

LISTED = 20
LONGEST_REASON = 500
_WHAT = {
    Kind.DISK: "the disk {}",
    Kind.CLOCK: "the clock of {}",
    Kind.SERVICE: "the service {}",
    Kind.TICK_FAILED: "{}",
    Kind.CHANNEL: "the alert channel {}",
    Kind.MISSED_TICK: "the schedule {}",
}
# Of these a project has one.
_ALONE = {Kind.MANIFEST: "the manifest", Kind.CODE: "the code"}
_MANY = {
    Kind.DISK: "disks",
    Kind.SERVICE: "services",
    Kind.TICK_FAILED: "schedules and sensors",
    Kind.CHANNEL: "alert channels",
    Kind.MISSED_TICK: "schedules",
}
_PLURALS = {
    "was": "were", "is": "are", "has": "have", "does": "do", "misses": "miss", "runs": "run",
    "fails": "fail", "loads": "load", "answers": "answer", "works": "work", "delivers": "deliver",
}  # fmt: skip
_PAST = {
    "is": "was", "are": "were", "has": "had", "have": "had", "does": "did", "do": "did",
    "misses": "missed", "miss": "missed", "fails": "failed", "fail": "failed",
}  # fmt: skip
_LONGEST = 160


def title_of(message: Message, project: str) -> str:
    """The one line: ``research: 3 notebooks failed: KeyError: 'Close'``.

    Parameters
    ----------
    message : Message
    project : str
        The project's name.
    """
    incident, event = message.incident, message.event
    before = f"{event}: " if event in ("still", "again") else ""
    line = f"{project}: {before}{_subject(incident, event)} {_said(incident, event)}"
    lasted = _span((incident.over or message.at) - _since(incident))
    line += {
        "over": f" (after {lasted})",
        "still": f" (for {lasted})",
        "was": f", over after {lasted}",
    }.get(event, "")
    reason = _reason(incident) if event != "over" else ""
    return _cut(f"{line}: {reason}" if reason else line)


def line_of(incident: Incident) -> str:
    """What is open, in one line: ``3 notebooks failed: KeyError: 'Close'``."""
    line, reason = f"{_subject(incident, 'new')} {_said(incident, 'new')}", _reason(incident)
    return _cut(f"{line}: {reason}" if reason else line)


def _cut(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def body_of(message: Message, timezone: str) -> str:
    """The lines behind it: since when, where, the report and the command, for each condition.

    Parameters
    ----------
    message : Message
    timezone : str
        Of the times shown.
    """
    incident, zone = message.incident, ZoneInfo(timezone)
    parts = [_round(message, zone)] if message.event != "new" else []
    if message.event == "over":
        parts.append("\n".join(_subjects(incident, "over")[:LISTED]))
    for one in incident.conditions[:LISTED] if message.event != "over" else ():
        reason = one.reason[:LONGEST_REASON]
        lines = [f"{_name(one)}: {reason}" if reason else _name(one)]
        if message.event != "was":
            lines.append(f"  since {_moment(one.since, zone)}")
        lines += [f"  report: {one.report}"] if one.report else []
        lines += [f"  rerun: {one.rerun}"] if one.rerun else []
        lines += [f"  run: {one.run_id}"] if one.run_id else []
        parts.append("\n".join(lines))
    if (more := len(_subjects(incident, message.event)) - LISTED) > 0:
        parts.append(f"... and {more} more: research-jobs status")
    parts.append(f"Times are of {zone.key}.")
    return "\n\n".join(parts) + "\n"


def _round(message: Message, zone: ZoneInfo) -> str:
    """What this message adds to those before it."""
    incident = message.incident
    new = len({one.subject for one in incident.conditions} - set(incident.subjects))
    since = _moment(incident.began, zone)
    return {
        "new": "",
        "more": f"{new} more since the last message." if new else "The reason is another one now.",
        "still": "It lasts: a reminder.",
        "over": f"It is over. It began {since}.",
        "again": "It is back."
        if incident.returns < 2
        else f"It came back {incident.returns} times since the last message.",
        "was": f"It began {since} and is over.",
    }[message.event]


def _subjects(incident: Incident, event: Event) -> list[str]:
    """Whom it concerns; when it is over, all of whom it was said."""
    told = incident.subjects if event == "over" else ()
    return list(dict.fromkeys((*told, *(one.subject for one in incident.conditions))))


def _subject(incident: Incident, event: Event) -> str:
    """Who: ``volatility/garch``, ``3 notebooks``."""
    subjects = _subjects(incident, event)
    if incident.kind in _ALONE:
        return _ALONE[incident.kind]
    if len(subjects) == 1:
        name = _name(incident.conditions[0])
        return name if name.startswith("the ") else _WHAT.get(incident.kind, "{}").format(name)
    return f"{len(subjects)} {_MANY.get(incident.kind, 'notebooks')}"


def _said(incident: Incident, event: Event) -> str:
    """What of it: ``failed``, ``does not answer``, ``runs again``."""
    several = len(_subjects(incident, event)) > 1
    words = incident.kind.over if event == "over" else incident.kind.words
    if incident.kind is Kind.MANIFEST:
        words = (
            words.replace("a mistake", f"{len(incident.conditions)} mistakes") if several else words
        )
    elif several and incident.kind not in _ALONE:
        first, _, rest = words.partition(" ")
        words = f"{_PLURALS.get(first, first)} {rest}".strip()
    if event == "was":
        words = " ".join(_PAST.get(word, word) for word in words.split())
    return words


def _reason(incident: Incident) -> str:
    if len(incident.conditions) == 1 or incident.kind is Kind.CODE:
        return incident.conditions[0].reason
    causes: Sequence[str] = list(dict.fromkeys(one.cause for one in incident.conditions))
    return causes[0] if len(causes) == 1 else ""


def _name(one: Condition) -> str:
    return f"{one.subject} [{one.partition}]" if one.partition else one.subject


def _since(incident: Incident) -> float:
    return min((one.since for one in incident.conditions), default=incident.began)


def _moment(seconds: float, zone: ZoneInfo) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, zone):%a %d %b %H:%M}"
    except (OverflowError, ValueError, OSError):
        return "an unknown time"


def _span(seconds: float) -> str:
    """A span as a sentence says it: ``40 s``, ``12 min``, ``3 h``, ``2 days``."""
    span = max(timedelta(0), timedelta(seconds=min(seconds, 1e9)))
    for size, word in ((86400, "days"), (3600, "h"), (60, "min")):
        if span.total_seconds() >= 2 * size:
            return f"{span.total_seconds() / size:.0f} {word}"
    return f"{span.total_seconds():.0f} s"
