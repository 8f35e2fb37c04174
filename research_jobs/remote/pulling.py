"""Published outputs of another machine, published here: whole files, or a sample cut there.

Each notebook, or each of its partitions, is published when all that is wanted of it is here and
has the digest that the other side computed. What came of a whole file before a connection was cut
stays in the project's state, and the next pull goes on from there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

from research_jobs.errors import RemoteError, StoreError
from research_jobs.outcome import StagedOutput
from research_jobs.project import Project
from research_jobs.protocol import PartitionKey
from research_jobs.remote.connection import Connection
from research_jobs.remote.frames import BLOCK, new_digest
from research_jobs.store.commit import open_staging, publish
from research_jobs.store.files import disk
from research_jobs.store.layout import SUFFIX, check_notebook_name, check_output_name, read_segments
from research_jobs.store.origin import Cut, Origin, Sample
from research_jobs.store.presence import refuse_unmounted
from research_jobs.store.records import Version
from research_jobs.store.stored import stored_versions
from research_jobs.units import readable_size

__all__ = ["PULLS", "Pulled", "RemoteUnit", "Wanted", "ask_units", "missing", "pull_unit"]

PULLS = "pulls"
"""The folder of the state with what has come of files. Where it is not, nothing was ever pulled."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wanted:
    """An output that the other side has.

    Parameters
    ----------
    name, kind : str
    rows : int or None
    bytes : int
        Of the whole output.
    cut : Cut or None
        None for all of it.
    """

    name: str
    kind: str
    rows: int | None
    bytes: int
    cut: Cut | None


@dataclass(frozen=True)
class RemoteUnit:
    """A notebook or a partition of it, and what is wanted of it."""

    notebook: str
    segments: tuple[str, ...]
    version: str
    run_id: str
    published_at: str
    data_version: str
    partition: PartitionKey | None
    outputs: tuple[Wanted, ...]

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> RemoteUnit:
        """As the other side describes it; names that the store does not allow are refused."""
        segments = tuple(map(str, said["segments"]))
        window = said["window"] or (None, None)
        key = read_segments(segments) if segments else None
        if key is not None:
            by = {str(name): str(made) for name, made in said["by"].items()}
            key = PartitionKey(key.key, key.dimensions, window[0], window[1], by)
        outputs = [
            Wanted(
                check_output_name(str(name)),
                str(item["kind"]),
                item["rows"],
                int(item["bytes"]),
                Cut.of(item["cut"]) if item["cut"] else None,
            )
            for name, item in said["outputs"].items()
        ]
        return cls(
            "/".join(check_notebook_name(str(said["notebook"]))),
            segments,
            str(said["version"]),
            str(said["run_id"]),
            str(said["published_at"]),
            str(said["data_version"]),
            key,
            tuple(outputs),
        )


@dataclass(frozen=True)
class Pulled:
    """What became of a notebook or a partition of it.

    Parameters
    ----------
    outputs : tuple of str
        What was asked for.
    fetched : tuple of StagedOutput
        What has come; empty if all of it was here.
    samples : mapping of str to Sample
    left : tuple of str
        Outputs of the version before that are not in this one.
    """

    outputs: tuple[str, ...]
    fetched: tuple[StagedOutput, ...] = ()
    samples: Mapping[str, Sample] = field(default_factory=dict[str, Sample])
    left: tuple[str, ...] = ()


