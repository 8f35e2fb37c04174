"""Runs that do not count: against published outputs, into a folder of their own.

Nothing of the store, of Dagster's history or of the gallery changes.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.execution.leftovers import KEPT_TRIAL
from research_jobs.orchestration.execution.work import Ended, TrialStore, Work, refusal
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.instance import enter_project
from research_jobs.outcome import Failure, Outcome, State
from research_jobs.project import Project
from research_jobs.protocol import Keep
from research_jobs.provenance.record import Record, find_record
from research_jobs.store.view import READS
from research_jobs.supervisor.run import CancelToken

__all__ = ["Trial", "Tried", "open_trial"]

Pins = Mapping[tuple[str, tuple[str, ...]], str]


@dataclass(frozen=True)
class Tried:
    """A run that did not count.

    Parameters
    ----------
    entry : Entry
    partition : str or None
    outcome : Outcome
    data_version : str or None
    files : mapping of str to Path
        Output to its file.
    record : Record or None
        What it was made of.
    written : tuple of str
        Files that it wrote past its outputs.
    capture : Path or None
        The folder of what its cells showed and what it read, where the trial keeps it.
    given : mapping of str to object
        The parameters that it set.
    """

    entry: Entry
    partition: str | None
    outcome: Outcome
    data_version: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict[str, Path])
    record: Record | None = None
    written: tuple[str, ...] = ()
    capture: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Trial:
    """Where such runs put what they make.

    Parameters
    ----------
    catalog : Catalog
        Its project keeps reports and state in `folder`.
    folder : Path
    captures : bool
        Whether it keeps what cells showed, to publish what was tried.
    prints : int or None
        A descriptor for what notebooks print; None for a file in `folder`.
    """

    catalog: Catalog
    folder: Path
    captures: bool = False
    prints: int | None = None

    @property
    def store(self) -> str:
        """str: the outputs, which later runs of this trial read instead of the published ones."""
        return str(self.folder / "data")

    def run(
        self,
        entry: Entry,
        partition: str | None,
        *,
        parameters: Mapping[str, Any] | None = None,
        pins: Pins | None = None,
        hidden: Collection[tuple[str, tuple[str, ...]]] = frozenset(),
        cancel: CancelToken | None = None,
    ) -> Tried:
        """Run a notebook.

        Parameters
        ----------
        entry : Entry
            Of this trial's catalog.
        partition : str or None
            Dagster's key.
        parameters : mapping, optional
            Instead of the manifest's.
        pins : mapping, optional
            Versions that it reads; see `View`.
        hidden : set of (str, tuple of str)
            Partitions that it does not see; see `View`.
        cancel : CancelToken, optional
        """
        token = cancel or CancelToken()
        with self._work(entry, parameters, TrialStore(self.store, pins or {}, hidden)) as work:
            try:
                ended = _run(work, partition, token)
            except ResearchJobsError as error:
                outcome = Outcome(State.BLOCKED, failure=Failure(error.headline))
                return Tried(entry, partition, replace(outcome, notebook=entry.name))
            written = _written(ended.capture, self.catalog.project)
            captured: Path | None = None
            if self.captures and ended.capture is not None:  # its report takes it away
                captured = self.folder / "captured" / work.run_id
                shutil.copytree(ended.capture.parent, captured, copy_function=_linked)
            files: dict[str, Path] = {}
            if ended.staged is not None and ended.outcome.refused:
                ended.staged.staging.close()
                ended = refusal(ended, {})
            elif ended.staged is not None:
                published = ended.staged.publish()
                files = {output.name: Path(output.file) for output in published}
            ended = work.reported(ended, token)
        found = find_record(self.catalog.project.reports, entry.name, work.run_id, partition)
        return Tried(
            entry,
            partition,
            ended.outcome,
            ended.data_version,
            files,
            found[1] if found is not None else None,
            written,
            captured,
            ended.given,
        )

    def hold(
        self,
        entry: Entry,
        partition: str | None,
        keep: Keep,
        *,
        parameters: Mapping[str, Any] | None = None,
        pins: Pins | None = None,
    ) -> Outcome:
        """Run a notebook whose process stays; nothing of it is published, here or elsewhere.

        Parameters
        ----------
        entry, partition, parameters, pins
            As for `run`.
        keep : Keep

        Raises
        ------
        ResearchJobsError
            When it cannot be started.
        """
        with self._work(entry, parameters, TrialStore(self.store, pins or {})) as work:
            ended = _run(replace(work, keep=lambda _key: keep), partition, CancelToken())
            if ended.staged is not None:
                ended.staged.staging.close()
            return (refusal(ended, {}) if ended.outcome.refused else ended).outcome

    @contextmanager
    def _work(
        self, entry: Entry, parameters: Mapping[str, Any] | None, store: TrialStore
    ) -> Generator[Work]:
        with (self.folder / "log").open("ab") as log:
            prints = log.fileno() if self.prints is None else self.prints
            yield Work(
                self.catalog,
                entry,
                run_id=f"trial-{secrets.token_hex(8)}",
                step_key="trial",
                parameters=dict(entry.parameters if parameters is None else parameters),
                stdout=prints,
                stderr=prints,
                trial=store,
            )


def _run(work: Work, partition: str | None, cancel: CancelToken) -> Ended:
    if work.entry.error is not None:
        raise work.entry.error
    return work.run(partition, cancel)


def _linked(source: str, target: str) -> str:
    os.link(source, target)
    return target


def _written(capture: Path | None, project: Project) -> tuple[str, ...]:
    """Files of the project that the notebook opened to write."""
    found: dict[str, None] = {}
    if capture is not None:
        with suppress(OSError), capture.with_name(READS).open("rb") as file:
            for line in file:
                with suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    if isinstance(entry, dict) and isinstance(entry.get("written"), str):
                        found[project.display(entry["written"])] = None
    return tuple(found)


@contextmanager
def open_trial(
    catalog: Catalog, *, keep: bool = False, captures: bool = False, prints: int | None = None
) -> Generator[Trial]:
    """A folder for runs that do not count; it is removed at the end.

    The process becomes one of the project's, as for runs that do.

    Parameters
    ----------
    catalog : Catalog
    keep : bool
        Whether it stays.
    captures, prints
        As of `Trial`.
    """
    project = catalog.project
    enter_project(project)
    name = f"{KEPT_TRIAL if keep else ''}{secrets.token_hex(4)}"
    folder = project.make_state_folder("trials", name)
    try:
        inside = replace(catalog, project=replace(project, aside=folder))
        yield Trial(inside, folder, captures, prints)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
