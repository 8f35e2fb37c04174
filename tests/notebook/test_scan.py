"""All notebooks of a project, and the memory between two scans."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from research_jobs.errors import NotebookError, NotebookNotFoundError, NotebookSyntaxError
from research_jobs.notebook import facts as facts_module
from research_jobs.notebook import scan as scan_module
from research_jobs.notebook.cache import FactsCache, Remembered
from research_jobs.notebook.cells import NotebookText, read_notebook_text
from research_jobs.notebook.scan import scan
from research_jobs.project import Project

MakeProject = Callable[[Mapping[str, str]], Project]

FILES = {
    "notebooks/helper.py": "import numpy as np\n\ndef f():\n    return 1\n",
    "notebooks/deep.py": "import helper\n\ndef g():\n    return helper.f()\n",
    "notebooks/plain.py": "# %%\nx = 1\n",
    "notebooks/study.py": '''\
        """A study."""
        # %% tags=["parameters"]
        lookback: int = 60  # days
        # %%
        import deep
        from research_jobs import load
        prices = load("plain", "x")
        ''',
}


def test_a_scanned_notebook(make_project: MakeProject) -> None:
    """Everything that the factory wants to know."""
    project = make_project(FILES)
    found = scan(project)
    assert [notebook.name for notebook in found.notebooks] == ["plain", "study"]
    assert [project.display(path) for path in found.helpers] == [
        "notebooks/deep.py",
        "notebooks/helper.py",
    ]
    study = found.get("study.py")
    assert (study.module, study.path) == ("study", project.notebooks / "study.py")
    assert study.description == "A study."
    assert [(p.name, p.type, p.default, p.description) for p in study.parameters] == [
        ("lookback", "int", 60, "days")
    ]
    assert study.parameters_cell == 2
    assert [(c.notebook, c.output, c.path, c.line) for c in study.loads] == [
        ("plain", "x", "notebooks/study.py", 7)
    ]
    assert study.assigned["prices"] == 7
    assert study.third_party == ("numpy",)
    assert study.local_modules == ("deep", "helper")
    assert study.error is None
    assert found.problems == ()


def test_no_notebook_is_imported_and_no_library(make_project: MakeProject) -> None:
    """Reading is all that happens, and it takes the standard library only."""
    project = make_project(
        {"notebooks/study.py": "# %%\nimport pandas\nraise SystemExit('imported')\n"}
    )
    code = (
        "import sys\n"
        "from research_jobs.project import find_project\n"
        "from research_jobs.notebook.scan import scan\n"
        f"assert scan(find_project({str(project.root)!r})).third_party == ('pandas',)\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'dagster', 'yaml', 'IPython', 'study'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


OTHERS = sorted(Path.home().glob(".pyenv/versions/3.1[0-9]*/bin/python"))


@pytest.mark.parametrize("python", OTHERS, ids=lambda path: path.parts[-3])
def test_every_supported_python_runs_it(make_project: MakeProject, python: Path) -> None:
    """With nothing installed, and with the same answer, code versions included."""
    project = make_project(FILES)
    root = Path(__file__).resolve().parents[2]
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "from research_jobs.project import find_project\n"
        "from research_jobs.notebook import parity\n"
        "from research_jobs.notebook.scan import scan\n"
        f"found = scan(find_project({str(project.root)!r}))\n"
        "print([(n.name, n.code_version, n.parameters, n.loads) for n in found.notebooks])\n"
    )
    done = subprocess.run(
        [str(python), "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    found = scan(project, use_cache=False)
    ours = [(n.name, n.code_version, n.parameters, n.loads) for n in found.notebooks]
    assert done.stdout.strip() == str(ours)


def test_get_says_what_is_close(make_project: MakeProject) -> None:
    """Or why a file of that name is no notebook."""
    project = make_project({**FILES, "notebooks/class.py": "# %%\n"})
    found = scan(project)
    with pytest.raises(NotebookNotFoundError, match=r"Did you mean 'study'\?"):
        found.get("studdy")
    with pytest.raises(NotebookError, match="is a Python keyword"):
        found.get("class")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"# %% Load\nx = = 1\n", "notebooks/broken.py:2:5: invalid syntax in cell 1"),
        (b"# %%\n%matplotlib inline\n", "is IPython syntax, not Python"),
        (b"# %%\nx = '\xff'\n", "notebooks/broken.py:2:6: byte 0xff is not utf-8"),
        (b"# %%\nx = '\x00'\n", "null byte"),
    ],
)
def test_a_broken_notebook_takes_down_itself_alone(
    make_project: MakeProject, data: bytes, message: str
) -> None:
    """It is there, with its error; the others are as they were, and so the second time."""
    project = make_project(FILES)
    (project.notebooks / "broken.py").write_bytes(data)
    for _ in range(2):
        found = scan(project)
        assert [n.name for n in found.notebooks] == ["broken", "plain", "study"]
        broken = found.get("broken")
        assert isinstance(broken.error, NotebookSyntaxError)
        assert message in str(broken.error)
        assert broken.code_version
        assert found.get("study").error is None


def test_a_broken_helper_is_a_problem(make_project: MakeProject) -> None:
    """The notebooks that import it load, and fail only when they run."""
    project = make_project(FILES)
    before = scan(project).get("study").code_version
    (project.notebooks / "helper.py").write_text("def f(:\n")
    found = scan(project)
    assert "notebooks/helper.py:1:7: invalid syntax" in str(found.problems[0])
    assert found.get("study").error is None
    assert found.get("study").code_version != before


@pytest.mark.parametrize(
    ("path", "old", "new", "touched"),
    [
        ("notebooks/study.py", "# days", "# trading days", set()),
        ("notebooks/study.py", '"""A study."""', '"""Another study."""', set()),
        ("notebooks/study.py", "# %%\nimport", "# %% Load\n\nimport", set()),
        ("notebooks/helper.py", "return 1", "return 1  # one", set()),
        ("notebooks/helper.py", "return 1", "'''Doc.'''\n    return 1", set()),
        ("notebooks/helper.py", "return 1", "return 2", {"study"}),
        ("notebooks/deep.py", "helper.f()", "helper.f() + 1", {"study"}),
        ("notebooks/study.py", "60", "61", {"study"}),
        ("notebooks/study.py", ' tags=["parameters"]', "", {"study"}),
        ("notebooks/plain.py", "x = 1", "x = 2", {"plain"}),
    ],
)
def test_code_versions(
    make_project: MakeProject, path: str, old: str, new: str, touched: set[str]
) -> None:
    """Comments, prose and formatting change none; a helper's change reaches who imports it."""
    project = make_project(FILES)
    before = {n.name: n.code_version for n in scan(project).notebooks}
    file = project.root / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    after = {n.name: n.code_version for n in scan(project).notebooks}
    assert {name for name in before if before[name] != after[name]} == touched


