"""A store that several machines share: publishing at once, broken connections, what is fetched."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from faulty_proxy import (
    EXPIRED,
    NOT_IMPLEMENTED,
    SKEWED,
    SLOW_DOWN,
    UNSIGNED,
    Fault,
    Proxy,
    faulty_proxy,
)
from hammer import hammer
from s3_server import IS_MOTO, S3Server

from research_jobs import failpoints
from research_jobs.errors import CorruptOutputError, StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store import cache
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.remote_publish import REMOTE_FAILPOINTS
from research_jobs.store.codec import read_output, write_output
from research_jobs.store.commit import open_staging, publish
from research_jobs.store.load import Outputs, load
from research_jobs.store.objects import Objects, objects_of
from research_jobs.store.stored import stored_partitions, stored_versions


@pytest.fixture(scope="module")
def proxy(s3: S3Server) -> Iterator[Proxy]:
    """A proxy in front of the S3 server."""
    with faulty_proxy(s3.address) as found:
        yield found


@pytest.fixture
def bucket(s3: S3Server, proxy: Proxy, store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in an empty bucket, behind the proxy."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    url = f"s3://{s3.make_bucket()}/data"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    proxy.reset()
    return url


@pytest.fixture
def memory(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in memory: what does not depend on the service is cheap to try there."""
    url = f"memory://{tmp_path.name}/data"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    return url


def in_fork(work: Callable[[], None]) -> int:
    """The exit code of a fork of this process that works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def plain(url: str, path: str) -> Any:
    """What other tools read at a path; None if nothing is there."""
    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    if not system.exists(f"{root}/{path}"):
        return None
    with system.open(f"{root}/{path}", "rb") as stream:
        copy = Path(os.environ["XDG_CACHE_HOME"]) / "plain.parquet"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(stream.read())
    return read_output(copy)


# -- at the same time ------------------------------------------------------------------------


def test_four_processes_lose_no_version(
    s3: S3Server, bucket: str, put: Any, monkeypatch: Any
) -> None:
    """The history has each of sixteen publishes by four processes; a reader meets no mixture."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.address)
    keep = {"x": 100, "y": 100}
    put("a", {"x": -1, "y": -1}, keep=keep, where=bucket)

    def work(number: int) -> None:
        if number == 4:
            while len(stored_versions(bucket, "a")) < 17:
                time.sleep(0.05)
                with Outputs(bucket, "a") as outputs:
                    assert outputs["x"] == outputs["y"]
            return
        for turn in range(4):
            value = number * 10 + turn
            put("a", {"x": value, "y": value}, keep=keep, where=bucket)

    assert hammer(work, processes=5, threads=1) == []
    found = stored_versions(bucket, "a")
    assert len({version.id for version in found}) == 17
    last = load("a", "x")
    assert (load("a", "y"), plain(bucket, "a/x.parquet"), plain(bucket, "a/y.parquet")) == (
        last,
    ) * 3
    files = objects_of(bucket).find(f"{objects_of(bucket).root}/a/.versions")
    assert len([path for path in files if path.endswith("x.pq")]) == 17


def paused(point: str, first: Callable[[], Any], meanwhile: Callable[[], Any]) -> None:
    """Call `first`, and at a failpoint of it, in another thread, `meanwhile`."""
    owner = threading.current_thread()
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            meanwhile()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    def hook(name: str) -> None:
        if name == point and threading.current_thread() is owner:
            other = threading.Thread(target=guarded)
            other.start()
            other.join()

    failpoints.install(hook)
    try:
        first()
    finally:
        failpoints.install(None)
    assert errors == []


@pytest.mark.parametrize("point", REMOTE_FAILPOINTS)
def test_a_publish_between_the_steps_of_another(memory: str, put: Any, point: str) -> None:
    """Whichever step it comes in, both are in the history, and the copies are the current one's."""
    keep = {"x": 9}
    put("a", {"x": "start", "old": 1}, keep=keep, where=memory)
    paused(
        point,
        lambda: put("a", {"x": "slow"}, keep=keep, where=memory),
        lambda: put("a", {"x": "quick"}, keep=keep, where=memory),
    )
    last = load("a", "x")
    committed = point in REMOTE_FAILPOINTS[REMOTE_FAILPOINTS.index("publish.committed") :]
    assert last == ("quick" if committed else "slow")
    assert {load("a", "x", version=back) for back in (0, -1, -2)} == {"slow", "quick", "start"}
    assert plain(memory, "a/x.parquet") == last
    assert plain(memory, "a/old.parquet") is None


