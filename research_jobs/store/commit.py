"""Staging and publishing: all of a unit's outputs, or none.

The steps, in order, under an exclusive lock of the unit:

1. the staged files move into a new version's folder, which nothing points at yet;
2. its description is written; files and folders are brought to the disk;
3. links for outputs that are new are made (they lead nowhere until step 4);
4. ``current`` is replaced by rename: this is the commit, for every reader and every output;
5. the folders of the renamed and linked names are brought to the disk;
6. links of outputs that are gone are removed, versions beyond ``keep`` are pruned.

A failure before 4 undoes 1 to 3; one at 5 puts the old version back. A process that dies leaves
its locks to the kernel and the rest to whoever stages or publishes next. No pyarrow here.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from research_jobs.errors import CorruptOutputError, ResearchJobsError, StoreError
from research_jobs.failpoints import failpoint
from research_jobs.filesystem import attempts
from research_jobs.protocol import PartitionKey, StagedOutput
from research_jobs.store.files import Files, FolderLock, is_plain_file
from research_jobs.store.layout import (
    PART,
    PARTITIONS,
    STAGING,
    SUFFIX,
    VERSIONS,
    Unit,
    check_output_name,
    is_remote,
    output_path,
    partition_dimensions,
    read_segments,
    refuse_link,
    unit_of,
)
from research_jobs.store.versions import (
    FORMAT,
    MANIFEST,
    Version,
    current_id,
    read_version,
    sequence,
    version_ids,
)

__all__ = ["FAILPOINTS", "PublishedOutput", "Staging", "open_staging", "publish", "reject"]

# Where a test can have the process killed; see docs/outputs.md.
FAILPOINTS = (
    "publish.begin",
    "publish.locked",
    "publish.noted",
    "publish.folder",
    "publish.moved_one",
    "publish.moved",
    "publish.described",
    "publish.synced",
    "publish.prepared",
    "publish.linked_one",
    "publish.linked",
    "publish.committed",
    "publish.durable",
    "publish.unlinked",
    "publish.pruned_one",
    "publish.done",
)

FILES = Files()
NOTE = "publish.json"
MAGIC = b"PAR1"


@dataclass(frozen=True)
class PublishedOutput:
    """One output as it stands in the store now.

    Parameters
    ----------
    name : str
    path : str
        The stable path (or URL) that other tools read.
    file : str
        This version's own file: the same bytes as long as the version is kept.
    kind : str
        As in `StagedOutput`.
    rows : int or None
    bytes : int
    version : str
    previous_rows : int or None
        Rows of the output in the version before, None where there was none.
    """

    name: str
    path: str
    file: str
    kind: str
    rows: int | None
    bytes: int
    version: str
    previous_rows: int | None = None


class Staging:
    """A folder for one run's staged outputs, on the store's file system.

    It is removed when it is closed; when its process dies, the next `open_staging` removes it.

    Parameters
    ----------
    path : Path
    lock : FolderLock
        Held as long as the run lives.
    """

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        """Remove what is left; a second call does nothing."""
        with contextlib.suppress(OSError):
            FILES.remove_tree(self.path)
        self._lock.release()

    def __enter__(self) -> Staging:  # noqa: PYI034 - Self is of Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def open_staging(store: str, run_id: str) -> Staging:
    """Make a staging folder, and clear away those whose process is dead.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL; outputs for a URL are staged in the temporary folder.
    run_id : str

    Returns
    -------
    Staging

    Raises
    ------
    StoreError
        When the store cannot be written.
    """
    local = not is_remote(store)
    root = Path(store).resolve() if local else _temporary_root()
    area = root / STAGING
    try:
        FILES.make_folders(area)
        refuse_link(area, root)
        # One at a time: between being made and being locked, a new folder would look abandoned.
        with FolderLock(area) as guard:
            guard.exclusive()
            _clear_abandoned(area)
            path = area / f"{_short(run_id, 40)}-{secrets.token_hex(4)}"
            FILES.make_folder(path)
            lock = FolderLock(path)
            lock.exclusive()
    except OSError as error:
        raise _cannot(f"cannot write to the store {store}", error) from error
    return Staging(path, lock)


def _temporary_root() -> Path:
    root = Path(tempfile.gettempdir()) / f"research_jobs-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    state = root.lstat()
    # Anybody may make names in the temporary folder: the one we use has to be ours.
    if root.is_symlink() or state.st_uid != os.getuid():
        raise StoreError(f"{root} belongs to somebody else", hint="Set TMPDIR to another folder.")
    return root


def _clear_abandoned(area: Path) -> None:
    for folder in area.iterdir():
        with contextlib.suppress(OSError), FolderLock(folder) as lock:
            if lock.exclusive(wait=False) and _finish_noted(folder):
                FILES.remove_tree(folder)


def _finish_noted(folder: Path) -> bool:
    """Repair the unit that a dead run was publishing; False when it is busy."""
    try:
        note = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        segments = tuple(map(str, note["segments"]))
        partition = read_segments(segments) if segments else None
        unit = unit_of(str(folder.parent.parent), str(note["notebook"]), partition)
    except (OSError, ValueError, KeyError, TypeError, ResearchJobsError):
        return True  # it was not publishing, or died while it wrote the note
    if not unit.versions.is_dir():
        return True
    with FolderLock(unit.versions) as lock:
        if not lock.exclusive(wait=False):
            return False
        _repair(unit)
    return True


def _repair(unit: Unit) -> None:
    """Bring links and versions in line with ``current``; the unit's lock is held."""
    current = current_id(unit)
    newest = sequence(current) if current is not None else -1
    for path in list(unit.versions.iterdir()):
        name = path.name
        if sequence(name) > newest:
            FILES.remove_tree(path)  # never committed
        elif name.startswith(".current-"):
            FILES.remove(path)
    outputs = read_version(unit, current).outputs if current is not None else {}
    _make_links(unit, outputs)
    _remove_dead_links(unit, outputs)