def ask_units(
    connection: Connection, names: Sequence[str], cut: Cut, partitions: str | None
) -> list[RemoteUnit]:
    """What there is of what is wanted.

    Raises
    ------
    RemoteError
    """
    if cut and "sample" not in connection.can:
        connection.ask({"ask": "sample"})
    said = connection.ask(
        {"ask": "list", "names": list(names), "cut": asdict(cut), "partitions": partitions}
    )
    try:
        return [RemoteUnit.of(each) for each in said["units"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RemoteError(f"{connection.name} describes its outputs in another way") from error


def missing(project: Project, connection: Connection, unit: RemoteUnit) -> list[Wanted]:
    """The outputs of a unit that are not here as they are there."""
    here = _here(project, connection, unit)
    return [each for each in unit.outputs if not _is_here(here, each)]


def _here(project: Project, connection: Connection, unit: RemoteUnit) -> Version | None:
    """The current version, if it was pulled from the same one."""
    current = next(iter(stored_versions(project.store, unit.notebook, unit.partition)), None)
    origin = current.origin if current is not None else None
    same = (connection.place, unit.version, unit.published_at)
    if origin is None or (origin.place, origin.version, origin.published_at) != same:
        return None
    return current


def _is_here(here: Version | None, wanted: Wanted) -> bool:
    if here is None or here.origin is None or wanted.name not in here.outputs:
        return False
    sample = here.origin.samples.get(wanted.name)
    return (sample.cut if sample is not None else None) == wanted.cut


def pull_unit(
    project: Project,
    connection: Connection,
    unit: RemoteUnit,
    *,
    keep: Mapping[str, int | None],
    group: str | None = None,
    progress: Progress | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> Pulled:
    """Pull a notebook or a partition of it, and publish it.

    Parameters
    ----------
    project : Project
    connection : Connection
    unit : RemoteUnit
    keep, group, tell
        As of `publish`.
    progress : callable, optional
        Called with an output, the bytes that have come and how many there are.

    Raises
    ------
    RemoteError
        When the connection is cut, or what has come is not what is there.
    StoreError
        When it cannot be stored. In either case nothing is published.
    """
    names = tuple(each.name for each in unit.outputs)
    lacking = missing(project, connection, unit)
    if not lacking:
        return Pulled(names)
    here = _here(project, connection, unit)
    samples = dict(here.origin.samples) if here is not None and here.origin is not None else {}
    refuse_unmounted(project)
    _refuse_full(project, sum(each.bytes for each in lacking if each.cut is None))
    with (
        open_staging(project.store, unit.run_id) as staging,
        _explained(project),
        ExitStack() as held,
    ):
        # All that is whole is here before any of it leaves where the next pull would find it.
        parts = {
            each.name: _fetch_whole(project, connection, unit, each, held, progress)
            for each in lacking
            if each.cut is None
        }
        fetched: list[StagedOutput] = []
        for wanted in lacking:
            samples.pop(wanted.name, None)
            if wanted.cut is not None:
                target = staging.path / f"{wanted.name}{SUFFIX}"
                samples[wanted.name] = _fetch_sample(
                    connection, unit, wanted, wanted.cut, target, progress
                )
        for wanted in lacking:
            target, rows = staging.path / f"{wanted.name}{SUFFIX}", wanted.rows
            if wanted.name in parts:
                shutil.move(parts[wanted.name], target)
            else:
                rows = samples[wanted.name].rows
            disk().sync_file(target)
            size = target.stat().st_size
            fetched.append(StagedOutput(wanted.name, str(target), wanted.kind, rows, size))
        staged = [*fetched, *_kept(here, {each.name for each in lacking}, staging.path)]
        before = next(iter(stored_versions(project.store, unit.notebook, unit.partition)), None)
        whole = not samples and {each.name for each in staged} == set(names)
        publish(
            project.store,
            unit.notebook,
            staged,
            staging=staging,
            partition=unit.partition,
            keep={each.name: keep.get(each.name) for each in staged},
            run_id=unit.run_id,
            group=group,
            data_version=unit.data_version if whole and unit.data_version else None,
            origin=Origin(
                connection.name,
                connection.place,
                unit.version,
                unit.published_at,
                datetime.now(timezone.utc).isoformat(timespec="seconds"),
                samples,
            ),
            tell=tell,
        )
    now = {each.name for each in staged}
    left = tuple(name for name in before.outputs if name not in now) if before is not None else ()
    return Pulled(names, tuple(fetched), {n: s for n, s in samples.items() if n in names}, left)


def _kept(here: Version | None, replaced: set[str], staging: Path) -> Iterator[StagedOutput]:
    """The outputs of the same version that are here already, for the new one."""
    if here is None:
        return
    for name, item in here.outputs.items():
        if name not in replaced:
            target = staging / f"{name}{SUFFIX}"
            disk().link_or_copy(here.file(name), target)
            yield StagedOutput(name, str(target), str(item["kind"]), item["rows"], item["bytes"])


def _refuse_full(project: Project, needed: int) -> None:
    """Say before anything is sent that it would not fit."""
    folder = project.make_state_folder(PULLS)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"{readable_size(needed)} do not fit on the disk of {project.root}, "
            f"which has {readable_size(free)} left",
            hint="Free some room, or pull a sample: --rows, --since, --columns.",
        )


@contextmanager
def _explained(project: Project) -> Generator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StoreError(
            f"what is pulled cannot be written to {project.root}: {reason}",
            hint="Nothing was published. What has come of whole files stays for the next pull.",
        ) from error


# -- files -----------------------------------------------------------------------------------


def _fetch_sample(
    connection: Connection,
    unit: RemoteUnit,
    wanted: Wanted,
    cut: Cut,
    target: Path,
    progress: Progress | None,
) -> Sample:
    answer = connection.ask(_request("sample", unit, wanted) | {"cut": asdict(cut)})
    with target.open("xb") as sink:
        _receive(connection, sink, new_digest(), wanted, 0, int(answer["size"]), progress)
    return Sample(cut, int(answer["rows"]), int(answer["of_rows"]))


def _fetch_whole(
    project: Project,
    connection: Connection,
    unit: RemoteUnit,
    wanted: Wanted,
    held: ExitStack,
    progress: Progress | None,
) -> Path:
    """A file as it is there, in the folder of parts; nobody else touches it until `held` closes."""
    folder = project.make_state_folder(PULLS)
    output = "\0".join((connection.place, unit.notebook, *unit.segments, wanted.name))
    version = f"{unit.version}\0{unit.published_at}"
    part = folder / f"{_short(output)}-{_short(version)}.part"
    for older in folder.glob(f"{_short(output)}-*.part"):
        if older != part:
            older.unlink(missing_ok=True)
    sink = held.enter_context(part.open("a+b"))
    ours = False
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(sink, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Or another pull has published this very file since it was opened.
        ours = os.path.samestat(os.fstat(sink.fileno()), part.stat())
    if not ours:
        raise StoreError(f"another pull fetches {unit.notebook}.{wanted.name}", hint="Wait for it.")
    digest = new_digest()
    sink.seek(0)
    while block := sink.read(BLOCK):
        digest.update(block)
    offset = sink.tell()
    if offset > wanted.bytes:  # not of this file
        sink.truncate(0)
        digest, offset = new_digest(), 0
    answer = connection.ask(_request("read", unit, wanted) | {"offset": offset})
    try:
        _receive(connection, sink, digest, wanted, offset, int(answer["size"]), progress)
    except _DamagedError:
        sink.truncate(0)
        raise
    return part


class _DamagedError(RemoteError):
    """What has come is not what is there."""


def _receive(
    connection: Connection,
    sink: BinaryIO,
    digest: hashlib.blake2b,
    wanted: Wanted,
    place: int,
    size: int,
    progress: Progress | None,
) -> None:
    def show(block: bytes) -> None:
        nonlocal place
        place += len(block)
        if progress is not None:
            progress(wanted.name, place, size)

    sound = connection.receive_file(sink, digest, show)
    sink.flush()
    if not sound:
        raise _DamagedError(
            f"what came of {wanted.name} is not what {connection.name} has; it was not published",
            hint="Pull again.",
        )


def _request(ask: str, unit: RemoteUnit, wanted: Wanted) -> dict[str, Any]:
    return {
        "ask": ask,
        "notebook": unit.notebook,
        "segments": list(unit.segments),
        "version": unit.version,
        "output": wanted.name,
    }


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
