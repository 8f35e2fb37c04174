"""What became of a notebook: the states that a person sees, each with all that is known of it.

Nothing else compares names of states or keeps a table of them: a new state is a line here and the
place that finds it.

Standard library only, Python 3.10 and later: the fresh process imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from typing import Any, TypeVar

__all__ = [
    "CheckOutcome",
    "Failure",
    "Outcome",
    "StagedOutput",
    "State",
    "Tone",
    "cause_of",
    "failed",
    "from_json",
    "labelled",
    "to_json",
    "totals",
]


class Tone(str, Enum):
    """How good or bad a state is: a colour of the terminal, a class of the style sheets."""

    GOOD = "good"
    IDLE = "idle"
    BUSY = "busy"
    HELD = "held"
    BAD = "bad"
    NONE = "none"

    def __str__(self) -> str:
        return self.value


class State(str, Enum):
    """What became of a notebook, or of one partition of it; from the best to the worst.

    The value is what is stored and what ``--json`` prints.

    Attributes
    ----------
    tone : Tone
    ended : bool
        Whether it is how a run ended. A notebook that is blocked or waits has not run.
    """

    tone: Tone
    ended: bool

    SUCCEEDED = "succeeded", Tone.GOOD, True
    SKIPPED = "skipped", Tone.IDLE, True
    RUNNING = "running", Tone.BUSY, False
    WAITING = "waiting", Tone.BUSY, False
    NEVER_RUN = "never_run", Tone.NONE, False
    MISSING = "missing", Tone.HELD, False
    LATE = "late", Tone.HELD, False
    BLOCKED = "blocked", Tone.HELD, False
    REFUSED = "refused", Tone.BAD, True
    FAILED = "failed", Tone.BAD, True
    TIMED_OUT = "timed_out", Tone.BAD, True
    OUT_OF_MEMORY = "out_of_memory", Tone.BAD, True
    CRASHED = "crashed", Tone.BAD, True
    EXITED = "exited", Tone.BAD, True
    CANCELLED = "cancelled", Tone.BAD, True

    def __new__(cls, value: str, tone: Tone, ended: bool) -> State:  # noqa: PYI034 - Self is 3.11
        state = str.__new__(cls, value)
        state._value_ = value
        state.tone = tone
        state.ended = ended
        return state

    @classmethod
    def _missing_(cls, value: object) -> State | None:
        # What records of earlier versions say.
        if value in ("not run", "not started", "broken"):
            return cls.BLOCKED
        return {"queued": cls.WAITING, "never": cls.NEVER_RUN}.get(str(value))

    def __str__(self) -> str:
        return self.value

    @property
    def words(self) -> str:
        """str: as a sentence says it, ``"timed out"``."""
        return self.value.replace("_", " ")

    @property
    def heading(self) -> str:
        """str: as a page says it, ``"Timed out"``."""
        return self.words.capitalize()

    @property
    def order(self) -> int:
        """int: its place from the best to the worst."""
        return list(State).index(self)

    @property
    def ok(self) -> bool:
        """bool: whether the run did what it should (succeeded, or said there was nothing to do)."""
        return self in (State.SUCCEEDED, State.SKIPPED)

    @property
    def exit_code(self) -> int:
        """int: of a command in which a notebook ends so."""
        return 0 if self.ok else 130 if self is State.CANCELLED else 1


def _empty() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class CheckOutcome:
    """One check of one output, evaluated on the staged file.

    Parameters
    ----------
    output, check : str
        Which: ``"forecast"``, ``"not_null"``.
    passed : bool
    severity : str
        ``"warn"`` or ``"error"``.
    description : str
        One line that says what was found.
    metadata : mapping
        JSON values shown with it.
    """

    output: str
    check: str
    passed: bool
    severity: str = "error"
    description: str = ""
    metadata: Mapping[str, Any] = field(default_factory=_empty)


@dataclass(frozen=True)
class StagedOutput:
    """One output as the child staged it.

    Parameters
    ----------
    name, path : str
        The variable; the staged file (absolute).
    kind : str
        The codec's name of the value's type (``"pandas.DataFrame"``, ``"dict"``).
    rows : int or None
    bytes : int
        Size of the file.
    columns : tuple of (str, str)
        Name and Arrow type of each column, index columns included.
    preview : mapping
        ``{"columns": [...], "rows": [[...], ...]}`` as short strings: the first rows.
    statistics : mapping
        Column to ``{"min", "max", "nulls"}`` where known, JSON values.
    """

    name: str
    path: str
    kind: str
    rows: int | None
    bytes: int
    columns: tuple[tuple[str, str], ...] = ()
    preview: Mapping[str, Any] = field(default_factory=_empty)
    statistics: Mapping[str, Mapping[str, Any]] = field(default_factory=_empty)


@dataclass(frozen=True)
class Failure:
    """Why a run did not succeed.

    Parameters
    ----------
    headline : str
        The one line: ``performance_report.py:42, cell 3 "Load prices": KeyError: 'Close'``.
    traceback : str
        The traceback with the user's frames only.
    exception : str or None
        Qualified name of the exception's class.
    line : int or None
        1-based line in the notebook's file.
    cell : int or None
        1-based number of the cell that was running.
    cell_title, cell_source : str or None
    signal : str or None
        ``"SIGSEGV"`` where a signal ended it.
    """

    headline: str
    traceback: str = ""
    exception: str | None = None
    line: int | None = None
    cell: int | None = None
    cell_title: str | None = None
    cell_source: str | None = None
    signal: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a notebook, or of one partition of it.

    The notebook's process writes the record first, and each that it passes on its way home adds
    what it knows. Dagster's metadata keeps it, reports and commands show it, history reads it.

    Parameters
    ----------
    state : State
    failure : Failure or None
        Why, for every state that is not `State.ok`.
    skip_reason : str or None
    notebook, run_id : str
    partition : str or None
        Dagster's key of it; ``first...last`` for a range.
    blocked_by : tuple of str
        The notebooks that kept it from running; empty where its own mistake did, or the run's.
    outputs : tuple of StagedOutput
        Of a run that succeeded.
    checks : tuple of CheckOutcome
    parameters : mapping
        The parameters as used, defaults included, as short text.
    report : str or None
        The page of its report.
    started_at : float
        Unix time, seconds; 0 where it did not start.
    duration_s, cpu_s : float
        Wall and CPU time of the whole process tree, seconds.
    peak_memory_bytes : int
        Largest resident size seen over the tree.
    pid : int or None
        The notebook's process.
    isolation : str
        ``"fork"`` or ``"spawn"``.
    source_sha256 : str or None
        Of the notebook's bytes as they were run.
    results : tuple of str
        Names among the request's results that the notebook defined.
    notes : tuple of str
        One line each: what was left out or cut short.
    """

    state: State
    failure: Failure | None = None
    skip_reason: str | None = None
    notebook: str = ""
    run_id: str = ""
    partition: str | None = None
    blocked_by: tuple[str, ...] = ()
    outputs: tuple[StagedOutput, ...] = ()
    checks: tuple[CheckOutcome, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=_empty)
    report: str | None = None
    started_at: float = 0.0
    duration_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    pid: int | None = None
    isolation: str = "spawn"
    source_sha256: str | None = None
    results: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[CheckOutcome, ...]:
        """Tuple of CheckOutcome: failed checks that keep its outputs from being published."""
        return tuple(it for it in self.checks if not it.passed and it.severity == "error")

    @property
    def refusal(self) -> str:
        """str: which check keeps its outputs from being published; empty if none does."""
        if not self.refused:
            return ""
        first = self.refused[0]
        more = f" (and {len(self.refused) - 1} more)" if len(self.refused) > 1 else ""
        failed = f"output '{first.output}' failed the check {first.check}"
        return f"{self.label}: {failed}: {first.description}{more}"

    @property
    def label(self) -> str:
        """str: the notebook and its partition, as a line names them."""
        return labelled(self.notebook, self.partition)

    @property
    def ended_at(self) -> float | None:
        """Float or None: Unix time, seconds."""
        return self.started_at + self.duration_s if self.started_at else None

    @property
    def reason(self) -> str | None:
        """Str or None: the one line that says why it did not succeed."""
        said = self.failure.headline if self.failure is not None else self.skip_reason
        return said.strip().partition("\n")[0].strip() if said else None

    @property
    def details(self) -> str:
        """str: what stands behind that line: the notebook's own traceback and the cell."""
        if self.failure is None:
            return ""
        rest = self.failure.headline.strip().partition("\n")[2]
        parts = (rest, self.failure.traceback, self.failure.cell_source)
        return "\n".join(part for part in parts if part).strip()


