"""Dagster's services as a server runs them: code server, daemon and our host, and what they cost.

Each service has a control group of its own (cgroup v2), whose CPU time includes that of every
process that the service has caused, ended or not. Where control groups cannot be made, the times
of the processes that live and of their reaped children are added up.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import yaml
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.cli import execute_query

from benchmarks.harness import BIN, clean_environment
from research_jobs.orchestration.model.instance import default_config
from research_jobs.project import find_project
from research_jobs.resident.client import NoHostError, ask, connect

__all__ = [
    "Deployment",
    "Reading",
    "answers",
    "free_port",
    "metering",
    "postgres",
    "wait_until",
]

LIMIT_S = 300.0
# The services start what they need on their first seconds.
SETTLE_S = 3.0
LAUNCH = """
mutation Launch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { ... on LaunchRunSuccess { run { runId } } }
}
"""


def metering() -> str:
    """How CPU time is taken on this machine."""
    return "control groups" if _groups() else "/proc/PID/stat with reaped children"


def _groups() -> Path | None:
    """The folder of the control groups, if this process may make one there."""
    for line in Path("/proc/mounts").read_text().splitlines():
        place, kind = line.split()[1:3]
        if kind == "cgroup2" and os.access(place, os.W_OK) and os.geteuid() == 0:
            return Path(place)
    return None


def wait_until(question: Callable[[], Any], what: str, pause_s: float = 0.2) -> Any:
    """The first true answer."""
    end = time.monotonic() + LIMIT_S
    while not (answer := question()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not after {LIMIT_S:g} s")
        time.sleep(pause_s)
    return answer


@dataclass(frozen=True)
class Reading:
    """CPU seconds of services, from their start or over a while.

    Parameters
    ----------
    all : mapping of str to float
        Of each service and everything that it has started.
    own : mapping of str to float
        Of each service's own processes alone.
    at : float
        Seconds of a clock, or the length of the while.
    """

    all: Mapping[str, float]
    own: Mapping[str, float]
    at: float

    def since(self, before: Reading) -> Reading:
        """What was used after an earlier reading."""
        return Reading(
            {name: value - before.all[name] for name, value in self.all.items()},
            {name: value - before.own[name] for name, value in self.own.items()},
            self.at - before.at,
        )

    @property
    def total(self) -> float:
        """float: of all services and everything that they have started."""
        return sum(self.all.values())

    @property
    def work(self) -> float:
        """float: of what the services have started: run workers, notebooks, reports."""
        return self.total - sum(self.own.values())

    def over(self, count: int) -> Reading:
        """The share of one of so many runs."""
        return Reading(
            {name: value / count for name, value in self.all.items()},
            {name: value / count for name, value in self.own.items()},
            self.at / count,
        )

    def beyond(self, idle: Reading) -> Reading:
        """What was used beyond an idle while, as if that had been as long."""
        share = self.at / idle.at
        return Reading(
            {name: value - share * idle.all[name] for name, value in self.all.items()},
            {name: value - share * idle.own[name] for name, value in self.own.items()},
            self.at,
        )


class _Service:
    def __init__(
        self, log: Path, command: Sequence[Any], folder: Path, env: Mapping[str, str]
    ) -> None:
        self.log = log
        groups = _groups()
        self.group = groups / f"research_jobs_{os.getpid()}_{id(self)}" if groups else None
        words = [str(word) for word in command]
        if self.group is not None:
            self.group.mkdir()
            enter = f"echo $$ > {self.group}/cgroup.procs"
            words = ["sh", "-c", f'{enter} && exec "$@"', "sh", *words]
        with log.open("ab") as sink:
            self.process = subprocess.Popen(
                words, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip
        self.own: list[psutil.Process] = []

    def cpu_s(self) -> float:
        """CPU time of the service and all that it has started."""
        if self.group is not None:
            return int((self.group / "cpu.stat").read_text().split()[1]) / 1e6
        found = 0.0
        for process in (one := psutil.Process(self.process.pid), *one.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found += sum(process.cpu_times()[:4])
        return found

    def own_s(self) -> float:
        """CPU time of its own processes."""
        return sum(sum(process.cpu_times()[:2]) for process in self.own)

    def alive(self) -> bool:
        """Whether it runs."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args} ended:\n{self.log.read_text()[-4000:]}")
        return True

    def stop(self) -> None:
        """End it with all that it has started."""
        mine = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for process in mine:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()
        if self.group is not None:
            wait_until(partial(_left, self.group), "its processes end")


