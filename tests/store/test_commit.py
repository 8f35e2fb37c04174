"""Publishing: what stands in the store afterwards, and what never is touched."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest

from research_jobs import failpoints
from research_jobs.errors import CorruptOutputError, StoreError
from research_jobs.outcome import StagedOutput
from research_jobs.protocol import PartitionKey
from research_jobs.store import files
from research_jobs.store.codec import read_output, write_output
from research_jobs.store.commit import open_staging, publish, refuse_any_foreign, reject
from research_jobs.store.files import Files, FolderLock
from research_jobs.store.layout import unit_of
from research_jobs.store.load import load
from research_jobs.store.stored import stored_versions
from research_jobs.store.versions import LocalHeld, hold

DAY = PartitionKey("2018-11-01", {"run_date": "2018-11-01"})


def tree(folder: str | Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, links as what they say."""
    found: dict[str, bytes] = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink()).encode()
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def test_paths_are_those_of_the_contract(store: str, put: Any) -> None:
    """Other tools find plain and partitioned outputs where the documentation says."""
    put("volatility/garch", {"forecast": [1]})
    put("signals", {"signals": [1]}, DAY)
    assert Path(store, "volatility/garch/forecast.parquet").is_file()
    assert Path(store, "signals/signals/run_date=2018-11-01/part-0.parquet").is_file()


def test_published_outputs_are_described(store: str, put: Any) -> None:
    """What publish returns names path, rows, version, and the rows there were before."""
    begun = datetime.now(timezone.utc)
    put("a", {"x": [1, 2, 3]})
    (second,) = put("a", {"x": [1, 2]})
    assert second.path == str(Path(store, "a", "x.parquet"))
    assert read_output(Path(second.file)) == [1, 2]
    assert (second.rows, second.previous_rows, second.kind) == (2, 3, "list")
    (version,) = stored_versions(store, "a")
    published = datetime.fromisoformat(version.published_at)
    assert begun - timedelta(seconds=1) < published <= datetime.now(timezone.utc)
    assert second.bytes == Path(second.path).stat().st_size


@pytest.fixture
def days(put: Any) -> None:
    """Three partitions, one of which was published twice, and an unfinished staging."""
    for key in ("2018-11-01", "2018-11-02", "BRK/B", "2018-11-02"):
        frame = pd.DataFrame({"price": [1.5, 2.5], "name": ["a", None]})
        put("s", {"s": frame}, PartitionKey(key, {"day": key}), keep={"s": 5})


READERS: dict[str, Callable[[str], int]] = {
    "pandas": lambda root: len(pd.read_parquet(f"{root}/s")),
    "polars folder": lambda root: pl.scan_parquet(f"{root}/s").collect().height,
    "polars glob": lambda root: (
        pl.scan_parquet(f"{root}/s/**/*.parquet", hive_partitioning=True).collect().height
    ),
    "duckdb **": lambda root: len(
        duckdb.sql(f"from read_parquet('{root}/s/**/*.parquet', hive_partitioning=true)").fetchall()
    ),
    "duckdb */*": lambda root: len(duckdb.sql(f"from '{root}/s/*/*.parquet'").fetchall()),
    "duckdb whole notebook": lambda root: len(duckdb.sql(f"from '{root}/**/*.parquet'").fetchall()),
    "pyarrow": lambda root: ds.dataset(f"{root}/s", partitioning="hive").count_rows(),
}


@pytest.mark.usefixtures("days")
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_other_tools_read_a_partitioned_output(store: str, reader: Callable[[str], int]) -> None:
    """Every reader sees each partition once, whatever versions are kept beside it."""
    assert reader(f"{store}/s") == 6


@pytest.mark.usefixtures("days")
def test_other_tools_decode_the_keys(store: str) -> None:
    """A key with a slash comes back as it is from every hive reader."""
    keys = {"2018-11-01", "2018-11-02", "BRK/B"}
    tree = f"{store}/s/s"
    assert set(pd.read_parquet(tree)["day"]) == keys
    assert set(pl.scan_parquet(tree, hive_schema={"day": pl.String}).collect()["day"]) == keys
    rows = duckdb.sql(
        f"select distinct day from read_parquet('{tree}/**/*.parquet', hive_partitioning=true, "
        "hive_types_autocast=false)"
    ).fetchall()
    assert {row[0] for row in rows} == keys


