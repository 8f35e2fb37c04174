"""A run from a template sees what a cold start sees: other paths, edited and installed packages."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, Ran

from research_jobs.outcome import State
from research_jobs.supervisor import sources
from research_jobs.supervisor.sources import Sources
from research_jobs.supervisor.supervise import Supervisor
from research_jobs.supervisor.verdicts import Verdicts

LIBRARY = {
    "whole/__init__.py": """
        import os
        VALUE = 1
        MODE = os.environ.get("WHOLE_MODE", "unset")
        try:
            import optional_part
        except ImportError:
            optional_part = None
    """,
    "whole/part.py": "VALUE = 1\n",
    "single.py": "VALUE = 1\n",
}
NOTEBOOK = """\
# %% Say what is there
import whole, whole.part, single
print(whole.VALUE, whole.part.VALUE, single.VALUE, whole.MODE,
      getattr(whole.optional_part, "VALUE", None))
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed libraries, where every interpreter looks for modules."""
    folder = tmp_path / "site"
    for name, text in LIBRARY.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


@pytest.fixture
def warm(site: Path, tmp_path: Path) -> Iterator[Lab]:
    """A project whose template has imported the libraries."""
    with Supervisor(preload=("whole", "whole.part", "single"), log=lambda line: None) as supervisor:
        lab = Lab(tmp_path / "project", supervisor)
        lab.write("says", NOTEBOOK)
        yield lab


def said(outcome: Ran) -> list[str]:
    """What the notebook printed."""
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    return outcome.stdout.decode().split()


def both(lab: Lab, **fields: Any) -> tuple[list[str], Ran]:
    """What a run says that may be forked, which is what one says that was started cold."""
    warm, cold = lab.run("says", **fields), lab.run("says", isolation="spawn", **fields)
    assert said(warm) == said(cold)
    return said(warm), warm


def replaced(site: Path) -> None:
    """As installers and editors do: a new file takes the old one's name."""
    new = site / "single.new"
    new.write_text("VALUE = 2\n")
    new.replace(site / "single.py")


