"""What goes from a store although nothing is published."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from research_jobs import failpoints, load
from research_jobs.errors import StoreError
from research_jobs.filesystem import write_atomically
from research_jobs.protocol import PartitionKey
from research_jobs.store import pruning, readers
from research_jobs.store.backends import remote_publish
from research_jobs.store.backends.remote import RemoteStore
from research_jobs.store.files import FolderLock
from research_jobs.store.layout import PARTITIONS, unit_of
from research_jobs.store.objects import objects_of
from research_jobs.store.pruning import prune_objects, prune_versions
from research_jobs.store.readers import is_read, mark_read
from research_jobs.store.versions import hold, version_ids

DAY = PartitionKey("2018-11-01", {"run_date": "2018-11-01"})


@pytest.mark.parametrize("day", [None, DAY], ids=["plain", "partition"])
def test_versions_beyond_keep(
    store: str, put: Any, tmp_path: Path, day: PartitionKey | None
) -> None:
    """They go when `keep` is lowered, but for one that is read, or that a kept record names."""
    for number in range(6):
        put("nb", {"x": number}, day, keep={"x": 5})
    unit = unit_of(store, "nb", day)
    ids = version_ids(unit)
    record = tmp_path / "provenance.json"
    record.touch()
    mark_read(unit.versions / ids[0], record)
    held = hold(unit, ids[1])
    with FolderLock(unit.versions) as lock:
        lock.exclusive()  # as a run that publishes
        assert list(prune_versions(store, "nb", {"x": 1})) == []
    planned = list(prune_versions(store, "nb", {"x": 1}, dry_run=True))
    assert version_ids(unit) == ids
    sizes = list(prune_versions(store, "nb", {"x": 1}))
    assert len(planned) == len(sizes) + 1 == 3
    assert min(sizes) > 100
    assert version_ids(unit) == [*ids[:2], *ids[4:]]
    held.release()
    record.unlink()
    assert len(list(prune_versions(store, "nb", {"x": 1}))) == 2
    key = day.key if day else None
    assert (load("nb", "x", key), load("nb", "x", key, version=-1)) == (5, 4)


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_objects_of_no_version(
    kind: str,
    put: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a publication uploaded that was cut off goes after a while; what is named stays."""
    url = f"file://{tmp_path}/o"
    if kind == "s3":
        server = request.getfixturevalue("s3")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        url = f"s3://{server.make_bucket()}/data"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    for number in range(3):
        put("v/g", {"x": number}, keep={"x": 1}, where=url)
        put("v/g/h", {"x": number}, DAY, where=url)
    backend, objects = RemoteStore(url), objects_of(url)
    before = sorted(objects.find(objects.root))
    strays = []
    for notebook in ("v/g", "v/g/h"):
        (unit,) = backend.units(notebook)
        strays.append(unit.file("000009-dead", "x"))
        objects.write(strays[-1], b"cut off")
    # A first publication that was cut off: there is no pointer.
    for notebook, day in (("new", None), ("parted", DAY)):
        unit = backend.unit_at(notebook, day, PARTITIONS)
        strays.append(unit.file("000001-dead", "x"))
        objects.write(strays[-1], b"cut off")
    now = time.time()
    with monkeypatch.context() as patch:  # a machine whose clock is two days ahead
        patch.setattr(pruning.time, "time", lambda: now + 2 * 86_400)
        assert list(prune_objects(url, now + 86_400)) == []
    before.append(f"{objects.root}/{pruning.CLOCK}")
    assert list(prune_objects(url, now - 3600)) == []
    assert list(prune_objects(url, now + 3600, dry_run=True)) == [7] * 4
    # A pointer that cannot be read names nothing, and nothing is removed for it.
    (unit,) = backend.units("v/g")
    pointer = objects.read(unit.pointer)
    assert pointer is not None
    objects.write(unit.pointer, b"{")
    lines: list[str] = []
    assert list(prune_objects(url, now + 3600, unreadable=lines.append)) == [7] * 3
    assert len(lines) == 1
    assert lines[0].startswith("v/g: ")
    assert sorted(objects.find(objects.root)) == sorted([*before, strays[0]])
    objects.write(unit.pointer, pointer)
    assert list(prune_objects(url, now + 3600)) == [7]
    assert sorted(objects.find(objects.root)) == sorted(before)
    assert (load("v/g", "x"), load("v/g", "x", version=-1), load("v/g/h", "x", DAY.key)) == (
        2,
        1,
        2,
    )


def test_a_publication_that_slept(put: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A machine that wakes up after its uploads may be pruned publishes nothing, and says why."""
    url = f"file://{tmp_path}/o"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    put("nb", {"x": 1}, where=url)
    slept = time.time() + 86_400

    def sleep(point: str) -> None:
        if point == "publish.uploaded":
            assert list(prune_objects(url, time.time() - 1)) == []  # it is under way
            monkeypatch.setattr(remote_publish.time, "time", lambda: slept)

    failpoints.install(sleep)
    try:
        with pytest.raises(StoreError, match="uploaded too long ago"):
            put("nb", {"x": 2}, where=url)
    finally:
        failpoints.install(None)
    assert load("nb", "x") == 1


def test_a_record_that_comes_while_others_are_tidied_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another run notes while the list is rewritten is in it afterwards, whatever its name."""
    records = [tmp_path / os.fsdecode(name) for name in (b"one", b"caf\xe9")]
    for record in records:
        record.touch()
    other = threading.Thread(target=mark_read, args=(tmp_path, records[1]))

    def rewrite(path: Path, content: bytes) -> None:
        if threading.current_thread() is not other:  # which may come to rewrite it too
            other.start()
            other.join(0.2)
        write_atomically(path, content)

    monkeypatch.setattr(readers, "COMPACTED_ABOVE", 1)
    monkeypatch.setattr(readers, "write_atomically", rewrite)
    mark_read(tmp_path, records[0])
    monkeypatch.setattr(readers, "write_atomically", write_atomically)
    other.join()
    records[0].unlink()
    assert is_read(tmp_path)
    records[1].unlink()
    assert not is_read(tmp_path)


def test_tidying_does_not_cost_the_square_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is rewritten whenever it has doubled, not for each record."""
    rewritten: list[Path] = []
    monkeypatch.setattr(readers, "COMPACTED_ABOVE", 1)
    monkeypatch.setattr(readers, "write_atomically", lambda path, _: rewritten.append(path))
    for _ in range(200):
        mark_read(tmp_path, tmp_path)
    assert len(rewritten) < 20
