"""A notebook's view of its own run: ``context()`` and ``skip()``.

Both work in the editor too, where there is no run.
Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NoReturn

__all__ = ["NotebookSkipped", "RunContext", "context", "set_context", "skip"]


class NotebookSkipped(Exception):  # noqa: N818 - it is a signal, not an error
    """Raised by `skip`: there was nothing to do, which is not a failure."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class RunContext:
    """The run that a notebook is in.

    Parameters
    ----------
    notebook : str or None
        Its name, ``None`` in the editor.
    run_id : str or None
        Dagster's run id, ``None`` in the editor.
    partition_key : str or None
    partition : mapping of str to str
        Dimension to key.
    start, end : datetime or None
        The half-open time window of the partition, with its time zone.
    in_batch : bool
        False in the editor.
    trying : bool
        Whether nothing of this run counts: ``research-jobs try``, ``rerun`` and ``lookahead``.
        What is written past the declared outputs stays all the same.
    """

    notebook: str | None = None
    run_id: str | None = None
    partition_key: str | None = None
    partition: Mapping[str, str] = field(default_factory=dict[str, str])
    start: datetime | None = None
    end: datetime | None = None
    in_batch: bool = False
    trying: bool = False


_current = RunContext()


def context() -> RunContext:
    """The run that the notebook is in.

    Returns
    -------
    RunContext
        In the editor, one whose fields are empty and whose ``in_batch`` is False.
    """
    return _current


def set_context(current: RunContext) -> None:
    """Set the run of this process (the fresh process calls it once, before the notebook)."""
    global _current
    _current = current


def skip(reason: str) -> NoReturn:
    """End the run as skipped: nothing is published, and the run does not fail.

    Parameters
    ----------
    reason : str
        One line, shown on the asset: ``skip("market closed")``.
    """
    raise NotebookSkipped(reason)
