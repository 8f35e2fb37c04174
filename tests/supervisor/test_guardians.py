"""One guardian guards run after run: what follows must not notice what was before."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
from lab import Lab, wait_until

from research_jobs.outcome import State
from research_jobs.runtime import processes
from research_jobs.supervisor.supervise import Supervisor

WHO = """
# %% Who
import gc
import json
import os
import random

import numpy

secret = "".join(["s3", "cret-of-", "the-first"])
# What the literals of this very file made.
own = {id(value) for value in gc.get_referents(globals())}
found = [
    type(holder).__name__
    for holder in gc.get_objects()
    for value in gc.get_referents(holder)
    if type(value) is str and secret in value and id(value) not in own and holder is not globals()
]
print(json.dumps({
    "guardian": os.getppid(),
    "pid": os.getpid(),
    "random": [random.random(), float(numpy.random.rand())],
    "marks": [hasattr(json, "mark"), os.environ.get("MARK"), os.getcwd()],
    "found": found,
}))
json.mark = True
os.environ["MARK"] = "set"
os.chdir("/")
"""


def test_runs_share_guardians_and_nothing_else(lab: Lab, marker: str) -> None:
    """Run after run comes from the same few guardians, each as fresh as the first."""
    lab.write("who", WHO)
    with Supervisor(preload=("numpy",)) as supervisor:
        lab.supervisor = supervisor
        first = lab.run("who", secrets={"TOKEN": "s3cret-of-the-first"})
        assert first.result.state is State.SUCCEEDED, first.stderr
        answers = [json.loads(lab.run("who").stdout) for _ in range(8)]
    assert len({item["guardian"] for item in answers}) < 6
    assert len({item["pid"] for item in answers}) == 8
    assert len({tuple(item["random"]) for item in answers}) == 8
    assert {tuple(item["marks"]) for item in answers} == {(False, None, str(lab.notebooks))}
    assert [item["found"] for item in answers] == [[]] * 8


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_names_in_ps(lab: Lab, isolation: str) -> None:
    """A running notebook and its guardian are shown by the notebook's name, cold or warm."""
    lab.write(
        "folder/names",
        """
# %%
import os
for pid in (os.getpid(), os.getppid()):
    print(open(f"/proc/{pid}/comm").read().strip())
    print(open(f"/proc/{pid}/cmdline").read().strip(chr(0)))
""",
    )
    for _ in range(2):
        outcome = lab.run("folder/names", isolation=isolation)
        assert outcome.result.state is State.SUCCEEDED, outcome.headline
        assert outcome.stdout.decode().splitlines() == [
            "names",
            "research_jobs: folder/names",
            "rj:names",
            "research_jobs: guards folder/names",
        ]


def test_guardians_do_not_grow(lab: Lab) -> None:
    """Whatever becomes of a run, its guardian holds no descriptor of it, and waits again."""
    with Supervisor() as supervisor:
        lab.supervisor = supervisor
        lab.run("adds_up")
        for name in ("adds_up", "segfaults", "raises_keyboard_interrupt", "exits_at_once") * 2:
            lab.run(name)
        lab.run("sleeps", timeout_s=0.3)
        (template,) = supervisor.template_pids
        guardians = processes.children_of(template) or []
        assert 1 < len(guardians) < 6
        # Each has forked its next process by and by, and let go of the last.
        wait_until(lambda: len({len(_descriptors(pid)) for pid in guardians}) == 1)
        assert all(processes.children_of(pid) for pid in guardians)
        held = {place for pid in guardians for place in _descriptors(pid)}
        assert not [place for place in held if str(lab.root) in place]


def test_guardian_that_cannot_let_go_is_not_used_again(lab: Lab) -> None:
    """A guardian whose log nobody reads leaves with its run, and later runs have others."""
    lab.write("parent", "# %% Who\nimport os\nprint(os.getppid())\n")
    lab.write("floods", "# %% Flood\nimport os\nprint(os.getppid())\nprint('x' * 1_000_000)\n")
    reader, writer = os.pipe()
    with Supervisor() as supervisor:
        lab.supervisor = supervisor
        result = supervisor.run(lab.request("floods", timeout_s=0.5), stdout=writer, stderr=2)
        assert any("stdout was still open" in note for note in result.notes), result.notes
        stuck = int(os.read(reader, 100).split()[0])
        (template,) = supervisor.template_pids
        wait_until(lambda: stuck not in (processes.children_of(template) or []))
        assert {int(lab.run("parent").stdout) for _ in range(4)}.isdisjoint({stuck})
    os.close(reader)
    os.close(writer)


def _descriptors(pid: int) -> list[str]:
    places: list[str] = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            places.append(str(entry.readlink()))
    return places


def test_a_variable_that_no_import_reads(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run may set a variable that the template had too: it is forked unless an import read it."""
    monkeypatch.setenv("RJ_OF_NOBODY", "before")
    lab.write("prints", "# %%\nimport os\nprint(os.environ['RJ_OF_NOBODY'])\n")
    with Supervisor(preload=("pandas",)) as supervisor:
        lab.supervisor = supervisor
        outcome = lab.run("prints", environment={"RJ_OF_NOBODY": "of the run"})
    assert outcome.stdout == b"of the run\n"
    assert outcome.result.isolation == "fork"
    assert outcome.result.notes == ()


def test_what_is_installed_meanwhile_is_found(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is installed after the template looked at its folder is there at once."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "installed_before.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    lab.write("wants", "# %% Import\nimport installed_before\nimport installed_since\n")
    with Supervisor(preload=("installed_before", "installed_since")) as supervisor:
        lab.supervisor = supervisor
        assert "installed_since" in lab.run("wants").headline
        (folder / "installed_since.py").write_text("")
        assert lab.run("wants").result.state is State.SUCCEEDED
