"""The factory: one asset for each notebook, whatever is wrong with it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from research_jobs.orchestration.definitions.factory import catalog_defs, known_defs
from research_jobs.orchestration.definitions.jobs import op_names
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.model.names import PRUNE_SCHEDULE

MARKET = """# %% [markdown]
# # Market data
# Fetches prices.
# %% tags=["parameters"]
lookback: int = 3  # how many days
# %%
prices = list(range(lookback))
"""


def assets(lab: Any, **options: Any) -> dict[str, Any]:
    defs = lab.defs(**options)
    dg.Definitions.validate_loadable(defs)
    nodes = defs.get_repository_def().asset_graph
    return {"/".join(node.key.path): node for node in nodes.asset_nodes}


def test_one_asset_for_each_notebook(lab: Any) -> None:
    """Nested folders included, helper modules and underscored files left out."""
    lab.write(
        {
            "market": MARKET,
            "vol/deep/garch": "# %%\nx = 1\n",
            "helpers": "def f(): pass\n",
            "_private": "# %%\n",
        }
    )
    found = assets(lab)
    assert sorted(found) == ["market", "vol/deep/garch"]
    assert found["market"].description.startswith("# Market data\n")
    assert found["market"].kinds == {"python", "notebook"}
    assert found["vol/deep/garch"].group_name == "vol_deep"


def test_what_the_manifest_says_is_on_the_asset(lab: Any) -> None:
    """Owners, tags, group, kinds, description, pool, retries, checks and freshness."""
    lab.write(
        {"market": MARKET, "signals": "# %%\n", "report": "# %%\n"},
        """
notebooks:
  market:
    outputs: {prices: {min_rows: 1, severity: warn}}
    owners: [a@example.com]
    tags: {desk: rates}
    group: data
    kinds: [pandas]
    description: Said here.
    pool: heavy
    retries: {max: 2, delay: 30s, backoff: exponential, jitter: full}
    freshness: {within: 1d, warn_within: 2h}
  signals:
    freshness: {within: 2h, cron: "0 6 * * *", timezone: Asia/Tokyo}
    timezone: Europe/Zagreb
  report:
    freshness: {within: 2h, cron: "0 6 * * *"}
    timezone: Europe/Zagreb
""",
    )
    defs = lab.defs()
    node = defs.get_repository_def().asset_graph.get(dg.AssetKey("market"))
    assert node.owners == ["a@example.com"]
    assert node.tags["desk"] == "rates"
    assert node.group_name == "data"
    assert node.kinds == {"python", "notebook", "pandas"}
    assert node.description == "Said here."
    assert node.pools == {"heavy"}
    op = node.assets_def.op
    assert op.retry_policy == dg.RetryPolicy(
        2, 30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL
    )
    assert [check.name for check in node.assets_def.check_specs] == ["prices_min_rows"]
    hours = timedelta(hours=2)
    assert node.freshness_policy == dg.FreshnessPolicy.time_window(timedelta(days=1), hours)
    for name, zone in (("signals", "Asia/Tokyo"), ("report", "Europe/Zagreb")):
        other = defs.get_repository_def().asset_graph.get(dg.AssetKey(name))
        assert other.freshness_policy == dg.FreshnessPolicy.cron("0 6 * * *", hours, zone)
        assert other.code_version


def test_code_reference_opens_the_file(lab: Any) -> None:
    """The asset's code reference is the notebook's file, line 1."""
    lab.write({"vol/garch": "# %%\n"})
    metadata = assets(lab)["vol/garch"].metadata["dagster/code_references"]
    (reference,) = metadata.code_references
    assert reference.file_path == str(lab.root / "notebooks/vol/garch.py")
    assert reference.line_number == 1


def test_parameters_are_the_config_schema(lab: Any) -> None:
    """Types, defaults, choices and comments of the parameters cell stand in the launchpad."""
    lab.write(
        {
            "market": """# %% tags=["parameters"]
