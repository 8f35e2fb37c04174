"""What is wrong at one moment, as the watch sees it. `deciding` makes messages of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from research_jobs.manifest.kinds import Kind, Severity
from research_jobs.outcome import cause_of

__all__ = ["Condition", "Kind", "Severity"]


@dataclass(frozen=True)
class Condition:
    """Something that is wrong now, and was so since a moment.

    Whoever looks says at each look all that is wrong. What is no longer said is over.

    Parameters
    ----------
    kind : Kind
    subject : str
        What it is wrong with: a notebook, schedule, service, disk, channel.
    reason : str
        One line.
    since : float
        Unix time, seconds.
    notebook : str or None
        Whose condition it is; None for the project's.
    partition : str or None
        A key, or several and spans ``first...last``, separated by commas.
    report : str or None
        The address or file of the report.
    rerun : str or None
        The command that helps.
    run_id : str or None
    group : str or None
        The notebook's, like `tags` and `owners`: for whom it is.
    tags : mapping of str to str
    owners : tuple of str
    """

    kind: Kind
    subject: str
    reason: str
    since: float
    notebook: str | None = None
    partition: str | None = None
    report: str | None = None
    rerun: str | None = None
    run_id: str | None = None
    group: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    owners: tuple[str, ...] = ()

    @property
    def cause(self) -> str:
        """str: what is the same for conditions of one cause: the reason without its place."""
        return cause_of(self.reason)
