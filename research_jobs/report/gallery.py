"""The gallery: every notebook at a glance, and the runs of each, as static files.

::

    reports/index.html            the page of all notebooks
    reports/gallery.js            one entry for each notebook: its last run, its group, tags, owners
    reports/<notebook>/index.html the page of one notebook
    reports/<notebook>/runs.js    one line for each run, appended
    reports/<notebook>/_runs/...  the reports

Data are scripts that call a function, so the pages work from ``file://`` too. A run rewrites
``gallery.js``, which grows with the number of notebooks, and appends to ``runs.js``: neither costs
more for the runs that were before.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from research_jobs.report.assets import asset_text, install_asset, write_atomically
from research_jobs.report.build import RUNS, Report
from research_jobs.report.header import ReportHeader

__all__ = ["GalleryEntry", "NotebookCard", "apply_retention", "list_notebooks", "update_gallery"]

KEEP = 30
_OPEN, _CLOSE = "researchJobsGallery(", ");\n"
_RUN_OPEN, _RUN_CLOSE = "researchJobsRun(", ");\n"
# Below this size the list of runs is read whole at each run; above, now and then.
_SMALL = 64 * 1024
_LOCK = ".lock"
_COMPACTED = ".compacted"


@dataclass(frozen=True)
class NotebookCard:
    """What the gallery says of a notebook, beside its runs.

    Parameters
    ----------
    name : str
    description : str
    group : str or None
    tags : mapping of str to str
    owners : tuple of str
    next_ticks : tuple of float
        Unix times at which it will run next; the page shows the first that is still ahead.
    schedule : str or None
        When it runs, in words or as cron.
    url : str or None
        Its page in Dagster.
    """

    name: str
    description: str = ""
    group: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    owners: tuple[str, ...] = ()
    next_ticks: tuple[float, ...] = ()
    schedule: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class GalleryEntry:
    """One run, as the gallery lists it.

    Parameters
    ----------
    card : NotebookCard
    header : ReportHeader
    report : Report
    """

    card: NotebookCard
    header: ReportHeader
    report: Report


def update_gallery(reports: Path, entry: GalleryEntry, *, keep: int | None = KEEP) -> None:
    """Add a run to the gallery, and remove reports that are no longer kept.

    Safe to call from several processes at once.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    entry : GalleryEntry
    keep : int or None
        As for `apply_retention`.
    """
    header, report = entry.header, entry.report
    folder = reports / header.notebook
    run = _run_record(reports, header, report)
    with _locked(reports):
        _install_pages(reports, header.notebook)
        with (folder / "runs.js").open("ab") as file:
            file.write((_RUN_OPEN + json.dumps(run) + _RUN_CLOSE).encode())
        notebooks = _read_gallery(reports)
        known = notebooks.get(header.notebook, {})
        made = _card_record(entry.card) | {
            "last": run,
            "thumbnail": _thumbnail(reports, folder, report) or known.get("thumbnail"),
        }
        # A partition that is filled in later does not hide what ran after it began.
        if known.get("last", {}).get("started", 0) > run["started"]:
            made["last"] = known["last"]
            made["thumbnail"] = known.get("thumbnail") or made["thumbnail"]
        notebooks[header.notebook] = made
        _write_gallery(reports, notebooks)
        if keep is not None:
            _retain_sometimes(folder, keep)


def list_notebooks(reports: Path, cards: Iterable[NotebookCard], *, complete: bool = True) -> Path:
    """Let the gallery list notebooks, whether or not they have run.

    Parameters
    ----------
    reports : Path
        The reports' folder, made if missing.
    cards : iterable of NotebookCard
    complete : bool
        Whether these are all: others are then no longer listed (their reports stay).

    Returns
    -------
    Path
        The gallery's page.
    """
    reports.mkdir(parents=True, exist_ok=True)
    with _locked(reports):
        _install_pages(reports, None)
        known = _read_gallery(reports)
        listed: dict[str, Any] = {} if complete else dict(known)
        for card in cards:
            before = known.get(card.name, {})
            kept = {key: before[key] for key in ("last", "thumbnail") if key in before}
            listed[card.name] = _card_record(card) | kept
        if listed != known or not (reports / "gallery.js").exists():
            _write_gallery(reports, listed)
    return reports / "index.html"


def apply_retention(reports: Path, notebook: str, keep: int) -> tuple[Path, ...]:
    """Remove a notebook's oldest reports.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    notebook : str
    keep : int
        How many of the latest runs keep their report. The last report of each partition stays
        besides.

    Returns
    -------
    tuple of Path
        The folders that were removed.
    """
    with _locked(reports):
        return _retain(reports / notebook, keep)


def _retain_sometimes(folder: Path, keep: int) -> None:
    """Retention whose cost, over many runs, does not grow with their number."""
    size = (folder / "runs.js").stat().st_size
    if size > _SMALL:
        mark = folder / RUNS / _COMPACTED
        try:
            before = int(mark.read_text(encoding="ascii"))
        except (OSError, ValueError):
            before = 0
        if size < before * 1.25:
            return
        _retain(folder, keep)
        write_atomically(mark, str((folder / "runs.js").stat().st_size).encode())
    else:
        _retain(folder, keep)


def _retain(folder: Path, keep: int) -> tuple[Path, ...]:
    path = folder / "runs.js"
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return ()
    runs = [(line, run) for line in lines if (run := _parsed(line)) is not None]
    runs.sort(key=lambda item: item[1]["started"])
    latest = {run["partition"]: run["id"] for _, run in runs}
    kept_ids = {run["id"] for _, run in runs[max(0, len(runs) - max(keep, 1)) :]}
    kept_ids.update(run_id for partition, run_id in latest.items() if partition is not None)
    if len(kept_ids) == len(runs) == len(lines):
        return ()
    # Out of the list before it goes from the disk: no page ever leads to nothing.
    write_atomically(path, b"".join(line for line, run in runs if run["id"] in kept_ids))
    removed: list[Path] = []
    for _, run in runs:
        report = folder / RUNS / str(run["id"])
        if run["id"] not in kept_ids and report.parent == folder / RUNS and report.is_dir():
            shutil.rmtree(report, ignore_errors=True)
            removed.append(report)
    return tuple(removed)


def _parsed(line: bytes) -> dict[str, Any] | None:
    text = line.decode("utf-8", "replace")
    if not (text.startswith(_RUN_OPEN) and text.endswith(_RUN_CLOSE)):
        return None
    try:
        return json.loads(text[len(_RUN_OPEN) : -len(_RUN_CLOSE)])
    except ValueError:
        return None


def _run_record(reports: Path, header: ReportHeader, report: Report) -> dict[str, Any]:
    headline = header.failure.headline if header.failure is not None else header.skip_reason
    return {
        "id": report.folder.name,
        "ending": header.ending,
        "started": round(header.started_at, 3),
        "duration": round(header.duration_s, 3),
        "partition": header.partition,
        "headline": headline[:300] if headline else None,
        "report": report.html.relative_to(reports).as_posix()
        + (f"#{report.anchor}" if report.anchor else ""),
    }


def _card_record(card: NotebookCard) -> dict[str, Any]:
    return {
        "description": _plain(card.description)[:500],
        "group": card.group,
        "tags": dict(card.tags),
        "owners": list(card.owners),
        "next": [round(tick) for tick in card.next_ticks[:100]],
        "schedule": card.schedule,
        "url": card.url,
    }


def _plain(prose: str) -> str:
    """Prose without its headings, which would repeat the notebook's name, and without marks."""
    lines = [line.strip() for line in prose.splitlines()]
    body = [line for line in lines if not line.startswith("#")]
    text = " ".join(line for line in body if line) or " ".join(line.lstrip("# ") for line in lines)
    return re.sub(r"(\*{1,3}|`)(\S[^*`]*)\1", r"\2", text)


