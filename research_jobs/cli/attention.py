"""How commands print what needs attention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from research_jobs.cli.output import print_wrapped
from research_jobs.outcome import labelled
from research_jobs.project import Project

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.overview import Attention

__all__ = ["show_group"]

# How many notebooks of one cause are named before the rest is counted.
NAMED = 3


def show_group(project: Project, group: Sequence[Attention], zone: tzinfo | None) -> None:
    """What failed for one reason: who, how and since when; the reason; what to do."""
    from research_jobs.orchestration.operations.overview import reruns_of

    first = group[0]
    names = [labelled(one.notebook, one.partition) for one in group[:NAMED]]
    more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
    oldest = min((one.since for one in group if one.since), default=None)
    when = f" since {datetime.fromtimestamp(oldest, zone):%a %d %b %H:%M}" if oldest else ""
    times = f", {first.times} times" if first.times > 1 and not first.partition else ""
    print_wrapped(f"{', '.join(names)}{more}: {first.state.words}{when}{times}", hang="  ")
    if first.reason:
        reason = first.reason if len(group) == 1 else first.cause
        print_wrapped(reason, indent="    ", hang="    ")
    if first.report and len(group) == 1:
        print(f"    {project.display(first.report)}")
    for rerun in reruns_of(group):
        print(f"    {rerun}")
