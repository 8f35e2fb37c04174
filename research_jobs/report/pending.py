"""The page of what changed since the success before: made when somebody asks for it.

Until then a small page is in its place, which names the command that makes it. A run writes only
that one, so a comparison costs it nothing.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from research_jobs.outcome import Outcome, State, labelled
from research_jobs.report.assets import asset_text, write_atomically
from research_jobs.report.gallery import success_before
from research_jobs.report.header import ReportHeader, local_time
from research_jobs.report.layout import CHANGES
from research_jobs.report.stored import read_report
from research_jobs.report.templates import render

__all__ = ["Pending", "read_pending", "write_pending", "write_why"]

# A run of these made nothing that could be compared.
_NOT_COMPARED = (State.SKIPPED, State.CANCELLED)
_PENDING = re.compile(rb'<meta name="research-jobs-changes" content="([^"]*)">')
_LONGEST = 256 * 1024  # bytes of a page that is not made yet


@dataclass(frozen=True)
class Pending:
    """What a comparison needs to know that nothing else says.

    Parameters
    ----------
    before : str
        The name of the folder of the earlier run's report.
    since : str
        When that run ended, as a person reads it.
    unique : mapping of str to sequence of str
        Output to the columns that the manifest declares ``unique``.
    """

    before: str
    since: str
    unique: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


def write_pending(
    reports: Path, folder: Path, header: ReportHeader, unique: Mapping[str, Sequence[str]]
) -> Pending | None:
    """Write the page that is there until the comparison is asked for.

    Parameters
    ----------
    reports : Path
        The folder of all reports.
    folder : Path
        Of the run's report.
    header : ReportHeader
    unique : mapping of str to sequence of str
        As in `Pending`.

    Returns
    -------
    Pending or None
        None where no earlier run of the notebook and partition has succeeded, or where there is
        nothing to compare.
    """
    outcome = header.outcome
    if outcome.state in _NOT_COMPARED:
        return None
    before = success_before(reports, outcome.notebook, outcome.partition)
    if before is None:
        return None
    moment = local_time(before[1], header.timezone)
    pending = Pending(before[0], f"{moment:%a} {moment.day} {moment:%b %Y, %H:%M}", unique)
    words = ["research-jobs", "report", outcome.notebook, "--run", outcome.run_id]
    _write(folder, outcome, pending, [*words, *_partition(outcome), "--changes"])
    return pending


def write_why(folder: Path, why: str) -> None:
    """Have a page that could not be made say why, and by which command it can.

    Parameters
    ----------
    folder : Path
        Of the run's report.
    why : str
    """
    pending, report = read_pending(folder / CHANGES), read_report(folder)
    if pending is None or report is None:
        return
    outcome = report.outcome
    earlier = read_report(folder.parent / pending.before)
    words = ["research-jobs", "diff", outcome.notebook]
    if earlier is not None:
        words += [earlier.outcome.run_id, outcome.run_id]
    _write(folder, outcome, pending, [*words, *_partition(outcome), "--html", CHANGES], why)


def _partition(outcome: Outcome) -> list[str]:
    return ["--partition", outcome.partition] if outcome.partition is not None else []


def _write(
    folder: Path, outcome: Outcome, pending: Pending, command: Sequence[str], why: str = ""
) -> None:
    text = render(
        "pending.html",
        title=labelled(outcome.notebook, outcome.partition),
        since=pending.since,
        command=shlex.join(command),
        why=why.rstrip("."),
        pending=json.dumps(asdict(pending)),
        style=Markup(asset_text("page.css")),  # noqa: S704 - ours
    )
    write_atomically(folder / CHANGES, text.encode("utf-8", "replace"))


def read_pending(page: Path) -> Pending | None:
    """What a page that is not made yet says; None for one that is made, and where there is none."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        with page.open("rb") as file:
            found = _PENDING.search(file.read(_LONGEST).split(b"<title>", 1)[0])
        if found is not None:
            said: dict[str, Any] = json.loads(unescape(found[1].decode()))
            unique = {str(name): [*map(str, names)] for name, names in said["unique"].items()}
            return Pending(str(said["before"]), str(said["since"]), unique)
    return None
