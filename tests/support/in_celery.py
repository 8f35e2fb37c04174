"""Steps on other machines: dagster-celery, a real Redis, two workers: ``make test-celery``.

Each worker has its own user and its own folder with a copy of the project. They share Postgres
(Dagster's history), an S3 store (the outputs) and Redis (the queue), as machines would. It says of
each feature whether it works there, and how long a step takes beside our own executor. What
docs/machines.md says does not work is expected not to; anything else that fails is a fault.

Root, and Debian's redis-server, which it installs.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from users import as_user

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".research_jobs" / "celery"
PYTHON = ENVIRONMENT / "bin" / "python"
USERS = {"one": 61001, "two": 61002}
LIMIT_S = 180.0
# How long Redis waits before it hands a task to another worker. For a real one: longer than the
# longest notebook, or that runs twice.
VISIBILITY_S = 15

DEFINITIONS = """\
import os
from dagster_celery import celery_executor
from research_jobs import build_defs

broker = os.environ["CELERY_BROKER"]
late = {"visibility_timeout": %d}
celery = celery_executor.configured(
    {"broker": broker, "backend": broker, "config_source": {"broker_transport_options": late}}
)
defs = build_defs(executor=None if os.environ.get("OURS") else celery)
"""

WORKER_SETTINGS = """\
import os
broker_url = result_backend = os.environ["CELERY_BROKER"]
worker_prefetch_multiplier = 1
task_acks_late = task_reject_on_worker_lost = os.environ["CELERY_LATE"] == "1"
broker_transport_options = {"visibility_timeout": %d}
"""

SLEEPS = """\
# %%
import os, time
from pathlib import Path
begun = time.time()
marks = Path(os.environ["MARKS"])
(marks / f"{Path(__file__).stem}-{os.getpid()}").touch()
time.sleep(SECONDS)
ended = time.time()
"""

NOTEBOOKS = {
    "source": "# %%\nnumbers = [1, 2, 3]\n",
    "middle": "# %%\nfrom research_jobs import load\ntotal = sum(load('source', 'numbers'))\n",
    **{f"quick_{n}": "# %%\ndone = 1\n" for n in range(6)},
    "flaky": (
        "# %%\nimport os\nfrom pathlib import Path\n"
        "mark = Path(os.environ['MARKS']) / 'flaky'\nagain = mark.exists()\n"
        "if not again:\n    mark.touch()\n"
        "assert again, 'fails once'\n"
    ),
    "scarce_a": SLEEPS.replace("SECONDS", "2"),
    "scarce_b": SLEEPS.replace("SECONDS", "2"),
    "slow": SLEEPS.replace("SECONDS", "20"),
    "daily": '# %% tags=["parameters"]\nday = "2024-01-01"\n\n# %%\nseen = day\n',
    "ticked": "# %%\ndone = 1\n",
}

MANIFEST: dict[str, Any] = {
    "notebooks": {
        "source": {"outputs": ["numbers"]},
        "middle": {"outputs": ["total"]},
        **{f"quick_{n}": {"outputs": ["done"]} for n in range(6)},
        "flaky": {"outputs": ["again"], "retries": {"max": 1, "delay": "0s"}},
        "scarce_a": {"outputs": ["begun", "ended"], "pool": "scarce"},
        "scarce_b": {"outputs": ["begun", "ended"], "pool": "scarce"},
        "slow": {"outputs": ["ended"]},
        "daily": {
            "outputs": ["seen"],
            "partitions": {
                "by": "day",
                "start": "2024-01-01",
                "end": "2024-01-04",
                "parameter": "day",
            },
        },
        "ticked": {"outputs": ["done"]},
    },
    "schedules": {"each_minute": {"cron": "* * * * *", "notebooks": ["ticked"]}},
}


def main() -> int:
    """Set up, try each feature, print the table."""
    if os.geteuid() != 0:
        sys.exit("Only root can start workers of several users.")
    prepare()
    sys.path.insert(0, str(ROOT / "tests"))
    with ExitStack() as stack:
        lab = Lab.make(stack)
        trials: dict[str, Callable[[Lab], str]] = {
            "dependencies, load()": dependencies,
            "seconds a step": cost,
            "retries": retries,
            "pools": pools,
            "a schedule and a backfill, by the daemon": daemon,
            "cancel": cancel,
            "a worker killed in mid-step": lost,
            "the same, acknowledged late": redelivered,
            "whole runs, by CeleryRunLauncher": whole_runs,
        }
        chosen = sys.argv[1:]
        failed = False
        for name, trial in trials.items():
            if chosen and trial.__name__ not in chosen:
                continue
            began = time.monotonic()
            try:
                said = trial(lab)
            except Exception as error:  # noqa: BLE001 - the others are still tried
                failed = True
                said = f"FAILED: {type(error).__name__}: {error}"
            print(f"{name}: {said} [{time.monotonic() - began:.0f} s]", flush=True)
        if failed:
            print(lab.logs())
    return int(failed)


def prepare() -> None:
    """Install what is missing: Redis, and an environment with dagster-celery."""
    if shutil.which("redis-server") is None:
        get = ["apt-get", "-qq", "install", "--yes", "--no-install-recommends", "redis-server"]
        subprocess.run(["apt-get", "-qq", "update"], check=True)
        subprocess.run(get, check=True, stdout=subprocess.DEVNULL)
    if (ENVIRONMENT / ".installed").exists():
        return
    print("Making an environment with dagster-celery", flush=True)
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    celery = next(
        f"dagster-celery=={line.partition('==')[2]}"
        for line in pins.splitlines()
        if line.startswith("dagster-postgres==")
    )
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    k8s = [celery.replace("celery", "k8s"), "kubernetes-validate"]
    wanted = ["-e", ".[samples,extras,s3]", celery, "redis", *k8s]
    subprocess.run([*pip, "-c", "constraints.txt", *wanted], cwd=ROOT, check=True)
    (ENVIRONMENT / ".installed").touch()


@dataclass
class Lab:
    """Services, and a folder for each machine that there would be."""

    folder: Path
    environment: Mapping[str, str]
    workers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def make(cls, stack: ExitStack) -> Lab:
        """Start the services and copy the project for each user."""
        from conftest import start_postgres
        from s3_server import s3_server

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rj-celery-")))
        folder.chmod(0o755)
        postgres = stack.enter_context(contextmanager(start_postgres)())
        s3 = stack.enter_context(s3_server())
        port = stack.enter_context(redis(folder))
        for name in ("marks", "logs", "home"):
            (folder / name).mkdir()
            (folder / name).chmod(0o1777)
        (folder / "home" / "dagster.yaml").write_text(instance(folder, postgres.storage()))
        environment = {
            **{name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ},
            **s3.environment,
            "PATH": f"{ENVIRONMENT / 'bin'}:/usr/bin:/bin",
            "DAGSTER_HOME": str(folder / "home"),
            "RESEARCH_JOBS_STORE": f"s3://{s3.make_bucket()}/data",
            "CELERY_BROKER": f"redis://127.0.0.1:{port}/0",
            "CELERY_LATE": "0",
            "MARKS": str(folder / "marks"),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        lab = cls(folder, environment)
        for name in ("server", *USERS):
            lab.copy(name)
        stack.callback(lab.stop)
        for name in USERS:
            lab.start(name)
        return lab

    def copy(self, name: str) -> None:
        """A copy of the project, its user's alone."""
        home = self.folder / name
        (home / "notebooks").mkdir(parents=True)
        for notebook, text in NOTEBOOKS.items():
            (home / "notebooks" / f"{notebook}.py").write_text(text)
        (home / "notebooks" / "manifest.yaml").write_text(yaml.safe_dump(MANIFEST))
        (home / "definitions.py").write_text(DEFINITIONS % VISIBILITY_S)
        (home / "dagster_celery_config.py").write_text(WORKER_SETTINGS % VISIBILITY_S)
        where = {"python_module": {"module_name": "definitions", "location_name": "celery"}}
        (home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [where]}))
        user = USERS.get(name, 0)
        for path in (home, *home.rglob("*")):
            os.chown(path, user, user)
        home.chmod(0o700)

    def start(self, name: str, *, late: bool = False) -> None:
        """Start a worker with two processes, as its user."""
        home = self.folder / name
        celery = [PYTHON, "-m", "celery", "-A", "dagster_celery.app", "worker"]
        options = ["-Q", "dagster", "-c", "2", "-n", f"{name}@machine", "-l", "warning"]
        with (self.folder / "logs" / f"{name}.log").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [*as_user(USERS[name]), *celery, *options],
                cwd=home,
                env=self.of(name) | {"CELERY_LATE": str(int(late))},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def of(self, name: str) -> dict[str, str]:
        """The environment of one of the machines."""
        home = str(self.folder / name)
        own = {"HOME": home, "PYTHONPATH": home, "RESEARCH_JOBS_PROJECT": home, "USER": name}
        return {**self.environment, **own}

    def end(self, name: str) -> None:
        """Kill a worker with all its processes, as a lost machine would."""
        with suppress(ProcessLookupError):
            os.killpg(self.workers[name].pid, signal.SIGKILL)
        self.workers.pop(name).wait()

    def stop(self) -> None:
        """End the workers that are left."""
        for name in list(self.workers):
            self.end(name)

    def begin(self, *notebooks: str, **environment: str) -> subprocess.Popen[str]:
        """Have the server materialise notebooks, by Dagster's own command."""
        chosen = " or ".join(f'key:"{name}"' for name in notebooks)
        command = ["asset", "materialize", "-m", "definitions", "--select", chosen]
        return subprocess.Popen(
            [PYTHON, "-m", "dagster", *command],
            cwd=self.folder / "server",
            env=self.of("server") | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *notebooks: str, **environment: str) -> str:
        """The same, until it has ended well."""
        with self.begin(*notebooks, **environment) as process:
            said, _ = process.communicate(timeout=LIMIT_S)
        if process.returncode != 0:
            raise AssertionError(said[-3000:])
        return said

    def ask(self, code: str) -> Any:
        """What Python says of the history or the store, as JSON."""
        head = "import dagster as dg, json\nfrom research_jobs import load\n"
        wrapped = f"with dg.DagsterInstance.get() as i:\n    print(json.dumps({code}, default=str))"
        done = subprocess.run(
            [PYTHON, "-c", head + wrapped],
            cwd=self.folder / "server",
            env=self.of("server"),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise AssertionError(done.stderr[-3000:])
        return json.loads(done.stdout.splitlines()[-1])

    def last(self) -> str:
        """The status of the newest run."""
        return self.ask("i.get_runs(limit=1)[0].status.value")

    def marks(self, notebook: str) -> list[int]:
        """The pids of a notebook's processes so far."""
        return [int(p.name.rpartition("-")[2]) for p in self.marked.glob(f"{notebook}-*")]

    @property
    def marked(self) -> Path:
        """Where notebooks leave marks."""
        return self.folder / "marks"

    def wait_for_mark(self, notebook: str, count: int = 1) -> list[int]:
        """Wait until so many processes have worked on a notebook."""
        until(lambda: len(self.marks(notebook)) >= count)
        return self.marks(notebook)

    def logs(self) -> str:
        """What the workers said at last."""
        files = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)


