"""Every kind of store behind one suite: a folder, memory://, file:// and a real S3 server."""

from __future__ import annotations

import json
import os
import secrets
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest
from hammer import hammer
from s3_server import S3Server

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.remote_units import RemoteUnit, read_pointer
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish, refuse_foreign, reject
from research_jobs.store.load import Outputs, load
from research_jobs.store.objects import Objects, objects_of
from research_jobs.store.origin import Cut, Origin, Sample
from research_jobs.store.stored import (
    stored_outputs,
    stored_partitions,
    stored_versions,
)

# `make test-clouds` names another service, which it has started.
CLOUD = os.environ.get("RESEARCH_JOBS_TEST_CLOUD")
REMOTE = (CLOUD,) if CLOUD else ("memory", "file", "s3")


@pytest.fixture(params=("folder", *REMOTE))
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> str:
    """A store's folder or URL, set as the project's."""
    match request.param:
        case "folder":
            found = store
        case "memory":
            found = f"memory://{tmp_path.name}/data"
        case "file":
            found = f"file://{tmp_path}/o"
        case "azure" | "gcs":
            found = f"{'abfs' if CLOUD == 'azure' else 'gs'}://box-{secrets.token_hex(6)}/data"
            fsspec.core.url_to_fs(found)[0].mkdir(found.split("/")[2])
        case _:
            server: S3Server = request.getfixturevalue("s3")
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            found = f"s3://{server.make_bucket()}/data"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", found)
    return found


of_urls = pytest.mark.parametrize("url", REMOTE, indirect=True)


def test_outputs_and_versions(url: str, put: Any) -> None:
    """What is published is loaded, older versions as `keep` says, and dropped outputs go."""
    frame = pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="k"))
    put("v/g", {"x": frame, "old": 1}, keep={"x": 1}, where=url)
    (published,) = put("v/g", {"x": frame * 2}, keep={"x": 1}, where=url)
    pd.testing.assert_frame_equal(load("v/g", "x"), frame * 2)
    pd.testing.assert_frame_equal(load("v/g", "x", version=-1), frame)
    assert (published.path, published.previous_rows) == (f"{url}/v/g/x.parquet", 2)
    with fsspec.open(published.path) as plain, fsspec.open(published.file) as file:
        assert plain.read() == file.read()
    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    assert not system.exists(f"{root}/v/g/old.parquet")
    put("v/g", {"x": frame}, where=url)
    put("v/g", {"x": frame}, where=url)
    with pytest.raises(OutputNotFoundError, match="no version -2"):
        load("v/g", "x", version=-2)
    assert backend_of(url).notebooks() == ("v/g",)
    assert {name: str(path) for name, path in stored_outputs(url, "v/g").items()} == {
        "x": f"{url}/v/g/x.parquet"
    }


def test_every_version_that_is_kept(url: str, put: Any) -> None:
    """Each is there by its number and by its id, no other one is; their files go with them."""
    for count in range(1, 5):
        (published,) = put("a", {"x": [0] * count}, keep={"x": 2}, where=url)
        assert published.previous_rows == (count - 1 or None)
    assert [len(load("a", "x", version=back)) for back in (0, -1, -2)] == [4, 3, 2]
    ids = [version.id for version in stored_versions(url, "a")]
    assert [len(load("a", "x", version=each)) for each in ids] == [4, 3, 2]
    with pytest.raises(OutputNotFoundError, match=rf"no version '000001-gone'.*{ids[0]}"):
        load("a", "x", version="000001-gone")
    put("a", {"x": 4}, where=url)
    system, root = fsspec.core.url_to_fs(url)
    system.invalidate_cache()
    assert len([path for path in system.find(f"{root}/a/.versions") if path.endswith(".pq")]) == 1