def _make_links(unit: Unit, outputs: Mapping[str, object]) -> list[Path]:
    """Make the links that are missing; those made are returned."""
    missing = [name for name in outputs if _needs_link(unit, name)]
    for name in missing:
        FILES.make_folders(unit.link(name).parent)
    made: list[Path] = []
    try:
        for name in missing:
            _make_link(unit.link(name), unit.link_target(name))
            made.append(unit.link(name))
            failpoint("publish.linked_one")
    except BaseException:
        _drop_links(unit, made)
        raise
    return made


def _make_link(link: Path, target: str) -> None:
    for _ in attempts(link):
        try:
            FILES.link(link, target)
        except FileNotFoundError:  # noqa: PERF203 - another partition removed the empty folder
            FILES.make_folders(link.parent)
        else:
            return


def _needs_link(unit: Unit, output: str) -> bool:
    """Whether an output's link has to be made; something else in its place is refused."""
    link = unit.link(output)
    place = unit.folder
    for name in link.parent.relative_to(unit.folder).parts:
        place = place / name
        refuse_link(place, unit.store)
    try:
        if str(link.readlink()) == unit.link_target(output):
            return False
    except FileNotFoundError:
        return True
    except OSError:
        pass  # no link
    raise StoreError(
        f"{link} is in the way: it was not put there by research_jobs",
        hint="Move it elsewhere, then run the notebook again.",
    )


