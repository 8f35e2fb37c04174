"""Dagster's scheduler daemon, as far as an instance shows that it was there."""

from __future__ import annotations

from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin


class Scheduler:
    """Writes what Dagster's daemon would write."""

    def __init__(self, lab, schedule: str, since: float) -> None:
        self.instance = lab.instance
        self.schedule = schedule
        origin = InProcessCodeLocationOrigin(
            LoadableTargetOrigin(module_name="research_jobs.definitions"),
            location_name="research_jobs",
        )
        self.state = InstigatorState(
            RemoteInstigatorOrigin(RemoteRepositoryOrigin(origin, "__repository__"), schedule),
            InstigatorType.SCHEDULE,
            InstigatorStatus.DECLARED_IN_CODE,
            ScheduleInstigatorData("* * * * *", since),
        )
        self.instance.add_instigator_state(self.state)

    def switch(self, status: InstigatorStatus, since: float | None = None) -> None:
        """Somebody uses the switch in Dagster's UI."""
        data = ScheduleInstigatorData("* * * * *", since)
        self.state = self.state.with_status(status).with_data(data)
        self.instance.update_instigator_state(self.state)

    def tick(
        self, at: float, status: TickStatus, reason: str | None = None, error: object = None
    ) -> None:
        """The daemon evaluated a tick three seconds after it was due."""
        data = TickData(
            self.state.instigator_origin_id,
            self.schedule,
            InstigatorType.SCHEDULE,
            status,
            at,
            selector_id=self.state.selector_id,
            skip_reason=reason,
            error=error,
            end_timestamp=at + 3,
            run_ids=[],
            run_keys=[],
        )
        self.instance.create_tick(data)
