"""Everything at once, for a long time: ``make soak``, and two minutes of it in the suite.

The units of ``deploy/`` run over a real PostgreSQL, each kept running as systemd does. Notebooks on
overlapping schedules work, crash, hang and eat memory. Meanwhile processes of every kind are killed
and frozen, PostgreSQL restarts, and the store's small file system fills. Then it is quiet for some
minutes, and the account must have no remainder.

::

    python tests/support/soak.py --minutes 20 --seed 1
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg2

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1])]

from keeping import BIN, DEPLOY, UNITS, Keeper, free_port, unit_commands, wait_until
from lab import MARKER, marked

STORE_BYTES = 24 * 2**20
# Seconds from one fault to the next, and how long a file system stays full.
FAULTS_S = (3.0, 12.0)
FULL_S = 8.0
# A service is not hit twice within this time: what is never up cannot be asked for anything.
SPARED_S = 25.0
# What a killed worker leaves is removed after so long.
REMOVED_S = 480.0

# What a notebook does, and how many of a hundred do it.
KINDS = {
    "quick": (60, "x = 1\n"),
    "table": (15, "import pandas as pd\nx = pd.DataFrame({'a': range(1000)})\n"),
    "slow": (8, "import time\ntime.sleep(8)\nx = 1\n"),
    "daily": (6, "run_date: str = '2026-01-01'\n# %%\nx = run_date\n"),
    "fails": (4, "import time\nif time.time() % 2 < 1:\n    raise ValueError('no luck')\nx = 1\n"),
    "crashes": (3, "import os, time\nif time.time() % 2 < 1:\n    os.abort()\nx = 1\n"),
    "hangs": (2, "import time\nif time.time() % 2 < 1:\n    time.sleep(1000)\nx = 1\n"),
    "eats": (2, "import time\nx = len(bytearray(600_000_000)) if time.time() % 2 < 1 else 1\n"),
}
CRONS = ("* * * * *", "*/2 * * * *", "1-59/2 * * * *", "* * * * *")
# For fewer notebooks, so that each schedule ticks in a short time: a minute's work is still done.
QUICK_CRONS = ("* * * * *", "* * * * *")
FEW = 30


def write_project(root: Path, count: int, chance: random.Random) -> None:
    """A project of notebooks of all kinds, on schedules that overlap."""
    folder = root / "notebooks"
    folder.mkdir(parents=True)
    weights = [share for share, _ in KINDS.values()]
    # One of each, so that a small number has them too.
    kinds = [*KINDS, *chance.choices(list(KINDS), weights, k=max(0, count - len(KINDS)))]
    lines = ["defaults: {timezone: Australia/Lord_Howe}", "notebooks:"]
    names: list[str] = []
    for number, kind in enumerate(kinds):
        name = f"{kind}_{number}"
        names.append(name)
        tags = ' tags=["parameters"]' if kind == "daily" else ""
        (folder / f"{name}.py").write_text(f"# %%{tags}\n{KINDS[kind][1]}")
        extra = {
            "daily": ", partitions: {by: day, start: 2026-11-20, parameter: run_date}",
            "hangs": ", timeout: 10s",
            "eats": ", memory: 400MB",
        }
        lines.append(f"  {name}: {{outputs: [x]{extra.get(kind, '')}}}")
    lines.append("schedules:")
    # Each minute so much work as two cores can do, whatever is killed.
    for number, cron in enumerate(QUICK_CRONS if count < FEW else CRONS):
        members = chance.sample(names, max(3, min(len(names) // 5, 12)))
        lines.append(f"  s{number}: {{cron: '{cron}', notebooks: [{', '.join(members)}]}}")
    if count >= FEW:
        lines.append("  all: {cron: '*/5 * * * *', notebooks: ['*']}")
    (folder / "manifest.yaml").write_text("\n".join(lines) + "\n")


@dataclass
class Usage:
    """What a service's process used at some moments: resident bytes and open descriptors."""

    pid: int
    memory: list[int] = field(default_factory=list[int])
    descriptors: list[int] = field(default_factory=list[int])