class Deployment:
    """A project with its services.

    Parameters
    ----------
    project : Path
    location : sequence of str
        What the code server is to load.
    host : bool
        Whether our host runs.
    config : mapping, optional
        What dagster.yaml says other than the project's.
    interval : int, optional
        Seconds between two looks at the queue, other than the project's.
    """

    def __init__(
        self,
        project: Path,
        *,
        location: Sequence[str] = ("-m", "research_jobs.definitions"),
        host: bool = True,
        config: Mapping[str, Any] | None = None,
        interval: int | None = None,
    ) -> None:
        self.project = project
        self.home = project / "home"
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        told = default_config(self.home) | dict(config or {})
        if interval is not None:
            told["run_coordinator"]["config"]["dequeue_interval_seconds"] = interval
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(told))
        self.settings = {"DAGSTER_HOME": str(self.home), "RESEARCH_JOBS_PROJECT": str(project)}
        self.location = tuple(location)
        self.with_host = host
        self.services: dict[str, _Service] = {}

    @contextmanager
    def running(self) -> Generator[Deployment]:
        """Its services, while the context lasts."""
        port = free_port()
        server = {"host": "127.0.0.1", "port": port, "location_name": "research_jobs"}
        # Not in the project's folder: a new name there makes the host load itself anew.
        workspace = self.home / "workspace.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
        with ExitStack() as stack:
            listen = ("--host", "127.0.0.1", "--port", port, "--location-name", "research_jobs")
            self._start(
                stack, "code", BIN / "dagster", "code-server", "start", *self.location, *listen
            )
            if self.with_host:
                self._start(stack, "host", BIN / "research-jobs", "host")
                wait_until(self._host_answers, "the host answers")
            wait_until(lambda: answers(port), "the code server answers")
            self._start(stack, "daemon", BIN / "dagster-daemon", "run", "-w", workspace)
            self.instance = stack.enter_context(DagsterInstance.from_config(str(self.home)))
            target = WorkspaceFileTarget([str(workspace)])
            self.workspace = stack.enter_context(WorkspaceProcessContext(self.instance, target))
            wait_until(
                lambda: self.services["daemon"].alive() and self.instance.get_daemon_statuses(),
                "the daemon works",
            )
            time.sleep(SETTLE_S)
            for name, service in self.services.items():
                own = psutil.Process(service.process.pid)
                # The code server is two processes. The host's children work for the runs.
                service.own = [own, *(own.children(recursive=True) if name == "code" else ())]
            yield self

    def _start(self, stack: ExitStack, name: str, *command: Any) -> None:
        log = self.home / f"{name}.log"
        service = _Service(log, command, self.project, clean_environment(**self.settings))
        self.services[name] = service
        stack.callback(service.stop)

    def _host_answers(self) -> bool:
        self.services["host"].alive()
        with suppress(NoHostError), connect(
            find_project(self.project), environment=clean_environment(**self.settings)
        ) as connection:  # fmt: skip
            return bool(ask(connection, "Status"))
        return False

    def reading(self) -> Reading:
        """What its services have used until now."""
        return Reading(
            {name: service.cpu_s() for name, service in self.services.items()},
            {name: service.own_s() for name, service in self.services.items()},
            time.monotonic(),
        )

    def submit(self, name: str) -> None:
        """Put a run of one asset into the queue, as the UI's button does."""
        params = {
            "selector": {
                "repositoryLocationName": "research_jobs",
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": [name]}],
            },
            "mode": "default",
        }
        answer: Any = execute_query(self.workspace, LAUNCH, {"params": params})
        assert answer["data"]["launchRun"], answer

    def runs(self, count: int) -> Sequence[DagsterRun]:
        """All runs, once there are so many and they have succeeded."""
        done = RunsFilter(statuses=[DagsterRunStatus.SUCCESS])
        failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED])

        def ended() -> bool:
            if lost := self.instance.get_runs(failed, limit=1):
                said = [repr(entry) for entry in self.instance.all_logs(lost[0].run_id)]
                raise RuntimeError("\n".join(["a run failed", *said[-5:]]))
            return self.instance.get_runs_count(done) >= count

        wait_until(ended, f"{count} runs succeed")
        return self.instance.get_runs(done)


def _left(group: Path) -> bool:
    """Whether a control group had no process left and is removed."""
    with suppress(OSError):
        group.rmdir()
        return True
    return False


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def postgres() -> Generator[Any]:
    """A PostgreSQL server of this process alone, as the tests have it."""
    tests = Path(__file__).resolve().parents[1] / "tests"
    sys.path[:0] = [str(tests), str(tests / "support")]
    from conftest import start_postgres

    yield from start_postgres()
