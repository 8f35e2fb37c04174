"""Folders and files that many threads and processes make, replace and remove at once."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hammer import hammer

from research_jobs import filesystem
from research_jobs.filesystem import (
    make_folder,
    open_private,
    temporary_path,
    write_atomically,
)
from research_jobs.project import Project
from research_jobs.store.files import Files

ROUNDS = 75


def remove_if_empty(folder: Path) -> None:
    """Remove a folder as a run that ends does."""
    with suppress(OSError):
        folder.rmdir()


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """Any umask, one that takes the owner's own right to write included."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    """A path's permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_folder_is_made_while_others_remove_its_parents(tmp_path: Path) -> None:
    """Steps that begin make their folder below one that steps which end remove when empty."""
    run = tmp_path / "a" / "run"

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            own = run / f"{number}-{turn}"
            make_folder(own)
            (own / "capture").write_text("x")
            shutil.rmtree(own)
            remove_if_empty(run)
            remove_if_empty(run.parent)

    assert hammer(work) == []


def test_a_run_folder_is_made_while_others_end(tmp_path: Path) -> None:
    """The state folder's own way of making folders stands the same."""
    project = Project(tmp_path, store=str(tmp_path / "data"))

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            own = project.make_state_folder("runs", "run", f"{number}-{turn}")
            (own / "capture").write_text("x")
            shutil.rmtree(own)
            remove_if_empty(own.parent)

    assert hammer(work) == []


def test_the_stores_folders_are_made_while_others_remove_them(tmp_path: Path) -> None:
    """The store makes its folders durable one by one, and stands others that remove them."""
    files = Files()

    def work(number: int) -> None:
        for turn in range(ROUNDS // 3):
            own = tmp_path / "out" / "day=1" / f"hour={number}-{turn}"
            files.make_folders(own)
            own.rmdir()
            remove_if_empty(own.parent)
            remove_if_empty(own.parent.parent)

    assert hammer(work) == []


def test_a_file_is_whole_whoever_writes_it(tmp_path: Path) -> None:
    """Many write one path and remove its folder; each read is one writer's whole content."""
    path = tmp_path / "shared" / "page.js"

    def work(number: int) -> None:
        content = b"%d" % (number % 10) * 5000
        for _ in range(ROUNDS // 3):
            write_atomically(path, content)
            try:
                seen = path.read_bytes()
            except FileNotFoundError:
                continue
            finally:
                if number == 0:
                    shutil.rmtree(path.parent, ignore_errors=True)
            assert len(seen) == 5000
            assert len(set(seen)) == 1

    assert hammer(work) == []
    leftovers = list(path.parent.glob("*.part")) if path.parent.exists() else []
    assert leftovers == []


def test_temporary_names_are_unique_everywhere(tmp_path: Path) -> None:
    """No two calls, of any thread of any process, give one name; each is hidden and beside."""
    names = tmp_path / "names"
    names.mkdir()

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            found = temporary_path(names / "x.parquet")
            found.touch(exist_ok=False)

    assert hammer(work) == []
    made = list(names.iterdir())
    assert len(made) == 32 * ROUNDS
    assert all(path.name.startswith(".x.parquet.") and path.suffix == ".part" for path in made)


def test_a_temporary_name_is_no_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines that share a folder may both have the process and its count."""
    monkeypatch.setattr(filesystem, "_counter", itertools.repeat(0))
    assert temporary_path(tmp_path / "x") != temporary_path(tmp_path / "x")


def test_what_has_a_temporary_name_already_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that somebody put in the way is an error, and what it leads to stays as it is."""
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "link").symlink_to(other)
    monkeypatch.setattr(filesystem, "temporary_path", lambda _: tmp_path / "link")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "x", b"new")
    assert other.read_text() == "mine"


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "\N{PILE OF POO}" * 63])
def test_a_temporary_name_fits_wherever_the_name_does(tmp_path: Path, name: str) -> None:
    """The longest names that a file system takes can be written."""
    write_atomically(tmp_path / name, b"1")
    assert (tmp_path / name).read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["file", "dangling link", "link to a file"])
@pytest.mark.parametrize("make", [make_folder, Files().make_folders])
def test_something_in_the_way_is_an_error(tmp_path: Path, kind: str, make: object) -> None:
    """A file or a link to nowhere where a folder is wanted is an error, not an endless wait."""
    place = tmp_path / "in the way"
    if kind == "file":
        place.write_text("mine")
    else:
        target = tmp_path / "target"
        place.symlink_to(target)
        if kind == "link to a file":
            target.write_text("mine")
    for path in (place, place / "below"):
        with pytest.raises(NotADirectoryError):
            make(path)  # type: ignore[operator]


def test_a_folder_that_always_vanishes_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After very many attempts there is an error that says so."""
    monkeypatch.setattr(filesystem, "ATTEMPTS", 5)
    monkeypatch.setattr(Path, "mkdir", lambda *_: (_ for _ in ()).throw(FileExistsError))
    with pytest.raises(FileNotFoundError, match="removed each time"):
        make_folder(tmp_path / "x")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed replacement keeps the old file and removes the new one."""
    write_atomically(tmp_path / "x", b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "x", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


def test_state_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """State folders are 0700 and their files 0600; one that an earlier version made is closed."""
    project = Project(tmp_path, store="")
    made = project.make_state_folder("runs", "r1", "step")
    for folder in (made, *made.parents):
        if folder == tmp_path:
            break
        assert mode(folder) == 0o700
    write_atomically(made / "facts.json", b"1", private=True)
    with open_private(made / "log") as file:
        file.write(b"1")
    with open_private(made / "new" / "log") as file:
        file.write(b"1")
    assert {mode(path) for path in made.rglob("*") if path.is_file()} == {0o600}
    write_atomically(made / "newer" / "facts.json", b"1", private=True)
    assert mode(made / "new") == mode(made / "newer") == 0o700
    for earlier in (0o755, 0o750, 0o701):
        project.state.chmod(earlier)
        project.make_state_folder()
        assert mode(project.state) == 0o700
    assert os.umask(umask) == umask


def test_a_private_file_is_never_open_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even between being made and having its permissions set."""
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    before = os.umask(0)
    try:
        write_atomically(tmp_path / "x", b"1", private=True)
        with open_private(tmp_path / "y"):
            pass
    finally:
        os.umask(before)
    assert mode(tmp_path / "x") == mode(tmp_path / "y") == 0o600


def test_an_open_log_is_closed_to_others(tmp_path: Path) -> None:
    """A log that everybody could read is closed when it is opened again; a link is refused."""
    log = tmp_path / "log"
    log.write_text("old")
    log.chmod(0o644)
    with open_private(log) as file:
        file.write(b"new")
    assert (mode(log), log.read_text()) == (0o600, "new")
    (tmp_path / "link").symlink_to(log)
    with pytest.raises(OSError, match="symbolic link"):
        open_private(tmp_path / "link")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], indirect=True)
def test_shared_files_follow_the_umask(tmp_path: Path, umask: int) -> None:
    """What is not private has the permissions that any new file has."""
    write_atomically(tmp_path / "page" / "x.html", b"1")
    assert mode(tmp_path / "page") == 0o777 & ~umask
    assert mode(tmp_path / "page" / "x.html") == 0o666 & ~umask
