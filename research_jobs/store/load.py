"""`load`: what a notebook made, equal to what it was, in the editor, in batch and anywhere else.

Only the standard library is imported until a file is read: the run worker lists outputs too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, ProjectError, did_you_mean
from research_jobs.project import STORE_VARIABLE, Project, find_project, notebook_name
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import HeldVersion
from research_jobs.store.layout import is_remote, read_segments
from research_jobs.store.records import Version
from research_jobs.store.selection import Selection, select

__all__ = ["Outputs", "load"]

HOLD_AT_MOST = 200  # units: each one held takes a file descriptor
RETRIES = 20

# Versions that lazy frames may still read: held until the process ends.
_kept: dict[Path, HeldVersion] = {}


def load(
    notebook: str,
    output: str | None = None,
    partition: Any = None,
    *,
    columns: Sequence[Any] | None = None,
    filters: Any = None,
    as_: str = "native",
    version: int | str | None = None,
    project: str | os.PathLike[str] | Project | None = None,
) -> Any:
    """Read what a notebook made.

    Parameters
    ----------
    notebook : str
        ``"market_data"`` or ``"volatility/garch"``.
    output : str, optional
        The variable. Without it: the only output, or a mapping of all of them.
    partition : optional
        One key (``"2018-11-01"``, a date, or a mapping of dimension to key); a list of keys; a
        range ``("2018-11-01", "2018-11-30")`` or ``slice("2018-11-01", None)``, both ends
        included; ``"all"``. Several are read as one table with the keys as columns. Without it:
        in a partitioned run the partition that belongs to the run's, elsewhere all.
    columns : sequence, optional
        Labels of the columns to read.
    filters : list of tuple, list of list of tuple, or pyarrow.compute.Expression, optional
        Rows to read, as pandas and pyarrow take them: ``[("date", ">=", "2018-11-01")]``.
    as_ : {"native", "pandas", "polars", "arrow", "lazy", "path"}
        ``native`` is what the notebook assigned. ``lazy`` is a polars LazyFrame.
    version : int or str, optional
        ``-1`` for the version before the current one (the manifest's ``keep``), or its id.
    project : path or Project, optional
        By default ``RESEARCH_JOBS_PROJECT``, else the project around the working directory.
        ``RESEARCH_JOBS_STORE`` alone is enough too.

    Returns
    -------
    object

    Raises
    ------
    OutputNotFoundError
        When there is no such notebook, output, partition or version; says which there are.
    StoreError
        When it cannot be read.
    ProjectError
        When there is neither a project nor a store.
    """
    store, found = _find_store(project)
    name = notebook_name(notebook)
    outputs = Outputs(store, name, partition=partition, version=version, project=found)
    chosen = output if output is not None else outputs.only()
    if chosen is None:
        if columns is not None or filters is not None or as_ != "native":
            raise OutputNotFoundError(
                f"{name} has several outputs", hint=f"Say which: {', '.join(outputs)}"
            )
        return outputs
    for _ in range(RETRIES):
        # Where nothing could be held, the version may be pruned between looking and opening.
        with suppress(FileNotFoundError):
            return outputs.load(chosen, columns=columns, filters=filters, as_=as_)
        outputs = Outputs(store, name, partition=partition, version=version, project=found)
    return outputs.load(chosen, columns=columns, filters=filters, as_=as_)


def _find_store(
    project: str | os.PathLike[str] | Project | None,
) -> tuple[str, Project | None]:
    try:
        found = find_project(project)
    except ProjectError:
        store = os.environ.get(STORE_VARIABLE)
        if project is not None or not store:
            raise
        return (store if is_remote(store) else str(Path(store).expanduser().resolve())), None
    return found.store, found


class Outputs(Mapping[str, Any]):
    """A notebook's outputs, read when they are asked for, all of one version.

    What is published later does not show, and the version is not pruned, as long as this object
    is there.

    Parameters
    ----------
    store : str
        A local store's folder.
    notebook : str
    partition : optional
        As `load` takes it.
    version : int or str, optional
    project : Project, optional
        Names notebooks in errors.
    """

    def __init__(
        self,
        store: str,
        notebook: str,
        partition: Any = None,
        *,
        version: int | str | None = None,
        project: Project | None = None,
    ) -> None:
        self.store = store
        self.notebook = notebook_name(notebook)
        self._selection = select(store, self.notebook, partition, project)
        units, backend = self._selection.units, backend_of(store)
        self._held: list[HeldVersion] = []
        self._versions: list[tuple[Any, Version]] = []
        self._old = version is not None
        for unit in units:
            held = backend.hold(unit, version)
            self._versions.append((unit, held.version))
            if len(units) <= HOLD_AT_MOST:
                self._held.append(held)
            else:
                held.release()

    @property
    def versions(self) -> tuple[str, ...]:
        """Tuple of str: the ids of the versions that are read, one for each partition."""
        return tuple(version.id for _, version in self._versions)

    def only(self) -> str | None:
        """The only output's name, None where there are several.

        Raises
        ------
        OutputNotFoundError
            When there is none.
        """
        names = list(self)
        if not names:
            raise OutputNotFoundError(
                f"{self.notebook} declares no outputs", hint="Name some in notebooks/manifest.yaml."
            )
        return names[0] if len(names) == 1 else None

    def __getitem__(self, name: str) -> Any:
        if name not in set(self):
            raise KeyError(name)
        return self.load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(
            dict.fromkeys(name for _, version in self._versions for name in version.outputs)
        )

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"<Outputs of {self.notebook}: {', '.join(self)}>"

    def paths(self, name: str) -> tuple[Path, ...]:
        """The files of an output in the versions that are read.

        Raises
        ------
        OutputNotFoundError
        """
        return tuple(path for _, path in self._files(name))

    def _files(self, name: str) -> list[tuple[Mapping[str, str], Path]]:
        found = [
            (read_segments(unit.segments).dimensions, version.file(name))
            for unit, version in self._versions
            if name in version.outputs
        ]
        if not found:
            raise OutputNotFoundError(
                f"{self.notebook} has no output {name!r}",
                hint=did_you_mean(name, list(self), label="It has") or None,
            )
        return found

    def load(
        self,
        name: str,
        *,
        columns: Sequence[Any] | None = None,
        filters: Any = None,
        as_: str = "native",
    ) -> Any:
        """Read one output; parameters as `load`'s.

        Raises
        ------
        OutputNotFoundError, StoreError
        """
        files = self._files(name)
        if as_ == "path":
            return self._path(name, files)
        try:
            value = _read(files, self._selection, columns, filters, as_)
        except FileNotFoundError as error:
            gone = (path for _, path in files if path.parent.is_dir() and not path.is_file())
            if (path := next(gone, None)) is None:
                raise  # the whole version was pruned
            raise CorruptOutputError(f"{path} is gone", hint="Run the notebook again.") from error
        if as_ == "lazy" or type(value).__name__ in ("LazyFrame", "RecordBatchReader"):
            for held in self._held:
                _kept.setdefault(held.version.folder, held)
        return value

    def _path(self, name: str, files: Sequence[tuple[Mapping[str, str], Path]]) -> Any:
        units = [unit for unit, version in self._versions if name in version.outputs]
        paths = [path for _, path in files] if self._old else [unit.link(name) for unit in units]
        return paths if self._selection.many else paths[0]

    def close(self) -> None:
        """Let the versions be pruned; reading after that may fail."""
        for held in self._held:
            held.release()
        self._held.clear()

    def __enter__(self) -> Outputs:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(
    files: Sequence[tuple[Mapping[str, str], Path]],
    selection: Selection,
    columns: Sequence[Any] | None,
    filters: Any,
    as_: str,
) -> Any:
    if isinstance(filters, (list, tuple)) and not filters:
        filters = None
    if not selection.many:
        from research_jobs.store.codec import read_output

        return read_output(files[0][1], columns=columns, filters=filters, as_=as_)
    from research_jobs.store.partitions import read_partitions

    return read_partitions(files, columns=columns, filters=filters, as_=as_)
