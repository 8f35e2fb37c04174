"""What the daemon has done lately: its heartbeats, the last tick of each schedule and sensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["LastTick", "heartbeats", "last_ticks"]

# Threads of the daemon without which schedules do not run.
NEEDED = ("SCHEDULER", "QUEUED_RUN_COORDINATOR", "MONITORING")


@dataclass(frozen=True)
class LastTick:
    """The last tick of a schedule or sensor.

    Parameters
    ----------
    name : str
    at : float
        When it was due, Unix time in seconds.
    error : object or None
        Why it failed, as Dagster stores an exception.
    """

    name: str
    at: float
    error: Any = None


def heartbeats(instance: dg.DagsterInstance) -> dict[str, float]:
    """When each needed thread of the daemon was last heard of, Unix time in seconds.

    Empty where no daemon has run yet, and where this version of Dagster does not say.
    """
    try:
        beats = instance.get_daemon_heartbeats()
        return {name: beats[name].timestamp for name in NEEDED if name in beats}
    except AttributeError as error:
        lacking(error, "a daemon that hangs is noticed by its ticks only")
        return {}


def last_ticks(instance: dg.DagsterInstance) -> dict[str, LastTick]:
    """The last tick of each schedule and sensor that ever had one, by name."""
    states = instance.all_instigator_state()
    try:
        ids = {state.selector_id: state.instigator_name for state in states}
        found = instance.get_batch_ticks(list(ids), limit=1) if ids else {}
        return {
            ids[number]: LastTick(ids[number], tick.timestamp, tick.error)
            for number, ticks in found.items()
            for tick in ticks
        }
    except (AttributeError, NotImplementedError) as error:
        lacking(error, "a schedule without ticks is not noticed")
        return {}
