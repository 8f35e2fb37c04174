"""The view of a store: an overlay hides, a pin holds, a note is written once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from research_jobs.errors import OutputNotFoundError
from research_jobs.protocol import PartitionKey
from research_jobs.runtime.reading import watch_open
from research_jobs.store.load import load
from research_jobs.store.view import READS, VIEW_VARIABLE, View

Publish = Callable[..., str]


@pytest.fixture
def publish(put: Any) -> Publish:
    """Publish a value as the output `x`, and return its version."""

    def publish_value(
        where: Path, value: Any, *, notebook: str = "a", day: str | None = None
    ) -> str:
        key = PartitionKey(day, {"day": day}, by={"day": "day"}) if day else None
        (done,) = put(notebook, {"x": value}, key, {"x": 9}, str(where))
        return done.version

    return publish_value


@pytest.fixture
def stores(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """A store, an overlay, and the folder of a run that looks through a view."""
    overlay, run = tmp_path / "overlay", tmp_path / "run"
    run.mkdir()
    monkeypatch.setenv(VIEW_VARIABLE, str(run))
    return Path(store), overlay, run


def look(stores: tuple[Path, Path, Path], **what: Any) -> None:
    View(stores[2], str(stores[0]), **what).write()
    from research_jobs.store import view

    view._view_of.cache_clear()


def test_an_overlay_hides_what_it_has(stores: tuple[Path, Path, Path], publish: Publish) -> None:
    """Its notebooks and partitions are read instead of the store's, the others are not."""
    store, overlay, _ = stores
    publish(store, 1)
    publish(store, 2, notebook="b")
    for day in ("2020-01-01", "2020-01-02"):
        publish(store, day, notebook="c", day=day)
    publish(overlay, 10)
    publish(overlay, "new", notebook="c", day="2020-01-02")
    look(stores, overlay=str(overlay))
    assert (load("a"), load("b")) == (10, 2)
    assert load("c", "x", "2020-01-01") == "2020-01-01"
    assert load("c", "x", "2020-01-02") == "new"
    look(stores)
    assert load("a") == 1


def test_a_pin_holds_a_version(stores: tuple[Path, Path, Path], publish: Publish) -> None:
    """The pinned version is read until the notebook asks for another one itself."""
    store, _, _ = stores
    first = publish(store, 1)
    publish(store, 2)
    look(stores, pins={("a", ()): first})
    assert load("a") == 1
    assert load("a", "x", version=-1) == 1
    publish(store, 3)
    assert load("a") == 1


def test_each_read_is_noted_once(stores: tuple[Path, Path, Path], publish: Publish) -> None:
    """A line says notebook, output and version; an overlay hides nothing of another store."""
    store, overlay, run = stores
    version = publish(store, 1)
    look(stores)
    for _ in range(3):
        load("a", "x")
    lines = [json.loads(line) for line in (run / READS).read_text().splitlines()]
    assert lines == [{"load": "a", "output": "x", "store": str(store), "versions": [[[], version]]}]
    publish(overlay, 5)
    look(stores, overlay=str(overlay))
    other = overlay.with_name("other")
    publish(other, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEARCH_JOBS_STORE", str(other))
        assert load("a") == 7


def test_what_is_hidden_is_not_there(stores: tuple[Path, Path, Path], publish: Publish) -> None:
    """Partitions of the store can be taken away; the overlay's own stay."""
    store, overlay, _ = stores
    for day in ("2020-01-01", "2020-01-02", "2020-01-03"):
        publish(store, day, notebook="c", day=day)
    publish(overlay, "new", notebook="c", day="2020-01-03")
    hidden = frozenset({("c", ("day=2020-01-02",)), ("c", ("day=2020-01-03",))})
    look(stores, overlay=str(overlay), hidden=hidden)
    assert load("c", "x", "2020-01-03") == "new"
    with pytest.raises(OutputNotFoundError):
        load("c", "x", "2020-01-02")


def test_a_file_opened_where_there_is_no_folder(
    stores: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be noted, for the working directory is gone, is opened all the same."""
    look(stores)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with ExitStack() as undo:
        watch_open(undo)
        with open("x", opener=lambda *_: os.open("/dev/null", os.O_RDONLY)) as file:
            assert file.read() == ""
