"""A process killed at any step, and power cut at any moment (faults 13, 15, 16, 26)."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from research_jobs import failpoints
from research_jobs.protocol import PartitionKey
from research_jobs.store import files
from research_jobs.store.codec import api, read_output, write_output
from research_jobs.store.commit import FAILPOINTS, open_staging, publish
from research_jobs.store.files import Files
from research_jobs.store.layout import unit_of
from research_jobs.store.load import load

DAY = PartitionKey("2018-11-01", {"run_date": "2018-11-01"})
POINTS = (*api.WRITE_FAILPOINTS, *FAILPOINTS)


def publish_and_die(put: Any, values: dict[str, Any], day: PartitionKey | None, point: str) -> None:
    """Publish in a forked process that is killed at a point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        try:
            failpoints.install(lambda name: os.kill(os.getpid(), 9) if name == point else None)
            put("nb", values, day)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it was not killed at {point}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def seen(store: str, day: PartitionKey | None, names: str) -> dict[str, Any]:
    """What plain paths show and load() gives, which must be one and the same."""
    found: dict[str, Any] = {}
    for name in names:
        link = unit_of(store, "nb", day).link(name)
        if link.exists():
            found[name] = read_output(link)
            assert load("nb", name, day.key if day else None) == found[name]
    return found