def test_an_output_that_is_no_longer_made_disappears(store: str, put: Any) -> None:
    """It leaves with the publish that does not have it, and its last version can be loaded."""
    put("a", {"x": 1, "old": 2})
    put("a", {"x": 3})
    assert not Path(store, "a", "old.parquet").is_symlink()
    assert load("a", "x") == 3
    assert load("a", "old", version=-1) == 2


def test_keep_says_how_many_old_versions_stay(store: str, put: Any) -> None:
    """With keep 2 of one output there are three versions; with 0 there is one."""
    for value in range(5):
        put("a", {"x": value, "y": value}, keep={"x": 2})
    assert [load("a", "x", version=back) for back in (0, -1, -2)] == [4, 3, 2]
    assert len(stored_versions(store, "a")) == 3
    put("a", {"x": 9, "y": 9})
    assert len(stored_versions(store, "a")) == 1


def test_a_damaged_old_version_goes(store: str, put: Any) -> None:
    """A version that cannot be read takes its place on the disk until the next publish only."""
    put("a", {"x": 1}, keep={"x": 1})
    put("a", {"x": 2}, keep={"x": 1})
    versions = unit_of(store, "a", None).versions
    (versions / "000001-run1" / "version.json").write_text("{")
    put("a", {"x": 3}, keep={"x": 1})
    assert sorted(path.name for path in versions.glob("0*")) == ["000002-run1", "000003-run1"]


def test_a_version_being_read_is_not_pruned(store: str, put: Any) -> None:
    """A reader's hold on a version outlives publishes; the next one after it prunes."""
    put("a", {"x": 1})
    held: LocalHeld = hold(unit_of(store, "a", None))
    put("a", {"x": 2})
    assert read_output(held.version.file("x")) == 1
    held.release()
    put("a", {"x": 3})
    assert not held.version.folder.exists()


def test_an_uncommitted_version_is_no_old_one(store: str, put: Any) -> None:
    """What a publish that died left behind is neither listed nor counted by `version=-1`."""
    put("a", {"x": 1}, keep={"x": 5})
    put("a", {"x": 2}, keep={"x": 5})
    unit = unit_of(store, "a", None)
    shutil.copytree(unit.versions / "000002-run1", unit.versions / "000003-dead")
    assert [version.id for version in stored_versions(store, "a")] == ["000002-run1", "000001-run1"]
    assert (load("a", "x"), load("a", "x", version=-1)) == (2, 1)


