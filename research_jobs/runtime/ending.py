"""Derive a run's one ending from the facts at its end.

The facts are what the notebook's process said, how it ended, and why we ended it, if we did.
Success requires a record from the process; an exit code alone never counts.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from research_jobs.outcome import Failure, Outcome, State
from research_jobs.protocol import RunRequest
from research_jobs.runtime.masking import Masker
from research_jobs.units import readable_size

__all__ = ["Facts", "mask_result", "shown_path", "signal_name", "tell_ending", "user_stack"]


_REFUSED = (
    "a worker process tried to import this notebook, which would run it again: this pool sends "
    "functions and classes by name. Use joblib, or a pool of "
    "multiprocessing.get_context('fork'), or move what workers call into a helper module"
)


@dataclass(frozen=True)
class Facts:
    """The facts when a run's process tree is gone.

    Parameters
    ----------
    request : RunRequest
    record : Outcome or None
        The record that the notebook's process sent at its end.
    broken : str or None
        Why the record is invalid.
    reason : State or None
        Why we ended it; None when we did not.
    status : int or None
        Its wait status; None if it is unknown.
    cell : mapping or None
        The cell that ran last: ``number``, ``title``, ``source``.
    staging : bool
        Whether it had finished the last cell and was staging its outputs.
    stack : str
        The Python stack at a fault.
    memory_used : int
        The peak memory of the tree, bytes.
    killed_for_memory : bool
        Whether the kernel's out-of-memory killer ended a process meanwhile.
    """

    request: RunRequest
    record: Outcome | None = None
    broken: str | None = None
    reason: State | None = None
    status: int | None = None
    cell: Mapping[str, Any] | None = None
    staging: bool = False
    stack: str = ""
    memory_used: int = 0
    killed_for_memory: bool = False

    @property
    def signal(self) -> int | None:
        """The signal that ended the process, if one did."""
        if self.status is not None and os.WIFSIGNALED(self.status):
            return os.WTERMSIG(self.status)
        return None

    def failure(self, message: str, line: int | None = None) -> Failure:
        """A failure at the point that the run had reached."""
        cell = self.cell
        return Failure(
            headline=f"{self._place(line)}: {message}",
            line=line,
            cell=cell["number"] if cell else None,
            cell_title=cell.get("title") if cell else None,
            cell_source=cell.get("source") if cell else None,
        )

    def _place(self, line: int | None) -> str:
        place = shown_path(self.request) + (f":{line}" if line is not None else "")
        if self.staging:
            return f"{place}, while its outputs were staged"
        if self.cell is None:
            return f"{place}, before its first cell"
        title = self.cell.get("title")
        return f"{place}, cell {self.cell['number']}" + (f' "{title}"' if title else "")


def tell_ending(facts: Facts) -> Outcome:
    """The result of a run, without its figures.

    Parameters
    ----------
    facts : Facts

    Returns
    -------
    Outcome
    """
    if facts.reason is not None:
        return _ended_by_us(facts, facts.reason)
    if facts.broken is not None:
        message = f"left an invalid record: {facts.broken}"
        return Outcome(State.EXITED, failure=facts.failure(message))
    if facts.record is not None:
        # The result was sent: what happened afterwards is only worth a note.
        number = facts.signal
        if number is None:
            return facts.record
        note = f"{signal_name(number)} ended the process after its result"
        return replace(facts.record, notes=(*facts.record.notes, note))
    if facts.signal is not None:
        return _killed(facts, facts.signal)
    code = os.WEXITSTATUS(facts.status) if facts.status is not None else None
    message = f"exited without result (code {code}), as os._exit() does"
    return Outcome(State.EXITED, failure=facts.failure(message))


def _ended_by_us(facts: Facts, reason: State) -> Outcome:
    message = {
        State.TIMED_OUT: f"timed out after {facts.request.timeout_s or 0:g} s",
        State.CANCELLED: "cancelled",
        State.OUT_OF_MEMORY: _memory(facts),
        State.FAILED: _REFUSED,
    }[reason]
    failure = facts.failure(message)
    record = facts.record
    if record is not None and record.failure is not None:
        # The notebook hung where the interrupt hit it.
        met = record.failure
        line = met.line if met.cell == failure.cell else None
        failure = replace(facts.failure(message, line), traceback=met.traceback)
    sha = record.source_sha256 if record is not None else None
    return Outcome(reason, failure=failure, source_sha256=sha)


def _killed(facts: Facts, number: int) -> Outcome:
    name = signal_name(number)
    if number != signal.SIGKILL:
        line = _line_in(facts.stack, facts.request.path)
        message = f"crashed with {name} ({signal.strsignal(number)})"
        failure = replace(facts.failure(message, line), signal=name, traceback=facts.stack)
        return Outcome(State.CRASHED, failure=failure)
    if facts.killed_for_memory:
        message = f"{_memory(facts)}; the kernel's out-of-memory killer ended it"
        failure = replace(facts.failure(message), signal=name)
        return Outcome(State.OUT_OF_MEMORY, failure=failure)
    message = (
        "killed by SIGKILL from outside (not by its supervisor; "
        "perhaps by the kernel's out-of-memory killer)"
    )
    return Outcome(State.CRASHED, failure=replace(facts.failure(message), signal=name))


def _memory(facts: Facts) -> str:
    message = f"out of memory: {readable_size(facts.memory_used)} used"
    limit = facts.request.memory_bytes
    return f"{message}, the limit is {readable_size(limit)}" if limit is not None else message


# Fields that name a file or another object, or that we wrote.
_NOT_MASKED = frozenset(
    {
        "check",
        "isolation",
        "name",
        "output",
        "path",
        "results",
        "severity",
        "signal",
        "state",
    }
)


def mask_result(result: Outcome, masker: Masker) -> Outcome:
    """The result with secrets masked in every field that a notebook can influence.

    Lone surrogates (from file names that are not UTF-8) are also escaped, so that the text can be
    printed, stored and served.
    """
    return _masked(result, masker)


def _masked(value: Any, masker: Masker) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        changed = {
            field.name: _masked(getattr(value, field.name), masker)
            for field in fields(value)
            if field.name not in _NOT_MASKED
        }
        return replace(value, **changed)
    if isinstance(value, tuple):
        return tuple(_masked(item, masker) for item in value)
    # Numbers of the record itself (seconds, bytes, a line) are ours.
    return value if isinstance(value, int) else _encodable(masker.value(value))


def _encodable(value: Any) -> Any:
    """A JSON value whose strings, including keys, can be encoded."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    return value


def shown_path(request: RunRequest) -> str:
    """The notebook's file in messages: relative to the project."""
    path = Path(request.path)
    with contextlib.suppress(ValueError):
        path = path.relative_to(request.project_root)
    return path.as_posix()


def signal_name(number: int) -> str:
    """``"SIGSEGV"`` for 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def user_stack(text: str) -> str:
    """A stack as `faulthandler` writes it, innermost first, without our own frames."""
    own = f'File "{Path(__file__).resolve().parents[1]}{os.sep}'
    noise = (own, "<frozen importlib", "Extension modules:", "/importlib/__init__.py")
    lines = [line for line in text.splitlines() if not any(part in line for part in noise)]
    return "\n".join(lines).strip()


def _line_in(stack: str, path: str) -> int | None:
    """The innermost line of a file in such a stack."""
    found = re.search(rf'^  File "{re.escape(path)}", line (\d+) ', stack, re.MULTILINE)
    return int(found[1]) if found else None
