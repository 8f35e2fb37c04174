"""What the end-to-end tests share: a small project, Dagster's services over it, a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser
from keeping import BIN, free_port, unit_command, wait_until

NOTEBOOK = """
# %% [markdown]
# # Prices
#
# Three closes, for a browser to find.

# %% tags=["parameters"]
scale: float = 1.0  # multiplies each close

# %% Prices
import matplotlib.pyplot as plt
import pandas as pd

prices = pd.DataFrame({"ticker": ["ALPHA", "BRAVO", "CHARLIE"], "close": [101.25, 7.5, 33.0]})
prices["close"] *= scale
print("three closes")
prices

# %% Chart
plt.plot(prices["close"])
plt.show()
"""


def environment(**extra: str) -> dict[str, str]:
    """The environment without settings of ours or Dagster's, and with `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_"))
    }
    return kept | extra


def write_project(root: Path, notebooks: Mapping[str, str], manifest: str = "") -> Path:
    """A project's folder."""
    for name, text in notebooks.items():
        path = root / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    (root / "notebooks" / "manifest.yaml").write_text(
        textwrap.dedent(manifest).lstrip("\n"), encoding="utf-8"
    )
    return root


@contextmanager
def service(
    command: list[Any], *, cwd: Path, env: Mapping[str, str], log: Path
) -> Generator[subprocess.Popen[bytes]]:
    """A process of its own group while the context lasts; its log is shown when a test fails."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        sys.stderr.write(log.read_text(errors="replace")[-8000:])
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True)
class Ui:
    """A running ``research-jobs ui``."""

    url: str
    reports_url: str
    project: Path
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def running_ui(project: Path, folder: Path, **extra: str) -> Generator[Ui]:
    """``research-jobs ui`` over a project, up and answering."""
    port, reports_port = free_port(), free_port()
    log = folder / "ui.out"
    command = [
        *(BIN / "research-jobs", "ui", "--project", project, "--verbose"),
        *("--port", str(port), "--reports-port", str(reports_port)),
    ]
    with service(command, cwd=folder, env=environment(**extra), log=log) as process:

        def is_up() -> bool:
            if process.poll() is not None:
                pytest.fail(f"the UI ended: {log.read_text(errors='replace')[-4000:]}")
            return "Ctrl-C" in log.read_text(errors="replace")

        wait_until("the UI", is_up)
        yield Ui(
            f"http://127.0.0.1:{port}", f"http://127.0.0.1:{reports_port}", project, process, log
        )


@pytest.fixture
def wait_for() -> Callable[..., Any]:
    """``wait_for("the run", condition, timeout=60)``: what the condition gives once it is true."""
    return wait_until


@pytest.fixture
def prices_project(tmp_path: Path) -> Path:
    """A project with one quick notebook, which shows a table and a chart."""
    return write_project(
        tmp_path / "project",
        {"prices.py": NOTEBOOK},
        "notebooks: {prices: {outputs: [prices]}}",
    )


@pytest.fixture
def start_ui(tmp_path: Path) -> Iterator[Callable[..., Ui]]:
    """``start_ui(project)``: a running UI, ended with the test."""
    with ExitStack() as stack:
        yield lambda project, **extra: stack.enter_context(running_ui(project, tmp_path, **extra))


@pytest.fixture
def page(chromium: str) -> Iterator[Any]:
    """A page of a headless browser."""
    with open_browser(chromium) as browser:
        opened = browser.new_page(viewport={"width": 1440, "height": 900})
        opened.set_default_timeout(60_000)
        yield opened


class Helpers:
    """The functions above, for fixtures that live longer than a test."""

    BIN = BIN
    environment = staticmethod(environment)
    free_port = staticmethod(free_port)
    service = staticmethod(service)
    wait_until = staticmethod(wait_until)
    write_project = staticmethod(write_project)
    running_ui = staticmethod(running_ui)
    unit_command = staticmethod(unit_command)

    @staticmethod
    def answers(port: int) -> bool:
        """Whether something listens on a port."""
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def e2e() -> type[Helpers]:
    """`Helpers`."""
    return Helpers
