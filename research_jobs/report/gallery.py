"""The gallery: every notebook at a glance, and the runs of each, as static files.

::

    reports/index.html            the page of all notebooks
    reports/gallery.js            a line for each run: its notebook's group, tags, owners, last run
    reports/<notebook>/index.html the page of one notebook
    reports/<notebook>/runs.js    one line for each run, appended
    reports/<notebook>/_runs/...  the reports

Data are scripts that call a function, so the pages work from ``file://`` too. A run appends a line
to ``gallery.js`` and one to ``runs.js``: what it costs depends neither on the runs before it nor on
the number of notebooks. ``gallery.js`` is rewritten, with one line for each notebook, when it
has doubled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from research_jobs.filesystem import make_folder, temporary_path
from research_jobs.outcome import Outcome, State
from research_jobs.report.assets import UI_SCRIPT, asset_text, install_asset, write_atomically
from research_jobs.report.header import ReportHeader
from research_jobs.report.layout import RUNS, Report
from research_jobs.report.templates import render

__all__ = ["GalleryEntry", "NotebookCard", "list_notebooks", "update_gallery"]

KEEP = 30
_NOTEBOOK, _RUN, _CLOSE = "researchJobsNotebook(", "researchJobsRun(", ");\n"
# Below this size the list of runs is read whole at each run; above, now and then.
_SMALL = 16 * 1024
# How much the gallery's list may grow before it is looked at, however short it was.
_GROWTH = 64 * 1024
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
        Its page in Dagster: an address, or a path in the UI.
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
        How many of the latest runs keep their report; None for all. The last report of each
        partition stays besides.
    """
    report, name = entry.report, entry.header.outcome.notebook
    folder = reports / name
    run = _run_record(reports, entry.header.outcome, report)
    with _locked(reports):
        for path in (reports / "gallery.js", folder / "runs.js"):
            _make_way(path)
        _install_pages(reports, name)
        with (folder / "runs.js").open("a+b") as file:
            if file.tell():  # a line that a power cut left half does not take this one along
                file.seek(-1, os.SEEK_END)
                file.write(b"" if file.read() == b"\n" else b"\n")
            file.write(_line(_RUN, run))
        thumbnail = _thumbnail(reports, folder, report)
        _append_to_gallery(
            reports, _card_record(entry.card) | {"last": run, "thumbnail": thumbnail}
        )
        if keep is not None:
            _retain_sometimes(folder, keep)


def list_notebooks(reports: Path, cards: Iterable[NotebookCard]) -> Path:
    """Let the gallery list notebooks, whether or not they have run.

    Parameters
    ----------
    reports : Path
        The reports' folder, made if missing.
    cards : iterable of NotebookCard
        All: others are no longer listed (their reports stay).

    Returns
    -------
    Path
        The gallery's page.
    """
    make_folder(reports)
    with _locked(reports):
        _install_pages(reports, None)
        known = _read_gallery(reports)
        listed: dict[str, Any] = {}
        for card in cards:
            before = known.get(card.name, {})
            kept = {key: before.get(key) for key in ("last", "thumbnail")}
            listed[card.name] = _card_record(card) | kept
        if listed != known or not (reports / "gallery.js").exists():
            _write_gallery(reports, listed)
    return reports / "index.html"


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


def _retain(folder: Path, keep: int) -> None:
    path = folder / "runs.js"
    lines = path.read_bytes().splitlines(keepends=True)
    runs = [(line, run) for line in lines if (run := _parsed(line, _RUN)) is not None]
    runs.sort(key=lambda item: item[1]["started"])
    latest = {run["partition"]: run["id"] for _, run in runs}
    kept_ids = {run["id"] for _, run in runs[max(0, len(runs) - max(keep, 1)) :]}
    kept_ids.update(run_id for partition, run_id in latest.items() if partition is not None)
    if len(kept_ids) == len(runs) == len(lines):
        return
    # Out of the list before it goes from the disk: no page ever leads to nothing.
    write_atomically(path, b"".join(line for line, run in runs if run["id"] in kept_ids))
    for _, run in runs:
        report = folder / RUNS / str(run["id"])
        inside = report.parent == folder / RUNS and report.name != ".."
        if run["id"] not in kept_ids and inside and report.is_dir():
            shutil.rmtree(report, ignore_errors=True)