DAY = PartitionKey("1", {"k": "1"}, by={"k": "day"})
OTHER = PartitionKey("1", {"k": "1"}, by={"k": "month"})


@pytest.mark.parametrize("point", REMOTE_FAILPOINTS)
@pytest.mark.parametrize("then", [None, OTHER], ids=["none", "month"])
def test_the_partitioning_changes_meanwhile(
    memory: str, put: Any, point: str, then: PartitionKey | None
) -> None:
    """Two runs that each change the partitioning: one wins, nothing is mixed, nothing is lost."""
    keep = {"x": 9}
    put("a", {"x": "start"}, keep=keep, where=memory)
    paused(
        point,
        lambda: put("a", {"x": "slow"}, DAY, keep=keep, where=memory),
        lambda: put("a", {"x": "quick"}, then, keep=keep, where=memory),
    )
    now = backend_of(memory).partitioning("a")
    assert now is not None
    assert now.left == ()
    won = load("a", "x", "1" if now.by else None)
    assert won == ("slow" if now.by == {"k": "day"} else "quick")
    assert plain(memory, "a/x.parquet") == (won if not now.by else None)
    assert plain(memory, "a/x/k=1/part-0.parquet") == (won if now.by else None)
    for key in (None, DAY, OTHER):  # whoever comes back finds what was there
        put("a", {"x": "again"}, key, keep=keep, where=memory)
        olds = {load("a", "x", key and "1", version=v.id)
                for v in stored_versions(memory, "a", key)}  # fmt: skip
        mine = {"slow"} if key is DAY else {"start", "quick"} if then is None else {"start"}
        if key is OTHER:
            mine = {"quick"} if then is OTHER else set()
        assert olds == {"again", *mine}


def test_the_first_publishers_of_two_partitionings(memory: str, put: Any) -> None:
    """They do not take the same hidden folder, even before either has published anything."""
    paused(
        "publish.settled",
        lambda: put("a", {"x": "slow"}, DAY, where=memory),
        lambda: put("a", {"x": "quick"}, OTHER, where=memory),
    )
    folders = {path.split("/")[-3] for path in objects_of(memory).find("/") if "current" in path}
    assert {".partitions", ".partitions-2"} <= folders
    assert load("a", "x", "1") == "slow"


@pytest.mark.parametrize("key", [None, DAY], ids=["same", "other"])
def test_killed_at_each_step(
    store: str, put: Any, monkeypatch: pytest.MonkeyPatch, key: PartitionKey | None
) -> None:
    """Readers see all of the old or of the new outputs; the next run puts the copies right."""
    url = f"file://{store}"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    killed_at(REMOTE_FAILPOINTS, url, put, key)


@pytest.mark.parametrize("key", [None, DAY], ids=["same", "other"])
def test_killed_next_to_the_commit(bucket: str, put: Any, key: PartitionKey | None) -> None:
    """The same at a service, where a new process is expensive: at the steps around the commit."""
    at = REMOTE_FAILPOINTS.index("publish.committed")
    killed_at(REMOTE_FAILPOINTS[at - 1 : at + 1], bucket, put, key)


COMMIT = {True: "publish.committed", False: "publish.switched"}


def killed_at(points: Sequence[str], url: str, put: Any, key: PartitionKey | None) -> None:
    """Kill a publisher at each failpoint, and look at what is there."""
    at = REMOTE_FAILPOINTS.index(COMMIT[key is None])
    for point in points:
        name = point.replace(".", "_")
        put(name, {"x": 1, "y": 1}, where=url)

        def work(name: str = name, point: str = point) -> None:
            failpoints.install(lambda reached: os._exit(7) if reached == point else None)
            put(name, {"x": 2, "y": 2}, key, where=url)

        assert in_fork(work) == 7
        done = REMOTE_FAILPOINTS.index(point) >= at
        value = 2 if done else 1
        with Outputs(url, name, "1" if done and key else None) as outputs:
            assert dict(outputs) == {"x": value, "y": value}
        put(name, {"x": 3, "y": 3}, key, where=url)
        assert plain(url, f"{name}/x/k=1/part-0.parquet" if key else f"{name}/x.parquet") == 3
        assert (plain(url, f"{name}/x.parquet") is None) == (key is not None)


