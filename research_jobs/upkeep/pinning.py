"""Links to files that are to be backed up: they stay as they are while restic reads them.

A hard link takes no space. What is replaced or pruned meanwhile stays until the link is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from research_jobs.errors import OutputNotFoundError, ResearchJobsError
from research_jobs.store.backends.local import LocalStore
from research_jobs.store.layout import Unit
from research_jobs.store.records import sequence
from research_jobs.store.versions import current_id, hold, roots_of, units_below, version_ids

__all__ = ["pin", "pin_store", "pin_tree"]

RETRIES = 20


def pin(source: Path, target: Path) -> bool:
    """Link a file, or copy it where it cannot be linked; False if it cannot be read.

    A file that vanishes meanwhile counts as read: it was about to be removed.
    """
    with suppress(FileNotFoundError):
        try:
            os.link(source, target, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, another owner, no links here
            try:
                shutil.copy2(source, target, follow_symlinks=False)
            except PermissionError:
                return False
    return True


def pin_tree(
    source: Path, target: Path, skip: Callable[[os.DirEntry[str]], bool] | None = None
) -> Iterator[Path]:
    """Link a folder and what is below it; yield what cannot be read.

    Parameters
    ----------
    source, target : Path
    skip : callable, optional
        Whether an entry is left out.
    """
    try:
        with os.scandir(source) as entries:
            listed = [entry for entry in entries if skip is None or not skip(entry)]
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(source.stat().st_mode | 0o700)
    except FileNotFoundError:
        return
    except PermissionError:
        yield source
        return
    for entry in listed:
        path = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from pin_tree(Path(entry.path), path, skip)
        elif (entry.is_file(follow_symlinks=False) or entry.is_symlink()) and not pin(
            Path(entry.path), path
        ):
            yield Path(entry.path)


def pin_store(store: str, target: Path) -> Iterator[Path]:
    """Link all outputs of a local store with their versions, and files that others put there.

    The names that other tools read are left out: they follow from the rest. What cannot be read
    is yielded.

    Parameters
    ----------
    store : str
    target : Path
    """
    root = Path(store).resolve()
    for notebook in LocalStore(store).notebooks():
        base = Unit(root, notebook)
        pinned = replace(base, store=target)
        pinned.folder.mkdir(parents=True, exist_ok=True)
        if base.partitioning.exists():
            pin(base.partitioning, pinned.partitioning)
        for hidden in roots_of(base):
            for unit in units_below(base, hidden):
                yield from _pin_unit(unit, replace(unit, store=target))
        yield from pin_tree(base.rejected, pinned.rejected)
    yield from pin_tree(root, target, _is_ours)


def _is_ours(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a store is the store's own, and no file that a person put there."""
    return entry.name.startswith(".") or "=" in entry.name or entry.is_symlink()


def _pin_unit(unit: Unit, target: Unit) -> Iterator[Path]:
    """Link the versions of a unit, the current one included; yield what says which, if not."""
    target.versions.mkdir(parents=True, exist_ok=True)
    for _ in range(RETRIES):
        try:
            current = current_id(unit)
        except ResearchJobsError:
            yield unit.current
            return
        if current is None:
            return
        for version in version_ids(unit):
            if sequence(version) <= sequence(current):
                yield from _pin_version(unit, target, version)
        # Unless another one was published meanwhile, and the current one is pruned.
        if (target.versions / current).is_dir():
            target.current.symlink_to(current)
            return
    yield unit.current


def _pin_version(unit: Unit, target: Unit, version: str) -> Iterator[Path]:
    """Link a version while it is held, so that it is there whole or not at all."""
    held = None
    with suppress(ResearchJobsError):  # a damaged one is kept as it is
        try:
            held = hold(unit, version)
        except OutputNotFoundError:
            return
    yield from pin_tree(unit.versions / version, target.versions / version)
    if held is not None:
        held.release()
