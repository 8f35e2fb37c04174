"""Start the Jupyter server of a kept process (`kernel_server`), and end it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.errors import RunError
from research_jobs.runtime import processes

if TYPE_CHECKING:
    from research_jobs.supervisor.kept import Visit

__all__ = ["READY", "require_server", "serve_kernel"]

READY = "server.json"  # written once the server listens
_PATIENCE = 60.0


def require_server() -> None:
    """Check that a server can be started.

    Raises
    ------
    RunError
        With what to install.
    """
    missing = [name for name in ("jupyter_server", "ipykernel") if not _is_installed(name)]
    if missing:
        raise RunError(
            f"--kernel needs {' and '.join(missing)}",
            ending="",
            hint=f"Install them: {sys.executable} -m pip install 'research_jobs[debug]'.",
        )


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@contextlib.contextmanager
def serve_kernel(visit: Visit) -> Generator[str]:
    """A server on loopback while the context lasts; the URL with its token.

    Parameters
    ----------
    visit : Visit
        Of a process that is a kernel.

    Raises
    ------
    RunError
        When the server does not start.
    """
    folder, token = visit.process.folder, secrets.token_urlsafe(24)
    places = {
        f"JUPYTER_{name}_DIR": str(folder / "jupyter") for name in ("RUNTIME", "DATA", "CONFIG")
    }
    # A variable, because everybody can see a process's arguments.
    environment = {**os.environ, **places, "JUPYTER_TOKEN": token, "JUPYTER_NO_CONFIG": "1"}
    own = os.getpid()
    (folder / READY).unlink(missing_ok=True)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "research_jobs.cli.kernel_server",
                str(folder),
                str(visit.process.pid),
                visit.process.label,
            ],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us
            preexec_fn=lambda: processes.die_with_parent(own),  # noqa: PLW1509 - no thread runs yet that could matter
        )
    try:
        port = _port(server, folder)
        yield f"http://127.0.0.1:{port}/?token={token}"
    finally:
        # Asked to end, it would shut the kernel down, and with it what the notebook has started.
        server.kill()
        server.wait()


def _port(server: subprocess.Popen[bytes], folder: Path) -> int:
    end = time.monotonic() + _PATIENCE
    while server.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            return int(json.loads((folder / READY).read_bytes())["port"])
        time.sleep(0.1)
    said = (folder / "server.log").read_text(errors="replace").strip()
    raise RunError(
        "the Jupyter server does not start", ending="", details="\n".join(said.splitlines()[-15:])
    )
