"""The log of how schedules were defined: `.research_jobs/definitions.jsonl`.

A line is added when a schedule's definition has changed: by the process that serves the
definitions, when it loads them, and by whoever sees that somebody switched a schedule in Dagster's
UI. Nothing is ever removed. Several processes may write at once.
"""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.decisions.definitions import Definition, changes, owed_at, read_log, switches
from research_jobs.filesystem import open_private
from research_jobs.manifest import Manifest, Problem, ScheduleSpec
from research_jobs.orchestration.compat.instance import cron_ticks
from research_jobs.orchestration.model.catalog import Catalog
from research_jobs.project import Project

__all__ = [
    "log_file",
    "read_definitions",
    "record_manifest",
    "record_switches",
    "stated_definitions",
    "switch_states",
    "was_owed",
]

logger = logging.getLogger("research_jobs")

# How Dagster says that a switch of its UI was used.
_SWITCHED = {"RUNNING": True, "STOPPED": False}


def log_file(project: Project) -> Path:
    """Where a project's log is."""
    return project.state / "definitions.jsonl"


def read_definitions(project: Project) -> list[Definition]:
    """The log, in order; empty where there is none."""
    try:
        text = log_file(project).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return read_log(text.splitlines())


def was_owed(project: Project, schedule: str, moment: datetime) -> bool | None:
    """Whether a schedule had a tick at a moment, by the log; None if unknown."""
    return owed_at(read_definitions(project), schedule, moment.timestamp(), cron_ticks)


def record_manifest(catalog: Catalog, problems: Iterable[Problem] = ()) -> None:
    """Add what the manifest says of its schedules, where it is new.

    Parameters
    ----------
    catalog : Catalog
    problems : iterable of Problem
        Those of schedules that could not be built.
    """
    manifest = catalog.manifest
    broken = {
        problem.name: problem.error.headline
        for problem in (*manifest.problems, *problems)
        if problem.scope == "schedule" and problem.name is not None
    }
    now = time.time()
    stated = {
        name: one for name, one in stated_definitions(manifest, now).items() if name not in broken
    }
    general = [p.error.headline for p in manifest.problems if p.scope == "manifest"]
    _add(
        catalog.project,
        lambda log: changes(log, now, stated, broken, readable=general[0] if general else None),
    )


def stated_definitions(manifest: Manifest, now: float) -> dict[str, Definition]:
    """The manifest's schedules as definitions from now on."""
    return {name: _definition(name, spec, now) for name, spec in manifest.schedules.items()}


def _definition(name: str, spec: ScheduleSpec, now: float) -> Definition:
    crons = (spec.cron,) if isinstance(spec.cron, str) else tuple(spec.cron)
    return Definition(
        name,
        now,
        crons,
        spec.timezone or "UTC",
        notebooks=tuple(spec.notebooks),
        catch_up=spec.catch_up,
        enabled=spec.enabled,
    )


def record_switches(project: Project, instance: dg.DagsterInstance) -> None:
    """Add that somebody switched schedules on or off in Dagster's UI since the last look."""
    states = switch_states(instance.all_instigator_state())
    _add(project, lambda log: switches(log, time.time(), states))


def switch_states(states: Iterable[Any]) -> dict[str, tuple[bool | None, float | None]]:
    """How each schedule was switched in Dagster's UI, and since when it is on."""
    return {
        state.instigator_name: (
            _SWITCHED.get(state.status.value),
            getattr(state.instigator_data, "start_timestamp", None),
        )
        for state in states
    }


def _add(project: Project, more: Callable[[list[Definition]], list[Definition]]) -> None:
    """Append the lines that `more` finds missing; a log that cannot be written is no obstacle."""
    if not more(read_definitions(project)):
        return
    try:
        project.make_state_folder()
        with open_private(log_file(project), "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text: str = file.read().decode("utf-8", "replace")
            lines = [definition.line for definition in more(read_log(text.splitlines()))]
            if lines:
                # A line that was cut off ends here, and is passed over by readers.
                torn = "\n" if text and not text.endswith("\n") else ""
                file.write((torn + "\n".join(lines) + "\n").encode())
    except OSError as error:
        logger.warning("The log of schedules' definitions cannot be written: %s", error)
