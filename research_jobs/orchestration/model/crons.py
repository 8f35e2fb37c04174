"""What Dagster makes of a cron expression."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Literal

__all__ = ["check_cron"]

_SOME_TIME = 1_700_000_000.0


@lru_cache(maxsize=4096)
def check_cron(expression: str) -> Literal["valid", "invalid", "never fires"]:
    """Whether Dagster makes a schedule of an expression, and finds a time at which it fires.

    Parameters
    ----------
    expression : str
    """
    # A project without schedules is read without Dagster.
    import dagster as dg

    from research_jobs.orchestration.compat.instance import cron_ticks

    try:
        with warnings.catch_warnings():
            # of steps longer than their field; the schedule itself says it again
            warnings.simplefilter("ignore")
            dg.ScheduleDefinition(name="cron", job_name="cron", cron_schedule=expression)
    except dg.DagsterInvalidDefinitionError:
        return "invalid"
    try:
        next(cron_ticks([expression], "UTC", _SOME_TIME))
    except Exception:  # noqa: BLE001 - Dagster's own library raises several
        return "never fires"
    return "valid"
