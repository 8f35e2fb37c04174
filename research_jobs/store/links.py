"""The names that other tools read: links into the hidden folders of versions.

A unit's links are created and removed under its lock. If a notebook's partitioning changes, the
links of all its units change under the notebook's lock.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from research_jobs.errors import ResearchJobsError, StoreError
from research_jobs.failpoints import failpoint
from research_jobs.filesystem import attempts
from research_jobs.store.files import FolderLock, disk
from research_jobs.store.layout import PART, PARTITIONS, VERSIONS, Unit, refuse_link
from research_jobs.store.records import sequence
from research_jobs.store.versions import (
    current_id,
    current_version,
    roots_of,
    units_below,
)

__all__ = [
    "align_links",
    "drop_links",
    "finish",
    "make_links",
    "missing_links",
    "refuse_foreign",
    "refuse_foreign_partitions",
    "refuse_overlap",
    "remove_dead_links",
    "repair",
]

_OURS = re.compile(rf"(\.\./)*(\{VERSIONS}|\{PARTITIONS}(-\d+)?)/")


def refuse_foreign(unit: Unit, outputs: Iterable[str]) -> None:
    """Refuse outputs if a file or folder that the store did not create has their path."""
    for folder in (unit.store, *reversed(unit.folder.relative_to(unit.store).parents)):
        _refuse_file(unit.store / folder)
    for folder in (unit.folder, unit.versions):
        _refuse_file(folder)
    for output in outputs:
        link = unit.link(output)
        place = unit.folder
        for name in link.parent.relative_to(unit.folder).parts:
            place = place / name
            refuse_link(place, unit.store)
            _refuse_file(place)
        if os.path.lexists(link) and not _is_ours(link):
            raise _in_the_way(link)


def refuse_foreign_partitions(unit: Unit, outputs: Iterable[str]) -> None:
    """Refuse them at the path of any partition of a notebook, whatever its keys are."""
    for output in outputs:
        top = unit.folder / output
        refuse_link(top, unit.store)
        _refuse_file(top)
        for place, folders, files in os.walk(top):
            for name in sorted((*folders, *files)):
                path = Path(place, name)
                if "=" in name:
                    refuse_link(path, unit.store)
                    _refuse_file(path)
                elif name == PART and not _is_ours(path):
                    raise _in_the_way(path)
            folders[:] = [name for name in folders if "=" in name]


def _refuse_file(folder: Path) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise _in_the_way(folder)


def _is_ours(link: Path) -> bool:
    try:
        return _OURS.match(str(link.readlink())) is not None
    except OSError:
        return False


def _in_the_way(path: Path) -> StoreError:
    return StoreError(
        f"{path} is in the way: research_jobs did not create it",
        hint="Move it, or set RESEARCH_JOBS_STORE to keep the store in another folder.",
    )


def refuse_overlap(unit: Unit, outputs: Iterable[str]) -> None:
    """Refuse to mix a partitioned output's folder with a notebook folder of the same name."""
    for output in outputs if unit.segments else ():
        folder = unit.folder / output
        if (folder / VERSIONS).exists() or any(folder.glob(f"{PARTITIONS}*")):
            raise StoreError(
                f"{unit}: output '{output}' and the notebook {unit.notebook}/{output} "
                f"would share the folder {folder}",
                hint="Rename one of them.",
            )
    above = unit.folder
    while above.parent != unit.store:
        above, name = above.parent, above.name
        if any(path.is_symlink() for path in (above / name).glob(f"*=*/**/{PART}")):
            raise StoreError(
                f"{unit} and the partitioned output '{name}' of {above.name} "
                f"would share the folder {above / name}",
                hint="Rename one of them.",
            )


def missing_links(unit: Unit, outputs: Iterable[str]) -> list[str]:
    """The outputs whose links are missing or point elsewhere."""
    return [name for name in outputs if not _leads_here(unit, name)]


def _leads_here(unit: Unit, output: str) -> bool:
    try:
        return str(unit.link(output).readlink()) == unit.link_target(output)
    except OSError:
        return False


