"""One gallery for all machines: each run's report is an object behind a URL, and comes down here.

::

    <url>/<notebook>/_runs/<run>~<partition>.tgz    a report, its line in the gallery, its sources
    <url>/assets/<name>                             scripts that pages share

Reports stay local files. Machines exchange those that they lack, by a listing: an object's name
says all that decides what is kept, so nothing is noted of what was sent or fetched. An object is
put whole and never changes.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

from research_jobs.filesystem import make_folder
from research_jobs.provenance.record import NAME, read_record
from research_jobs.provenance.shelf import KEPT
from research_jobs.report.assets import ASSETS, write_atomically
from research_jobs.report.gallery import kept_ids, listed_run, listed_runs, place_runs
from research_jobs.report.layout import RUNS
from research_jobs.store.objects import Objects, in_parallel, objects_of

__all__ = ["Mirror"]

_RUN = re.compile(r"(\d{8}T\d{6}-[0-9A-Za-z-]+)~([0-9a-f]*)\.tgz")
_AT_ONCE = 64
# What unpacking an object raises that is not as we made it.
_DAMAGED = (
    tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, RecursionError, ValueError, KeyError,
    TypeError, AttributeError, IsADirectoryError, NotADirectoryError,
)  # fmt: skip
_LINE, _REPORT, _PAGE = "run.json", "report", "index.html"


@dataclass(frozen=True)
class _Run:
    """A run as the name of its object tells it."""

    notebook: str
    id: str
    partition: str

    @property
    def name(self) -> str:
        return f"{self.notebook}/{RUNS}/{self.id}~{self.partition}.tgz"

    @property
    def started(self) -> float:
        return datetime.strptime(f"{self.id[:15]}+0000", "%Y%m%dT%H%M%S%z").timestamp()


@dataclass(frozen=True)
class Mirror:
    """The reports of a project, here and behind a URL.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    url : str
    keep : int
        How many of the latest runs of a notebook keep their report.
    before : float
        Unix time, seconds: the last report of a partition is kept besides, unless its run is older.
    """

    reports: Path
    url: str
    keep: int
    before: float = 0.0

    def send(self, report: Path) -> None:
        """Upload a report that is listed here.

        Parameters
        ----------
        report : Path
            Its folder.

        Raises
        ------
        StoreError, OSError
        """
        notebook = report.parent.parent.relative_to(self.reports).as_posix()
        line = listed_run(self.reports, notebook, report.name)
        if line is not None:
            objects = objects_of(self.url)
            with objects.explained("a report cannot be sent"):
                self._send_assets(objects, objects.find(f"{objects.root}/{ASSETS}"))
                self._send(objects, _run(notebook, line), line)

    def sync(self, say: Callable[[str], object] = lambda _: None) -> list[Path]:
        """Exchange the reports that are to be kept.

        Parameters
        ----------
        say : callable
            Called with a line for each that cannot be read.

        Returns
        -------
        list of Path
            The folders of the reports that came.

        Raises
        ------
        StoreError, OSError
        """
        objects = objects_of(self.url)
        with objects.explained("reports cannot be exchanged"):
            there = objects.find(objects.root)
            self._fetch_assets(objects, there)
            self._send_assets(objects, there)
            remote = self._runs(objects, there)
            local = dict(self._local({run.notebook for run in remote}))
            kept = self._kept({*remote, *local})
            missing = [run for run in kept - remote.keys() if self._folder(run).is_dir()]
            in_parallel(lambda run: self._send(objects, run, local[run]), missing, at_once=4)
            wanted = sorted(kept - local.keys(), key=lambda run: (run.notebook, run.id))
            came: list[Path] = []
            for notebook, group in groupby(wanted, lambda run: run.notebook):
                runs = list(group)
                for first in range(0, len(runs), _AT_ONCE):
                    came += self._fetch(objects, notebook, runs[first : first + _AT_ONCE], say)
        return came

    def prune(self, *, dry_run: bool = False) -> Iterator[int]:
        """Remove the reports behind the URL that are no longer kept.

        Yields
        ------
        int
            The bytes of each.

        Raises
        ------
        StoreError
        """
        objects = objects_of(self.url)
        with objects.explained("reports cannot be pruned"):
            details = objects.find(objects.root)
            there = self._runs(objects, details)
            for run in sorted(there.keys() - self._kept(set(there)), key=lambda run: run.name):
                if not dry_run:
                    objects.remove(there[run])
                yield int(details[there[run]].get("size") or 0)

    # -- which ---------------------------------------------------------------------------------

    def _folder(self, run: _Run) -> Path:
        return self.reports / run.notebook / RUNS / run.id

    def _runs(self, objects: Objects, paths: Iterable[str]) -> dict[_Run, str]:
        found: dict[_Run, str] = {}
        for path in paths:
            parts = objects.inside(path)
            match = _RUN.fullmatch(parts[-1])
            if match and len(parts) > 2 and parts[-2] == RUNS and ".." not in parts:
                run = _Run("/".join(parts[:-2]), match[1], match[2])
                with suppress(ValueError):  # there is no such moment
                    _ = run.started
                    found[run] = path
        return found

    def _local(self, more: set[str]) -> Iterator[tuple[_Run, dict[str, Any]]]:
        here: set[str] = set()
        for folder, folders, files in os.walk(self.reports):
            folders[:] = [name for name in folders if name != RUNS]  # most files are in there
            if "runs.js" in files:
                here.add(Path(folder).relative_to(self.reports).as_posix())
        for notebook in here | more:
            for line in listed_runs(self.reports, notebook):
                yield _run(notebook, line), line

    def _kept(self, runs: set[_Run]) -> set[_Run]:
        found: set[_Run] = set()
        ordered = sorted(runs, key=lambda run: (run.notebook, run.id))
        for _, group in groupby(ordered, lambda run: run.notebook):
            of_one = list(group)
            times = [(run.id, run.started, run.partition or None) for run in of_one]
            ids = kept_ids(times, self.keep, self.before)
            found.update(run for run in of_one if run.id in ids)
        return found

    # -- up ------------------------------------------------------------------------------------

    def _send_assets(self, objects: Objects, there: Iterable[str]) -> None:
        known = {path.rpartition("/")[2] for path in there}
        for path in (self.reports / ASSETS).glob("[!.]*"):
            if path.name not in known:
                objects.upload(path, f"{objects.root}/{ASSETS}/{path.name}")

    def _send(self, objects: Objects, run: _Run, line: Mapping[str, Any]) -> None:
        folder = self._folder(run)
        files = {
            f"{_REPORT}/{path.relative_to(folder).as_posix()}": path
            for path in folder.rglob("*")
            if path.is_file()
        }
        record = read_record(folder / NAME)
        if record is not None:
            for name in {*record.files.values(), record.manifest, record.environment}:
                files[f"{KEPT}/{name}"] = self.reports / KEPT / name
        files[_PAGE] = self.reports / run.notebook / _PAGE
        with tempfile.NamedTemporaryFile(suffix=".tgz") as packed:
            with tarfile.open(packed.name, "w:gz", compresslevel=3) as archive:
                text = json.dumps(line).encode()
                about = tarfile.TarInfo(_LINE)
                about.size = len(text)
                archive.addfile(about, io.BytesIO(text))
                for name, path in files.items():
                    if path.is_file():
                        archive.add(path, name, recursive=False)
            objects.upload(packed.name, f"{objects.root}/{run.name}")

    # -- down ----------------------------------------------------------------------------------

    def _fetch_assets(self, objects: Objects, there: Iterable[str]) -> None:
        for path in there:
            *folder, name = objects.inside(path)
            target = self.reports / ASSETS / name
            if folder == [ASSETS] and not name.startswith(".") and not target.exists():
                content = objects.read(path)
                if content is not None:
                    make_folder(target.parent)
                    write_atomically(target, content)

    def _fetch(
        self, objects: Objects, notebook: str, runs: Iterable[_Run], say: Callable[[str], object]
    ) -> list[Path]:
        folder = self.reports / notebook / RUNS
        make_folder(folder)
        with tempfile.TemporaryDirectory(prefix=".mirror-", dir=folder) as place:

            def unpacked(run: _Run) -> tuple[Path, dict[str, Any]] | None:
                try:
                    objects.download(f"{objects.root}/{run.name}", Path(place, f"{run.id}.tgz"))
                    line = self._unpack(Path(place, f"{run.id}.tgz"), run, Path(place, run.id))
                except FileNotFoundError:  # pruned meanwhile
                    return None
                except _DAMAGED as error:
                    say(f"{self.url}/{run.name} is damaged: {error}")
                    return None
                return Path(place, run.id), line

            found = [each for each in in_parallel(unpacked, runs) if each is not None]
            return place_runs(self.reports, notebook, found, keep=self.keep)

    def _unpack(self, packed: Path, run: _Run, target: Path) -> dict[str, Any]:
        """Put what a report names in its place, and its own files into a folder."""
        line: dict[str, Any] = {}
        with gzip.open(packed) as stream:
            while stream.read(1 << 20):  # to the checksum, before anything is put in its place
                pass
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isfile() else None
                    parts = PurePosixPath(member.name).parts
                    if file is None or ".." in parts or member.name.startswith("/"):
                        continue
                    if parts == (_LINE,):
                        line = json.load(file)
                    elif (path := self._place(run, parts, target)) is not None:
                        make_folder(path.parent)
                        write_atomically(path, file.read())
        if _run(run.notebook, line) != run:
            raise ValueError("it is not of this run")
        return line

    def _place(self, run: _Run, parts: tuple[str, ...], target: Path) -> Path | None:
        """Where a file of an object goes; None where it is not wanted."""
        page = self.reports / run.notebook / _PAGE
        if parts == (_PAGE,):
            return None if page.exists() else page
        if parts[:1] == (KEPT,) and len(parts) == 2:
            return self.reports / KEPT / parts[1]
        return target.joinpath(*parts[1:]) if parts[:1] == (_REPORT,) and parts[1:] else None


def _run(notebook: str, line: Mapping[str, Any]) -> _Run:
    partition = line["partition"]
    token = "" if partition is None else hashlib.sha256(partition.encode()).hexdigest()[:16]
    return _Run(notebook, line["id"], token)
