"""What is asked of the process that makes mails, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["MailOrder", "Mailed"]

TITLE_LENGTH = 300
TEXT_LENGTH = 8000


@dataclass(frozen=True)
class MailOrder:
    """A report as a mail, if a condition holds.

    Parameters
    ----------
    project : str
        The project's name.
    conditions : tuple of str or None
        Those of each delivery of the report; None where it is always sent.
    attach : bool
        Whether the page comes with the mail.
    target : str
        Where the mail is written.
    link : str or None
        The page's public address.
    timezone : str or None
    store, notebook : str
        Where conditions find the outputs.
    partition : mapping of str to str or None
    changed : bool or None
        Whether the outputs differ from those of the success before.
    """

    project: str
    conditions: tuple[str | None, ...]
    attach: bool
    target: str
    link: str | None = None
    timezone: str | None = None
    store: str = ""
    notebook: str = ""
    partition: Mapping[str, str] | None = None
    changed: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """The order as the process gets it."""
        return asdict(self)


@dataclass(frozen=True)
class Mailed:
    """What became of it.

    Parameters
    ----------
    held : tuple of (bool or str)
        For each delivery, whether its condition holds; a line that says why that is not known.
    title, text : str
        The subject, and the message for channels that show no HTML; empty where no mail is made.
    error : str
        Why it could not be made.
    """

    held: tuple[bool | str, ...]
    title: str = ""
    text: str = ""
    error: str = ""

    @classmethod
    def of(cls, answer: Any, order: MailOrder, lost: str) -> Mailed:
        """What an answer says. Only what we know is taken from it.

        Parameters
        ----------
        answer : object
            As the process gave it; what is no answer says nothing.
        order : MailOrder
        lost : str
            Why there may be no answer.
        """
        said: Mapping[str, Any] = answer if isinstance(answer, Mapping) else {}
        held = said.get("held")
        if not isinstance(held, list) or len(held) != len(order.conditions):
            held = [True if text is None else lost for text in order.conditions]
        return cls(
            tuple(one if isinstance(one, bool) else str(one)[:TITLE_LENGTH] for one in held),
            str(said.get("title") or "")[:TITLE_LENGTH],
            str(said.get("text") or "")[:TEXT_LENGTH],
            str(said.get("error") or "")[:TITLE_LENGTH],
        )
