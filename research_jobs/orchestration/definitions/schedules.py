"""The manifest's schedules as Dagster's.

At each tick a schedule requests what is missing: its unpartitioned notebooks in one run, and of its
partitioned ones the newest partition and those missing within ``catch_up``, each once, oldest
first. The only state between ticks is the instance, so a daemon that was down for a weekend catches
up with its first tick, and two daemons in turn request nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from research_jobs.errors import (
    ManifestError,
    ParameterError,
    ResearchJobsError,
    SourceLocation,
    did_you_mean,
)
from research_jobs.manifest import Problem, ScheduleSpec
from research_jobs.orchestration.compat.migrations import remember_migrations
from research_jobs.orchestration.definitions.jobs import (
    ALL_ASSETS_JOB,
    ScheduledNotebook,
    partition_groups,
)
from research_jobs.orchestration.model.partitions import keys_with, time_dimension
from research_jobs.orchestration.model.status import failed_runs, partition_status

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

# A tick evaluated later than this counts as missed; a busy daemon is only minutes late.
LATE = timedelta(minutes=10)
# Without `catch_up`, how far back a schedule looks for partitions that it should have requested.
LOOK_BACK = {"hour": 168, "cron": 168}
LOOK_BACK_DAYS = 31
# At most this many runs are requested per tick; the next one continues.
MOST_REQUESTS = 250
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


OpConfig = Callable[[str, Mapping[str, Any], str | None], Mapping[str, Any]]


def build_schedules(
    schedules: Mapping[str, ScheduleSpec],
    notebooks: Mapping[str, ScheduledNotebook],
    *,
    op_config: OpConfig | None = None,
    locate: Callable[..., Any] | None = None,
    manifest: Path | None = None,
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
            config = _ops_config(name, spec, members, op_config, locate)
        except ResearchJobsError as error:
            where = error.where
            problem = ManifestError(f"schedule {name}: {error.what}", where=where, hint=error.hint)
            problems.append(Problem("schedule", name, problem))
            continue
        made.append(_schedule(name, spec, members, config, manifest, listed=listed))
    return BuiltSchedules(tuple(made), tuple(problems))


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
    *,
    listed: bool,
) -> dg.ScheduleDefinition:
    def evaluate(
        context: dg.ScheduleEvaluationContext,
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        remember_migrations()  # the code server opens an instance for each tick
        now = datetime.now(timezone.utc)
        tick = Tick(
            schedule=name,
            spec=spec,
            notebooks=tuple(members),
            at=context.scheduled_execution_time,
            now=now,
            config=config,
            edited_at=_changed_at(manifest),
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
    """

    schedule: str
    spec: ScheduleSpec
    notebooks: tuple[ScheduledNotebook, ...]
    at: datetime
    now: datetime
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    edited_at: datetime | None = None

    @property
    def cron(self) -> str:
        """str: expression and zone, the value of the runs' tag."""
        crons = [self.spec.cron] if isinstance(self.spec.cron, str) else self.spec.cron
        return f"{' | '.join(crons)} {self.spec.timezone or 'UTC'}"


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
        Oldest partition first. Unpartitioned notebooks run together with the newest partition,
        so that one that it loads runs before it. If there is nothing to do, the reason.
    """
    late = tick.now - tick.at
    if tick.spec.catch_up == "none" and late > LATE:
        return f"due {tick.at:%Y-%m-%d %H:%M %Z}, {_length(late)} ago; catch_up: none"
    if _edited_since(tick, instance):
        return (
            f"the schedule was edited after {tick.at:%Y-%m-%d %H:%M %Z};"
            " an edit never triggers past runs"
        )
    plain = [n for n in tick.notebooks if n.partitions is None]
    groups = partition_groups(tick.notebooks)
    requests: list[dg.RunRequest] = []
    share = MOST_REQUESTS // max(len(groups), 1)
    with dg.partition_loading_context(tick.at, instance):
        first_at = _first_tick(tick, instance) if groups else None
        for number, (definition, members) in enumerate(groups):
            wanted = _wanted(definition, members, tick, instance, first_at)
            if len(wanted) > share:  # the newest in any case: the day's own work
                wanted = [*wanted[: share - 1], wanted[-1]]
            for position, (key, needing) in enumerate(wanted):
                together: list[ScheduledNotebook] = []
                if number == 0 and position == len(wanted) - 1:
                    together, plain = plain, []
                requests.append(_request(tick, [*together, *needing], key))
    if plain:
        requests.insert(0, _request(tick, plain, None))
    if not requests:
        return "every partition exists, is running, was skipped or has failed too often"
    return requests


def _request(
    tick: Tick, notebooks: Sequence[ScheduledNotebook], partition: str | None
) -> dg.RunRequest:
    ops = {n.op: {"config": dict(tick.config[n.op])} for n in notebooks if n.op in tick.config}
    selected = ",".join(sorted(n.name for n in notebooks))
    return dg.RunRequest(
        # unique within the tick: a daemon that dies while it submits does not submit twice
        run_key=f"{tick.schedule}|{tick.at.timestamp():.0f}|{partition or ''}|{selected}"[-250:],
        run_config={"ops": ops} if ops else {},
        tags={**tick.spec.tags, CRON_TAG: tick.cron},
        asset_selection=[n.key for n in notebooks],
        partition_key=partition,
    )


def _wanted(
    definition: dg.PartitionsDefinition[Any],
    members: Sequence[ScheduledNotebook],
    tick: Tick,
    instance: DagsterInstance,
    first_at: datetime | None,
) -> list[tuple[str, list[ScheduledNotebook]]]:
    """Partitions to request, oldest first, each with the notebooks that miss it."""
    timed = time_dimension(definition)
    if timed is None:
        return _all_keys(definition, members, instance)
    name, window = timed
    # newest last; of two dimensions, every key of each window
    parts = _newest_windows(window, members[0], tick)
    keys = {part: keys_with(definition, name, part) for part in parts}
    wanted: dict[str, list[ScheduledNotebook]] = {key: [] for part in parts for key in keys[part]}
    for member in members:
        status = partition_status(instance, member.key, list(wanted), stored=member.stored())
        begin = 0
        if tick.spec.catch_up is None:
            # what the schedule itself missed, not the history from before its start
            since = _newest_at(window, first_at) if status.ever else None
            begin = _position(window, parts, since)
        missing = set(status.missing)
        for part in parts[begin:]:
            for key in keys[part]:
                if key in missing and not _given_up(member, key, status.failed, instance):
                    wanted[key].append(member)
    return [(key, needing) for key, needing in wanted.items() if needing]


def _all_keys(
    definition: dg.PartitionsDefinition[Any],
    members: Sequence[ScheduledNotebook],
    instance: DagsterInstance,
) -> list[tuple[str, list[ScheduledNotebook]]]:
    """Without time there is no newest partition: each tick requests all of them.

    If they are too many for one tick, those with the oldest data come first.
    """
    keys = [str(key) for key in definition.get_partition_keys()]
    if len(keys) > MOST_REQUESTS:
        made = instance.event_log_storage.get_latest_storage_id_by_partition(
            members[0].key, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        keys.sort(key=lambda key: made.get(key, 0))
    running = {m.name: partition_status(instance, m.key, keys).in_progress for m in members}
    wanted = [(key, [m for m in members if key not in running[m.name]]) for key in keys]
    return [(key, needing) for key, needing in wanted if needing]


def _newest_windows(
    window: dg.TimeWindowPartitionsDefinition, member: ScheduledNotebook, tick: Tick
) -> list[str]:
    """The partitions to check, newest last."""
    if tick.spec.catch_up == "none":
        back = 0
    elif tick.spec.catch_up is None:
        back = LOOK_BACK.get(member.by or "", LOOK_BACK_DAYS)
    else:
        back = tick.spec.catch_up
    keys: list[str] = []
    # One by one from the end: listing all is slow if there are many, and paging backwards ignores
    # the definition's end.
    current = window.get_last_partition_window()
    while current is not None and len(keys) <= back:
        keys.append(window.get_partition_key_for_timestamp(current.start.timestamp()))
        current = window.get_prev_partition_window(current.start)
    return keys[::-1]


def _position(
    window: dg.TimeWindowPartitionsDefinition, parts: Sequence[str], since: str | None
) -> int:
    """The index of the partition `since` in `parts`; of the newest one for None."""
    if since is None:
        return max(len(parts) - 1, 0)
    return next(
        (n for n, part in enumerate(parts) if not window.less_than(part, since)), len(parts)
    )


def _given_up(
    member: ScheduledNotebook,
    key: str,
    failed: frozenset[str],
    instance: DagsterInstance,
) -> bool:
    if key not in failed:
        return False
    allowed = member.retries + 1
    return failed_runs(instance, member.key, member.op, key, at_most=allowed) >= allowed


# --- what the instance remembers ------------------------------------------------------------------


def _edited_since(tick: Tick, instance: DagsterInstance) -> bool:
    """Whether the tick is before an edit of the schedule.

    Dagster saves its progress once an hour. A daemon that restarts within that hour would fire
    for a time that is in the new expression but was not in the old one.
    """
    if tick.edited_at is None or tick.at >= tick.edited_at:
        return False
    last = instance.get_runs(dg.RunsFilter(tags={SCHEDULE_TAG: tick.schedule}), limit=1)
    before = last[0].tags.get(CRON_TAG) if last else None
    return before is not None and before != tick.cron


def _first_tick(tick: Tick, instance: DagsterInstance) -> datetime | None:
    """When the schedule first requested a run."""
    if tick.spec.catch_up is not None:
        return None
    records = instance.get_run_records(
        dg.RunsFilter(tags={SCHEDULE_TAG: tick.schedule}), limit=1, ascending=True
    )
    if not records:
        return None
    due = records[0].dagster_run.tags.get(TICK_TAG)
    return datetime.fromisoformat(due) if due else records[0].create_timestamp


def _newest_at(window: dg.TimeWindowPartitionsDefinition, moment: datetime | None) -> str | None:
    if moment is None:
        return None
    with dg.partition_loading_context(moment):
        return window.get_last_partition_key() or window.get_first_partition_key()


def _length(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    days, rest = divmod(minutes, 1440)
    hours, minutes = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
