"""What is kept between two looks, in ``.research_jobs/alerts/book.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from research_jobs.filesystem import write_atomically
from research_jobs.notify.deciding import AlertBook
from research_jobs.notify.outbox import Outbox
from research_jobs.notify.rules import Rules
from research_jobs.project import Project

__all__ = ["Kept", "as_json", "kept_path", "read_kept", "write_kept"]


@dataclass(frozen=True)
class Kept:
    """The rules, what was said and what waits.

    Parameters
    ----------
    rules : Rules
        The last that were good.
    book : AlertBook
    outbox : Outbox
    mistakes : mapping of str to float
        The mistakes in the manifest, and when each was seen first.
    reports : tuple of str
        The last reports that were taken into the outbox, by id.
    """

    rules: Rules = field(default_factory=Rules)
    book: AlertBook = field(default_factory=AlertBook)
    outbox: Outbox = field(default_factory=Outbox)
    mistakes: Mapping[str, float] = field(default_factory=dict[str, float])
    reports: tuple[str, ...] = ()


_KEPT = TypeAdapter(Kept)


def as_json(adapter: TypeAdapter[Any], value: object) -> bytes:
    """A value as JSON, with a question mark for each byte of a name that is not UTF-8."""
    said = adapter.dump_python(value, mode="json", by_alias=True)
    return json.dumps(said, ensure_ascii=False).encode("utf-8", "replace")


def kept_path(project: Project) -> Path:
    """The file; only the project's user can read it."""
    return project.state / "alerts" / "book.json"


def read_kept(project: Project) -> Kept:
    """What was kept; nothing where there is no file, or none that can be read."""
    try:
        return _KEPT.validate_json(kept_path(project).read_bytes())
    except (OSError, ValidationError):
        return Kept()


def write_kept(project: Project, kept: Kept) -> None:
    """Replace what was kept.

    Raises
    ------
    OSError
        When the disk is full, for example.
    """
    project.make_state_folder("alerts")
    write_atomically(kept_path(project), as_json(_KEPT, kept), private=True)
