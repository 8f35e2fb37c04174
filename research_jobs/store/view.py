"""What `load()` reads through: the store, what a run has laid over it, and a note of each read.

A run has a folder for what it needs while it lasts (`VIEW_VARIABLE` names it in its processes).
``view.json`` there says what is read instead of the store's current versions; most runs have
none. Each read is a line of ``reads.jsonl``: workers of the notebook inherit the variable, so
theirs are there too. Standard library only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from research_jobs.errors import PartitionError
from research_jobs.protocol import PartitionKey
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import HeldVersion
from research_jobs.store.layout import is_remote
from research_jobs.store.records import Version

__all__ = ["READS", "VIEW_VARIABLE", "Reader", "View", "current_view", "laid_over"]

VIEW_VARIABLE = "RESEARCH_JOBS_VIEW"
VIEW, READS = "view.json", "reads.jsonl"
NOTED_AT_MOST = 20_000  # lines of one process


@dataclass(frozen=True)
class View:
    """What a run reads instead of the store's current versions.

    Parameters
    ----------
    folder : Path
        The run's folder.
    store : str
        The store that it is a view of. Others are read as they are.
    overlay : str or None
        A store whose outputs hide those of the same notebook and partition.
    pins : mapping of (str, tuple of str) to str
        Notebook and partition folders to the version that is read.
    hidden : set of (str, tuple of str)
        Notebook and partition folders of the store that are not there.
    """

    folder: Path
    store: str = ""
    overlay: str | None = None
    pins: Mapping[tuple[str, tuple[str, ...]], str] = field(
        default_factory=dict[tuple[str, tuple[str, ...]], str]
    )
    hidden: Collection[tuple[str, tuple[str, ...]]] = frozenset()

    def write(self) -> None:
        """Write it for the run's processes."""
        pins = [
            [notebook, list(parts), version] for (notebook, parts), version in self.pins.items()
        ]
        said = {"store": self.store, "overlay": self.overlay, "pins": pins}
        text = json.dumps(said | {"hidden": sorted(self.hidden)})
        (self.folder / VIEW).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> View:
        """The view of a run with this folder."""
        try:
            said: dict[str, Any] = json.loads((folder / VIEW).read_bytes())
        except FileNotFoundError:
            return cls(folder)
        pins = {(str(name), tuple(parts)): str(version) for name, parts, version in said["pins"]}
        hidden = frozenset((str(name), tuple(parts)) for name, parts in said["hidden"])
        return cls(folder, said["store"], said["overlay"], pins, hidden)

    def note(self, entry: Mapping[str, Any]) -> None:
        """Add a line to what the run has read; never fails, and says nothing twice."""
        line = json.dumps(entry) + "\n"
        if line in _noted or len(_noted) > NOTED_AT_MOST:
            return
        _noted.add(line)
        if len(_noted) > NOTED_AT_MOST:
            line = json.dumps({"more": True}) + "\n"
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self.folder / READS, flags, 0o600)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


_noted: set[str] = set()


def current_view() -> View | None:
    """The view of the run that this process belongs to; None outside of one."""
    folder = os.environ.get(VIEW_VARIABLE)
    return _view_of(folder) if folder else None


@lru_cache(maxsize=1)
def _view_of(folder: str) -> View:
    return View.read(Path(folder))


class Reader:
    """A store as `load()` sees it.

    Parameters
    ----------
    store : str
    """

    def __init__(self, store: str) -> None:
        self._store = store
        self._backend: Any = backend_of(store)
        view = current_view()
        self._view = view if view is not None and view.store == store else None
        overlay = self._view.overlay if self._view is not None else None
        self._overlay: Any = backend_of(overlay) if overlay is not None else None
        self._overlay_store = overlay or ""

    def notebooks(self) -> tuple[str, ...]:
        """The notebooks that have outputs, sorted."""
        laid_over = self._overlay.notebooks() if self._overlay is not None else ()
        return tuple(sorted({*self._backend.notebooks(), *laid_over}))

    def units(self, notebook: str) -> Iterator[Any]:
        """The units of a notebook, those of the overlay first; see `StoreBackend.units`."""
        gone = self._view.hidden if self._view is not None else frozenset()
        hidden = {segments for name, segments in gone if name == notebook}
        if self._overlay is not None:
            for unit in self._overlay.units(notebook):
                hidden.add(unit.segments)
                yield _LaidOver(unit, self._overlay_store)
        if () in hidden:
            return
        for unit in self._backend.units(notebook):
            if unit.segments not in hidden:
                yield unit

    def unit(self, notebook: str, wanted: str | Mapping[str, str]) -> Any | None:
        """A partition's unit, without a list of all; None where only the list can tell.

        Parameters
        ----------
        notebook : str
        wanted : str or mapping of str to str
            The key where there is one dimension, or dimension to key.
        """
        if self._overlay is not None or (self._view is not None and self._view.hidden):
            return None
        stored = self._backend.partitioning(notebook)
        dimensions = stored.by if stored is not None else {}
        if isinstance(wanted, str):
            wanted = dict.fromkeys(dimensions, wanted)
            if len(wanted) != 1:
                return None
        if not wanted or set(wanted) != set(dimensions):
            return None
        try:
            return self._backend.unit(notebook, PartitionKey("|".join(wanted.values()), wanted))
        except PartitionError:  # no key of a partition that could be stored
            return None

    def hold(self, unit: Any, choose: str | int | None = None) -> HeldVersion:
        """Hold a version of a unit; see `StoreBackend.hold`."""
        if isinstance(unit, _LaidOver):
            return self._overlay.hold(unit.unit, choose)
        if choose is None and self._view is not None:
            choose = self._view.pins.get((unit.notebook, unit.segments))
        return self._backend.hold(unit, choose)

    def hold_each(
        self, units: Sequence[Any], choose: str | int | None = None
    ) -> Iterable[HeldVersion]:
        """Hold a version of each unit: in turn, or by parallel requests."""
        if not is_remote(self._store):
            return (self.hold(unit, choose) for unit in units)
        from research_jobs.store.objects import in_parallel

        return in_parallel(lambda unit: self.hold(unit, choose), units)

    def file_each(self, versions: Sequence[Version], output: str) -> Sequence[Path]:
        """The file of an output in each version."""
        if not is_remote(self._store):
            return [version.file(output) for version in versions]
        from research_jobs.store.objects import in_parallel

        return in_parallel(lambda version: version.file(output), versions)


@dataclass(frozen=True)
class _LaidOver:
    """A unit of the overlay."""

    unit: Any
    store: str

    @property
    def segments(self) -> tuple[str, ...]:
        return self.unit.segments

    def link(self, output: str) -> Any:
        return self.unit.link(output)


def laid_over(unit: Any) -> str | None:
    """The overlay that a unit of `Reader.units` is of; None where it is of the store itself."""
    return unit.store if isinstance(unit, _LaidOver) else None
