"""Ask a project's host for a process.

Standard library only: a command asks before it imports anything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.process import handling
from research_jobs.project import Project
from research_jobs.protocol import ProtocolError
from research_jobs.resident.address import (
    host_key,
    identity,
    peer_user,
    socket_address,
    socket_folder,
)
from research_jobs.runtime import processes
from research_jobs.runtime.channel import receive_descriptors, receive_message, send_message

__all__ = ["NoHostError", "ask", "ask_for_template", "connect", "run_command", "start_run"]

# How long a host may take to answer, seconds: it loads itself anew when its code has changed.
ANSWER_S = 20.0


class NoHostError(ResearchJobsError):
    """There is no host that can serve this, and why."""


def connect(project: Project, *, environment: Mapping[str, str] | None = None) -> socket.socket:
    """A connection to the project's host.

    Parameters
    ----------
    project : Project
    environment : mapping of str to str, optional
        Chooses the host; by default this process's.

    Returns
    -------
    socket
        It times out after `ANSWER_S`.

    Raises
    ------
    NoHostError
        When none listens, or the one that does is another user's.
    """
    if sys.platform != "linux":
        raise NoHostError("a host needs Linux")
    key = host_key(os.environ if environment is None else environment)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with socket_address(socket_folder(project), key) as address:
            connection.connect(address)
        user = peer_user(connection)
    except OSError as error:
        connection.close()
        raise NoHostError("no host runs for this project and environment") from error
    if user != os.getuid():
        connection.close()
        raise NoHostError("the host that listens belongs to another user")
    connection.settimeout(ANSWER_S)
    return connection


def ask(connection: socket.socket, kind: str, *, fds: Sequence[int] = (), **fields: Any) -> Any:
    """Send a request and return the answer.

    Parameters
    ----------
    connection : socket
        As from `connect`.
    kind : str
        See `research_jobs.resident.server`.
    fds : sequence of int
        Descriptors that go with it.
    **fields
        Of the request.

    Returns
    -------
    dict
        The fields of the answer.

    Raises
    ------
    NoHostError
        When it declines, ends, or speaks another protocol.
    """
    answer, descriptors = _ask(connection, kind, fds, fields)
    for descriptor in descriptors:
        os.close(descriptor)
    return answer


def ask_for_template(connection: socket.socket, python: str) -> tuple[Any, int]:
    """The template of an interpreter: what is known of it, and a descriptor, for us to close."""
    answer, descriptors = _ask(connection, "Template", (), {"interpreter": python})
    if len(descriptors) != 1:
        raise NoHostError("the host has ended")
    return answer, descriptors[0]


def _ask(
    connection: socket.socket, kind: str, fds: Sequence[int], fields: Mapping[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    try:
        send_message(connection, kind, fds=fds, **identity(), **fields)
        answer, descriptors = receive_descriptors(connection, 1)
    except (OSError, ProtocolError) as error:
        raise NoHostError(f"the host does not answer ({error})") from error
    if answer is None:
        raise NoHostError("the host has ended")
    if answer.get("record") == "Declined":
        raise NoHostError(f"the host declines: {answer.get('reason')}")
    return answer, descriptors


def start_run(project: Project, run_id: str, instance: str) -> int:
    """Have a process work on a run.

    Parameters
    ----------
    project : Project
    run_id : str
    instance : str
        Where the run is, in Dagster's own form.

    Returns
    -------
    int
        Its pid.

    Raises
    ------
    NoHostError
        When the run was not started, and will not be.
    """
    with connect(project) as connection:
        answer = ask(
            connection,
            "Run",
            run_id=run_id,
            instance=instance,
            environment=dict(os.environ),
            umask=processes.current_umask(),
        )
        _go(connection)
        return int(answer["pid"])


def run_command(project: Project, words: Sequence[str]) -> int:
    """Run one of our commands in a process that the host forks, as if it were this one.

    That process has our standard streams, environment and working directory. It gets the signals
    that this one gets, and is interrupted when this one is gone.

    Parameters
    ----------
    project : Project
    words : sequence of str
        Those behind ``research-jobs``.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    NoHostError
        When the command was not started, and will not be.
    """
    with connect(project) as connection:
        ask(
            connection,
            "Command",
            fds=(0, 1, 2),
            words=list(words),
            environment=dict(os.environ),
            umask=processes.current_umask(),
            folder=str(Path.cwd()),
            encoding=sys.stdout.encoding,
        )

        def pass_on(number: int, _: object) -> None:
            with contextlib.suppress(OSError):
                send_message(connection, "Signal", number=number)

        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        with handling(dict.fromkeys(signals, pass_on)):
            _go(connection)
            connection.settimeout(None)
            answer = receive_message(connection)
    if answer is None:
        sys.stderr.write("research-jobs: the process of this command was killed\n")
        return 1
    return int(answer["code"])


def _go(connection: socket.socket) -> None:
    try:
        send_message(connection, "Go")
    except OSError as error:
        raise NoHostError(f"the host does not answer ({error})") from error
