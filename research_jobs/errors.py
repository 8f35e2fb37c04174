"""Every error that research_jobs raises on purpose.

::

    ResearchJobsError                 one base: catch this to catch us
    ├── ProjectError                  no project, or an unusable setting of it
    ├── ManifestError                 a mistake in notebooks/manifest.yaml
    ├── NotebookError                 an unusable notebook file
    │   ├── NotebookNotFoundError     no such notebook (similar names are listed)
    │   ├── NotebookSyntaxError       the file does not parse
    │   ├── DependencyError           the packages that it asks for, or their lock
    │   └── DependencyCycleError      notebooks that load each other in a cycle
    ├── ParameterError                a parameter's name or value
    ├── PartitionError                a partition key, range or definition
    ├── RunError                      a run that did not succeed (carries its ending)
    ├── OutputError                   a declared output
    │   ├── OutputNotAssignedError    the notebook never assigned it
    │   └── OutputNotParquetError     its value cannot be Parquet
    ├── InstallError                  an environment that cannot be made
    ├── BackupError                   a backup, its repository or its restoring
    ├── PruneError                    nothing can be removed just now
    ├── RemoteError                   a project on another machine that does not answer
    └── StoreError                    stored outputs
        ├── OutputNotFoundError       no such notebook, output, partition or version in the store
        └── CorruptOutputError        a file in the store that cannot be read

The first line of ``str(error)`` is complete: where, what, what to do.
All of them survive ``pickle`` and ``copy``, because errors cross processes.

This module is imported in the fresh process, under any Python from 3.10: standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "BackupError",
    "CorruptOutputError",
    "DependencyCycleError",
    "DependencyError",
    "InstallError",
    "ManifestError",
    "NotebookError",
    "NotebookNotFoundError",
    "NotebookSyntaxError",
    "OutputError",
    "OutputNotAssignedError",
    "OutputNotFoundError",
    "OutputNotParquetError",
    "ParameterError",
    "PartitionError",
    "ProjectError",
    "PruneError",
    "RemoteError",
    "ResearchJobsError",
    "RunError",
    "SourceLocation",
    "StoreError",
    "did_you_mean",
    "first_line",
    "innermost",
    "innermost_line",
]


@dataclass(frozen=True)
class SourceLocation:
    """A place in a text file.

    Parameters
    ----------
    path : str
        The file's name in messages (relative to the project if it is inside).
    line, column : int or None
        1-based; ``None`` where not known.
    """

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [self.path]
        if self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        return ":".join(parts)


class ResearchJobsError(Exception):
    """Base of all errors raised on purpose.

    Parameters
    ----------
    what : str
        What is wrong, one line.
    where : SourceLocation, optional
        The location in a file, put in front of the line.
    hint : str, optional
        What to do, appended to the line.
    details : str, optional
        Further lines (a traceback, a cell's source), put below the first line.
    """

    def __init__(
        self,
        what: str,
        *,
        where: SourceLocation | None = None,
        hint: str | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.details = details

    @property
    def headline(self) -> str:
        """str: the one line: where, what, what to do."""
        line = f"{self.where}: {self.what}" if self.where is not None else self.what
        if self.hint:
            line = f"{line.rstrip('.')}. {self.hint}"
        return line

    def __str__(self) -> str:
        return f"{self.headline}\n{self.details}" if self.details else self.headline

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own __reduce__ passes positional arguments only; ours has keywords.
        return (_rebuild, (type(self), self.args, self.__dict__.copy()))


def _rebuild(
    cls: type[ResearchJobsError], args: tuple[Any, ...], state: dict[str, Any]
) -> ResearchJobsError:
    error = cls.__new__(cls)
    Exception.__init__(error, *args)
    error.__dict__.update(state)
    return error


class ProjectError(ResearchJobsError):
    """There is no project, or one of its settings is unusable."""


class ManifestError(ResearchJobsError):
    """``notebooks/manifest.yaml`` has a mistake."""


class NotebookError(ResearchJobsError):
    """A notebook file is unusable."""


class NotebookNotFoundError(NotebookError):
    """No notebook has that name; the hint lists similar names."""


class NotebookSyntaxError(NotebookError):
    """The file does not parse as Python."""


class DependencyCycleError(NotebookError):
    """Notebooks load each other in a cycle, which the message shows."""


class DependencyError(NotebookError):
    """The packages that a notebook asks for cannot be read, or are not those of its lock."""


class ParameterError(ResearchJobsError):
    """A parameter's name is unknown or its value does not convert."""


class PartitionError(ResearchJobsError):
    """A partition key, range or definition is unusable."""


class RunError(ResearchJobsError):
    """A notebook's run did not succeed.

    Attributes
    ----------
    ending : str
        One of the values of `research_jobs.outcome.State`.
    details : str or None
        The notebook's own traceback and the failing cell's source.
    """

    def __init__(
        self,
        what: str,
        *,
        ending: str = "failed",
        where: SourceLocation | None = None,
        hint: str | None = None,
        details: str | None = None,
    ) -> None:
        super().__init__(what, where=where, hint=hint, details=details)
        self.ending = ending


class OutputError(ResearchJobsError):
    """A declared output is missing or unusable."""


class OutputNotAssignedError(OutputError):
    """The notebook never assigned a declared output."""


class OutputNotParquetError(OutputError):
    """A declared output's value cannot be kept as Parquet."""


class InstallError(ResearchJobsError):
    """A notebook's environment cannot be made: the installer's own words are the details."""


class BackupError(ResearchJobsError):
    """A backup cannot be made, read or restored."""


class PruneError(ResearchJobsError):
    """What is no longer kept cannot be removed."""


class RemoteError(ResearchJobsError):
    """A project on another machine cannot be reached, or does not do what it is asked."""


class StoreError(ResearchJobsError):
    """Stored outputs cannot be written or read."""


class OutputNotFoundError(StoreError):
    """No such notebook, output, partition or version in the store."""


class CorruptOutputError(StoreError):
    """A file in the store cannot be read."""


def innermost_line(error: BaseException) -> str:
    """The first line of the innermost cause, whatever wrapped it.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    str
        The class's name where it says nothing.
    """
    return first_line(innermost(error))


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its class's name where it says nothing."""
    said = error.headline if isinstance(error, ResearchJobsError) else str(error).strip()
    return (said or type(error).__name__).partition("\n")[0]


def innermost(error: BaseException) -> BaseException:
    """What an exception was raised from in the end, or while handling."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def did_you_mean(name: str, options: Iterable[str], *, label: str = "Known") -> str:
    """A suggestion for a misspelled name.

    Parameters
    ----------
    name : str
        What was written.
    options : iterable of str
        What could have been meant.
    label : str
        The word before the list when no name is similar.

    Returns
    -------
    str
        ``"Did you mean 'prices'?"``, or the first few options, or ``""`` when there are none.
    """
    names = sorted(set(options))
    # Compared without case: `Prices` for `prices` is the most common mistake.
    folded = {option.casefold(): option for option in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    if close:
        quoted = " or ".join(f"'{folded[match]}'" for match in close)
        return f"Did you mean {quoted}?"
    if not names:
        return ""
    shown = ", ".join(names[:8])
    return f"{label}: {shown}" + (f" and {len(names) - 8} more." if len(names) > 8 else ".")
