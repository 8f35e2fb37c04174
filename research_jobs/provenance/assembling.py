"""Write a run's record, in the process that makes its report.

What the notebook's process noted is untrusted: it is read in linear time, within limits.
Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.filesystem import write_atomically
from research_jobs.outcome import Outcome
from research_jobs.provenance.digests import file_digest, folder_digest
from research_jobs.provenance.environment import describe_environment
from research_jobs.provenance.record import NAME, FileRead, Load, Record
from research_jobs.provenance.shelf import keep
from research_jobs.store.layout import PARTITIONS, SUFFIX, VERSIONS, Unit, is_remote
from research_jobs.store.readers import mark_read
from research_jobs.store.records import Version, sequence
from research_jobs.store.versions import read_version, roots_of
from research_jobs.store.view import READS, View

__all__ = ["RunFacts", "assemble"]

LINES = 50_000
LINE = 1024 * 1024  # bytes of one: a read of ten thousand partitions
HASHED_FILE, HASHED_ALL = 1 << 30, 4 << 30  # bytes; larger files are told by size and time
FILES = 5_000
NOTED = 200  # of what is not seen

# Libraries whose compiled code reads files past every function that we watch.
NATIVE = ("deltalake", "h5py", "lance", "netCDF4", "rasterio", "tables", "zarr")


@dataclass(frozen=True)
class RunFacts:
    """What the run worker knows of a run, beside its outcome.

    Parameters
    ----------
    project_root, store, state : str
        Folders of the project, the store, and what is kept between runs.
    notebook : str
        The notebook's file.
    search : sequence of str
        Where its helper modules are looked for, in order.
    helpers : sequence of str
        Import names of the project's modules that it imports.
    third_party : sequence of str
        Dotted names of the installed modules that it imports.
    manifest : str
        The manifest's file.
    code_version, git_commit, python, data_version : str or None
    lock : str or None
        The file with the versions of the notebook's own environment.
    given : mapping of str to object
        The parameters that the run set, except secret ones, as JSON.
    counts : bool
        Whether versions that it has read are kept for it.
    variables : mapping of str to str
    """

    project_root: str
    store: str
    state: str
    notebook: str
    search: Sequence[str] = ()
    helpers: Sequence[str] = ()
    third_party: Sequence[str] = ()
    manifest: str = ""
    code_version: str | None = None
    git_commit: str | None = None
    python: str | None = None
    lock: str | None = None
    data_version: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    counts: bool = True

    def to_json(self) -> dict[str, Any]:
        """As its keyword arguments."""
        return asdict(self)


def assemble(
    facts: RunFacts, outcome: Outcome, run_folder: Path, folder: Path, reports: Path
) -> Record:
    """Write a run's record into its report's folder.

    Parameters
    ----------
    facts : RunFacts
    outcome : Outcome
    run_folder : Path
        Where the run noted its reads.
    folder : Path
        Of the report.
    reports : Path
        Of all reports.

    Returns
    -------
    Record
    """
    noted = list(_noted(run_folder / READS))
    python, packages = describe_environment(facts.python)
    own = _sources(facts)
    loads, files = _split(noted, facts, View.read(run_folder).overlay)
    record = Record(
        notebook=outcome.notebook,
        run_id=outcome.run_id,
        partition=outcome.partition,
        ending=outcome.state.value,
        started_at=outcome.started_at,
        code_version=facts.code_version,
        files={name: _keep_source(reports, path) for name, path in own.items()},
        manifest=_keep_source(reports, Path(facts.manifest)),
        given=facts.given,
        git_commit=facts.git_commit,
        parameters=outcome.parameters,
        variables=facts.variables,
        python=python,
        environment=keep(reports, packages),
        loads=tuple(loads),
        reads=tuple(_files(files, facts, set(own))),
        not_seen=tuple(_not_seen(noted, facts)),
        data_version=facts.data_version,
    )
    write_atomically(folder / NAME, record.dump())
    if facts.counts:
        _mark_versions(record, facts.store, folder / NAME)
    return record


def _noted(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's reads that can be read."""
    try:
        with path.open("rb") as file:
            for _ in range(LINES):
                line = file.readline(LINE)
                if not line:
                    return
                with suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        yield entry
    except OSError:
        return


# -- code ------------------------------------------------------------------------------------


def _sources(facts: RunFacts) -> dict[str, Path]:
    """The notebook, its helper modules and its lock, by their paths in the project."""
    found = [Path(facts.notebook)]
    for name in facts.helpers:
        parts = name.split(".")
        for folder in map(Path, facts.search):
            module = folder.joinpath(*parts)
            candidates = (module / "__init__.py", module.with_name(f"{parts[-1]}.py"))
            path = next((path for path in candidates if path.is_file()), None)
            if path is not None:
                found.append(path)
                break
    if facts.lock is not None and Path(facts.lock).is_file():
        found.append(Path(facts.lock))
    return {_shown(str(path), facts.project_root): path for path in found}


def _keep_source(reports: Path, path: Path) -> str:
    try:
        return keep(reports, path.read_bytes())
    except OSError:
        return ""


