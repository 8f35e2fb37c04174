"""`load`: a notebook's output, equal to what was assigned, in the editor, in batch and elsewhere.

Only the standard library is imported until a file is read: the run worker lists outputs too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, ProjectError, did_you_mean
from research_jobs.project import STORE_VARIABLE, Project, find_project, notebook_name
from research_jobs.store.backends.base import HeldVersion
from research_jobs.store.layout import is_remote, read_segments
from research_jobs.store.records import Version
from research_jobs.store.selection import Selection, select
from research_jobs.store.view import Reader, current_view, laid_over

__all__ = ["Outputs", "load"]

HOLD_AT_MOST = 200  # units: each one that is held takes a file descriptor
RETRIES = 20

# Versions that lazy frames may still read; they are held until the process ends.
_kept: dict[Path, HeldVersion] = {}

# Store, notebook and output of which it was said that they are a sample.
_said: set[tuple[str, str, str]] = set()


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
    """Read a notebook's outputs.

    Parameters
    ----------
    notebook : str
        ``"market_data"`` or ``"volatility/garch"``.
    output : str, optional
        The variable. Default: the only output, or a mapping of all of them.
    partition : optional
        One key (``"2018-11-01"``, a date, or a mapping of dimension to key); a list of keys; a
        range ``("2018-11-01", "2018-11-30")`` or ``slice("2018-11-01", None)``, both ends
        included; ``"all"``. Several are read as one table with the keys as columns. Default: in a
        partitioned run the partition that matches the run's, elsewhere all.
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
        When there is no such notebook, output, partition or version; lists those that exist.
    StoreError
        When it cannot be read.
    ProjectError
        When there is neither a project nor a store.
    """
    store, known_project = _find_store(project)
    name = notebook_name(notebook)
    outputs = Outputs(store, name, partition=partition, version=version, project=known_project)
    chosen = output if output is not None else outputs.only()
    if chosen is None:
        if columns is not None or filters is not None or as_ != "native":
            raise OutputNotFoundError(
                f"{name} has several outputs", hint=f"Name one: {', '.join(outputs)}"
            )
        return outputs
    for _ in range(RETRIES):
        # If it cannot be held, the version may be pruned between listing and opening.
        with suppress(FileNotFoundError):
            return outputs.load(chosen, columns=columns, filters=filters, as_=as_)
        outputs = Outputs(store, name, partition=partition, version=version, project=known_project)
    return outputs.load(chosen, columns=columns, filters=filters, as_=as_)


def _find_store(
    project: str | os.PathLike[str] | Project | None,
) -> tuple[str, Project | None]:
    try:
        known_project = find_project(project)
    except ProjectError:
        store = os.environ.get(STORE_VARIABLE)
        if project is not None or not store:
            raise
        return (store if is_remote(store) else str(Path(store).expanduser().resolve())), None
    return known_project.store, known_project


class Outputs(Mapping[str, Any]):
    """A notebook's outputs, all of one version, read on demand.

    As long as this object exists, the version is not pruned, and later ones do not show.

    Parameters
    ----------
    store : str
        The folder of a local store.
    notebook : str
    partition : optional
        As in `load`.
    version : int or str, optional
    project : Project, optional
        Used for notebook names in errors.
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
        units, self._reader = self._selection.units, Reader(store)
        self._held: list[HeldVersion] = []
        self._versions: list[tuple[Any, Version]] = []
        self._old = version is not None
        for unit, held in zip(units, self._reader.hold_each(units, version), strict=True):
            self._versions.append((unit, held.version))
            if len(units) <= HOLD_AT_MOST:
                self._held.append(held)
            else:
                held.release()

    @property
    def versions(self) -> tuple[str, ...]:
        """Tuple of str: the ids of the versions to read, one for each partition."""
        return tuple(version.id for _, version in self._versions)

    def only(self) -> str | None:
        """The only output's name; None if there are several.

        Raises
        ------
        OutputNotFoundError
            When it has no outputs.
        """
        names = list(self)
        if not names:
            raise OutputNotFoundError(
                f"{self.notebook} declares no outputs",
                hint="Declare some in notebooks/manifest.yaml.",
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
        """The files of an output in the versions to read.

        Raises
        ------
        OutputNotFoundError
        """
        return tuple(path for _, path in self._files(name))

    def described(self, name: str) -> Mapping[str, Any]:
        """The record of an output in the first version to read: ``kind``, ``rows``, ``bytes``.

        Raises
        ------
        OutputNotFoundError
        """
        self._files(name)
        return next(v.outputs[name] for _, v in self._versions if name in v.outputs)

    def _files(self, name: str) -> list[tuple[Mapping[str, str], Path]]:
        found = [(unit, version) for unit, version in self._versions if name in version.outputs]
        paths = self._reader.file_each([version for _, version in found], name)
        files = [
            (read_segments(unit.segments).dimensions, path)
            for (unit, _), path in zip(found, paths, strict=True)
        ]
        if not files:
            raise OutputNotFoundError(
                f"{self.notebook} has no output {name!r}",
                hint=did_you_mean(name, list(self), label="It has") or None,
            )
        self._note(name)
        self._say_sample(name)
        return files

    def _say_sample(self, name: str) -> None:
        """Say once on stderr that an output is a sample."""
        origins = (version.origin for _, version in self._versions if name in version.outputs)
        said = (each.describe(self.notebook, name) for each in origins if each is not None)
        line = next((each for each in said if each is not None), None)
        if line is not None and (self.store, self.notebook, name) not in _said:
            _said.add((self.store, self.notebook, name))
            sys.stderr.write(f"{line}\n")

    def _note(self, name: str) -> None:
        """Note in the run's record that it reads an output."""
        view = current_view()
        if view is not None:
            read: dict[str, list[Any]] = {}
            for unit, version in self._versions:
                if name in version.outputs:
                    place = read.setdefault(laid_over(unit) or self.store, [])
                    place.append([list(unit.segments), version.id])
            for store, versions in read.items():
                view.note(
                    {"load": self.notebook, "output": name, "store": store, "versions": versions}
                )

    def load(
        self,
        name: str,
        *,
        columns: Sequence[Any] | None = None,
        filters: Any = None,
        as_: str = "native",
    ) -> Any:
        """Read one output; parameters as in `load`.

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
            raise CorruptOutputError(
                f"{path} no longer exists", hint="Run the notebook again."
            ) from error
        if as_ == "lazy" or type(value).__name__ in ("LazyFrame", "RecordBatchReader"):
            for held in self._held:
                _kept.setdefault(held.version.folder, held)
        return value

    def _path(self, name: str, files: Sequence[tuple[Mapping[str, str], Path]]) -> Any:
        units = [unit for unit, version in self._versions if name in version.outputs]
        paths = [path for _, path in files] if self._old else [unit.link(name) for unit in units]
        return paths if self._selection.many else paths[0]

    def close(self) -> None:
        """Release the versions; they may be pruned, so later reads may fail."""
        for held in self._held:
            held.release()
        self._held.clear()

    def __enter__(self) -> Outputs:  # noqa: PYI034 - Self requires Python 3.11
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
