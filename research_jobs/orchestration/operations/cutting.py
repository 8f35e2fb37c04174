"""A project as it was known at a moment: inputs are cut there, and what is made of them is rerun.

Each such view is an overlay of its own (`Trial`): outputs of notebooks that read no other are cut
by their column of time, partitions that begin later are hidden, and all notebooks between them and
the one in question run again. Nothing that is published changes.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

from research_jobs.comparison.timeline import NoTimeError, Timeline, cut_file, open_timeline
from research_jobs.errors import ResearchJobsError
from research_jobs.manifest.partitions import dimension_specs
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.partitions import partition_key_of
from research_jobs.orchestration.operations.trial import Trial, Tried, open_trial
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.provenance.record import Load, Record, records
from research_jobs.store.backends import backend_of
from research_jobs.store.codec.api import describe
from research_jobs.store.commit import open_staging, publish
from research_jobs.store.layout import read_segments
from research_jobs.store.stored import published_files

__all__ = ["Bench", "Plan", "World", "zone_of"]

RERUN_AT_MOST = 8  # partitions of one notebook, the latest ones
Unit = tuple[str, tuple[str, ...]]


def zone_of(entry: Entry) -> ZoneInfo:
    """Where the local times of a notebook are: its partitions' zone, or its own."""
    for dimension in dimension_specs(entry.spec).values():
        if dimension.is_time:
            return ZoneInfo(dimension.timezone or "UTC")
    return ZoneInfo(entry.spec.timezone or "UTC")


@dataclass
class Plan:
    """What a run reads, directly or not.

    Parameters
    ----------
    entry : Entry
    key : str or None
        Its partition.
    tried : Tried
        The run that showed it.
    trial : Trial
        Where that run put its outputs.
    loads : list of Load
        Direct ones.
    rerun : dict
        Upstream notebooks and partitions to run again.
    sources : dict of str to set of str
        Notebooks whose outputs are cut, to those of their outputs that are read.
    not_covered : list of str
    """

    entry: Entry
    key: str | None
    tried: Tried
    trial: Trial
    loads: list[Load] = field(default_factory=list[Load])
    rerun: dict[Unit, tuple[Entry, str | None]] = field(
        default_factory=dict[Unit, tuple[Entry, "str | None"]]
    )
    sources: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    not_covered: list[str] = field(default_factory=list[str])

    def note(self, *notes: str) -> None:
        """Add what is not covered, each once."""
        self.not_covered += [note for note in dict.fromkeys(notes) if note not in self.not_covered]


@dataclass
class World:
    """One view of the project, and the run in it.

    Parameters
    ----------
    trial : Trial
    tried : Tried
        The run; of an upstream notebook if that did not succeed.
    cut : int
        Rows and partitions that are not there.
    hidden : set of (str, tuple of str)
    """

    trial: Trial
    tried: Tried
    cut: int = 0
    hidden: Collection[Unit] = frozenset()


