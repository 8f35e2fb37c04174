"""A real SMTP server on this machine, and the letters that it got."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

__all__ = ["Mailbox", "serve_mail"]


@dataclass
class Mailbox:
    """What an SMTP server does with a letter, and what it got."""

    answer: str = "250 Message accepted for delivery"
    refused: tuple[str, ...] = ()
    port: int = 0
    encryption: str = "none"
    letters: list[EmailMessage] = field(default_factory=list)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802
        if address in self.refused:
            return "550 No such user here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        if self.answer.startswith("250"):
            letter = message_from_bytes(envelope.content, policy=policy.default)
            self.letters.append(letter)
        return self.answer


class _Controller(Controller):
    """One that leaves no connection open."""

    def factory(self):
        self.sessions = [*getattr(self, "sessions", ()), server := super().factory()]
        return server

    def hang_up(self) -> None:
        async def close() -> None:
            for session in self.sessions:
                if session.transport is not None:
                    session.transport.abort()
            await asyncio.sleep(0.05)

        asyncio.run_coroutine_threadsafe(close(), self.loop).result(10)


def serve_mail(**options: Any) -> Iterator[Mailbox]:
    """An SMTP server on a free port of this machine."""
    mailbox = Mailbox()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = _Controller(mailbox, hostname="127.0.0.1", port=port, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        controller.start()
    mailbox.port = port
    yield mailbox
    controller.hang_up()
    controller.stop()