# -- broken connections ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "match", "times"),
    [
        (SLOW_DOWN, "PUT", 2),
        (SLOW_DOWN, "HEAD", 1),
        (Fault(cut="request"), "x.pq", 1),
        (Fault(cut="answer"), "PUT /{}/data/a/.versions/current.json", 1),
        (Fault(cut="answer"), "PUT", 1),
        (Fault(cut="answer"), "GET", 1),
    ],
)
def test_what_passes_is_tried_again(
    proxy: Proxy, bucket: str, put: Any, fault: Fault, match: str, times: int
) -> None:
    """Throttling, cut connections and lost answers: published once, in full."""
    put("a", {"x": 1, "y": 1}, keep={"x": 9}, where=bucket)
    proxy.reset()
    proxy.some(fault, match.format(bucket.split("/")[2]), times)
    put("a", {"x": 2, "y": 2}, keep={"x": 9}, where=bucket)
    proxy.reset()
    assert dict(load("a")) == {"x": 2, "y": 2}
    assert [load("a", "x", version=back) for back in (0, -1)] == [2, 1]
    assert len(stored_versions(bucket, "a")) == 2
    assert plain(bucket, "a/x.parquet") == 2


@pytest.mark.parametrize(
    ("fault", "match", "said"),
    [
        (SLOW_DOWN, "PUT", "reduce your request rate"),
        (EXPIRED, "PUT", "token has expired"),
        (EXPIRED, "current.json", "token has expired"),
        (SKEWED, "PUT", "request time"),
        (UNSIGNED, "PUT", "SignatureDoesNotMatch"),
        (Fault(cut="request"), "x.pq", "onnection"),
    ],
)
def test_what_stays_is_one_clear_line(
    proxy: Proxy, bucket: str, put: Any, fault: Fault, match: str, said: str
) -> None:
    """The run fails, and readers and other tools see the version before."""
    put("a", {"x": 1, "y": 1}, where=bucket)
    proxy.some(fault, match)
    with pytest.raises(StoreError, match=said) as caught:
        put("a", {"x": 2, "y": 2}, where=bucket)
    assert "\n" not in caught.value.headline
    proxy.reset()
    assert dict(load("a")) == {"x": 1, "y": 1}
    assert plain(bucket, "a/x.parquet") == 1


def test_a_large_upload_is_cut(proxy: Proxy, bucket: str, put: Any) -> None:
    """In its second part: once, it goes on; always, the run fails and leaves no parts behind."""
    put("a", {"x": 1, "y": 1}, where=bucket)
    large = np.random.default_rng(1).integers(0, 2**63, 2 * 2**20 + 2**18)  # 18 MB
    cut = Fault(cut="request")
    proxy.some(cut, "partNumber=2")
    with pytest.raises(StoreError, match="partNumber=2") as caught:
        put("a", {"x": large, "y": 2}, where=bucket)
    assert "\n" not in caught.value.headline
    system, name = objects_of(bucket).system, bucket.split("/")[2]
    assert not system.call_s3("list_multipart_uploads", Bucket=name).get("Uploads")
    assert dict(load("a")) == {"x": 1, "y": 1}
    proxy.some(cut, "partNumber=2", 1)
    put("a", {"x": large, "y": 2}, where=bucket)
    assert (load("a", "x") == large).all()


def test_copies_that_fail_do_not_fail_the_run(proxy: Proxy, bucket: str, put: Any) -> None:
    """What is committed is published: a line says that the copies are behind."""
    put("a", {"x": 1}, where=bucket)
    lines: list[str] = []
    with open_staging(bucket, "r") as staging:
        staged = [write_output("x", 2, staging.path / "x", options={}, metadata={})]
        proxy.some(SLOW_DOWN, "x.parquet")
        publish(bucket, "a", staged, staging=staging, partition=None, run_id="r", tell=lines.append)
    proxy.reset()
    assert (load("a", "x"), plain(bucket, "a/x.parquet")) == (2, 1)
    assert "a is published, but not all that follows is done" in lines[0]