def _shown(path: str, root: str) -> str:
    """A path relative to the project, where it is inside."""
    inside = os.path.relpath(path, root)
    return path if inside.startswith("..") else inside.replace(os.sep, "/")


# -- what was read ---------------------------------------------------------------------------


def _split(
    noted: Iterable[Mapping[str, Any]], facts: RunFacts, overlay: str | None
) -> tuple[list[Load], dict[str, str]]:
    """Outputs, whichever way they were read, and other files with their readers."""
    stores = (facts.store, *([overlay] if overlay is not None else []))
    loads: dict[Load, None] = {}
    files: dict[str, str] = {}
    for entry in noted:
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            if "load" in entry:
                loads |= dict.fromkeys(_loads(entry, facts.store))
            elif "file" in entry and len(files) < FILES:
                path = str(entry["file"])
                load = _load_of(path, facts.store)
                if load is not None:
                    loads[load] = None
                elif not any(_is_of_store(path, store) for store in stores):
                    files.setdefault(path, str(entry["by"]))
    return list(loads), files


def _loads(entry: Mapping[str, Any], store: str) -> Iterator[Load]:
    notebook, output = str(entry["load"]), str(entry["output"])
    where = str(entry["store"])
    for segments, version in entry["versions"]:
        unit = (notebook, tuple(map(str, segments)))
        yield _load(where, *unit, str(version), output, "" if where == store else where)


def _load(
    store: str, notebook: str, segments: tuple[str, ...], id_: str, output: str, told: str = ""
) -> Load:
    found = _stored(store, notebook, segments, id_)
    made = (found.run_id, found.data_version) if found is not None else ("", "")
    return Load(notebook, output, segments, id_, *made, told)


def _load_of(path: str, store: str) -> Load | None:
    """The version whose file a reader without us has opened; None for any other file."""
    if is_remote(store) or not path.startswith(store.rstrip("/") + "/"):
        return None
    real = Path(path).resolve()
    if real.suffix != SUFFIX or sequence(real.parent.name) < 0:
        return None
    parts = real.parent.relative_to(store).parts
    hidden = next(i for i, part in enumerate(parts) if part.startswith((VERSIONS, PARTITIONS)))
    unit = ("/".join(parts[:hidden]), parts[hidden + 1 : -1])
    return _load(store, *unit, real.parent.name, real.stem)


def _is_of_store(path: str, store: str) -> bool:
    """Whether a file is one with which the store keeps its books: all of these are hidden."""
    top = f"{store.rstrip('/')}/"
    return path.startswith(top) and "/." in path[len(top) - 1 :]


def _stored(store: str, notebook: str, segments: tuple[str, ...], id_: str) -> Version | None:
    """A version in a local store, whichever partitioning it is of; None where it is gone."""
    if is_remote(store) or sequence(id_) < 0 or ".." in (*notebook.split("/"), *segments):
        return None
    plain = Unit(Path(store), notebook, segments)
    for root in reversed(roots_of(plain)):
        if (root == VERSIONS) is not bool(segments):
            with suppress(OSError, ResearchJobsError):
                return read_version(Unit(plain.store, notebook, segments, root), id_)
    return None


def _files(files: Mapping[str, str], facts: RunFacts, own: set[str]) -> Iterator[FileRead]:
    """Files with their hashes, without those that only Python itself reads."""
    left = HASHED_ALL
    for path, by in files.items():
        name = _shown(path, facts.project_root)
        if name in own or _is_of_python(path):
            continue
        place = Path(path)
        try:
            status = place.stat()
        except OSError:
            yield FileRead(name, by, None, 0, 0.0)
            continue
        digest: str | None = None
        if place.is_dir():
            digest = folder_digest(place)
        elif place.is_file() and status.st_size <= min(HASHED_FILE, left):
            digest = file_digest(place, remembered=Path(facts.state) / "cache" / "digests")
            left -= status.st_size
        yield FileRead(name, by, digest, status.st_size, status.st_mtime)


def _is_of_python(path: str) -> bool:
    """Whether a file belongs to a package, an interpreter or a system library."""
    return (
        path.endswith((".pyc", ".so"))
        or "-packages/" in path
        or "/lib/python3" in path
        or path.startswith(("/usr/", "/etc/"))
        or "/.cache/" in path
    )


def _not_seen(noted: Iterable[Mapping[str, Any]], facts: RunFacts) -> Iterator[str]:
    """What the run read that no hash tells, each once."""
    said: dict[str, None] = {}
    for entry in noted:
        for kind in ("address", "host", "program", "workers"):
            if kind in entry:
                said[f"{kind} {str(entry[kind])[:300]}"] = None
        if "more" in entry:
            said["more than it could note"] = None
    imported = {name.partition(".")[0] for name in facts.third_party}
    said |= dict.fromkeys(f"files read by {name}" for name in NATIVE if name in imported)
    yield from list(said)[:NOTED]


# -- versions that are read are kept ---------------------------------------------------------


def _mark_versions(record: Record, store: str, place: Path) -> None:
    for load in record.loads:
        version = _stored(load.store or store, load.notebook, load.partition, load.version)
        if version is not None:
            mark_read(version.folder, place)
