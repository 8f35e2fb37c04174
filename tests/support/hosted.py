"""A project with a real host, and real commands and launches beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.orchestration.compat.instance import open_instance
from research_jobs.project import Project, find_project
from research_jobs.resident.client import NoHostError, ask, connect
from research_jobs.store.load import load

LIMIT_S = 60.0
PREFIX = (sys.executable, "-m", "research_jobs.cli.main")

SLEEPS = """
# %%
import time
from pathlib import Path

Path("began").write_text("")
while not Path("go").exists():
    time.sleep(0.02)
done = 1
"""


def wait_until(question: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """The first true answer."""
    end = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return answer


def finish(command: subprocess.Popen[str]) -> int:
    """The exit code of a command, once it has ended."""
    command.communicate(timeout=LIMIT_S)
    return command.returncode


class Hosted:
    """A project, its host, and the ways to have something run there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "RESEARCH_JOBS_PROJECT": str(root),
            "DAGSTER_HOME": str(root / "home"),
        }
        self.process: subprocess.Popen[str] | None = None
        self.log = root / "host.log"
        (root / "notebooks").mkdir(parents=True)
        (root / "home").mkdir()
        self.manifest("{}")
        self.configure()

    def configure(self, **more: Any) -> None:
        """Write the instance's dagster.yaml: a run is launched at once, without a daemon."""
        home = self.root / "home"
        config = {
            "run_launcher": {
                "module": "research_jobs.orchestration.execution.run_launcher",
                "class": "WorkerRunLauncher",
            },
            "run_coordinator": {
                "module": "dagster.core.run_coordinator",
                "class": "DefaultRunCoordinator",
            },
            "telemetry": {"enabled": False},
            **more,
        }
        (home / "dagster.yaml").write_text(json.dumps(config))
        module = {"module_name": "research_jobs.definitions", "location_name": "research_jobs"}
        (self.root / "workspace.yaml").write_text(
            json.dumps({"load_from": [{"python_module": module}]})
        )

    @property
    def project(self) -> Project:
        return find_project(self.root)

    def write(self, name: str, text: str) -> Path:
        path = self.root / "notebooks" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def manifest(self, text: str) -> None:
        (self.root / "notebooks" / "manifest.yaml").write_text(textwrap.dedent(text))

    # -- the host ---------------------------------------------------------------------------

    def start(self, *options: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*PREFIX, "host", *options],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            self.status()
        except NoHostError:
            return False
        return True

    def status(self) -> Any:
        with connect(self.project, environment=self.environment) as connection:
            return ask(connection, "Status")

    def stop(self) -> None:
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process = None

    # -- what runs there --------------------------------------------------------------------

    def command(
        self, *words: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PREFIX, *words],
            cwd=self.root,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S * 2,
        )

    def python(self, code: str) -> subprocess.CompletedProcess[str]:
        """What becomes of a program in the project's folder."""
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
        )

    def begin_python(self, code: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PREFIX, *words],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # a test session in a shell's background ignores it, and so would the command
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )

    def launch(self, environment: Mapping[str, str] | None = None) -> dg.DagsterRun:
        """Launch all notebooks as the daemon launches them, and return the run."""
        before = {run.run_id for run in self.runs()}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "dagster", "job", "launch", "-w", "workspace.yaml"),
                *("-j", "notebooks"),
            ],
            cwd=self.root,
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S * 2,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (run,) = (run for run in self.runs() if run.run_id not in before)
        return run

    def ended(self, run: dg.DagsterRun) -> dg.DagsterRun:
        """The run, once it has ended."""
        return wait_until(lambda: next(
            (one for one in self.runs() if one.run_id == run.run_id and one.is_finished), None
        ))  # fmt: skip

    def runs(self) -> Sequence[dg.DagsterRun]:
        with open_instance(self.root / "home") as instance:
            return instance.get_runs()

    def events(self, run: dg.DagsterRun) -> list[str]:
        with open_instance(self.root / "home") as instance:
            return [
                (entry.dagster_event and entry.dagster_event.message) or entry.user_message
                for entry in instance.all_logs(run.run_id)
            ]

    def value(self, notebook: str, output: str) -> Any:
        """What a notebook's output holds now."""
        return load(notebook, output, project=self.root)
