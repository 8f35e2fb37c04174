"""The template: what it imports, what it leaves out, and that runs work all the same."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import MARKER, Lab, marked, wait_until

from research_jobs.outcome import State
from research_jobs.supervisor.preloading import start_template
from research_jobs.supervisor.run import Supervisor
from research_jobs.supervisor.template import Template

MODULES = {
    "fits": "VALUE = 1",
    "prints_at_import": "print('hello from an import')",
    "fails_at_import": "raise RuntimeError('no licence')",
    "hangs_at_import": "import time; time.sleep(600)",
    "leaves_a_thread": """
        import threading, time
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    """,
    "leaves_a_file_open": "FILE = open('/dev/null')",
    "leaves_a_process": "import subprocess; CHILD = subprocess.Popen(['sleep', '600'])",
    "ends_the_interpreter": """
        import os, subprocess
        subprocess.Popen(['sleep', '600'])
        os._exit(9)
    """,
    "raises_system_exit": "raise SystemExit(3)",
    "needs_what_is_missing": "import a_package_that_is_not_there",
    "filters_warnings": "import warnings; warnings.filterwarnings('ignore')",
    "filters_its_own": """
        import warnings
        class Own(UserWarning): pass
        warnings.simplefilter("always", Own)
        warnings.filterwarnings("ignore", message="numpy.ndarray size changed")
        warnings.filterwarnings("ignore", module="filters_its_own")
    """,
    "shows_warnings": "import warnings; warnings.showwarning = lambda *args: None",
    "configures_logging": "import logging; logging.basicConfig(level=10)",
    "disables_logging": "import logging; logging.disable()",
    "sets_a_variable": "import os; os.environ['HOME'] = '/'",
    "adds_a_variable": "import os; os.environ['FLAG'] = '1'",
    "extends_the_path": "import sys; sys.path.append('/somewhere')",
    "wraps_stdout": "import sys, io; sys.stdout = io.TextIOWrapper(io.BytesIO())",
    "hooks_exceptions": "import sys; sys.excepthook = lambda *args: None",
    "deepens_recursion": "import sys; sys.setrecursionlimit(12345)",
    "tunes_the_collector": "import gc; gc.set_threshold(1)",
    "handles_signals": "import signal; signal.signal(signal.SIGUSR1, lambda *args: None)",
    "changes_folder": "import os; os.chdir('/tmp')",
    "changes_the_locale": "import locale; locale.setlocale(locale.LC_ALL, 'C')",
    "sets_precision": "import decimal; decimal.getcontext().prec = 3",
    "sets_error_state": "import numpy; numpy.seterr(all='raise')",
    "prints_arrays": "import numpy; numpy.set_printoptions(precision=2)",
    "sets_pandas_options": "import pandas; pandas.set_option('display.max_rows', 7)",
    "styles_figures": "import matplotlib; matplotlib.rcParams['lines.linewidth'] = 7",
    "starts_processes_otherwise": "import multiprocessing as m; m.set_start_method('spawn')",
    "speaks_on_stderr": "import sys; sys.stderr.write('careful\\n')",
    "grpc": "VALUE = 1",
    "uses_grpc": "import grpc",
    "uses_the_project": "import sys; sys.path.append({project!r}); import own_helper",
}

REASONS = {
    "prints_at_import": "its import writes to stdout",
    "fails_at_import": "its import fails: RuntimeError: no licence",
    "hangs_at_import": "its import takes longer than 8 s",
    "leaves_a_thread": "its import starts a thread",
    "leaves_a_file_open": "its import leaves a file or connection open",
    "leaves_a_process": "its import starts a process",
    "ends_the_interpreter": "its import ends the interpreter",
    "raises_system_exit": "its import fails: SystemExit",
    "needs_what_is_missing": "its import fails: ModuleNotFoundError",
    "grpc": "it is known not to survive a fork",
    "uses_grpc": "it imports grpc, which is known not to survive a fork",
    "uses_the_project": "it imports the project's own file",
    "filters_warnings": "its import changes the warning filters",
    "shows_warnings": "its import changes how warnings are shown",
    "configures_logging": "its import changes the root logger",
    "disables_logging": "its import changes logging",
    "sets_a_variable": "its import changes the environment",
    "extends_the_path": "its import changes sys.path",
    "wraps_stdout": "its import changes standard streams",
    "hooks_exceptions": "its import changes an interpreter hook",
    "deepens_recursion": "its import changes interpreter limits",
    "tunes_the_collector": "its import changes the garbage collector",
    "handles_signals": "its import changes signal handlers",
    "changes_folder": "its import changes the working directory",
    "changes_the_locale": "its import changes the locale",
    "sets_precision": "its import changes the decimal context",
    "sets_error_state": "its import changes numpy's settings",
    "prints_arrays": "its import changes numpy's settings",
    "sets_pandas_options": "its import changes pandas' options",
    "styles_figures": "its import changes matplotlib's settings",
    "starts_processes_otherwise": "its import changes how processes are started",
    "not_installed_anywhere": "does not have it",
    "own_helper": "does not have it",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a helper module."""
    root = tmp_path_factory.mktemp("project")
    (root / "notebooks").mkdir()
    (root / "notebooks" / "own_helper.py").write_text("VALUE = 1\n")
    return root