def test_a_version_replaced_before_it_was_locked(
    store: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruned between being opened and being locked, it is not held: the next one is."""
    put("a", {"x": 1})
    unit = unit_of(store, "a", None)
    aside = Path(store, "aside")
    shared = FolderLock.shared
    locked: list[Path] = []

    def replace_then_lock(lock: FolderLock, *, wait: bool = True) -> bool:
        if not locked and lock.path.parent == unit.versions:
            locked.append(lock.path)
            # The folder that was opened is pruned; one of the same name comes later.
            lock.path.rename(aside)
            shutil.copytree(aside, lock.path)
        return shared(lock, wait=wait)

    monkeypatch.setattr(FolderLock, "shared", replace_then_lock)
    held = hold(unit)
    assert locked == [held.version.folder]
    put("a", {"x": 2})
    assert held.version.folder.exists()
    held.release()


def test_only_one_puts_outputs_aside(store: str) -> None:
    """The folder of refused outputs is locked while they are exchanged."""
    with open_staging(store, "r") as staging:
        staged = write_output("x", 1, staging.path / "x", options={}, metadata={})
        reject(store, "a", [staged], staging=staging, partition=None, run_id="r")
    free: list[bool] = []

    class Looking(Files):
        """Asks for the lock, as another process would, whenever a folder is exchanged."""

        def rename(self, source: Path, target: Path) -> None:
            with FolderLock(Path(store, "a", ".rejected")) as lock:
                free.append(lock.exclusive(wait=False))
            super().rename(source, target)

    with open_staging(store, "r") as staging:
        staged = write_output("x", 2, staging.path / "x", options={}, metadata={})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "FILES", Looking())
            reject(store, "a", [staged], staging=staging, partition=None, run_id="r")
    assert free == [False, False]


def test_nobody_publishes_while_the_partitioning_changes(store: str, put: Any) -> None:
    """The notebook is locked for one alone while its links change over, and shared otherwise."""
    put("a", {"x": 1})
    alone: list[bool] = []

    def ask(point: str) -> None:
        if point in ("publish.locked", "publish.relinked"):
            with FolderLock(Path(store, "a")) as lock:
                alone.append(not lock.shared(wait=False))

    failpoints.install(ask)
    try:
        put("a", {"x": 2}, DAY)
        put("a", {"x": 3}, DAY)
    finally:
        failpoints.install(None)
    assert alone == [True, True, False]


@pytest.mark.parametrize("target", ["../../elsewhere", "1-x", ""])
def test_a_pointer_that_names_no_version(store: str, put: Any, target: str) -> None:
    """A damaged `current` is a corrupt output for whoever reads it or publishes over it."""
    put("a", {"x": 1})
    current = unit_of(store, "a", None).current
    current.unlink()
    if target:
        current.symlink_to(target)
    else:
        current.write_text("a file")
    with pytest.raises(CorruptOutputError, match="current"):
        hold(unit_of(store, "a", None))
    with pytest.raises(CorruptOutputError, match="current"):
        put("a", {"x": 2})


def test_links_in_place_of_folders_of_the_store(store: str, put: Any, tmp_path: Path) -> None:
    """A version that is a link leads nowhere, and what lies beside partitions is none."""
    put("a", {"x": 1})
    put("b", {"x": 1}, DAY)
    version = unit_of(store, "a", None).versions / "000001-run1"
    version.rename(tmp_path / "moved")
    version.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="is a symbolic link"):
        load("a", "x")
    Path(store, "b", ".partitions", "current").symlink_to("nowhere")
    assert load("b", "x") == {"2018-11-01": 1}


def test_rejected_outputs_are_kept_aside(store: str, put: Any) -> None:
    """The published output stays byte for byte, and the rejected one can be looked at."""
    put("a", {"x": 1})
    before = tree(store)
    for value in (2, 3):
        with open_staging(store, "r2") as staging:
            staged = write_output("x", value, staging.path / "x", options={}, metadata={})
            folder = reject(store, "a", [staged], staging=staging, partition=None, run_id="r2")
    after = tree(store)
    assert {path: after[path] for path in before} == before
    assert read_output(Path(folder) / "x.pq") == 3
    assert len(list(Path(folder).parent.iterdir())) == 1


def test_a_rejected_partition_of_a_long_name(store: str) -> None:
    """Where the keys are too long for one name together, the run's id is the name."""
    dimensions = {"a": "x" * 150, "b": "y" * 150}
    with open_staging(store, "run-7") as staging:
        staged = write_output("x", 1, staging.path / "x", options={}, metadata={})
        folder = reject(
            store, "n", [staged], staging=staging, partition=PartitionKey("k", dimensions),
            run_id="run-7",
        )  # fmt: skip
    assert read_output(Path(folder) / "x.pq") == 1


def test_nobody_changes_the_partitioning_meanwhile(store: str, put: Any) -> None:
    """While a partition is published others may be, and the whole notebook is nobody's alone."""
    found: list[bool] = []

    def ask(name: str) -> None:
        if name == "publish.moved":
            for take in (FolderLock.shared, FolderLock.exclusive):
                with FolderLock(unit_of(store, "a", DAY).folder) as lock:
                    found.append(take(lock, wait=False))

    failpoints.install(ask)
    try:
        put("a", {"x": 1}, DAY)
    finally:
        failpoints.install(None)
    assert found == [True, False]


# -- bad input ------------------------------------------------------------------------------


def test_a_file_in_the_way_is_not_overwritten(store: str, put: Any) -> None:
    """Somebody's own file at the output's path stays, and the error names it."""
    theirs = Path(store, "a", "x.parquet")
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"x\.parquet is in the way"):
        put("a", {"x": 1})
    assert theirs.read_bytes() == b"mine"
    assert not list(Path(store, "a", ".versions").glob("0*"))


