"""A small project in a temporary folder, and real runs in it with everything they leave behind."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from research_jobs.outcome import Outcome
from research_jobs.protocol import OutputRequest, RunRequest
from research_jobs.runtime.notebook_process import SPARE_NAME
from research_jobs.supervisor.run import CancelToken, Supervisor

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
MARKER = "RESEARCH_JOBS_TEST_MARKER"


@dataclass(frozen=True)
class Ran:
    """What became of a run, and what it left in its logs."""

    result: Outcome
    stdout: bytes
    stderr: bytes

    @property
    def headline(self) -> str:
        """The failure's one line."""
        assert self.result.failure is not None, self.result
        return self.result.failure.headline


class Lab:
    """A project, and a way to run single notebooks of it.

    Parameters
    ----------
    root : Path
        An empty folder.
    supervisor : Supervisor
    """

    def __init__(self, root: Path, supervisor: Supervisor | None) -> None:
        self.root = root
        self.supervisor = supervisor
        self.notebooks = root / "notebooks"
        self.notebooks.mkdir(parents=True, exist_ok=True)
        self.store = root / "data"
        self.store.mkdir(exist_ok=True)
        self.logs = root / "logs"
        self.logs.mkdir(exist_ok=True)

    def add(self, name: str) -> Path:
        """Take one of the notebooks of tests/notebooks."""
        return Path(shutil.copy(NOTEBOOKS / f"{name}.py", self.notebooks / f"{name}.py"))

    def write(self, name: str, source: str) -> Path:
        """Make a file below notebooks/."""
        path = self.notebooks / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return path

    def request(
        self,
        name: str,
        *,
        outputs: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> RunRequest:
        """A request for a notebook, with a short grace."""
        path = self.notebooks / f"{name}.py"
        if not path.exists():
            self.add(name)
        staging = None
        if outputs:
            staging = self.root / "staging" / secrets.token_hex(4)
            staging.mkdir(parents=True)
        settings: dict[str, Any] = {
            "run_id": secrets.token_hex(6),
            "notebook": name,
            "module": name.replace("/", "."),
            "path": str(path),
            "project_root": str(self.root),
            "store": str(self.store),
            "working_directory": str(path.parent),
            "sys_path": (str(path.parent), str(self.notebooks), str(self.root)),
            "outputs": tuple(OutputRequest(output) for output in outputs),
            "staging": str(staging) if staging else None,
            "grace_s": 0.4,
            "environment": {"LAB_ROOT": str(self.root), **(environment or {})},
        }
        return RunRequest(**settings | fields)

    def run(
        self,
        name: str | RunRequest,
        *,
        isolation: Any = None,
        python: str | None = None,
        cancel: CancelToken | None = None,
        **fields: Any,
    ) -> Ran:
        """Run a notebook for real and take its logs."""
        assert self.supervisor is not None
        request = self.request(name, **fields) if isinstance(name, str) else name
        out, err = (self.logs / f"{request.run_id}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr:
            result = self.supervisor.run(
                request,
                stdout=stdout.fileno(),
                stderr=stderr.fileno(),
                isolation=isolation,
                python=python,
                cancel=cancel,
            )
        return Ran(result, out.read_bytes(), err.read_bytes())

    def log(self, request: RunRequest) -> bytes:
        """What a run has written to stdout so far."""
        path = self.logs / f"{request.run_id}.out"
        return path.read_bytes() if path.exists() else b""

    def digest(self) -> dict[str, str]:
        """Every file of the store and a digest of its bytes."""
        return {
            str(path.relative_to(self.store)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.store.rglob("*"))
            if path.is_file()
        }


def marked(marker: str, *, spares: bool = False) -> dict[int, str]:
    """The living processes that were started with a marker in their environment.

    A template keeps one guardian with a process ready for the next run; `spares` counts them too.
    """
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
            name = (entry / "comm").read_text().strip()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if state in (b"Z", b"X") or (name == SPARE_NAME and not spares):
            continue
        if f"{MARKER}={marker}".encode() in environment.split(b"\0"):
            found[int(entry.name)] = command
    return found


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Poll until something is true; fails loudly when it does not become so."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session")
def marker() -> Iterator[str]:
    """A value in the environment of everything that these tests start."""
    value = secrets.token_hex(8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARKER, value)
        yield value


@pytest.fixture(scope="session")
def shared_supervisor(marker: str) -> Iterator[Supervisor]:
    """One supervisor for the tests of a session, so that its template starts once."""
    with Supervisor(
        preload=("numpy", "pandas", "matplotlib.pyplot", "multiprocessing")
    ) as supervisor:
        yield supervisor


@pytest.fixture
def lab(tmp_path: Path, marker: str, shared_supervisor: Supervisor) -> Iterator[Lab]:
    """A lab whose store holds an earlier output; what the invariant says is asserted at the end.

    After any failure the previous outputs are byte for byte as before, and no process that the
    run started is alive.
    """
    made = Lab(tmp_path, shared_supervisor)
    previous = made.store / "earlier" / "frame.parquet"
    previous.parent.mkdir()
    pq.write_table(pa.table({"a": [1, 2, 3]}), previous)
    before = made.digest()
    already = set(marked(marker))
    yield made
    assert made.digest() == before
    allowed = {*already, *shared_supervisor.template_pids}
    wait_until(lambda: not set(marked(marker)) - allowed, 5.0)
