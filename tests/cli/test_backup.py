"""`research-jobs backup` and `restore`: what is stored, what comes back, and what is found."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import yaml
from said import Said

from research_jobs import load
from research_jobs.cli.main import main
from research_jobs.decisions.definitions import Definition
from research_jobs.orchestration.model.instance import open_instance
from research_jobs.project import Project
from research_jobs.upkeep.pinning import pin_tree
from research_jobs.upkeep.point import point_folder
from research_jobs.upkeep.proof import BackupBook, check_store

COMMAND = str(Path(sys.executable).with_name("research-jobs"))
NOTEBOOKS = {
    "prices": "import pandas as pd\nprices = pd.DataFrame({'close': range(1000)})\n",
    "total": "from research_jobs import load\ntotal = int(load('prices')['close'].sum())\n",
    "clock": "import time\nnow = time.time_ns()\n",
}
DAILY = '# %% tags=["parameters"]\nday: str = "2026-03-01"\n\n# %%\nvalue = day\n'
MANIFEST: dict[str, Any] = {
    "notebooks": {
        "prices": {"outputs": {"prices": {"keep": 2}}},
        "total": {"outputs": ["total"], "deterministic": True},
        "clock": {"outputs": ["now"]},
        "daily": {
            "outputs": ["value"],
            "partitions": {
                "by": "day",
                "start": "2026-03-01",
                "end": "2026-03-04",
                "parameter": "day",
            },
        },
    },
    "schedules": {"minutely": {"cron": "* * * * *", "notebooks": ["clock"]}},
}


@dataclass(frozen=True)
class Lab:
    """A project, a folder for its backups, and the command."""

    root: Path
    target: str
    say: Callable[..., Said]

    @property
    def project(self) -> Project:
        """The project, with its own store."""
        return Project(self.root, str(self.root / "data"))

    def backup(self, *words: str, code: int = 0) -> Said:
        said = self.say("backup", "--to", self.target, *words)
        assert said.code == code, said
        return said

    def restore(self, root: Path, *words: str, code: int = 0) -> Said:
        said = self.say("restore", "--from", self.target, *words, project=root)
        assert said.code == code, said
        return said

    def run(self, *words: str) -> None:
        assert self.say("run", *words).code == 0

    def write(self, manifest: dict[str, Any]) -> None:
        path = self.root / "notebooks" / "manifest.yaml"
        path.write_text(yaml.safe_dump(manifest))


@pytest.fixture
def lab(
    tmp_path: Path,
    restic: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Lab:
    """A project of its own, with a repository beside it."""
    root = tmp_path / "research"
    (root / "notebooks").mkdir(parents=True)
    for name, text in NOTEBOOKS.items():
        (root / "notebooks" / f"{name}.py").write_text(f"# %%\n{text}")
    (root / "notebooks" / "daily.py").write_text(DAILY)
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "RESEARCH_JOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", "")
    monkeypatch.setenv("RESTIC_PASSWORD", "secret")

    def say(*words: str, project: Path = root) -> Said:
        capfd.readouterr()
        monkeypatch.chdir(tmp_path)  # the project may be gone
        try:
            code = main([*words, "--project", str(project)])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Said(code, *capfd.readouterr())

    lab = Lab(root, str(tmp_path / "backups"), say)
    lab.write(MANIFEST)
    return lab


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


def test_a_lost_project_comes_back_whole(lab: Lab) -> None:
    """Outputs with versions, partitions, history, reports, logs and settings."""
    (lab.root / ".env").write_text("TOKEN=x\n")
    (lab.root / "data" / "by-hand").mkdir(parents=True)
    (lab.root / "data" / "by-hand" / "x.csv").write_text("x")
    (lab.root / ".venv").mkdir()
    (lab.root / ".venv" / "pyvenv.cfg").touch()
    lab.run("prices", "total")
    lab.run("prices")
    lab.run("daily", "--partition", "2026-03-02")
    first = lab.backup("--json").json
    lab.run("daily", "--partition", "2026-03-03")
    (lab.root / "data" / "prices" / "later.csv").write_text("x")
    before = load("prices", project=lab.root)
    shutil.rmtree(lab.root)
    said = lab.restore(lab.root, "--json").json
    assert said["snapshot"]["id"] == first["stored"]["snapshot"]
    assert (said["checked"]["damaged"], said["checked"]["unproven"]) == ([], 0)
    assert said["checked"]["versions"] == 4
    assert (said["lost"], said["unknown"], said["interrupted"]) == ([], [], [])
    pd.testing.assert_frame_equal(load("prices", project=lab.root), before)
    pd.testing.assert_frame_equal(load("prices", version=-1, project=lab.root), before)
    assert pd.read_parquet(lab.root / "data" / "prices" / "prices.parquet").equals(before)
    assert load("total", project=lab.root) == sum(range(1000))
    assert load("daily", partition="2026-03-02", project=lab.root) == "2026-03-02"
    assert (lab.root / ".env").read_text() == "TOKEN=x\n"
    assert not (lab.root / ".venv").exists()
    assert [path.name for path in (lab.root / "data").rglob("*.csv")] == ["x.csv"]
    assert list((lab.root / "reports" / "prices").rglob("report.html"))
    assert list((lab.root / ".research_jobs" / "dagster" / "storage").rglob("*.out"))
    listed = {one["notebook"]: one for one in lab.say("list", "--json").json}
    assert (listed["prices"]["state"], listed["clock"]["state"]) == ("succeeded", "never_run")
    lab.run("total", "clock")
    assert len(load("prices", project=lab.root)) == 1000


def test_what_is_not_in_a_backup_is_named(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the history knows and the store lacks, the reverse, and ticks that were due since."""
    ago = SimpleNamespace(time=lambda: time.time() - 600)
    monkeypatch.setattr("research_jobs.upkeep.point.time", ago)
    lab.run("prices", "total", "clock")
    history = lab.root / ".research_jobs" / "dagster"
    shutil.copytree(history, lab.root.parent / "older")
    lab.run("total")
    shutil.rmtree(history)
    shutil.move(lab.root.parent / "older", history)
    shutil.rmtree(lab.root / "data" / "clock")
    schedule = Definition("minutely", ago.time(), ("* * * * *",), "UTC", notebooks=("clock",))
    (lab.root / ".research_jobs" / "definitions.jsonl").write_text(f"{schedule.line}\n")
    lab.backup()
    said = lab.restore(lab.root.parent / "other", code=1).out
    lost = said.index("In the history, and not in the store")
    unknown = said.index("In the store, and not in the history")
    assert lost < said.index("clock: of run ") < unknown < said.index("total: of run ")
    assert f"It was in {lab.root}" in said
    assert re.search(r"Ticks that were due since.*\n  minutely: [1-9]", said)


