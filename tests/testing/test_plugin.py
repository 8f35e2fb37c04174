"""The pytest plugin: the fixture `notebook`, and `pytest --notebooks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

# pytester drops what its runs import; these must not be imported twice.
import research_jobs.testing.collecting
import research_jobs.testing.run  # noqa: F401
from research_jobs.store.load import load

pytest_plugins = ["pytester"]

PLUGIN = ("-p", "research_jobs.testing.plugin", "-p", "no:cacheprovider", "-p", "no:cov")
COVERAGE = ("-p", "pytest_cov")

PRICES = """
# %%
import pandas as pd

# %% Download
raise RuntimeError("the network is down")
prices = pd.DataFrame()
"""
REPORT = '''
"""A report."""
# %%
import base64

import pandas as pd
from research_jobs import load

# %% tags=["parameters"]
factor = 1

# %% Prices
prices = load("prices", "prices")
print(f"{len(prices)} rows")

# %% Returns
returns = prices["close"].pct_change().dropna() * factor
table = pd.DataFrame({"mean": [returns.mean()], "rows": [len(prices)]})
lock = (value for value in table)

# %% A picture
picture = base64.b64encode(b"a png").decode()
display({"image/png": picture}, raw=True)
display("no picture")


def helper():
    return 1
'''
DAILY = """
# %% tags=["parameters"]
day: str = "2020-01-01"