def instance(folder: Path, storage: Mapping[str, Any]) -> str:
    """The server's dagster.yaml, with what machines have to share in its place."""
    settings = yaml.safe_load((ROOT / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
    settings["storage"] = storage.get("storage", storage)
    settings["compute_logs"] = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    settings["run_monitoring"] |= {"poll_interval_seconds": 5}
    return yaml.safe_dump(settings)


@contextmanager
def redis(folder: Path) -> Iterator[int]:
    """A Redis of our own on the loopback."""
    from keeping import free_port

    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def until(holds: Callable[[], bool], limit: float = LIMIT_S) -> None:
    """Wait for something."""
    deadline = time.monotonic() + limit
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.5)


def alive(pid: int) -> bool:
    """Whether there is such a process."""
    return Path(f"/proc/{pid}").exists()


def dependencies(lab: Lab) -> str:
    """A notebook reads what another has stored, wherever each ran."""
    lab.run("source", "middle")
    assert lab.ask("load('middle', 'total')") == 6
    return "works"


def cost(lab: Lab) -> str:
    """Six notebooks that do nothing: by celery, and by our executor on one machine."""
    quick = [f"quick_{n}" for n in range(6)]
    lab.run(*quick)  # templates are warm
    lab.run(*quick)
    by_celery = lab.ask(SECONDS)
    machines = lab.ask(
        "sorted({str(e.dagster_event.engine_event_data.metadata['Celery worker'].value) for e in "
        "i.all_logs(i.get_runs(limit=1)[0].run_id, of_type=dg.DagsterEventType.ENGINE_EVENT) "
        "if 'Celery worker' in (e.dagster_event.engine_event_data.metadata or {})})"
    )
    lab.run(*quick, OURS="1")
    ours = lab.ask(SECONDS)
    return (
        f"celery {by_celery:.1f} s for six, ours {ours:.1f} s (start to end of the run); "
        f"steps were on {', '.join(machines)}"
    )


SECONDS = "(lambda s: s.end_time - s.start_time)(i.get_run_stats(i.get_runs(limit=1)[0].run_id))"


def retries(lab: Lab) -> str:
    """The manifest's retries hold."""
    lab.run("flaky")
    assert lab.ask("load('flaky', 'again')") is True
    return "work"


def pools(lab: Lab) -> str:
    """Two notebooks of a pool with one slot do not run at once."""
    lab.ask("i.event_log_storage.set_concurrency_slots('scarce', 1)")
    lab.run("scarce_a", "scarce_b")
    spans = sorted(
        lab.ask(f"[load('scarce_{n}', 'begun'), load('scarce_{n}', 'ended')]") for n in "ab"
    )
    assert spans[0][1] <= spans[1][0], spans
    return "work"


def daemon(lab: Lab) -> str:
    """The daemon launches a tick's run, and one for each partition of a backfill."""
    with serving(lab):
        backfill(lab)
        counted = "len(list(i.get_materialized_partitions(dg.AssetKey('daily'))))"
        until(lambda: lab.ask(counted) == 3)
        ticked = "i.get_latest_materialization_event(dg.AssetKey('ticked')) is not None"
        until(lambda: lab.ask(ticked))
    return "work"


@contextmanager
def serving(lab: Lab) -> Iterator[None]:
    """Dagster's daemon, with a code server of its own."""
    with (lab.folder / "logs" / "daemon.log").open("ab") as log:
        process = subprocess.Popen(
            [ENVIRONMENT / "bin" / "dagster-daemon", "run", "-w", "workspace.yaml"],
            cwd=lab.folder / "server",
            env=lab.of("server"),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def backfill(lab: Lab) -> None:
    """Queue a run for each partition."""
    job = ["job", "backfill", "-w", "workspace.yaml", "-j", "notebooks_by_day"]
    which = ["--from", "2024-01-01", "--to", "2024-01-03", "--noprompt"]
    done = subprocess.run(
        [PYTHON, "-m", "dagster", *job, *which],
        cwd=lab.folder / "server",
        env=lab.of("server"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def whole_runs(lab: Lab) -> str:
    """A run is a task of celery's, and our executor works on it there."""
    broker = lab.environment["CELERY_BROKER"]
    path = lab.folder / "home" / "dagster.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["run_launcher"] = {
        "module": "dagster_celery.launcher",
        "class": "CeleryRunLauncher",
        "config": {"broker": broker, "backend": broker},
    }
    path.write_text(yaml.safe_dump(settings))
    lab.environment = {**lab.environment, "OURS": "1"}
    lab.stop()
    for name in USERS:
        lab.start(name)
    with serving(lab):
        backfill(lab)
        ended = (
            "[r.tags.get('research_jobs/process') for r in i.get_runs() "
            "if r.job_name == 'notebooks_by_day' and 'dagster-celery/task_id' in r.tags "
            "and r.status.value == 'SUCCESS']"
        )
        until(lambda: len(lab.ask(ended)) == 3)
    assert all(lab.ask(ended)), "our executor names its process"
    return "work, with our executor and our run queue"


def cancel(lab: Lab) -> str:
    """What becomes of the notebook that runs when its run is cancelled."""
    with lab.begin("slow") as process:
        (pid,) = lab.wait_for_mark("slow")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(5)
        going_on = alive(pid)
        process.communicate(timeout=LIMIT_S)
    status = lab.last()
    settle(lab)
    took = time.monotonic() - began
    what = "the running notebook goes on to its end" if going_on else "the notebook is ended"
    return f"{status} after {took:.0f} s; {what}"


def lost(lab: Lab) -> str:
    """What becomes of a run whose step's worker is gone."""
    clear(lab, "slow")
    with lab.begin("slow") as process:
        (pid,) = lab.wait_for_mark("slow")
        owner = owner_of(lab, pid)
        lab.end(owner)
        until(lambda: not alive(pid), 10)
        time.sleep(VISIBILITY_S + 25)
        status = lab.last()
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    lab.ask("[i.report_run_canceled(r) for r in i.get_runs(limit=1) if not r.is_finished]")
    settle(lab)
    lab.start(owner)
    return f"its notebook ends with it; after {VISIBILITY_S + 25} s the run is {status}"


def redelivered(lab: Lab) -> str:
    """With late acknowledgement Redis hands the step to the other worker."""
    clear(lab, "slow")
    lab.stop()
    for name in USERS:
        lab.start(name, late=True)
    with lab.begin("slow") as process:
        (pid,) = lab.wait_for_mark("slow")
        began = time.monotonic()
        lab.end(owner_of(lab, pid))
        lab.wait_for_mark("slow", 2)
        again = time.monotonic() - began
        process.communicate(timeout=LIMIT_S)
    return f"the other worker begins it after {again:.0f} s; the run is {lab.last()}"


def settle(lab: Lab) -> None:
    """Free the slots of the newest run, as run monitoring does where a daemon runs."""
    free = "i.event_log_storage.free_concurrency_slots_for_run(r.run_id)"
    lab.ask(f"[{free} for r in i.get_runs(limit=1)]")


def clear(lab: Lab, notebook: str) -> None:
    """Forget a notebook's marks."""
    for mark in lab.marked.glob(f"{notebook}-*"):
        mark.unlink()


def owner_of(lab: Lab, pid: int) -> str:
    """Whose worker a notebook's process belongs to."""
    owner = Path(f"/proc/{pid}").stat().st_uid
    return next(name for name, user in USERS.items() if user == owner)


if __name__ == "__main__":
    sys.exit(main())
