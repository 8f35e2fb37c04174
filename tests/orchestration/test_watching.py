"""Which files are new or changed since the last look."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from research_jobs.orchestration.definitions.watching import (
    SETTLED_NS,
    FileScan,
    compile_pattern,
    scan_files,
)


def at(root: Path, pattern: str, cursor: str | None = None, *, later: bool = True) -> FileScan:
    """Scan one pattern, after the files have settled unless said otherwise."""
    now = time.time_ns() + (2 * SETTLED_NS if later else 0)
    return scan_files([compile_pattern(pattern)], root, cursor, now)


def paths(scan: FileScan) -> list[str]:
    """The files that arrived."""
    return [path for path, _ in scan.arrived]


@pytest.mark.parametrize("later", [True, False])
def test_what_is_there_at_first_is_known(tmp_path, later):
    """Switching a watch on runs nothing, also of what is being written just then."""
    (tmp_path / "a.csv").write_text("1")
    found = at(tmp_path, "*.csv", later=later)
    assert paths(at(tmp_path, "*.csv", found.cursor)) == []
    assert found.first
    assert found.arrived == ()
    assert found.files == 1


def test_a_new_file_arrives_once(tmp_path):
    """The next look knows it."""
    first = at(tmp_path, "*.csv")
    (tmp_path / "a.csv").write_text("1")
    second = at(tmp_path, "*.csv", first.cursor)
    third = at(tmp_path, "*.csv", second.cursor)
    assert paths(second) == ["a.csv"]
    assert paths(third) == []


def test_a_changed_file_arrives_again(tmp_path):
    """Another size or another content."""
    (tmp_path / "a.csv").write_text("1")
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").write_text("2!")
    changed = at(tmp_path, "*.csv", cursor)
    assert paths(changed) == ["a.csv"]
    (tmp_path / "a.csv").write_text("3!")
    assert paths(at(tmp_path, "*.csv", changed.cursor)) == ["a.csv"]


def test_a_file_that_was_only_touched_does_not_arrive(tmp_path):
    """A new time over the same content is no change, once the content is known."""
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").write_text("1")
    known = at(tmp_path, "*.csv", cursor).cursor
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    touched = at(tmp_path, "*.csv", known)
    assert paths(touched) == []
    assert paths(at(tmp_path, "*.csv", touched.cursor)) == []


def test_a_file_that_is_being_written_waits(tmp_path):
    """It arrives when it was left alone for a moment, even one that keeps an old time."""
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").write_text("half")
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    early = at(tmp_path, "*.csv", cursor, later=False)
    assert (paths(early), early.waiting) == ([], 1)
    assert paths(at(tmp_path, "*.csv", early.cursor)) == ["a.csv"]


def test_a_known_file_that_is_being_rewritten_is_not_forgotten(tmp_path):
    """It arrives once, when it has settled."""
    (tmp_path / "a.csv").write_text("1")
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").write_text("22")
    early = at(tmp_path, "*.csv", cursor, later=False)
    late = at(tmp_path, "*.csv", early.cursor)
    assert (paths(early), paths(late)) == ([], ["a.csv"])
    (tmp_path / "a.csv").write_text("22")  # the same again
    again = at(tmp_path, "*.csv", late.cursor, later=False)
    assert again.waiting == 1
    assert paths(at(tmp_path, "*.csv", again.cursor)) == []


def test_a_file_that_went_and_came_arrives(tmp_path):
    """A folder that is emptied and filled again has new files."""
    (tmp_path / "a.csv").write_text("1")
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").unlink()
    gone = at(tmp_path, "*.csv", cursor)
    (tmp_path / "a.csv").write_text("1")
    assert paths(gone) == []
    assert paths(at(tmp_path, "*.csv", gone.cursor)) == ["a.csv"]


def test_a_time_that_lies_ahead_holds_up_no_file(tmp_path):
    """Another clock, or a share that keeps local time, may have set it."""
    first = at(tmp_path, "*.csv")
    (tmp_path / "a.csv").write_text("1")
    ahead = time.time() + 7200
    os.utime(tmp_path / "a.csv", (ahead, ahead))
    assert paths(at(tmp_path, "*.csv", first.cursor, later=False)) == []
    second = at(tmp_path, "*.csv", first.cursor)
    assert paths(second) == ["a.csv"]
    assert paths(at(tmp_path, "*.csv", second.cursor)) == []


def test_a_cursor_of_something_else_is_a_first_look(tmp_path):
    """Nothing runs because a cursor was lost."""
    (tmp_path / "a.csv").write_text("1")
    assert at(tmp_path, "*.csv", "not json").first
    for cursor in ("[1]", "[" * 100_000, '{"a.csv": 5}', '{"a.csv": []}'):
        assert at(tmp_path, "*.csv", cursor).first


def test_folders_and_absolute_patterns(tmp_path):
    """Any depth below, from anywhere, and only files."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "dir.csv").mkdir()
    cursor = at(tmp_path, "in/**/*.csv").cursor
    (tmp_path / "in" / "deep" / "a.csv").write_text("1")
    (tmp_path / "in" / "b.csv").write_text("1")
    assert paths(at(tmp_path, "in/**/*.csv", cursor)) == ["in/b.csv", "in/deep/a.csv"]
    absolute = f"{tmp_path}/in/*.csv"
    assert paths(at(Path("/"), absolute, "{}")) == [f"{tmp_path}/in/b.csv"]


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        ("in/{run_date}.csv", "in/2026-01-02.csv", {"run_date": "2026-01-02"}),
        ("in/{d}/{t}.csv", "in/2026-01-02/BRK.B.csv", {"d": "2026-01-02", "t": "BRK.B"}),
        ("{d}/prices-{d}.csv", "1/prices-1.csv", {"d": "1"}),
        ("{d}/prices-{d}.csv", "1/prices-2.csv", None),
        ("in/**/{t}.csv", "in/a/b/x.csv", {"t": "x"}),
        ("in/**/{t}.csv", "in/x.csv", {"t": "x"}),
        ("in/[ab]?.csv", "in/a1.csv", {}),
        ("in/[ab]?.csv", "in/c1.csv", None),
        ("in/[!ab]?.csv", "in/c1.csv", {}),
        ("in/[!ab]?.csv", "in/a1.csv", None),
        ("in/[^ab].csv", "in/^.csv", {}),
        ("in/[]x].csv", "in/].csv", {}),
        ("in/[].csv", "in/[].csv", {}),
        ("in/[\\].csv", "in/\\.csv", {}),
        ("in/[z-a].csv", "in/m.csv", None),
        ("in/*.csv", "in/a/b.csv", None),
        ("in/a+(b).csv", "in/a+(b).csv", {}),
    ],
)
def test_fields_of_a_pattern_are_read_from_the_path(pattern, path, fields):
    """A field stands for a part of a name; one that comes twice has to be the same.

    A set of characters is what glob takes it for, whatever is in it.
    """
    match = compile_pattern(pattern).expression.match(path)
    assert (match.groupdict() if match else None) == fields


