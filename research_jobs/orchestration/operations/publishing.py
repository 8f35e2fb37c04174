"""Publish what was tried: Dagster runs whose steps take a trial's outputs instead of running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg

from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.partitions import segments_of
from research_jobs.orchestration.model.tried import Adopted
from research_jobs.orchestration.operations.launch import Seen, blocked
from research_jobs.orchestration.operations.plan import plan_batches
from research_jobs.orchestration.operations.session import Session, open_session
from research_jobs.orchestration.operations.trial import Trial
from research_jobs.orchestration.operations.trying import Verdict
from research_jobs.outcome import Outcome, State
from research_jobs.project import Project
from research_jobs.provenance.digests import file_digest

__all__ = ["MovedError", "publish_tried"]

TAG = "research_jobs/tried"
Key = tuple[str, str | None]


class MovedError(ResearchJobsError):
    """Something has changed since notebooks were tried."""


def publish_tried(project: Project, trial: Trial, verdicts: Sequence[Verdict]) -> Iterator[Seen]:
    """Publish what was tried, and have Dagster know it.

    Parameters
    ----------
    project : Project
    trial : Trial
        With what its cells showed.
    verdicts : sequence of Verdict
        In the order in which they were tried.

    Yields
    ------
    Started, Note or Outcome

    Raises
    ------
    MovedError
        Before anything is published, when something has changed since.
    ResearchJobsError
        When one of them did not succeed.
    """
    failed = [one.tried.outcome.label for one in verdicts if _failed(one)]
    if failed:
        raise ResearchJobsError(f"nothing is published: {', '.join(failed)} did not succeed")
    adopted = _adopted(trial, verdicts)
    catalog = load_catalog(project)
    moved = list(_moved(catalog, verdicts, adopted))
    if moved:
        raise MovedError(
            "nothing is published, for something has changed since it was tried",
            hint="Try it again.",
            details="\n".join(f"- {line}" for line in dict.fromkeys(moved)),
        )
    with open_session(project) as session:
        looked_at = replace(catalog, adopted=adopted)
        yield from _publish(Session(project, session.instance, looked_at), adopted)


def _failed(verdict: Verdict) -> bool:
    """Whether it keeps the others from being published; one that no partition has yet does not."""
    tried = verdict.tried
    without_data = tried.entry.partitioned and tried.partition is None
    own = tried.outcome.blocked_by or tried.entry.error
    return not tried.outcome.state.ok and not (without_data and not own)


def _publish(session: Session, adopted: Mapping[Key, Adopted]) -> Iterator[Seen]:
    names = session.catalog.names
    chosen: dict[dg.AssetKey, list[str | None]] = {}
    for name, partition in adopted:
        chosen.setdefault(names.key(name), []).append(partition)
    launcher = session.launcher
    unsuccessful: set[str] = set()
    for batch in plan_batches(launcher.graph, chosen):
        if unsuccessful:
            for key in batch.keys:
                part = launcher.partition_for(key, batch)
                outcome = replace(blocked(unsuccessful), notebook=names.notebook(key))
                yield replace(outcome, partition=part)
            continue
        for seen in launcher.run(batch, tags={TAG: "true"}):
            if isinstance(seen, Outcome) and not seen.state.ok:
                unsuccessful.add(seen.notebook)
            yield seen


def _adopted(trial: Trial, verdicts: Sequence[Verdict]) -> dict[Key, Adopted]:
    found: dict[Key, Adopted] = {}
    for verdict in verdicts:
        tried = verdict.tried
        if tried.outcome.state is not State.SUCCEEDED:
            continue
        if tried.capture is None or tried.record is None:
            raise ResearchJobsError(
                f"{tried.outcome.label} cannot be published as it was tried: it left no record",
                hint=f"Run it: research-jobs run {tried.entry.name}",
            )
        found[tried.entry.name, tried.partition] = Adopted(
            tried.outcome,
            tried.data_version,
            tried.files,
            tried.capture,
            tried.given,
            tried.record,
            segments_of(tried.entry.spec, tried.partition),
            verdict.version,
            trial.store,
        )
    together = frozenset((name, one.segments) for (name, _), one in found.items())
    return {key: replace(one, together=together) for key, one in found.items()}


def _moved(
    catalog: Catalog, verdicts: Sequence[Verdict], adopted: Mapping[Key, Adopted]
) -> Iterator[str]:
    """What has changed since they were tried, one line each."""
    for verdict in verdicts:
        was = verdict.tried.entry
        now = catalog.entries.get(was.name)
        if now is None:
            yield f"the notebook {was.name} is gone"
        elif now.error is not None:
            yield now.error.headline
        elif now.notebook.code_version != was.notebook.code_version:
            yield f"the code of {was.name}"
        elif now.spec != was.spec or now.parameters != was.parameters:
            yield f"what the manifest says of {was.name}"
    for one in adopted.values():
        yield from one.moved(catalog.project.store)
        yield from _moved_files(catalog.project, one)


def _moved_files(project: Project, tried: Adopted) -> Iterator[str]:
    for read in tried.record.reads:
        path = Path(project.root, read.path)
        now = file_digest(path, remembered=project.state / "cache" / "digests")
        if read.sha256 is not None and now != read.sha256:
            yield f"the file {read.path}, which {tried.record.notebook} read"
