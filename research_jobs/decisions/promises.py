"""What ticks have requested a moment ago, and what is perhaps no run yet.

Dagster evaluates ticks of several schedules at once and creates the runs of each when its
evaluation has ended. Until then, the history does not show that a partition is about to be made,
and another schedule with the same notebook would request it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from research_jobs.decisions.catch_up import Request

__all__ = ["Promises"]

# Long enough for a daemon to create all runs of a tick. If it ends before that, the partition
# waits so long, or for the tick that is evaluated again.
LASTS_S = 300.0


class Promises:
    """The partitions that schedules have just requested."""

    def __init__(self) -> None:
        self._promised: dict[tuple[str, str], tuple[str, float]] = {}

    def of_others(
        self, schedule: str, notebook: str, keys: Sequence[str], now: float
    ) -> frozenset[str]:
        """Those of a notebook's partitions that other schedules have requested.

        Parameters
        ----------
        schedule : str
            The one that asks: what it requested itself is a run by now, or has to be requested
            again.
        notebook : str
        keys : sequence of str
        now : float
            Unix time, seconds.
        """
        if not self._promised:
            return frozenset()
        found: list[str] = []
        for key in keys:
            by, at = self._promised.get((notebook, key), (schedule, 0.0))
            if by != schedule and abs(now - at) < LASTS_S:
                found.append(key)
        return frozenset(found)

    def note(self, schedule: str, requests: Iterable[Request], now: float) -> None:
        """A schedule's tick has requested something."""
        self._promised = {
            key: one for key, one in self._promised.items() if abs(now - one[1]) < LASTS_S
        }
        for request in requests:
            if request.partition is not None:
                for notebook in request.notebooks:
                    self._promised[notebook, request.partition] = schedule, now