@pytest.mark.parametrize(
    "how",
    [
        # Elsewhere a request has a signature, which covers its conditions.
        pytest.param("ignores", marks=pytest.mark.skipif(not IS_MOTO, reason="moto is needed")),
        "denies",
    ],
)
def test_a_service_without_conditions(proxy: Proxy, bucket: str, put: Any, how: str) -> None:
    """It is found out by trying; the first run's log says so, once, and it works as before."""

    def fault(_text: str, headers: set[str]) -> Fault | None:
        if headers.isdisjoint(("if-match", "if-none-match")):
            return None
        return Fault(without_conditions=True) if how == "ignores" else NOT_IMPLEMENTED

    proxy.fault = fault
    lines: list[str] = []
    for value in (1, 2):
        with open_staging(bucket, "r") as staging:
            item = write_output("x", value, staging.path / "x", options={}, metadata={})
            publish(
                bucket, "a", [item], staging=staging, partition=None, run_id="r",
                keep={"x": 1}, tell=lines.append,
            )  # fmt: skip
    assert [load("a", "x", version=back) for back in (0, -1)] == [2, 1]
    (line,) = lines
    assert line.startswith(f"{bucket} cannot replace an object on a condition")
    assert backend_of(bucket).caveat() == line


def test_a_tag_without_its_quotation_marks(proxy: Proxy, bucket: str, put: Any) -> None:
    """A service that wants it so is one with conditions, and a second version is published."""
    proxy.fault = lambda _text, _headers: Fault(bare_tags=True)
    put("a", {"x": 1}, keep={"x": 1}, where=bucket)
    put("a", {"x": 2}, keep={"x": 1}, where=bucket)
    assert [load("a", "x", version=back) for back in (0, -1)] == [2, 1]
    assert backend_of(bucket).caveat() is None


# -- what is fetched -------------------------------------------------------------------------


def test_many_partitions_take_one_listing(
    s3: S3Server, proxy: Proxy, bucket: str, put: Any
) -> None:
    """1,100 partitions: two pages of a listing, the partitioning, and nothing for each of them.

    One that is named takes none.
    """
    put("a", {"x": 1}, PartitionKey("0", {"k": "0"}), where=bucket)
    s3.put(
        objects_of(bucket).root,
        {f"a/.partitions/k={number}/current.json": b"{}" for number in range(1, 1100)},
    )
    proxy.reset()
    assert (load("a", "x", "0"), "list-type" in str(proxy.requests)) == (1, False)
    proxy.reset()
    assert len(stored_partitions(bucket, "a")) == 1100
    assert len(proxy.requests) == 3, proxy.requests


def test_a_file_is_fetched_once_on_a_machine(proxy: Proxy, bucket: str, put: Any) -> None:
    """Other processes link it; a forked one leaves its parent's; a damaged one is fetched again."""
    put("a", {"x": 1}, where=bucket)
    proxy.reset()

    def work() -> None:
        assert load("a", "x") == 1

    def fetched() -> int:
        return sum("x.pq" in text for text in proxy.requests)

    assert [in_fork(work) for _ in range(2)] == [0, 0]
    assert load("a", "x") == 1
    assert fetched() == 1
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "research_jobs"
    assert len(list((folder / "open").iterdir())) <= 2  # what dead processes left goes
    (shared,) = (folder / "files").glob("*/*.pq")
    shared.unlink()
    shared.write_bytes(b"PAR1")  # as after a power cut
    assert in_fork(work) == 0
    assert fetched() == 2


def test_what_was_fetched_is_bounded(tmp_path: Path) -> None:
    """The least recently used files go; who reads one keeps it."""
    files = cache.FileCache(tmp_path, limit=1000)
    paths = [files.fetch(f"{number:02x}-x.pq", 300, lambda path: path.write_bytes(b"x" * 300))
             for number in range(6)]  # fmt: skip
    assert len(list((tmp_path / "files").glob("*/*"))) == 3
    assert all(path.stat().st_size == 300 for path in paths)
    files.close()
    assert not paths[0].exists()


def test_a_file_that_is_not_what_was_published(
    bucket: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest tells: it is an error, and nothing of it is kept."""
    put("a", {"x": 1}, where=bucket)
    real = Objects.download

    def altered(objects: Objects, path: str, target: Path) -> None:
        real(objects, path, target)
        target.write_bytes(target.read_bytes()[:-1] + b"2")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "download", altered)
        with pytest.raises(CorruptOutputError, match="not the file that was published"):
            load("a", "x")
    assert load("a", "x") == 1
