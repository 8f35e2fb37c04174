"""The manifest's schedules as Dagster's.

`research_jobs.decisions.catch_up` decides what a tick requests; here are its facts. The only state
between ticks is the instance, so a daemon that was down for a weekend catches up with its first
tick, and two daemons in turn request nothing twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from research_jobs.decisions.catch_up import MOST_REQUESTS, DueTick, Member, requests
from research_jobs.decisions.promises import Promises
from research_jobs.errors import (
    ManifestError,
    ParameterError,
    ResearchJobsError,
    SourceLocation,
    did_you_mean,
)
from research_jobs.manifest import Problem, ScheduleSpec
from research_jobs.orchestration.compat.instance import share_instance
from research_jobs.orchestration.compat.remembering import remember
from research_jobs.orchestration.definitions.jobs import (
    ALL_ASSETS_JOB,
    ScheduledNotebook,
    partition_groups,
)
from research_jobs.orchestration.model.partitions import keys_with, time_dimension
from research_jobs.orchestration.model.status import (
    PartitionStatus,
    failed_runs,
    partition_status,
)

if TYPE_CHECKING:
    from dagster import DagsterInstance

__all__ = [
    "BuiltSchedules",
    "ScheduledNotebook",
    "Tick",
    "build_schedules",
    "requests_at",
]

SCHEDULE_TAG = "dagster/schedule_name"
TICK_TAG = ".dagster/scheduled_execution_time"
# The tag of a schedule's runs by which the next tick recognizes an edit.
CRON_TAG = "research_jobs/cron"

# A longer tag of a run is stored as its digest: Postgres refuses very long ones.
LONGEST_TAG = 250
# With more scheduled notebooks than this, schedules have no job of their own.
MOST_LISTED = 300


@dataclass(frozen=True)
class BuiltSchedules:
    """The schedules, and the problems of those that could not be built.

    Parameters
    ----------
    schedules : tuple of dagster.ScheduleDefinition
    problems : tuple of Problem
    """

    schedules: tuple[dg.ScheduleDefinition, ...]
    problems: tuple[Problem, ...] = ()


# Ticks that this process has evaluated, in several threads.
_EVALUATING = threading.Lock()
_PROMISES = Promises()

OpConfig = Callable[[str, Mapping[str, Any], str | None], Mapping[str, Any]]
OwedAt = Callable[[str, datetime], bool | None]


def build_schedules(
    schedules: Mapping[str, ScheduleSpec],
    notebooks: Mapping[str, ScheduledNotebook],
    *,
    op_config: OpConfig | None = None,
    locate: Callable[..., Any] | None = None,
    manifest: Path | None = None,
    owed_at: OwedAt = lambda _schedule, _moment: None,
    taken: Collection[str] = (),
) -> BuiltSchedules:
    """Build the schedules of a manifest.

    Parameters
    ----------
    schedules : mapping of str to ScheduleSpec
        `research_jobs.manifest.Manifest.schedules`.
    notebooks : mapping of str to ScheduledNotebook
        All notebooks by name. A broken one has no partitions, and its step fails with a message
        that says what is wrong.
    op_config : callable, optional
        ``op_config(notebook, parameters, where)`` gives the notebook's op config of a schedule's
        parameters: those that it has, converted. Raises a `ResearchJobsError` for a value that
        does not convert, with its location `where`. Default: parameters are passed unchanged.
    locate : callable, optional
        `Manifest.locate`, for messages.
    manifest : Path, optional
        The manifest, whose modification time tells when a schedule was edited.
    owed_at : callable, optional
        ``owed_at(schedule, moment)``: whether a schedule had a tick then, None if unknown.
    taken : collection of str
        Names that no schedule can have: those of sensors, and of our own schedule.

    Returns
    -------
    BuiltSchedules
    """
    # An asset's page lists the schedules that target it. That requires a job for each schedule,
    # which is too expensive for many schedules.
    listed = sum(len(spec.notebooks) for spec in schedules.values()) <= MOST_LISTED
    made: list[dg.ScheduleDefinition] = []
    problems: list[Problem] = []
    for name, spec in schedules.items():
        members = [notebooks[n] for n in spec.notebooks if n in notebooks]
        try:
            _refuse_taken(name, taken)
            config = _ops_config(name, spec, members, op_config, locate)
            made.append(_schedule(name, spec, members, config, manifest, owed_at, listed=listed))
        except Exception as error:  # noqa: BLE001 - one must not take down the others
            ours = isinstance(error, ResearchJobsError)
            what, hint = (error.what, error.hint) if ours else (" ".join(str(error).split()), None)
            where = error.where if ours else None
            if where is None and locate is not None:
                where = locate("schedules", name)
            wrong = ManifestError(f"schedule {name}: {what}", where=where, hint=hint)
            problems.append(Problem("schedule", name, wrong))
    return BuiltSchedules(tuple(made), tuple(problems))


def _refuse_taken(name: str, taken: Collection[str]) -> None:
    if name in taken:
        raise ManifestError("a sensor, or a schedule of ours, is called so", hint="Rename it.")


def _ops_config(
    schedule: str,
    spec: ScheduleSpec,
    members: Sequence[ScheduledNotebook],
    op_config: OpConfig | None,
    locate: Callable[..., Any] | None,
) -> dict[str, Mapping[str, Any]]:
    """Op name to config, for the notebooks for which the schedule has values."""
    config: dict[str, dict[str, Any]] = {}
    for name, value in spec.parameters.items():
        where = locate("schedules", schedule, "parameters", name) if locate is not None else None
        taken = False
        for member in members:
            given = {name: value}
            if op_config is not None:
                given = op_config(member.name, given, str(where) if where else None)
            if given:
                config.setdefault(member.op, {}).update(given)
                taken = True
        if not taken:
            raise _not_settable(name, members, where)
    return dict(config)


def _not_settable(
    name: str, members: Sequence[ScheduledNotebook], where: SourceLocation | None
) -> ParameterError:
    for member in members:
        if name in member.partition_parameters:
            return ParameterError(
                f"the parameter '{name}' is set by {member.name}'s partitions",
                where=where,
                hint="Remove it.",
            )
    known = {parameter for member in members for parameter in member.parameters}
    return ParameterError(
        f"none of its notebooks has the parameter '{name}'",
        where=where,
        hint=did_you_mean(name, known, label="Parameters") or None,
    )


def _schedule(
    name: str,
    spec: ScheduleSpec,
    members: Sequence[ScheduledNotebook],
    config: Mapping[str, Mapping[str, Any]],
    manifest: Path | None,
    owed_at: OwedAt,
    *,
    listed: bool,
) -> dg.ScheduleDefinition:
    def evaluate(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        remember()
        share_instance(context)
        now = datetime.now(timezone.utc)
        tick = Tick(
            schedule=name,
            spec=spec,
            notebooks=tuple(members),
            at=context.scheduled_execution_time,
            now=now,
            config=config,
            edited_at=_changed_at(manifest),
            owed_at=owed_at,
        )
        result = requests_at(tick, context.instance)
        # Dagster takes several requests from a generator, not from a list
        if isinstance(result, str):
            yield dg.SkipReason(result)
        else:
            yield from result

    cron = spec.cron if isinstance(spec.cron, str) else list(spec.cron)
    shown = ", ".join(m.name for m in members[:5]) + (", ..." if len(members) > 5 else "")
    # A schedule's own job can have only one partitioning.
    own = listed and len(partition_groups(members)) < 2
    return dg.ScheduleDefinition(
        name=name,
        cron_schedule=cron,
        execution_timezone=spec.timezone or "UTC",
        execution_fn=evaluate,
        default_status=(
            dg.DefaultScheduleStatus.RUNNING if spec.enabled else dg.DefaultScheduleStatus.STOPPED
        ),
        description=spec.description or f"Runs {shown}.",
        tags=dict(spec.tags),
        target=dg.AssetSelection.assets(*(member.key for member in members)) if own else None,
        job_name=None if own else ALL_ASSETS_JOB,
    )


def _changed_at(manifest: Path | None) -> datetime | None:
    try:
        return (
            datetime.fromtimestamp(manifest.stat().st_mtime, timezone.utc)
            if manifest is not None
            else None
        )
    except OSError:
        return None


# --- one tick -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """One tick of a schedule.

    Parameters
    ----------
    schedule : str
    spec : ScheduleSpec
    notebooks : tuple of ScheduledNotebook
    at : datetime
        When it was due.
    now : datetime
        When it is evaluated: much later if the daemon was down.
    config : mapping
        Op name to config.
    edited_at : datetime or None
        When the manifest was last changed.
    owed_at : callable
        ``owed_at(schedule, moment)``: whether it had a tick then, None if unknown.
    """

    schedule: str
    spec: ScheduleSpec
    notebooks: tuple[ScheduledNotebook, ...]
    at: datetime
    now: datetime
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    edited_at: datetime | None = None
    owed_at: OwedAt = lambda _schedule, _moment: None

    @property
    def cron(self) -> str:
        """str: expression and zone, the value of the runs' tag."""
        crons = [self.spec.cron] if isinstance(self.spec.cron, str) else self.spec.cron
        return _short(f"{' | '.join(crons)} {self.spec.timezone or 'UTC'}")