def labelled(notebook: str, partition: str | None) -> str:
    """A notebook and its partition, as a line names them: ``signals [2018-11-01]``."""
    return f"{notebook} [{partition}]" if partition else notebook


_PLACE = re.compile(r'^\S+\.py:\d+(?::\d+)?(?:, cell \d+(?: "[^"]*")?)?: ')


def cause_of(reason: str | None) -> str:
    """What is the same for failures of one cause: the reason without its place."""
    return _PLACE.sub("", reason or "")


def totals(counts: Mapping[State, int]) -> str:
    """Numbers of endings, the best first: ``92 succeeded, 2 failed``."""
    ordered = sorted(counts.items(), key=lambda item: item[0].order)
    return ", ".join(f"{count:,} {state.words}" for state, count in ordered)


def failed(failure: Failure, outcome: Outcome | None = None) -> Outcome:
    """What became of a notebook that an exception ended: in its code, or where outputs are stored.

    Nothing else decides to which state an exception leads.

    Parameters
    ----------
    failure : Failure
    outcome : Outcome, optional
        What else is known of the run.
    """
    known = outcome or Outcome(State.FAILED)
    return replace(known, state=State.FAILED, failure=failure, outputs=())


def to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome as Dagster's metadata keeps it and as ``--json`` prints it.

    What only the run itself needs (previews, statistics, its process) is left out.
    """
    return {
        "notebook": outcome.notebook,
        "partition": outcome.partition,
        "ending": outcome.state.value,
        "error": None if outcome.state.ok else outcome.reason,
        "reason": outcome.skip_reason,
        "blocked_by": list(outcome.blocked_by),
        "started_at": outcome.started_at or None,
        "duration_s": outcome.duration_s or None,
        "cpu_s": outcome.cpu_s,
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "outputs": {
            item.name: {"path": item.path or None, "rows": item.rows, "bytes": item.bytes}
            for item in outcome.outputs
        },
        "checks": [asdict(check) for check in outcome.checks],
        "parameters": dict(outcome.parameters),
        "notes": list(outcome.notes),
        "failure": asdict(outcome.failure) if outcome.failure is not None else None,
        "report": outcome.report,
        "run_id": outcome.run_id,
    }


def from_json(value: Mapping[str, Any]) -> Outcome | None:
    """An outcome out of what `to_json` made of it, here or in another version.

    Returns
    -------
    Outcome or None
        None where it is no outcome, or one with a state that this version does not know.
    """
    try:
        state = State(value.get("ending"))
        failure = value.get("failure") or value.get("error")
        if isinstance(failure, str):  # as executed notebooks of earlier versions have it
            failure = {"headline": failure}
        return Outcome(
            state,
            failure=_known(Failure, failure) if failure else None,
            skip_reason=value.get("reason"),
            notebook=str(value.get("notebook") or ""),
            run_id=str(value.get("run_id") or ""),
            partition=value.get("partition"),
            blocked_by=tuple(value.get("blocked_by") or ()),
            outputs=tuple(
                StagedOutput(
                    name, said.get("path") or "", "", said.get("rows"), said.get("bytes") or 0
                )
                for name, said in (value.get("outputs") or {}).items()
            ),
            checks=tuple(_known(CheckOutcome, said) for said in value.get("checks") or ()),
            parameters=value.get("parameters") or {},
            report=value.get("report"),
            started_at=float(value.get("started_at") or 0),
            duration_s=float(value.get("duration_s") or 0),
            cpu_s=float(value.get("cpu_s") or 0),
            peak_memory_bytes=int(value.get("peak_memory_bytes") or 0),
            notes=tuple(value.get("notes") or ()),
        )
    except (AttributeError, TypeError, ValueError):
        return None


_Record = TypeVar("_Record", Failure, CheckOutcome)


def _known(kind: type[_Record], value: Mapping[str, Any]) -> _Record:
    """A record without the fields that this version does not know."""
    names = {field.name for field in fields(kind)}
    return kind(**{name: item for name, item in value.items() if name in names})
