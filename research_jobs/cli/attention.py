"""How commands print what needs attention, and how many runs ended how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from research_jobs.outcome import State
from research_jobs.project import Project

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.overview import Attention

__all__ = ["show_group", "totals"]

# How many notebooks of one cause are named before the rest is counted.
NAMED = 3


def show_group(project: Project, group: Sequence[Attention], zone: tzinfo | None) -> None:
    """What failed for one reason: who, how and since when; the reason; what to do."""
    first = group[0]
    names = [
        one.notebook + (f" [{one.partition}]" if one.partition else "") for one in group[:NAMED]
    ]
    more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
    oldest = min((one.since for one in group if one.since), default=None)
    when = f" since {datetime.fromtimestamp(oldest, zone):%a %d %b %H:%M}" if oldest else ""
    times = f", {first.times} times" if first.times > 1 and not first.partition else ""
    print(f"{', '.join(names)}{more}: {first.state.words}{when}{times}")
    if first.reason:
        print(f"    {first.reason if len(group) == 1 else first.cause}")
    if first.report and len(group) == 1:
        print(f"    {project.display(first.report)}")
    reruns = list(dict.fromkeys(one.rerun for one in group))
    prefix = "research-jobs run "
    if len(reruns) > 1 and all(rerun.startswith(prefix) for rerun in reruns):
        reruns = [prefix + " ".join(rerun.removeprefix(prefix) for rerun in reruns)]
    for rerun in reruns:
        print(f"    {rerun}")


def totals(counts: Mapping[State, int]) -> str:
    """Numbers of endings, the best first: ``92 succeeded, 2 failed``."""
    ordered = sorted(counts.items(), key=lambda item: item[0].order)
    return ", ".join(f"{count:,} {state.words}" for state, count in ordered)
