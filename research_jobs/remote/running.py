"""A command on the other machine, as if it were typed there, and a tunnel to its UI."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, BinaryIO, NoReturn, cast

from research_jobs.errors import RemoteError
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.remote.connection import ssh_command, where_is_it

__all__ = ["kernel_there", "report_there", "run_there", "tunnel"]

_BEGIN = "-- research_jobs report --"
_KERNEL = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=")


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


def report_there(name: str, spec: RemoteSpec, words: Sequence[str]) -> tuple[int, bytes]:
    """Have ``report`` make one file there.

    Parameters
    ----------
    name : str
    spec : RemoteSpec
    words : sequence of str
        Without ``--standalone``.

    Returns
    -------
    code : int
        The exit code of ``report``.
    page : bytes

    Raises
    ------
    RemoteError
        When it cannot be run there, or is of a version that prints no page.
    """
    made = _command(spec, words)
    # Not by a file there: the command may become another user, who cannot write ours.
    script = f"echo '{_BEGIN}'; {made} --standalone -"
    with tempfile.TemporaryFile() as said:
        code = _run(name, spec, shlex.join(["sh", "-c", script]), said)
        said.seek(0)
        # A login shell may have printed before it.
        page = said.read().partition(f"{_BEGIN}\n".encode())[2]
    if not code and not page.startswith(b"<!"):
        raise RemoteError(
            f"research_jobs on {name} ({spec.ssh}) cannot print a report",
            hint="Upgrade it there.",
        )
    return code, page


def tunnel(
    name: str, spec: RemoteSpec, ports: Sequence[tuple[int, int]], ready: Callable[[bool], None]
) -> NoReturn:
    """Lead local ports to ports of the other machine's loopback, until ssh ends.

    Parameters
    ----------
    name : str
    spec : RemoteSpec
    ports : sequence of (int, int)
        Here and there.
    ready : callable
        Called when they can be used, with whether something answers on the first one.

    Raises
    ------
    RemoteError
        When the tunnel ends; ssh has said why on stderr.
    """
    with _tunnel(spec, ports) as process:
        if _leads(process, ports[0][0]):
            ready(_answers(ports[0][0]))
        process.wait()
    raise _ended(name, spec, process)


def _ended(name: str, spec: RemoteSpec, tunnel: subprocess.Popen[bytes]) -> RemoteError:
    return RemoteError(
        f"the tunnel to {name} ({spec.ssh}) has ended ({tunnel.returncode})",
        hint=f"Does `ssh {spec.ssh}` work?",
    )


@contextmanager
def _tunnel(
    spec: RemoteSpec, ports: Sequence[tuple[int, int]]
) -> Generator[subprocess.Popen[bytes]]:
    words = [
        word for here, there in ports for word in ("-L", f"127.0.0.1:{here}:127.0.0.1:{there}")
    ]
    with subprocess.Popen(
        ssh_command(spec, "-N", "-T", "-o", "ExitOnForwardFailure=yes", *words),
        stdin=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def kernel_there(
    name: str,
    spec: RemoteSpec,
    words: Sequence[str],
    choose_port: Callable[[int], int],
    show: Callable[[str], None],
) -> int:
    """Have ``debug --kernel`` serve a kernel there, and lead a local port to it.

    Parameters
    ----------
    name : str
    spec : RemoteSpec
    words : sequence of str
    choose_port : callable
        From the port there to the one here.
    show : callable
        Takes each line that it prints; its URL is one of this machine's.

    Returns
    -------
    int
        The exit code of ``debug``.

    Raises
    ------
    RemoteError
    """
    # With a terminal there, the end of the connection is a hangup, which ends the kernel in order.
    command = ssh_command(spec, "-o", "ClearAllForwardings=yes", "-tt")
    with (
        subprocess.Popen(
            [*command, _command(spec, words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as process,
        ExitStack() as tunnels,
    ):
        tunnels.callback(process.terminate)
        for said in cast("BinaryIO", process.stdout):
            line = said.decode(errors="replace").rstrip("\r\n")
            url = _KERNEL.search(line)
            if url is not None:
                there = int(url[1])
                here = choose_port(there)
                tunnel = tunnels.enter_context(_tunnel(spec, [(here, there)]))
                if not _leads(tunnel, here):
                    raise _ended(name, spec, tunnel)
                line = line.replace(f"127.0.0.1:{there}", f"127.0.0.1:{here}")
            if not line.startswith("Or:"):  # a file of that machine
                show(line)
        return _checked(name, spec, process.wait())


def _leads(tunnel: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until a tunnel takes connections; False if it ends instead."""
    while tunnel.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def _answers(port: int) -> bool:
    """Whether something is behind a tunnel; if not, ssh closes each connection."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as probe:
        probe.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return bool(probe.recv(1))
    return False


def _command(spec: RemoteSpec, words: Sequence[str]) -> str:
    # argparse takes the last --project: one of this machine means nothing there.
    return f"{spec.command} {shlex.join([*words, '--project', spec.project])}"


def _run(name: str, spec: RemoteSpec, command: str, target: IO[bytes] | None = None) -> int:
    person = target is None and sys.stdin.isatty() and sys.stdout.isatty()
    # With a terminal there, ssh would end with "Connection to ... closed."
    terminal = ("-t", "-o", "LogLevel=ERROR") if person else ("-T",)
    sys.stdout.flush()
    done = subprocess.run(
        [*ssh_command(spec, "-o", "ClearAllForwardings=yes", *terminal), command],
        stdin=None if person else subprocess.DEVNULL,
        stdout=target,
        check=False,
    )
    return _checked(name, spec, done.returncode)


def _checked(name: str, spec: RemoteSpec, code: int) -> int:
    if code == 255:
        raise RemoteError(
            f"{name} ({spec.ssh}) cannot be reached", hint=f"Does `ssh {spec.ssh}` work?"
        )
    if code in (126, 127):
        raise RemoteError(
            f"there is no {spec.command} on {name} ({spec.ssh})", hint=where_is_it(name, spec)
        )
    return code
