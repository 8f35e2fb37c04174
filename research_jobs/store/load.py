"""`load`: what a notebook made, equal to what it was, in the editor, in batch and anywhere else.

Only the standard library is imported until a file is read: the run worker lists outputs too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from research_jobs.errors import (
    OutputNotFoundError,
    PartitionError,
    ProjectError,
    did_you_mean,
)
from research_jobs.project import STORE_VARIABLE, Project, find_project, notebook_name
from research_jobs.protocol import PartitionKey
from research_jobs.run_context import RunContext, context
from research_jobs.store import versions
from research_jobs.store.layout import (
    STAGING,
    Unit,
    check_output_name,
    is_remote,
    notebook_folder,
    read_segments,
    unit_of,
)
from research_jobs.store.versions import (
    HeldVersion,
    Version,
    current_id,
    hold,
    list_versions,
)

__all__ = [
    "Outputs",
    "load",
    "output_version",
    "stored_notebooks",
    "stored_outputs",
    "stored_partitions",
    "stored_versions",
]

ALL = "all"
HOLD_AT_MOST = 200  # units: each one held takes a file descriptor
RETRIES = 20

_T = TypeVar("_T")
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


class _Shelf(Protocol):
    """What a local store and one behind a URL have in common."""

    def list_units(self, store: str, notebook: str) -> Iterator[Any]: ...
    def hold(self, unit: Any, choose: str | int | None = None) -> Any: ...
    def published_at(self, unit: Any) -> str: ...
    def window(self, unit: Any) -> tuple[str, str] | None: ...


def _shelf(store: str) -> _Shelf:
    if not is_remote(store):
        return versions
    from research_jobs.store import remote

    return remote


@dataclass(frozen=True)
class _Selection:
    """The units that are read, and whether as one table (with the keys as columns)."""

    units: tuple[Any, ...]
    many: bool


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
        self._selection = _select(store, self.notebook, partition, project)
        units = self._selection.units
        self._held: list[HeldVersion] = []
        self._versions: list[tuple[Any, Version]] = []
        self._old = version is not None
        for unit in units:
            held = _shelf(store).hold(unit, version)
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
        value = _read(files, self._selection, columns, filters, as_)
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
    selection: _Selection,
    columns: Sequence[Any] | None,
    filters: Any,
    as_: str,
) -> Any:
    if not selection.many:
        from research_jobs.store.codec import read_output

        return read_output(files[0][1], columns=columns, filters=filters, as_=as_)
    from research_jobs.store.partitions import read_partitions

    return read_partitions(files, columns=columns, filters=filters, as_=as_)


def _select(store: str, notebook: str, partition: Any, project: Project | None) -> _Selection:
    """Which units `partition` means.

    Raises
    ------
    OutputNotFoundError, PartitionError
    """
    shelf = _shelf(store)
    units = list(shelf.list_units(store, notebook))
    if not units:
        raise _nothing_there(store, notebook, project)
    plain = [unit for unit in units if not unit.segments]
    parted = [unit for unit in units if unit.segments]
    if plain and parted and partition is None:
        # The notebook was partitioned, or no longer is: what was published last counts.
        latest = max(units, key=shelf.published_at)
        parted = parted if latest.segments else []
    if not parted:
        if partition is not None and partition != ALL:
            raise OutputNotFoundError(
                f"{notebook} is not partitioned, there is no partition {partition!r} of it"
            )
        return _Selection(tuple(plain), many=False)
    keys = {unit: read_segments(unit.segments) for unit in parted}
    if partition is None:
        return _of_run(notebook, keys, context(), shelf)
    return _of_request(notebook, keys, partition)


def _of_run(
    notebook: str, keys: Mapping[Any, PartitionKey], run: RunContext, shelf: _Shelf
) -> _Selection:
    """What a run reads without saying so: its own partition, or those that its window meets."""
    if not run.partition_key:
        return _Selection(tuple(keys), many=True)
    own = dict(run.partition) or {"partition": run.partition_key}
    alike = {tuple(sorted(key.dimensions)) for key in keys.values()}
    if tuple(sorted(own)) in alike:
        exact = [unit for unit, key in keys.items() if dict(key.dimensions) == own]
    else:
        exact = [unit for unit, key in keys.items() if key.key == run.partition_key]
    if exact:
        return _Selection((exact[0],), many=False)
    if run.start is not None and run.end is not None:
        windows = {unit: _window(shelf, unit) for unit in keys}
        met = {
            unit: found
            for unit, found in windows.items()
            if found is not None and found[0] < run.end and found[1] > run.start
        }
        if met:
            start, end = next(iter(met.values()))
            inside = len(met) == 1 and start <= run.start and end >= run.end
            return _Selection(tuple(met), many=not inside)
    raise _no_partition(notebook, run.partition_key, keys)


def _window(shelf: _Shelf, unit: Any) -> tuple[datetime, datetime] | None:
    window = shelf.window(unit)
    if window is None:
        return None
    start, end = (datetime.fromisoformat(moment) for moment in window)
    return start, end


def _of_request(notebook: str, keys: Mapping[Any, PartitionKey], wanted: Any) -> _Selection:
    if isinstance(wanted, PartitionKey):
        wanted = dict(wanted.dimensions) or wanted.key
    if isinstance(wanted, Mapping):
        return _of_mapping(notebook, keys, wanted)
    by_key = {key.key: unit for unit, key in keys.items()}
    if wanted == ALL and ALL not in by_key:
        return _Selection(tuple(keys), many=True)
    if isinstance(wanted, (str, date)):
        key = _key_text(wanted)
        if key not in by_key:
            raise _no_partition(notebook, key, keys)
        return _Selection((by_key[key],), many=False)
    if isinstance(wanted, slice) or (isinstance(wanted, tuple) and len(wanted) == 2):
        inside = _in_range(wanted)
        units = tuple(unit for key, unit in sorted(by_key.items()) if inside(key))
        if not units:
            raise _no_partition(notebook, f"in the range {wanted}", keys)
        return _Selection(units, many=True)
    return _Selection(_each(notebook, keys, by_key, wanted), many=True)


def _each(
    notebook: str, keys: Mapping[Any, PartitionKey], by_key: Mapping[str, Any], wanted: Any
) -> tuple[Any, ...]:
    """The units of a list of keys."""
    try:
        several = [_key_text(item) for item in wanted]
    except TypeError:
        raise PartitionError(
            f"{wanted!r} is no partition",
            hint='Give a key, a list of keys, a range ("first", "last"), or "all".',
        ) from None
    if not several:
        raise PartitionError(f"{notebook}: no partition was asked for, the list is empty")
    for key in several:
        if key not in by_key:
            raise _no_partition(notebook, key, keys)
    return tuple(by_key[key] for key in dict.fromkeys(several))


def _of_mapping(
    notebook: str, keys: Mapping[Any, PartitionKey], wanted: Mapping[str, Any]
) -> _Selection:
    dimensions = next(iter(keys.values())).dimensions
    for name in wanted:
        if name not in dimensions:
            raise PartitionError(
                f"{notebook} is not partitioned by {name!r}",
                hint=did_you_mean(name, dimensions, label="It is by"),
            )
    one = set(wanted) == set(dimensions)
    tests: dict[str, Callable[[str], bool]] = {}
    for name, item in wanted.items():
        if isinstance(item, (str, date)):
            tests[name] = _key_text(item).__eq__
        elif isinstance(item, (slice, tuple)):
            one, tests[name] = False, _in_range(item)
        else:
            one, tests[name] = False, {_key_text(each) for each in item}.__contains__
    units = tuple(
        unit
        for unit, key in keys.items()
        if all(test(key.dimensions[name]) for name, test in tests.items())
    )
    if not units:
        raise _no_partition(notebook, str(dict(wanted)), keys)
    return _Selection(units, many=not one)


def _in_range(wanted: Any) -> Callable[[str], bool]:
    """Whether a key is in a range, both ends included; an end that is None is open."""
    first, last = (wanted.start, wanted.stop) if isinstance(wanted, slice) else wanted
    low = None if first is None else _key_text(first)
    high = None if last is None else _key_text(last)
    return lambda key: (low is None or key >= low) and (high is None or key <= high)


def _key_text(key: Any) -> str:
    if isinstance(key, datetime):
        return key.date().isoformat() if key.time() == datetime.min.time() else key.isoformat()
    if isinstance(key, date):
        return key.isoformat()
    if isinstance(key, str):
        return key
    raise TypeError(f"{key!r} is no partition key")


def _no_partition(
    notebook: str, wanted: str, keys: Mapping[Any, PartitionKey]
) -> OutputNotFoundError:
    known = sorted(key.key for key in keys.values())
    if len(known) <= 8:
        there = f"There are: {', '.join(known)}"
    else:
        there = f"There are {len(known)}, from {known[0]} to {known[-1]}."
    return OutputNotFoundError(f"{notebook} has no partition {wanted}", hint=there)


def _nothing_there(store: str, notebook: str, project: Project | None) -> OutputNotFoundError:
    """The error for a notebook without outputs: unknown, or not run yet."""
    names = set(stored_notebooks(store))
    if project is not None:
        folder = project.notebooks
        names.update(
            path.relative_to(folder).with_suffix("").as_posix()
            for path in folder.rglob("*.py")
            if not path.name.startswith("_")
        )
        if (folder / f"{notebook}.py").is_file():
            return OutputNotFoundError(
                f"{notebook} has no outputs in {project.display(store)} yet",
                hint=f"Run it: research-jobs run {notebook}",
            )
    return OutputNotFoundError(
        f"there is no notebook {notebook!r}, and no outputs of one in {store}",
        hint=did_you_mean(notebook, names, label="There are") or None,
    )


def stored_notebooks(store: str) -> tuple[str, ...]:
    """The notebooks that have outputs in a store, sorted."""
    if is_remote(store):
        from research_jobs.store import remote

        return remote.stored_notebooks(store)
    root = Path(store).resolve()
    return tuple(sorted(_notebooks_below(root, root)))


def _notebooks_below(folder: Path, root: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    if folder != root and not {".versions", ".partitions"}.isdisjoint(folders):
        yield folder.relative_to(root).as_posix()
    for name in folders:
        if not name.startswith(".") and "=" not in name and name != STAGING:
            yield from _notebooks_below(folder / name, root)


def stored_partitions(store: str, notebook: str) -> tuple[PartitionKey, ...]:
    """The partitions of a notebook that have outputs, ordered by key."""
    units = _shelf(store).list_units(store, notebook_name(notebook))
    found = [read_segments(unit.segments) for unit in units if unit.segments]
    return tuple(sorted(found, key=lambda key: key.key))


def stored_outputs(
    store: str, notebook: str, partition: PartitionKey | None = None
) -> Mapping[str, Path]:
    """The outputs that a notebook, or a partition of it, has in a local store.

    Returns
    -------
    mapping of str to Path
        Output to the path that other tools read; empty when nothing was published.
    """
    unit = unit_of(store, notebook_name(notebook), partition)
    return _latest(unit, lambda version: {name: unit.link(name) for name in version.outputs}) or {}


def stored_versions(
    store: str, notebook: str, partition: PartitionKey | None = None
) -> tuple[Version, ...]:
    """The versions that are kept, the current one first."""
    return tuple(list_versions(unit_of(store, notebook_name(notebook), partition)))


def _latest(unit: Unit, use: Callable[[Version], _T]) -> _T | None:
    with _holding(unit) as version:
        return None if version is None else use(version)


@contextmanager
def _holding(unit: Unit) -> Generator[Version | None]:
    if current_id(unit) is None:
        yield None
        return
    held = hold(unit)
    try:
        yield held.version
    finally:
        held.release()


def output_version(
    store: str, notebook: str, output: str, partition: PartitionKey | None = None
) -> Path | None:
    """An output's file in the current version; None where there is none."""
    name = check_output_name(output)
    if is_remote(store) or not notebook_folder(store, notebook).is_dir():
        return None
    unit = unit_of(store, notebook_name(notebook), partition)
    return _latest(unit, lambda found: found.file(name) if name in found.outputs else None)