def _remove_dead_links(unit: Unit, outputs: Mapping[str, object]) -> None:
    """Remove our own links to outputs that the current version does not have."""
    with os.scandir(unit.folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    if unit.segments:
        found = [name for name in names if not name.endswith(".parquet")]
    else:
        found = [name[: -len(".parquet")] for name in names if name.endswith(".parquet")]
    dead = [unit.link(name) for name in found if name not in outputs and _is_ours(unit, name)]
    _drop_links(unit, dead)


def _is_ours(unit: Unit, output: str) -> bool:
    try:
        return str(unit.link(output).readlink()) == unit.link_target(output)
    except OSError:
        return False


def _drop_links(unit: Unit, links: Sequence[Path]) -> None:
    for link in links:
        with contextlib.suppress(OSError):
            FILES.remove(link)
        folder = link.parent
        # Empty partition folders would stay behind; one that is not empty stops this.
        with contextlib.suppress(OSError):
            while folder != unit.folder:
                FILES.remove_folder(folder)
                folder = folder.parent


def publish(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    *,
    staging: Staging | Path,
    partition: PartitionKey | None,
    keep: Mapping[str, int] | None = None,
    run_id: str,
) -> tuple[PublishedOutput, ...]:
    """Publish staged outputs: all of them in one step, or none.

    Parameters
    ----------
    store : str
        A folder or an fsspec URL.
    notebook : str
    staged : sequence of StagedOutput
        Files below `staging`, written and synced by `write_output`. They are moved.
    staging : Staging or Path
    partition : PartitionKey or None
    keep : mapping of str to int, optional
        Output to the number of older versions kept beside the new one. A version is kept when
        any of its outputs asks for it.
    run_id : str

    Returns
    -------
    tuple of PublishedOutput

    Raises
    ------
    StoreError
        When they cannot be published; the outputs that were there stay as they are.
    PartitionError
        For a partition key that no path can hold.
    """
    folder = staging.path if isinstance(staging, Staging) else Path(staging)
    _check_staged(staged, folder)
    if is_remote(store):
        return _publish_remote(store, notebook, staged, partition, keep or {}, run_id)
    unit = unit_of(store, notebook, partition)
    failpoint("publish.begin")
    try:
        FILES.make_folders(unit.versions)
        _refuse_overlap(unit, staged)
        with FolderLock(unit.versions) as lock:
            lock.exclusive()
            failpoint("publish.locked")
            _repair(unit)
            return _publish(unit, staged, folder, partition, keep or {}, run_id)
    except OSError as error:
        raise _cannot(f"the outputs of {unit} cannot be published to {store}", error) from error


def _publish_remote(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    partition: PartitionKey | None,
    keep: Mapping[str, int],
    run_id: str,
) -> tuple[PublishedOutput, ...]:
    from research_jobs.store import remote  # fsspec only where a URL asks for it

    version, previous = remote.publish(
        store,
        notebook,
        staged,
        partition=partition,
        keep=keep,
        run_id=run_id,
        suffix=_short(run_id, 8),
    )
    return tuple(
        _published(
            item,
            output_path(store, notebook, item.name, partition),
            remote.version_file(store, notebook, partition, version, item.name),
            version,
            previous,
        )
        for item in staged
    )


def _published(
    item: StagedOutput, path: str, file: str, version: str, previous: Mapping[str, int | None]
) -> PublishedOutput:
    return PublishedOutput(
        name=item.name,
        path=path,
        file=file,
        kind=item.kind,
        rows=item.rows,
        bytes=item.bytes,
        version=version,
        previous_rows=previous.get(item.name),
    )


def _publish(
    unit: Unit,
    staged: Sequence[StagedOutput],
    staging: Path,
    partition: PartitionKey | None,
    keep: Mapping[str, int],
    run_id: str,
) -> tuple[PublishedOutput, ...]:
    before = current_id(unit)
    previous = _describe(unit, before)
    number = max([sequence(name) for name in version_ids(unit)], default=0) + 1
    version = f"{number:06d}-{_short(run_id, 8)}"
    note = {"notebook": unit.notebook, "segments": unit.segments, "version": version}
    FILES.write(staging / NOTE, json.dumps(note).encode())
    unlinked = [item.name for item in staged if _needs_link(unit, item.name)]
    if unlinked:
        # A power cut could leave a link that leads nowhere yet, in a dataset that people read: the
        # next run must know. A version that was not committed can wait for the next publish.
        FILES.sync_file(staging / NOTE)
        FILES.sync_folder(staging)
        FILES.sync_folder(staging.parent)
    failpoint("publish.noted")

    outputs = {item.name: item for item in staged}
    fresh = unit.versions / f".current-{version}"
    made: list[Path] = []
    committed = False
    try:
        _fill_version(unit, version, outputs, partition, run_id)
        FILES.link(fresh, version)
        FILES.sync_folder(unit.versions)
        for name in unlinked:  # what can fail or takes time is done before the first link
            FILES.make_folders(unit.link(name).parent)
        failpoint("publish.prepared")
        made = _make_links(unit, outputs)
        failpoint("publish.linked")
        FILES.rename(fresh, unit.current)
        committed = True
        failpoint("publish.committed")
        FILES.sync_folder(unit.versions)
        for link in made:
            FILES.sync_folder(link.parent)
        failpoint("publish.durable")
    except BaseException:
        _undo(unit, version, fresh, made, before, committed=committed)
        raise
    # From here on the new outputs stand: what cannot be tidied up is left for the next publish.
    with contextlib.suppress(OSError, ResearchJobsError):
        _remove_dead_links(unit, outputs)
        failpoint("publish.unlinked")
        _prune(unit, version, keep)
    with contextlib.suppress(OSError):
        FILES.remove(staging / NOTE)
    failpoint("publish.done")
    return tuple(
        _published(
            item,
            str(unit.link(item.name)),
            str(unit.versions / version / f"{item.name}{SUFFIX}"),
            version,
            previous,
        )
        for item in staged
    )


def _fill_version(
    unit: Unit,
    version: str,
    outputs: Mapping[str, StagedOutput],
    partition: PartitionKey | None,
    run_id: str,
) -> None:
    folder = unit.versions / version
    FILES.make_folder(folder)
    failpoint("publish.folder")
    for item in outputs.values():
        target = folder / f"{item.name}{SUFFIX}"
        FILES.rename(Path(item.path), target)  # its content is on the disk
        failpoint("publish.moved_one")
    failpoint("publish.moved")
    record = {
        "format": FORMAT,
        "version": version,
        "notebook": unit.notebook,
        "run_id": run_id,
        "published_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "partition": partition_dimensions(partition) if partition else None,
        "window": _window(partition),
        "outputs": {
            item.name: {"kind": item.kind, "rows": item.rows, "bytes": item.bytes}
            for item in outputs.values()
        },
    }
    FILES.write(folder / MANIFEST, json.dumps(record, indent=1).encode())
    FILES.sync_file(folder / MANIFEST)
    failpoint("publish.described")
    FILES.sync_folder(folder)
    failpoint("publish.synced")


def _window(partition: PartitionKey | None) -> list[str] | None:
    if partition is None or partition.start is None or partition.end is None:
        return None
    return [partition.start, partition.end]


def _undo(
    unit: Unit,
    version: str,
    fresh: Path,
    made: Sequence[Path],
    before: str | None,
    *,
    committed: bool,
) -> None:
    with contextlib.suppress(OSError):
        if committed and before is not None:
            FILES.link(fresh, before)
            FILES.rename(fresh, unit.current)
        elif committed:
            FILES.remove(unit.current)
    with contextlib.suppress(OSError, ResearchJobsError):
        if current_id(unit) == version:
            return  # it could not be put back: then the new version stays whole
    _drop_links(unit, made)
    with contextlib.suppress(OSError):
        FILES.remove(fresh)
    with contextlib.suppress(OSError):
        FILES.remove_tree(unit.versions / version)


def _prune(unit: Unit, current: str, keep: Mapping[str, int]) -> None:
    """Remove versions that no output's ``keep`` asks for and no reader holds."""
    seen: dict[str, int] = dict.fromkeys(read_version(unit, current).outputs, 0)
    for name in reversed(version_ids(unit)):
        if name == current:
            continue
        try:
            held = read_version(unit, name).outputs
        except (OSError, CorruptOutputError):
            held = {}
        # The last version of an output that is no longer made stays: its only copy is in there.
        wanted = any(seen.get(output, -1) < keep.get(output, 0) for output in held)
        for output in held:
            seen[output] = seen.get(output, 0) + 1
        if not wanted:
            _remove_version(unit.versions / name)
            failpoint("publish.pruned_one")


def _remove_version(folder: Path) -> None:
    with contextlib.suppress(OSError), FolderLock(folder) as lock:
        if lock.exclusive(wait=False):  # held by a reader: the next publish tries again
            FILES.remove_tree(folder)


def reject(
    store: str,
    notebook: str,
    staged: Sequence[StagedOutput],
    *,
    staging: Staging | Path,
    partition: PartitionKey | None,
    run_id: str,
) -> Path | str:
    """Keep staged outputs aside that an error-level check refused.

    Parameters
    ----------
    store, notebook, staged, staging, partition, run_id
        As in `publish`.

    Returns
    -------
    Path or str
        The folder (or URL) with the files in it. Only the latest of a unit is kept.

    Raises
    ------
    StoreError
        When they cannot be moved.
    """
    folder = staging.path if isinstance(staging, Staging) else Path(staging)
    _check_staged(staged, folder)
    if is_remote(store):
        from research_jobs.store import remote

        return remote.reject(store, notebook, staged, partition=partition)
    unit = unit_of(store, notebook, partition)
    name = "&".join(unit.segments) or "latest"
    target = unit.rejected / (name if len(name.encode()) < 200 else f"{_short(run_id, 40)}")
    fresh = unit.rejected / f".new-{_short(run_id, 40)}-{secrets.token_hex(4)}"
    try:
        refuse_link(unit.rejected, unit.store)
        FILES.make_folders(unit.rejected)
        with FolderLock(unit.rejected) as lock:
            lock.exclusive()
            FILES.make_folder(fresh)
            for item in staged:
                FILES.rename(Path(item.path), fresh / f"{item.name}{SUFFIX}")
            if target.exists():
                FILES.remove_tree(target)
            FILES.rename(fresh, target)
    except OSError as error:
        raise _cannot(f"the rejected outputs of {unit} cannot be kept aside", error) from error
    return target


def _check_staged(staged: Sequence[StagedOutput], staging: Path) -> None:
    """Refuse what is not a whole Parquet file of ours in the staging folder."""
    root = staging.resolve()
    names = [item.name for item in staged]
    if len(set(names)) < len(names):
        raise StoreError(f"an output is staged twice: {', '.join(sorted(names))}")
    for item in staged:
        path = Path(item.path)
        if check_output_name(item.name) != item.name:
            raise StoreError(f"{item.name!r} is not the name Python gives that variable")
        if not is_plain_file(path) or not path.resolve().is_relative_to(root):
            raise StoreError(
                f"output '{item.name}': {path} is no file of the staging folder {root}"
            )
        if path.stat().st_size != item.bytes or not _is_parquet(path):
            raise CorruptOutputError(
                f"output '{item.name}': {path} is not the file that was staged",
                hint="Something else wrote to it; run the notebook again.",
            )


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.read(4) != MAGIC:
            return False
        stream.seek(-4, os.SEEK_END)
        return stream.read(4) == MAGIC


def _refuse_overlap(unit: Unit, staged: Sequence[StagedOutput]) -> None:
    """Refuse to mix a partitioned output's folder with the folder of a notebook of that name."""
    for item in staged if unit.segments else ():
        folder = unit.folder / item.name
        if (folder / VERSIONS).exists() or (folder / PARTITIONS).exists():
            raise StoreError(
                f"{unit}: output '{item.name}' and the notebook {unit.notebook}/{item.name} "
                "would share the folder " + str(folder),
                hint="Rename one of them.",
            )
    above = unit.folder
    while above.parent != unit.store:
        above, name = above.parent, above.name
        for segment in (above / PARTITIONS).glob("*=*"):
            if (above / name / segment.name / PART).is_symlink():
                raise StoreError(
                    f"{unit} and the partitioned output '{name}' of {above.name} "
                    f"would share the folder {above / name}",
                    hint="Rename one of them.",
                )


def _describe(unit: Unit, version: str | None) -> dict[str, int | None]:
    """Output to rows of a version; nothing where it cannot be read."""
    if version is None:
        return {}
    try:
        known: Version = read_version(unit, version)
    except (OSError, ResearchJobsError):
        return {}
    return {name: item.get("rows") for name, item in known.outputs.items()}


def _short(run_id: str, length: int) -> str:
    """A run's id as a part of a name."""
    return re.sub(r"[^A-Za-z0-9]", "", run_id)[:length] or "run"


def _cannot(what: str, error: OSError) -> StoreError:
    reason = error.strerror or str(error)
    return StoreError(f"{what}: {reason}", hint="What was published before is as it was.")
