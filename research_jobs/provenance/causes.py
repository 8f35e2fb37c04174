"""Why two runs of a notebook made different outputs: what differs in their records.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from research_jobs.provenance.code_changes import changed_parts, source_diff
from research_jobs.provenance.environment import parse_environment
from research_jobs.provenance.record import FileRead, Load, Record
from research_jobs.provenance.shelf import kept

__all__ = ["Cause", "causes"]

CauseKind = Literal["code", "parameters", "input", "environment", "nondeterministic", "unknown"]


@dataclass(frozen=True)
class Cause:
    """One reason why outputs differ.

    Parameters
    ----------
    kind : str
    what : str
        One line.
    detail : str
        What is behind it, ``""`` where there is nothing: a diff of the code.
    because : tuple of Cause
        Of an input: why it changed.
    """

    kind: CauseKind
    what: str
    detail: str = ""
    because: tuple[Cause, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As ``diff --json`` prints it."""
        said: dict[str, Any] = {"kind": self.kind, "what": self.what}
        if self.detail:
            said["detail"] = self.detail
        if self.because:
            said["because"] = [cause.to_json() for cause in self.because]
        return said

    def lines(self, indent: str = "") -> Iterator[str]:
        """For a person: the cause, what is behind it, and why that is so, further in."""
        yield f"{indent}{self.kind}: {self.what}"
        for line in self.detail.splitlines():
            yield f"{indent}    {line}"
        for cause in self.because:
            yield from cause.lines(f"{indent}  ")


def causes(
    reports: Path,
    before: Record,
    after: Record,
    *,
    differ: bool,
    after_reports: Path | None = None,
    input_cause: Callable[[Load, Load], Cause | None] = lambda _before, after: _changed(after),
    first_cell: str | None = None,
) -> tuple[Cause, ...]:
    """What differs between two runs that may explain their outputs.

    Parameters
    ----------
    reports : Path
        The folder of all reports, which keeps the sources.
    before, after : Record
    differ : bool
        Whether their outputs differ. Where they do and nothing explains it, that is said.
    after_reports : Path, optional
        The folder that keeps the sources of `after`, where it is another one.
    input_cause : callable
        The cause that an output is, which has another version with other data; None where what
        was read of it is the same all the same.
    first_cell : str, optional
        The first cell that showed something else.

    Returns
    -------
    tuple of Cause
        Code, parameters, inputs and environment, in this order.
    """
    shelves = (reports, after_reports or reports)
    found = (
        *_of_code(shelves, before, after),
        *_of_parameters(before, after),
        *_of_loads(before, after, input_cause),
        *_of_files(before, after),
        *_of_environment(shelves, before, after),
    )
    if found or not differ:
        return found
    return (_unexplained(before, after, first_cell),)


def _of_code(shelves: tuple[Path, Path], before: Record, after: Record) -> Iterator[Cause]:
    if before.code_version == after.code_version:
        return
    explained = False
    for name in dict.fromkeys((*after.files, *before.files)):
        old, new = before.files.get(name), after.files.get(name)
        if old == new:
            continue
        sources = [
            kept(shelf, digest) if digest else None
            for shelf, digest in zip(shelves, (old, new), strict=True)
        ]
        if old is None or new is None:
            explained = True
            yield Cause("code", f"{name} {'came' if old is None else 'went'}")
        elif sources[0] is None or sources[1] is None:
            explained = True
            yield Cause("code", f"{name} changed; its sources are not kept")
        else:
            detail = source_diff(name, sources[0], sources[1])
            for part in changed_parts(name, sources[0], sources[1]):
                explained = True
                yield Cause("code", part, detail)
                detail = ""
    if not explained:
        yield Cause("code", f"code version {before.code_version} → {after.code_version}")


def _of_parameters(before: Record, after: Record) -> Iterator[Cause]:
    yield from (Cause("parameters", line) for line in _changes(before.parameters, after.parameters))


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys((*after, *before)):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield f"{name}: {'not set' if old is None else old} → " + (
                "not set" if new is None else new
            )


def _changed(load: Load) -> Cause:
    return Cause("input", f"{load.name} changed")


def _of_loads(
    before: Record, after: Record, input_cause: Callable[[Load, Load], Cause | None]
) -> Iterator[Cause]:
    olds, news = _by_name(before.loads), _by_name(after.loads)
    for name in dict.fromkeys((*news, *olds)):
        old, new = olds.get(name), news.get(name)
        if old is None or new is None:
            yield Cause("input", f"{name} is {'' if old is None else 'no longer '}read")
        elif old.version != new.version and (
            not old.data_version or old.data_version != new.data_version
        ):
            cause = input_cause(old, new)
            if cause is not None:
                yield cause


def _by_name(loads: tuple[Load, ...]) -> dict[str, Load]:
    return {load.name: load for load in loads}


def _of_files(before: Record, after: Record) -> Iterator[Cause]:
    olds = {read.path: read for read in before.reads}
    news = {read.path: read for read in after.reads}
    for path in dict.fromkeys((*news, *olds)):
        old, new = olds.get(path), news.get(path)
        if old is None or new is None:
            yield Cause("input", f"{path} is {'' if old is None else 'no longer '}read")
        elif not _same(old, new):
            yield Cause("input", f"{path} changed ({old.bytes:,} → {new.bytes:,} bytes)")


def _same(old: FileRead, new: FileRead) -> bool:
    if old.sha256 is not None and new.sha256 is not None:
        return old.sha256 == new.sha256
    return (old.bytes, old.modified) == (new.bytes, new.modified)


def _of_environment(shelves: tuple[Path, Path], before: Record, after: Record) -> Iterator[Cause]:
    if before.python != after.python:
        yield Cause("environment", f"Python {before.python} → {after.python}")
    for line in _changes(before.variables, after.variables):
        yield Cause("environment", line)
    if before.environment == after.environment:
        return
    lists = kept(shelves[0], before.environment), kept(shelves[1], after.environment)
    if lists[0] is None or lists[1] is None:
        yield Cause("environment", "installed packages changed; their list is not kept")
        return
    for line in _changes(parse_environment(lists[0]), parse_environment(lists[1])):
        yield Cause("environment", line.replace("not set", "not installed"))


def _unexplained(before: Record, after: Record, first_cell: str | None) -> Cause:
    """What is said where nothing that is known of the two runs differs."""
    unseen = list(dict.fromkeys((*after.not_seen, *before.not_seen)))
    if unseen:
        named = ", ".join(unseen[:5]) + (f" and {len(unseen) - 5} more" if unseen[5:] else "")
        return Cause("unknown", f"nothing that is recorded differs; not recorded: {named}")
    where = f"; the first cell that shows something else is {first_cell}" if first_cell else ""
    return Cause(
        "nondeterministic",
        f"{after.notebook} makes something else of the same code, parameters and inputs{where}",
    )