def requests_at(tick: Tick, instance: DagsterInstance) -> list[dg.RunRequest] | str:
    """The runs that a schedule requests at a tick.

    Parameters
    ----------
    tick : Tick
    instance : dagster.DagsterInstance
        Only read.

    Returns
    -------
    list of dagster.RunRequest or str
        As `research_jobs.decisions.catch_up.requests` decides.
    """
    due = DueTick(tick.at, tick.now, tick.spec.catch_up, tick.edited_at)
    # One at a time: what one has requested, the next one must not.
    partitioned = any(notebook.partitions is not None for notebook in tick.notebooks)
    alone = _EVALUATING if partitioned else nullcontext()
    with alone, dg.partition_loading_context(tick.at, instance):
        found = requests(due, _Facts(tick, instance))
        if isinstance(found, str):
            return found
        _PROMISES.note(tick.schedule, found, tick.now.timestamp())
    notebooks = {notebook.name: notebook for notebook in tick.notebooks}
    return [
        _request(tick, [notebooks[name] for name in request.notebooks], request.partition)
        for request in found
    ]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TAG else sha256(text.encode()).hexdigest()


def _request(
    tick: Tick, notebooks: Sequence[ScheduledNotebook], partition: str | None
) -> dg.RunRequest:
    ops = {n.op: {"config": dict(tick.config[n.op])} for n in notebooks if n.op in tick.config}
    selected = ",".join(sorted(n.name for n in notebooks))
    named = f"{tick.schedule}|{tick.at.timestamp():.0f}|{partition or ''}|{selected}"
    return dg.RunRequest(
        # unique within the tick: a daemon that dies while it submits does not submit twice, and
        # of two requests with one key it submits only the first
        run_key=_short(named),
        run_config={"ops": ops} if ops else {},
        tags={**tick.spec.tags, CRON_TAG: tick.cron},
        asset_selection=[n.key for n in notebooks],
        partition_key=partition,
    )