class Soak:
    """The services over a project, what is done to them, and what is left.

    Parameters
    ----------
    folder : Path
    postgres : PostgresServer
        One of its own: it is restarted.
    count : int
        Notebooks.
    seed : int
    """

    def __init__(self, folder: Path, postgres: Any, *, count: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.project = folder / "project"
        self.home = folder / "home"
        self.postgres = postgres
        self.token = f"{os.getpid()}-{seed}"
        write_project(self.project, count, self.chance)
        self.home.mkdir()
        (folder / "tmp").mkdir()
        shutil.copy(DEPLOY / "dagster.yaml", self.home)
        self.database = postgres.create_database()
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_"))
        } | {
            "DAGSTER_HOME": str(self.home),
            "RESEARCH_JOBS_PROJECT": str(self.project),
            "RESEARCH_JOBS_PG_URL": postgres.url(self.database),
            "TMPDIR": str(folder / "tmp"),
            MARKER: self.token,
        }
        self.keepers: dict[str, Keeper] = {}
        self.done: Counter[str] = Counter()
        self.usage: dict[str, list[Usage]] = {name: [] for name in UNITS}
        self._hit: dict[str, float] = {}
        self.small = False

    @contextmanager
    def running(self) -> Generator[None]:
        """The services, while the context lasts."""
        with ExitStack() as stack:
            self.small = stack.enter_context(_small_file_system(self.project / "data"))
            code_port, port = free_port(), free_port()
            (self.project / "deploy").mkdir()
            workspace = (DEPLOY / "workspace.yaml").read_text(encoding="utf-8")
            (self.project / "deploy" / "workspace.yaml").write_text(
                workspace.replace("port: 4266", f"port: {code_port}"), encoding="utf-8"
            )
            for name, command in unit_commands(code_port, port).items():
                self.keepers[name] = stack.enter_context(
                    Keeper(
                        command,
                        folder=self.project,
                        environment=self.environment,
                        log=self.folder / f"{name}.log",
                    )
                )
            wait_until(
                "the first run", lambda: self.query("select count(*) from runs")[0][0], timeout=300
            )
            yield

    def query(self, text: str) -> list[tuple[Any, ...]]:
        """Ask the history itself; nothing while it is away."""
        try:
            with closing(psycopg2.connect(self.postgres.dsn(self.database))) as connection:
                cursor = connection.cursor()
                cursor.execute(text)
                return cursor.fetchall()
        except psycopg2.Error:
            return [(0,)]

    # -- faults -----------------------------------------------------------------------------

    def disturb(self, seconds: float) -> None:
        """Do one thing after the other."""
        faults: Sequence[Callable[[], str | None]] = (
            *[self.kill_service] * 4,
            *[self.freeze_service] * 2,
            *[self.kill_child] * 5,
            self.restart_postgres,
            self.fill_store,
        )
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(self.chance.uniform(*FAULTS_S))
            said = self.chance.choice(faults)()
            if said is not None:
                self.done[said] += 1
                print(f"{datetime.now(UTC):%H:%M:%S} {said}", flush=True)
            self.measure()

    def _choose(self) -> str | None:
        now = time.monotonic()
        names = [name for name in UNITS if now - self._hit.get(name, 0.0) > SPARED_S]
        if not names:
            return None
        name = self.chance.choice(names)
        self._hit[name] = now
        return name

    def kill_service(self) -> str | None:
        name = self._choose()
        if name is None:
            return None
        number = self.chance.choice((signal.SIGKILL, signal.SIGTERM))
        with suppress(ProcessLookupError):
            self.keepers[name].process.send_signal(number)
        return f"{number.name} {name}"

    def freeze_service(self) -> str | None:
        name = self._choose()
        if name in (None, "watch"):  # who would end a watch that hangs: systemd, not our keeper
            return None
        # Until the watch has it started again, and as long as nothing else hits it.
        self._hit[name] += 150.0
        with suppress(ProcessLookupError):
            self.keepers[name].process.send_signal(signal.SIGSTOP)
        return f"SIGSTOP {name}"

    def kill_child(self) -> str | None:
        """Kill any process below the services: run workers, guardians, notebooks, templates."""
        own = {keeper.process.pid for keeper in self.keepers.values()}
        others = [pid for pid in self.processes() if pid not in own]
        if not others:
            return None
        pid = self.chance.choice(others)
        with suppress(OSError):
            name = psutil.Process(pid).name()
            os.kill(pid, signal.SIGKILL)
            return f"SIGKILL of a {name.split(' ')[0].split(':')[0]}"
        return None

    def restart_postgres(self) -> str:
        self.postgres.stop()
        time.sleep(self.chance.uniform(0, 5))
        self.postgres.start()
        return "PostgreSQL restarted"

    def fill_store(self) -> str | None:
        if not self.small:
            return None
        path = self.project / "data" / "filler"
        with suppress(OSError), path.open("wb") as file:
            while True:
                file.write(b"x" * 65536)
        time.sleep(FULL_S)
        path.unlink()
        return "the store was full"

    # -- what is left -------------------------------------------------------------------------

    def processes(self) -> dict[int, str]:
        """All living processes that the services have started, and what they are."""
        return marked(self.token, spares=True)

    def measure(self) -> None:
        """Note what the services' processes use."""
        for name, keeper in self.keepers.items():
            with suppress(OSError, psutil.Error):
                process = psutil.Process(keeper.process.pid)
                series = self.usage[name]
                if not series or series[-1].pid != process.pid:
                    series.append(Usage(process.pid))
                series[-1].memory.append(process.memory_info().rss)
                series[-1].descriptors.append(process.num_fds())

    def settle(self, seconds: float) -> None:
        """Wait until all works again, every schedule has ticked once more, and nothing runs."""
        time.sleep(seconds)
        going = "select count(*) from runs where status not in ('SUCCESS', 'FAILURE', 'CANCELED')"
        # Schedules tick each minute, so there is a moment without runs only in between.
        wait_until("the end of all runs", lambda: self.query(going) == [(0,)], timeout=600)

    def account(self, start: float) -> dict[str, Any]:
        """What became of every tick since a moment, by our own command."""
        moment = datetime.fromtimestamp(start, UTC).isoformat()
        done = subprocess.run(
            [BIN / "research-jobs", "account", "--json", "--from", moment],
            cwd=self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode in (0, 1), done.stderr
        return json.loads(done.stdout)

    def leftovers(self) -> list[str]:
        """What must not be there once the services have ended."""
        found = [f"process {pid}: {command}" for pid, command in self.processes().items()]
        slots = self.query("select count(*) from concurrency_slots where run_id is not null")[0][0]
        if slots:
            found.append(f"{slots} slots are claimed")
        pending = self.query("select count(*) from pending_steps")[0][0]
        if pending:
            found.append(f"{pending} steps wait for a slot")
        for place in (self.project / ".research_jobs" / "runs", self.folder / "tmp"):
            found += [
                f"file {path}"
                for path in (place.iterdir() if place.is_dir() else ())
                # Dagster's code server leaves the socket of its child when it is killed, and the
                # watch removes the folders of killed workers some minutes after their runs.
                if not path.is_socket() and time.time() - path.stat().st_mtime > REMOVED_S
            ]
        found += [
            f"file {path}"
            for path in (self.project / "data").rglob(".*")
            if path.name.startswith((".tmp", ".staging", ".incoming"))
        ]
        return found

    def growth(self) -> list[str]:
        """Services whose descriptors or memory grew in a process that lived long enough."""
        said: list[str] = []
        for name, series in self.usage.items():
            for usage in series:
                third = len(usage.descriptors) // 3
                if third < 5:
                    continue
                for what, values, share in (
                    ("descriptors", usage.descriptors, 1.5),
                    ("memory", usage.memory, 1.3),
                ):
                    before = sorted(values[:third])[third // 2]
                    after = sorted(values[-third:])[third // 2]
                    if after > share * before + 10:
                        said.append(f"{name}: {what} {before:,} -> {after:,}")
        return said


@contextmanager
def _small_file_system(folder: Path) -> Generator[bool]:
    """A tmpfs of a few MiB at a folder; False where this user may not mount one."""
    folder.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES}", "none", folder],
        check=False,
        capture_output=True,
    ).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=False)