def _thumbnail(reports: Path, folder: Path, report: Report) -> str | None:
    """The run's picture, kept beside the notebook's page: it outlives the run's report."""
    if report.thumbnail is None:
        return None
    kept = folder / report.thumbnail.name
    with contextlib.suppress(OSError):
        write_atomically(kept, report.thumbnail.read_bytes())
        return f"{kept.relative_to(reports).as_posix()}?{report.folder.name}"
    return None


def _read_gallery(reports: Path) -> dict[str, Any]:
    try:
        text = (reports / "gallery.js").read_text(encoding="utf-8")
        return json.loads(text[len(_OPEN) : -len(_CLOSE)])["notebooks"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_gallery(reports: Path, notebooks: Mapping[str, Any]) -> None:
    data = {"notebooks": dict(sorted(notebooks.items())), "written": round(time.time())}
    text = _OPEN + json.dumps(data, separators=(",", ":")) + _CLOSE
    write_atomically(reports / "gallery.js", text.encode())


def _install_pages(reports: Path, notebook: str | None) -> None:
    script = install_asset(reports, "gallery.js")
    _install_page(reports / "index.html", "Notebooks", "", script, "gallery.js")
    if notebook is not None:
        up = "../" * (notebook.count("/") + 1)
        _install_page(reports / notebook / "index.html", notebook, up, up + script, "runs.js")


def _install_page(path: Path, title: str, up: str, script: str, data: str) -> None:
    policy = (
        "default-src 'none'; script-src 'self' file:; style-src 'unsafe-inline'; "
        "img-src 'self' file: data:; base-uri 'none'; form-action 'none'"
    )
    text = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=False)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{asset_text('gallery.css')}</style></head>\n"
        f'<body data-title="{escape(title)}" data-up="{escape(up)}"><div class="rg-page"></div>'
        "<noscript>The gallery needs scripts; the reports themselves do not.</noscript>"
        f'<script src="{escape(script)}"></script>'
        + (f'<script src="{escape(up)}gallery.js"></script>' if up else "")
        + f'<script src="{escape(data)}"></script></body></html>\n'
    )
    content = text.encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    write_atomically(path, content)


@contextmanager
def _locked(reports: Path) -> Generator[None]:
    reports.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(reports / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
