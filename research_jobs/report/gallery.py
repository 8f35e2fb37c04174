"""What runs write of the gallery: each its line, and the page of its notebook, as static files.

::

    reports/index.html            the morning page (see `research_jobs.report.morning`)
    reports/gallery.js            a line for each run that has ended since it was written
    reports/<notebook>/index.html the page of one notebook
    reports/<notebook>/runs.js    one line for each run, appended
    reports/<notebook>/_runs/...  the reports

Data are scripts that call a function, so the pages work from ``file://`` too. A run appends a line
to ``gallery.js`` and one to ``runs.js``: what it costs depends neither on the runs before it nor on
the number of notebooks. Whoever writes the morning page drops the lines that it holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from research_jobs.filesystem import folder_bytes, make_folder, temporary_path
from research_jobs.outcome import Outcome, State
from research_jobs.report.assets import UI_SCRIPT, asset_text, install_asset, write_atomically
from research_jobs.report.header import ReportHeader
from research_jobs.report.layout import RUNS, Report
from research_jobs.report.morning import DATA, MorningPage, render_morning
from research_jobs.report.templates import render

__all__ = [
    "GalleryEntry",
    "NotebookCard",
    "kept_ids",
    "listed_run",
    "listed_runs",
    "place_runs",
    "plain",
    "prune_reports",
    "success_before",
    "update_gallery",
    "write_page",
]

KEEP = 30
_RAN, _RUN, _CLOSE = "researchJobsRan(", "researchJobsRun(", ");\n"
# Below this size the list of runs is read whole at each run; above, now and then.
_SMALL = 16 * 1024
# Where nobody writes the morning page, the list beside it is cut at this size: bytes.
_LONGEST = 256 * 1024
# Lines of runs that ended so long before the page stay: Dagster records an ending last.
_MARGIN_S = 600.0
_LOCK = ".lock"
_COMPACTED = ".compacted"


@dataclass(frozen=True)
class NotebookCard:
    """What the page of a notebook says of it, beside its runs.

    Parameters
    ----------
    name : str
    description : str
    schedule : str or None
        The names of its schedules.
    url : str or None
        Its page in Dagster: an address, or a path in the UI.
    """

    name: str
    description: str = ""
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
        for path in (reports / DATA, folder / "runs.js"):
            _make_way(path)
        _install_pages(reports, entry.card)
        _append(folder / "runs.js", _line(_RUN, run))
        thumbnail = _keep_thumbnail(reports, folder, report)
        line = {"name": name} | run | {"thumbnail": thumbnail}
        whole = _append(reports / DATA, _line(_RAN, line))
        if not whole or (reports / DATA).stat().st_size > _LONGEST:
            _mend(reports)
        if keep is not None:
            _retain_sometimes(folder, keep)


def write_page(reports: Path, page: MorningPage) -> Path:
    """Write the morning page, and drop the lines of the runs that it holds.

    Safe to call from several processes at once.

    Parameters
    ----------
    reports : Path
        The reports' folder, made if missing.
    page : MorningPage

    Returns
    -------
    Path
        The page.
    """
    index = reports / "index.html"
    began = (page.now.timestamp() if page.now is not None else 0.0) - _MARGIN_S
    with _locked(reports):
        _write_if_changed(index, render_morning(reports, page).encode("utf-8", "replace"))
        kept = [
            line for line, run in _read_ran(reports) if run["started"] + run["duration"] > began
        ]
        _write_if_changed(reports / DATA, b"".join(kept))
    return index


def _append(path: Path, line: bytes) -> bool:
    """Add a line; whether the one before it, which a power cut may have left half, is whole."""
    with path.open("a+b") as file:
        file.seek(max(0, file.tell() - len(_CLOSE)))
        end = file.read()
        file.write(line if not end or end.endswith(b"\n") else b"\n" + line)
    return not end or end == _CLOSE.encode()


def _read_ran(reports: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines of runs beside the morning page; whatever else is there is left out."""
    try:
        lines = (reports / DATA).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [(line, run) for line in lines if (run := _parsed(line, _RAN)) is not None]


def _mend(reports: Path) -> None:
    """Leave out broken lines and, of a list that is too long, all but each notebook's last."""
    lines = sorted(_read_ran(reports), key=lambda item: item[1]["started"])
    text = b"".join(line for line, _ in lines)
    if len(text) > _LONGEST:
        text = b"".join({run["name"]: line for line, run in lines}.values())
    write_atomically(reports / DATA, text if len(text) < _LONGEST else b"")


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
    lines, retired = _sorted_out(folder, keep)
    _retire(folder, lines, retired)


