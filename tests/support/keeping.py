"""Keeps programs running as systemd does, with the units of ``deploy/``: for tests."""

from __future__ import annotations

import configparser
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BIN = Path(sys.executable).parent
UNITS = ("host", "code", "webserver", "daemon", "watch")


def unit_command(unit: str, changes: Mapping[str, str]) -> list[str]:
    """A unit's ExecStart, with the server's folders and ports replaced."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(DEPLOY / unit, encoding="utf-8")
    text = parser["Service"]["ExecStart"]
    for old, new in changes.items():
        assert old in text or old.startswith("--port"), f"{unit} does not say {old}"
        text = text.replace(old, new)
    return shlex.split(text)


def unit_commands(code_port: int, port: int) -> dict[str, list[str]]:
    """What each unit starts, of this environment and on other ports."""
    ports = {
        "code": {"--port 4266": f"--port {code_port}"},
        "webserver": {"--port 3000": f"--port {port}"},
    }
    return {
        name: unit_command(
            f"research-jobs-{name}.service",
            {"/srv/research-jobs/.venv/bin/": f"{BIN}/", **ports.get(name, {})},
        )
        for name in UNITS
    }


class Keeper:
    """A program that is started again two seconds after each end, while the context lasts.

    Parameters
    ----------
    command : list of str
    folder : Path
        Its working directory.
    environment : mapping
    log : Path
    """

    PAUSE_S = 2.0

    def __init__(
        self, command: list[str], *, folder: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        self._command = command
        self._folder = folder
        self._environment = dict(environment)
        self._log = log
        self._stop = threading.Event()
        self.process = self._start()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self.starts = 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
                break
        self._thread.join(30)

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as sink:
            return subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )

    def _keep(self) -> None:
        while True:
            self.process.wait()
            if self._stop.wait(self.PAUSE_S):
                return
            self.process = self._start()
            self.starts += 1


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(
    what: str, condition: Callable[[], Any], *, timeout: float = 90, interval: float = 0.25
) -> Any:
    """What `condition` gives, once it is not false."""
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout} s")
        time.sleep(interval)
