"""What a notebook's asset does: every ending, on real instances with real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

PRICES = """# %% tags=["parameters"]
lookback: int = 3  # days
# %%
print("hello from the notebook")
prices = list(range(lookback))
summary = {"rows": lookback}
"""
OUTPUTS = "notebooks: {market: {outputs: [prices, summary]}}\n"


def test_a_notebook_is_materialised(lab: Any) -> None:
    """Its outputs are published, and one materialisation says rows, path, time, memory, code."""
    lab.write({"market": PRICES}, OUTPUTS)
    run = lab.materialize("market")
    assert run.success, run.errors
    said = run.metadata("market")
    assert said["dagster/row_count"] == 3
    assert said["path"] == str(lab.root / "data/market/prices.parquet")
    assert Path(said["path"]).exists()
    assert Path(said["summary/path"]).exists()
    assert said["parameters"] == {"lookback": "3"}
    assert said["duration_s"] > 0
    assert said["peak_memory_bytes"] > 1_000_000
    assert said["code_version"]
    assert Path(said["report_file"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert not list((lab.root / "data" / ".staging").iterdir())
    assert not list((lab.root / ".research_jobs" / "runs").iterdir())


def test_config_sets_parameters(lab: Any) -> None:
    """A value from the launchpad replaces the cell's and is recorded."""
    lab.write({"market": PRICES}, OUTPUTS)
    said = lab.materialize("market", config={"market": {"lookback": 5}}).metadata("market")
    assert said["dagster/row_count"] == 5
    assert said["parameters"] == {"lookback": "5"}


def test_a_missing_parameter_fails_before_any_process(lab: Any) -> None:
    """A parameter without default and value is one clear line, and no retry helps."""
    lab.write(
        {"market": '# %% tags=["parameters"]\nlookback: int\n# %%\n'},
        "notebooks: {market: {retries: 3}}\n",
    )
    run = lab.materialize("market")
    assert "needs a value for its parameter 'lookback'" in run.failure("market").description
    assert run.steps("STEP_UP_FOR_RETRY") == []