def test_a_backup_stores_what_is_new_and_removes_what_is_old(lab: Lab) -> None:
    """The second one adds little; with `backup` in the manifest it needs no arguments."""
    lab.run("prices")
    (lab.root / "notebooks" / "input.bin").write_bytes(os.urandom(300_000))
    first = lab.backup("--json").json["stored"]
    lab.write(MANIFEST | {"backup": {"to": lab.target, "keep": {"last": 1}}})
    second = lab.say("backup", "--json").json
    assert first["added"] > 300_000 > 3 * second["stored"]["added"]
    assert second["removed"] == 1
    assert list(point_folder(lab.project).iterdir()) == []
    assert BackupBook.read(lab.project).made == second["point"]["at"]
    assert "none was proven yet" in lab.say("status").out
    assert lab.say("report").code == 0
    assert "none was proven yet" in (lab.root / "reports" / "index.html").read_text()


def test_a_repository_that_vanished_is_not_begun_anew(lab: Lab) -> None:
    """An empty folder, or another repository, is a failure until one is told to begin anew."""
    lab.backup()
    target, aside = Path(lab.target), Path(f"{lab.target}.aside")
    target.rename(aside)
    target.mkdir()
    for words, what in (((), "making"), (("--verify",), "proof")):
        said = lab.backup(*words, code=2).err
        assert f"{target} no longer has the repository that earlier backups went to" in said
        assert "mount its disk, or begin a new one with research-jobs backup --new-rep" in said
        assert said.count("\n") == 1
        assert "mount its disk" in BackupBook.read(lab.project).failing[what][1]
    assert list(target.iterdir()) == []
    lab.backup("--new-repository")
    shutil.rmtree(target)
    aside.rename(target)
    assert f"{target} is not the repository that" in lab.backup(code=2).err


