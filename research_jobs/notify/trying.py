"""One letter through each channel, to see whether it arrives: ``research-jobs alerts --test``."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from research_jobs.manifest.alerts import ChannelSpec
from research_jobs.notify.delivery import SECONDS, Deliveries, describe
from research_jobs.notify.outbox import Letter
from research_jobs.project import Project
from research_jobs.runtime.masking import Masker

__all__ = ["Tried", "try_channels"]


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
    """Send one letter through each channel, through all at once, and wait for what comes back.

    Parameters
    ----------
    project : Project
    channels : mapping of str to ChannelSpec
    masker : Masker
        Of what no answer may show.
    """
    now = time.time()
    name = project.root.name
    deliveries = Deliveries(name)
    for channel, spec in channels.items():
        body = (
            f"This is a test of the alert channel {channel} of {name}, sent at"
            f" {datetime.fromtimestamp(now).astimezone():%Y-%m-%d %H:%M %Z}.\n"
        )
        id_ = secrets.token_hex(12)
        title = f"{name}: a test of the alert channel {channel}"
        letter = Letter(id_, id_, channel, title, body, "info", over=False, at=now)
        deliveries.send(channel, spec, [letter])
    deliveries.wait(SECONDS + 5)
    found: dict[str, Tried] = {}
    for channel, _, answers in deliveries.ended():
        answer = answers[-1] if answers else {"ok": False, "answer": "it did not end in time"}
        ok = bool(answer["ok"]) and not answer.get("partly")
        said = masker.text(str(answer["answer"]))
        found[channel] = Tried(channel, describe(channels[channel]), ok, said)
    deliveries.close()
    late = "it did not end in time"
    return [found.get(n, Tried(n, describe(s), False, late)) for n, s in channels.items()]