def test_a_version_says_the_same_in_every_store(url: str) -> None:
    """What was published of it is what is read: the hash of its data, and where it was pulled."""
    cut = Sample(Cut(rows=1), rows=1, of_rows=2)
    origin = Origin("server", "me@there:/srv", "000007-a", "2026-01-02T03:04:05", "", {"x": cut})
    with open_staging(url, "run-1") as staging:
        staged = write_output("x", [1], staging.path / "x.parquet", options={}, metadata={})
        publish(
            url,
            "a",
            [staged],
            staging=staging,
            partition=None,
            run_id="run-1",
            data_version="1f0c9a2e",
            origin=origin,
        )
    (version,) = stored_versions(url, "a")
    assert (version.run_id, version.data_version, version.origin) == ("run-1", "1f0c9a2e", origin)


def test_partitions(url: str, put: Any) -> None:
    """Partitions are read as one frame, and listed with their keys decoded."""
    for key in ("2018-11-01", "BRK/B"):
        put("s", {"s": pd.DataFrame({"x": [key]})}, PartitionKey(key, {"k": key}), where=url)
    assert list(load("s", "s")["k"]) == ["2018-11-01", "BRK/B"]
    assert list(load("s", "s", "BRK/B")["x"]) == ["BRK/B"]
    assert [key.key for key in stored_partitions(url, "s")] == ["2018-11-01", "BRK/B"]
    assert str(load("s", "s", "BRK/B", as_="path")) == f"{url}/s/s/k=BRK%2FB/part-0.parquet"
    with pytest.raises(OutputNotFoundError, match="no partition x"):
        load("s", "s", "x")


@of_urls
@pytest.mark.parametrize("partition", [None, PartitionKey("1", {"k": "1"})], ids=["same", "other"])
def test_the_pointer_is_the_commit(
    url: str, put: Any, monkeypatch: pytest.MonkeyPatch, partition: PartitionKey | None
) -> None:
    """An upload that fails before the pointer leaves what is loaded as it was.

    So it does where the notebook is partitioned in another way from now on.
    """
    put("a", {"x": 1, "y": 1}, where=url)
    real, calls = Objects.upload, []

    def failing(objects: Objects, source: Any, path: str) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(objects, source, path)

    monkeypatch.setattr(Objects, "upload", failing)
    with pytest.raises(StoreError, match="No space left"):
        put("a", {"x": 2, "y": 2}, partition, where=url)
    monkeypatch.undo()
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    assert dict(load("a", project=None)) == {"x": 1, "y": 1}


def test_a_mapping_stays_with_its_version(url: str, put: Any) -> None:
    """A mapping that was made before a publish reads what it was made for, while that is kept."""
    put("a", {"x": 1}, where=url)
    outputs = Outputs(url, "a")
    put("a", {"x": 2}, keep={"x": 1}, where=url)
    assert outputs["x"] == 1


def test_rejected_outputs_are_kept_aside(url: str) -> None:
    """They are kept beside, and their folder is named."""
    with open_staging(url, "r") as staging:
        staged = write_output("x", 1, staging.path / "x", options={}, metadata={})
        folder = reject(url, "a", [staged], staging=staging, partition=None, run_id="r")
    system, path = fsspec.core.url_to_fs(f"{folder}/x.pq")
    system.invalidate_cache()
    assert system.exists(path)
    with pytest.raises(OutputNotFoundError, match="no notebook 'a'"):
        load("a")


@of_urls
def test_a_pointer_of_a_newer_format(url: str, put: Any) -> None:
    """A store written by a newer research_jobs is said to be that; a broken pointer is corrupt."""
    put("a", {"x": 1}, where=url)
    (unit,) = backend_of(url).units("a")
    system = objects_of(url).system
    system.pipe_file(unit.pointer, b'{"format": 9}')
    with pytest.raises(StoreError, match=r"format 9.*Upgrade"):
        load("a")
    for broken in (b"", b"{", b"[" * 100_000, b'{"format": 1}', b"null", b'{"format": "x"}'):
        system.pipe_file(unit.pointer, broken)
        with pytest.raises(CorruptOutputError, match="does not name versions"):
            load("a")