from datetime import date
from typing import Literal
lookback: int = 60  # days
ratio = 0.5
name: str | None = None
since: date = date(2020, 1, 2)
mode: Literal["fast", "slow"] = "fast"
tickers: list[str] = ["A", "B"]
options: dict = {"a": 1}
today = date.today()
needed: int
# %%
"""
        },
        "notebooks: {market: {parameters: {lookback: 20}}}\n",
    )
    op = lab.defs().get_repository_def().assets_defs_by_key[dg.AssetKey("market")].op
    fields = op.config_schema.config_type.fields
    assert fields["lookback"].default_value == 20
    assert fields["lookback"].description == "days"
    assert fields["ratio"].config_type.given_name == "Float"
    assert fields["name"].default_value is None
    assert fields["since"].default_value == "2020-01-02"
    assert fields["mode"].config_type.config_values == ["fast", "slow"]
    assert fields["tickers"].default_value == ["A", "B"]
    assert not fields["today"].default_provided
    assert "date.today()" in fields["today"].description
    assert not fields["needed"].is_required


def test_a_parameter_of_the_partition_is_no_config(lab: Any) -> None:
    """What the partition sets cannot be set in the launchpad too."""
    lab.write(
        {"s": '# %% tags=["parameters"]\nday: str = "x"\nn = 1\n# %%\n'},
        "notebooks: {s: {partitions: {by: day, start: 2024-01-01, parameter: day}}}\n",
    )
    op = lab.defs().get_repository_def().assets_defs_by_key[dg.AssetKey("s")].op
    assert sorted(op.config_schema.config_type.fields) == ["n", "research_jobs_partitions"]


@pytest.mark.parametrize(
    ("notebook", "manifest", "message"),
    [
        ("# %%\nx = = 1\n", "", "notebooks/bad.py:2:5: invalid syntax"),
        ("# %%\n", "notebooks: {bad: {timout: 3}}\n", "timeout"),
        (
            '# %% tags=["parameters"]\nlookback = 1\n# %%\n',
            "notebooks: {bad: {parameters: {lokback: 3}}}\n",
            "Did you mean 'lookback'?",
        ),
        (
            "# %%\n",
            "notebooks: {bad: {outputs: [x], io_manager: warehouse}}\n",
            "the io_manager 'warehouse' of bad is not among the resources",
        ),
    ],
)
def test_a_broken_notebook_is_an_asset_that_says_why(
    lab: Any, notebook: str, manifest: str, message: str
) -> None:
    """It stands in the UI, fails with the message as its first line; the others are untouched."""
    lab.write({"bad": notebook, "good": "# %%\nx = 1\n"}, manifest)
    found = assets(lab)
    assert sorted(found) == ["bad", "good"]
    assert "**Cannot run:**" in found["bad"].description
    run = lab.materialize("bad", "good")
    assert message in run.failure("bad").description.split("\n")[0]
    assert run.materializations("bad") == []
    assert len(run.materializations("good")) == 1


def test_a_manifest_that_is_no_yaml_breaks_all_and_hides_nothing(lab: Any) -> None:
    """Every notebook stands there and says what is wrong with the manifest."""
    lab.write({"a": "# %%\n", "b": "# %%\n"}, "notebooks: [\n")
    found = assets(lab)
    assert sorted(found) == ["a", "b"]
    assert all("manifest.yaml" in node.description for node in found.values())


def test_an_asset_that_dagster_refuses_takes_down_itself_alone(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even a refusal that nobody foresaw stays with its notebook."""
    from research_jobs.orchestration.definitions import factory

    lab.write({"a": "# %%\n", "b": "# %%\n"})
    specs = factory.check_specs

    def refuse(key: dg.AssetKey, outputs: Any) -> Any:
        if key == dg.AssetKey("a"):
            raise dg.DagsterInvalidDefinitionError("no such thing")
        return specs(key, outputs)

    monkeypatch.setattr(factory, "check_specs", refuse)
    found = assets(lab)
    assert "cannot become an asset: no such thing" in found["a"].description
    assert found["b"].description is None


