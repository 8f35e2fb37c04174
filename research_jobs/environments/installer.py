"""uv where there is one, else venv and pip: what resolves and installs packages.

Indexes and mirrors are theirs to know: ``UV_*`` and ``uv.toml``, or ``PIP_*`` and ``pip.conf``.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from research_jobs.environments.interpreters import Base
from research_jobs.environments.versions import parse_lock
from research_jobs.errors import DependencyError, InstallError
from research_jobs.runtime import processes

__all__ = ["Cancel", "Installer"]

_KEPT_LINES = 40
_SAID_LINES = 2_000
# An installer that takes longer hangs: seconds.
_LONGEST_S = 3600.0
_KILLS = 50
_LINE = 4096
_HEADLINE = 300
_CROSS = "\N{MULTIPLICATION SIGN}"
_UV_MARKS = f"{_CROSS}╰─▶│├ "


class Cancel(Protocol):
    """What ends an installation early."""

    @property
    def is_cancelled(self) -> bool:
        """bool: whether it was asked to end."""
        ...

    def listening(self, listener: Callable[[], None], /) -> AbstractContextManager[None]:
        """Call a function when it is."""
        ...


def _plain(text: str) -> str:
    return text


@dataclass(frozen=True)
class Installer:
    """Runs uv or pip.

    Parameters
    ----------
    root : Path
        The project: where a ``uv.toml`` is looked for.
    say : callable
        Receives lines of the log.
    hide : callable
        Masks secrets.
    cancel : Cancel, optional
    """

    root: Path
    say: Callable[[str], None]
    hide: Callable[[str], str] = _plain
    cancel: Cancel | None = None

    def resolve(self, wanted: Sequence[str], base: Base) -> tuple[str, ...]:
        """Names and versions that meet requirements.

        Raises
        ------
        InstallError
        """
        if not wanted:
            return ()
        with tempfile.TemporaryDirectory() as folder:
            asked, answer = Path(folder, "wanted.txt"), Path(folder, "resolved.txt")
            asked.write_text("".join(f"{each}\n" for each in wanted), encoding="utf-8")
            uv = shutil.which("uv")
            if uv is not None:
                command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
                self._run([*command, "--python", base.path, "--output-file", answer, asked])
                text = answer.read_text(encoding="utf-8")
            else:
                command = [*_pip(base.path), "install", "--dry-run", "--ignore-installed"]
                self._run([*command, "--quiet", "--report", answer, "--requirement", asked])
                report = json.loads(answer.read_bytes())
                items = [item["metadata"] for item in report["install"]]
                text = "".join(f"{item['name']}=={item['version']}\n" for item in items)
        try:
            return parse_lock(text, "resolved").pins
        except DependencyError as error:  # a local folder, by its settings
            raise InstallError(f"what was resolved cannot be locked: {error.what}") from None

    def install(self, folder: Path, pins: Sequence[str], base: Base, held: int) -> None:
        """Make an environment of exactly these packages.

        Parameters
        ----------
        folder : Path
            Empty.
        pins : sequence of str
        base : Base
        held : int
            A descriptor that the installer keeps open: a lock that outlives us while it works.

        Raises
        ------
        InstallError
        """
        python = str(folder / "bin" / "python")
        uv = shutil.which("uv")
        if uv is not None:
            self._run([uv, "venv", "--quiet", "--no-project", "--python", base.path, folder], held)
        else:
            self._run([base.path, "-m", "venv", "--without-pip", folder], held)
        if not pins:
            return
        with tempfile.TemporaryDirectory() as aside:
            asked = Path(aside, "locked.txt")
            asked.write_text("".join(f"{pin}\n" for pin in pins), encoding="utf-8")
            if uv is not None:
                command = [uv, "pip", "install", "--quiet", "--python", python, "--no-deps"]
                check: list[Any] = [uv, "pip", "check", "--quiet", "--python", python]
            else:
                command = [*_pip(python), "install", "--quiet", "--ignore-installed", "--no-deps"]
                check = [*_pip(python), "check"]
            self._run([*command, "--requirement", asked], held)
            self._run(check, held)

    def _run(self, command: Sequence[Any], held: int | None = None) -> None:
        """Run a program; what it says goes into the log, and into the error where it fails."""
        if self.cancel is not None and self.cancel.is_cancelled:
            raise InstallError("cancelled before it was made")
        try:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self.root,
                env=_environment(self.root),
                start_new_session=True,
                pass_fds=() if held is None else (held,),
            )
        except OSError as error:
            raise InstallError(f"{command[0]} cannot be started: {error.strerror}") from error

        assert process.stdout is not None
        lines: deque[str] = deque(maxlen=_KEPT_LINES)
        end = partial(_end, process.pid)
        listening = self.cancel.listening(end) if self.cancel is not None else nullcontext()
        limit = threading.Timer(_LONGEST_S, end)
        limit.daemon = True
        limit.start()
        with process.stdout, listening:
            try:
                for number in itertools.count():
                    line = process.stdout.readline(_LINE)
                    if not line:
                        break
                    lines.append(self.hide(line.decode("utf-8", "replace").rstrip()))
                    if number < _SAID_LINES:
                        self.say(lines[-1])
                status = process.wait()
            except BaseException:
                end()
                process.wait()
                raise
            finally:
                limit.cancel()
        if status != 0:
            raise InstallError(
                _reason(lines) or f"{command[0]} ended with status {status}",
                details="\n".join(lines),
            )


def _end(session: int) -> None:
    """End an installer and all that it started."""
    # The kernel reaches what a group forks meanwhile; a compiler may have its own group.
    processes.signal_group(session, signal.SIGKILL)
    for _ in range(_KILLS):
        left = processes.session_members(session)
        if not left:
            return
        processes.signal_all(left, signal.SIGKILL)
        time.sleep(0.01)


def _pip(python: str) -> list[str]:
    """Our own pip, working on another interpreter."""
    if importlib.util.find_spec("pip") is None:
        raise InstallError(
            "neither uv nor pip is installed",
            hint=f"Put uv on the PATH, or run {sys.executable} -m ensurepip.",
        )
    return [sys.executable, "-m", "pip", "--python", python]


def _environment(root: Path) -> dict[str, str]:
    """Ours, without what would send packages elsewhere or show as installed what is not."""
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX")
    return {
        **{name: value for name, value in os.environ.items() if name not in left_out},
        "NO_COLOR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_PROGRESS_BAR": "off",
        "PIP_USER": "0",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        **_uv_cache(root),
    }


def _uv_cache(root: Path) -> dict[str, str]:
    """A cache in the project where uv could not write its own, as in a service."""
    if "UV_CACHE_DIR" in os.environ:
        return {}
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "uv")
    existing = next(path for path in (cache, *cache.parents) if path.exists())
    if os.access(existing, os.W_OK):
        return {}
    return {"UV_CACHE_DIR": str(root / ".research_jobs" / "cache" / "uv")}


def _reason(lines: Sequence[str]) -> str:
    """Why an installer failed, in its own words, as one line."""
    said = [line.strip() for line in lines if line.strip()]
    for number, line in enumerate(said):
        if line.startswith("ERROR:"):  # pip's
            return line.removeprefix("ERROR:").strip()[:_HEADLINE]
        if line.startswith(("error:", _CROSS)):  # uv's, with its causes in the lines below
            parts = (part.strip(_UV_MARKS) for part in said[number:])
            return ": ".join(re.sub(r"^(?:error|cause):\s*", "", part) for part in parts)[
                :_HEADLINE
            ]
    return said[-1][:_HEADLINE] if said else ""