def _line(function: str, record: Mapping[str, Any]) -> bytes:
    return (function + json.dumps(record, separators=(",", ":")) + _CLOSE).encode()


def _parsed(line: bytes, function: str) -> dict[str, Any] | None:
    text = line.decode("utf-8", "replace")
    if not (text.startswith(function) and text.endswith(_CLOSE)):
        return None
    try:
        return json.loads(text[len(function) : -len(_CLOSE)])
    except ValueError:
        return None


def _run_record(reports: Path, outcome: Outcome, report: Report) -> dict[str, Any]:
    headline = outcome.failure.headline if outcome.failure is not None else outcome.skip_reason
    return {
        "id": report.folder.name,
        "ending": outcome.state.value,
        "started": round(outcome.started_at, 3),
        "duration": round(outcome.duration_s, 3),
        "partition": outcome.partition,
        "headline": headline[:300] if headline else None,
        "report": report.html.relative_to(reports).as_posix()
        + (f"#{report.anchor}" if report.anchor else ""),
    }


def _card_record(card: NotebookCard) -> dict[str, Any]:
    return {
        "name": card.name,
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


def _append_to_gallery(reports: Path, record: Mapping[str, Any]) -> None:
    line = _line(_NOTEBOOK, record)
    with contextlib.suppress(FileNotFoundError), (reports / "gallery.js").open("r+b") as file:
        written = file.readline().removeprefix(b"// ").strip()
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - len(_CLOSE)))
        whole = file.read() == _CLOSE.encode()
        if whole and written.isdigit() and end < 2 * int(written) + _GROWTH:
            file.write(line)
            return
    notebooks = _read_gallery(reports)
    _merge(notebooks, dict(record))
    _write_gallery(reports, notebooks)


def _read_gallery(reports: Path) -> dict[str, Any]:
    notebooks: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (reports / "gallery.js").read_bytes().splitlines(keepends=True):
            record = _parsed(line, _NOTEBOOK)
            if record is not None:
                _merge(notebooks, record)
    return notebooks


def _merge(notebooks: dict[str, Any], record: dict[str, Any]) -> None:
    """Add a line's record to what the lines before it said; the page does the same."""
    known = notebooks.get(record["name"])
    if known is not None:
        last, before = record["last"], known["last"]
        # A partition that is filled in later does not hide what ran after it began.
        late = before is not None and (last is None or before["started"] > last["started"])
        first, second = (known, record) if late else (record, known)
        record = record | {
            "last": first["last"],
            "thumbnail": first["thumbnail"] or second["thumbnail"],
        }
    notebooks[record["name"]] = record


def _write_gallery(reports: Path, notebooks: Mapping[str, Any]) -> None:
    """Write the list with one line for each notebook, and before them how long these are."""
    lines = b"".join(_line(_NOTEBOOK, notebooks[name]) for name in sorted(notebooks))
    write_atomically(reports / "gallery.js", b"// %d\n" % len(lines) + lines)


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
    scripts = [script, *([f"{up}gallery.js"] if up else []), f"{up}{UI_SCRIPT}", data]
    text = render(
        "gallery.html",
        title=title,
        up=up,
        states=json.dumps({state.value: [state.heading, state.tone.value] for state in State}),
        scripts=scripts,
        policy=Markup(policy),  # noqa: S704 - ours
        style=Markup(asset_text("gallery.css")),  # noqa: S704 - ours
    )
    content = text.encode()
    _make_way(path)
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    write_atomically(path, content)


def _make_way(path: Path) -> None:
    """Move aside what is in the place of a file of ours and is none."""
    if os.path.lexists(path) and not path.is_file():
        path.rename(temporary_path(path))


@contextmanager
def _locked(reports: Path) -> Generator[None]:
    make_folder(reports)
    descriptor = os.open(reports / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
