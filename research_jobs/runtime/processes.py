"""Process trees on Linux: descendants, memory use, and how to end them.

On other systems, functions that need ``/proc`` or ``prctl`` do nothing and return a value that says
so.
Standard library only, Python 3.10 and later.
"""

# ruff: noqa: PTH110, PTH123, PTH208, PERF203 - /proc is read several times a second, and any of its files may vanish

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import subprocess

__all__ = [
    "LINUX",
    "TreeMemory",
    "adopt_orphans",
    "alive",
    "children_of",
    "command_of",
    "current_umask",
    "descendants",
    "die_with_parent",
    "empty",
    "groups_of",
    "name_process",
    "oom_kills",
    "open_descriptors",
    "open_process",
    "prefer_for_oom",
    "resident_memory",
    "session_members",
    "shared_memory",
    "signal_all",
    "signal_group",
    "start_of",
    "thread_names",
    "tree_memory",
    "wait_or_kill",
    "wake_for_signals",
]

LINUX = sys.platform == "linux"

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


# Created once: each CDLL creates its own classes.
_libc = ctypes.CDLL(None) if LINUX else None


def _prctl(option: int, argument: Any) -> bool:
    return _libc is not None and _libc.prctl(option, argument, 0, 0, 0) == 0


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose parent dies, daemons included."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that forked it ends.

    Use it only if that thread is the main thread of a single-threaded or long-lived process:
    the kernel watches the thread, not the process.

    Parameters
    ----------
    parent : int
        The expected parent's pid; if that process is already gone, this one ends at once.
    """
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL)) and os.getppid() != parent:
        os._exit(1)


def name_process(name: str, command: str | None = None) -> None:
    """Set what ``ps`` and ``top`` show of this process.

    Parameters
    ----------
    name : str
        The short name, of which the kernel keeps 15 bytes.
    command : str, optional
        Replaces the command line, as far as there is room.
    """
    if not _prctl(_PR_SET_NAME, ctypes.c_char_p(name.encode()[:15])) or command is None:
        return
    with contextlib.suppress(OSError, ValueError):
        # The kernel reads the command line from the arguments in our own memory.
        start, end = map(int, _stat_fields(os.getpid())[45:47])
        room = end - start - 1
        if room > 0:
            ctypes.memmove(start, command.encode()[:room].ljust(room + 1, b"\0"), room + 1)


def open_process(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, or None if there is none."""
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        return int(opener(pid))
    except OSError:
        return None


def prefer_for_oom() -> None:
    """Make the kernel kill this process before its supervisor when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("500")


def oom_kills() -> int | None:
    """How many processes the kernel's out-of-memory killer has killed since boot."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def alive(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not (LINUX and is_zombie(pid))


def descendants(root: int) -> list[int]:
    """Every living descendant of a process, parents before their children.

    It is a snapshot that can miss a process that forks meanwhile. To catch all, repeat it until
    nothing is left.
    """
    if not LINUX:
        return []
    pids: list[int] = []
    queue = [root]
    seen = {root}
    while queue:
        pid = queue.pop()
        direct = children_of(pid)
        if direct is None:
            return _descendants_by_scan(root)
        for child in direct:
            if child not in seen:
                seen.add(child)
                pids.append(child)
                queue.append(child)
    return pids


def children_of(pid: int) -> list[int] | None:
    """Direct children, or None if the kernel does not list them."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    children: list[int] = []
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children += map(int, file.read().split())
        except FileNotFoundError:
            if os.path.exists(f"/proc/{pid}/task/{thread}/stat"):
                return None
        except OSError:
            continue
    return children


def _descendants_by_scan(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            parent = _stat_fields(int(name))
            if parent:
                parents.setdefault(int(parent[1]), []).append(int(name))
    pids: list[int] = []
    queue = [root]
    while queue:
        for child in parents.get(queue.pop(), ()):
            pids.append(child)
            queue.append(child)
    return pids


def _stat_fields(pid: int) -> list[bytes]:
    """State, parent, group, session... of ``/proc/<pid>/stat``; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command in parentheses may contain anything, parentheses and spaces included.
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def is_zombie(pid: int) -> bool:
    """Whether the process is a zombie."""
    fields = _stat_fields(pid)
    return not fields or fields[0] in (b"Z", b"X")


def start_of(pid: int) -> str | None:
    """What tells a process from a later one of that pid; None when it is gone.

    Not a time of day: a clock that is set would make every process look like another one.
    """
    if not LINUX:
        return _time_of_start(pid)
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read(8)
    except OSError:
        return None
    fields = _stat_fields(pid)
    return None if not fields or fields[0] in (b"Z", b"X") else f"{boot}-{int(fields[19])}"


