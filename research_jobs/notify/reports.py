"""Reports that wait to be taken into the outbox: a run leaves each as a file, once."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from research_jobs.filesystem import write_atomically
from research_jobs.manifest.alerts import ChannelSpec, EmailSpec
from research_jobs.manifest.deliver import is_address
from research_jobs.notify.kept import as_json
from research_jobs.notify.outbox import OLDEST_S, Letter
from research_jobs.project import Project

__all__ = [
    "ReadyReport",
    "address_channel",
    "forget_report",
    "leave_report",
    "letters_folder",
    "mail_path",
    "ready_reports",
    "report_id",
    "sweep_letters",
]


@dataclass(frozen=True)
class ReadyReport:
    """A report that is to be delivered.

    Parameters
    ----------
    id, title, text : str
    mail : str
        The file of the mail; empty where none could be made.
    to : tuple of str
        Channels and addresses.
    at : float
        Unix time, seconds.
    unknown : mapping of str to str
        Who does not get it because a condition has no answer, and why.
    """

    id: str
    title: str
    text: str
    mail: str
    to: tuple[str, ...]
    at: float
    unknown: Mapping[str, str] = field(default_factory=dict[str, str])

    def letters(self) -> Iterator[Letter]:
        """One for each who gets it; the same at each call."""
        for name in self.to:
            id_ = hashlib.sha256(f"{self.id}\0{name}".encode()).hexdigest()[:24]
            yield Letter(
                id_,
                id_,
                name,
                self.title,
                self.text,
                "info",
                over=False,
                at=self.at,
                mail=self.mail,
                once=True,
            )


_READY = TypeAdapter(ReadyReport)


def report_id(run_id: str, notebook: str, partition: str | None) -> str:
    """What names a report: the same whenever one run's report is left again."""
    seed = f"{run_id}\0{notebook}\0{partition or ''}"
    return hashlib.sha256(seed.encode()).hexdigest()[:24]


def letters_folder(project: Project) -> Path:
    """The folder of reports, mails and receipts; only the project's user can read it."""
    return project.state / "alerts" / "letters"


def mail_path(project: Project, id_: str) -> Path:
    """Where a report's mail is kept until nobody waits for it any more; its folder is made."""
    return project.make_state_folder("alerts", "letters") / f"{id_}.eml"


def leave_report(project: Project, report: ReadyReport) -> None:
    """Leave a report for whoever delivers."""
    path = mail_path(project, report.id).with_suffix(".json")
    write_atomically(path, as_json(_READY, report), private=True)


def ready_reports(project: Project) -> list[ReadyReport]:
    """The reports that were left, the oldest first."""
    found: list[ReadyReport] = []
    for path in letters_folder(project).glob("*.json"):
        with suppress(OSError, ValidationError):
            found.append(_READY.validate_json(path.read_bytes()))
    return sorted(found, key=lambda one: (one.at, one.id))


def forget_report(project: Project, report: ReadyReport) -> None:
    """A report is in the outbox, and that is written down."""
    with suppress(OSError):
        (letters_folder(project) / f"{report.id}.json").unlink()


def sweep_letters(project: Project) -> None:
    """Remove what is left of letters that nobody can be waiting for."""
    for path in letters_folder(project).glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > OLDEST_S + 86_400:
                path.unlink()


def address_channel(address: str, channels: Mapping[str, ChannelSpec]) -> ChannelSpec | None:
    """The channel of an address: through the server of the first channel that is e-mail.

    Parameters
    ----------
    address : str
    channels : mapping of str to ChannelSpec

    Returns
    -------
    ChannelSpec or None
        None where it is not an address.
    """
    if not is_address(address):
        return None
    known = next((spec.email for spec in channels.values() if spec.email is not None), None)
    email = (
        EmailSpec(to=(address,)) if known is None else known.model_copy(update={"to": (address,)})
    )
    return ChannelSpec(email=email)