def in_place(site: Path) -> None:
    """As a shell does, with a file of the same size, and its time put back."""
    before = (site / "single.py").stat()
    (site / "single.py").write_text("VALUE = 2\n")
    os.utime(site / "single.py", ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def removed(site: Path) -> None:
    """A module becomes a package."""
    (site / "single.py").unlink()
    (site / "single").mkdir()
    (site / "single" / "__init__.py").write_text("VALUE = 2\n")


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a module in place": (in_place, ["1", "1", "2", "unset", "None"]),
    "a module by another file": (replaced, ["1", "1", "2", "unset", "None"]),
    "a module by a package": (removed, ["1", "1", "2", "unset", "None"]),
    "a submodule": (
        lambda site: (site / "whole" / "part.py").write_text("VALUE = 22\n"),
        ["1", "22", "1", "unset", "None"],
    ),
    "an optional part installed": (
        lambda site: (site / "optional_part.py").write_text("VALUE = 3\n"),
        ["1", "1", "1", "unset", "3"],
    ),
}


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_library(
    warm: Lab, site: Path, change: str, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is edited, installed or replaced under a warm template is what the next run imports."""
    if not watched:
        monkeypatch.setattr(sources, "_all_local", lambda folders: False)
    assert both(warm)[0] == ["1", "1", "1", "unset", "None"]
    assert warm.supervisor is not None
    before = warm.supervisor.template_pids
    assert both(warm)[1].result.isolation == "fork"
    assert warm.supervisor.template_pids == before
    make, wanted = CHANGES[change]
    make(site)
    found, outcome = both(warm)
    assert found == wanted
    assert outcome.result.isolation == "fork"
    assert warm.supervisor.template_pids != before
    assert len(warm.supervisor.template_pids) == 1


def test_an_editable_library(warm: Lab, site: Path, tmp_path: Path) -> None:
    """The sources of an editable installation are watched where they are."""
    source = tmp_path / "checkout"
    source.mkdir()
    (source / "optional_part.py").write_text("VALUE = 3\n")
    (site / "optional_part.py").symlink_to(source / "optional_part.py")
    assert both(warm)[0][-1] == "3"
    (source / "optional_part.py").write_text("VALUE = 4\n")
    assert both(warm)[0][-1] == "4"


@pytest.mark.parametrize("inside", [True, False])
def test_a_part_that_only_the_runs_path_has(warm: Lab, tmp_path: Path, inside: bool) -> None:
    """An optional import that the manifest's `sys_path` makes possible has happened in the run."""
    extra = tmp_path / ("project/vendored" if inside else "extra")
    extra.mkdir()
    (extra / "optional_part.py").write_text("VALUE = 5\n")
    request = warm.request("says")
    path = (*request.sys_path, str(extra))
    found, outcome = both(warm, sys_path=path)
    assert found[-1] == "5"
    # A template may import from a folder outside the project, and never from one inside.
    assert outcome.result.isolation == ("spawn" if inside else "fork")
    assert any("optional_part.py" in note for note in outcome.result.notes) == inside
    # Runs without it are not served by the same template.
    found, outcome = both(warm)
    assert (found[-1], outcome.result.isolation) == ("None", "fork")


@pytest.mark.parametrize("name", ["single.py", "single/__init__.py"])
def test_a_helper_with_the_name_of_a_library(warm: Lab, name: str) -> None:
    """A module beside the notebook hides the installed one, though that was preloaded."""
    (warm.notebooks / name).parent.mkdir(exist_ok=True)
    (warm.notebooks / name).write_text("VALUE = 7\n")
    found, outcome = both(warm)
    assert found[2] == "7"
    assert outcome.result.isolation == "spawn"
    assert any("single" in note for note in outcome.result.notes)


def test_a_folder_without_code_hides_nothing(warm: Lab) -> None:
    """A folder of data that is called like a library does not make runs cold."""
    (warm.notebooks / "single").mkdir()
    found, outcome = both(warm)
    assert (found[2], outcome.result.isolation) == ("1", "fork")


def test_a_variable_that_an_import_reads(warm: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that a library reads at its import holds in every run; any other costs nothing."""
    found, outcome = both(warm, environment={"WHOLE_MODE": "fast"})
    assert (found[3], outcome.result.isolation) == ("fast", "spawn")
    assert outcome.result.notes == (
        "started cold: WHOLE_MODE is read when the interpreter or a library starts",
    )
    assert both(warm, environment={"UNREAD": "fast"})[1].result.isolation == "fork"
    assert warm.supervisor is not None
    before = warm.supervisor.template_pids
    monkeypatch.setenv("WHOLE_MODE", "slow")
    found, outcome = both(warm)
    assert (found[3], outcome.result.isolation) == ("slow", "fork")
    assert warm.supervisor.template_pids != before


def test_a_variable_that_an_import_adds(warm: Lab, site: Path) -> None:
    """A variable that a library sets at its import is set in the run, unless the run sets it."""
    (site / "single.py").write_text("import os\nVALUE = os.environ.setdefault('ADDED', 'x')\n")
    warm.write("tells", "# %%\nimport single, os\nprint(os.environ['ADDED'])\n")
    assert [said(warm.run("tells", isolation=kind)) for kind in ("fork", "spawn")] == [["x"]] * 2
    own = {"ADDED": "own"}
    runs = [warm.run("tells", isolation=kind, environment=own) for kind in ("fork", "spawn")]
    assert [said(run) for run in runs] == [["own"]] * 2


def test_warnings_are_shown_again(warm: Lab, site: Path) -> None:
    """A warning that an import has triggered in the template is shown when the notebook does."""
    (site / "single.py").write_text(
        "import warnings\n"
        "VALUE = 1\n"
        "def warn():\n"
        "    warnings.warn('mind the gap', FutureWarning, stacklevel=1)\n"
        "warn()\n"
    )
    warm.write("warns", "# %%\nimport single\nsingle.warn()\n")
    for isolation in ("fork", "spawn"):
        outcome = warm.run("warns", isolation=isolation)
        assert outcome.stderr.count(b"FutureWarning: mind the gap") == 1


class TestSources:
    """The watch itself."""

    @pytest.fixture(params=[True, False])
    def folder(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """A folder that is on a local file system, or that is not."""
        if not request.param:
            monkeypatch.setattr(sources, "_all_local", lambda folders: False)
        (tmp_path / "a.py").write_text("A = 1\n")
        old = time.time_ns() - 3600 * 10**9
        os.utime(tmp_path / "a.py", ns=(old, old))
        return tmp_path

    def made(self, folder: Path, since: int | None = None) -> Sources:
        """Sources of one file, looked at as if the import had begun after it was made."""
        began = time.time_ns() + 10**9 if since is None else since
        return Sources([str(folder / "a.py")], [str(folder / "absent")], began)

    def test_nothing_has_changed(self, folder: Path) -> None:
        """What is as it was, is; caches and hidden files are no change."""
        watched = self.made(folder)
        (folder / "__pycache__").mkdir()
        (folder / ".swap").write_text("")
        assert watched.changed() is None
        assert watched.changed() is None
        watched.close()
        watched.close()

    def test_a_file_younger_than_the_import(self, folder: Path) -> None:
        """A file that was written while the template imported may be another one than it read."""
        path = folder / "a.py"
        path.touch()
        assert self.made(folder, since=path.stat().st_mtime_ns).changed() == str(path)

    def test_a_hard_link_is_no_change(self, folder: Path, tmp_path_factory: Any) -> None:
        """An environment that shares its files with another one is not changed by that one."""
        watched = self.made(folder)
        (tmp_path_factory.mktemp("other") / "a.py").hardlink_to(folder / "a.py")
        assert watched.changed() is None

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            (lambda folder: (folder / "a.py").write_text("A = 2\n"), "a.py"),
            (lambda folder: (folder / "a.py").unlink(), ""),
            (lambda folder: (folder / "b.py").write_text(""), ""),
            (lambda folder: (folder / "b").mkdir(), ""),
            (lambda folder: (folder / "absent").mkdir(), ""),
            (lambda folder: (folder / "a.py").rename(folder / "c.py"), ""),
        ],
    )
    def test_a_change(self, folder: Path, change: Callable[[Path], object], where: str) -> None:
        """Each kind of change is seen, and stays seen."""
        watched = self.made(folder)
        assert watched.changed() is None
        change(folder)
        found = watched.changed()
        assert found is not None
        assert Path(found) in (folder / where, folder / "absent")
        assert watched.changed() == found


class TestVerdicts:
    """What was found unfit is remembered as long as it holds."""

    @pytest.fixture
    def project(self, tmp_path: Path) -> Path:
        """A project in which something has run."""
        (tmp_path / "project" / ".research_jobs").mkdir(parents=True)
        (tmp_path / "project" / "site").mkdir()
        return tmp_path / "project"

    def test_it_is_remembered(self, project: Path) -> None:
        """Another program finds it, under the same interpreter, modules and variables only."""
        Verdicts(str(project), "python", ["a"], {}).write({"a": "bad"}, [str(project / "site")])
        assert Verdicts(str(project), "python", ["a"], {}).read() == {"a": "bad"}
        assert Verdicts(str(project), "other", ["a"], {}).read() == {}
        assert Verdicts(str(project), "python", ["a", "b"], {}).read() == {}
        assert Verdicts(str(project), "python", ["a"], {"LANG": "C"}).read() == {}

    def test_what_is_installed_ends_it(self, project: Path) -> None:
        """After an installation it is tried again."""
        verdicts = Verdicts(str(project), "python", ["a"], {})
        verdicts.write({"a": "bad"}, [str(project / "site")])
        (project / "site" / "a-2.0.dist-info").mkdir()
        assert verdicts.read() == {}

    def test_a_day_ends_it(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What failed for reasons of its moment is tried again on the next day."""
        verdicts = Verdicts(str(project), "python", ["a"], {})
        verdicts.write({"a": "bad"}, [])
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now + 24 * 3600 - 60)
        assert verdicts.read() == {"a": "bad"}
        monkeypatch.setattr("time.time", lambda: now + 24 * 3600 + 60)
        assert verdicts.read() == {}

    @pytest.mark.parametrize("text", ["", "[]", '{"x": 1}', '{"x": {"at": 1}}', "\x00"])
    def test_a_damaged_file(self, project: Path, text: str) -> None:
        """Whatever the file holds, it is no more than nothing."""
        verdicts = Verdicts(str(project), "python", ["a"], {})
        verdicts.write({"a": "bad"}, [])
        (project / ".research_jobs" / "cache" / "unfit.json").write_text(text)
        assert verdicts.read() == {}
        verdicts.write({"a": "bad"}, [])
        assert verdicts.read() == {"a": "bad"}

    def test_programs_start_one_template(self, project: Path, site: Path) -> None:
        """The first program finds an unfit module by trying; the next starts without it."""
        (site / "noisy.py").write_text("print('hello')\n")
        lines: list[str] = []
        for _ in range(2):
            with Supervisor(preload=("noisy", "single"), log=lines.append) as supervisor:
                report = supervisor.warm(project)
                assert report.left_out == {"noisy": "its import writes to stdout"}
                assert "single" in report.loaded
        assert lines == ["noisy is not preloaded: its import writes to stdout"]


def test_numexpr_is_preloaded(tmp_path: Path) -> None:
    """A library that starts a pool at its import, and again in a fork, costs nothing a run."""
    pytest.importorskip("numexpr")
    source = (
        "# %%\nimport numexpr, numpy as np, json\n"
        "a = np.arange(1e6)\n"
        "print(json.dumps([numexpr.nthreads, numexpr.get_num_threads(),\n"
        "                  float(numexpr.evaluate('2*a + 1').sum())]))\n"
    )
    with Supervisor(preload=("numexpr", "pandas", "numpy")) as supervisor:
        assert supervisor.warm(tmp_path).left_out == {}
        lab = Lab(tmp_path, supervisor)
        lab.write("evaluates", source)
        warm, cold = (lab.run("evaluates", isolation=isolation) for isolation in ("fork", "spawn"))
    assert said(warm) == said(cold)
    assert warm.result.isolation == "fork"
