"""Whether the services do their work: judged by what they fail to do, not by a port that answers.

Each probe asks one service for something that only a working one can give, within a bounded time.
What to do about a service that fails is decided apart from that (`Nursing`), from times alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import dagster as dg

from research_jobs.errors import innermost_line
from research_jobs.orchestration.compat.code_server import NoAnswerError, load_error
from research_jobs.orchestration.compat.daemon import LastTick, heartbeats
from research_jobs.orchestration.model.causes import error_line
from research_jobs.orchestration.operations.history import RunningSchedule
from research_jobs.orchestration.operations.served import NotServedError, unloaded_locations
from research_jobs.project import Project
from research_jobs.resident.client import NoHostError, ask, connect
from research_jobs.resident.services import Service, registered

__all__ = ["Finding", "Nursing", "probe_daemon", "probe_services"]

# Seconds that a service may take to answer.
ANSWER_S = 10
# A beat is due each half minute. That of one thread may wait for a slow tick.
BEAT_S = 45.0
THREAD_BEAT_S = 120.0
# A tick is due, and nothing has been heard of any tick for so long, although others could be made.
TICK_S = 45.0
# A run may wait so long in the queue while no run is active.
QUEUE_S = 60.0

# A service that has just started is not judged, seconds.
GRACE_S = 60.0
# How long a service fails before it is ended, seconds.
PATIENCE_S = 8.0
# Ended in vain so often within the period, seconds, it is left to a person.
MOST_ENDED = 3
PERIOD_S = 1800.0


@dataclass(frozen=True)
class Finding:
    """What a service fails to do.

    Parameters
    ----------
    service : str
    wrong : str
        One line: ``the daemon has made no tick since 08:00:00``.
    curable : bool
        Whether starting it again may help.
    code : bool
        Whether it is the code that does not load, not the service.
    """

    service: str
    wrong: str
    curable: bool = True
    code: bool = False


def probe_services(project: Project, *only: str) -> Iterator[Finding]:
    """What the services that have said who they are fail to do, but for the daemon.

    Parameters
    ----------
    project : Project
    *only : str
        Services; by default all.
    """
    probes: Mapping[str, Callable[[Project, Service], Finding | None]] = {
        "code server": _probe_code_server,
        "webserver": _probe_webserver,
        "host": _probe_host,
    }
    for name, service in registered(project).items():
        if only and name not in only:
            continue
        if not service.alive:
            # Ending what is not there helps nobody.
            yield Finding(name, f"the {name} is not running", curable=False)
        elif (probe := probes.get(name)) and (finding := _probed(probe, project, service)):
            yield finding


def _probed(
    probe: Callable[[Project, Service], Finding | None], project: Project, service: Service
) -> Finding | None:
    try:
        return probe(project, service)
    except Exception as error:  # noqa: BLE001 - something else may answer at its address
        wrong = f"the {service.name} does not answer as it should: {innermost_line(error)}"
        return Finding(service.name, wrong)


def _probe_code_server(project: Project, service: Service) -> Finding | None:
    del project
    try:
        error = load_error(service.address or "", ANSWER_S)
    except NoAnswerError as why:
        return Finding(service.name, f"the code server does not answer: {why}")
    if error is None:
        return None
    wrong = f"the code server cannot load the definitions: {error_line(error)}"
    return Finding(service.name, wrong, curable=False, code=True)


def _probe_webserver(project: Project, service: Service) -> Finding | None:
    del project
    try:
        unloaded = unloaded_locations(service.address or "", ANSWER_S)
    except NotServedError as error:
        return Finding(service.name, f"the webserver does not answer: {error.headline}")
    for name, error in unloaded.items():
        wrong = f"the webserver does not show the code location {name}: {error}"
        return Finding(service.name, wrong, curable=False, code=True)
    return None


def _probe_host(project: Project, service: Service) -> Finding | None:
    try:
        with connect(project) as connection:
            connection.settimeout(ANSWER_S)
            ask(connection, "Status")
    except NoHostError as error:
        return Finding(service.name, f"the host does not answer: {error.headline}")
    return None


def probe_daemon(
    project: Project,
    instance: dg.DagsterInstance,
    schedules: list[RunningSchedule],
    heard: Mapping[str, LastTick],
    now: float,
) -> Finding | None:
    """What the daemon fails to do: beat, make ticks that are due, launch what is queued.

    Parameters
    ----------
    project : Project
    instance : DagsterInstance
    schedules : list of RunningSchedule
    heard : mapping of str to LastTick
        The last tick of each schedule and sensor.
    now : float
        Unix time, seconds.
    """
    service = registered(project).get("daemon")
    beats = heartbeats(instance)
    newest = max(beats.values(), default=None)
    if service is not None and not service.alive:
        return None  # `probe_services` says so
    if newest is None:
        wrong = "no daemon has ever run, and schedules need one"
        return Finding("daemon", wrong, curable=False) if schedules else None
    # One that has yet to start was started before the clock was set back.
    began = service.since if service is not None and service.since <= now else 0.0
    if now - max(newest, began) > BEAT_S:
        return Finding("daemon", "the daemon does not say that it lives")
    for name, beat in sorted(beats.items()):
        if now - max(beat, began) > THREAD_BEAT_S:
            return Finding("daemon", f"the daemon's {name.lower()} does not say that it lives")
    quiet = now - max((tick.at for tick in heard.values()), default=0.0)
    for schedule in schedules:
        last = heard.get(schedule.name)
        since = max(schedule.since or now, began, last.at if last else 0.0) + 1
        due = schedule.tick_after(since)
        if min(now - due.timestamp(), quiet) > TICK_S:
            wrong = f"the daemon makes no tick of {schedule.name}, due {due:%a %d %b %H:%M}"
            return Finding("daemon", wrong)
    queued = instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]), limit=1, ascending=True
    )
    active = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    if (
        queued
        and now - max(queued[0].create_timestamp.timestamp(), began) > QUEUE_S
        and not instance.get_runs_count(dg.RunsFilter(statuses=[*active]))
    ):
        return Finding("daemon", "the daemon launches nothing, although runs are queued")
    return None


@dataclass(frozen=True)
class _Case:
    """A service that fails, or has been ended lately."""

    since: float | None = None
    ended: tuple[float, ...] = ()


class Nursing:
    """Which services to end, so that they are started again.

    A service is ended when it fails for `PATIENCE_S`, not while it starts, and not for ever: after
    `MOST_ENDED` times in `PERIOD_S` a person must look.
    """

    def __init__(self) -> None:
        self._cases: dict[str, _Case] = {}

    def since(self, service: str, now: float) -> float:
        """Since when it fails."""
        case = self._cases.get(service)
        return case.since if case is not None and case.since is not None else now

    def look(
        self, findings: Mapping[str, Finding], up: Mapping[str, float], now: float
    ) -> list[str]:
        """The services to end now.

        Parameters
        ----------
        findings : mapping of str to Finding
            By service. One that is not there is well.
        up : mapping of str to float
            When each service started, Unix time in seconds.
        now : float
        """
        chosen: list[str] = []
        for name in {*self._cases, *findings}:
            case = self._cases.get(name, _Case())
            ended = tuple(moment for moment in case.ended if 0 <= now - moment < PERIOD_S)
            finding = findings.get(name)
            since = None if finding is None else min(now if case.since is None else case.since, now)
            case = _Case(since, ended)
            if (
                finding is not None
                and finding.curable
                and since is not None
                and now - since >= PATIENCE_S
                and not 0 <= now - up.get(name, now) < GRACE_S
                and len(ended) < MOST_ENDED
            ):
                chosen.append(name)
                case = replace(case, ended=(*ended, now))
            self._cases[name] = case
        return sorted(chosen)