MANY = """
notebooks:
  a: {outputs: [x], watch: "in/[z-a].csv"}
  p/b: {outputs: [c]}
  p_b: {outputs: [c]}
  one: {partitions: {dynamic: {notebook: p/b, output: c}}}
  two: {partitions: {dynamic: {notebook: p_b, output: c}}}
schedules:
  fine: {cron: "0 6 * * *", notebooks: [a]}
  watch_a: {cron: "0 6 * * *", notebooks: [a]}
  research_jobs_prune_nightly: {cron: "0 6 * * *", notebooks: [a]}
  tagged: {cron: "0 6 * * *", notebooks: [a], tags: {dagster/schedule_name: mine}}
retention: {cron: "61 * * * *"}
"""


def test_what_dagster_refuses_takes_down_no_other(lab: Any, caplog: Any) -> None:
    """A name that a sensor has, a tag or an expression of Dagster's own, each with its line."""
    lab.write(dict.fromkeys(("a", "p/b", "p_b", "one", "two"), "# %%\nx = c = ['k']\n"), MANY)
    repository = lab.defs().get_repository_def()
    assert sorted(one.name for one in repository.schedule_defs) == ["fine", PRUNE_SCHEDULE]
    names = [one.name for one in repository.sensor_defs]
    assert (len(set(names)), min(names)[:14]) == (3, "keys_of_p_b_c_")
    said = [one.getMessage().partition(". ")[0] for one in caplog.records]
    ours = "a sensor, or a schedule of ours, is called so"
    assert [one for one in said if "yaml" in one] == [
        (
            "notebooks/manifest.yaml:13:19: retention, cron: "
            "bad cron expression '61 * * * *', minute: '61' is not usable"
        ),
        f"notebooks/manifest.yaml:10:12: schedule watch_a: {ours}",
        f"notebooks/manifest.yaml:11:32: schedule {PRUNE_SCHEDULE}: {ours}",
        (
            "notebooks/manifest.yaml:12:11: schedule tagged: "
            "Attempted to set tag with reserved system prefix: dagster/schedule_name"
        ),
    ]


def test_names_of_ops_are_valid_and_distinct() -> None:
    """Dagster's reserved words, letters it does not take, and a/b beside a__b."""
    names = op_names(["a/b", "a__b", "config", "größe", "vol/garch"])
    assert names["vol/garch"] == "vol__garch"
    assert names["a__b"] == "a__b"
    assert names["config"] == "config_"
    assert len(set(names.values())) == len(names)
    assert all(name.isascii() for name in names.values())


def test_notebooks_named_as_dagster_reserves_run(lab: Any) -> None:
    """A notebook called config is an asset called config."""
    lab.write({"config": "# %%\nx = 1\n", "input": "# %%\n"}, "notebooks: {config: {outputs: [x]}}")
    run = lab.materialize("config", "input")
    assert run.success, run.errors
    assert len(run.materializations("config")) == 1


def test_schedules_and_jobs_are_in_the_definitions(lab: Any) -> None:
    """A schedule of the manifest is on, over the one shared job."""
    lab.write(
        {"market": MARKET},
        'schedules: {morning: {cron: "0 6 * * 1-5", notebooks: [market], timezone: Europe/Zagreb}}',
    )
    repository = lab.defs().get_repository_def()
    schedule = repository.get_schedule_def("morning")
    assert schedule.execution_timezone == "Europe/Zagreb"
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    assert repository.has_job("notebooks")


def test_a_schedule_asks_again_as_often_as_retries_say(lab: Any) -> None:
    """One retry: after one failed run of a partition the next tick asks for it once more."""
    lab.write(
        {"a": "# %%\nraise ValueError\n"},
        "notebooks: {a: {retries: 1, partitions: {by: day, start: 2026-01-01, end: 2026-01-02}}}\n"
        "schedules: {s: {cron: '0 6 * * *', notebooks: [a], catch_up: 0}}\n",
    )
    definitions = lab.defs()
    assert not lab.materialize("a", partition="2026-01-01", definitions=definitions).success
    context = dg.build_schedule_context(
        instance=lab.instance,
        scheduled_execution_time=datetime(2026, 1, 3, 6, tzinfo=UTC),
        repository_def=definitions.get_repository_def(),
    )
    tick = definitions.resolve_schedule_def("s").evaluate_tick(context)
    assert [request.partition_key for request in tick.run_requests or ()] == ["2026-01-01"]


