"""Run a past run again: its code, its parameters, and the versions that it read.

A copy of the project is laid out beside it: the files of the run's record as they were, everything
else by links to what is there now.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from research_jobs.comparison.changes import Comparison, to_json
from research_jobs.comparison.outputs import compare_outputs
from research_jobs.errors import OutputNotFoundError, ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, Entry, load_catalog
from research_jobs.orchestration.model.partitions import segments_of
from research_jobs.orchestration.operations.trial import Trial, Tried
from research_jobs.project import Project
from research_jobs.provenance.causes import causes
from research_jobs.provenance.record import NAME, Record, read_record
from research_jobs.provenance.shelf import kept
from research_jobs.store.layout import read_segments
from research_jobs.store.records import short_id
from research_jobs.store.stored import published_files, stored_versions

__all__ = ["Rerun", "Restored", "find_runs", "rerun", "restore_run"]

LEFT_OUT = (".git", ".research_jobs", "reports", "data")


@dataclass(frozen=True)
class Rerun:
    """A past run that was run again.

    Parameters
    ----------
    record : Record
        Of the past run.
    tried : Tried
    equal : bool
        Whether its outputs hold the same.
    differs : tuple of str
        What does not.
    not_restored : tuple of str
        What could not be as it was.
    comparison : Comparison or None
        None where the past outputs are no longer stored.
    """

    record: Record
    tried: Tried
    equal: bool
    differs: tuple[str, ...] = ()
    not_restored: tuple[str, ...] = ()
    comparison: Comparison | None = field(default=None)

    def to_json(self) -> dict[str, Any]:
        """As ``rerun --json`` prints it."""
        outcome = self.tried.outcome
        return {
            "notebook": self.record.notebook,
            "partition": self.record.partition,
            "run_id": self.record.run_id,
            "ending": outcome.state.value,
            "error": None if outcome.state.ok else outcome.reason,
            "equal": self.equal,
            "differs": list(self.differs),
            "not_restored": list(self.not_restored),
            "outputs": to_json(self.comparison)["outputs"] if self.comparison is not None else {},
        }


def find_runs(project: Project, wanted: str) -> list[Record]:
    """The records of a run, one for each notebook and partition of it.

    Parameters
    ----------
    project : Project
    wanted : str
        The run's id, or at least four characters of its beginning.

    Raises
    ------
    OutputNotFoundError
    """
    part = short_id(wanted, 8)
    found: list[Record] = []
    if len(wanted) >= 4:
        for path in project.reports.glob(f"**/_runs/*-{part}*/{NAME}"):
            record = read_record(path)
            if record is not None and record.run_id.startswith(wanted):
                found.append(record)
    if not found:
        raise OutputNotFoundError(
            f"there is no run '{wanted}' of which a record is kept",
            hint="research-jobs show NOTEBOOK lists a notebook's runs.",
        )
    runs = sorted({record.run_id for record in found})
    if len(runs) > 1:
        raise OutputNotFoundError(
            f"several runs begin with '{wanted}'", hint=f"They are: {', '.join(runs[:6])}"
        )
    return sorted(found, key=lambda record: record.started_at)


@dataclass(frozen=True)
class Restored:
    """A past run, ready to be run again.

    Parameters
    ----------
    inside : Trial
    entry : Entry
        Of its catalog.
    parameters : mapping
    pins : mapping of (str, tuple of str) to str
        The versions that it read.
    missing : tuple of str
        What is not as it was.
    """

    inside: Trial
    entry: Entry
    parameters: Mapping[str, Any]
    pins: Mapping[tuple[str, tuple[str, ...]], str]
    missing: tuple[str, ...] = ()


def restore_run(real: Catalog, trial: Trial, record: Record, *, in_place: bool = False) -> Restored:
    """Lay out what a past run was made of.

    Parameters
    ----------
    real : Catalog
    trial : Trial
        Where it will run.
    record : Record
    in_place : bool
        Whether to take the code as it is in the project, without a copy.

    Raises
    ------
    ResearchJobsError
        When its notebook cannot be restored at all.
    """
    project = real.project
    missing: list[str] = []
    past = real
    if not in_place:
        root = trial.folder / f"project-{secrets.token_hex(4)}"
        missing += _lay_out(project, record, root)
        past = load_catalog(Project(root, project.store), whole=False)
    entry = past.entries.get(record.notebook)
    if entry is None:
        raise OutputNotFoundError(
            f"the source of {record.notebook} at run {record.run_id[:8]} is not kept",
            hint="Sources are kept as long as a report names them.",
        )
    pins, gone = _pins(project, record)
    inside = Trial(replace(past, project=replace(past.project, aside=trial.folder)), trial.folder)
    given = {**entry.parameters, **record.given}
    return Restored(inside, entry, given, pins, (*missing, *gone))


def rerun(real: Catalog, trial: Trial, record: Record) -> Rerun:
    """Run a past run again, and compare what it makes.

    Parameters
    ----------
    real : Catalog
    trial : Trial
        Where it runs.
    record : Record

    Raises
    ------
    ResearchJobsError
        When its notebook cannot be restored at all.
    """
    project = real.project
    restored = restore_run(real, trial, record)
    inside = restored.inside
    tried = inside.run(
        restored.entry, record.partition, parameters=restored.parameters, pins=restored.pins
    )
    missing = [
        *restored.missing,
        *_moved(project, record, tried, inside.catalog.project.reports),
    ]
    if not tried.outcome.state.ok:
        said = f"it {tried.outcome.state.words}: {tried.outcome.reason or ''}"
        same = tried.outcome.state.value == record.ending
        return Rerun(record, tried, same, () if same else (said,), tuple(missing))
    compared = _compared(real, record, tried)
    equal = (
        compared.equal
        if compared is not None
        else (tried.data_version, tried.outcome.state.value) == (record.data_version, record.ending)
    )
    differs = tuple(_differing(compared)) if compared is not None else ()
    if not equal and not differs:
        differs = ("the outputs hold something else; those of that run are no longer stored",)
    return Rerun(record, tried, equal, differs, tuple(dict.fromkeys(missing)), compared)


def _lay_out(project: Project, record: Record, root: Path) -> Iterator[str]:
    """Make the copy of the project; yields what could not be restored."""
    files: dict[Path, bytes] = {}
    wanted = {**record.files}
    if record.manifest:
        wanted[project.display(project.manifest)] = record.manifest
    for name, digest in wanted.items():
        content = kept(project.reports, digest) if digest else None
        if content is None:
            yield f"{name}: its source is not kept, it is as it is now"
        elif not Path(name).is_absolute():
            files[Path(name)] = content
    _mirror(project.root, root, files, LEFT_OUT)
    # An environment that was made for the project's runs is used again.
    past = Project(root, project.store)
    past.make_state_folder()
    past.environments.symlink_to(project.environments)


def _mirror(
    source: Path, target: Path, files: Mapping[Path, bytes], left_out: tuple[str, ...] = ()
) -> None:
    """A folder with the given files, and links to everything else in `source`.

    A module that was not part of the run is left out where it would be found before one that was:
    `scale/` beside the run's `scale.py`, or a `decimal.py`.
    """
    target.mkdir(parents=True)
    below: dict[str, dict[Path, bytes]] = {}
    for path, content in files.items():
        if len(path.parts) == 1:
            (target / path).write_bytes(content)
        else:
            below.setdefault(path.parts[0], {})[Path(*path.parts[1:])] = content
    for name, inner in below.items():
        _mirror(source / name, target / name, inner)
    taken = _installed_modules() | {path.parts[0].removesuffix(".py") for path in files}
    with suppress(OSError):
        for entry in source.iterdir():
            shadows = entry.stem in taken and _is_module(entry)
            if entry.name not in left_out and not shadows and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path / "__init__.py").is_file()


@cache
def _installed_modules() -> frozenset[str]:
    """The top-level modules of Python and of installed packages."""
    found = set(sys.stdlib_module_names)
    for folder in sys.path:
        if folder.endswith("-packages"):
            with suppress(OSError):
                found |= {name.partition(".")[0] for name in os.listdir(folder)}  # noqa: PTH208 - names
    return frozenset(found)


def _pins(
    project: Project, record: Record
) -> tuple[dict[tuple[str, tuple[str, ...]], str], list[str]]:
    """The versions that it read, and those that are no longer there."""
    pins: dict[tuple[str, tuple[str, ...]], str] = {}
    gone: list[str] = []
    for load in record.loads:
        with published_files(
            load.store or project.store, load.notebook, load.partition, load.version
        ) as published:
            if published is None:
                gone.append(f"{load.name}: version {load.version} is no longer stored")
            elif not load.store:
                pins[load.notebook, load.partition] = load.version
    return pins, gone


def _moved(project: Project, record: Record, tried: Tried, reports: Path) -> Iterator[str]:
    """Files, packages and what no record holds, where they are not as they were."""
    if tried.record is None:
        return
    before = replace(record, code_version=None, loads=(), parameters={})
    after = replace(tried.record, code_version=None, loads=(), parameters={})
    names = {read.path.removeprefix(str(project.root) + "/") for read in record.reads}
    seen = tuple(
        replace(read, path=read.path.removeprefix(str(project.root) + "/")) for read in after.reads
    )
    after = replace(after, reads=tuple(read for read in seen if read.path in names))
    for cause in causes(project.reports, before, after, differ=False, after_reports=reports):
        yield cause.what
    for unseen in record.not_seen:
        yield f"{unseen} (not recorded)"


def _compared(real: Catalog, record: Record, tried: Tried) -> Comparison | None:
    """The outputs against those that the run published; None where they are no longer stored."""
    project, entry = real.project, tried.entry
    segments = segments_of(entry.spec, record.partition)
    partition = read_segments(segments) if segments else None
    with suppress(ResearchJobsError, OSError):
        for version in stored_versions(project.store, record.notebook, partition):
            if version.run_id == record.run_id:
                with published_files(project.store, record.notebook, segments, version.id) as files:
                    if files is not None:
                        return compare_outputs(files[1], tried.files, folder=project.state)
    return None


def _differing(compared: Comparison) -> Iterator[str]:
    from research_jobs.provenance.following import briefly

    for name, change in compared.outputs.items():
        if not change.equal:
            yield f"{name} {briefly(change)}"
