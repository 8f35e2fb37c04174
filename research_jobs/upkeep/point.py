"""One point in time of a project: a folder with all that a backup stores, and how it is undone."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import BackupError, ResearchJobsError, StoreError
from research_jobs.project import Project
from research_jobs.store.backends.local import LocalStore
from research_jobs.store.files import FolderLock
from research_jobs.store.layout import VERSIONS, Unit
from research_jobs.store.links import align_links
from research_jobs.store.versions import read_partitioning
from research_jobs.upkeep.history import History
from research_jobs.upkeep.pinning import pin, pin_store, pin_tree
from research_jobs.upkeep.turns import turn

__all__ = [
    "Instance",
    "Point",
    "make_point",
    "place_files",
    "place_logs",
    "place_store",
    "point_folder",
    "refuse_full_store",
    "refuse_instance",
]

FORMAT = 1
RECORD = "backup.json"
# Made again by whoever needs it.
_LEFT_OUT = (".cache", "__pycache__", "node_modules", ".ipynb_checkpoints")
_CACHE_TAG, _ENVIRONMENT = "CACHEDIR.TAG", "pyvenv.cfg"


@dataclass(frozen=True)
class Instance:
    """Where Dagster keeps what is ours.

    Parameters
    ----------
    home : Path
        The folder of its ``dagster.yaml``, where that is not the project's.
    history : History
    logs : Path or None
        The folder of compute logs; None where they are kept elsewhere.
    """

    home: Path
    history: History
    logs: Path | None = None


@dataclass(frozen=True)
class Point:
    """What a point says of itself.

    Parameters
    ----------
    at : float
        Unix time.
    root, store : str
        The project's folder and its store.
    history : str
        The kind of its history.
    left_out : tuple of str
        Files that could not be read.
    """

    at: float
    root: str
    store: str
    history: str
    left_out: tuple[str, ...] = field(default_factory=tuple[str, ...])
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Point:
        """What the point in a folder says.

        Raises
        ------
        BackupError
        """
        try:
            said: Mapping[str, Any] = json.loads((folder / RECORD).read_bytes())
            if int(said["format"]) > FORMAT:
                raise BackupError(
                    f"the backup has format {said['format']}; this research_jobs reads formats up "
                    f"to {FORMAT}",
                    hint="Upgrade research_jobs.",
                )
            fields = {**said, "left_out": tuple(said["left_out"])}
            return cls(**dict[str, Any](fields))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupError(f"this is not a backup of a project: {error}") from error


def point_folder(project: Project) -> Path:
    """The folder of a project's point: on the file system of its outputs, so that they link."""
    if project.store_is_local:
        return Path(project.store) / ".backup"
    return project.state / "backup"


@contextmanager
def make_point(project: Project, instance: Instance) -> Generator[tuple[Path, Point]]:
    """A folder with all of a project as it is at one moment; it is removed at last.

    The history is fixed first and the outputs are linked next. So an output can be newer than the
    history, which then has it made again, and the history never knows of an output that is missing.

    Parameters
    ----------
    project : Project
    instance : Instance

    Raises
    ------
    BackupError
        When another backup is being made.
    """
    outer = point_folder(project)
    project.make_state_folder()
    outer.mkdir(parents=True, exist_ok=True)
    outer.chmod(0o700)
    with FolderLock(outer) as lock:
        if not lock.exclusive(wait=False):
            raise BackupError("another backup of this project is being made")
        folder = outer / "point"
        shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
        folder.mkdir(mode=0o700)
        try:
            with turn(project, "history"), instance.history.fixed() as dump:
                at = time.time()
                left_out = list(_pin_all(project, instance, folder))
                dump(folder / "history")
            point = Point(
                at,
                str(project.root),
                project.store,
                instance.history.kind,
                tuple(map(str, left_out)),
            )
            (folder / RECORD).write_text(json.dumps(asdict(point)), encoding="utf-8")
            yield folder, point
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _pin_all(project: Project, instance: Instance, folder: Path) -> Generator[Path]:
    if project.store_is_local:
        yield from pin_store(project.store, folder / "store")
    elsewhere = {project.state.resolve(), instance.home.resolve(), Path(project.store)}
    elsewhere |= {path.resolve() for path in instance.history.places}
    if instance.logs is not None:
        elsewhere.add(instance.logs.resolve())
        yield from pin_tree(instance.logs, folder / "logs")
    yield from pin_tree(project.root, folder / "project", _unless(elsewhere))
    # Books and logs of ours: files alone, as folders are caches and run folders.
    yield from pin_tree(project.state, folder / "state", lambda entry: not _is_book(entry))
    settings = instance.home / "dagster.yaml"
    if settings.is_file() and instance.home.resolve() != project.root:
        (folder / "home").mkdir()
        pin(settings, folder / "home" / settings.name)


