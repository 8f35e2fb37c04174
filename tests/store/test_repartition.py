"""A notebook that is partitioned in another way than what is stored: nothing mixes, or is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pytest

from research_jobs import failpoints
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish
from research_jobs.store.load import load
from research_jobs.store.stored import stored_partitions
from research_jobs.store.transaction import FAILPOINTS, SWITCH_FAILPOINTS

DAY = {"run_date": "day, UTC, %Y-%m-%d"}
MONTH = {"run_date": "month, UTC, %Y-%m-%d"}


def key(by: dict[str, str], *keys: str) -> PartitionKey:
    """A partition of given dimensions."""
    return PartitionKey("|".join(keys), dict(zip(by, keys, strict=True)), by=by)


# Name to the partitions that are made; day and month share a key.
WAYS: dict[str, list[PartitionKey | None]] = {
    "none": [None],
    "k": [key({"k": "values"}, each) for each in ("a", "b")],
    "renamed": [key({"z": "values"}, each) for each in ("a", "b")],
    "day": [key(DAY, each) for each in ("2018-11-01", "2018-11-02")],
    "month": [key(MONTH, each) for each in ("2018-11-01", "2018-12-01")],
    "two": [key({"k": "values", "region": "values"}, "a", each) for each in ("eu", "us")],
}
PAIRS = list(itertools.permutations(WAYS, 2))


class Maker:
    """Publishes a notebook's output in any way, its rows named for the way and the partition."""

    def __init__(self, store: str) -> None:
        self.store = store
        self.lines: list[str] = []

    def publish(self, way: str, only: int | None = None, value: str = "") -> None:
        """Publish all partitions of a way, or the n-th alone."""
        for number, partition in enumerate(WAYS[way]):
            if only in (None, number):
                self.publish_one(partition, f"{way}{number}{value}")

    def publish_one(self, partition: PartitionKey | None, mark: str) -> None:
        """Publish one partition."""
        with open_staging(self.store, "run") as staging:
            staged = [
                write_output(
                    name, pd.DataFrame({"mark": [mark]}), staging.path / name,
                    options={}, metadata={},
                )
                for name in ("out", "v")
            ]  # fmt: skip
            publish(
                self.store, "n", staged, staging=staging, partition=partition, run_id="run",
                tell=self.lines.append,
            )  # fmt: skip

    def marks(self) -> set[str]:
        """What load() gives."""
        return set(load("n", "out")["mark"])

    def plain_marks(self) -> dict[str, set[str]]:
        """What pandas, polars and DuckDB read from the plain paths, without us."""
        file, folder = Path(self.store, "n", "out.parquet"), Path(self.store, "n", "out")
        assert not (os.path.lexists(file) and folder.exists())
        if folder.exists():
            glob = f"{folder}/**/*.parquet"
            return {
                "pandas": set(pd.read_parquet(folder)["mark"]),
                "polars": set(pl.read_parquet(folder)["mark"]),
                "duckdb": {row[0] for row in duckdb.sql(f"select mark from '{glob}'").fetchall()},
            }
        if os.path.lexists(file):
            return {"pandas": set(pd.read_parquet(file)["mark"])}
        return {}


@pytest.fixture
def maker(store: str) -> Maker:
    """A maker for the project's store."""
    return Maker(store)


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_every_change_of_partitioning(maker: Maker, before: str, after: str) -> None:
    """After the first new partition nobody sees an old one; changed back, the old ones are there.

    Every pair of ways, there and back, to readers of ours and to plain ones. It is said once.
    """
    maker.publish(before)
    maker.publish(after, only=0)
    assert maker.marks() == {f"{after}0"}
    assert set(map(frozenset, maker.plain_marks().values())) == {frozenset({f"{after}0"})}
    maker.publish(after)
    everything = {f"{after}{n}" for n in range(len(WAYS[after]))}
    assert maker.marks() == everything
    assert all(found == everything for found in maker.plain_marks().values())
    assert len(maker.lines) == 1
    assert "n now has" in maker.lines[0]
    assert f"({len(WAYS[before])} unit" in maker.lines[0]
    stored = {partition.key for partition in stored_partitions(maker.store, "n")}
    assert stored == {each.key for each in WAYS[after] if each is not None}
    # back again: what was made before is there, and the first is made anew
    maker.publish(before, only=0, value="new")
    back = {f"{before}0new", *(f"{before}{n}" for n in range(1, len(WAYS[before])))}
    assert maker.marks() == back
    assert all(found == back for found in maker.plain_marks().values())
    assert len(maker.lines) == 2


