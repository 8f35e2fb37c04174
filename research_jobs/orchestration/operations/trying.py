"""Try notebooks as they stand, with everything downstream, and compare with what is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from research_jobs.comparison.changes import Comparison, to_json
from research_jobs.comparison.outputs import compare_outputs
from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.partitions import (
    newest_stored,
    partition_key_of,
    segments_of,
)
from research_jobs.orchestration.operations.trial import Trial, Tried
from research_jobs.outcome import Failure, Outcome, State
from research_jobs.provenance.causes import Cause, causes
from research_jobs.provenance.following import changed_input
from research_jobs.provenance.record import find_record
from research_jobs.store.codec.source import open_source
from research_jobs.store.stored import published_files, stored_versions

__all__ = ["Verdict", "changed_entries", "in_order", "try_entries"]


@dataclass(frozen=True)
class Verdict:
    """A notebook that was tried, against what is published of it.

    Parameters
    ----------
    tried : Tried
    comparison : Comparison or None
        None where it did not succeed, or nothing is published.
    causes : tuple of Cause
    version : str or None
        The published version that it is compared with.
    unreadable : str or None
        Why it cannot be compared with that: files that are damaged or gone, one line.
    """

    tried: Tried
    comparison: Comparison | None = None
    causes: tuple[Cause, ...] = ()
    version: str | None = None
    unreadable: str | None = None

    @property
    def equal(self) -> bool:
        """Bool: whether publishing it would change nothing."""
        if not self.tried.outcome.state.ok:
            return False
        if self.comparison is None:
            return not self.tried.files
        return self.comparison.equal

    def to_json(self) -> dict[str, Any]:
        """As ``try --json`` prints it."""
        outcome = self.tried.outcome
        outputs = {} if self.comparison is None else to_json(self.comparison)["outputs"]
        return {
            "notebook": self.tried.entry.name,
            "partition": self.tried.partition,
            "ending": outcome.state.value,
            "error": None if outcome.state.ok else outcome.reason,
            "equal": self.equal,
            "published": self.version is not None,
            "unreadable": self.unreadable,
            "causes": [cause.to_json() for cause in self.causes],
            "outputs": outputs,
            "written": list(self.tried.written),
        }


def changed_entries(catalog: Catalog) -> list[Entry]:
    """The notebooks whose code is not that of their last published outputs."""
    return [
        entry
        for entry in catalog
        if entry.error is None
        and entry.spec.outputs
        and _published_code(catalog, entry) != (entry.notebook.code_version)
    ]


def _published_code(catalog: Catalog, entry: Entry) -> str | None:
    """The code version in the newest published output's footer; None without one."""
    with suppress(ResearchJobsError, OSError):
        key = _newest(catalog, entry)
        partition = partition_key_of(entry.spec, key) if key is not None else None
        for version in stored_versions(catalog.project.store, entry.name, partition)[:1]:
            for output in version.outputs:
                said = open_source(version.file(output)).header.metadata
                return said.get("code_version")
    return None


def _newest(catalog: Catalog, entry: Entry) -> str | None:
    """The newest of its partitions that has data."""
    if not entry.partitioned:
        return None
    return newest_stored(catalog.project.store, entry.name, entry.spec)


def in_order(catalog: Catalog, chosen: Sequence[Entry], *, downstream: bool) -> list[Entry]:
    """Notebooks, and if so all that read them, directly or not, each after what it reads."""
    wanted = {entry.name for entry in chosen}
    if downstream:
        wanted |= {entry.name for entry in catalog if catalog.upstream_of(entry.name) & wanted}
    ordered: list[Entry] = []
    left = {name: catalog.upstream_of(name) & wanted - {name} for name in sorted(wanted)}
    while left:
        # In a cycle, which the manifest's check reports, any may come first.
        ready = [name for name, before in left.items() if not before & left.keys()] or list(left)
        ordered += [catalog.entries[name] for name in ready]
        left = {name: before for name, before in left.items() if name not in ready}
    return ordered


def try_entries(
    trial: Trial,
    real: Catalog,
    entries: Sequence[Entry],
    *,
    partition: str | None = None,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
) -> Iterator[Verdict]:
    """Run notebooks in order, each reading what those before it made.

    Parameters
    ----------
    trial : Trial
    real : Catalog
        Of the project, with its reports.
    entries : sequence of Entry
        As `in_order` orders them.
    partition : str, optional
        For all that have partitions; by default the newest with data of each.
    parameters : mapping, optional
        By notebook, beside those of the manifest.

    Yields
    ------
    Verdict
    """
    failed: set[str] = set()
    for entry in entries:
        behind = sorted(failed & set(entry.upstream))
        key = (partition or _newest(real, entry)) if entry.partitioned else None
        if behind:
            why = Failure(f"{behind[0]}, which it reads, did not succeed")
            outcome = Outcome(State.BLOCKED, failure=why, notebook=entry.name)
            tried = Tried(entry, key, replace(outcome, blocked_by=tuple(behind)))
        elif entry.partitioned and key is None:
            why = Failure("no partition of it has data yet; name one with --partition")
            tried = Tried(entry, None, Outcome(State.BLOCKED, failure=why, notebook=entry.name))
        else:
            inside = trial.catalog.entries[entry.name]
            given = {**inside.parameters, **(parameters or {}).get(entry.name, {})}
            tried = trial.run(inside, key, parameters=given)
        if not tried.outcome.state.ok:
            failed.add(entry.name)
        yield _judged(real, trial.catalog.project.reports, tried)


def _judged(real: Catalog, reports: Path, tried: Tried) -> Verdict:
    entry, project = tried.entry, real.project
    if not tried.files:
        return Verdict(tried)
    segments = segments_of(entry.spec, tried.partition)
    with published_files(project.store, entry.name, segments) as published:
        if published is None:
            return Verdict(tried)
        try:
            compared = compare_outputs(
                published[1],
                tried.files,
                unique={name: output.unique for name, output in entry.spec.outputs.items()},
                folder=project.state,
            )
        except (ResearchJobsError, OSError) as error:
            why = error.headline if isinstance(error, ResearchJobsError) else str(error)
            return Verdict(tried, version=published[0], unreadable=why)
    return Verdict(tried, compared, _why(real, reports, tried, compared), published[0])


def _why(real: Catalog, reports: Path, tried: Tried, compared: Comparison) -> tuple[Cause, ...]:
    """Why it differs from what is published, if the run that published it left a record."""
    if compared.equal or tried.record is None:
        return ()
    partition = None
    if tried.partition is not None:
        partition = partition_key_of(tried.entry.spec, tried.partition)
    for version in stored_versions(real.project.store, tried.entry.name, partition)[:1]:
        before = find_record(
            real.project.reports, tried.entry.name, version.run_id, tried.partition
        )
        if before is not None:
            return causes(
                real.project.reports,
                before[1],
                tried.record,
                differ=True,
                after_reports=reports,
                input_cause=partial(changed_input, store=real.project.store, folder=None),
            )
    return ()
