"""The warm interpreter: imports third-party modules once, then forks a guardian for each run.

It never imports a file of the project. When `preload` finds a module unfit, the template ends, and
the supervisor starts another one without it. A module that hangs is noticed by the supervisor.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import linecache
import os
import select
import signal
import socket
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import NoReturn

from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    as_text_mapping,
    receive_descriptors,
    receive_message,
    send_message,
)
from research_jobs.runtime.fresh import remember_matplotlib_settings
from research_jobs.runtime.guardian import Surroundings, run_guardian
from research_jobs.runtime.notebook_process import SPARE_NAME
from research_jobs.runtime.preload import Preload, UnfitError

__all__ = ["run_template"]


def run_template(control: int, parent: int) -> NoReturn:
    """Be the template until the supervisor goes away."""
    status = 1
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        processes.adopt_orphans()
        processes.name_process("rj-template")
        os.chdir("/")
        parent_descriptor = processes.open_process(parent)
        if os.getppid() == parent:
            _Template(socket.socket(fileno=control), parent, parent_descriptor).run()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing is left that could handle it
        with contextlib.suppress(Exception):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class _Template:
    def __init__(self, control: socket.socket, parent: int, parent_descriptor: int | None) -> None:
        self.control = control
        self.parent = parent
        self.parent_descriptor = parent_descriptor
        self.path = tuple(sys.path)
        self.guardians: set[int] = set()
        self.spare: socket.socket | None = None

    def run(self) -> None:
        asked = receive_message(self.control)
        if asked is None:
            return
        gc.disable()
        self._end_with_supervisor(on=True)
        preload = Preload(
            self.control, str(asked["project"]), as_text_mapping(asked.get("unfit", {}))
        )
        try:
            preload.run(list(asked["modules"]))
        except UnfitError:
            return
        self._end_with_supervisor(on=False)
        remember_matplotlib_settings()
        places = preload.places()
        sys.path[:] = self.path
        linecache.clearcache()
        wake = self._signals()
        gc.collect()
        # What is frozen is not written to by a collection, and so stays shared.
        gc.freeze()
        send_message(self.control, "Ready", places=places)
        self._serve(wake)

    def _end_with_supervisor(self, *, on: bool) -> None:
        """Have the kernel end this process when the supervisor goes away, whatever is imported.

        An import that hangs looks at no descriptor. Nothing is sent to us meanwhile, so the only
        thing that can happen on the socket is its end, and SIGIO ends a process by default.
        """
        fcntl.fcntl(self.control, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        flags = flags | os.O_ASYNC if on else flags & ~os.O_ASYNC
        fcntl.fcntl(self.control, fcntl.F_SETFL, flags)

    def _signals(self) -> int:
        reader, writer = os.pipe()
        for descriptor in (reader, writer):
            os.set_blocking(descriptor, False)
        self.wake_descriptors = (reader, writer)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        return reader

    def _serve(self, wake: int) -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self.control, select.POLLIN)
        if self.parent_descriptor is not None:
            poller.register(self.parent_descriptor, select.POLLIN)
        while True:
            # Forking a large process takes milliseconds: have the next one ready before it is
            # asked for, but not before those that are asked for already.
            if self.spare is None and not poller.poll(0):
                self.spare = self._fork()
            ready = {descriptor for descriptor, _events in poller.poll()}
            if self.parent_descriptor in ready:
                return
            if wake in ready:
                self._reap(wake)
            if self.control.fileno() in ready:
                message, descriptors = receive_descriptors(self.control, 3)
                if message is None or message.get("record") != "Run" or len(descriptors) != 3:
                    return
                self._hand_over(descriptors)

    def _hand_over(self, descriptors: Sequence[int]) -> None:
        """Give a run to the guardian that is ready, or to a new one."""
        for _ in range(2):
            spare, self.spare = self.spare or self._fork(), None
            with spare:
                try:
                    send_message(spare, "Run", fds=descriptors)
                    break
                except OSError:
                    continue  # it was killed meanwhile
        for descriptor in descriptors:
            os.close(descriptor)

    def _fork(self) -> socket.socket:
        """A guardian with its notebook's process, waiting for a run on this socket."""
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Python 3.12 warns of any thread; those that are left here are known.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            self.guardians.add(pid)
            theirs.close()
            return ours
        try:
            signal.set_wakeup_fd(-1)
            processes.name_process(SPARE_NAME)
            self.control.close()
            ours.close()
            for descriptor in self.wake_descriptors:
                os.close(descriptor)
            run_guardian(
                Surroundings(
                    descriptors=lambda wake: _wait_for_run(theirs, wake, self.parent_descriptor),
                    parent=self.parent,
                    parent_descriptor=self.parent_descriptor,
                    path=self.path,
                    isolation="fork",
                )
            )
        finally:
            os._exit(1)

    def _reap(self, wake: int) -> None:
        """Collect guardians that have left, and end what one that was killed left behind."""
        with contextlib.suppress(BlockingIOError):
            while os.read(wake, 4096):
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.guardians:
                self.guardians.discard(pid)
                if status != 0:
                    self._end_orphans()

    def _end_orphans(self) -> None:
        for child in processes.children_of(os.getpid()) or []:
            if child not in self.guardians:
                processes.signal_all([child, *processes.descendants(child)], signal.SIGKILL)


def _wait_for_run(
    waiting: socket.socket, wake: int, parent_descriptor: int | None
) -> tuple[int, int, int] | None:
    """The descriptors of a run, or None when template, supervisor or child have gone."""
    poller = select.poll()
    poller.register(waiting, select.POLLIN)
    poller.register(wake, select.POLLIN)
    if parent_descriptor is not None:
        poller.register(parent_descriptor, select.POLLIN)
    ready = {descriptor for descriptor, _events in poller.poll()}
    if wake in ready or parent_descriptor in ready:
        return None
    with waiting:
        message, descriptors = receive_descriptors(waiting, 3)
    if message is None or len(descriptors) != 3:
        return None
    control, stdout, stderr = descriptors
    return control, stdout, stderr