class Bench:
    """Makes such views; each lasts until the bench is closed.

    Parameters
    ----------
    catalog : Catalog
        The project's.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.reports = catalog.project.reports
        self.declared = catalog.entries
        # A check that a shortened table fails says nothing about what the notebook knew.
        self.catalog = replace(
            catalog,
            entries={name: _unchecked(entry) for name, entry in catalog.entries.items()},
        )
        self._stack = ExitStack()
        self._seen: dict[tuple[str, str | None], Tried] = {}

    def __enter__(self) -> Bench:  # noqa: PYI034 - Self requires Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def store(self) -> str:
        """str: the project's."""
        return self.catalog.project.store

    def trial(self) -> Trial:
        """A new view."""
        return self._stack.enter_context(open_trial(self.catalog))

    @cached_property
    def scratch(self) -> Path:
        """Path: a folder for temporary files."""
        folder = self.trial().folder / "scratch"
        folder.mkdir()
        return folder

    def plan(self, name: str, key: str | None) -> Plan:
        """Run a notebook, and see what it reads."""
        trial = self.trial()
        entry = self.catalog.entries[name]
        plan = Plan(entry, key, trial.run(entry, key), trial)
        if plan.tried.record is not None:
            plan.loads += plan.tried.record.loads
        plan.note(*_unseen(plan.tried.record, self.catalog.project))
        aside = self.trial()
        left = list(plan.loads)
        while left:
            load = left.pop(0)
            if load.store:
                plan.note(f"{load.name} in the store {load.store}")
                continue
            unit = (load.notebook, load.partition)
            if unit in plan.rerun:
                continue
            other = self.catalog.entries.get(load.notebook)
            if other is None or load.notebook == name or not self._reads_others(other):
                plan.sources.setdefault(load.notebook, set()).add(load.output)
                last = next(records(self.reports, load.notebook), None)
                if last is not None and load.notebook != name:
                    plan.note(
                        *(
                            f"{what}; its outputs are cut"
                            for what in _unseen(last[1], self.catalog.project)
                        )
                    )
                continue
            left += self._rerun(plan, other, load, aside, left)
        return plan

    def _rerun(
        self, plan: Plan, other: Entry, load: Load, aside: Trial, left: Sequence[Load]
    ) -> list[Load]:
        """Plan to run an upstream notebook again; what it reads."""
        same = [one.partition for one in (*plan.loads, *left) if one.notebook == other.name]
        latest = sorted({load.partition, *same})[-RERUN_AT_MOST:]
        if load.partition not in latest:
            plan.note(f"{other.name}: only the latest {RERUN_AT_MOST} partitions run again")
            return []
        key = read_segments(load.partition).key if load.partition else None
        plan.rerun[other.name, load.partition] = (other, key)
        tried = self._seen.get((other.name, key))
        if tried is None:
            tried = self._seen[other.name, key] = aside.run(other, key)
        plan.note(*_unseen(tried.record, self.catalog.project))
        return list(tried.record.loads) if tried.record is not None else []

    def _reads_others(self, entry: Entry) -> bool:
        if entry.upstream:
            return True
        last = next(records(self.reports, entry.name), None)
        return last is not None and any(load.notebook != entry.name for load in last[1].loads)

    def run(self, plan: Plan, moment: datetime | None = None) -> World:
        """Run a notebook and what is upstream of it once more, at best as of a moment.

        Parameters
        ----------
        plan : Plan
        moment : datetime, optional
            What is known before it is all that there is.
        """
        trial = self.trial()
        cut, hidden = (0, set[Unit]()) if moment is None else self._cut(plan, trial, moment)
        for entry, key in sorted(plan.rerun.values(), key=self._order):
            tried = trial.run(entry, key, hidden=hidden)
            if not tried.outcome.state.ok:
                return World(trial, tried, cut, hidden)
        return World(trial, trial.run(plan.entry, plan.key, hidden=hidden), cut, hidden)

    def _order(self, item: tuple[Entry, str | None]) -> tuple[int, str, str]:
        entry, key = item
        return len(self.catalog.upstream_of(entry.name)), entry.name, key or ""

    def _cut(self, plan: Plan, trial: Trial, moment: datetime) -> tuple[int, set[Unit]]:
        """Cut what is published; how much of it is gone, and which partitions are hidden."""
        hidden: set[Unit] = set()
        count = 0
        names = {*self.catalog.upstream_of(plan.entry.name), *plan.sources, plan.entry.name}
        names |= {name for name, _ in plan.rerun}
        for name in sorted(names):
            entry = self.catalog.entries.get(name)
            if entry is None:
                continue
            delays = [output.known_after or 0.0 for output in entry.spec.outputs.values()]
            limit = _earlier(moment, max(delays, default=0.0), zone_of(entry))
            for unit in backend_of(self.store).units(name):
                window = _window(entry, unit.segments)
                if window is not None and window[0] >= limit:
                    hidden.add((name, unit.segments))
                    count += name in plan.sources
                elif window is None or window[1] > limit:
                    count += self._lay_cut(plan, trial, entry, unit.segments, moment)
        return count, hidden

    def _lay_cut(
        self, plan: Plan, trial: Trial, entry: Entry, segments: tuple[str, ...], moment: datetime
    ) -> int:
        """Lay the outputs of one unit over it, cut."""
        read = plan.sources.get(entry.name, set())
        count = 0

        def cut(output: str, path: Path, to: Path) -> bool:
            nonlocal count
            try:
                timeline = self.timeline(entry, output, path)
                spec = entry.spec.outputs.get(output)
                limit = _earlier(moment, (spec and spec.known_after) or 0.0, timeline.zone)
                count += cut_file(timeline, path, limit, to) if output in read else 0
            except NoTimeError as error:
                plan.note(*[f"{entry.name}.{output}: {error}"] * (output in read))
            return to.exists()

        if not read:
            return 0  # it runs again, or nobody reads it
        with published_files(self.store, entry.name, segments) as published:
            if published is not None:
                lay(trial, entry, segments, published[1], cut)
        return count

    def timeline(self, entry: Entry, output: str, path: Path) -> Timeline:
        """The times of a notebook's output."""
        spec = entry.spec.outputs.get(output)
        return open_timeline(path, zone_of(entry), spec.time if spec is not None else None)


