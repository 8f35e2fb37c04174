"""Notebooks under an interpreter of their own, which has neither Dagster nor research_jobs."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab import Lab

from research_jobs.environments.interpreters import resolve_interpreter
from research_jobs.outcome import State
from research_jobs.store.codec import read_output

BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])

PACKAGES = ("numpy", "numpy.libs", "pandas", "pandas.libs", "pyarrow", "dateutil", "pytz")


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment with nothing in it."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def with_pyarrow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment that has pandas and pyarrow, and none of our other packages."""
    folder = tmp_path_factory.mktemp("pyarrow") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    found = importlib.util.find_spec("pyarrow")
    assert found is not None
    assert found.origin is not None
    ours = Path(found.origin).parents[1]
    for name in (*PACKAGES, "six.py", "six"):
        if (ours / name).exists():
            (site / name).symlink_to(ours / name)
    return str(folder / "bin" / "python")


@BOTH
def test_foreign_interpreter(lab: Lab, with_pyarrow: str, isolation: str) -> None:
    """A notebook runs there, writes its outputs, and finds none of our other packages."""
    lab.write(
        "looks_around",
        "# %% Look\n"
        "import importlib.util\n"
        "import sys\n"
        "import pandas as pd\n"
        "found = [n for n in ('dagster', 'pydantic', 'yaml') if importlib.util.find_spec(n)]\n"
        "from research_jobs import context\n"
        "seen = {'found': found, 'prefix': sys.prefix, 'batch': context().in_batch}\n"
        "print(seen)\n"
        "frame = pd.DataFrame({'a': [1, 2]})\n",
    )
    outcome = lab.run("looks_around", outputs=("frame",), python=with_pyarrow, isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.result.isolation == isolation
    said = outcome.stdout.decode()
    assert "'found': []" in said
    assert str(Path(with_pyarrow).parents[1]) in said
    assert "'batch': True" in said
    assert outcome.result.outputs[0].rows == 2


@BOTH
def test_pyarrow_is_missing(lab: Lab, bare: str, isolation: str) -> None:
    """Without pyarrow a notebook without outputs runs; one with outputs says what is missing."""
    assert lab.run("adds_up", python=bare, isolation=isolation).result.state is State.SUCCEEDED
    outcome = lab.run("adds_up", python=bare, isolation=isolation, outputs=("total",))
    assert outcome.result.state is State.FAILED
    assert outcome.headline == (
        f"notebooks/adds_up.py: output 'total' requires the package 'pyarrow', which is not "
        f"installed for {bare}. Install it: {bare} -m pip install pyarrow"
    )


def test_relative_path(lab: Lab, bare: str) -> None:
    """The manifest's path of an interpreter is relative to the project."""
    environment = Path(bare).parents[1]
    (lab.root / ".other").symlink_to(environment)
    outcome = lab.run("adds_up", python=".other/bin/python")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("sh", shutil.which("sh")),
        ("no-such-program", "no-such-program"),
        ("./python", "{project}/python"),
        ("env/bin/python", "{project}/env/bin/python"),
        ("~/env/python", "{home}/env/python"),
        ("/opt/python", "/opt/python"),
    ],
)
def test_where_an_interpreter_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, expected: str
) -> None:
    """A bare name is looked for on the PATH, a path is one from the project's root."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wanted = expected.format(project=tmp_path / "project", home=tmp_path / "home")
    assert resolve_interpreter(named, str(tmp_path / "project")) == wanted
    assert resolve_interpreter(None, str(tmp_path)) is None


@BOTH
def test_interpreter_is_not_there(lab: Lab, isolation: str) -> None:
    """An interpreter that is not there fails the run in one line."""
    outcome = lab.run("adds_up", python="no/such/python", isolation=isolation)
    assert outcome.result.state is State.FAILED
    assert outcome.headline == (
        f"notebooks/adds_up.py: interpreter {lab.root}/no/such/python cannot be started: "
        "No such file or directory. Check `python:` in the manifest."
    )


@BOTH
def test_not_an_interpreter(lab: Lab, isolation: str) -> None:
    """A program that is no Python fails the run and does not hang it."""
    outcome = lab.run("adds_up", python="/bin/false", isolation=isolation)
    assert outcome.result.state is State.FAILED
    assert "/bin/false" in outcome.headline


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_python_too_old(lab: Lab, tmp_path: Path, isolation: str) -> None:
    """A Python that is too old is reported as too old."""
    old = _other_python("3.8", "3.9")
    if old is None:
        pytest.skip("no Python 3.8 or 3.9 here")
    outcome = lab.run("adds_up", python=old, isolation=isolation)
    assert outcome.result.state is State.FAILED
    assert "3.10 or later is required" in outcome.headline


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13", "3.14"])
@BOTH
def test_other_versions(lab: Lab, version: str, isolation: str) -> None:
    """Other versions of Python run a notebook, as far as they are on this machine."""
    python = _other_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    outcome = lab.run("adds_up", python=python, isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.stdout == b"the total is 3\n"
    assert outcome.stderr == b""
    failed = lab.run("segfaults", python=python, isolation=isolation)
    assert "segfaults.py:7" in failed.headline


PROCESSES = """
# %% A copy of the notebook, and workers
import atexit, doctest, multiprocessing, os
atexit.register(lambda: print("handler", flush=True))
def double(x):
    '''
    >>> double(2)
    4
    '''
    return x * 2