def test_three_ways_in_turn_lose_nothing(maker: Maker) -> None:
    """Each earlier partitioning keeps a folder of its own, however often it changes."""
    order = ["k", "day", "none", "month", "two", "k", "month", "day", "renamed", "none"]
    for way in order:
        maker.publish(way)
    for way in order:
        maker.publish(way, only=0)
        assert maker.marks() == {f"{way}{n}" for n in range(len(WAYS[way]))}


def test_what_stays_beside_what_is_stored(maker: Maker) -> None:
    """New keys of the same dimensions, and keys of unknown making, are no new partitioning."""
    maker.publish("k")
    maker.publish_one(key({"k": "values"}, "later"), "later")
    maker.publish_one(PartitionKey("unsaid", {"k": "unsaid"}), "unsaid")
    assert maker.marks() == {"k0", "k1", "later", "unsaid"}
    # A store whose versions do not say how their keys are made yet.
    for record in Path(maker.store, "n").rglob("version.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"by": None}))
    Path(maker.store, "n", ".partitioning.json").unlink()
    maker.publish_one(key({"k": "values"}, "last"), "last")
    assert maker.marks() == {"k0", "k1", "later", "unsaid", "last"}
    assert maker.lines == []


@pytest.mark.parametrize("behind", ["", "file://"], ids=["folder", "url"])
@pytest.mark.parametrize("before", ["none", "k"])
@pytest.mark.parametrize("last", ["day", "none"])
def test_a_store_from_before_partitionings_were_noted(
    maker: Maker, monkeypatch: pytest.MonkeyPatch, behind: str, before: str, last: str
) -> None:
    """Without the note, what was published last says how the outputs are partitioned."""
    monkeypatch.setenv("RESEARCH_JOBS_STORE", f"{behind}{maker.store}")
    note = Path(maker.store, "n", ".partitioning.json")
    maker.store = f"{behind}{maker.store}"
    for way in dict.fromkeys((last, before, last)):
        maker.publish(way)
        note.unlink(missing_ok=True)
    if last != before:
        maker.publish(last)
        note.unlink(missing_ok=True)
    assert maker.marks() == {f"{last}{number}" for number in range(len(WAYS[last]))}
    maker.publish("month", only=0)
    assert maker.marks() == {"month0"}


def test_a_link_of_another_partitioning_is_replaced(maker: Maker) -> None:
    """A plain path that still leads to the earlier outputs leads to the new ones after a run."""
    maker.publish("day")
    maker.publish("month")
    part = "run_date=2018-11-01"
    link = Path(maker.store, "n", "out", part, "part-0.parquet")
    link.unlink()
    link.symlink_to(f"../../.partitions/{part}/current/out.pq")
    maker.publish("month", only=0)
    assert all(found == {"month0", "month1"} for found in maker.plain_marks().values())


@pytest.mark.parametrize("scheme", ["", "file"])
def test_what_is_kept_aside_counts_as_stored(
    monkeypatch: pytest.MonkeyPatch, maker: Maker, tmp_path: Path, scheme: str
) -> None:
    """Partitions of an earlier making are stored but for the last, whose run brings them back."""
    if scheme:
        url = f"file://{tmp_path}/o"
        monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
        maker = Maker(url)
    maker.publish("day")
    maker.publish("month")
    assert [each.key for each in stored_partitions(maker.store, "n", DAY)] == ["2018-11-01"]
    maker.publish("day", only=1)
    assert maker.marks() == {"day0", "day1"}
    found = stored_partitions(maker.store, "n", DAY)
    assert [each.key for each in found] == ["2018-11-01", "2018-11-02"]
    assert len(stored_partitions(maker.store, "n", MONTH)) == len(WAYS["month"]) - 1


def test_stored_partitions_of_one_making(maker: Maker) -> None:
    """Asked for partitions of another making there are none."""
    maker.publish("day")
    found = stored_partitions(maker.store, "n", DAY)
    assert [each.key for each in found] == ["2018-11-01", "2018-11-02"]
    assert stored_partitions(maker.store, "n", MONTH) == ()
    assert stored_partitions(maker.store, "n", {}) == ()
    assert stored_partitions(maker.store, "other", DAY) == ()


def test_a_broken_note_is_one_clear_error(maker: Maker) -> None:
    """A note that makes no sense is named, whatever is in it."""
    maker.publish("day")
    note = Path(maker.store, "n", ".partitioning.json")
    for text in ("", "[" * 100_000, "null", '{"format": 1, "root": "..", "by": {}}', '{"by": 1}'):
        note.write_text(text)
        with pytest.raises(Exception, match="does not describe how the outputs are partitioned"):
            load("n", "out")


# -- killed, and failing, on the way ---------------------------------------------------------


def die_at(point: str, work: Callable[[], None]) -> bool:
    """Do something in a fork that is killed at a failpoint; whether it came there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        try:
            failpoints.install(
                lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None
            )
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def switch_points() -> list[str]:
    """The failpoints that a change of partitioning passes."""
    skipped = {"publish.prepared", "publish.linked", "publish.pruned_one"}
    return [point for point in (*FAILPOINTS, *SWITCH_FAILPOINTS) if point not in skipped]


@pytest.mark.parametrize("point", switch_points())
@pytest.mark.parametrize(("before", "after"), [("day", "month"), ("none", "k"), ("k", "none")])
def test_killed_while_the_partitioning_changes(
    maker: Maker, before: str, after: str, point: str
) -> None:
    """load() gives all of the old or all of the new; plain readers never both.

    Whoever stages next brings plain paths in line.
    """
    maker.publish(before)
    old, new = {f"{before}{n}" for n in range(len(WAYS[before]))}, {f"{after}0"}
    assert die_at(point, lambda: maker.publish(after, only=0))
    found = maker.marks()
    assert found in (old, new)
    for path in Path(maker.store, "n").rglob("*.parquet"):
        if path.exists() and "/out/" in path.as_posix():
            assert set(pd.read_parquet(path)["mark"]) <= (old | new)
    with open_staging(maker.store, "next"):
        pass
    assert maker.marks() == found
    assert all(marks == found for marks in maker.plain_marks().values())
    assert maker.plain_marks() or found == set()
    maker.publish(after)
    assert maker.marks() == {f"{after}{n}" for n in range(len(WAYS[after]))}
    assert all(marks == maker.marks() for marks in maker.plain_marks().values())


@pytest.mark.parametrize("point", [*SWITCH_FAILPOINTS[:2], "publish.linked_one"])
def test_a_failure_while_the_partitioning_changes(maker: Maker, point: str) -> None:
    """An error on the way puts everything back, for all readers."""
    maker.publish("day")

    def fail(name: str) -> None:
        if name == point:
            failpoints.install(None)
            raise OSError(28, "No space left on device")

    failpoints.install(fail)
    try:
        with pytest.raises(Exception, match="No space left"):
            maker.publish("month", only=0)
    finally:
        failpoints.install(None)
    assert maker.marks() == {"day0", "day1"}
    assert all(found == {"day0", "day1"} for found in maker.plain_marks().values())
    maker.publish("month", only=0)
    assert maker.marks() == {"month0"}


@pytest.mark.parametrize("scheme", ["memory", "file"])
@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_same_behind_a_url(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    store: str,
    scheme: str,
    before: str,
    after: str,
) -> None:
    """Behind a URL nothing mixes either, and what was made before comes back."""
    assert store
    url = f"memory://{tmp_path.name}/data" if scheme == "memory" else f"file://{tmp_path}/o"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    maker = Maker(url)
    maker.publish(before)
    maker.publish(after, only=0)
    assert maker.marks() == {f"{after}0"}
    if scheme == "file":
        assert set(map(frozenset, Maker(f"{tmp_path}/o").plain_marks().values())) == {
            frozenset({f"{after}0"})
        }
    maker.publish(before, only=0, value="new")
    back = {f"{before}0new", *(f"{before}{n}" for n in range(1, len(WAYS[before])))}
    assert maker.marks() == back
    if scheme == "file":
        assert all(found == back for found in Maker(f"{tmp_path}/o").plain_marks().values())
    assert len(maker.lines) == 2
