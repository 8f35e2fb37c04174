"""One side of a connection: it starts ssh, both name their versions, and then it asks."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar, cast

from research_jobs.errors import RemoteError
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.remote.frames import PROTOCOL, CutError, Frames, await_greeting

__all__ = ["Connection", "last_words", "persist", "ssh_command", "where_is_it"]

Result = TypeVar("Result")

PATIENCE = 20
"""Seconds until ssh gives up an unreachable host, or one that no longer answers."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before a connection that is cut is tried again; as often as there are of them."""

_UNREADABLE = re.compile(r"[^\x20-\x7e\x80-\U0010ffff]")


def ssh_command(spec: RemoteSpec, *options: str) -> list[str]:
    """The system's ssh with the user's own settings; the host is its last word."""
    words = ["ssh", "-o", f"ConnectTimeout={PATIENCE}", "-o", f"ServerAliveInterval={PATIENCE}"]
    if not sys.stdin.isatty():
        words += ["-o", "BatchMode=yes"]  # nobody is there whom it could ask
    return [*words, *options, spec.ssh]


class Connection:
    """A project on another machine that answers; to be used in a ``with`` statement.

    Parameters
    ----------
    name : str
        The remote's name, for messages.
    spec : RemoteSpec
    version : str
        Of research_jobs here.

    Raises
    ------
    RemoteError
        When it cannot be reached, or research_jobs there does not answer.
    """

    def __init__(self, name: str, spec: RemoteSpec, version: str) -> None:
        self.name = name
        self.spec = spec
        self.mine = version
        self.came = 0
        # A file: nobody has to read it while frames are read, so it cannot fill up and block.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        # Forwardings of the user's settings are for sessions, and would be taken twice.
        options = ("-T", "-o", "ClearAllForwardings=yes")
        try:
            self._process = subprocess.Popen(
                [*ssh_command(spec, *options), f"{spec.command} remote-serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
            )
        except FileNotFoundError as error:
            self._said.close()
            raise RemoteError(
                "ssh is not installed", hint="Install it: apt-get install openssh-client."
            ) from error
        self._frames = Frames(
            cast("BinaryIO", self._process.stdout), cast("BinaryIO", self._process.stdin)
        )
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    @property
    def place(self) -> str:
        """str: host and folder."""
        return f"{self.spec.ssh}:{self.spec.project}"

    def _greet(self) -> None:
        try:
            await_greeting(self._frames.source)
        except CutError as error:
            raise self._silent(str(error)) from error
        hello = {"ask": "hello", "protocol": PROTOCOL, "version": self.mine}
        said = self.ask(hello | {"project": self.spec.project})
        self.version = str(said.get("version"))
        self.can = frozenset[str](map(str, said.get("can") or ()))
        if said.get("protocol") != PROTOCOL:
            raise RemoteError(
                f"{self.name} has research_jobs {self.version}, which does not speak with "
                f"{self.mine} here",
                hint="Install the same version on both sides.",
            )

    def ask(self, header: Mapping[str, Any]) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises
        ------
        RemoteError
            With the other side's own words, or when the connection is cut.
        """
        self.require(str(header["ask"]))
        self.send(header)
        return self.answer()

    def require(self, what: str) -> None:
        """Refuse what the other side cannot do.

        Raises
        ------
        RemoteError
        """
        if what != "hello" and what not in self.can:
            raise RemoteError(
                f"research_jobs {self.version} on {self.name} cannot do '{what}', which "
                f"{self.mine} here asks for",
                hint="Upgrade research_jobs there.",
            )

    def send(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        """Send a frame without waiting for an answer.

        Raises
        ------
        CutError
        """
        try:
            self._frames.send(header, body)
        except CutError as error:
            raise self._cut() from error

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to what was sent.

        Raises
        ------
        RemoteError
            As for `ask`.
        """
        try:
            answer, _ = self._frames.receive()
        except CutError as error:
            raise self._cut() from error
        self._refuse_error(answer)
        return answer

    def receive(self, take: Callable[[bytes], object]) -> dict[str, Any]:
        """Take the bytes that follow an answer, block by block, up to the frame that ends them.

        Parameters
        ----------
        take : callable
            Called with each block.

        Returns
        -------
        dict
            What that frame says.

        Raises
        ------
        RemoteError
        """
        while True:
            try:
                header, body = self._frames.receive()
            except CutError as error:
                raise self._cut() from error
            self._refuse_error(header)
            if not header.get("more"):
                return header
            self.came += len(body)
            take(body)

    def receive_file(
        self, sink: BinaryIO, digest: hashlib.blake2b, show: Callable[[bytes], object] | None = None
    ) -> bool:
        """Write the bytes that follow an answer to a file.

        Parameters
        ----------
        sink : BinaryIO
        digest : blake2b
            Of what the file has already.
        show : callable, optional
            Called with each block.

        Returns
        -------
        bool
            Whether the file is now the one that the other side has.

        Raises
        ------
        RemoteError
        """

        def take(block: bytes) -> None:
            digest.update(block)
            sink.write(block)
            if show is not None:
                show(block)

        return self.receive(take).get("digest") == digest.hexdigest()

    def _refuse_error(self, answer: Mapping[str, Any]) -> None:
        error = answer.get("error")
        if error is not None:
            hint = error.get("hint")
            raise RemoteError(
                f"{self.name}: {_plain(str(error.get('what')))}",
                hint=_plain(str(hint)) if hint else None,
            )

    def _end(self) -> tuple[int, str]:
        """Ssh's exit code and last words."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        code = self._process.wait()
        self._said.seek(0)
        return code, last_words(self._said.read()[-64_000:])

    def _cut(self) -> CutError:
        code, words = self._end()
        return CutError(
            f"the connection to {self.name} ({self.spec.ssh}) is cut"
            + (f": {words}" if words else f" (ssh ended with {code})"),
        )

    def _silent(self, instead: str) -> RemoteError:
        """Why nothing of research_jobs has come."""
        code, words = self._end()
        said = words or last_words(instead.encode())
        where = f"{self.name} ({self.spec.ssh})"
        if code == 255:
            return CutError(
                f"{where} cannot be reached: {said or 'ssh says nothing'}",
                hint=_hint_of(said, self.spec),
            )
        if code in (126, 127):
            return RemoteError(
                f"there is no {self.spec.command} on {where}: {said}",
                hint=where_is_it(self.name, self.spec),
            )
        if "no command 'remote-serve'" in said:
            return RemoteError(
                f"research_jobs on {where} is older than remotes; here is {self.mine}",
                hint="Upgrade it there.",
            )
        return RemoteError(
            f"research-jobs on {where} does not answer (exit code {code}): {said}",
            hint=f"Try `ssh {self.spec.ssh} {self.spec.command} --version`.",
        )

    def close(self) -> None:
        """End ssh, and with it the other side."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()
        self._said.close()

    def __enter__(self) -> Connection:  # noqa: PYI034 - Self requires Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def persist(
    name: str,
    spec: RemoteSpec,
    version: str,
    work: Callable[[Connection], Result],
    *,
    tell: Callable[[str], None],
    endless: bool = False,
) -> Result:
    """Do something over a connection, and go on over a new one where that is cut.

    Parameters
    ----------
    name, spec, version
        As of `Connection`.
    work : callable
        Called with each connection. It knows itself what is left to do.
    tell : callable
        Takes a line about each cut.
    endless : bool
        Whether cuts count only as long as nothing comes in between.

    Raises
    ------
    RemoteError
        When the first connection is not there, or the last one is cut.
    """
    pauses = list(PAUSES)
    first = True
    while True:
        came = 0
        try:
            with Connection(name, spec, version) as connection:
                first = False
                try:
                    return work(connection)
                finally:
                    came = connection.came
        except CutError as error:
            if endless and came:
                pauses = list(PAUSES)
            if first or not pauses:
                raise
            number = len(PAUSES) - len(pauses) + 1
            tell(f"{error.what}. Tries again ({number} of {len(PAUSES)}).")
            time.sleep(pauses.pop(0))


def last_words(said: bytes) -> str:
    """The last line that says something, without what could move a cursor."""
    lines = [_plain(line) for line in said.decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _plain(text: str) -> str:
    return _UNREADABLE.sub(" ", text).strip()[:500]


def where_is_it(name: str, spec: RemoteSpec) -> str:
    """What to do where the other machine's shell does not find the command."""
    example = f"{spec.project.rstrip('/')}/.venv/bin/research-jobs"
    return f"Name it under remotes.{name}.command, for example {example}."


def _hint_of(said: str, spec: RemoteSpec) -> str:
    if "Host key verification failed" in said:
        return f"Run `ssh {spec.ssh}` once, and compare the key that it shows."
    if "Permission denied" in said:
        return f"Give it your key: ssh-copy-id {spec.ssh}."
    return f"Does `ssh {spec.ssh}` work?"
