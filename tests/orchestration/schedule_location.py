"""A code location of two trivial notebooks under schedules, for tests with a real daemon.

Read by ``dagster-daemon`` with the settings in the environment: ``TEST_SCHEDULES`` holds the
schedules as JSON, ``TEST_START`` the first partition.
"""

from __future__ import annotations

import json
import os

import dagster as dg

from research_jobs.manifest import NotebookSpec, ScheduleSpec
from research_jobs.orchestration.definitions.jobs import ScheduledNotebook
from research_jobs.orchestration.definitions.schedules import build_schedules
from research_jobs.orchestration.model.partitions import build_partitions

HOURLY = build_partitions(
    NotebookSpec.model_validate(
        {"partitions": {"by": "hour", "start": os.environ["TEST_START"], "timezone": "UTC"}}
    )
)


@dg.asset
def plain() -> None:
    """A notebook without partitions."""


@dg.asset(partitions_def=HOURLY)
def hourly() -> None:
    """A notebook with a partition an hour."""


built = build_schedules(
    {
        name: ScheduleSpec.model_validate({"timezone": "UTC", **spec})
        for name, spec in json.loads(os.environ["TEST_SCHEDULES"]).items()
    },
    {
        "plain": ScheduledNotebook("plain", op="plain"),
        "hourly": ScheduledNotebook("hourly", HOURLY, by="hour", op="hourly"),
    },
)
defs = dg.Definitions(
    assets=[plain, hourly], schedules=built.schedules, executor=dg.in_process_executor
)
