"""Files of the store that are damaged: never wrong data, always one line that helps."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from damage import DAMAGES, damage, remove

from research_jobs import load
from research_jobs.errors import CorruptOutputError, OutputNotFoundError, StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store.stored import stored_partitions

KEYS = {key: PartitionKey(key, {"k": key}, by={"k": "values"}) for key in "ab"}
MONTH = PartitionKey("2018-11", {"m": "2018-11"}, by={"m": "month"})
PLACES = {
    "plain": (".versions/current", ".versions/{}/version.json", ".versions/{}/out.pq"),
    "parts": (
        ".partitioning.json",
        ".partitions/k=a/current",
        ".partitions/k=a/{}/version.json",
        ".partitions/k=a/{}/out.pq",
    ),
}
CASES = [
    (notebook, place, how)
    for notebook, places in PLACES.items()
    for place in places
    for how in DAMAGES
]
WHOLE = {"plain": [1], "parts": [97, 98]}


@pytest.fixture
def filled(put: Any, store: str) -> Path:
    """A store with a notebook without partitions, and one with two of them."""
    put("plain", {"out": pd.DataFrame({"x": [1]})})
    for key, partition in KEYS.items():
        put("parts", {"out": pd.DataFrame({"x": [ord(key)]})}, partition)
    return Path(store)


def values(notebook: str) -> list[int]:
    """What `load` gives, without the keys."""
    return load(notebook, "out")["x"].tolist()


def failure_of(notebook: str) -> StoreError | None:
    """The error of ours that `load` gives, if any."""
    try:
        values(notebook)
    except StoreError as error:
        return error
    return None


def place_in(folder: Path, place: str) -> Path:
    """A place below a notebook's folder, with the name of the only version filled in."""
    before, braces, after = place.partition("{}")
    if not braces:
        return folder / place
    return next((folder / before).glob("0*")) / after.lstrip("/")


@pytest.mark.parametrize(("notebook", "place", "how"), CASES)
def test_damaged(filled: Path, put: Any, notebook: str, place: str, how: str) -> None:
    """All data or an error that names the file; doing what it says makes all well again."""
    path = place_in(filled / notebook, place)
    damage(path, how)
    error = failure_of(notebook)
    hint = "Run the notebook again."
    if isinstance(error, OutputNotFoundError):  # as if it had never been published
        assert (place, how) == (".versions/current", "gone")
        assert "research-jobs run plain" in str(error)
    elif error is not None:
        assert str(path) in error.what
        assert "\n" not in str(error)
        hint = str(error.hint)
    elif (path.name, how) != ("current", "gone"):
        assert values(notebook) == WHOLE[notebook]
    if "Remove it" in hint:
        remove(path)
    if "ln -s" in hint:
        subprocess.run(hint[hint.index("ln -s") :].split(), check=True)
        assert values(notebook) == WHOLE[notebook]
    assert "ln -s" in hint or "run the notebook again" in hint.lower()
    put(notebook, {"out": pd.DataFrame({"x": [7]})}, KEYS["a"] if notebook == "parts" else None)
    assert values(notebook) == [7, *WHOLE[notebook][1:]]


@pytest.mark.parametrize("how", DAMAGES[1:])
def test_a_damaged_partition_is_not_left_out(filled: Path, how: str) -> None:
    """Reading all partitions fails when one of them has a damaged pointer; it stays listed."""
    damage(filled / "parts" / ".partitions" / "k=a" / "current", how)
    with pytest.raises(CorruptOutputError, match="k=a/current"):
        load("parts", "out")
    assert load("parts", "out", "b")["x"].tolist() == [98]
    assert [each.key for each in stored_partitions(str(filled), "parts")] == ["a", "b"]


@pytest.mark.parametrize("how", DAMAGES[1:])
def test_a_damaged_version_among_two_partitionings(filled: Path, put: Any, how: str) -> None:
    """Where damage hides which partitioning is the last, none of them is guessed."""
    put("parts", {"out": pd.DataFrame({"x": [7]})}, MONTH)
    (filled / "parts" / ".partitioning.json").unlink()  # as in an older store
    assert values("parts") == [7]
    damage(next((filled / "parts" / ".partitions-2").rglob("version.json")), how)
    with pytest.raises((CorruptOutputError, FileNotFoundError), match=r"version\.json"):
        load("parts", "out")


def test_plain_readers_see_one_partitioning_beside_damage(filled: Path, put: Any) -> None:
    """Links of an earlier partitioning go, also those of a version that cannot be read."""
    damage(next((filled / "parts" / ".partitions" / "k=a").rglob("version.json")), "binary")
    put("parts", {"out": pd.DataFrame({"x": [7]})}, MONTH)
    assert [path.parent.name for path in (filled / "parts" / "out").rglob("*.parquet")] == [
        "m=2018-11"
    ]
    put("parts", {"out": pd.DataFrame({"x": [8]})}, KEYS["a"])
    assert values("parts") == [8, 98]  # back in the folder that it had


@pytest.mark.parametrize("place", [place for place in PLACES["parts"] if "current" not in place])
def test_without_permission(filled: Path, place: str) -> None:
    """A file that this user may not read is named, with what to do."""
    path = place_in(filled / "parts", place)
    path.chmod(0)
    script = (
        "from research_jobs import load\n"
        "from research_jobs.errors import StoreError\n"
        "try: print(load('parts', 'out'))\n"
        "except StoreError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script]
    if os.geteuid() == 0:  # root without the capabilities to read everything
        assert shutil.which("setpriv")
        dropped = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--inh-caps={dropped}", f"--bounding-set={dropped}", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match(rf"{re.escape(str(path))} .*(?i:permission denied)", done.stdout), done.stdout
    assert "permission to read it" in done.stdout


@pytest.mark.parametrize("how", ["empty", "binary", "half", "null"])
@pytest.mark.parametrize("name", ["current.json", ".partitioning.json"])
def test_behind_a_url(
    tmp_path: Path, put: Any, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    """The same behind a URL: the object is named, and doing what the line says helps."""
    url = f"file://{tmp_path}/remote"
    monkeypatch.setenv("RESEARCH_JOBS_STORE", url)
    for key, partition in KEYS.items():
        put("parts", {"out": pd.DataFrame({"x": [ord(key)]})}, partition, where=url)
    path = next(path for path in (tmp_path / "remote").rglob(name) if "k=b" not in path.as_posix())
    damage(path, how)
    with pytest.raises(StoreError) as caught:
        load("parts", "out")
    assert str(path) in caught.value.what
    remove(path)
    if "the outputs of" in str(caught.value.hint):
        remove(tmp_path / "remote" / "parts" / "out" / "k=a" / "part-0.parquet")
    put("parts", {"out": pd.DataFrame({"x": [7]})}, KEYS["a"], where=url)
    assert values("parts") == [7, 98]