@pytest.mark.parametrize("day", [None, DAY], ids=["plain", "partition"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_point(store: str, put: Any, point: str, day: PartitionKey | None) -> None:
    """Old or new, all outputs or none, first on an empty store and then over an old version."""
    committed = point in FAILPOINTS[FAILPOINTS.index("publish.committed") :]
    pruning = point == "publish.pruned_one"
    if not pruning:  # the first publish has nothing to prune
        publish_and_die(put, {"x": 1, "y": 1}, day, point)
        assert seen(store, day, "xyz") == ({"x": 1, "y": 1} if committed else {})
    put("nb", {"x": 2, "y": 2}, day)
    assert seen(store, day, "xyz") == {"x": 2, "y": 2}
    # z is new and y is gone in the version whose publisher dies
    new = {"x": 3, "y": 3} if pruning else {"x": 3, "z": 3}
    publish_and_die(put, new, day, point)
    wanted = new if committed else {"x": 2, "y": 2}
    assert seen(store, day, "xyz") == wanted
    # whoever stages next clears up, and nothing is left over
    with open_staging(store, "next"):
        pass
    assert seen(store, day, "xyz") == wanted
    unit = unit_of(store, "nb", day)
    dangling = [path for path in unit.folder.rglob("*.parquet") if not path.exists()]
    assert dangling == []
    assert not list(Path(store, ".staging").iterdir())
    put("nb", {"x": 4}, day)
    assert seen(store, day, "xyz") == {"x": 4}


# -- power cuts ------------------------------------------------------------------------------


@dataclass
class Log(Files):
    """Logs every operation and does it."""

    steps: list[tuple[str, ...]] = field(default_factory=list)
    known: set[Path] = field(default_factory=set)

    def note_data(self, path: Path) -> None:
        """Log the writing of a file that its library wrote by itself."""
        if path.suffix == ".part" and path not in self.known:
            self.known.add(path)
            self.steps.append(("write", str(path), path.read_bytes().hex()))

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.steps.append(("mkdir", str(path)))

    def link(self, path: Path, target: str) -> None:
        super().link(path, target)
        self.steps.append(("link", str(path), target))

    def rename(self, source: Path, target: Path) -> None:
        self.note_data(source)
        super().rename(source, target)
        self.steps.append(("rename", str(source), str(target)))

    def remove(self, path: Path) -> None:
        super().remove(path)
        self.steps.append(("remove", str(path)))

    def remove_folder(self, path: Path) -> None:
        super().remove_folder(path)
        self.steps.append(("rmdir", str(path)))

    def write(self, path: Path, data: bytes) -> None:
        super().write(path, data)
        self.known.add(path)
        self.steps.append(("write", str(path), data.hex()))

    def _sync(self, path: Path, flags: int) -> None:
        self.note_data(path)
        super()._sync(path, flags)
        self.steps.append(("sync", str(path)))


class Disk:
    """A store as a power cut leaves it: what was synced, and any part of what was not.

    Operations on names are kept in order within a folder (as journals do) but between folders in
    any order. A file whose own content was not synced may be there and empty, also when its folder
    was synced.
    """

    def __init__(self, root: Path, start: Path) -> None:
        self.root = root
        self.start = start

    def states(self, steps: list[tuple[str, ...]]) -> Iterator[list[tuple[str, ...]]]:
        """For every moment: all operations before it, and each way in which some are lost."""
        for end in range(len(steps) + 1):
            done = steps[:end]
            pending, contents = self._pending(done)
            if contents:
                yield from self._each(self._emptied(done, contents), pending)
            yield from self._each(done, pending)

    def _each(
        self, done: list[tuple[str, ...]], pending: list[int]
    ) -> Iterator[list[tuple[str, ...]]]:
        folders = sorted({self._folder(done[place]) for place in pending})
        # each folder's unsynced operations are lost from some point on, the others' kept
        yield self._without(done, set(pending))
        yield self._without(done, set())
        for folder in folders:
            own = [place for place in pending if self._folder(done[place]) == folder]
            for cut in range(len(own)):
                yield self._without(done, set(own[cut:]))
                yield self._without(done, set(pending) - set(own[: cut + 1]))

    def _pending(self, done: list[tuple[str, ...]]) -> tuple[list[int], set[int]]:
        """The operations on names that are not settled, and the files whose content is not."""
        names: list[int] = []
        contents: set[int] = set()
        for place, step in enumerate(done):
            if step[0] == "sync":
                names = [other for other in names if self._folder(done[other]) != step[1]]
                contents = {other for other in contents if done[other][1] != step[1]}
            else:
                if not self._moves_on(step):
                    names.append(place)
                if step[0] == "write":
                    contents.add(place)
        return names, contents

    @staticmethod
    def _moves_on(step: tuple[str, ...]) -> bool:
        """Whether a name need not last: of a staged file, which a rename takes elsewhere."""
        return "/.staging/" in step[1] and step[1].endswith(".part")

    @staticmethod
    def _emptied(done: list[tuple[str, ...]], contents: set[int]) -> list[tuple[str, ...]]:
        return [
            (step[0], step[1], "") if place in contents else step for place, step in enumerate(done)
        ]

    @staticmethod
    def _folder(step: tuple[str, ...]) -> str:
        return str(Path(step[2] if step[0] == "rename" else step[1]).parent)

    @staticmethod
    def _without(done: list[tuple[str, ...]], lost: set[int]) -> list[tuple[str, ...]]:
        return [step for place, step in enumerate(done) if place not in lost]

    def build(self, steps: list[tuple[str, ...]]) -> None:
        """Make the folder what these operations, applied to the start, leave."""
        shutil.rmtree(self.root)
        shutil.copytree(self.start, self.root, symlinks=True)
        for step in steps:
            self._apply(*step)

    def _apply(self, what: str, *names: str) -> None:
        """One operation; it does nothing where what it needs was lost."""
        path = Path(names[0])
        target = Path(names[-1])
        if what == "mkdir" and path.parent.is_dir() and not path.exists():
            path.mkdir()
        elif what == "link" and path.parent.is_dir() and not path.is_symlink():
            path.symlink_to(names[1])
        elif what == "write" and path.parent.is_dir():
            path.write_bytes(bytes.fromhex(names[1]))
        elif what == "rename" and os.path.lexists(path) and target.parent.is_dir():
            path.replace(target)
        elif what == "remove" and os.path.lexists(path):
            path.unlink()
        elif what == "rmdir" and path.is_dir() and not list(path.iterdir()):
            path.rmdir()


MADE_BY_DAY = replace(DAY, by={"run_date": "day"})
MADE_BY_MONTH = replace(DAY, by={"run_date": "month"})


@pytest.mark.parametrize(
    ("before", "day"),
    [(..., None), (..., DAY), (None, None), (DAY, DAY), (MADE_BY_DAY, MADE_BY_MONTH)],
    ids=["first", "first partition", "over", "over a partition", "another partitioning"],
)
def test_power_cut_at_any_moment(
    store: str,
    put: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: Any,
    day: PartitionKey | None,
) -> None:
    """Whatever part of the unsynced operations is lost, `load` sees all old or all new outputs.

    A plain path shows a whole old file, a whole new one, or (where it was new) none; once the
    next run has staged, plain paths and `load` say the same again.
    """
    old = {} if before is ... else {"x": 1, "y": 1}
    if old:
        put("nb", old, before)
    switched = before is MADE_BY_DAY
    log = Log()
    with open_staging(store, "power") as staging:
        start = tmp_path / "start"
        shutil.copytree(store, start, symlinks=True)
        monkeypatch.setattr(files, "FILES", log)
        staged = [
            write_output(name, 2, staging.path / name, options={}, metadata={})
            for name in ("x", "y")
        ]
        publish(store, "nb", staged, staging=staging, partition=day, run_id="power")
        monkeypatch.setattr(files, "FILES", Files())
    new = {"x": 2, "y": 2}
    disk = Disk(Path(store), start)
    finished = len(log.steps)
    unique = {json.dumps(state): state for state in disk.states(log.steps)}
    for state in unique.values():
        disk.build(state)
        unit = unit_of(store, "nb", day)
        found = {name: _loaded(name, day) for name in "xy"}
        found = {name: value for name, value in found.items() if value is not None}
        assert found in (old, new), state
        for name in "xy":
            link = unit.link(name)
            plain = read_output(link) if link.exists() else None
            assert plain in (found.get(name), old.get(name), *([None, 2] if switched else [])), (
                state
            )
        with open_staging(store, "next"):
            pass
        for name in "xy":
            link = unit.link(name)
            assert (read_output(link) if link.exists() else None) == found.get(name), state
            assert link.exists() or not link.is_symlink(), state
    disk.build(log.steps[:finished])
    assert {name: _loaded(name, day) for name in "xy"} == new


def _loaded(name: str, day: PartitionKey | None) -> Any:
    from research_jobs.errors import OutputNotFoundError

    try:
        return load("nb", name, day.key if day else None)
    except OutputNotFoundError:
        return None


def test_a_file_replaced_while_it_is_read(
    store: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published path is read as one version: where that is pruned meanwhile, as the next."""
    from research_jobs.store.codec import reading

    put("nb", {"x": ["old"] * 10})
    link = unit_of(store, "nb", None).link("x")
    open_source = reading.open_source
    opened: list[Path] = []

    def open_then_publish(path: Path) -> Any:
        opened.append(path)
        source = open_source(path)
        if len(opened) == 1:
            put("nb", {"x": ["a newer, longer one"] * 1000})
        return source

    monkeypatch.setattr(reading, "open_source", open_then_publish)
    assert read_output(link) == ["a newer, longer one"] * 1000
    assert len(opened) == 2


# -- two writers -----------------------------------------------------------------------------

WRITER = """
import sys
import warnings
from research_jobs import failpoints
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish
store, who, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
day = PartitionKey("d", {"day": "d"})
print("ready", flush=True)
sys.stdin.readline()
for number in range(rounds):
    with open_staging(store, who) as staging:
        staged = [write_output(name, [who, number] * 50, staging.path / name,
                               options={}, metadata={}) for name in ("x", "y")]
        publish(store, "nb", staged, staging=staging, partition=day, run_id=who)
"""


def test_two_writers_never_mix(store: str, put: Any) -> None:
    """While two processes publish the same partition, readers see one writer's pair or the other's.

    200 rounds; the bytes behind a held version never change, and at the end nothing is left over.
    """
    from research_jobs.store.load import Outputs

    day = PartitionKey("d", {"day": "d"})
    put("nb", {"x": ["start", 0] * 50, "y": ["start", 0] * 50}, day)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, store, who, "100"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for who in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    versions: set[str] = set()
    hashes: dict[str, str] = {}
    for _ in itertools.count():
        running = [writer for writer in writers if writer.poll() is None]
        with Outputs(store, "nb", "d") as outputs:
            (version,) = outputs.versions
            pair = {name: outputs[name] for name in ("x", "y")}
            digest = "".join(
                hashlib.sha256(outputs.paths(name)[0].read_bytes()).hexdigest() for name in "xy"
            )
            again = {name: outputs[name] for name in ("x", "y")}
        assert pair["x"] == pair["y"] == again["x"] == again["y"]
        assert hashes.setdefault(version, digest) == digest
        assert read_output(unit_of(store, "nb", day).link("x"))[0] in ("start", "one", "two")
        versions.add(version)
        if not running:
            break
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.close()
        writer.stdout.close()
    assert len(versions) > 2
    assert load("nb", "x", "d")[1] == 99
    assert not list(Path(store, ".staging").iterdir())
