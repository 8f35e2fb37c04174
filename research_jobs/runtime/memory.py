"""A limit on the memory of a whole process tree.

With a delegated cgroup of version 2 the kernel enforces the limit. Without one the tree is polled
a few times a second, which notices a fast climb a little late.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from research_jobs.runtime.processes import LINUX, shared_memory, tree_memory

__all__ = ["CGROUP_VARIABLE", "MemoryWatch", "delegated_cgroup", "enter_group"]

CGROUP_VARIABLE = "RESEARCH_JOBS_CGROUP"

# Seconds between two polls: near the limit, with a limit, and only to report the peak.
_CLOSE = 0.05
_WATCH = 0.15
_GLANCE = 1.0
# The part of the limit that counts as near, and the part of the time that polling may take.
_NEAR = 0.5
_SHARE = 0.1


def delegated_cgroup(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> Path | None:
    """The folder below which we may create cgroups with a memory limit, if any.

    Either ``RESEARCH_JOBS_CGROUP`` names it, or our own cgroup is a leaf of a delegated subtree
    (systemd's ``Delegate=memory`` with ``DelegateSubgroup=``): then it is our cgroup's parent.
    A cgroup that contains processes cannot delegate memory limits, so it is never our own.
    """
    named = os.environ.get(CGROUP_VARIABLE)
    if named:
        candidate = Path(named)
    else:
        try:
            lines = own.read_text().splitlines()
        except OSError:
            return None
        paths = [line[3:] for line in lines if line.startswith("0::")]
        if not paths:
            return None
        candidate = (root / paths[0].lstrip("/")).parent
        if not _is_delegated(candidate):
            return None
    return candidate if _hands_memory_on(candidate) else None


def _is_delegated(folder: Path) -> bool:
    """Whether systemd delegates it: root or a user's manager can write without permission to."""
    try:
        return os.getxattr(folder, "user.delegate") == b"1"
    except (OSError, AttributeError):
        return False


def _hands_memory_on(folder: Path) -> bool:
    control = folder / "cgroup.subtree_control"
    try:
        if "memory" not in control.read_text().split():
            control.write_text("+memory")
        return os.access(folder / "cgroup.procs", os.W_OK) and os.access(folder, os.W_OK)
    except OSError:
        return False


class MemoryWatch:
    """Limits the memory of one run, with the kernel's help or by polling.

    Parameters
    ----------
    limit : int or None
        Bytes; None only reports.
    name : str
        Part of the cgroup's name.
    """

    def __init__(self, limit: int | None, name: str) -> None:
        self._limit = limit
        self._group = _make_group(limit, name) if limit is not None and LINUX else None
        #: why the kernel does not enforce the limit although it was configured to
        self.note: str | None = None
        if limit is not None and LINUX and self._group is None and CGROUP_VARIABLE in os.environ:
            named = os.environ[CGROUP_VARIABLE]
            self.note = f"memory was watched: no limit can be set in {CGROUP_VARIABLE}={named}"
        #: largest resident size seen over the tree, bytes
        self.peak = 0
        #: largest size that the kernel could not reclaim, bytes
        self.held_peak = 0
        #: whether the kernel killed a process over the limit; known after `close`
        self.was_killed = False
        self.due: float | None = time.monotonic() + self._pause if LINUX else None

    @property
    def _pause(self) -> float:
        return _WATCH if self._limit is not None and self._group is None else _GLANCE

    @property
    def group(self) -> str | None:
        """The cgroup that the notebook's process must enter (str or None)."""
        return str(self._group) if self._group is not None else None

    def sample(self, pids: Sequence[int]) -> bool:
        """Measure the tree; return whether it is over the limit."""
        begun = time.monotonic()
        seen = tree_memory(pids)
        self.peak = max(self.peak, seen.resident)
        over = False
        if self._group is not None:
            self.held_peak = max(self.held_peak, _number_in(self._group / "memory.current"))
        elif self._limit is not None and seen.held > self._limit:
            # Processes that share pages count them each; ask the kernel for the truth.
            held = shared_memory(pids) if len(pids) > 1 else seen.held
            over = held > self._limit
            self.held_peak = max(self.held_peak, held)
        elif len(pids) <= 1:
            self.held_peak = max(self.held_peak, seen.held)
        cost = time.monotonic() - begun
        near = self._limit is not None and seen.held > _NEAR * self._limit
        pause = _CLOSE if near and self._group is None else self._pause
        self.due = time.monotonic() + max(pause, cost / _SHARE)
        return over

    def kill(self) -> None:
        """Make the kernel kill every process in the cgroup."""
        if self._group is not None:
            with contextlib.suppress(OSError):
                (self._group / "cgroup.kill").write_text("1")

    def close(self) -> None:
        """Read the kernel's counters, and remove the cgroup."""
        if self._group is None:
            return
        with contextlib.suppress(OSError):
            events = (self._group / "memory.events").read_text().splitlines()
            self.was_killed = any(
                line.startswith("oom_kill ") and not line.endswith(" 0") for line in events
            )
        peak = _number_in(self._group / "memory.peak")
        self.peak = max(self.peak, peak)
        self.held_peak = max(self.held_peak, peak)
        with contextlib.suppress(OSError):
            self._group.rmdir()


def enter_group(group: str) -> None:
    """Put this process and its children into a cgroup."""
    (Path(group) / "cgroup.procs").write_text("0")


def _number_in(file: Path) -> int:
    """The counter in a file of a cgroup; 0 if this kernel has no such file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0


def _make_group(limit: int, name: str) -> Path | None:
    base = delegated_cgroup()
    if base is None:
        return None
    safe = "".join(letter if letter.isalnum() else "-" for letter in name)[:48]
    group = base / f"research_jobs-{safe}-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        (group / "memory.max").write_text(str(limit))
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
        with contextlib.suppress(OSError):
            (group / "memory.oom.group").write_text("1")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group
