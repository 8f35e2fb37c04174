"""The template: imports third-party modules once, then forks guardians, which fork runs.

It never imports a file of the project. When `preload` finds a module unfit, the template ends and
the supervisor starts another one without it. The supervisor also notices a module that hangs.

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
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from research_jobs.runtime import processes
from research_jobs.runtime.channel import (
    as_text_mapping,
    receive_descriptors,
    receive_message,
    send_message,
)
from research_jobs.runtime.guarded_run import GivenRun, Surroundings
from research_jobs.runtime.guardian import run_guardian
from research_jobs.runtime.notebook_process import name_spare
from research_jobs.runtime.preload import Preload, UnfitError
from research_jobs.runtime.workers import remember_helpers

__all__ = ["RUN_DESCRIPTORS", "run_template"]

#: with a run: the socket to its supervisor, the two logs, and a descriptor of that process
RUN_DESCRIPTORS = 4


def run_template(control: int, parent: int) -> NoReturn:
    """Run the template until all supervisors have disconnected.

    The process that starts it may fork others, which inherit its connection. A template that they
    share outlives that process, and ends with the last of them.
    """
    status = 1
    try:
        if os.getsid(0) != os.getpid():
            os.setsid()
        processes.adopt_orphans()
        processes.name_process("rj-template", "research_jobs: template")
        os.chdir("/")
        parent_descriptor = processes.open_process(parent)
        if os.getppid() == parent:
            _Template(socket.socket(fileno=control), parent_descriptor).run()
        status = 0
    except BaseException:  # noqa: BLE001 - nothing could handle it any more
        with contextlib.suppress(Exception):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


class _Template:
    def __init__(self, control: socket.socket, parent_descriptor: int | None) -> None:
        self.control = control
        self.parent_descriptor = parent_descriptor
        self.path = tuple(sys.path)
        self.guardians: set[int] = set()
        #: guardians that wait for a run, the longest waiting first, and those that have one
        self.waiting: deque[socket.socket] = deque()
        self.busy: dict[int, socket.socket] = {}

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
            preload.run(list(asked["modules"]), list(asked["path"]))
        except UnfitError:
            return
        self._end_with_supervisor(on=False)
        if asked.get("shared") and self.parent_descriptor is not None:
            os.close(self.parent_descriptor)
            self.parent_descriptor = None
        remember_helpers()
        facts = preload.facts()
        sys.path[:] = self.path
        linecache.clearcache()
        wake = self._signals()
        gc.collect()
        # A collection does not write to frozen objects, so their memory stays shared.
        gc.freeze()
        send_message(self.control, "Ready", **facts)
        self._serve(wake)

    def _end_with_supervisor(self, *, on: bool) -> None:
        """Make the kernel end this process when the supervisor disconnects during imports.

        An import that hangs reads no descriptor. Nothing is sent to us meanwhile, so the only event
        on the socket is its end, and SIGIO ends a process by default.
        """
        fcntl.fcntl(self.control, fcntl.F_SETOWN, os.getpid())
        flags = fcntl.fcntl(self.control, fcntl.F_GETFL)
        flags = flags | os.O_ASYNC if on else flags & ~os.O_ASYNC
        fcntl.fcntl(self.control, fcntl.F_SETFL, flags)

    def _signals(self) -> int:
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self.wake_descriptors = processes.wake_for_signals()
        return self.wake_descriptors[0]

    def _serve(self, wake: int) -> None:
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(self.control, select.POLLIN)
        if self.parent_descriptor is not None:
            poller.register(self.parent_descriptor, select.POLLIN)
        self.poller = poller
        while True:
            # Forking a large process takes milliseconds: prepare the next one in advance, but
            # serve pending requests first.
            if not self.waiting and not poller.poll(0):
                self.waiting.append(self._fork())
            ready = {descriptor for descriptor, _events in poller.poll()}
            if self.parent_descriptor in ready:
                return
            if wake in ready:
                self._reap(wake)
            for descriptor in ready & self.busy.keys():
                self._take_back(descriptor)
            if self.control.fileno() in ready:
                message, descriptors = receive_descriptors(self.control, RUN_DESCRIPTORS)
                if message is None or message.get("record") != "Run" or len(descriptors) < 3:
                    return
                self._hand_over(int(message["supervisor"]), descriptors)

    def _hand_over(self, supervisor: int, descriptors: Sequence[int]) -> None:
        """Pass a run to the guardian that has waited longest, or to a new one."""
        while True:
            chosen = self.waiting.popleft() if self.waiting else self._fork(descriptors)
            try:
                send_message(chosen, "Run", fds=descriptors, supervisor=supervisor)
            except OSError:
                chosen.close()  # it was killed meanwhile
                continue
            self.busy[chosen.fileno()] = chosen
            self.poller.register(chosen, select.POLLIN)
            break
        for descriptor in descriptors:
            os.close(descriptor)

    def _take_back(self, descriptor: int) -> None:
        """A guardian has finished its run: it waits for another one, or has exited."""
        guardian = self.busy.pop(descriptor)
        self.poller.unregister(descriptor)
        try:
            free = receive_message(guardian) is not None
        except OSError:
            free = False
        if free:
            self.waiting.append(guardian)
        else:
            guardian.close()

    def _fork(self, not_its_own: Sequence[int] = ()) -> socket.socket:
        """Fork a guardian with its notebook's process, waiting for a run on this socket."""
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
            name_spare()
            self.control.close()
            # The others' ends too: that theirs has no other end is how they see us end.
            for inherited in (ours, *self.waiting, *self.busy.values()):
                inherited.close()
            for descriptor in (*self.wake_descriptors, *not_its_own):
                os.close(descriptor)
            run_guardian(
                Surroundings(next_run=_Runs(theirs).wait, path=self.path, isolation="fork")
            )
        finally:
            os._exit(1)

    def _reap(self, wake: int) -> None:
        """Reap guardians that have exited, and end what a killed one left behind."""
        processes.empty(wake)
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


class _Runs:
    """A guardian's runs, as the template passes them on.

    Parameters
    ----------
    template : socket
    """

    def __init__(self, template: socket.socket) -> None:
        self.template = template
        self.had_one = False

    def wait(self, wake: int) -> GivenRun | None:
        """The next run, or None when template or child have gone."""
        if self.had_one:
            send_message(self.template, "Free")
        poller = select.poll()
        poller.register(self.template, select.POLLIN)
        poller.register(wake, select.POLLIN)
        if wake in {descriptor for descriptor, _events in poller.poll()}:
            return None
        message, descriptors = receive_descriptors(self.template, RUN_DESCRIPTORS)
        if message is None or len(descriptors) < 3:
            return None
        self.had_one = True
        control, stdout, stderr, *watched = descriptors
        supervisor = int(message["supervisor"])
        return GivenRun(control, stdout, stderr, supervisor, watched[0] if watched else None)