def soak(
    folder: Path, postgres: Any, *, minutes: float, count: int, seed: int, quiet_s: float = 600
) -> list[str]:
    """Run it; what is wrong afterwards, nothing if all is well."""
    one = Soak(folder, postgres, count=count, seed=seed)
    start = time.time()
    wrong: list[str] = []
    with one.running():
        one.disturb(minutes * 60)
        one.settle(quiet_s)
        account = one.account(start)
    wrong += one.leftovers()
    wrong += one.growth()
    numbers = {name: value for name, value in account.items() if name != "ticks"}
    runs = one.query("select status, count(*) from runs group by status order by status")
    print(json.dumps({"account": numbers, "runs": dict(runs), "faults": dict(one.done)}, indent=2))
    print({name: keeper.starts for name, keeper in one.keepers.items()})
    parts = ("ran", "nothing_to_do", "healed", "missed", "failed", "unaccounted")
    if account["owed"] != sum(account[part] for part in parts):
        wrong.append(f"the account has a remainder: {numbers}")
    ticks = account["ticks"]
    # A tick that was missed is made up for by the next one, which may fail, but is there.
    followed = {
        tick["schedule"]: tick["at"]
        for tick in ticks
        if tick["became"] in parts[:3] or tick["became"] == "failed"
    }
    for tick in ticks:
        lost = tick["became"] == "missed" and tick["at"] > followed.get(tick["schedule"], "")
        if lost or tick["became"] == "unaccounted":
            wrong.append(f"{tick['became']}: {tick['schedule']} {tick['at']} {tick['reason']}")
    return wrong


def main(words: Sequence[str]) -> int:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--notebooks", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    arguments = parser.parse_args(words)
    print(f"seed {arguments.seed}", flush=True)
    from conftest import start_postgres

    folder = Path(tempfile.mkdtemp(prefix="rj-soak-"))
    servers = start_postgres()
    try:
        wrong = soak(
            folder,
            next(servers),
            minutes=arguments.minutes,
            count=arguments.notebooks,
            seed=arguments.seed,
        )
    finally:
        next(servers, None)
    print("\n".join(wrong) if wrong else "Nothing is wrong.")
    if arguments.keep or wrong:
        print(f"The logs are in {folder}.")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