@pytest.fixture(scope="module")
def libraries(
    tmp_path_factory: pytest.TempPathFactory, project: Path, marker: str
) -> Iterator[Path]:
    """A folder of installed modules that behave badly."""
    folder = tmp_path_factory.mktemp("libraries")
    for name, source in MODULES.items():
        text = textwrap.dedent(source).format(project=str(project / "notebooks"))
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.setenv(MARKER, f"{marker}-libraries")
        yield folder


@pytest.fixture(scope="module")
def started(libraries: Path, project: Path) -> Iterator[tuple[Template, list[str]]]:
    """A template that was asked for all of them, and its log."""
    lines: list[str] = []
    names = [
        *MODULES,
        "numpy",
        "pandas",
        "matplotlib",
        "not_installed_anywhere",
        "own_helper",
        "json",
        "fits.no_module",
    ]
    template = start_template(sys.executable, str(project), names, lines.append, import_limit=8.0)
    yield template, lines
    template.close()


@pytest.mark.parametrize("module", REASONS)
def test_left_out(started: tuple[Template, list[str]], module: str) -> None:
    """A module that a forked run must not find is left out, with the reason in the log."""
    template, lines = started
    assert REASONS[module] in template.report.left_out[module]
    assert module not in template.report.loaded
    said = [line for line in lines if line.startswith(f"{module} is not preloaded: ")]
    assert len(said) == (0 if REASONS[module] == "does not have it" else 1)


def test_what_fits_is_loaded(started: tuple[Template, list[str]]) -> None:
    """The others are loaded; one that only warns is, and its words are logged."""
    template, lines = started
    assert {"fits", "speaks_on_stderr", "filters_its_own", "adds_a_variable"} <= set(
        template.report.loaded
    )
    assert "preloading speaks_on_stderr wrote to stderr: careful" in lines
    theirs = {name for name in template.report.left_out if not name.startswith("research_jobs.")}
    assert theirs == set(REASONS)


def test_earlier_tries_are_gone(started: tuple[Template, list[str]], marker: str) -> None:
    """Templates that had to be given up, and what their imports started, are gone."""
    template, _lines = started
    wait_until(lambda: set(marked(f"{marker}-libraries")) == {template.pid})


def test_notebook_finds_what_was_left_out(libraries: Path, lab: Lab) -> None:
    """A module that was left out is imported by the run itself, its output in the run's log."""
    lab.write("imports", "# %% Import\nimport fits, prints_at_import, own_helper_of_lab\n")
    lab.write("own_helper_of_lab", "VALUE = 1\n")
    with Supervisor(preload=("fits", "prints_at_import")) as supervisor:
        outcome = Lab(lab.root, supervisor).run("imports")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.result.isolation == "fork"
    assert outcome.stdout == b"hello from an import\n"


def test_project_around_its_environment(tmp_path: Path, marker: str) -> None:
    """An environment inside the project is no part of it, and its modules are preloaded."""
    (tmp_path / "notebooks").mkdir()
    site = tmp_path / ".venv" / "lib" / "site-packages"
    site.mkdir(parents=True)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("")
    (site / "installed_inside.py").write_text("VALUE = 1\n")
    (tmp_path / "own_module.py").write_text("VALUE = 1\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(tmp_path))))
        template = start_template(
            sys.executable,
            str(tmp_path),
            ("installed_inside", "own_module"),
            lambda line: None,
        )
    try:
        assert "installed_inside" in template.report.loaded
        assert set(template.report.left_out) == {"own_module"}
    finally:
        template.close()


def test_serves_other_projects(started: tuple[Template, list[str]], tmp_path: Path) -> None:
    """A template serves a project whose files it has not imported, and no other."""
    template, _lines = started
    assert template.serves(str(tmp_path), ())
    (library,) = {str(Path(entry)) for entry in os.environ["PYTHONPATH"].split(os.pathsep)}
    assert not template.serves(library, ())
    assert not template.serves(str(tmp_path), (library,))
