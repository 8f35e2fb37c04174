"""A store behind an fsspec URL: memory:// for an object store, file:// for a mounted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

from research_jobs.errors import OutputNotFoundError, StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store import remote
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, reject
from research_jobs.store.load import Outputs, load
from research_jobs.store.stored import stored_notebooks, stored_partitions


@pytest.fixture(params=["memory", "file"])
def url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> str:
    """A store's URL, set as the project's."""
    assert store
    found = (
        f"memory://{tmp_path.name}/data" if request.param == "memory" else f"file://{tmp_path}/o"
    )
    monkeypatch.setenv("RESEARCH_JOBS_STORE", found)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return found


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
    assert not system.exists(f"{root}/v/g/old.parquet")
    put("v/g", {"x": frame}, where=url)
    put("v/g", {"x": frame}, where=url)
    with pytest.raises(OutputNotFoundError, match="no version -2"):
        load("v/g", "x", version=-2)
    assert stored_notebooks(url) == ("v/g",)


def test_partitions(url: str, put: Any) -> None:
    """Partitions are read as one frame, and listed with their keys decoded."""
    for key in ("2018-11-01", "BRK/B"):
        put("s", {"s": pd.DataFrame({"x": [key]})}, PartitionKey(key, {"k": key}), where=url)
    assert list(load("s", "s")["k"]) == ["2018-11-01", "BRK/B"]
    assert list(load("s", "s", "BRK/B")["x"]) == ["BRK/B"]
    assert [key.key for key in stored_partitions(url, "s")] == ["2018-11-01", "BRK/B"]
    assert load("s", "s", "BRK/B", as_="path") == f"{url}/s/s/k=BRK%2FB/part-0.parquet"
    with pytest.raises(OutputNotFoundError, match="no partition x"):
        load("s", "s", "x")


def test_the_pointer_is_the_commit(url: str, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload that fails before the pointer leaves what is loaded as it was."""
    put("a", {"x": 1, "y": 1}, where=url)
    system = fsspec.core.url_to_fs(url)[0]
    real, calls = system.put_file, []

    def failing(source: str, target: str, **arguments: Any) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(source, target, **arguments)

    monkeypatch.setattr(system, "put_file", failing)
    with pytest.raises(StoreError, match="No space left"):
        put("a", {"x": 2, "y": 2}, where=url)
    assert dict(load("a")) == {"x": 1, "y": 1}
    monkeypatch.undo()


def test_a_mapping_stays_with_its_version(url: str, put: Any) -> None:
    """A mapping that was made before a publish reads what it was made for, while that is kept."""
    put("a", {"x": 1}, where=url)
    outputs = Outputs(url, "a")
    put("a", {"x": 2}, keep={"x": 1}, where=url)
    assert outputs["x"] == 1


def test_rejected_outputs_are_kept_aside(url: str) -> None:
    """They are uploaded beside, and their folder's URL is told."""
    with open_staging(url, "r") as staging:
        staged = write_output("x", 1, staging.path / "x", options={}, metadata={})
        folder = reject(url, "a", [staged], staging=staging, partition=None, run_id="r")
    system, path = fsspec.core.url_to_fs(f"{folder}/x.pq")
    assert system.exists(path)
    with pytest.raises(OutputNotFoundError, match="no notebook 'a'"):
        load("a")


def test_a_pointer_of_a_newer_format(url: str, put: Any) -> None:
    """A store written by a newer research_jobs is said to be that."""
    put("a", {"x": 1}, where=url)
    (unit,) = remote.list_units(url, "a")
    unit.system.pipe_file(f"{unit.versions}/current.json", b'{"format": 9}')
    with pytest.raises(StoreError, match=r"format 9.*Upgrade"):
        load("a")


def test_a_url_of_an_unknown_kind() -> None:
    """A protocol that fsspec does not know is one clear line."""
    with pytest.raises(StoreError, match="cannot be opened"):
        Outputs("nonsense://x", "a")