def test_an_exception_is_reported_with_its_place_first(lab: Any) -> None:
    """File, line and cell first; traceback, cell and report below; nothing is published."""
    lab.write({"market": PRICES}, OUTPUTS)
    assert lab.materialize("market").success
    before = (lab.root / "data/market/prices.parquet").read_bytes()
    lab.write({"market": PRICES + "# %% Load prices\nraise KeyError('Close')\n"})
    run = lab.materialize("market")
    failure = run.failure("market")
    assert failure.description == "notebooks/market.py:8, cell 3 \"Load prices\": KeyError: 'Close'"
    said = {key: value.value for key, value in failure.metadata.items()}
    assert said["ending"] == "failed"
    assert "raise KeyError('Close')" in said["cell"]
    assert "KeyError" in said["traceback"]
    assert "research_jobs/" not in said["traceback"]
    assert said["report_file"].partition("#")[0].endswith("report.html")
    assert run.materializations("market") == []
    assert (lab.root / "data/market/prices.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("body", "ending"),
    [
        ("import os; os._exit(0)", "exited"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed"),
        ("import time; time.sleep(60)", "timed_out"),
    ],
)
def test_other_endings_fail_the_step(lab: Any, body: str, ending: str) -> None:
    """A process that is gone, or takes too long, fails its step by name."""
    lab.write(
        {"market": f"# %%\nprices = 1\n{body}\n"},
        "notebooks: {market: {outputs: [prices], timeout: 2s}}\n",
    )
    failure = lab.materialize("market").failure("market")
    assert failure.metadata["ending"].value == ending
    assert "market.py" in failure.description


def test_an_output_that_was_not_assigned_fails(lab: Any) -> None:
    """A declared output without a value is a failure that suggests what was meant."""
    lab.write({"market": "# %%\nprice = 1\n"}, "notebooks: {market: {outputs: [prices]}}\n")
    failure = lab.materialize("market").failure("market")
    assert "'prices'" in failure.description
    assert "'price'" in failure.description


def test_retries_as_the_manifest_says(lab: Any) -> None:
    """A notebook that fails once succeeds at the second attempt, in the same run."""
    marker = lab.root / "tried"
    lab.write(
        {
            "market": f"# %%\nimport pathlib\nmarker = pathlib.Path({str(marker)!r})\n"
            "if not marker.exists():\n    marker.touch()\n    raise OSError('no')\nprices = 1\n"
        },
        "notebooks: {market: {outputs: [prices], retries: 2}}\n",
    )
    run = lab.materialize("market")
    assert run.success, run.errors
    assert run.steps("STEP_UP_FOR_RETRY") == ["market"]
    assert len(run.materializations("market")) == 1


def test_skip_leaves_a_reason_and_nothing_else(lab: Any) -> None:
    """The step is green, nothing is materialised, what reads it is skipped, the reason stays."""
    lab.write(
        {
            "market": "# %%\nfrom research_jobs import skip\nskip('market closed')\n",
            "report": "# %%\nfrom research_jobs import load\nx = load('market', 'prices')\n",
        },
        "notebooks: {market: {outputs: {prices: {min_rows: 1}}}, report: {outputs: [x]}}\n",
    )
    run = lab.materialize("market", "report")
    assert run.success
    assert run.steps("STEP_SUCCESS") == ["market"]
    assert run.steps("STEP_SKIPPED") == ["report"]
    assert run.materializations("market") == []
    (observation,) = run.observations("market")
    assert observation.description == "market closed"
    assert observation.metadata["research_jobs/skipped"].value == "market closed"
    assert Path(observation.metadata["report_file"].value).exists()
    assert not (lab.root / "data/market/prices.parquet").exists()


def test_dependencies_run_in_order(lab: Any) -> None:
    """What loads another runs after it and sees its new outputs; a failure upstream stops it."""
    lab.write(
        {
            "a": "# %%\nx = 41\n",
            "b": "# %%\nfrom research_jobs import load\ny = load('a', 'x') + 1\n",
        },
        "notebooks: {a: {outputs: [x]}, b: {outputs: [y]}}\n",
    )
    run = lab.materialize("a", "b")
    assert run.success, run.errors
    from research_jobs import load

    assert load("b", "y", project=lab.root) == 42
    lab.write({"a": "# %%\nraise OSError\n"})
    run = lab.materialize("a", "b")
    assert run.steps("STEP_FAILURE") == ["a"]
    assert run.steps("STEP_START") == ["a"]


def test_notebooks_without_outputs_are_assets_too(lab: Any) -> None:
    """They run and are materialised, with a report and no path."""
    lab.write({"market": "# %%\nprint(1)\n"})
    said = lab.materialize("market").metadata("market")
    assert "path" not in said
    assert Path(said["report_file"]).exists()


def test_isolation_of_the_project_and_of_a_notebook(lab: Any) -> None:
    """`isolation: spawn` under defaults starts notebooks cold, but for one that says fork."""
    who = "# %%\nimport sys\nprint('pandas' in sys.modules)\nimport pandas\n"
    lab.write(
        {"a": who, "b": who},
        "defaults: {isolation: spawn}\nnotebooks: {b: {isolation: fork}}\n",
    )
    run = lab.materialize("a", "b")
    assert run.success, run.errors
    # What was forked has the modules that its template preloaded.
    assert (run.stdout("a").strip(), run.stdout("b").strip()) == ("False", "True")


def test_ordinary_assets_in_the_same_run(any_lab: Any, tmp_path: Path) -> None:
    """Assets in Python run before and after a notebook, each with its own log, all in one run."""
    lab = any_lab
    report = "# %%\nimport pathlib\nprint('a notebook')\n"
    report += f"doubled = 2 * int(pathlib.Path({str(tmp_path / 'prices')!r}).read_text())\n"
    lab.write({"report": report}, "notebooks: {report: {outputs: [doubled], deps: [prices]}}\n")

    @dg.asset
    def prices() -> dg.MaterializeResult[None]:
        print("an asset before")
        (tmp_path / "prices").write_text("21")
        return dg.MaterializeResult()

    @dg.asset
    def mail(report: Any) -> dg.MaterializeResult[None]:
        print("an asset after, given", report["doubled"])
        return dg.MaterializeResult()

    definitions = lab.defs(assets=[prices, mail])
    run = lab.materialize("prices", "report", "mail", definitions=definitions)
    assert run.success, run.errors
    starts = [e.step_key for e in run.events if e.event_type_value == "STEP_START"]
    assert starts == ["prices", "report", "mail"]
    said = {step: run.stdout(step) for step in starts}
    assert said == {
        "prices": "an asset before\n",
        "report": "a notebook\n",
        "mail": "an asset after, given 42\n",
    }


@pytest.mark.parametrize("executor", [dg.in_process_executor, dg.multiprocess_executor])
def test_dagsters_own_executors_do_too(lab: Any, executor: Any, tmp_path: Path) -> None:
    """Only slower: in the run's process, and in a process for each step."""
    lab.write({"market": PRICES}, OUTPUTS)
    if executor is dg.in_process_executor:
        run = lab.materialize("market", definitions=lab.defs(executor=executor))
        assert run.success, run.errors
    else:
        location = tmp_path / "location.py"
        location.write_text(
            "import dagster as dg\nfrom research_jobs import build_defs\n"
            f"defs = build_defs({str(lab.root)!r}, executor=dg.multiprocess_executor)\n"
            "job = defs.get_implicit_global_asset_job_def\n"
        )
        from dagster import execute_job
        from dagster._core.definitions.reconstruct import ReconstructableRepository

        repository = ReconstructableRepository.for_file(str(location), "defs")
        result = execute_job(
            repository.get_reconstructable_job("__ASSET_JOB"),
            instance=lab.instance,
            asset_selection=[dg.AssetKey("market")],
        )
        assert result.success
    assert (lab.root / "data/market/prices.parquet").exists()
