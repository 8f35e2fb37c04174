"""The notebook's process after its run has failed: it waits for somebody who looks at it.

It listens on a socket in its folder. A visit is a terminal, whose descriptors come over the
socket, or a Jupyter kernel. It lasts as long as the visitor's connection. The guardian ends the
process (`keeping`).

Standard library only at the top, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

from research_jobs.outcome import Outcome, State
from research_jobs.protocol import Keep, ProtocolError, RunRequest
from research_jobs.runtime.channel import (
    address_in,
    as_text_mapping,
    message,
    receive_descriptors,
    receive_message,
    send_message,
)
from research_jobs.runtime.ownership import owns_run
from research_jobs.runtime.remaining import Position, Remaining

__all__ = ["SOCKET", "offer", "wait_for_visits"]

SOCKET = "socket"
"""The name of the socket in its folder."""


def offer(keep: Keep, position: Position, result: Outcome) -> tuple[socket.socket, bytes] | None:
    """Whether this process is worth keeping after a result.

    Returns
    -------
    (socket, bytes) or None
        A socket that listens, and what the guardian is told before the result. None where the run
        succeeded, and where no cell has begun.
    """
    failed = result.state is State.FAILED or bool(result.refused)
    if position.module is None or not (failed or keep.always):
        return None
    listener = socket.socket(socket.AF_UNIX)
    try:
        with address_in(keep.folder, SOCKET) as address:
            listener.bind(address)
        listener.listen()
    except OSError:
        listener.close()
        return None
    rest = position.cells[position.index + (position.error is not None) :]
    cells = [[cell.number, cell.title[:200] if cell.title else None] for cell in rest]
    return listener, message("Keep", remaining=cells)


def wait_for_visits(
    listener: socket.socket, channel: int, request: RunRequest, position: Position
) -> None:
    """Stay for visits, if the guardian says so; returns only if it does not.

    Parameters
    ----------
    listener : socket
        From `offer`.
    channel : int
        To the guardian.
    request : RunRequest
    position : Position
    """
    with socket.socket(fileno=os.dup(channel)) as guardian:
        try:
            answer = receive_message(guardian)
        except (OSError, ProtocolError):
            return
    keep, module = request.keep, position.module
    if answer is None or answer.get("record") != "Stay" or keep is None or module is None:
        return
    # importlib has removed it with the failure; pickling its classes needs it.
    sys.modules.setdefault(request.module, module)
    for name, handler in ((signal.SIGINT, signal.SIG_IGN), (signal.SIGTERM, signal.SIG_DFL)):
        signal.signal(name, handler)
    rest = Remaining(
        position,
        Path(keep.source or request.path),
        {**request.parameters, **request.secret_parameters},
        request.parameter_types,
    )
    _remember_error(position.error)
    while owns_run():
        connection, _ = listener.accept()
        with connection:
            try:
                _visit(connection, rest, position, Path(keep.folder))
            except BaseException as error:  # noqa: BLE001 - the next visit may go better
                with contextlib.suppress(OSError):
                    why = "".join(traceback.format_exception_only(error)).strip()
                    details = traceback.format_exc()
                    send_message(connection, "Refused", text=why, details=details)


def _visit(connection: socket.socket, rest: Remaining, position: Position, folder: Path) -> None:
    asked, descriptors = receive_descriptors(connection, 3)
    if asked is None:
        return
    try:
        prompt = _import_prompt()
    except ModuleNotFoundError as error:
        what = f"a prompt needs {error.name}: {sys.executable} -m pip install {error.name}"
        send_message(connection, "Refused", text=what)
        return
    os.environ.update(as_text_mapping(asked.get("environment", {})))
    try:
        if asked.get("record") == "Terminal":
            prompt.open_terminal(connection, descriptors, rest, position)
        else:
            prompt.open_kernel(connection, folder, rest, position)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _import_prompt() -> Any:
    from research_jobs.runtime import prompt

    return prompt


def _remember_error(error: BaseException | None) -> None:
    """What ``%debug`` and ``pdb.pm()`` start from."""
    if error is not None:
        sys.last_type, sys.last_value, sys.last_traceback = (
            type(error),
            error,
            error.__traceback__,
        )
        setattr(sys, "last_exc", error)  # noqa: B010 - since Python 3.12