assert tuple(doctest.testmod())[:2] == (0, 1)
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
# %% Workers
with multiprocessing.get_context("fork").Pool(2) as pool:
    value = pool.map(double, [0, 1, 2]) if pid else "of the copy"
if pid:
    print(value, flush=True)
    if os.environ.get("METHOD"):
        with multiprocessing.get_context(os.environ["METHOD"]).Pool(2) as pool:
            pool.map(double, [0, 1, 2])
"""


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("method", ["", "spawn", "forkserver"])
def test_processes_of_other_versions(lab: Lab, version: str, method: str) -> None:
    """Copies and workers of a notebook keep to their places under other versions of Python."""
    python = _other_python(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    lab.write("processes", PROCESSES)
    outcome = lab.run("processes", python=python, environment={"METHOD": method}, timeout_s=120.0)
    if method:
        # Where the interruption hits the pool's own code, Python ends without its exit handlers.
        assert outcome.stdout in (b"[0, 2, 4]\nhandler\n", b"[0, 2, 4]\n")
        assert outcome.result.state is State.FAILED
        assert "a worker process tried to import this notebook" in outcome.headline
    else:
        assert outcome.stdout == b"[0, 2, 4]\nhandler\n"
        assert outcome.result.state is State.SUCCEEDED, (outcome.headline, outcome.stderr)


RICH = """
# %% tags=["parameters"]
days: int = 2

# %% Outputs of several kinds, a report and a check on the way
import datetime as dt
import sys
import pandas as pd
import polars as pl
frame = pd.DataFrame(
    {"day": pd.date_range("2024-01-01", periods=days, tz="Europe/Zagreb"), "x": pd.array([1, None])}
).set_index("day")
table = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
facts = {"version": list(sys.version_info[:2]), "when": dt.date(2024, 1, 1)}
frame
"""
# Interpreters with pyarrow, pandas, polars and IPython: those of other versions seldom have them.
EQUIPPED = [name for name in os.environ.get("RESEARCH_JOBS_TEST_PYTHONS", "").split(":") if name]


@pytest.mark.parametrize("python", EQUIPPED or [None])
@BOTH
def test_other_versions_with_pyarrow(lab: Lab, python: str | None, isolation: str) -> None:
    """What notebooks of other versions write is read here as it was there, parameters included."""
    if python is None:
        pytest.skip("RESEARCH_JOBS_TEST_PYTHONS names no interpreters")
    lab.write("rich", RICH)
    capture = lab.root / "capture.jsonl"
    outcome = lab.run(
        "rich",
        outputs=("frame", "table", "facts"),
        python=python,
        isolation=isolation,
        capture_path=str(capture),
    )
    assert outcome.result.state is State.SUCCEEDED, (outcome.headline, outcome.stderr)
    assert outcome.result.isolation == isolation
    assert outcome.stderr == b""
    read = {item.name: read_output(Path(item.path)) for item in outcome.result.outputs}
    assert read["facts"]["when"] == dt.date(2024, 1, 1)
    version = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("Python {}.{}.".format(*read["facts"]["version"]))
    assert str(read["frame"].index.tz) == "Europe/Zagreb"
    assert read["frame"]["x"].isna().tolist() == [False, True]
    assert read["table"].rows() == [(1, "x"), (2, None)]
    assert '"execute_result"' in capture.read_text()


def _other_python(*versions: str) -> str | None:
    """An interpreter of one of the versions, on the path or as pyenv keeps them."""
    import shutil

    for version in versions:
        kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        for found in (*kept.glob(f"{version}.*/bin/python"), shutil.which(f"python{version}")):
            if found and subprocess.run([found, "-c", ""], check=False).returncode == 0:
                return str(found)
    return None
