"""Letters that a person sends and waits for: ``alerts --test`` and ``deliver``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from research_jobs.manifest.alerts import ChannelSpec
from research_jobs.notify.delivery import SECONDS, Deliveries, describe
from research_jobs.notify.outbox import Letter
from research_jobs.project import Project
from research_jobs.runtime.masking import Masker

__all__ = ["Tried", "send_report", "try_channels"]


@dataclass(frozen=True)
class Tried:
    """What became of the letter through one channel.

    Parameters
    ----------
    channel, description : str
    ok : bool
    answer : str
        What came back.
    """

    channel: str
    description: str
    ok: bool
    answer: str


def try_channels(
    project: Project, channels: Mapping[str, ChannelSpec], masker: Masker
) -> list[Tried]:
    """Send a test through each channel, through all at once, and wait for what comes back.

    Parameters
    ----------
    project : Project
    channels : mapping of str to ChannelSpec
    masker : Masker
        Of what no answer may show.
    """
    name, now = project.root.name, datetime.now().astimezone()

    def test(channel: str) -> tuple[str, str, str]:
        body = f"This is a test of the alert channel {channel} of {name}, sent at"
        body = f"{body} {now:%Y-%m-%d %H:%M %Z}.\n"
        return f"{name}: a test of the alert channel {channel}", body, ""

    return _send(project, channels, masker, test)


def send_report(
    project: Project,
    channels: Mapping[str, ChannelSpec],
    masker: Masker,
    title: str,
    text: str,
    mail: str,
) -> list[Tried]:
    """Send a report through each channel, and wait for what comes back.

    Parameters
    ----------
    project, channels, masker
        As in `try_channels`.
    title, text : str
    mail : str
        The file of the mail.
    """
    said = masker.text(title), masker.text(text), mail
    return _send(project, channels, masker, lambda _: said)


def _send(
    project: Project,
    channels: Mapping[str, ChannelSpec],
    masker: Masker,
    letter_of: Callable[[str], tuple[str, str, str]],
) -> list[Tried]:
    deliveries = Deliveries(project)
    for channel, spec in channels.items():
        id_ = secrets.token_hex(12)
        title, body, mail = letter_of(channel)
        letter = Letter(id_, id_, channel, title, body, "info", False, time.time(), mail=mail)
        deliveries.send(channel, spec, [letter])
    deliveries.wait(SECONDS + 5)
    late = "it did not end in time"
    found: dict[str, Tried] = {}
    for channel, letters, answers in deliveries.ended():
        deliveries.forget(letters)
        answer = answers[-1] if answers else {"ok": False, "answer": late}
        ok = bool(answer["ok"]) and not answer.get("partly")
        said = masker.text(str(answer["answer"]))
        found[channel] = Tried(channel, describe(channels[channel]), ok, said)
    deliveries.close()
    return [found.get(n, Tried(n, describe(s), False, late)) for n, s in channels.items()]