# --- the facts, as the instance has them ----------------------------------------------------------


class _Facts:
    """What a schedule did, and its notebooks by what partitions they share."""

    def __init__(self, tick: Tick, instance: DagsterInstance) -> None:
        self._tick = tick
        self._instance = instance
        self.plain = [_member(n) for n in tick.notebooks if n.partitions is None]
        self.groups = [
            _Group(definition, members, tick, instance)
            for definition, members in partition_groups(tick.notebooks)
        ]

    def was_owed(self, moment: datetime) -> bool:
        known = self._tick.owed_at(self._tick.schedule, moment)
        if known is not None:
            return known
        # Without a log: as it was when it last requested a run.
        last = self._instance.get_runs(self._filter(), limit=1)
        before = last[0].tags.get(CRON_TAG) if last else None
        return before is None or before == self._tick.cron

    def first_due(self) -> datetime | None:
        records = self._instance.get_run_records(self._filter(), limit=1, ascending=True)
        if not records:
            return None
        due = records[0].dagster_run.tags.get(TICK_TAG)
        return datetime.fromisoformat(due) if due else records[0].create_timestamp

    def _filter(self) -> dg.RunsFilter:
        return dg.RunsFilter(tags={SCHEDULE_TAG: self._tick.schedule})


def _member(notebook: ScheduledNotebook) -> Member:
    return Member(notebook.name, notebook.retries, notebook.by)