def _unless(folders: set[Path]) -> Callable[[os.DirEntry[str]], bool]:
    """Whether an entry is left out: what is backed up otherwise, and what can be made again."""

    def skip(entry: os.DirEntry[str]) -> bool:
        if not entry.is_dir(follow_symlinks=False):
            return False
        path = Path(entry.path)
        return (
            entry.name in _LEFT_OUT
            or path in folders
            or os.path.lexists(path / _ENVIRONMENT)  # False for one that may not be entered
            or os.path.lexists(path / _CACHE_TAG)
        )

    return skip


def _is_book(entry: os.DirEntry[str]) -> bool:
    return entry.is_file(follow_symlinks=False) and entry.name.endswith((".json", ".jsonl"))


def place_files(folder: Path, root: Path, placed: list[Path]) -> None:
    """Move a project's files from a point's folder to its root.

    Parameters
    ----------
    folder, root : Path
    placed : list of Path
        Gets what a restore that fails removes again.
    """
    _move_all(folder / "project", root, placed)
    project = Project(root, "")
    project.make_state_folder()
    _move_all(folder / "state", project.state, placed)


def refuse_full_store(project: Project) -> None:
    """Refuse a store, in another folder than the project's, that is not empty.

    Raises
    ------
    StoreError
    """
    store = Path(project.store)
    if project.store_is_local and store.is_dir() and any(store.iterdir()):
        raise StoreError(f"the store {store} is not empty", hint="Nothing is overwritten: move it.")


def place_store(folder: Path, project: Project, placed: list[Path]) -> None:
    """Move the outputs from a point's folder to the store, and make the names that tools read.

    Parameters
    ----------
    folder : Path
    project : Project
    placed : list of Path
        Gets what a restore that fails removes again.
    """
    if not project.store_is_local:
        return
    store = Path(project.store)
    _move_all(folder / "store", store, placed)
    for notebook in LocalStore(project.store).notebooks():
        base = Unit(store.resolve(), notebook)
        with suppress(ResearchJobsError):  # `check_store` tells of it
            found = read_partitioning(base)
            align_links(base, found.root if found is not None else VERSIONS)


def refuse_instance(instance: Instance, point: Point) -> None:
    """Refuse an instance that cannot take the history of a point.

    Parameters
    ----------
    instance : Instance
    point : Point

    Raises
    ------
    BackupError
        When there is a history already, or it would be of another kind.
    """
    if instance.history.kind != point.history:
        raise BackupError(
            f"the history of the backup is in {point.history}, and dagster.yaml says "
            f"{instance.history.kind}",
            hint="Set DAGSTER_HOME, and the variables that its dagster.yaml needs.",
        )
    instance.history.refuse_full()


def place_logs(folder: Path, instance: Instance, placed: list[Path]) -> None:
    """Move the logs of a point.

    Parameters
    ----------
    folder : Path
    instance : Instance
    placed : list of Path
        Gets what a restore that fails removes again.
    """
    if instance.logs is not None:
        _move_all(folder / "logs", instance.logs, placed)


def _move_all(source: Path, target: Path, placed: list[Path]) -> None:
    """Move what is in a folder into another one, where nothing has its names."""
    with suppress(FileNotFoundError):
        target.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            if os.path.lexists(target / path.name):
                raise BackupError(
                    f"{target / path.name} exists", hint="Nothing is overwritten: move it."
                )
            placed.append(target / path.name)
            shutil.move(path, target / path.name)