@pytest.mark.parametrize("partition", [None, DAY], ids=["plain", "partition"])
def test_files_of_others_beside_ours_stay(
    store: str, put: Any, tmp_path: Path, partition: PartitionKey | None
) -> None:
    """Outputs that are gone take their own paths with them, and nobody else's."""
    put("a", {"x": 1, "gone": 1}, partition)
    unit = unit_of(store, "a", partition)
    theirs = [unit.link("file"), unit.link("link")]
    for path in theirs:
        path.parent.mkdir(parents=True, exist_ok=True)
    theirs[0].write_bytes(b"mine")
    theirs[1].symlink_to(tmp_path)
    put("a", {"x": 2}, partition)
    assert not os.path.lexists(unit.link("gone"))
    assert theirs[0].read_bytes() == b"mine"
    assert theirs[1].readlink() == tmp_path


@pytest.mark.parametrize("kind", ["file", "link"])
@pytest.mark.parametrize("place", ["x", "x/k=1", "x/k=1/l=2", "x/k=1/part-0.parquet"])
def test_what_is_in_the_way_of_any_partition(
    store: str, tmp_path: Path, kind: str, place: str
) -> None:
    """Before a run whose partition is not known yet, every place that one could have is looked at.

    What stands beside such places is nobody's business.
    """
    path = Path(store, "a", place)
    path.parent.mkdir(parents=True)
    refuse_any_foreign(store, "a", ["x"], partitioned=True)
    (tmp_path / "theirs").mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "theirs")
    else:
        path.write_bytes(b"mine")
    with pytest.raises(StoreError, match=re.escape(f"{path} is ")):
        refuse_any_foreign(store, "a", ["x"], partitioned=True)
    refuse_any_foreign(store, "a", ["y"], partitioned=True)
    refuse_any_foreign(store, "a", ["x"], partitioned=False)
    Path(store, "a", "x.parquet").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"x\.parquet is in the way"):
        refuse_any_foreign(store, "a", ["x"], partitioned=False)


@pytest.mark.parametrize("place", ["a", "a/.versions", "a/x", "a/x/day=1", "a/.partitions/day=1"])
def test_a_link_out_of_the_store_is_refused(
    store: str, put: Any, tmp_path: Path, place: str
) -> None:
    """A folder that is a symbolic link is refused, and nothing is written behind it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = Path(store, place)
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    partition = None if place.endswith("versions") else PartitionKey("1", {"day": "1"})
    with pytest.raises(StoreError, match="symbolic link"):
        put("a", {"x": 1}, partition)
    assert not list(outside.iterdir())


def test_a_staged_file_outside_the_staging_folder_is_refused(store: str, tmp_path: Path) -> None:
    """What a forged record names elsewhere is never moved."""
    elsewhere = tmp_path / "x.parquet"
    staged = write_output("x", 1, elsewhere, options={}, metadata={})
    with open_staging(store, "r") as staging:
        link = staging.path / "x.parquet"
        link.symlink_to(elsewhere)
        inside = staging.path / "y.parquet"
        write_output("y", 1, staging.path / "z.parquet", options={}, metadata={})
        inside.symlink_to("z.parquet")
        for path in (elsewhere, link, inside):
            forged = StagedOutput("x", str(path), "int", 1, staged.bytes)
            with pytest.raises(StoreError, match="not in the staging folder"):
                publish(store, "a", [forged], staging=staging, partition=None, run_id="r")
    assert read_output(elsewhere) == 1


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "its beginning": lambda data: b"xxxx" + data[4:],
    "its end": lambda data: data[:-4] + b"xxxx",
    "another file": lambda data: data + data,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_staged_file_that_was_changed_is_refused(
    store: str, put: Any, damage: Callable[[bytes], bytes]
) -> None:
    """What is not the file that was staged never becomes an output, and the previous one stays."""
    put("a", {"x": 1})
    with open_staging(store, "r") as staging:
        staged = write_output("x", 2, staging.path / "x", options={}, metadata={})
        path = Path(staged.path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(CorruptOutputError, match="not the file that was staged"):
            publish(store, "a", [staged], staging=staging, partition=None, run_id="r")
    assert load("a", "x") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [(("x", "x"), "staged twice: x, x"), (("\ufb01t",), "not in Python's normalized spelling")],
    ids=["twice", "spelling"],
)
def test_what_a_forged_record_calls_outputs(
    store: str, names: tuple[str, ...], message: str
) -> None:
    """A name that stands twice, or that Python would write otherwise, publishes nothing."""
    with open_staging(store, "r") as staging:
        staged = [
            replace(
                write_output("x", 1, staging.path / str(number), options={}, metadata={}), name=name
            )
            for number, name in enumerate(names)
        ]
        with pytest.raises(StoreError, match=message):
            publish(store, "a", staged, staging=staging, partition=None, run_id="r")
    assert not Path(store, "a").exists()


def test_a_run_without_a_name_publishes(store: str) -> None:
    """A run's id of nothing but signs makes a version that can be read."""
    with open_staging(store, "--") as staging:
        staged = write_output("x", 1, staging.path / "x", options={}, metadata={})
        publish(store, "a", [staged], staging=staging, partition=None, run_id="--")
    assert load("a", "x") == 1
    assert [version.id for version in stored_versions(store, "a")] == ["000001-run"]