def kept_ids(
    runs: Sequence[tuple[str, float, str | None]], keep: int, before: float = 0.0
) -> set[str]:
    """Which runs of a notebook keep their report: the last ones, and the last of each partition.

    Parameters
    ----------
    runs : sequence of (str, float, str or None)
        Id, start and partition of each, by their start.
    keep : int
    before : float
        Unix time, seconds: the last of a partition goes if it is older.
    """
    kept = {name for name, _, _ in runs[max(0, len(runs) - max(keep, 1)) :]}
    latest = {partition: (name, started) for name, started, partition in runs}
    kept.update(
        name
        for partition, (name, started) in latest.items()
        if partition is not None and started >= before
    )
    return kept


def _sorted_out(folder: Path, keep: int, before: float = 0.0) -> tuple[list[bytes], list[Path]]:
    """The lines of the runs whose reports stay, and the folders of the others."""
    lines = (folder / "runs.js").read_bytes().splitlines(keepends=True)
    runs = [(line, run) for line in lines if (run := _parsed(line, _RUN)) is not None]
    runs.sort(key=lambda item: item[1]["started"])
    times = [(run["id"], run["started"], run["partition"]) for _, run in runs]
    stay = kept_ids(times, keep, before)
    retired = [
        report
        for _, run in runs
        if run["id"] not in stay
        and (report := folder / RUNS / str(run["id"])).parent == folder / RUNS
        and report.name != ".."
    ]
    return [line for line, run in runs if run["id"] in stay], retired


def _retire(folder: Path, kept: list[bytes], retired: Iterable[Path]) -> None:
    # Out of the list before it goes from the disk: no page ever leads to nothing.
    text = b"".join(kept)
    if text != (folder / "runs.js").read_bytes():
        write_atomically(folder / "runs.js", text)
    for report in retired:
        if report.is_dir():
            shutil.rmtree(report, ignore_errors=True)


def prune_reports(
    reports: Path, *, keep: int, before: float, abandoned: float, dry_run: bool = False
) -> list[tuple[Path, int]]:
    """Remove the reports that are no longer kept, and those that no page leads to.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    keep : int
        As of `update_gallery`.
    before : float
        Unix time, seconds: the last report of a partition goes if its run is older.
    abandoned : float
        And what is in no list if it has not changed since.
    dry_run : bool
        Only say which.

    Returns
    -------
    list of (Path, int)
        The folders, and how many bytes were in each.
    """
    found: list[tuple[Path, int]] = []
    for folder in sorted(path.parent for path in reports.rglob("runs.js")):
        with _locked(reports):
            kept, retired = _sorted_out(folder, keep, before)
            listed = {run["id"] for line in kept if (run := _parsed(line, _RUN)) is not None}
            stray = [
                path
                for path in (folder / RUNS).glob("*")
                if path.is_dir() and path.name not in listed and path not in retired
            ]
            gone = [path for path in retired if path.is_dir()]
            gone += [path for path in stray if path.stat().st_mtime < abandoned]
            found += [(path, folder_bytes(path)) for path in gone]
            if not dry_run:
                _retire(folder, kept, ())
        for path in () if dry_run else gone:
            shutil.rmtree(path, ignore_errors=True)
    return found


def listed_runs(reports: Path, notebook: str) -> list[dict[str, Any]]:
    """The lines of a notebook's runs whose reports are kept."""
    try:
        lines = (reports / notebook / "runs.js").read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [run for line in lines if (run := _parsed(line, _RUN)) is not None]


def listed_run(reports: Path, notebook: str, name: str) -> dict[str, Any] | None:
    """The line of a run, looked for from the end; None if it has none."""
    return next(_newest_first(reports, notebook, id=name), None)


