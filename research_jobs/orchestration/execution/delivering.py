"""Who gets the report of a run: what is asked of the report process, and left for delivery.

The run waits for nobody here and reads no value: the process that makes the report decides whether
conditions hold, and the watch (or a courier, where none runs) delivers what is left.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dagster as dg

from research_jobs.manifest.deliver import DeliverSpec
from research_jobs.notify.courier import start_courier
from research_jobs.notify.reports import ReadyReport, leave_report, mail_path, report_id
from research_jobs.orchestration.compat.assets import DATA_VERSION_TAG
from research_jobs.orchestration.model.addresses import report_address
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.partitions import (
    build_partitions,
    dimension_specs,
    partition_key_of,
)
from research_jobs.outcome import Outcome
from research_jobs.report.header import ReportHeader
from research_jobs.report.layout import Report, report_folder
from research_jobs.report.mail_order import MailOrder

__all__ = ["Delivering", "delivering_of"]

logger = logging.getLogger("research_jobs")

# What tells a run that nobody started by hand.
SCHEDULE_TAG = "dagster/schedule_name"
_STARTED_BY = (SCHEDULE_TAG, "dagster/sensor_name", "dagster/auto_materialize")
_BACKFILL_TAG = "dagster/backfill"


@dataclass(frozen=True)
class Delivering:
    """The deliveries of one step's reports.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    specs : tuple of DeliverSpec
        Those that this run is for: the notebook's, and the schedule's that started it.
    instance : DagsterInstance
    say : callable
        Takes a line for the run's log.
    """

    catalog: Catalog
    entry: Entry
    specs: tuple[DeliverSpec, ...]
    instance: dg.DagsterInstance
    say: Callable[[str], object]

    def order(self, header: ReportHeader, data_version: str | None) -> MailOrder | None:
        """What is asked of the process that makes the report; None if nobody gets this one."""
        outcome, project = header.outcome, self.catalog.project
        key = outcome.partition
        if not self._is_newest(key):
            return None
        partition = partition_key_of(self.entry.spec, key) if key is not None else None
        page = Report(report_folder(project.reports, header)).html
        link = report_address(self.catalog, page)
        id_ = report_id(outcome.run_id, outcome.notebook, key)
        asked = any("changed" in (spec.when or "") for spec in self.specs)
        return MailOrder(
            project=project.root.name,
            conditions=tuple(spec.when for spec in self.specs),
            attach=any(link is None if s.attach is None else s.attach for s in self.specs),
            target=str(mail_path(project, id_)),
            link=link,
            timezone=header.timezone,
            store=project.store,
            notebook=outcome.notebook,
            partition=partition.dimensions if partition is not None else None,
            changed=self._changed(outcome, data_version) if asked else None,
        )

    def leave(self, outcome: Outcome, order: MailOrder, report: Report) -> None:
        """Leave the report for whoever delivers, and say who gets it."""
        mailed = report.mail
        if mailed is None:
            return
        to: list[str] = []
        unknown: dict[str, str] = {}
        for spec, held in zip(self.specs, mailed.held, strict=True):
            if held is True:
                to += (name for name in spec.to if name not in to)
                continue
            who = ", ".join(spec.to)
            why = f"'{spec.when}' does not hold" if held is False else held
            self.say(f"The report is not delivered to {who}: {why}.")
            if held is not False:
                unknown |= dict.fromkeys(spec.to, f"not delivered: {held}")
        if not to and not unknown:
            return
        project, text = self.catalog.project, mailed.text
        if mailed.error:
            logger.warning("%s: the mail could not be made: %s", outcome.notebook, mailed.error)
        if not mailed.title:
            text = f"{outcome.label} ran. Its report: {order.link or report.html}"
        leave_report(
            project,
            ReadyReport(
                report_id(outcome.run_id, outcome.notebook, outcome.partition),
                mailed.title or outcome.label,
                text,
                order.target if mailed.title else "",
                tuple(to),
                time.time(),
                unknown,
            ),
        )
        started = start_courier(project)
        if to:
            how = "a process of its own" if started else "the watch"
            self.say(f"The report is delivered to {', '.join(to)} by {how}.")

    def _is_newest(self, key: str | None) -> bool:
        """Whether a partition is the newest of its time; of no time, each is."""
        spec = self.entry.spec
        timed = next((n for n, one in dimension_specs(spec).items() if one.is_time), None)
        if key is None or timed is None:
            return True
        definition: Any = build_partitions(spec, cache=self.catalog.project.state / "cache")
        if isinstance(definition, dg.MultiPartitionsDefinition):
            definition = definition.get_partitions_def_for_dimension(timed)
        return partition_key_of(spec, key).dimensions[timed] == definition.get_last_partition_key()

    def _changed(self, outcome: Outcome, data_version: str | None) -> bool | None:
        """Whether the outputs differ from those of the success before; None without outputs."""
        if data_version is None:
            return None
        wanted = dg.AssetRecordsFilter(
            self.catalog.names.key(self.entry.name),
            asset_partitions=[outcome.partition] if outcome.partition is not None else None,
        )
        for record in self.instance.fetch_materializations(wanted, limit=5).records:
            made = record.asset_materialization
            if made is not None and record.run_id != outcome.run_id:
                return (made.tags or {}).get(DATA_VERSION_TAG) != data_version
        return True


def delivering_of(
    catalog: Catalog, entry: Entry, context: dg.AssetExecutionContext
) -> Delivering | None:
    """The deliveries of a step's reports; None if nobody gets them."""
    tags = context.run.tags
    schedule = catalog.manifest.schedules.get(tags.get(SCHEDULE_TAG, ""))
    said = (entry.spec.deliver, schedule.deliver if schedule is not None else None)
    by_hand = _BACKFILL_TAG in tags or not any(tag in tags for tag in _STARTED_BY)
    specs = tuple(spec for spec in said if spec and spec.to and (spec.runs == "all" or not by_hand))
    if not specs:
        return None
    return Delivering(catalog, entry, specs, context.instance, context.log.info)
