"""A process killed at any step, and power cut at any moment (faults 13, 15, 16, 26)."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
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
from research_jobs.store.layout import SUFFIX, unit_of
from research_jobs.store.load import Outputs, load
from research_jobs.store.transaction import NOTE
from research_jobs.store.versions import MANIFEST

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


def test_the_note_is_on_the_disk_before_a_link(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being published, and the way to that note, last before the first link is made."""
    log = Log()
    with open_staging(store, "power") as staging:
        staged = write_output("x", 2, staging.path / "x", options={}, metadata={})
        monkeypatch.setattr(files, "FILES", log)
        publish(store, "nb", [staged], staging=staging, partition=None, run_id="power")
        monkeypatch.setattr(files, "FILES", Files())
        way = [staging.path / NOTE, staging.path, staging.path.parent]
    link = str(unit_of(store, "nb", None).link("x"))
    before = log.steps[: [step[:2] for step in log.steps].index(("link", link))]
    assert all(("sync", str(path)) in before for path in way)


def test_a_version_is_on_the_disk_before_it_is_current(
    store: str, put: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on file systems that keep the operations of one folder in no order."""
    put("nb", {"x": 1}, None)
    log = Log()
    with open_staging(store, "power") as staging:
        staged = write_output("x", 2, staging.path / "x", options={}, metadata={})
        monkeypatch.setattr(files, "FILES", log)
        publish(store, "nb", [staged], staging=staging, partition=None, run_id="power")
        monkeypatch.setattr(files, "FILES", Files())
    unit = unit_of(store, "nb", None)
    (commit,) = [n for n, step in enumerate(log.steps) if step[-1] == str(unit.current)]
    fresh = log.steps[commit][1]
    version = unit.versions / unit.current.readlink()
    for made in (str(version), str(version / f"x{SUFFIX}"), str(version / MANIFEST), fresh):
        last = max(n for n, step in enumerate(log.steps[:commit]) if made in step[1:])
        synced = log.steps[last + 1 : commit]
        assert ("sync", str(Path(made).parent)) in synced, made


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
from research_jobs import failpoints
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish
store, who, rounds, stops = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]
day = PartitionKey("d", {"day": "d"})
def stop(name):
    if name in stops:
        print(name, flush=True)
        sys.stdin.readline()
failpoints.install(stop)
stop("publish.begin")
for number in range(rounds):
    with open_staging(store, who) as staging:
        staged = [write_output(name, [who, number] * 50, staging.path / name,
                               options={}, metadata={}) for name in ("x", "y")]
        publish(store, "nb", staged, staging=staging, partition=day, run_id=who)
"""


class Writer:
    """A process that publishes pairs, and stops at failpoints until it may go on."""

    def __init__(self, store: str, who: str, rounds: int, *stops: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, store, who, str(rounds), *stops],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def go(self) -> None:
        """Let it go on from where it stopped."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def stopped(self) -> str:
        """Wait until it stops, and where; an empty text when it ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def wait_for_lock(self) -> None:
        """Wait until the kernel has it waiting for a lock."""
        for _ in range(3000):
            assert self.process.poll() is None
            for line in Path("/proc/locks").read_text().splitlines():
                if "-> FLOCK" in line and f" {self.process.pid} " in line:
                    return
            time.sleep(0.01)
        pytest.fail("it did not wait for a lock")

    def end(self) -> None:
        """End it, if it did not by itself."""
        with self.process:
            self.process.kill()


@pytest.fixture
def writers(store: str) -> Iterator[Any]:
    """``writers("one", 100, "publish.moved")``: processes that end with the test."""
    started: list[Writer] = []

    def start(who: str, rounds: int, *stops: str) -> Writer:
        started.append(Writer(store, who, rounds, *stops))
        return started[-1]

    yield start
    for writer in started:
        writer.end()


PAIR_DAY = PartitionKey("d", {"day": "d"})


def pair_seen(store: str) -> tuple[str, Any]:
    """The version and the value of both outputs, however they are read."""
    with Outputs(store, "nb", "d") as outputs:
        (version,) = outputs.versions
        values = [outputs[name] for name in ("x", "y")]
    links = [read_output(unit_of(store, "nb", PAIR_DAY).link(name)) for name in ("x", "y")]
    assert values[0] == values[1] == links[0] == links[1]
    return version, values[0][:2]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list of locks is read")
@pytest.mark.parametrize("held_at", ["publish.folder", "publish.described", "publish.committed"])
def test_a_second_writer_waits(store: str, put: Any, writers: Any, held_at: str) -> None:
    """While one process is in the middle of publishing a partition, another waits for it.

    Readers see the old pair until the commit, then the first writer's, then the second's.
    """
    put("nb", {"x": ["start", 0] * 50, "y": ["start", 0] * 50}, PAIR_DAY)
    one = writers("one", 1, "publish.begin", held_at)
    two = writers("two", 1, "publish.begin", "publish.locked", "publish.committed")
    for writer in (one, two):
        assert writer.stopped() == "publish.begin"
        writer.go()
        assert writer.stopped() == "publish.begin"  # staged
    one.go()
    assert one.stopped() == held_at
    two.go()
    two.wait_for_lock()
    first = ["one", 0] if held_at == "publish.committed" else ["start", 0]
    assert pair_seen(store)[1] == first
    one.go()
    assert two.stopped() == "publish.locked"
    assert pair_seen(store)[1] == ["one", 0]
    two.go()
    assert two.stopped() == "publish.committed"
    assert pair_seen(store)[1] == ["two", 0]
    two.go()
    assert [writer.process.wait() for writer in (one, two)] == [0, 0]
    assert not list(Path(store, ".staging").iterdir())


def test_two_writers_never_mix(store: str, put: Any, writers: Any) -> None:
    """While two processes publish the same partition, readers see one writer's pair or the other's.

    200 rounds, of which a reader is sure to meet 20: at each tenth commit of each writer. The bytes
    behind a version never change, and at the end nothing is left over.
    """
    put("nb", {"x": ["start", 0] * 50, "y": ["start", 0] * 50}, PAIR_DAY)
    both = [writers(who, 100, "publish.begin") for who in ("one", "two")]
    for writer in both:
        assert writer.stopped() == "publish.begin"
        writer.go()
    hashes: dict[str, str] = {}
    met: set[tuple[str, int]] = set()
    begun = 0
    while begun < 200:
        for writer in both:
            if writer.stopped() != "publish.begin":
                continue
            begun += 1
            with Outputs(store, "nb", "d") as outputs:
                writer.go()  # both publish while this version is read
                (version,) = outputs.versions
                pair = [outputs[name] for name in ("x", "y")]
                files = [outputs.paths(name)[0].read_bytes() for name in ("x", "y")]
                again = [outputs[name] for name in ("x", "y")]
            assert pair[0] == pair[1] == again[0] == again[1]
            digest = "".join(hashlib.sha256(data).hexdigest() for data in files)
            assert hashes.setdefault(version, digest) == digest
            assert read_output(unit_of(store, "nb", PAIR_DAY).link("x"))[0] in (
                "one",
                "two",
                "start",
            )
            met.add((pair[0][0], pair[0][1]))
    assert [writer.process.wait() for writer in both] == [0, 0]
    assert len(met) >= 100  # each writer stops before each publish: its last one is there by then
    assert {who for who, _ in met} == {"start", "one", "two"}
    assert pair_seen(store)[1][1] == 99
    assert not list(Path(store, ".staging").iterdir())
