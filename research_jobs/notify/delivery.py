"""Deliveries under way: one process for each channel, started and asked but never waited for."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from research_jobs.errors import ProjectError
from research_jobs.manifest.alerts import ChannelSpec, EmailSpec, variables_in
from research_jobs.notify.outbox import Letter
from research_jobs.notify.reports import letters_folder
from research_jobs.notify.sender import Answer, sender_address
from research_jobs.project import Project

__all__ = ["Deliveries", "describe", "resolved", "secrets_in"]

SECONDS = 60.0


@dataclass
class _Delivery:
    letters: Sequence[Letter]
    process: subprocess.Popen[bytes] | None
    started: float
    refused: str = ""

    @property
    def done(self) -> bool:
        process = self.process
        if process is None or process.poll() is not None:
            return True
        if time.monotonic() - self.started > SECONDS + 5:  # the kernel's alarm did not end it
            process.kill()
        return False

    def answers(self) -> list[Answer]:
        if self.process is None:
            return [{"id": None, "ok": False, "answer": self.refused}]
        with self.process as process:
            said = process.stdout.read() if process.stdout is not None else b""
        answers: list[Answer] = []
        for line in said.splitlines():
            with contextlib.suppress(ValueError):  # cut off when it was ended
                answer = json.loads(line)
                if isinstance(answer, dict) and {"id", "ok", "answer"} <= answer.keys():
                    answers.append(answer)
        return answers


class Deliveries:
    """What is being delivered, by channel.

    Parameters
    ----------
    project : Project
        Its name is in the sender's address; its state has the receipts.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._running: dict[str, _Delivery] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._running

    def __bool__(self) -> bool:
        return bool(self._running)

    def send(self, channel: str, spec: ChannelSpec, letters: Sequence[Letter]) -> None:
        """Start to deliver letters through a channel; its last delivery has ended."""
        self._start(channel, letters, lambda: self._job(spec, letters))

    def beat(self, name: str, url: str) -> None:
        """Start to request a heartbeat's address."""
        self._start(name, (), lambda: {"beat": resolved(url)})

    def _job(self, spec: ChannelSpec, letters: Sequence[Letter]) -> dict[str, Any]:
        job: dict[str, Any] = {
            "letters": [asdict(_dated(letter)) for letter in letters],
            "receipts": str(letters_folder(self._project)),
        }
        if spec.email is not None:
            return job | {"email": _email(spec.email, self._project.root.name)}
        return job | {"url": resolved(spec.url or "")}

    def forget(self, letters: Iterable[Letter]) -> None:
        """Remove the receipts of letters that nobody will send again."""
        for letter in letters:
            with contextlib.suppress(OSError):
                (letters_folder(self._project) / f"{letter.id}.receipt").unlink()

    def _start(self, name: str, letters: Sequence[Letter], job: Any) -> None:
        process, refused = None, ""
        try:
            text = json.dumps(job() | {"seconds": SECONDS}).encode()
            process = subprocess.Popen(
                # -P: no file of the project takes the place of a module
                [sys.executable, "-P", "-m", "research_jobs.notify.sender"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(text)
        except (OSError, ProjectError) as error:
            refused = str(error)
        self._running[name] = _Delivery(letters, process, time.monotonic(), refused)

    def ended(self) -> Iterator[tuple[str, Sequence[Letter], list[Answer]]]:
        """Those that have ended: the channel, what it was to deliver, what came back."""
        for name, delivery in list(self._running.items()):
            if delivery.done:
                del self._running[name]
                yield name, delivery.letters, delivery.answers()

    def wait(self, seconds: float) -> None:
        """Wait until all have ended, at most so long."""
        end = time.monotonic() + seconds
        for delivery in self._running.values():
            if delivery.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    delivery.process.wait(max(0.0, end - time.monotonic()))

    def close(self) -> None:
        """End those that are under way."""
        for delivery in self._running.values():
            if delivery.process is not None:
                delivery.process.kill()
                delivery.answers()
        self._running.clear()


def resolved(text: str) -> str:
    """A text with the values of the variables in it.

    Raises
    ------
    ProjectError
        When one is not set.
    """
    for name in variables_in(text):
        if not os.environ.get(name):
            raise ProjectError(
                f"the environment variable {name} is not set", hint="Set it, or write it in .env."
            )
        text = text.replace("${" + name + "}", os.environ[name])
    return text


def secrets_in(spec: ChannelSpec) -> Iterator[str]:
    """The values that no message and no answer may show."""
    said = spec.url or (spec.email.password if spec.email is not None else None) or ""
    for name in variables_in(said):
        value = os.environ.get(name, "")
        yield value
        if spec.url is not None:  # each part of a service's address can be a token
            yield from (part for part in re.split(r"[/:@?&=,]+", value) if len(part) > 5)


def describe(spec: ChannelSpec) -> str:
    """A channel in a few words, without what is secret: ``e-mail to ops@example.com``."""
    if spec.email is not None:
        email = spec.email
        return f"e-mail to {', '.join(email.to)} by {email.host}:{email.port_number}"
    url = spec.url or ""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}" if separator and "@" not in rest else url


def _dated(letter: Letter) -> Letter:
    """A letter that says so if it comes late."""
    if not letter.attempts:
        return letter
    written = datetime.fromtimestamp(letter.at).astimezone()
    late = f"Written {written:%a %d %b %H:%M %Z}, and not delivered before.\n"
    return replace(letter, body=f"{letter.body}{late}")


def _email(email: EmailSpec, project: str) -> dict[str, Any]:
    return {
        "to": [resolved(address) for address in email.to],
        "from": resolved(email.from_ or "") or sender_address(project),
        "host": resolved(email.host),
        "port": email.port_number,
        "security": email.security,
        "user": resolved(email.user or ""),
        "password": resolved(email.password or ""),
    }