@pytest.mark.parametrize(
    ("name", "digest"), [("../../away", ""), ("value", "../../../away"), ("value", "0" * 63 + "/")]
)
def test_a_pointer_names_no_file_elsewhere(name: str, digest: str) -> None:
    """What becomes the name of a file here is checked, whoever wrote it."""
    version = {"version": "000001-a", "run_id": "a", "published_at": "2018-11-01"}
    outputs = {name: {"kind": "scalar", "rows": 1, "bytes": 1, "sha256": digest}}
    text = json.dumps({"format": 1, "versions": [version | {"outputs": outputs}]})
    with pytest.raises(CorruptOutputError, match=r"does not name versions: '.*(output|SHA-256)"):
        read_pointer(RemoteUnit("memory://forged", "a"), text.encode())


@of_urls
def test_a_file_that_breaks_off_is_not_kept(
    url: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched in part is an error and gone; the next read fetches it again."""
    put("a", {"x": 1}, where=url)
    real = Objects.download
    targets: list[Path] = []

    def breaks_off(_objects: Objects, _path: str, target: Path) -> None:
        target.write_bytes(b"PAR1")
        targets.append(target)
        raise OSError("connection reset")

    monkeypatch.setattr(Objects, "download", breaks_off)
    with pytest.raises(StoreError, match="cannot be fetched: connection reset"):
        load("a", "x")
    assert [target.exists() for target in targets] == [False]
    monkeypatch.setattr(Objects, "download", real)
    assert load("a", "x") == 1


# -- threads and processes -------------------------------------------------------------------


def test_eight_threads_publish_while_others_read(url: str, put: Any) -> None:  # noqa: C901 - two kinds of threads
    """Sixty publishes by eight threads: none fails, and a reader sees one version's outputs.

    Half of them are of one notebook, the others of one for each thread. At a service, which is
    slower, they are twenty.
    """
    values = ("x", "y", "z")
    put("shared", dict.fromkeys(values, -1), where=url)
    errors: list[BaseException] = []
    done = threading.Event()
    left = iter(range(60 if "://" not in url or url.startswith(("memory", "file")) else 20))
    take = threading.Lock()

    def writer(number: int) -> None:
        while True:
            with take:
                turn = next(left, None)
            if turn is None:
                return
            notebook = "shared" if turn % 2 else f"own/n{number}"
            put(notebook, dict.fromkeys(values, turn), keep={"x": 1}, where=url)

    def reader() -> None:
        while not done.is_set():
            with Outputs(url, "shared") as outputs:
                try:
                    found = {outputs[name] for name in values}
                except FileNotFoundError:
                    continue  # pruned before it was fetched: load() reads again
            assert len(found) == 1, found
            load("shared", "x")

    def guarded(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    readers = [threading.Thread(target=guarded, args=(reader,)) for _ in range(2)]
    writers = [threading.Thread(target=guarded, args=(writer, number)) for number in range(8)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert errors == []
    assert len({load("shared", name) for name in values}) == 1
    assert load("shared", "x", version=-1) != load("shared", "x")
    assert "shared" in backend_of(url).notebooks()


@of_urls
def test_a_transaction_of_somebody_else_is_not_ours(url: str, put: Any) -> None:
    """A notebook that opens a transaction on fsspec's shared file system changes nothing."""
    system = fsspec.core.url_to_fs(url)[0]
    with system.transaction:
        put("a", {"x": 1}, where=url)
        assert load("a", "x") == 1


@pytest.mark.parametrize("url", ["folder", *(n for n in REMOTE if n != "memory")], indirect=True)
def test_processes_publish_side_by_side(url: str, put: Any) -> None:
    """A file system that was opened before a fork is opened again in each process."""
    put("a", {"x": 0}, where=url)

    def work(number: int) -> None:
        put(f"n{number}", {"x": number}, where=url)
        assert load(f"n{number}", "x") == number

    assert hammer(work, processes=2, threads=2) == []
    assert [load(f"n{number}", "x") for number in range(4)] == [0, 1, 2, 3]


@pytest.mark.skipif(CLOUD is None, reason="test_shared.py does this at an S3 server")
@of_urls
def test_processes_lose_no_version(url: str, put: Any) -> None:
    """Conditions hold at the service: the history has each publish of four processes."""
    assert objects_of(url).conditional
    keep = {"x": 100, "y": 100}
    put("a", {"x": -1, "y": -1}, keep=keep, where=url)

    def work(number: int) -> None:
        for turn in range(10):
            put("a", {"x": (number, turn), "y": (number, turn)}, keep=keep, where=url)
            with Outputs(url, "a") as outputs:
                assert outputs["x"] == outputs["y"]

    assert hammer(work, processes=4, threads=1) == []
    assert len({version.id for version in stored_versions(url, "a")}) == 41


# -- what cannot be used ---------------------------------------------------------------------


def test_a_bucket_that_does_not_exist(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, put: Any, tmp_path: Path
) -> None:
    """It is one clear line for who writes and who reads, and nobody makes it."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    url = "s3://no-such-bucket/data"
    with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist") as caught:
        open_staging(url, "r")
    assert "RESEARCH_JOBS_STORE" in (caught.value.hint or "")
    staged = write_output("x", 1, tmp_path / "x", options={}, metadata={})
    with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist"):
        publish(url, "a", [staged], staging=tmp_path, partition=None, run_id="r")
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    with pytest.raises(StoreError, match="bucket 'no-such-bucket' does not exist"):
        load("a")
    assert "no-such-bucket" not in s3.buckets()


def test_nobody_else_sees_what_is_staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs for a URL are staged in a folder of this user alone; one that is not is refused."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = tmp_path / f"research_jobs-{os.getuid()}"
    before = os.umask(0)
    try:
        with open_staging("memory://x", "r") as staging:
            assert staging.path.is_relative_to(own)
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    own.rename(tmp_path / "moved")
    own.symlink_to(tmp_path / "moved")
    with pytest.raises(StoreError, match="belongs to another user"):
        open_staging("memory://x", "r")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, s3: S3Server) -> None:
    """Whatever a client library raises is one line of ours."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreError, match="the store s3://b/unreachable: it cannot be reached"):
        open_staging("s3://b/unreachable", "r")


def test_a_missing_package_says_what_to_install() -> None:
    """Without s3fs one line says what to install."""
    script = """
import sys
sys.modules["s3fs"] = None
from research_jobs.errors import StoreError
from research_jobs.store.commit import open_staging
try:
    open_staging("s3://bucket/data", "r")
except StoreError as error:
    print(error.headline)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("\n") == 1
    assert "the store s3://bucket/data cannot be opened" in done.stdout
    assert "pip install s3fs" in done.stdout


def test_a_url_of_an_unknown_kind() -> None:
    """A protocol that fsspec does not know is one clear line."""
    with pytest.raises(StoreError, match="cannot be opened"):
        Outputs("nonsense://x", "a")


def test_a_foreign_object_in_the_way(url: str, put: Any) -> None:
    """Somebody's own object at an output's place is refused before the notebook runs."""
    system, root = fsspec.core.url_to_fs(url)
    if "://" not in url:
        Path(root, "a").mkdir(parents=True)
    system.makedirs(f"{root}/a", exist_ok=True) if url.startswith(("/", "file")) else None
    system.pipe_file(f"{root}/a/x.parquet", b"mine")
    with pytest.raises(StoreError, match=r"a/x\.parquet is in the way") as caught:
        refuse_foreign(url, "a", ["x"])
    assert "RESEARCH_JOBS_STORE" in (caught.value.hint or "")
    refuse_foreign(url, "a", ["y"])
    # Also where the outputs are partitioned in another way from now on.
    put("c", {"x": 1}, where=url)
    if "://" not in url:
        Path(root, "c/x/k=1").mkdir(parents=True)
    system.makedirs(f"{root}/c/x/k=1", exist_ok=True) if url.startswith(("/", "file")) else None
    system.pipe_file(f"{root}/c/x/k=1/part-0.parquet", b"mine")
    with pytest.raises(StoreError, match=r"k=1/part-0\.parquet is in the way"):
        refuse_foreign(url, "c", ["x"], PartitionKey("1", {"k": "1"}))
    refuse_foreign(url, "c", ["x"], PartitionKey("2", {"k": "2"}))
    put("b", {"x": 1}, where=url)
    refuse_foreign(url, "b", ["x"])
