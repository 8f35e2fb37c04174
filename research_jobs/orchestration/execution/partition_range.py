"""A step over many partitions of a notebook: a few runs at a time, each logged as it finishes.

Whatever ends the step later, what is published stays published and recorded. A partition that
fails does not stop the others; in the end the step fails and names it, and only it is missing.
What is kept in memory does not grow with the number of partitions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import dagster as dg

from research_jobs.errors import ParameterError, PartitionError, ResearchJobsError
from research_jobs.orchestration.compat.assets import (
    provenance_tags,
    quiet_output,
)
from research_jobs.orchestration.execution.attempts import step_cancel_token
from research_jobs.orchestration.execution.io_manager import PublishedPartitions
from research_jobs.orchestration.execution.work import (
    Ended,
    Work,
    fail_at_once,
    headline,
    materialization,
    observation,
    publish,
    refusal,
    set_aside,
)
from research_jobs.orchestration.model.checks import CheckTally
from research_jobs.orchestration.model.metadata import fit, record_of
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.outcome import Failure, Outcome, State
from research_jobs.process import usable_cores
from research_jobs.supervisor.run import CancelToken

__all__ = ["CONCURRENCY_TAG", "PartitionRange"]

CONCURRENCY_TAG = "research_jobs/concurrency"
"""Tag of a run: how many partitions a step runs at a time."""

SHOWN = 20
REMEMBERED_STEPS = 256

# Partitions that were skipped, by run and notebook: what reads them in the same run skips too.
_skipped: OrderedDict[tuple[str, str], set[str]] = OrderedDict()


@dataclass(frozen=True)
class _Done:
    """One partition, done with."""

    ended: Ended
    previous: Mapping[str, int] = field(default_factory=dict[str, int])
    aside: Mapping[str, Any] = field(default_factory=dict[str, Any])


class _Slot:
    """A thread's right to run a notebook's process.

    It is taken before the next partition is chosen, so that partitions begin in order, and given
    back when the process has ended: what follows keeps no other from running.
    """

    def __init__(self, slots: threading.Semaphore) -> None:
        self._slots = slots
        self._held = False

    def take(self) -> None:
        """Wait for a right, unless it is held already."""
        if not self._held:
            self._slots.acquire()
            self._held = True

    def give(self) -> None:
        """Give it back, if it is held."""
        if self._held:
            self._held = False
            self._slots.release()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *error: object) -> None:
        self.give()


class PartitionRange:
    """The runs of one step over many partitions.

    Parameters
    ----------
    context : AssetExecutionContext
    work : Work
    keys : sequence of str
        In the order in which they are begun.
    """

    def __init__(self, context: dg.AssetExecutionContext, work: Work, keys: Sequence[str]) -> None:
        self._context = context
        self._work = work
        self._count = len(keys)
        self._left = deque(keys)
        self._done: SimpleQueue[_Done | BaseException | None] = SimpleQueue()
        self._stop = CancelToken()
        self._upstream_skipped = _skipped_upstream(work)
        width = self._width()
        self._slots = threading.Semaphore(width)
        # While one thread publishes and writes its report, another runs the next partition. One
        # that reads the partition before must wait until that is published.
        self._threads = 1 if work.entry.reads_itself else 2 * width

    def run(self, output_name: str) -> Iterator[Any]:
        """Run them all, and yield what Dagster is to know.

        Parameters
        ----------
        output_name : str
            The op output that represents the asset.
        """
        context, asset = self._context, self._context.asset_key
        tags = provenance_tags(context, asset)
        checks = CheckTally(asset, [check.name for check in context.selected_asset_check_keys])
        failed: dict[str, str] = {}
        worst = State.SUCCEEDED
        aside: dict[str, Any] = {}
        skipped: set[str] = set()
        published = 0
        cancel = step_cancel_token(context)
        with cancel.listening(self._stop.cancel):
            for done in self._all():
                outcome = done.ended.outcome
                key = outcome.partition or ""
                checks.add(key, outcome.checks)
                if outcome.state is State.SUCCEEDED:
                    published += 1
                    yield materialization(asset, self._work, done.ended, done.previous, tags)
                    continue
                if outcome.state is State.SKIPPED:
                    skipped.add(key)
                else:
                    failed[key] = headline(outcome)
                    worst = max(worst, outcome.state, key=lambda state: state.order)
                    aside |= done.aside
                yield observation(asset, outcome, done.ended.report)
        if cancel.is_cancelled:
            raise dg.DagsterExecutionInterruptedError
        _remember_skipped(self._work, skipped)
        if failed:
            yield from checks.results(aside)
            raise self._failure(worst, failed, aside)
        if published:
            yield quiet_output(PublishedPartitions(published), output_name)
            yield from checks.results()

    def _all(self) -> Iterator[_Done]:
        """The partitions as they are done with, a few of them running at any time."""
        threads: list[threading.Thread] = []
        try:
            for number in range(min(self._threads, self._count)):
                thread = threading.Thread(target=self._run_some, name=f"partitions-{number}")
                thread.start()  # which the kernel may refuse
                threads.append(thread)
            running = len(threads)
            while running:
                done = self._done.get()
                if done is None:
                    running -= 1
                elif isinstance(done, BaseException):
                    raise done
                else:
                    yield done
        except ResearchJobsError as error:
            fail_at_once(self._work.entry, error, began=True)
        finally:
            self._stop.cancel()
            for thread in threads:
                thread.join()

    def _width(self) -> int:
        """How many run at a time.

        One in a pool, for the step holds one slot of it.
        """
        if self._work.entry.spec.pool is not None:
            return 1
        tag = self._context.run.tags.get(CONCURRENCY_TAG, "")
        if tag.isdigit() and int(tag) > 0:
            return int(tag)
        return self._work.catalog.manifest.defaults.concurrency or usable_cores()

    def _run_some(self) -> None:
        """One thread: partition after partition, until none is left or all is to stop."""
        slot = _Slot(self._slots)
        try:
            while True:
                slot.take()
                key = self._next()
                if key is None:
                    return
                done = self._run_one(key, slot)
                if done is not None:
                    self._done.put(done)
        except BaseException as error:  # noqa: BLE001 - handed to the step's thread
            # Not this partition's fault: the store, the interpreter, ourselves.
            self._stop.cancel()
            self._done.put(error)
        finally:
            slot.give()
            self._done.put(None)

    def _next(self) -> str | None:
        """The partition to begin with now; None when there is none, or all is to stop."""
        if self._stop.is_cancelled:
            return None
        try:
            return self._left.popleft()
        except IndexError:
            return None

    def _run_one(self, key: str, slot: _Slot) -> _Done | None:
        """One partition, tried as often as the manifest says; None when it was cancelled."""
        upstream = next((name for name, keys in self._upstream_skipped if key in keys), None)
        if upstream is not None:
            return self._not_begun(key, State.SKIPPED, f"{upstream} was skipped for it")
        policy = self._context.op_execution_context.op_def.retry_policy
        attempt = 0
        while True:
            done = self._attempt(key, slot)
            if done is None or done.ended.outcome.state.ok or policy is None:
                return done
            attempt += 1
            if attempt > policy.max_retries or not self._wait(policy.calculate_delay(attempt)):
                return done

    def _attempt(self, key: str, slot: _Slot) -> _Done | None:
        try:
            ended = self._work.run(key, self._stop, slot)
        except (ParameterError, PartitionError) as error:
            return self._not_begun(key, State.BLOCKED, error.headline)
        if ended.outcome.state is not State.SUCCEEDED:
            ended = self._work.reported(ended, self._stop)
            return None if ended.outcome.state is State.CANCELLED else _Done(ended)
        if ended.outcome.refused:
            aside = set_aside(ended.staged)
            return _Done(self._work.reported(refusal(ended, aside), self._stop), aside=aside)
        try:
            previous = publish(ended)
        except ResearchJobsError as error:
            self._work.reported(ended.unstored(error.headline), self._stop)
            raise
        return _Done(self._work.reported(ended, self._stop), previous)

    def _not_begun(self, key: str, state: State, reason: str) -> _Done:
        """A partition for which the notebook was not even started."""
        outcome = Outcome(
            state,
            failure=None if state.ok else Failure(reason),
            skip_reason=reason if state.ok else None,
            notebook=self._work.entry.name,
            run_id=self._work.run_id,
            partition=key,
        )
        return _Done(Ended(outcome))

    def _wait(self, seconds: float) -> bool:
        """Wait between two attempts; False when all is to stop."""
        stopped = threading.Event()
        with self._stop.listening(stopped.set):
            return not stopped.wait(seconds)

    def _failure(
        self, worst: State, failed: Mapping[str, str], aside: Mapping[str, Any]
    ) -> dg.Failure:
        keys = sorted(failed)
        named = ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if keys[SHOWN:] else "")
        lines = [f"- {key}: {failed[key]}" for key in keys[:SHOWN]]
        reason = (
            f"{self._work.entry.name}: {len(failed)} of {self._count} partitions failed "
            f"({named}). {keys[0]}: {failed[keys[0]]}"
        )
        outcome = Outcome(worst, failure=Failure(reason), notebook=self._work.entry.name)
        return dg.Failure(
            description=reason,
            metadata=fit(
                {
                    "ending": dg.MetadataValue.text(worst.value),
                    **record_of(outcome),
                    "failed_partitions": dg.MetadataValue.int(len(failed)),
                    "failures": dg.MetadataValue.text("\n".join(lines)),
                    **aside,
                }
            ),
            # Each was tried as often as it may be; the others are done.
            allow_retries=False,
        )


def _remember_skipped(work: Work, keys: set[str]) -> None:
    if keys:
        _skipped[work.run_id, work.entry.name] = keys
        while len(_skipped) > REMEMBERED_STEPS:
            _skipped.popitem(last=False)


def _skipped_upstream(work: Work) -> list[tuple[str, set[str]]]:
    """Notebooks with the same partitions that skipped some of them in this very run."""
    found: list[tuple[str, set[str]]] = []
    for name in work.entry.upstream:
        keys = _skipped.get((work.run_id, name))
        if keys and _definition(work, name) == _definition(work, work.entry.name):
            found.append((name, keys))
    return found


def _definition(work: Work, name: str) -> dg.PartitionsDefinition[Any] | None:
    catalog = work.catalog
    return build_partitions(catalog.entries[name].spec, cache=catalog.project.state / "cache")
