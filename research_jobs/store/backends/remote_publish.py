"""Publishing behind a URL, by several threads, processes and machines at once.

1. The outputs are uploaded under names that nobody else uses.
2. The unit's pointer is replaced on the condition that nobody has replaced it since it was read;
   otherwise it is read again. This is the commit, and no version is lost from the history.
3. If the notebook was partitioned in another way, `.partitioning.json` is replaced likewise.
   Before that no reader sees the new version.
4. The copies for other tools follow. Who has put them looks whether the pointer still says so,
   and puts those of the newer version otherwise. So the last copies are those of the last version.

What fails before the commit leaves objects that no pointer names. After it nothing fails a run.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from research_jobs.errors import ResearchJobsError, StoreError
from research_jobs.failpoints import failpoint
from research_jobs.store.backends.base import Publication, PublishedOutput
from research_jobs.store.backends.remote_units import (
    RemoteUnit,
    RemoteVersion,
    pointed,
    read_pointer,
)
from research_jobs.store.cache import digest_of
from research_jobs.store.layout import PARTITIONING, PARTITIONS, VERSIONS
from research_jobs.store.objects import PARTS, Objects, in_parallel, objects_of
from research_jobs.store.records import (
    FORMAT,
    Partitioning,
    describe_version,
    next_version,
    partitioning_of,
    retained,
    rows_of,
    short_id,
    sizes_of,
)

if TYPE_CHECKING:
    from research_jobs.store.backends.remote import RemoteStore

__all__ = ["REMOTE_FAILPOINTS", "publish"]

REMOTE_FAILPOINTS = (
    "publish.begin",
    "publish.settled",
    "publish.moved_one",
    "publish.uploaded",
    "publish.committed",
    "publish.switched",
    "publish.copied",
)
LONGEST_S = 12 * 3600.0
"""From the first upload to the commit. What is a day old and has no version is pruned."""
ATTEMPTS = 100  # at each, one of those who publish the same outputs succeeds


def publish(store: RemoteStore, job: Publication) -> tuple[PublishedOutput, ...]:
    """Publish staged outputs; see `StoreBackend.publish`."""
    failpoint("publish.begin")
    objects = objects_of(store.store)
    base = store.unit_at(job.notebook, None, PARTITIONS)
    root, followed = _settle(store, base, partitioning_of(job.partition))
    unit = store.unit_at(job.notebook, job.partition, root)
    failpoint("publish.settled")
    version = next_version(
        (item.id for item in pointed(unit)),
        f"{short_id(job.run_id, 8)}-{secrets.token_hex(4)}",
    )
    began = time.time()
    record = _upload(objects, unit, version, job)
    failpoint("publish.uploaded")
    before, after = _commit(objects, unit, record, job.keep, began)
    failpoint("publish.committed")
    if not followed:
        _follow(store, base, root, job)
    failpoint("publish.switched")
    try:
        with objects.explained(f"{unit} is published, but not all that follows is done"):
            now = _follow(store, base, root, job)
            files = {item.name: Path(item.path) for item in job.staged}
            _settle_copies(store, unit, (), (version, files), after)
            failpoint("publish.copied")
            if now.left:
                _finish_switch(store, base)
            kept = {each.id for each in after}
            gone = [old for old in before if old.id not in kept]
            in_parallel(
                objects.remove, [unit.file(old.id, name) for old in gone for name in old.outputs]
            )
    except (FileNotFoundError, ResearchJobsError) as error:
        job.tell(f"{error}. load() reads it; the next run puts the copies for other tools.")
    return tuple(
        PublishedOutput.of(
            item,
            unit.link(item.name),
            f"{store.store.rstrip('/')}{unit.file(version, item.name)[len(objects.root) :]}",
            version,
            rows_of(before[0] if before else None),
        )
        for item in job.staged
    )


def _attempts(what: object) -> Iterator[None]:
    """Attempts with longer and longer pauses, which differ between publishers."""
    for number in range(ATTEMPTS):
        yield
        time.sleep(random.uniform(0, min(2.0, 0.02 * 2**number)))  # noqa: S311 - no secret
    raise StoreError(
        f"the outputs of {what} cannot be published: others replace them all the time",
        hint="What was published before is unchanged. Run the notebook again.",
    )


# -- the partitioning ------------------------------------------------------------------------


def _settle(store: RemoteStore, base: RemoteUnit, by: Mapping[str, str]) -> tuple[str, bool]:
    """The hidden folder to publish to, and whether readers follow it.

    Which one they follow is written down first where it is not yet.
    """
    objects = objects_of(store.store)
    for _ in _attempts(base):
        text = objects.read(base.partitioning)
        if text is not None:
            stored = Partitioning.parse(text, base.partitioning)
            like = stored.is_like(by)
            return (stored.root if like else _claimed(store, base, by, stored)), like
        stored = store.partitioning(base.notebook)
        if stored is None:
            stored = Partitioning(_claimed(store, base, by, None), by)
        elif stored.is_like(by):
            stored = replace(stored, by=by)
        objects.replace(base.partitioning, stored.dump(), None)
    raise AssertionError


def _claimed(
    store: RemoteStore, base: RemoteUnit, by: Mapping[str, str], stored: Partitioning | None
) -> str:
    """A hidden folder that nobody uses for another partitioning."""
    objects = objects_of(store.store)
    for _ in _attempts(base):
        root = store.root_of(base, by, stored)
        if root == VERSIONS:
            return root
        path = f"{base.folder}/{root}/{PARTITIONING}"
        claim = objects.read(path)
        if claim is None and objects.replace(path, Partitioning(root, by).dump(), None):
            return root
        if claim is not None and Partitioning.parse(claim, path).is_like(by):
            return root
    raise AssertionError


def _follow(store: RemoteStore, base: RemoteUnit, root: str, job: Publication) -> Partitioning:
    """Have readers follow the hidden folder that a version was published to.

    They do already, but where the partitioning changes: with this run, or with another one that
    goes on at the same time.
    """
    objects = objects_of(store.store)
    by = partitioning_of(job.partition)
    text, tag = objects.read(base.partitioning), None
    for _ in _attempts(base):
        now = Partitioning.parse(text or b"", base.partitioning)
        if now.root == root:
            return now
        if tag is not None:
            left = tuple(name for name in dict.fromkeys((*now.left, now.root)) if name != root)
            new = Partitioning(root, by, left)
            if objects.replace(base.partitioning, new.dump(), tag):
                _tell_switch(store, base, now, new, job)
                return new
        text, tag = objects.tagged(base.partitioning)
    raise AssertionError


def _tell_switch(
    store: RemoteStore, base: RemoteUnit, old: Partitioning, new: Partitioning, job: Publication
) -> None:
    count = sum(1 for _ in store.units_below(base, old.root))
    if count:
        what = "1 unit" if count == 1 else f"{count} units"
        job.tell(
            f"{job.notebook} now has {new}. Its outputs with {old} ({what}) are kept in "
            f"{store.store.rstrip('/')}/{base.notebook}/{old.root}, where load() and other "
            "readers do not see them. "
            "Change the manifest back and run again to restore them."
        )


def _finish_switch(store: RemoteStore, base: RemoteUnit) -> None:
    """Replace the copies of folders that readers no longer follow, also after a killed run."""
    objects = objects_of(store.store)
    text, tag = objects.tagged(base.partitioning)
    if text is None or not (now := Partitioning.parse(text, base.partitioning)).left:
        return
    for root in (*now.left, now.root):
        units = list(store.units_below(base, root))
        versions = in_parallel(pointed, units)
        in_parallel(
            lambda found: _settle_copies(store, found[0], _names(found[1])),
            zip(units, versions, strict=True),
        )
    objects.replace(base.partitioning, replace(now, left=()).dump(), tag)


# -- a version -------------------------------------------------------------------------------


def _upload(objects: Objects, unit: RemoteUnit, version: str, job: Publication) -> dict[str, Any]:
    """Upload the files of a version; return its record."""

    def upload(item: Any) -> str:
        objects.upload(item.path, unit.file(version, item.name))
        failpoint("publish.moved_one")
        return digest_of(Path(item.path))

    digests = in_parallel(upload, job.staged, at_once=PARTS)
    record = describe_version(
        version,
        unit.notebook,
        job.staged,
        job.partition,
        job.run_id,
        job.data_version,
        job.origin,
    )
    for item, digest in zip(job.staged, digests, strict=True):
        record["outputs"][item.name]["sha256"] = digest
    return record


def _commit(
    objects: Objects,
    unit: RemoteUnit,
    record: Mapping[str, Any],
    keep: Mapping[str, int | None],
    began: float,
) -> tuple[list[RemoteVersion], list[RemoteVersion]]:
    """Put a version first in the pointer; what it named before, and what it names now."""
    before: list[RemoteVersion] = []
    for _ in _attempts(unit):
        text, tag = objects.tagged(unit.pointer)
        now = read_pointer(unit, text)
        if any(version.id == record["version"] for version in now):
            return before, now  # the answer was lost, and others have published since
        if time.time() - began > LONGEST_S:
            raise StoreError(
                f"the outputs of {unit} cannot be published: they were uploaded too long ago, and "
                "may be pruned at any moment",
                hint="Did this machine sleep meanwhile? Run the notebook again.",
            )
        before = now
        older = [(each.id, sizes_of(each)) for each in before]
        kept = retained(list(record["outputs"]), older, keep)
        records = [record, *(each.record for each in before if each.id in kept)]
        pointer = json.dumps({"format": FORMAT, "versions": records}, indent=1).encode()
        if objects.replace(unit.pointer, pointer, tag):
            return before, read_pointer(unit, pointer)
    raise AssertionError


# -- copies for other tools ------------------------------------------------------------------


def _settle_copies(
    store: RemoteStore,
    unit: RemoteUnit,
    others: Collection[str],
    ours: tuple[str, Mapping[str, Path]] = ("", {}),
    state: list[RemoteVersion] | None = None,
) -> None:
    """Make the plain copies those of the current version, or remove them where there is none.

    Parameters
    ----------
    store : RemoteStore
    unit : RemoteUnit
        In any hidden folder; the copies are of the one that readers follow.
    others : collection of str
        More outputs that may have copies.
    ours : tuple of str and mapping, optional
        A version, and the local files of its outputs.
    state : list of RemoteVersion, optional
        What readers see there, if that was just read.
    """
    objects = objects_of(store.store)
    if state is None:
        state = _followed(store, unit)
    for _ in _attempts(unit):
        if state:
            current = state[0]
            source = current.unit
            assert source is not None
            local = ours[1] if ours[0] == current.id else {}
            copies = [
                (source.file(current.id, output), unit.plain(output), local.get(output))
                for output in current.outputs
            ]
            try:
                in_parallel(lambda copy: objects.copy(*copy), copies, at_once=PARTS)
            except FileNotFoundError:
                if _same(_followed(store, unit), state):
                    raise
        names = {*others, *_names(state)} - set(state[0].outputs if state else ())
        in_parallel(lambda name: objects.remove(unit.plain(name)), names)
        before, state = state, _followed(store, unit)
        if _same(before, state):
            return


def _followed(store: RemoteStore, unit: RemoteUnit) -> list[RemoteVersion]:
    """The versions that readers see at a unit's place."""
    stored = store.partitioning(unit.notebook)
    if stored is None or bool(unit.segments) == (stored.root == VERSIONS):
        return []
    return pointed(replace(unit, root=stored.root))


def _same(one: Sequence[RemoteVersion], other: Sequence[RemoteVersion]) -> bool:
    first = [(found.unit, found.id) for versions in (one, other) for found in versions[:1]]
    return len(one[:1]) == len(other[:1]) and len(set(first)) <= 1


def _names(versions: Sequence[RemoteVersion]) -> set[str]:
    return {output for version in versions for output in version.outputs}