def place_runs(
    reports: Path, notebook: str, runs: Iterable[tuple[Path, dict[str, Any]]], *, keep: int
) -> list[Path]:
    """Add runs whose reports another machine made, in the order of all.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    notebook : str
    runs : iterable of (Path, dict)
        A folder on the same file system, which is moved to its place, and its line.
    keep : int
        As of `update_gallery`.

    Returns
    -------
    list of Path
        Where they are now.
    """
    folder, placed = reports / notebook, list[Path]()
    with _locked(reports):
        lines = {run["id"]: run for run in listed_runs(reports, notebook)}
        for source, run in runs:
            target = folder / RUNS / run["id"]
            if run["id"] not in lines:
                shutil.rmtree(target, ignore_errors=True)  # of one that was killed here
                source.rename(target)
                lines[run["id"]] = run
                placed.append(target)
        ordered = sorted(lines.values(), key=lambda run: run["started"])
        text = b"".join(_line(_RUN, run) for run in ordered)
        write_atomically(folder / "runs.js", text)
        new = {path.name for path in placed}
        for run in ordered:
            if run["id"] in new:
                picture = next((folder / RUNS / run["id"]).glob("thumbnail.*"), None)
                report = Report(folder / RUNS / run["id"], thumbnail=picture)
                kept = _keep_thumbnail(reports, folder, report) if run is ordered[-1] else None
                line = {"name": notebook} | run | {"thumbnail": kept}
                _append(reports / DATA, _line(_RAN, line))
        if placed:
            _mend(reports)
            _retain(folder, keep)
    return placed


def success_before(reports: Path, notebook: str, partition: str | None) -> tuple[str, float] | None:
    """The last listed run of a partition that succeeded: its report's folder, and when it ended.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    notebook : str
    partition : str or None
        None for a notebook without partitions.
    """
    for run in _newest_first(reports, notebook, partition=partition):
        if run["ending"] == State.SUCCEEDED.value:
            return str(run["id"]), float(run["started"] + run["duration"])
    return None


def _newest_first(reports: Path, notebook: str, **wanted: str | None) -> Generator[dict[str, Any]]:
    """The lines of a notebook's runs that say one thing, without parsing others: a list is long."""
    try:
        text = (reports / notebook / "runs.js").read_bytes()
    except OSError:
        return
    said = json.dumps(wanted, separators=(",", ":"))[1:-1].encode()
    end = len(text)
    while (place := text.rfind(said, 0, end)) >= 0:
        end = text.rfind(b"\n", 0, place) + 1
        run = _parsed(text[end : text.find(b"\n", place) + 1], _RUN)
        if run is not None and wanted.items() <= run.items():
            yield run


def _line(function: str, record: Mapping[str, Any]) -> bytes:
    return (function + json.dumps(record, separators=(",", ":")) + _CLOSE).encode()


def _parsed(line: bytes, function: str) -> dict[str, Any] | None:
    text = line.decode("utf-8", "replace")
    if not (text.startswith(function) and text.endswith(_CLOSE)):
        return None
    with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
        run: dict[str, Any] = json.loads(text[len(function) : -len(_CLOSE)])
        float(run["started"] + run["duration"])
        if isinstance(run["id"], str) and isinstance(run["partition"], str | None):
            return run
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
    } | ({"changes": True} if report.changes else {})


def _keep_thumbnail(reports: Path, folder: Path, report: Report) -> str | None:
    """The run's picture, kept beside the notebook's page: it outlives the run's report."""
    if report.thumbnail is None:
        return None
    kept = folder / report.thumbnail.name
    with contextlib.suppress(OSError):
        write_atomically(kept, report.thumbnail.read_bytes())
        return f"{kept.relative_to(reports).as_posix()}?{report.folder.name}"
    return None


def plain(prose: str) -> str:
    """Prose without its headings, which would repeat the notebook's name, and without marks."""
    lines = [line.strip() for line in prose.splitlines()]
    body = [line for line in lines if not line.startswith("#")]
    text = " ".join(line for line in body if line) or " ".join(line.lstrip("# ") for line in lines)
    return re.sub(r"(\*{1,3}|`)(\S[^*`]*)\1", r"\2", text)


def _install_pages(reports: Path, card: NotebookCard) -> None:
    if not (reports / "index.html").is_file():
        page = render_morning(reports, MorningPage())
        _write_if_changed(reports / "index.html", page.encode())
    up = "../" * (card.name.count("/") + 1)
    script = install_asset(reports, "notebook.js")
    text = render(
        "notebook.html",
        card=replace(card, description=plain(card.description)[:500]),
        up=up,
        states=json.dumps({state.value: [state.heading, state.tone.value] for state in State}),
        scripts=[up + script, f"{up}{UI_SCRIPT}", "runs.js"],
        style=Markup(asset_text("gallery.css")),  # noqa: S704 - ours
    )
    _write_if_changed(reports / card.name / "index.html", text.encode("utf-8", "replace"))


def _write_if_changed(path: Path, content: bytes) -> None:
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
