"""A failed notebook's process that stays when its run is over, from its guardian's side.

The guardian sends the result, lets go of everything that belongs to the run (its supervisor, its
logs), and watches on: time and memory end the process, and so do SIGTERM and the death of the
process that owns it. Nothing is left then.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.outcome import Outcome
from research_jobs.protocol import Keep, encode
from research_jobs.runtime import processes
from research_jobs.runtime.ending import mask_result
from research_jobs.runtime.fresh import close_others
from research_jobs.runtime.memory import MemoryWatch

if TYPE_CHECKING:
    from research_jobs.runtime.guarded_run import GuardedRun
    from research_jobs.runtime.pump import Pump

__all__ = ["DESCRIPTION", "stay", "tell_kept"]

DESCRIPTION = "kept.json"

# How long the logs may take to be complete, and the time between two looks at an owner where the
# kernel does not tell of its end: seconds.
_LAST_STEPS = 5.0
_POLL = 0.5
# poll() takes milliseconds as a C int.
_LONGEST_POLL = 3600.0


def tell_kept(run: GuardedRun, pumps: Sequence[Pump], logs: Sequence[int]) -> None:
    """Send the result of a run whose process stays; if it cannot stay, it ends.

    Parameters
    ----------
    run : GuardedRun
    pumps : sequence of Pump
        Those that write the run's logs.
    logs : sequence of int
        The logs' descriptors: they lead nowhere from here on.
    """
    keep = run.request.keep
    assert keep is not None
    for pump in pumps:
        pump.cut(_LAST_STEPS)
    # Before anybody hears of the result: whoever reads a log to its end does not wait for us.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2, *logs):
        os.dup2(null, descriptor)
    os.close(null)
    if run.watch.due is not None:
        run.watch.sample(processes.descendants(os.getpid()))
    result = run.result([])
    try:
        _describe(run, keep, mask_result(result, run.masker))
        span = timedelta(seconds=round(keep.seconds))
        note = f"its process is kept for {span}: research-jobs debug {run.request.notebook}"
    except OSError as error:
        run.kept = False
        note = f"its process is not kept: {error}"
    result = replace(result, notes=(*result.notes, note))
    with contextlib.suppress(OSError):
        run.control.sendall(encode(mask_result(result, run.masker)))


def _describe(run: GuardedRun, keep: Keep, result: Outcome) -> None:
    """Say in its folder what is kept, without secrets."""
    request, failure = run.request, result.failure
    remaining = run.masker.value((run.offered or {}).get("remaining", []))
    said = {
        "notebook": request.notebook,
        "partition": request.partition.key if request.partition is not None else None,
        "run_id": request.run_id,
        "guardian": os.getpid(),
        "began": processes.start_of(os.getpid()),
        "pid": run.child,
        "until": time.time() + keep.seconds,
        "state": result.state.value,
        "headline": failure.headline if failure is not None else "",
        "traceback": failure.traceback if failure is not None else "",
        "cell": failure.cell_source if failure is not None else None,
        "remaining": remaining,
    }
    path = Path(keep.folder, DESCRIPTION)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(said), encoding="utf-8")
    part.replace(path)


def stay(run: GuardedRun, wake: int) -> None:
    """Watch a kept process to its end; nothing of it is left when this returns.

    Parameters
    ----------
    run : GuardedRun
        Its result is sent.
    wake : int
        Readable when a child has ended.
    """
    keep = run.request.keep
    assert keep is not None
    end = time.monotonic() + keep.seconds
    try:
        _let_go(run, wake)
        owner = processes.open_process(keep.owner) if keep.owner is not None else None
        poller = select.poll()
        for descriptor in (wake, owner):
            if descriptor is not None:
                poller.register(descriptor, select.POLLIN)
        while run.status is None and not run.terminated and time.monotonic() < end:
            if keep.owner is not None and not processes.alive(keep.owner):
                break
            if _is_over(run.watch):
                break
            due = min(end, run.watch.due or end, time.monotonic() + _LONGEST_POLL)
            if keep.owner is not None and owner is None:
                due = min(due, time.monotonic() + _POLL)
            if wake in [
                each for each, _ in poller.poll(max(0.0, due - time.monotonic()) * 1000 + 1)
            ]:
                run.reap(wake)
    finally:
        run.clear_tree(wake)
        run.watch.close()
        shutil.rmtree(keep.folder, ignore_errors=True)


def _is_over(watch: MemoryWatch) -> bool:
    """Whether the memory is over its limit, if it is time to look."""
    if watch.due is None or time.monotonic() < watch.due:
        return False
    return watch.sample(processes.descendants(os.getpid()))


def _let_go(run: GuardedRun, wake: int) -> None:
    """Close everything but what a kept process needs."""
    writer = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    kept = [wake, writer, run.process.refusals, run.process.faults]
    kept += [run.process.channel.fileno(), *(pump.source for pump in run.pumps)]
    close_others(kept)