def test_only_so_many_files_are_remembered(tmp_path, monkeypatch):
    """Those that changed last; older ones are taken to be known, at every look."""
    monkeypatch.setattr("research_jobs.orchestration.definitions.watching.MOST_FILES", 3)

    def write(number: int) -> None:
        (tmp_path / f"{number}.csv").write_text("1")
        os.utime(tmp_path / f"{number}.csv", ns=(number, number))

    for number in range(1, 6):
        write(number)
    first = at(tmp_path, "*.csv")
    assert first.files == 3
    second = at(tmp_path, "*.csv", first.cursor)
    assert paths(second) == []
    write(6)
    third = at(tmp_path, "*.csv", second.cursor)
    assert paths(third) == ["6.csv"]
    (tmp_path / "6.csv").unlink()
    (tmp_path / "5.csv").unlink()
    fourth = at(tmp_path, "*.csv", third.cursor)
    assert paths(fourth) == []
    write(0)  # all four are remembered no more, but three: one older than those is known too
    assert paths(at(tmp_path, "*.csv", fourth.cursor)) == []


def test_many_files_arrive_in_turns(tmp_path, monkeypatch):
    """What is too much for one look arrives at the next one, each file once."""
    monkeypatch.setattr("research_jobs.orchestration.definitions.watching.MOST_ARRIVED", 2)
    cursor = at(tmp_path, "*.csv").cursor
    for name in "abcde":
        (tmp_path / f"{name}.csv").write_text("1")
    seen: list[list[str]] = []
    for _ in range(4):
        found = at(tmp_path, "*.csv", cursor)
        cursor = found.cursor
        seen.append(paths(found))
    assert seen == [["a.csv", "b.csv"], ["c.csv", "d.csv"], ["e.csv"], []]


def test_another_size_at_the_same_time_is_a_change(tmp_path):
    """A program that sets the time of what it writes does not hide a change."""
    (tmp_path / "a.csv").write_text("1")
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").write_text("22")
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    assert paths(at(tmp_path, "*.csv", cursor)) == ["a.csv"]


@pytest.mark.parametrize(("content", "arrived"), [("ab", []), ("abc", ["a.csv"])])
def test_the_content_of_a_large_file_is_not_compared(tmp_path, monkeypatch, content, arrived):
    """A new time of change is a change of it."""
    monkeypatch.setattr("research_jobs.orchestration.definitions.watching.LARGEST_HASHED", 2)
    cursor = at(tmp_path, "*.csv").cursor
    (tmp_path / "a.csv").write_text(content)
    cursor = at(tmp_path, "*.csv", cursor).cursor
    os.utime(tmp_path / "a.csv", ns=(1, 1))
    assert paths(at(tmp_path, "*.csv", cursor)) == arrived