class _Group:
    """Notebooks that share a partitions definition."""

    def __init__(
        self,
        definition: dg.PartitionsDefinition[Any],
        notebooks: Sequence[ScheduledNotebook],
        tick: Tick,
        instance: DagsterInstance,
    ) -> None:
        self._tick = tick
        self._definition = definition
        self._notebooks = {notebook.name: notebook for notebook in notebooks}
        self._instance = instance
        self._time = time_dimension(definition)
        self.members = [_member(notebook) for notebook in notebooks]
        self.timed = self._time is not None

    def windows(self, count: int) -> Sequence[str]:
        _, window = self._timed()
        keys: list[str] = []
        # One by one from the end: listing all is slow if there are many, and paging backwards
        # ignores the definition's end.
        current = window.get_last_partition_window()
        while current is not None and len(keys) < count:
            keys.append(window.get_partition_key_for_timestamp(current.start.timestamp()))
            current = window.get_prev_partition_window(current.start)
        return keys[::-1]

    def keys_of(self, window: str) -> Sequence[str]:
        return keys_with(self._definition, self._timed()[0], window)

    def position(self, windows: Sequence[str], moment: datetime) -> int:
        _, window = self._timed()
        with dg.partition_loading_context(moment):
            newest = window.get_last_partition_key() or window.get_first_partition_key()
        if newest is None:
            return max(len(windows) - 1, 0)
        later = (n for n, key in enumerate(windows) if not window.less_than(key, newest))
        return next(later, len(windows))

    def all_keys(self) -> Sequence[str]:
        keys = [str(key) for key in self._definition.get_partition_keys()]
        if len(keys) > MOST_REQUESTS:  # too many for one tick
            made = self._instance.event_log_storage.get_latest_storage_id_by_partition(
                next(iter(self._notebooks.values())).key,
                dg.DagsterEventType.ASSET_MATERIALIZATION,
            )
            keys.sort(key=lambda key: made.get(key, 0))
        return keys

    def status(self, member: Member, keys: Sequence[str]) -> PartitionStatus:
        notebook = self._notebooks[member.name]
        # Without time, only what is running matters: the store is not asked.
        stored = notebook.stored() if self.timed else None
        status = partition_status(self._instance, notebook.key, keys, stored=stored)
        tick = self._tick
        promised = _PROMISES.of_others(tick.schedule, member.name, keys, tick.now.timestamp())
        return replace(status, in_progress=status.in_progress | promised) if promised else status

    def failures(self, member: Member, key: str, at_most: int) -> int:
        notebook = self._notebooks[member.name]
        return failed_runs(self._instance, notebook.key, notebook.op, key, at_most=at_most)

    def _timed(self) -> tuple[str | None, dg.TimeWindowPartitionsDefinition]:
        assert self._time is not None
        return self._time