# %%
from research_jobs import load
signal = {"day": day, "rows": len(load("prices", "prices"))}
"""
MANIFEST = """
notebooks:
  prices: {outputs: [prices], test: {skip: needs the network}}
  report:
    outputs: {table: {min_rows: 1, range: {rows: {max: 5}}}}
    test: {inputs: {prices.prices: samples/prices.parquet}, strict: true}
  daily:
    outputs: [signal]
    partitions: {by: day, start: 2020-01-01, parameter: day}
    test: {inputs: {prices.prices: samples/prices.parquet}, partition: 2020-03-04}
  missing: {test: {inputs: {prices.prices: samples/price.parquet}}}
  misspelt: {test: {inputs: {prices.price: samples/prices.parquet}}}
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose first notebook cannot run here, with a sample of its output."""
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT", raising=False)
    monkeypatch.delenv("RESEARCH_JOBS_STORE", raising=False)
    root = pytester.path
    for name, text in {
        "prices.py": PRICES,
        "report.py": REPORT,
        "daily.py": DAILY,
        "undecided.py": "# %%\nx = 1\n",
        "missing.py": "# %%\nx = 1\n",
        "misspelt.py": "# %%\nx = 1\n",
        "helpers.py": "raise RuntimeError('a helper that is imported')\n",
        "manifest.yaml": MANIFEST,
    }.items():
        (root / "notebooks").mkdir(exist_ok=True)
        (root / "notebooks" / name).write_text(text.lstrip())
    (root / "samples").mkdir()
    (root / "samples" / "prices.parquet").write_bytes(PARQUET)
    pytester.makeini("[pytest]\n")
    return root


def sample() -> pd.DataFrame:
    """Three prices."""
    return pd.DataFrame({"close": [1.0, 2.0, 3.0]}, index=pd.date_range("2020-01-01", periods=3))


PARQUET = sample().to_parquet()  # here, before pytester drops what that imports


def test_a_test_reads_what_a_notebook_made(pytester: pytest.Pytester, project: Path) -> None:
    """Inputs, parameters, outputs, variables, figures and text; a failure names its line."""
    pytester.makepyfile(
        """
        import pandas as pd
        import pytest

        PRICES = ("prices", "prices")
        sample = pd.DataFrame({"close": [1.0, 2.0, 3.0, 6.0]})


        @pytest.fixture(scope="module")
        def nb(notebook):
            return notebook("report", inputs={PRICES: sample}, parameters={"factor": 10})


        def test_values(nb):
            assert nb["table"]["rows"].tolist() == [4]
            assert nb["returns"].tolist() == [10.0, 5.0, 10.0]
            pd.testing.assert_frame_equal(nb["prices"], sample)
            assert nb["factor"] == 10


        def test_shown(nb, capsys):
            assert nb.stdout == "4 rows\\n"
            assert [figure.png for figure in nb.figures] == [b"a png"]
            assert nb.figures[0].title == "A picture"
            assert [check.passed for check in nb.checks] == [True, True]


        def test_unknown(nb):
            with pytest.raises(KeyError, match="report assigns no 'tabel'. Did you mean 'table'"):
                nb["tabel"]
            with pytest.raises(Exception, match="has 'lock', which cannot be read: output 'lock'"):
                nb["lock"]
            assert "helper" not in nb


        def test_a_partition_of_an_input(notebook):
            nb = notebook("daily", inputs={"prices.prices": sample}, partition="2020-02-03")
            assert nb["signal"] == {"day": "2020-02-03", "rows": 4}


        def test_misspelt(notebook):
            with pytest.raises(Exception, match="declares no output 'price'. Did you mean 'pri"):
                notebook("report", inputs={("prices", "price"): sample})


        def test_fails(notebook):
            notebook("report", inputs={PRICES: sample.rename(columns={"close": "last"})})


        def test_refused(notebook):
            notebook("report", inputs={PRICES: pd.concat([sample, sample])})


        def test_strict(notebook):
            notebook("report", strict=True)
        """
    )
    result = pytester.runpytest_inprocess(*PLUGIN, "--tb=short")
    result.assert_outcomes(passed=5, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*test_*.py:*: in test_fails",
            "E   *RunError: notebooks/report.py:16, cell 5 \"Returns\": KeyError: 'close'",
            "E *returns = prices*close*",
            "*Captured stdout call*",
            "4 rows",
            "*test_*.py:*: in test_refused",
            "E   *RunError: report: output 'table' failed the check range: *",
            "*test_*.py:*: in test_strict",
            "E   *cell 4*OutputNotFoundError: prices has no outputs*",
        ]
    )
    result.stdout.no_fnmatch_line("*research_jobs/supervisor/*")
    assert not (project / "data").exists()
    assert not (project / "reports").exists()


def test_each_notebook_is_a_test(pytester: pytest.Pytester, project: Path) -> None:
    """`--notebooks` runs each with its sample inputs; mistakes have their place."""
    result = pytester.runpytest_inprocess(*PLUGIN, "--notebooks", "-rs", "-v")
    result.assert_outcomes(passed=3, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "notebooks/daily.py::notebook PASSED*",
            "notebooks/missing.py::notebook FAILED*",
            "notebooks/misspelt.py::notebook FAILED*",
            "notebooks/prices.py::notebook SKIPPED (needs the network)*",
            "notebooks/report.py::notebook PASSED*",
            "notebooks/undecided.py::notebook PASSED*",
            "notebooks/manifest.yaml:10:*: notebook missing, test.inputs: there is no file*. Make*",
            "notebooks/manifest.yaml:11:*: notebook misspelt, *'price'. Did you mean 'prices'?",
        ]
    )
    assert not (project / "data").exists()


def test_a_mutation_of_a_notebook_fails_its_test(pytester: pytest.Pytester, project: Path) -> None:
    """A notebook that makes something else than its checks allow is a failed test."""
    path = project / "notebooks" / "report.py"
    path.write_text(path.read_text().replace("[len(prices)]", "[2 * len(prices)]"))
    result = pytester.runpytest_inprocess(*PLUGIN, "--notebooks", "-k", "report")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["report: output 'table' failed the check range: *"])


def test_collecting_runs_and_imports_nothing(pytester: pytest.Pytester, project: Path) -> None:
    """Notebooks are listed, even one given by its path that pytest would import."""
    before = set(sys.modules)
    path = str(project / "notebooks" / "prices.py")
    for arguments, count in ((), 6), ((path,), 1):
        result = pytester.runpytest_inprocess(
            *PLUGIN, "--notebooks", "--collect-only", "-q", *arguments
        )
        result.stdout.fnmatch_lines(["notebooks/prices.py::notebook", f"{count} test*"])
        assert result.ret == 0
    assert not {"prices", "helpers"} & (set(sys.modules) - before)


def test_published_outputs_are_read_where_no_input_is_given(
    pytester: pytest.Pytester, project: Path
) -> None:
    """What is not given is read from the store, which the run does not change."""
    from research_jobs.store.codec import write_output
    from research_jobs.store.commit import open_staging, publish

    store = str(project / "data")
    with open_staging(store, "x") as staging:
        path = staging.path / "prices.parquet"
        staged = write_output("prices", sample(), path, options={}, metadata={})
        publish(store, "prices", [staged], staging=staging, partition=None, run_id="x")
    pytester.makepyfile(
        """
        def test_published(notebook):
            assert notebook("report")["table"]["rows"].tolist() == [3]
        """
    )
    pytester.runpytest_inprocess(*PLUGIN).assert_outcomes(passed=1)
    assert sorted(path.name for path in (project / "data").glob("[!.]*")) == ["prices"]
    pd.testing.assert_frame_equal(load("prices", project=project), sample())


def test_lines_of_a_notebook_are_measured(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-cov counts a notebook's lines where they are, whatever process ran them."""
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer than the test
    path = pytester.mkdir("notebooks") / "tiny.py"
    path.write_text("# %%\nfrom half import f\n\n# %%\nif f():\n    x = 1\n\nf()\n")
    path.with_name("half.py").write_text("def f():\n    return 0\n\ndef g():\n    return 1\n")
    result = pytester.runpytest_subprocess(
        *PLUGIN[:4], *COVERAGE, "--notebooks", "--cov=notebooks", "--cov-report=term-missing"
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["notebooks/half.py * 5", "notebooks/tiny.py * 6"])
    assert "no-data-collected" not in result.stderr.str()


def test_without_a_project_there_is_one_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--notebooks` where there are none is a usage error."""
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(pytester.path))
    result = pytester.runpytest_inprocess(*PLUGIN, "--notebooks")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.str().startswith(f"ERROR: {pytester.path} (RESEARCH_JOBS_PROJECT) has no")


def test_a_project_without_notebooks_pays_nothing(tmp_path: Path) -> None:
    """The plugin imports nothing of ours but itself."""
    code = (
        "import sys, research_jobs.testing.plugin;"
        "print(sorted(m for m in sys.modules if m.startswith(('research_jobs', 'pandas'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    expected = ["research_jobs", "research_jobs.testing", "research_jobs.testing.plugin"]
    assert done.stdout.strip() == str(expected)
