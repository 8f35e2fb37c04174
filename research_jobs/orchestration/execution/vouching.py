"""A run's process says that it is there, for a daemon that cannot look: on another machine.

Where the process is on the daemon's machine, its tag is enough (`worker_of`), and where a code
server works on the run, that server is asked. Nobody else can vouch for a process elsewhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dagster import DagsterInstance, DagsterRun

from research_jobs.orchestration.model.workers import SEEN_TAG

__all__ = ["SILENCE_S", "Listener", "vouching"]

logger = logging.getLogger("research_jobs")

INTERVAL_S = 60.0
# Longer than a process waits for a database that is away.
SILENCE_S = 600.0


@contextmanager
def vouching(instance: DagsterInstance, run_id: str, every: float = INTERVAL_S) -> Generator[None]:
    """Say on a run, now and then, that the calling process works on it.

    Parameters
    ----------
    instance : DagsterInstance
    run_id : str
    every : float
        Seconds. A run that is shorter says nothing.
    """
    over = threading.Event()
    thread = threading.Thread(
        target=_say, args=(instance, run_id, every, over), name="vouching", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _say(instance: DagsterInstance, run_id: str, every: float, over: threading.Event) -> None:
    while not over.wait(every):
        _say_once(instance, run_id)


def _say_once(instance: DagsterInstance, run_id: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    try:
        instance.add_run_tags(run_id, {SEEN_TAG: now})
    except Exception as error:  # noqa: BLE001 - a database that is away comes back in time, or not
        logger.debug("run %s: cannot say that it goes on: %s", run_id, error)


@dataclass
class Listener:
    """How long runs have said nothing, by the listener's own clock alone.

    Parameters
    ----------
    patience : float
        Seconds.
    """

    patience: float = SILENCE_S
    _heard: dict[str, tuple[str | None, float]] = field(
        default_factory=dict[str, "tuple[str | None, float]"]
    )

    def silent(self, run: DagsterRun) -> bool:
        """Whether a run has said nothing new for longer than the patience.

        Parameters
        ----------
        run : DagsterRun
        """
        now = time.monotonic()
        said = run.tags.get(SEEN_TAG)
        before, since = self._heard.get(run.run_id, (said, now))
        if before != said:
            since = now
        # Runs that have ended are not asked about again.
        limit = now - 2 * self.patience
        self._heard = {one: heard for one, heard in self._heard.items() if heard[1] >= limit}
        self._heard[run.run_id] = (said, since)
        return now - since > self.patience
