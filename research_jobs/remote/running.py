"""A command on the other machine, as if it were typed there, and a tunnel to its UI."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import IO

from research_jobs.errors import RemoteError
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.remote.connection import ssh_command

__all__ = ["report_there", "run_there", "tunnel"]

_BEGIN = "-- research_jobs report --"


def run_there(name: str, spec: RemoteSpec, words: Sequence[str]) -> int:
    """Run a command of research-jobs there; what it prints is printed here.

    Returns
    -------
    int
        Its exit code.

    Raises
    ------
    RemoteError
        When it cannot be run there; ssh has said why on stderr.
    """
    return _run(name, spec, _command(spec, words))


def report_there(name: str, spec: RemoteSpec, words: Sequence[str], target: IO[bytes]) -> int:
    """Have ``report`` make one file there, and write it here.

    Parameters
    ----------
    name : str
    spec : RemoteSpec
    words : sequence of str
        Without ``--standalone``.
    target : IO
        A file.

    Returns
    -------
    int
        The exit code of ``report``.
    """
    made = _command(spec, words)
    script = (
        f'f=$(mktemp) && {made} --standalone "$f" >/dev/null; c=$?; '
        f'echo \'{_BEGIN}\'; cat "$f"; rm -f "$f"; exit $c'
    )
    with tempfile.TemporaryFile() as said:
        code = _run(name, spec, shlex.join(["sh", "-c", script]), said)
        said.seek(0)
        # A login shell may have printed before it.
        target.write(said.read().partition(f"{_BEGIN}\n".encode())[2])
    return code


def tunnel(name: str, spec: RemoteSpec, ports: Sequence[tuple[int, int]]) -> int:
    """Lead local ports to ports of the other machine's loopback, until ssh ends.

    Parameters
    ----------
    name : str
    spec : RemoteSpec
    ports : sequence of (int, int)
        Here and there.

    Raises
    ------
    RemoteError
    """
    words = [
        word for here, there in ports for word in ("-L", f"127.0.0.1:{here}:127.0.0.1:{there}")
    ]
    done = subprocess.run(
        ssh_command(spec, "-N", "-T", "-o", "ExitOnForwardFailure=yes", *words),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    raise RemoteError(f"the tunnel to {name} ({spec.ssh}) has ended ({done.returncode})")


def _command(spec: RemoteSpec, words: Sequence[str]) -> str:
    # argparse takes the last --project: one of this machine means nothing there.
    return f"{spec.command} {shlex.join([*words, '--project', spec.project])}"


def _run(name: str, spec: RemoteSpec, command: str, target: IO[bytes] | None = None) -> int:
    person = target is None and sys.stdin.isatty() and sys.stdout.isatty()
    sys.stdout.flush()
    done = subprocess.run(
        [
            *ssh_command(spec, "-o", "ClearAllForwardings=yes", "-t" if person else "-T"),
            command,
        ],
        stdin=None if person else subprocess.DEVNULL,
        stdout=target,
        check=False,
    )
    if done.returncode == 255:
        raise RemoteError(
            f"{name} ({spec.ssh}) cannot be reached", hint=f"Does `ssh {spec.ssh}` work?"
        )
    if done.returncode in (126, 127):
        raise RemoteError(
            f"there is no {spec.command} on {name} ({spec.ssh})",
            hint=f"Name it under remotes.{name}.command.",
        )
    return done.returncode
