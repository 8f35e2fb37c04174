"""The page of what changed between two runs, causes first.

What notebooks showed and stored is untrusted: it comes into the page as text, and pictures as
images that cannot act.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from research_jobs.comparison.cells import joined
from research_jobs.comparison.shown import CellShown, FigureChange, bundles_of
from research_jobs.comparison.text import figure_line, number, parts_line, rows_line, share
from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import State
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.report.assets import asset_text, install_asset, write_atomically
from research_jobs.report.comparing import Compared, KeptRun, compare_runs
from research_jobs.report.layout import CHANGES
from research_jobs.report.pending import read_pending
from research_jobs.report.stored import read_report
from research_jobs.report.templates import render
from research_jobs.store.records import Version, short_id
from research_jobs.store.stored import stored_partitions, stored_versions

__all__ = ["render_changes", "write_changes"]

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")
PICTURE_BYTES = 24 * 2**20  # of a page, as base64
CELLS = 50
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")


@dataclass(frozen=True)
class FigureView:
    """A figure that differs, as the template shows it.

    Parameters
    ----------
    said : str
    change : FigureChange or None
        None of a figure that only one run has.
    before, after : str or None
        Its pictures, as ``data:`` addresses.
    notes : tuple of (str, str)
        Instead of a picture that is not shown: of which side, and why.
    """

    said: str
    change: FigureChange | None
    before: str | None
    after: str | None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CellView:
    """A cell that shows something else."""

    cell: CellShown
    figures: tuple[FigureView, ...] = ()


@dataclass(frozen=True)
class Where:
    """The page's neighbours, relative to it; None for a page on its own.

    Parameters
    ----------
    up : str
        To the folder of all reports.
    script : str
    before : str or None
        The report of the earlier run.
    """

    up: str
    script: str
    before: str | None


def write_changes(project: Project, folder: Path) -> None:
    """Make the page in a report's folder that is not made yet.

    Parameters
    ----------
    project : Project
    folder : Path
        Of the later run's report.

    Raises
    ------
    ResearchJobsError
        When the report or the comparison that was asked for is not there.
    """
    page = folder / CHANGES
    report, pending = read_report(folder), read_pending(page)
    if report is None or pending is None:
        raise ResearchJobsError(f"{page} cannot be made: its report is not there")
    outcome = report.outcome
    partition = _stored_partition(project.store, outcome.notebook, outcome.partition)
    versions: tuple[Version, ...] = ()
    if outcome.partition is None or partition is not None:
        versions = stored_versions(project.store, outcome.notebook, partition)
    after = KeptRun.of(report, _version(versions, outcome.run_id))
    earlier = folder.parent / pending.before
    stored = read_report(earlier) if earlier.parent == folder.parent else None
    before: KeptRun | None = None
    if stored is not None:
        before = KeptRun.of(stored, _version(versions, stored.outcome.run_id))
    else:
        for version in versions:  # its report is gone: its folder's name tells the run
            if f"-{short_id(version.run_id, 8)}-" in pending.before:
                before = KeptRun.of_version(version, None)
    if before is None:
        raise ResearchJobsError(
            f"nothing is kept any more of the run before ({pending.since})",
            hint="`keep` in the manifest says how many older versions and reports are kept.",
        )
    found = compare_runs(
        project,
        outcome.notebook,
        partition or (PartitionKey(outcome.partition) if outcome.partition else None),
        (before, after),
        unique=pending.unique,
    )
    up = os.path.relpath(project.reports, folder).replace(os.sep, "/") + "/"
    script = up + install_asset(project.reports, "changes.js")
    place = f"../{quote(pending.before)}/report.html" if stored is not None else None
    text = render_changes(found, Where(up, script, place))
    status = page.stat()
    write_atomically(page, text.encode("utf-8", "replace"))
    with suppress(OSError):  # whoever may read the report
        os.chown(page, -1, status.st_gid)
        page.chmod(status.st_mode & 0o777)


def _stored_partition(store: str, notebook: str, key: str | None) -> PartitionKey | None:
    if key is None:
        return None
    return next((found for found in stored_partitions(store, notebook) if found.key == key), None)


def _version(versions: tuple[Version, ...], run_id: str) -> Version | None:
    return next((version for version in versions if version.run_id == run_id), None)


def render_changes(found: Compared, where: Where | None = None) -> str:
    """The page.

    Parameters
    ----------
    found : Compared
    where : Where, optional
        Without it the page needs no other file.

    Returns
    -------
    str
        HTML.
    """
    script = asset_text("changes.js")
    if where is None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        sources = f"'sha256-{digest}'"
    else:
        sources = "'self' file:"
    cells = found.shown.cells if found.shown is not None else ()
    return render(
        "changes.html",
        found=found,
        where=where,
        succeeded=State.SUCCEEDED,
        cells=list(_cells(found)),
        more=max(0, len(cells) - CELLS),
        # Ours, as is the style below: nothing in them is of the notebook.
        policy=Markup(  # noqa: S704 - ours
            f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
        style=Markup(asset_text("page.css") + asset_text("changes.css")),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        number=number,
        share=share,
        parts_line=parts_line,
        rows_line=rows_line,
    )


def _cells(found: Compared) -> Iterator[CellView]:
    if found.shown is None:
        return
    pictures = _Pictures()
    old, new = found.executed
    for cell in found.shown.cells[:CELLS]:
        yield CellView(cell, tuple(_figures(cell, old, new, pictures)))


def _figures(
    cell: CellShown, old: Mapping[str, Any], new: Mapping[str, Any], pictures: _Pictures
) -> Iterator[FigureView]:
    gone = cell.status == "removed"
    before = list(bundles_of(old, cell.cell if gone else cell.cell_before))
    after = list(bundles_of(new, None if gone else cell.cell))
    changes = {change.number: change for change in cell.figures}
    for count in range(1, max(len(before), len(after)) + 1):
        change = changes.get(count)
        if count > len(before):
            said = f"figure {count}: new"
        elif count > len(after):
            said = f"figure {count}: gone"
        elif change is not None:
            said = figure_line(change)
        else:
            continue
        sides = {
            side: pictures.address(bundles[count - 1]) if count <= len(bundles) else (None, "")
            for side, bundles in (("before", before), ("after", after))
        }
        notes = tuple((side, why) for side, (_, why) in sides.items() if why)
        if len(notes) == 2 and notes[0][1] == notes[1][1]:
            notes = (("before and after", notes[0][1]),)
        yield FigureView(said, change, sides["before"][0], sides["after"][0], notes)


class _Pictures:
    """Pictures as addresses, until a page has as much of them as a browser shows well."""

    def __init__(self) -> None:
        self._left = PICTURE_BYTES

    def address(self, bundle: Mapping[str, Any]) -> tuple[str | None, str]:
        """A figure's picture, or why there is none."""
        kind = next((kind for kind in PICTURES if kind in bundle), None)
        if kind is None:
            return None, "an interactive chart: its report draws it"
        text = joined(bundle[kind])
        if kind == "image/svg+xml":
            data = base64.b64encode(text.encode("utf-8", "replace")).decode()
        else:
            data = "".join(text.split())
            if not _BASE64.fullmatch(data):
                return None, "not a picture"
        self._left -= len(data)
        if self._left < 0:
            return None, "left out here: its report shows it"
        return f"data:{kind};base64,{data}", ""