def test_imports_that_are_found(make_project: MakeProject) -> None:
    """In functions, by `import_module`, relative, from the root; each enters the version."""
    project = make_project(
        {
            "notebooks/vol/garch.py": textwrap.dedent(
                """\
                # %%
                import importlib
                from .near import x
                def f():
                    import lazy
                named = importlib.import_module("named")
                import outer
                """
            ),
            "notebooks/vol/near.py": "",
            "notebooks/lazy.py": "",
            "notebooks/named.py": "",
            "outer.py": "",
        }
    )
    assert scan(project).get("vol/garch").local_modules == ("lazy", "named", "outer", "vol.near")


# --- the cache ---------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that scans parse from here on."""
    names: list[str] = []

    def count(text: NotebookText, *, notebook: bool, shown: str) -> facts_module.FileFacts:
        names.append(text.path.name)
        return facts_module.read_facts(text, notebook=notebook, shown=shown)

    monkeypatch.setattr(scan_module, "read_facts", count)
    return names


def age(project: Project, seconds: float = 10) -> None:
    """Make all files look old enough to be believed by their times."""
    past = time.time_ns() - int(seconds * 1e9)
    for path in project.root.rglob("*.py"):
        os.utime(path, ns=(past, past))


def cache(project: Project) -> Path:
    return project.state / "cache" / "scan.json"


