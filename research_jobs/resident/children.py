"""What a process that the host has forked does first, and how a command in it meets its client.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from research_jobs.protocol import ProtocolError
from research_jobs.runtime import processes
from research_jobs.runtime.channel import as_text_mapping, receive_message, send_message
from research_jobs.runtime.fresh import replace_environment

__all__ = ["run_command", "work_on_run"]

# After a client that was killed: INT at once, KILL after so many seconds.
ORPHAN_GRACE_S = 10.0


def work_on_run(
    message: Mapping[str, Any],
    connection: socket.socket,
    root: Path,
    work: Callable[[Mapping[str, Any]], int],
) -> int:
    """Work on a run in this process, once the client says so.

    Parameters
    ----------
    message : mapping
        The request.
    connection : socket
        To the client.
    root : Path
        The project's.
    work : callable
        `research_jobs.resident.server.Work.run`.

    Returns
    -------
    int
        The exit code.
    """
    with connection:
        if not _may_begin(connection):
            return 0
    processes.name_process("rj-run", f"research_jobs: run {message['run_id']}")
    _enter(message, root)
    return work(message)


def run_command(
    message: Mapping[str, Any],
    connection: socket.socket,
    streams: Sequence[int],
    command: Callable[[Sequence[str]], int],
) -> int:
    """Run a command in this process as if it were the client's.

    Parameters
    ----------
    message : mapping
        The request.
    connection : socket
        To the client; its signals come over it.
    streams : sequence of int
        The client's standard streams.
    command : callable
        `research_jobs.resident.server.Work.command`.

    Returns
    -------
    int
        The exit code, which the client is told too.
    """
    if not _may_begin(connection):
        return 0
    words = list(map(str, message["words"]))
    processes.name_process("rj-command", f"research-jobs {' '.join(words)}")
    _enter(message, Path(str(message["folder"])))
    connection.settimeout(None)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _open_streams(str(message["encoding"]))
    sys.argv[1:] = words
    ended = threading.Event()
    threading.Thread(
        target=_follow_client, args=(connection, ended), name="client", daemon=True
    ).start()
    status = command(words)
    ended.set()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    with contextlib.suppress(OSError):
        send_message(connection, "Exited", code=status)
    return status


def _enter(message: Mapping[str, Any], folder: Path) -> None:
    replace_environment(as_text_mapping(message["environment"]))
    os.umask(int(message["umask"]))
    os.chdir(folder)


def _may_begin(connection: socket.socket) -> bool:
    """Whether the client still waits."""
    with contextlib.suppress(OSError, ProtocolError):
        message = receive_message(connection)
        return message is not None and message.get("record") == "Go"
    return False


def _follow_client(connection: socket.socket, ended: threading.Event) -> None:
    """Pass the client's signals on to this process, and end it when the client is gone."""
    with contextlib.suppress(OSError, ProtocolError, ValueError):
        while (message := receive_message(connection)) is not None:
            if message.get("record") == "Signal":
                os.kill(os.getpid(), int(message["number"]))
    if not ended.is_set():
        os.kill(os.getpid(), signal.SIGINT)
        if not ended.wait(ORPHAN_GRACE_S):
            os.kill(os.getpid(), signal.SIGKILL)


def _open_streams(encoding: str) -> None:
    """Open the three standard streams as Python does when it starts."""
    # What the terminal's encoding does not have is escaped, as `research_jobs.cli.main` does.
    sys.stdin = sys.__stdin__ = open(0, encoding=encoding, closefd=False)  # noqa: SIM115 - they stay open
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = open(  # noqa: SIM115 - they stay open
            number,
            "w",
            encoding=encoding,
            errors="backslashreplace",
            buffering=1 if number == 2 or os.isatty(number) else -1,
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