def test_other_definitions_of_the_deployment_are_kept(lab: Any) -> None:
    """Assets, resources, schedules and sensors that are passed in stand beside ours."""

    @dg.asset
    def mine() -> int:
        return 1

    lab.write({"market": MARKET})
    found = assets(lab, assets=[mine], resources={"x": 1})
    assert sorted(found) == ["market", "mine"]


def test_loading_imports_no_library_of_data(lab: Any) -> None:
    """Neither pandas nor pyarrow nor IPython nor nbformat, and no notebook, is imported."""
    lab.write(
        {"market": MARKET + "\nimport pandas\n", "s": "# %%\nx = 1\n"},
        "notebooks: {market: {outputs: {prices: {min_rows: 1}}}, "
        "s: {outputs: [x], partitions: {by: day, start: 2024-01-01}}}\n"
        'schedules: {m: {cron: "0 6 * * *", notebooks: [market, s]}}\n',
    )
    code = f"""
import json, sys
from research_jobs import build_defs
build_defs({str(lab.root)!r}).get_repository_def()
heavy = ["pandas", "numpy", "pyarrow", "polars", "IPython", "nbformat", "matplotlib", "market"]
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert json.loads(printed.splitlines()[-1]) == []


def test_definitions_module_is_a_code_location(lab: Any) -> None:
    """Dagster's own validation loads the project named by the environment."""
    lab.write({"market": MARKET, "bad": "# %%\nx = = 1\n"})
    import os

    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("dagster")),
            "definitions",
            "validate",
            "-m",
            "research_jobs.definitions",
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=lab.root,
        env=os.environ | {"RESEARCH_JOBS_PROJECT": str(lab.root)},
    )
    assert done.returncode == 0, done.stderr
    assert "All code locations passed validation" in done.stdout + done.stderr


def test_a_schedules_parameters_reach_a_notebook_of_an_odd_name(lab: Any) -> None:
    """Definitions, schedules and the command line call its op by one name."""
    text = '# %% tags=["parameters"]\nn = 1\n# %%\n'
    lab.write(
        {"config": text, "größe": text},
        "notebooks: {}\nschedules:\n  s: {cron: '0 6 * * *', notebooks: [config, größe], "
        "parameters: {n: 2}}\n",
    )
    definitions = lab.defs()
    context = dg.build_schedule_context(
        instance=lab.instance,
        scheduled_execution_time=datetime(2026, 1, 1, 6, tzinfo=UTC),
        repository_def=definitions.get_repository_def(),
    )
    (request,) = definitions.resolve_schedule_def("s").evaluate_tick(context).run_requests or ()
    assets = definitions.get_repository_def().assets_defs_by_key
    assert request.run_config["ops"] == {
        assets[dg.AssetKey(name)].node_def.name: {"config": {"n": 2}}
        for name in ("config", "größe")
    }


def test_definitions_that_were_built_are_known_until_something_changes(lab: Any) -> None:
    """A command beside the host takes the host's definitions, unless a notebook has changed."""
    lab.write({"a": "# %%\nx = 1\n"}, "notebooks: {a: {outputs: [x]}}")
    built = catalog_defs(load_catalog(lab.project))
    assert known_defs(load_catalog(lab.project)) is built
    lab.write({"a": "# %%\nx = 2\n"})
    assert known_defs(load_catalog(lab.project)) is None
    mine = dg.AssetSpec("other")
    catalog_defs(load_catalog(lab.project), assets=[mine])
    assert known_defs(load_catalog(lab.project)) is None