def test_the_second_scan_parses_nothing(make_project: MakeProject, parsed: list[str]) -> None:
    """And finds the same."""
    project = make_project(FILES)
    first = scan(project)
    assert sorted(parsed) == ["deep.py", "helper.py", "plain.py", "study.py"]
    parsed.clear()
    assert scan(project) == first
    assert scan(project, use_cache=False) == first
    assert sorted(parsed) == ["deep.py", "helper.py", "plain.py", "study.py"]


def test_only_what_changed_is_parsed(make_project: MakeProject, parsed: list[str]) -> None:
    """A touched file is compared by its bytes, an edited one read anew, a lost one forgotten."""
    project = make_project(FILES)
    scan(project)
    parsed.clear()
    os.utime(project.notebooks / "study.py")
    (project.notebooks / "plain.py").write_text("# %%\nx = 2\n")
    (project.notebooks / "deep.py").unlink()
    found = scan(project)
    assert parsed == ["plain.py"]
    assert found.get("study").local_modules == ()
    assert "deep.py" not in cache(project).read_text()


def test_a_change_within_the_grain_of_the_clock_is_seen(
    make_project: MakeProject, parsed: list[str]
) -> None:
    """Same size, same time: a young file is compared by its bytes."""
    project = make_project({"notebooks/study.py": "# %%\nx = 1\n"})
    path = project.notebooks / "study.py"
    stat = path.stat()
    before = scan(project).get("study").code_version
    path.write_text("# %%\nx = 2\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert scan(project).get("study").code_version != before
    assert len(parsed) == 2


def test_old_files_are_believed_by_their_times(
    make_project: MakeProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then not one notebook is even opened."""
    project = make_project(FILES)
    age(project)
    # what cannot be set is the time of the last change of the inode: let the clock run ahead
    later = time.time_ns() + 10_000_000_000
    monkeypatch.setattr("research_jobs.notebook.cache.time.time_ns", lambda: later)
    first = scan(project)

    def refuse(path: Path) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(scan_module, "read_bytes", refuse)
    assert scan(project) == first


@pytest.mark.parametrize("changed", ["st_mtime_ns", "st_ctime_ns", "st_size", "st_ino", None])
@pytest.mark.parametrize("by", [-1, 1])
def test_each_sign_of_a_change_counts(
    make_project: MakeProject, changed: str | None, by: int
) -> None:
    """A settled file is believed while its times, size and inode are all as they were."""
    project = make_project({"notebooks/study.py": "# %%\nx = 1\n"})
    path = project.notebooks / "study.py"
    fields = {"st_mtime_ns": 10**18, "st_ctime_ns": 10**18, "st_size": 9, "st_ino": 7}
    text = read_notebook_text(path)
    known = Remembered("0" * 64, True, facts_module.read_facts(text, notebook=True, shown="n.py"))
    first: Any = FactsCache(project)
    assert first.get(path, SimpleNamespace(**fields)) is None
    first.put(path, known)
    first.save()
    if changed is not None:
        fields[changed] += by
    second: Any = FactsCache(project)
    found = second.get(path, SimpleNamespace(**fields))
    assert found == (known if changed is None else None)


@pytest.mark.parametrize("young", ["st_mtime_ns", "st_ctime_ns"])
@pytest.mark.parametrize(("age_ns", "believed"), [(2 * 10**9, False), (2 * 10**9 + 1, True)])
def test_a_young_file_is_not_believed(
    make_project: MakeProject,
    monkeypatch: pytest.MonkeyPatch,
    young: str,
    age_ns: int,
    believed: bool,
) -> None:
    """Two seconds must have passed since both of a file's times before they are enough."""
    project = make_project({"notebooks/study.py": "# %%\nx = 1\n"})
    path = project.notebooks / "study.py"
    now = 2 * 10**18
    monkeypatch.setattr("research_jobs.notebook.cache.time.time_ns", lambda: now)
    fields = {"st_mtime_ns": 10**18, "st_ctime_ns": 10**18, "st_size": 9, "st_ino": 7}
    stat = SimpleNamespace(**fields | {young: now - age_ns})
    text = read_notebook_text(path)
    known = Remembered("0" * 64, True, facts_module.read_facts(text, notebook=True, shown="n.py"))
    first: Any = FactsCache(project)
    first.get(path, stat)
    first.put(path, known)
    first.save()
    second: Any = FactsCache(project)
    assert second.get(path, stat) == (known if believed else None)
    assert second.confirm(path, "0" * 64) == known
    assert second.confirm(path, "1" * 64) is None
    assert cache(project).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"lookback", b"lookbaek"),
        lambda data: b"[]\n{}",
        lambda data: b"\xff\xfe\n",
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"scanner"', b'"scammer"'),
    ],
)
def test_a_damaged_cache_is_forgotten(
    make_project: MakeProject, damage: Callable[[bytes], bytes]
) -> None:
    """Truncated, altered, of another version: the scan is right and the cache written anew."""
    project = make_project(FILES)
    first = scan(project)
    good = cache(project).read_bytes()
    cache(project).write_bytes(damage(good))
    assert scan(project) == first
    assert json.loads(cache(project).read_bytes().partition(b"\n")[0])["stamp"]


