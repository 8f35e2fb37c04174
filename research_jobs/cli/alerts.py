"""``research-jobs alerts``: what is open, what waits, what was sent, and whether channels work."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from research_jobs.cli.output import complain, iso, print_json
from research_jobs.project import Project, find_project

if TYPE_CHECKING:
    from research_jobs.manifest.manifest import Manifest
    from research_jobs.notify.deciding import Incident
    from research_jobs.notify.outbox import Outbox

__all__ = ["add_arguments", "run"]

SENT = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--test",
        action="store_true",
        help="send one message through each channel and show what comes back",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: with --test, 1 when a channel did not deliver; otherwise 0."


def run(arguments: argparse.Namespace) -> int:
    """Print it."""
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import enter_project

    project = find_project(arguments.project)
    enter_project(project)
    manifest = load_catalog(project).manifest
    show = _try if arguments.test else _show
    return show(project, manifest, as_json=arguments.json)


def _try(project: Project, manifest: Manifest, *, as_json: bool) -> int:
    from research_jobs.notify.notifier import masker_of
    from research_jobs.notify.trying import try_channels

    broken = [problem for problem in manifest.problems if problem.scope == "channel"]
    tried = try_channels(project, manifest.alerts, masker_of(manifest, manifest.alerts))
    if as_json:
        found = [asdict(one) for one in tried]
        found += [
            {"channel": p.name, "description": None, "ok": False, "answer": p.error.headline}
            for p in broken
        ]
        print_json(found)
    else:
        for one in tried:
            said = "delivered" if one.ok else "not delivered"
            print(f"{one.channel}: {said} ({one.description}): {one.answer}")
        for problem in broken:
            print(f"{problem.name or 'alerts'}: not tried: {problem.error.headline}")
    if not tried and not broken:
        complain("The manifest has no channel. Write alerts: {ops: {email: ops@example.com}}.")
        return 1
    return 0 if not broken and all(one.ok for one in tried) else 1


def _show(project: Project, manifest: Manifest, *, as_json: bool) -> int:
    from research_jobs.notify.kept import read_kept

    kept = read_kept(project)
    opened: dict[tuple[str, str], tuple[Incident, list[str]]] = {}
    for channel, incidents in kept.book.channels.items():
        for incident in incidents:
            if incident.over is None:
                opened.setdefault(incident.key, (incident, []))[1].append(channel)
    listed = sorted(opened.values(), key=lambda one: (-one[0].severity.order, one[0].began))
    if as_json:
        print_json(_as_json(listed, kept.outbox))
    else:
        _print(manifest, listed, kept.outbox)
    return 0


def _print(
    manifest: Manifest, opened: Sequence[tuple[Incident, list[str]]], outbox: Outbox
) -> None:
    from research_jobs.notify.delivery import describe
    from research_jobs.notify.wording import line_of

    zone = ZoneInfo(manifest.defaults.timezone)
    for incident, channels in opened:
        print(line_of(incident))
        told = ", ".join(channels) if incident.said else "nobody yet"
        print(f"    since {_moment(incident.began, zone)}, told {told}")
    if not opened:
        print("Nothing is open.")
    for name, trouble in outbox.troubles.items():
        waiting = sum(letter.channel == name for letter in outbox.waiting)
        since = _moment(trouble.since, zone)
        print(f"\n{name} has not delivered since {since}, {waiting} waiting: {trouble.answer}")
    if outbox.sent:
        print("\nSent lately:")
    for sent in outbox.sent[-SENT:]:
        failed = "" if sent.delivered else f" ({sent.answer})"
        print(f"    {_moment(sent.at, zone)}  {sent.channel}: {sent.title}{failed}")
    if manifest.alerts:
        print("\nChannels:")
    for name, spec in manifest.alerts.items():
        print(f"    {name}: {describe(spec)}")
    print(f"\nTimes are of {zone.key}.")


def _as_json(opened: Sequence[tuple[Incident, list[str]]], outbox: Outbox) -> dict[str, Any]:
    return {
        "open": [
            {
                "kind": incident.kind.value,
                "severity": incident.severity.value,
                "cause": incident.cause or None,
                "since": iso(incident.began),
                "subjects": [one.subject for one in incident.conditions],
                "channels": channels,
            }
            for incident, channels in opened
        ],
        "troubles": [
            {"channel": name, "since": iso(one.since), "answer": one.answer}
            for name, one in outbox.troubles.items()
        ],
        "waiting": [
            {"channel": one.channel, "title": one.title, "at": iso(one.at)}
            for one in outbox.waiting
        ],
        "sent": [asdict(one) | {"at": iso(one.at)} for one in outbox.sent],
    }


def _moment(seconds: float, zone: tzinfo) -> str:
    return f"{datetime.fromtimestamp(seconds, zone):%a %d %b %H:%M}"