def test_two_notebooks_may_not_share_a_folder(put: Any) -> None:
    """A partitioned output named as a notebook below it is refused, in either order."""
    put("a/b", {"x": 1})
    with pytest.raises(StoreError, match="would share the folder"):
        put("a", {"b": 1}, DAY)
    put("c", {"d": 1}, DAY)
    with pytest.raises(StoreError, match="would share the folder"):
        put("c/d", {"x": 1})


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_store_is_one_clear_error(store: str) -> None:
    """A store that cannot be written says so in one line."""
    Path(store).mkdir(parents=True)
    Path(store).chmod(0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        open_staging(store, "r")


def test_a_store_that_is_a_file_is_one_clear_error(tmp_path: Path) -> None:
    """A file where the store should be is distinguished from a full disk."""
    (tmp_path / "data").write_text("")
    with pytest.raises(StoreError, match="cannot write to the store"):
        open_staging(str(tmp_path / "data"), "r")


# -- writing that fails (faults 14) ----------------------------------------------------------


class Failing(Files):
    """File operations of which the n-th, and if `lasting` all after it, meet a full disk."""

    def __init__(self, at: int, *, lasting: bool) -> None:
        self.left = at
        self.lasting = lasting
        self.failed = False

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0 or (self.left < 0 and self.lasting):
            self.failed = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make_folder(self, path: Path) -> None:
        self._count()
        super().make_folder(path)

    def link(self, path: Path, target: str) -> None:
        self._count()
        super().link(path, target)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def write(self, path: Path, data: bytes) -> None:
        self._count()
        super().write(path, data)

    def _sync(self, path: Path, flags: int) -> None:
        self._count()
        super()._sync(path, flags)


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("partition", [None, DAY], ids=["plain", "partition"])
def test_every_failing_operation_leaves_the_old_outputs(
    store: str,
    put: Any,
    monkeypatch: pytest.MonkeyPatch,
    partition: PartitionKey | None,
    lasting: bool,
) -> None:
    """A disk that fills up at any operation: an error, and the outputs are as before.

    A disk that stays full after the commit can keep the old version from being put back; then the
    new outputs are there, all of them.
    """
    for at in range(1, 60):
        name = f"n{at}"
        put(name, {"x": 1, "y": 1}, partition)
        failing = Failing(at, lasting=lasting)
        with open_staging(store, "r") as staging:
            staged = [
                write_output(each, 2, staging.path / each, options={}, metadata={})
                for each in ("x", "y", "z")
            ]
            monkeypatch.setattr(files, "FILES", failing)
            try:
                publish(store, name, staged, staging=staging, partition=partition, run_id="r")
            except StoreError as error:
                message = str(error)
                failed = True
            else:
                failed = False
            monkeypatch.setattr(files, "FILES", Files())
        key = partition.key if partition else None
        found = [load(name, each, key) for each in ("x", "y")]
        plain = [read_output(unit_of(store, name, partition).link(each)) for each in ("x", "y")]
        assert found == plain
        if failed:
            assert "No space left" in message
            assert found == [1, 1] or (lasting and found == [2, 2])
            put(name, {"x": 3}, partition)  # nothing is left in the way
            assert load(name, "x", key) == 3
        else:
            assert found == [2, 2]
        if not failing.failed:
            return
    pytest.fail("there were more operations than the test expected")


@pytest.mark.parametrize("point", ["described", "linked", "committed", "durable"])
@pytest.mark.parametrize("partition", [None, DAY], ids=["plain", "partition"])
def test_a_first_publish_that_fails_leaves_nothing(
    store: str, put: Any, partition: PartitionKey | None, point: str
) -> None:
    """Before and after the commit: no reader sees an output, and the next publish works."""

    def fail(name: str) -> None:
        if name == f"publish.{point}":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    failpoints.install(fail)
    try:
        with pytest.raises(StoreError, match="No space left"):
            put("a", {"x": 1}, partition)
    finally:
        failpoints.install(None)
    assert [path for path in Path(store).rglob("*") if path.is_symlink()] == []
    assert stored_versions(store, "a", partition) == ()
    put("a", {"x": 2}, partition)
    assert load("a", "x", partition) == 2


CHILD = """
import resource, signal, sys
from pathlib import Path
import numpy, pandas, polars
from research_jobs.store.codec import write_output
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
kind, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
numbers = numpy.random.default_rng(0).normal(size=20_000)
value = {"pandas": lambda: pandas.DataFrame({"x": numbers}), "numpy": lambda: numbers,
         "polars": lambda: polars.DataFrame({"x": numbers}),
         "lazy": lambda: polars.LazyFrame({"x": numbers})}[kind]()
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    write_output("x", value, folder / "x.parquet", options={"row_group_size": 3000}, metadata={})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("kind", ["pandas", "numpy", "polars", "lazy"])
def test_a_file_that_may_not_grow_leaves_nothing_half_done(tmp_path: Path, kind: str) -> None:
    """With the file's size limited, the error is one line and the old file is as it was."""
    old = tmp_path / "x.parquet"
    write_output("x", "old", old, options={}, metadata={})
    before = old.read_bytes()
    for limit in (3, 60_000):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", CHILD, kind, str(tmp_path), str(limit)],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.stdout.startswith("StoreError output 'x' cannot be written"), done
        assert [path.name for path in tmp_path.iterdir()] == ["x.parquet"]
        assert old.read_bytes() == before


def test_what_a_link_leads_to_is_never_removed(tmp_path: Path) -> None:
    """A folder goes with the links in it, and what these name stays."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").write_text("mine")
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "link").symlink_to(outside)
    (folder / "dangling").symlink_to("nowhere")
    Files().remove_tree(folder)
    assert not folder.exists()
    assert (outside / "deep" / "file").read_text() == "mine"


def test_stale_staging_is_removed_by_the_next(store: str) -> None:
    """A staging folder whose process is dead goes; one of a living run stays."""
    script = (
        "import os, sys; from research_jobs.store.commit import open_staging;"
        "print(open_staging(sys.argv[1], 'dead').path); sys.stdout.flush(); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, store], capture_output=True, text=True, check=True
    )
    dead = Path(done.stdout.strip())
    assert dead.is_dir()
    with open_staging(store, "alive") as alive, open_staging(store, "third"):
        assert not dead.exists()
        assert alive.path.is_dir()
    assert not list(Path(store, ".staging").iterdir())


def test_publishing_needs_no_pyarrow(store: str) -> None:
    """The run worker publishes without pyarrow, pandas or fsspec being imported."""
    with open_staging(store, "r") as staging:
        staged = write_output("x", 1, staging.path / "x", options={}, metadata={})
        script = f"""
import sys
from pathlib import Path
from research_jobs.outcome import StagedOutput
from research_jobs.store.commit import publish
from research_jobs.store.stored import stored_outputs
staged = StagedOutput("x", {staged.path!r}, "int", 1, {staged.bytes})
publish({store!r}, "a", [staged], staging=Path({str(staging.path)!r}), partition=None, run_id="r")
print(dict(stored_outputs({store!r}, "a")))
assert not {{"pyarrow", "pandas", "numpy", "fsspec"}} & set(sys.modules)
"""
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert load("a", "x") == 1