def test_nothing_begins_a_store_whose_disk_is_gone(lab: Lab) -> None:
    """A run, a backup and what prunes refuse with one line, and make no folder."""
    (lab.project.make_state_folder() / "store.json").write_text(
        json.dumps({lab.project.store: str(lab.root.parent / "disk")})
    )
    wanted = f"the store {lab.project.store} is gone: nothing is mounted at {lab.root.parent}/disk"
    for words in (("run", "total"), ("backup", "--to", lab.target), ("prune",)):
        said = lab.say(*words)
        assert said.code != 0
        assert wanted in said.out + said.err
    assert not Path(lab.project.store).exists()
    assert not Path(lab.target).exists()


def test_backups_while_runs_go_on(lab: Lab) -> None:
    """Each is of one moment: no output that its history knows is missing, and all are whole."""
    lab.run("prices", "clock")
    loop = (
        "from research_jobs.cli.main import main\n"
        "while True:\n"
        "    main(['run', 'prices', 'clock'])\n"
    )
    environment = os.environ | {"RESEARCH_JOBS_PROJECT": str(lab.root)}
    with subprocess.Popen(
        [sys.executable, "-c", loop], env=environment, cwd=lab.root, stdout=subprocess.DEVNULL
    ) as runs:
        try:
            folder = lab.root / "data" / "clock" / ".versions"
            for number in range(2):
                deadline = time.monotonic() + 60
                seen = (folder / "current").readlink()
                while (folder / "current").readlink() == seen:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
                lab.backup()
                said = lab.restore(lab.root.parent / f"copy{number}", "--json").json
                assert (said["checked"]["damaged"], said["lost"]) == ([], [])
        finally:
            runs.kill()


def test_a_proof_runs_deterministic_notebooks_again(lab: Lab) -> None:
    """Marked ones and those whose last two runs made the same; one that differs proves nothing.

    The store is on another disk, where a link leads.
    """
    (lab.root / "data").symlink_to(lab.root.parent / "disk")
    lab.run("prices", "total", "clock")
    lab.run("prices", "total")
    lab.backup()
    said = lab.backup("--verify", "--json").json
    assert (said["wrong"], said["same"]) == ([], ["prices", "total"])
    assert BackupBook.read(lab.project).proven == said["point"]["at"]
    assert list((lab.root / ".research_jobs" / "proof").iterdir()) == []
    assert (lab.root / "data").is_symlink()
    marked = deepcopy(MANIFEST)
    marked["notebooks"]["clock"]["deterministic"] = True
    lab.write(marked)
    lab.backup()
    said = lab.backup("--verify", code=1)
    assert "clock: it made other outputs than run" in said.out
    book = BackupBook.read(lab.project)
    assert "the last backup is not whole: clock" in book.failing["proof"][1]
    assert book.proven != book.made