@pytest.mark.parametrize(
    ("module", "other"), [("sys", SimpleNamespace(version_info=(3, 99, 0))), ("_own_checksum", int)]
)
def test_what_another_python_or_scanner_read_is_read_again(
    make_project: MakeProject,
    parsed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    other: Any,
) -> None:
    """Another version of Python parses files in another way, as another scanner does."""
    project = make_project({"notebooks/study.py": "# %%\nx = 1\n"})
    scan(project)
    monkeypatch.setattr(f"research_jobs.notebook.cache.{module}", other)
    scan(project)
    assert parsed == ["study.py", "study.py"]


def test_entries_of_the_wrong_shape_are_read_anew(make_project: MakeProject) -> None:
    """Even under a right checksum."""
    import zlib

    project = make_project(FILES)
    first = scan(project)
    head, _, body = cache(project).read_bytes().partition(b"\n")
    entries = json.loads(body)
    shapes = [[], [1], [[], True], [*entries[str(project.notebooks / "plain.py")][:4], [1, 2]]]
    for key, shape in zip(sorted(entries), shapes, strict=True):
        entries[key] = shape
    body = json.dumps(entries).encode()
    head = json.dumps({**json.loads(head), "checksum": zlib.crc32(body)}).encode()
    cache(project).write_bytes(head + b"\n" + body)
    assert scan(project) == first


def test_a_cache_that_cannot_be_written_is_no_error(make_project: MakeProject) -> None:
    """A read-only checkout is scanned all the same."""
    project = make_project(FILES)
    project.state.mkdir()
    (project.state / "cache").write_text("a file where the folder should be")
    assert scan(project) == scan(project, use_cache=False)


def test_scans_at_once(make_project: MakeProject) -> None:
    """Each finds the same, the cache is whole, nothing is left behind."""
    project = make_project(FILES)
    first = scan(project, use_cache=False)
    command = (
        "from research_jobs.project import find_project\n"
        "from research_jobs.notebook.scan import scan\n"
        f"for _ in range(20): scan(find_project({str(project.root)!r}))\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", command]) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: scan(project), range(20)):
            assert found == first
    assert [other.wait(60) for other in others] == [0, 0]
    assert [path.name for path in cache(project).parent.iterdir()] == ["scan.json"]
    assert scan(project) == first
