"""The watch: looks at everything a few times a minute, restarts what is dead, has somebody told.

It needs neither the code location nor the daemon. A look that hangs, on a database that does not
answer say, is itself something to be told of.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import dagster as dg

from research_jobs.decisions.account import Became
from research_jobs.errors import innermost_line
from research_jobs.filesystem import open_private, write_atomically
from research_jobs.manifest.kinds import Kind
from research_jobs.notify.condition import Condition
from research_jobs.notify.notifier import Notifier
from research_jobs.orchestration.compat.daemon import last_ticks
from research_jobs.orchestration.execution.gallery import exchange_reports
from research_jobs.orchestration.execution.leftovers import remove_run_folders
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.definition_log import record_switches
from research_jobs.orchestration.model.instance import end_dead_runs, open_instance
from research_jobs.orchestration.operations import conditions
from research_jobs.orchestration.operations.account import read_account
from research_jobs.orchestration.operations.health import (
    Finding,
    Nursing,
    probe_daemon,
    probe_services,
)
from research_jobs.orchestration.operations.history import Memory, running_schedules
from research_jobs.orchestration.operations.morning import write_morning_page
from research_jobs.orchestration.operations.overview import local_now, read_overview
from research_jobs.orchestration.operations.rounds import Rounds
from research_jobs.orchestration.operations.served import NotServedError, reload_definitions
from research_jobs.outcome import State
from research_jobs.project import Project
from research_jobs.resident.services import Service, registered
from research_jobs.store.presence import find_absence

__all__ = ["LOOK_S", "Watch"]

# Seconds between two looks.
LOOK_S = 10.0
# A look hangs that has not computed for so many seconds in so many: it waits for an answer. With
# thousands of notebooks on a busy machine one that computes takes longer, but not for ever.
HANGS_S, WORKS_S = 60.0, 1.0
LONGEST_S = 900.0
# What changes without an event, such as a tick that becomes late, is looked for so often: seconds.
WHOLE_S = 60.0
# Reading the whole takes a fifth of a core at most: with thousands of notebooks it is rarer.
PAUSE = 4.0
# A service that fails for so long is told of, seconds: one that is started again takes less.
TOLD_S = 30.0
# The account is of the last day, seconds.
DAY_S = 86_400.0
# A clock that goes so far ahead of, or behind, the time that really passed was set: seconds. It is
# told for an hour.
JUMP_S = 60.0
JUMP_TOLD_S = 3600.0
# Code that is not shown is loaded again so often at most, seconds.
RELOAD_S = 60.0
# How long a service may take to end, seconds.
END_S = 5.0
# Of what a look that fails can say nothing.
_UNSEEN = (Kind.SERVICE, Kind.CODE, Kind.DISK, Kind.STORE, Kind.BACKUP, Kind.CLOCK)
# What is wrong with notebooks is not over while the store is gone: it has what was made.
_UNSTORED = (Kind.FAILED, Kind.REFUSED, Kind.BLOCKED, Kind.LATE, Kind.MISSING)
# The watch's own absence, seconds, from which on it is written down.
ABSENT_S = 3 * LOOK_S


@dataclass(frozen=True)
class Seen:
    """What one look at the history has found.

    Parameters
    ----------
    conditions : tuple of Condition
    unknown : frozenset of str
        Subjects and kinds of which it cannot say whether something is wrong: what runs now, say.
    accounted : bool
        Whether every tick of the last day is accounted for.
    """

    conditions: tuple[Condition, ...] = ()
    unknown: frozenset[str] = frozenset()
    accounted: bool = False


class Watch:
    """Looks at a project again and again.

    Parameters
    ----------
    project : Project
        The process must have entered it (`enter_project`).
    say : callable
        Takes a line about what was done.
    """

    def __init__(self, project: Project, *, say: Callable[[str], None]) -> None:
        self._project = project
        self._say = say
        self._notifier = Notifier(project)
        self._nursing = Nursing()
        self._rounds = Rounds(project)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._pending: tuple[Future[Seen], float] | None = None
        self._heard = self._worked = 0.0
        self._history = _History(project, say)
        self._down: dict[str, float] = {}
        self._reloaded = 0.0
        self._clock = time.time() - time.monotonic()
        self._jump: Condition | None = None

    def run(self, stop: threading.Event, well: Callable[[], None]) -> None:
        """Look until `stop` is set.

        Parameters
        ----------
        stop : Event
        well : callable
            Called after each look.
        """
        self.begin()
        while not stop.is_set():
            began = time.monotonic()
            self.look(time.time())
            well()
            self._rounds.go(time.time())
            stop.wait(max(0.0, LOOK_S - (time.monotonic() - began)))
        self.close()

    def close(self) -> None:
        """Let go of the instance, unless a look at it hangs."""
        self._notifier.close()
        self._rounds.close()
        if self._pending is None:
            self._pool.submit(self._history.close).result()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self, now: float) -> tuple[Condition, ...]:
        """Look once, do what can be done, and have the rest told.

        Parameters
        ----------
        now : float
            Unix time, seconds.
        """
        seen = self._look_at_history(now)
        everything, unknown = seen.conditions, seen.unknown
        try:
            everything = (*self._look_at_the_rest(now), *everything)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would say so
            why = f"it cannot look at everything: {innermost_line(error)}"
            self._say(why)
            everything = (Condition(Kind.SERVICE, "the watch", why, now), *everything)
            unknown = unknown.union(_UNSEEN)
        manifest = self._history.catalog.manifest
        self._notifier.look(everything, now, manifest, unknown=unknown)
        lost = any(one.kind in (Kind.SERVICE, Kind.CODE) for one in everything)
        self._notifier.heartbeat(now, well=seen.accounted and not lost)
        with suppress(OSError):  # the disk is full, and just that is being told
            write_atomically(
                self._project.make_state_folder() / "watch.json",
                json.dumps({"at": now, "conditions": len(everything)}).encode(),
                private=True,
            )
        return everything

    def _look_at_the_rest(self, now: float) -> tuple[Condition, ...]:
        """Look at all but the history, and do what can be done."""
        findings = [*probe_services(self._project), *self._history.findings]
        self._nurse(findings, now)
        return (
            *self._service_conditions(findings, now),
            *conditions.of_disks(self._project, now),
            *conditions.of_store(self._project, now),
            *conditions.of_backup(self._project, self._history.catalog.manifest.backup, now),
            *self._clock_conditions(now),
        )

    # -- services ---------------------------------------------------------------------------

    def _nurse(self, findings: list[Finding], now: float) -> None:
        """End what fails, so that it is started again; load code that is not shown."""
        by_service = {finding.service: finding for finding in reversed(findings)}
        services = registered(self._project)
        up = {name: service.since for name, service in services.items()}
        for name in self._nursing.look(by_service, up, now):
            if (service := services.get(name)) is None:
                continue
            self._say(f"{by_service[name].wrong}; ending it, so that it is started again")
            service.end(END_S)
            self._log(ended=name, why=by_service[name].wrong, at=now)
        self._reload(by_service, services, now)
        for name in {*self._down, *by_service}:
            if name not in self._down and name in by_service:
                self._down[name] = self._nursing.since(name, now)
                self._say(by_service[name].wrong)
            elif name in self._down and name not in by_service:
                since = self._down.pop(name)
                self._say(f"the {name} works again, after {now - since:.0f} s")
                self._log(down=name, since=since, until=now)

    def _reload(
        self, findings: Mapping[str, Finding], services: Mapping[str, Service], now: float
    ) -> None:
        """Have a webserver show what the code server has. One that loads is not disturbed."""
        webserver, shown = services.get("webserver"), findings.get("webserver")
        if (
            webserver is not None
            and webserver.address
            and shown is not None
            and shown.code
            and "code server" not in findings
            and not 0 <= now - self._reloaded < RELOAD_S
        ):
            self._reloaded = now
            with suppress(NotServedError):
                reload_definitions(webserver.address)

    # -- history ----------------------------------------------------------------------------

    def _look_at_history(self, now: float) -> Seen:
        """What the history says, or that it does not answer."""
        moment = time.monotonic()
        if self._pending is None:
            self._pending = self._pool.submit(self._history.look, now), moment
            self._heard, self._worked = moment, self._history.worked
        future, began = self._pending
        try:
            seen = future.result(LOOK_S)
        except TimeoutError:
            last, moment = self._history.seen, time.monotonic()
            if self._history.worked - self._worked >= WORKS_S:
                self._heard, self._worked = moment, self._history.worked
            if moment - self._heard < HANGS_S and moment - began < LONGEST_S:
                return last
            why = f"the history has not answered for {moment - began:.0f} seconds"
            hangs = Condition(Kind.SERVICE, "the history", "it does not answer", now)
            self._say(why)
            return replace(last, conditions=(hangs, *last.conditions), accounted=False)
        self._pending = None
        return seen

    def _service_conditions(self, findings: list[Finding], now: float) -> Iterator[Condition]:
        """Services that fail for longer than one that is started again takes."""
        for finding in findings:
            since = self._nursing.since(finding.service, now)
            if now - since >= TOLD_S:
                yield conditions.of_finding(finding, since)

    def _clock_conditions(self, now: float) -> Iterator[Condition]:
        offset = time.time() - time.monotonic()
        if abs(offset - self._clock) > JUMP_S:
            self._jump = conditions.clock_jump(offset - self._clock, now)
            self._log(clock_set_by=offset - self._clock, at=now)
        self._clock = offset
        if self._jump is not None and 0 <= now - self._jump.since < JUMP_TOLD_S:
            yield self._jump

    # -- the watch's own log ------------------------------------------------------------------

    def begin(self) -> None:
        """Write down from when to when nobody watched."""
        now = time.time()
        try:
            last = float(json.loads((self._project.state / "watch.json").read_bytes())["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if now - last > ABSENT_S:
            self._log(down="watch", since=last, until=now)

    def _log(self, **fields: object) -> None:
        path = self._project.make_state_folder() / "watch.jsonl"
        with suppress(OSError), open_private(path, "ab") as log:
            log.write(json.dumps(fields).encode() + b"\n")


class _History:
    """What the instance and the project's files say; read again only where something has changed.

    Its `look` is called from one thread, while others read what it has found last.
    """

    def __init__(self, project: Project, say: Callable[[str], None]) -> None:
        self._project = project
        self._say = say
        self._open = ExitStack()
        self._instance: dg.DagsterInstance | None = None
        self._memory = Memory()
        self._read: Seen | None = None
        self._mark: object = None
        self._looked_at = 0.0
        self._pause = 0.0
        self._broken_since: float | None = None
        self._exchange = threading.Thread()
        self._clock: int | None = None
        self.catalog: Catalog = load_catalog(project)
        self.seen = self._good = Seen()
        self.findings: tuple[Finding, ...] = ()

    @property
    def worked(self) -> float:
        """float: how long the thread that looks, which lasts, has computed: seconds."""
        return 0.0 if self._clock is None else time.clock_gettime(self._clock)

    def close(self) -> None:
        """Close the instance."""
        self._open.close()
        self._instance = None

    def look(self, now: float) -> Seen:
        """Look once; a history that cannot be read is a condition too."""
        if self._clock is None and sys.platform == "linux":
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        try:
            self.seen = self._good = self._look(now)
            self._broken_since = None
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would say so
            self.close()
            self._broken_since = self._broken_since or now
            why = f"it cannot be read: {innermost_line(error)}"
            lost = Condition(Kind.SERVICE, "the history", why, self._broken_since)
            known = self._good.conditions
            self.seen = replace(self._good, conditions=(lost, *known), accounted=False)
        return self.seen

    def _look(self, now: float) -> Seen:
        instance = self._instance
        if instance is None:
            instance = self._instance = self._open.enter_context(open_instance(self._project))
        catalog = self.catalog = load_catalog(self._project)
        schedules = running_schedules(instance, catalog)
        heard = last_ticks(instance)
        finding = probe_daemon(self._project, instance, schedules, heard, now)
        self.findings = () if finding is None else (finding,)
        if finding is not None:  # else the daemon does that
            for run_id in end_dead_runs(instance):
                self._say(f"run {run_id[:8]} failed: its process was killed")
        mark = (
            instance.event_log_storage.get_maximum_record_id(),
            catalog.manifest,
            tuple((entry.name, entry.error and entry.error.headline) for entry in catalog),
        )
        read = self._read
        # A clock that was set back makes no look wait for longer.
        due = mark != self._mark or not 0 <= now - self._looked_at < WHOLE_S
        if read is None or (due and not 0 <= now - self._looked_at < self._pause):
            began = time.thread_time()
            read = self._read = self._read_whole(instance, catalog, now)
            self._mark, self._looked_at = mark, now
            pause = PAUSE * (time.thread_time() - began)
            self._pause = pause if pause > LOOK_S else 0.0
        ticks = conditions.of_ticks(heard.values())
        return replace(read, conditions=(*read.conditions, *ticks))

    def _read_whole(self, instance: dg.DagsterInstance, catalog: Catalog, now: float) -> Seen:
        """All notebooks, and the account of the last day."""
        moment = datetime.fromtimestamp(now, local_now(catalog).tzinfo)
        midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        absent = find_absence(self._project) is not None
        overview = read_overview(
            instance, catalog, moment, midnight - timedelta(days=1), memory=self._memory
        )
        record_switches(self._project, instance)
        remove_run_folders(self._project, instance, now)
        account = read_account(instance, catalog, now - DAY_S, now)
        if not self._exchange.is_alive():  # by itself: a service that hangs delays no alert
            self._exchange = threading.Thread(target=exchange_reports, args=(catalog,), daemon=True)
            self._exchange.start()
        unwritten: tuple[Condition, ...] = ()
        try:
            write_morning_page(catalog, overview, account)
        except OSError as error:  # what is wrong is told all the same
            why = f"it cannot be written: {innermost_line(error)}"
            unwritten = (Condition(Kind.SERVICE, "the morning page", why, now),)
        # One that failed has not recovered while it runs again.
        active = {
            line.notebook
            for line in overview.notebooks
            if line.state in (State.RUNNING, State.WAITING)
        }
        absent = absent or find_absence(self._project) is not None
        return Seen(
            (
                *conditions.of_overview(overview, catalog, now),
                *conditions.of_account(account),
                *unwritten,
            ),
            frozenset(active).union(_UNSTORED if absent else ()),
            accounted=not account.counts[Became.UNACCOUNTED],
        )
