"""Follow an output back to files, commits and runs, and forward to what has read it.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from research_jobs.outcome import labelled
from research_jobs.provenance.following import DEPTH, key_of
from research_jobs.provenance.record import Load, Record, find_record, records
from research_jobs.units import readable_size

__all__ = ["Origin", "Reader", "origin_of", "readers_of"]

LISTED = 20  # files, inputs: of one run
LOOKED_AT = 50  # records of one notebook, for those that read an output


@dataclass(frozen=True)
class Origin:
    """A version of an output, and what it was made of.

    Parameters
    ----------
    name, version, run_id : str
        As in `Load`; the run is empty where it is not known.
    record : Record or None
        Of the run; None where it is not kept.
    inputs : tuple of Origin
    note : str
        Why nothing is said of the run: ``"above"``, ``"deeper"`` or ``"not kept"``.
    """

    name: str
    version: str
    run_id: str
    record: Record | None = None
    inputs: tuple[Origin, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As ``show --lineage --json`` prints it."""
        said: dict[str, Any] = {"output": self.name, "version": self.version, "run": self.run_id}
        if self.record is None:
            return said | {"note": self.note}
        record = self.record
        return said | {
            "at": _moment(record).isoformat(),
            "git_commit": record.git_commit,
            "code_version": record.code_version,
            "parameters": dict(record.parameters),
            "code": dict(record.files),
            "files": [{"path": r.path, "sha256": r.sha256, "bytes": r.bytes} for r in record.reads],
            "not_seen": list(record.not_seen),
            "inputs": [origin.to_json() for origin in self.inputs],
        }

    def lines(self, indent: str = "") -> Iterator[str]:
        """For a person: the output, its run, and further in what that read."""
        yield f"{indent}{self.name}  {self.version}"
        indent += "  "
        record = self.record
        run = f"run {self.run_id[:8]}" if self.run_id else "run"
        if record is None:
            yield f"{indent}{run}: {_NOTES[self.note]}"
            return
        commit = f"commit {record.git_commit[:12]}" if record.git_commit else "no commit"
        yield (
            f"{indent}{run}  {_moment(record):%Y-%m-%d %H:%M:%S}  {commit}  "
            f"code version {record.code_version or 'unknown'}"
        )
        indent += "  "
        parameters = [f"{name}={value}" for name, value in record.parameters.items()]
        if parameters:
            yield f"{indent}parameters {', '.join(parameters)}"
        code = (f"{indent}code {name}  {digest[:12]}" for name, digest in record.files.items())
        yield from _bounded(code, len(record.files), indent)
        files = (
            f"{indent}file {read.path}  {(read.sha256 or 'not hashed')[:12]}  "
            f"{readable_size(read.bytes)}"
            for read in record.reads
        )
        yield from _bounded(files, len(record.reads), indent)
        for origin in self.inputs[:LISTED]:
            yield from origin.lines(indent)
        yield from _more(len(self.inputs), indent)
        if record.not_seen:
            yield from (f"{indent}not recorded: {what}" for what in record.not_seen[:LISTED])


_NOTES = {
    "above": "above",
    "deeper": "not followed further",
    "not kept": "its record is not kept",
}


def _moment(record: Record) -> datetime:
    return datetime.fromtimestamp(record.started_at).astimezone()


def _bounded(lines: Iterable[str], count: int, indent: str) -> Iterator[str]:
    yield from islice(lines, LISTED)
    yield from _more(count, indent)


def _more(count: int, indent: str) -> Iterator[str]:
    if count > LISTED:
        yield f"{indent}… {count - LISTED:,} more"


def origin_of(reports: Path, load: Load) -> Origin:
    """What a version of an output was made of, as far as records are kept.

    Parameters
    ----------
    reports : Path
        The folder of all reports.
    load : Load
        The version.
    """
    return _origin(reports, load, DEPTH, set())


def _origin(
    reports: Path, load: Load, depth: int, told: set[tuple[str, str, str | None]]
) -> Origin:
    partition = key_of(load.partition)
    run = (load.notebook, load.run_id, partition)

    def without(note: str) -> Origin:
        return Origin(load.name, load.version, load.run_id, note=note)

    if run in told:
        return without("above")
    found = find_record(reports, *run) if load.run_id and not load.store else None
    if found is None:
        return without("not kept")
    if depth < 0:
        return without("deeper")
    told.add(run)
    record = found[1]
    inputs = tuple(_origin(reports, each, depth - 1, told) for each in record.loads)
    return Origin(load.name, load.version, load.run_id, record, inputs)


@dataclass(frozen=True)
class Reader:
    """A notebook that reads an output.

    Parameters
    ----------
    notebook : str
    record : Record or None
        Of the last run that read it; None where no kept one did, but the notebook declares it.
    version : str
        What that run read; empty without one.
    """

    notebook: str
    record: Record | None = None
    version: str = ""

    def to_json(self) -> dict[str, Any]:
        """As ``show --lineage --json`` prints it."""
        if self.record is None:
            return {"notebook": self.notebook, "run": None, "note": "no kept run has read it"}
        return {
            "notebook": self.notebook,
            "partition": self.record.partition,
            "run": self.record.run_id,
            "at": _moment(self.record).isoformat(),
            "version": self.version,
        }

    def line(self, current: str) -> str:
        """For a person.

        Parameters
        ----------
        current : str
            The version of the output that is asked for.
        """
        if self.record is None:
            return f"{self.notebook}: no kept run has read it"
        name = labelled(self.notebook, self.record.partition)
        which = "this version" if self.version == current else self.version
        return (
            f"{name}: {which}, in run {self.record.run_id[:8]}  "
            f"{_moment(self.record):%Y-%m-%d %H:%M:%S}"
        )


def readers_of(
    reports: Path, load: Load, notebooks: Iterable[str], declared: Iterable[str]
) -> tuple[Reader, ...]:
    """The notebooks that read an output: by their last records, or as they declare.

    Parameters
    ----------
    reports : Path
    load : Load
        The output; whichever version was read counts.
    notebooks : iterable of str
        Those that are looked at.
    declared : iterable of str
        Those of them that load something of its notebook, by their code.
    """
    expected = set(declared)
    found = (
        _last_reader(reports, load, notebook)
        or (Reader(notebook) if notebook in expected else None)
        for notebook in notebooks
    )
    return tuple(reader for reader in found if reader is not None)


def _last_reader(reports: Path, load: Load, notebook: str) -> Reader | None:
    for _, record in islice(records(reports, notebook), LOOKED_AT):
        for each in record.loads:
            if each.name == load.name and each.store == load.store:
                return Reader(notebook, record, each.version)
    return None
