"""What instance, run launcher and clocks need of Dagster and Dagster does not promise."""

from __future__ import annotations

import heapq
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.orchestration.compat.fallback import lacking

__all__ = [
    "STATE_CLASSES",
    "capture_interrupts",
    "cron_ticks",
    "instance_settings",
    "open_instance",
    "schedule_id",
    "serves_definitions",
    "share_instance",
    "worker_health",
]

# As a dagster.yaml names them.
STATE_CLASSES = {
    "compute_logs": {
        "module": "dagster._core.storage.local_compute_log_manager",
        "class": "LocalComputeLogManager",
    },
    "local_artifact_storage": {
        "module": "dagster._core.storage.root",
        "class": "LocalArtifactStorage",
    },
}


def open_instance(
    folder: Path, *, config_dir: Path | None = None, config: Mapping[str, Any] | None = None
) -> dg.DagsterInstance:
    """Open the instance whose state is in a folder.

    Parameters
    ----------
    folder : Path
    config_dir : Path, optional
        The folder of its dagster.yaml; by default `folder`.
    config : mapping, optional
        What a dagster.yaml would say, for an instance that has none.
    """
    try:
        reference = _reference(folder, config_dir, config)
    except ImportError as error:
        lacking(error, "an instance without a dagster.yaml is given one")
        if config is not None:
            import yaml

            (folder / "dagster.yaml").write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
        return dg.DagsterInstance.from_config(str(config_dir or folder))
    return dg.DagsterInstance.from_ref(reference)


def instance_settings(
    folder: Path, *, config_dir: Path | None = None, config: Mapping[str, Any] | None = None
) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The class and the settings of each part of an instance, which is not opened.

    Parameters
    ----------
    folder, config_dir, config
        As of `open_instance`.

    Returns
    -------
    dict
        Of ``runs``, ``events``, ``schedules`` and ``logs``; without those that Dagster does not
        say.
    """
    import yaml

    parts = {
        "runs": "run_storage_data",
        "events": "event_storage_data",
        "schedules": "schedule_storage_data",
        "logs": "compute_logs_data",
    }
    try:
        reference = _reference(folder, config_dir, config)
        said = {name: getattr(reference, attribute) for name, attribute in parts.items()}
        return {
            name: (one.class_name, yaml.safe_load(one.config_yaml) or {})
            for name, one in said.items()
            if one is not None
        }
    except (ImportError, AttributeError) as error:
        lacking(error, "the history cannot be backed up")
        return {}


def _reference(folder: Path, config_dir: Path | None, config: Mapping[str, Any] | None) -> Any:
    from dagster._core.instance.ref import InstanceRef

    if config is not None:
        return InstanceRef.from_dir(
            str(folder), config_filename="none.yaml", overrides=dict(config)
        )
    return InstanceRef.from_dir(str(folder), config_dir=str(config_dir) if config_dir else None)


def worker_health(*, alive: bool, message: str | None = None) -> Any:
    """What run monitoring learns about the process that works on a run."""
    try:
        from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
    except ImportError as error:
        lacking(error, "run monitoring does not notice a killed worker")
        return None
    return CheckRunHealthResult(WorkerStatus.RUNNING if alive else WorkerStatus.NOT_FOUND, message)


def capture_interrupts() -> AbstractContextManager[None]:
    """A context in which Ctrl-C waits until Dagster asks for it."""
    try:
        from dagster._utils.interrupts import capture_interrupts as capture
    except ImportError as error:
        lacking(error, "Ctrl-C ends a run at once, not in order")
        return nullcontext()
    return capture()


def cron_ticks(crons: Sequence[str], timezone: str, after: float) -> Iterator[datetime]:
    """The ticks of cron expressions, as Dagster's scheduler keeps them, in order.

    Parameters
    ----------
    crons : sequence of str
    timezone : str
    after : float
        Unix time. The first tick is the next one at or after it.
    """
    try:
        from dagster._utils.schedules import schedule_execution_time_iterator
    except ImportError as error:
        lacking(error, "the next ticks of schedules are found more slowly")
        yield from heapq.merge(*(_window_starts(cron, timezone, after) for cron in crons))
        return
    yield from schedule_execution_time_iterator(after, list(crons), timezone)


def _window_starts(cron: str, timezone: str, after: float) -> Iterator[datetime]:
    """The ticks of one cron expression as the starts of Dagster's time windows."""
    start = datetime.fromtimestamp(after, UTC)
    for_ever = start + timedelta(days=365 * 40)
    while True:
        windows = dg.TimeWindowPartitionsDefinition(
            start=start, cron_schedule=cron, timezone=timezone, fmt="%Y-%m-%dT%H:%M:%S%z"
        )
        with dg.partition_loading_context(effective_dt=for_ever):
            window = windows.get_first_partition_window()
        if window is None:
            return
        yield window.start
        start = window.end


def serves_definitions() -> bool:
    """Whether this process serves definitions to Dagster's daemon: ``dagster api grpc``."""
    return sys.argv[1:3] == ["api", "grpc"]


def schedule_id(location: str, repository: str, schedule: str) -> str | None:
    """The id by which ticks of a schedule are found that the location no longer has."""
    try:
        from dagster._core.definitions.selector import InstigatorSelector

        return InstigatorSelector(
            location_name=location, repository_name=repository, name=schedule
        ).get_id()
    except (ImportError, AttributeError) as error:
        lacking(error, "ticks of removed schedules are not found")
        return None


_shared: list[tuple[Any, dg.DagsterInstance]] = []
_sharing = threading.Lock()


def share_instance(context: dg.ScheduleEvaluationContext) -> None:
    """Have a tick use the instance of the ticks before it, where each tick would open its own.

    For the code server, which to open one costs more than all else that it does for a tick.

    Parameters
    ----------
    context : dagster.ScheduleEvaluationContext
    """
    private: Any = context
    if getattr(private, "_instance", private) is not None:
        return  # it is given one, or lacks what is needed here
    reference = context.instance_ref
    if reference is None:
        return
    with _sharing:
        found = next((instance for known, instance in _shared if known == reference), None)
        if found is None:
            found = dg.DagsterInstance.from_ref(reference)
            _shared[:] = [*_shared[-1:], (reference, found)]
    private._instance = found  # noqa: SLF001 - a property of the context opens it otherwise
