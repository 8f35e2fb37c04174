"""Whether restored outputs are what was published, and when a backup was last proven."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from research_jobs.errors import CorruptOutputError, ResearchJobsError, first_line
from research_jobs.filesystem import write_atomically
from research_jobs.project import Project
from research_jobs.store.backends.local import LocalStore
from research_jobs.store.codec import read_output
from research_jobs.store.codec.api import describe
from research_jobs.store.content import content_version
from research_jobs.store.layout import Unit
from research_jobs.store.records import Version
from research_jobs.store.versions import (
    list_versions,
    read_partitioning,
    roots_of,
    units_below,
)

__all__ = ["BackupBook", "Checked", "age", "check_store", "stored_units"]


@dataclass(frozen=True)
class Checked:
    """What a check of a store has found.

    Parameters
    ----------
    outputs, versions : int
        How many were read.
    unproven : int
        Versions without a recorded hash: an earlier research_jobs published them.
    damaged : tuple of str
        What is wrong, one line each.
    """

    outputs: int = 0
    versions: int = 0
    unproven: int = 0
    damaged: tuple[str, ...] = ()


def stored_units(store: str) -> Iterator[Unit]:
    """All units of a local store, those of earlier partitionings included."""
    root = Path(store).resolve()
    for notebook in LocalStore(store).notebooks():
        base = Unit(root, notebook)
        for hidden in roots_of(base):
            yield from units_below(base, hidden)


def check_store(store: str, *, load: bool = False) -> Checked:
    """Compare each output with its footer and with the hash of when it was published.

    Parameters
    ----------
    store : str
        A folder.
    load : bool
        Also load each value, as a notebook would.
    """
    checked = Checked()
    damaged: list[str] = []
    for notebook in LocalStore(store).notebooks():
        try:
            read_partitioning(Unit(Path(store).resolve(), notebook))
        except ResearchJobsError as error:  # noqa: PERF203 - each is looked at
            damaged.append(f"{notebook}: {first_line(error)}")
    for unit in stored_units(store):
        try:
            versions = list_versions(unit)
        except (OSError, ResearchJobsError) as error:
            damaged.append(f"{unit}: {first_line(error)}")
            continue
        for version in versions:
            checked = replace(
                checked,
                versions=checked.versions + 1,
                outputs=checked.outputs + len(version.outputs),
                unproven=checked.unproven + (not version.data_version),
            )
            try:
                _check_version(version, load=load)
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of a reader
                damaged.append(f"{unit} version {version.id}: {first_line(error)}")
    return replace(checked, damaged=tuple(damaged))


def _check_version(version: Version, *, load: bool) -> None:
    staged = [describe(name, version.file(name)) for name in version.outputs]
    for output in staged:
        wanted = version.outputs[output.name]
        found = {"kind": output.kind, "rows": output.rows, "bytes": output.bytes}
        if found != {name: wanted.get(name) for name in found}:
            raise CorruptOutputError(f"the footer of {output.name} says {found}, not {wanted}")
        if load:
            read_output(Path(output.path))
    if version.data_version and content_version(staged) != version.data_version:
        raise CorruptOutputError("its data are not those that were published")


@dataclass(frozen=True)
class BackupBook:
    """What is known of a project's backups: ``.research_jobs/backup.json``.

    Parameters
    ----------
    made : float or None
        The moment of the last snapshot, Unix time.
    proven : float or None
        The moment of the last snapshot that was restored and found to be whole.
    failing : mapping of str to (float, str)
        ``making`` or ``proof`` to since when it fails, and why.
    repositories : mapping of str to str
        Where backups went (`Repository.place`) to the id of the repository that is there.
    """

    made: float | None = None
    proven: float | None = None
    failing: Mapping[str, tuple[float, str]] = field(default_factory=dict[str, tuple[float, str]])
    repositories: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def read(cls, project: Project) -> BackupBook:
        """The project's; an empty one where there is none."""
        try:
            said = json.loads(_path(project).read_bytes())
            failing = {
                str(name): (float(at), str(why)) for name, (at, why) in said["failing"].items()
            }
            made, proven = (said[name] and float(said[name]) for name in ("made", "proven"))
            # An earlier research_jobs noted no repositories.
            known = {str(place): str(one) for place, one in said.get("repositories", {}).items()}
            return cls(made, proven, failing, known)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return cls()

    @classmethod
    def change(cls, project: Project, edit: Callable[[BackupBook], BackupBook]) -> None:
        """Write it with a change."""
        project.make_state_folder()
        book = edit(cls.read(project))
        write_atomically(_path(project), json.dumps(asdict(book)).encode(), private=True)

    def ended(self, what: str, at: float, why: str | None) -> BackupBook:
        """The book after the making or the proof of a backup ended.

        Parameters
        ----------
        what : {"making", "proof"}
        at : float
        why : str or None
            Why it failed; None if it did not.
        """
        others = {name: said for name, said in self.failing.items() if name != what}
        if why is not None:
            others[what] = (self.failing[what][0] if what in self.failing else at), why
        return replace(self, failing=others)

    def knowing(self, place: str, repository: str) -> BackupBook:
        """The book with the id of the repository that is at a place."""
        return replace(self, repositories={**self.repositories, place: repository})

    def describe(self, now: float) -> str:
        """How old the last backup and the last proven one are, in one line."""
        if self.made is None:
            return "No backup was made yet."
        line = f"The last backup is {age(now - self.made)} old"
        if self.proven is None:
            return f"{line}; none was proven yet."
        return f"{line}, the last proven one {age(now - self.proven)}."


def age(seconds: float) -> str:
    """Minutes, hours or days: ``3 min``, ``8 days``."""
    if seconds < 5400:
        return f"{max(0, round(seconds / 60))} min"
    hours = round(seconds / 3600)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} days"


def _path(project: Project) -> Path:
    return project.state / "backup.json"