def make_links(unit: Unit, outputs: Iterable[str]) -> list[Path]:
    """Create the missing links, and return them."""
    names = list(outputs)
    refuse_foreign(unit, names)
    missing = missing_links(unit, names)
    for name in missing:
        disk().make_folders(unit.link(name).parent)
    made: list[Path] = []
    try:
        for name in missing:
            link = unit.link(name)
            if os.path.lexists(link):
                disk().remove(link)  # ours, from another partitioning
            _make_link(link, unit.link_target(name))
            made.append(link)
            failpoint("publish.linked_one")
    except BaseException:
        drop_links(unit, made)
        raise
    return made


def _make_link(link: Path, target: str) -> None:
    for _ in attempts(link):
        try:
            disk().link(link, target)
        except FileNotFoundError:  # noqa: PERF203 - another partition removed the empty folder
            disk().make_folders(link.parent)
        else:
            return


def remove_dead_links(unit: Unit, outputs: Mapping[str, object]) -> None:
    """Remove our links to outputs that the current version does not have."""
    with os.scandir(unit.folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    if unit.segments:
        linked = [name for name in names if not name.endswith(".parquet")]
    else:
        linked = [name[: -len(".parquet")] for name in names if name.endswith(".parquet")]
    dead = [name for name in linked if name not in outputs and _leads_here(unit, name)]
    drop_links(unit, [unit.link(name) for name in dead])


def drop_links(unit: Unit, links: Sequence[Path]) -> None:
    """Remove links, and the partition's folders if they are then empty."""
    for link in links:
        with contextlib.suppress(OSError):
            disk().remove(link)
        folder = link.parent
        # Remove empty partition folders, up to the first that is not empty.
        with contextlib.suppress(OSError):
            while folder != unit.folder:
                disk().remove_folder(folder)
                folder = folder.parent


def repair(unit: Unit, *, links: bool = True) -> None:
    """Make versions and links match ``current``; the unit's lock is held.

    Parameters
    ----------
    unit : Unit
    links : bool
        False for a unit that is not yet visible to readers.
    """
    current = current_id(unit)
    newest = sequence(current) if current is not None else -1
    for path in list(unit.versions.iterdir()):
        if sequence(path.name) > newest:
            disk().remove_tree(path)  # never committed
        elif path.name.startswith(".current-"):
            disk().remove(path)
    version = current_version(unit)
    if links and (
        version is not None or current is None
    ):  # the content of a damaged one is unknown
        outputs = version.outputs if version is not None else {}
        make_links(unit, outputs)
        remove_dead_links(unit, outputs)


def align_links(unit: Unit, root: str) -> None:
    """Give a notebook the links of one hidden folder's units, and no others.

    The caller holds the notebook's lock exclusively. Links of the other folders are removed first,
    so that plain readers never see both.
    """
    for other in roots_of(unit):
        if other != root:
            for each in units_below(unit, other):
                remove_dead_links(each, {})
    failpoint("publish.unlinked_others")
    touched: set[Path] = set()
    for each in units_below(unit, root):
        version = current_version(each)
        if version is not None:
            touched |= {link.parent for link in make_links(each, version.outputs)}
    for folder in sorted(touched):
        disk().sync_folder(folder)


def finish(unit: Unit, root: str) -> bool:
    """Repair the unit of an interrupted publish; False if the unit is locked.

    Parameters
    ----------
    unit : Unit
        The unit that was being published.
    root : str
        The hidden folder that readers follow.
    """
    with FolderLock(unit.folder) as notebook_lock:
        visible = unit.hidden == root
        if not visible:
            # It died during a change of the partitioning: readers keep the old one.
            if not notebook_lock.exclusive(wait=False):
                return False
            align_links(unit, root)
        elif not notebook_lock.shared(wait=False):
            return False
        if not unit.versions.is_dir():
            return True
        with FolderLock(unit.versions) as lock:
            if not lock.exclusive(wait=False):
                return False
            with contextlib.suppress(ResearchJobsError):
                repair(unit, links=visible)
    return True