def test_a_flipped_bit_is_found(lab: Lab) -> None:
    """In the repository, in an output before its backup, and in a restored one."""
    lab.run("prices", "total")
    file = next((lab.root / "data" / "total" / ".versions").glob("*/total.pq"))
    good = file.read_bytes()
    flip(file, 20)
    lab.backup()
    said = lab.restore(lab.root.parent / "first", code=1).out
    assert "1 damaged" in said
    assert "total version 000001-" in said
    file.write_bytes(good)
    lab.backup()
    lab.restore(lab.root.parent / "second")
    store = lab.root.parent / "second" / "data"
    assert check_store(str(store), load=True).damaged == ()
    flip(next((store / "prices" / ".versions").glob("*/prices.pq")), 100)
    assert [one[:7] for one in check_store(str(store)).damaged] == ["prices "]
    pack = max(Path(lab.target, "data").rglob("*"), key=lambda path: path.stat().st_size)
    flip(pack, pack.stat().st_size // 2)
    said = lab.backup("--verify", code=2)
    assert said.err.startswith(f"research-jobs backup: the backups in {lab.target} ")
    assert "proof" in BackupBook.read(lab.project).failing


def test_nothing_is_overwritten(lab: Lab) -> None:
    """A folder with a file in it, and a history elsewhere; what was restored until then is gone."""
    lab.backup()
    other = lab.root.parent / "other"
    other.mkdir()
    (other / "mine").touch()
    assert "is not empty" in lab.restore(other, code=2).err
    assert [path.name for path in other.iterdir()] == ["mine"]
    (other / "mine").unlink()
    home = lab.root.parent / "home"
    (home / "history").mkdir(parents=True)
    (home / "history" / "runs.db").touch()
    os.environ["DAGSTER_HOME"] = str(home)
    try:
        assert "there is a history already" in lab.restore(other, code=2).err
    finally:
        del os.environ["DAGSTER_HOME"]
    assert list(other.iterdir()) == []
    lab.restore(other)


def test_a_restore_that_fails_leaves_nothing_behind(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a history elsewhere nor its settings; the next one works."""
    with open_instance(lab.project):
        lab.backup()
    home, other = lab.root.parent / "home", lab.root.parent / "other"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    (lab.root.parent / "file").touch()
    with monkeypatch.context() as broken:
        broken.setenv("RESEARCH_JOBS_STORE", str(lab.root.parent / "file" / "store"))
        lab.restore(other, code=2)
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert list(other.iterdir()) == []
    lab.restore(other)
    assert (home / "history" / "runs.db").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PATH": "/nonexistent"}, "restic is not installed, which stores backups. Install it: "),
        ({"RESTIC_PASSWORD": ""}, "there is no password for the repository. Set RESTIC_PASSWORD"),
        ({"RESTIC_PASSWORD": "other"}, "cannot be opened: wrong password or no key found"),
    ],
)
def test_what_is_missing_is_one_line_that_says_what_to_do(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], said: str
) -> None:
    """restic, a password, the right one."""
    if change.get("RESTIC_PASSWORD") == "other":
        lab.backup()
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    line = lab.backup(code=2).err
    assert said in line
    assert line.count("\n") == 1


def test_a_password_file_takes_the_place_of_the_variable(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the option and by the manifest, for backup and restore."""
    file = lab.root.parent / "password"
    file.write_text("from a file\n")
    lab.write(MANIFEST | {"backup": {"to": lab.target, "password_file": str(file)}})
    assert lab.say("backup").code == 0
    assert "wrong password" in lab.restore(lab.root.parent / "other", code=2).err
    monkeypatch.delenv("RESTIC_PASSWORD")
    lab.restore(lab.root.parent / "other", "--password-file", str(file))


def test_one_backup_at_a_time(lab: Lab) -> None:
    """A second one refuses; what a killed one left behind does not hinder the next."""
    from research_jobs.store.files import FolderLock

    folder = point_folder(lab.project)
    (folder / "point" / "store").mkdir(parents=True)
    with FolderLock(folder) as lock:
        lock.exclusive()
        assert "another backup of this project is being made" in lab.backup(code=2).err
    lab.backup()
    locks = Path(lab.target, "locks")
    while not any("-tmp-" not in path.name for path in locks.iterdir()):
        prunes = subprocess.Popen(["restic", "--repo", lab.target, "prune", "--quiet"])
        while prunes.poll() is None:
            if any("-tmp-" not in path.name for path in locks.iterdir()):
                prunes.kill()
        prunes.wait()
    lab.backup()


def test_files_that_cannot_be_linked_are_copied(tmp_path: Path) -> None:
    """Another file system takes copies, with the times that tell restic of no change."""
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_text("x")
    (source / "link").symlink_to("deep/file")
    os.utime(source / "deep" / "file", (1, 1))
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system")
    target = shared / f"pins-{os.getpid()}"
    try:
        assert list(pin_tree(source, target)) == []
        assert (target / "deep" / "file").stat().st_mtime == 1
        assert (target / "link").readlink() == Path("deep/file")
    finally:
        shutil.rmtree(target, ignore_errors=True)