def _time_of_start(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return None if ended else f"{process.create_time():.0f}"
    except psutil.Error:
        return None


def wake_for_signals() -> tuple[int, int]:
    """A pipe (reader, writer) that is readable when a child has ended or a signal has come."""
    reader, writer = os.pipe()
    for descriptor in (reader, writer):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader, writer


def empty(descriptor: int) -> None:
    """Empty a pipe that does not block."""
    with contextlib.suppress(BlockingIOError):
        while os.read(descriptor, 4096):
            pass


def open_descriptors() -> set[int]:
    """The descriptors that this process has open (Linux)."""
    found: set[int] = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(name))  # the listing's own is closed by now
            found.add(int(name))
    return found


def session_members(session: int) -> list[int]:
    """The living processes of a session."""
    if not LINUX:
        return []
    return [
        int(name)
        for name in os.listdir("/proc")
        if name.isdigit()
        and len(fields := _stat_fields(int(name))) > 3
        and int(fields[3]) == session
        and fields[0] not in (b"Z", b"X")
    ]


def groups_of(pids: Iterable[int]) -> set[int]:
    """The process groups of the processes."""
    groups: set[int] = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            groups.add(os.getpgid(pid))
    return groups


def command_of(pid: int) -> str:
    """A recognizable name of what a process runs: ``sleep 600``."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            text = file.read(400).replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""
    return text if len(text) <= 80 else text[:77] + "..."


def thread_names() -> list[str]:
    """The kernel's names of this process's threads, the main thread left out."""
    names: list[str] = []
    if not LINUX:
        return names
    for thread in os.listdir("/proc/self/task"):
        if int(thread) == os.getpid():
            continue
        # The kernel cuts a name after 15 bytes, also within a character.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/comm", "rb") as file:
            names.append(file.read().decode("utf-8", "replace").strip())
    return names


def current_umask() -> int:
    """The umask, without setting it: other threads may be creating files."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def wait_or_kill(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Reap a child; one that takes longer than so many seconds to end is killed."""
    from subprocess import TimeoutExpired  # the notebook's process does not need it

    try:
        process.wait(seconds)
    except TimeoutExpired:
        process.kill()
        process.wait()


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, if it still exists."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


@dataclass(frozen=True)
class TreeMemory:
    """The memory of a process tree.

    Parameters
    ----------
    resident : int
        Sum of resident sizes, bytes; shared pages count in each process.
    held : int
        The part that the kernel cannot reclaim: anonymous, shared and swapped-out memory.
    """

    resident: int
    held: int


def tree_memory(pids: Sequence[int]) -> TreeMemory:
    """The memory of the processes, cheaply: shared pages are counted more than once."""
    resident = held = 0
    for pid in pids:
        one = resident_memory(pid)
        resident += one.resident
        held += one.held
    return TreeMemory(resident, held)


def resident_memory(pid: int) -> TreeMemory:
    """The memory of one process; zero when it is gone."""
    wanted = {b"VmRSS": 0, b"RssAnon": 0, b"RssShmem": 0, b"VmSwap": 0}
    _read_kilobytes(f"/proc/{pid}/status", wanted)
    return TreeMemory(
        wanted[b"VmRSS"], wanted[b"RssAnon"] + wanted[b"RssShmem"] + wanted[b"VmSwap"]
    )


def shared_memory(pids: Iterable[int]) -> int:
    """The memory of all processes together, with each shared page counted once.

    More expensive than `tree_memory`: the kernel walks every page table.

    Returns
    -------
    int
        Bytes.
    """
    total = 0
    for pid in pids:
        wanted = {b"Pss_Anon": 0, b"Pss_Shmem": 0, b"SwapPss": 0}
        if _read_kilobytes(f"/proc/{pid}/smaps_rollup", wanted):
            total += sum(wanted.values())
        else:
            total += resident_memory(pid).held
    return total


def _read_kilobytes(path: str, wanted: dict[bytes, int]) -> bool:
    """Fill in the fields ``Name:  123 kB`` of a file below /proc, as bytes."""
    complete = False
    try:
        with open(path, "rb") as file:
            for line in file:
                name, _, rest = line.partition(b":")
                if name in wanted:
                    wanted[name] = int(rest.split()[0]) * 1024
                    complete = True
    except (OSError, ValueError, IndexError):
        pass
    return complete