def lay(
    trial: Trial,
    entry: Entry,
    segments: tuple[str, ...],
    files: Mapping[str, Path],
    made: Callable[[str, Path, Path], bool] = lambda *_: False,
) -> None:
    """Put outputs into a trial, whose runs read them instead of the published ones.

    Parameters
    ----------
    trial : Trial
    entry : Entry
    segments : tuple of str
    files : mapping of str to Path
        Output to its file.
    made : callable
        Writes another file for an output, and says whether it did; else it is copied.
    """
    partition: PartitionKey | None = None
    if segments:
        partition = partition_key_of(entry.spec, read_segments(segments).key)
    run_id = f"laid-{secrets.token_hex(8)}"
    with open_staging(trial.store, run_id) as staging:
        staged = [
            describe(name, _placed(name, path, staging.path, made)) for name, path in files.items()
        ]
        publish(
            trial.store, entry.name, staged, staging=staging, partition=partition, run_id=run_id
        )


def _placed(name: str, path: Path, folder: Path, made: Callable[[str, Path, Path], bool]) -> Path:
    to = folder / f"{name}.parquet"
    if not made(name, path, to):
        shutil.copyfile(path, to)
    return to


def _earlier(moment: datetime, seconds: float, zone: ZoneInfo) -> datetime:
    """A moment less a duration, of which whole days are days of the calendar."""
    days, rest = divmod(seconds, 86400)
    local = moment.astimezone(zone) - timedelta(days=days)
    return local.astimezone(moment.tzinfo) - timedelta(seconds=rest) if rest else local


def _unseen(record: Record | None, project: Project) -> list[str]:
    """What a run read that cannot be cut."""
    if record is None:
        return []
    store = project.display(project.store)
    paths = [read.path for read in record.reads if not read.path.startswith(f"{store}/")]
    files = [f"{path}, which {record.notebook} reads" for path in paths]
    return files + [f"{what}, which {record.notebook} uses" for what in record.not_seen]


def _window(entry: Entry, segments: tuple[str, ...]) -> tuple[datetime, datetime] | None:
    if not segments:
        return None
    try:
        key = partition_key_of(entry.spec, read_segments(segments).key)
    except ResearchJobsError:
        return None  # partitions were different when it was stored
    if key.start is None or key.end is None:
        return None
    return datetime.fromisoformat(key.start), datetime.fromisoformat(key.end)


def _unchecked(entry: Entry) -> Entry:
    outputs = {name: output.unchecked() for name, output in entry.spec.outputs.items()}
    return replace(entry, spec=entry.spec.model_copy(update={"outputs": outputs}))
