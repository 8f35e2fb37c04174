"""The IO manager: publishing, what other assets get, and other managers in its place."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from dagster._core.storage.db_io_manager import DbClient, DbIOManager, DbTypeHandler

from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.history import read_history
from research_jobs.outcome import State

PRICES = """# %%
import pandas as pd
prices = pd.DataFrame({"close": [1.0, 2.0]}, index=pd.Index(["A", "B"], name="ticker"))
summary = {"rows": 2}
"""
DAILY = """# %% tags=["parameters"]
day: str = "2024-01-01"
# %%
rows = [day]
"""
PARTITIONS = "partitions: {by: day, start: 2024-01-01, end: 2024-01-06, parameter: day}"


def test_another_asset_takes_a_notebook_as_input(lab: Any) -> None:
    """It gets a mapping of the outputs, type included, that reads only what is asked for."""
    lab.write({"market": PRICES}, "notebooks: {market: {outputs: [prices, summary]}}\n")
    got: dict[str, Any] = {}

    @dg.asset
    def mine(market: Any) -> None:
        got["names"] = sorted(market)
        (lab.root / "data/market/summary.parquet").resolve().unlink()
        got["prices"] = market["prices"]

    run = lab.materialize("market", "mine", definitions=lab.defs(assets=[mine]))
    assert run.success, run.errors
    assert got["names"] == ["prices", "summary"]
    assert got["prices"].loc["B", "close"] == 2.0


def test_an_asset_loads_what_an_earlier_run_published(lab: Any) -> None:
    """Also in a run of its own, where the notebook did not run."""
    lab.write({"market": PRICES}, "notebooks: {market: {outputs: [summary]}}\n")
    assert lab.materialize("market").success
    got: list[Any] = []

    @dg.asset
    def mine(market: Any) -> None:
        got.append(market["summary"])

    assert lab.materialize("mine", definitions=lab.defs(assets=[mine])).success
    assert got == [{"rows": 2}]


def test_partitions_as_inputs(lab: Any) -> None:
    """Alike partitioned: that partition's outputs; without partitions: a mapping of those there."""
    lab.write({"s": DAILY}, f"notebooks: {{s: {{outputs: [rows], {PARTITIONS}}}}}\n")
    days = dg.TimeWindowPartitionsDefinition(
        cron_schedule="0 0 * * *", start="2024-01-01", end="2024-01-06", fmt="%Y-%m-%d"
    )
    got: dict[str, Any] = {}

    @dg.asset(partitions_def=days)
    def same(s: Any) -> None:
        got["same"] = s["rows"]

    @dg.asset
    def whole(s: Any) -> None:
        got["whole"] = {key: outputs["rows"] for key, outputs in s.items()}

    definitions = lab.defs(assets=[same, whole])
    assert lab.materialize("s", span=("2024-01-02", "2024-01-03"), definitions=definitions).success
    run = lab.materialize("same", partition="2024-01-02", definitions=definitions)
    assert run.success, run.errors
    run = lab.materialize("whole", definitions=definitions)
    assert run.success, run.errors
    assert got["same"] == ["2024-01-02"]
    assert got["whole"] == {"2024-01-02": ["2024-01-02"], "2024-01-03": ["2024-01-03"]}


def test_a_second_run_keeps_what_reads_the_first(lab: Any) -> None:
    """Rows are compared with those of the run before."""
    lab.write({"market": "# %%\nprices = [1, 2]\n"}, "notebooks: {market: {outputs: [prices]}}\n")
    first = lab.materialize("market").metadata("market")
    assert "rows_change" not in first
    lab.write({"market": "# %%\nprices = [1, 2, 3]\n"})
    assert lab.materialize("market").metadata("market")["rows_change"] == 1


def test_a_failure_to_publish_fails_the_step_and_leaves_the_old(lab: Any) -> None:
    """Something in the way in the store: the step fails before the notebook runs for hours."""
    text = "# %%\nfrom pathlib import Path\nPath('ran').touch()\nprices = [1]\n"
    lab.write({"market": text}, "notebooks: {market: {outputs: [prices]}}\n")
    (lab.root / "data/market").mkdir(parents=True)
    (lab.root / "data/market/prices.parquet").write_text("somebody else's")
    run = lab.materialize("market")
    assert run.steps("STEP_FAILURE") == ["market"]
    assert "is in the way" in run.errors
    assert (lab.root / "data/market/prices.parquet").read_text() == "somebody else's"
    assert not list((lab.root / "data").glob(".staging/*"))
    assert not list(lab.root.rglob("ran"))


def last_outcome(lab: Any, name: str) -> Any:
    """What `show` reads of a notebook's last run."""
    catalog = load_catalog(lab.project)
    (outcome,) = read_history(lab.instance, catalog, catalog.entries[name], limit=5)
    return outcome


def test_a_failure_to_publish_leaves_the_record_of_the_run(lab: Any) -> None:
    """The step's failure says what the run was: its time, its report, and why nothing is stored."""
    text = (
        "# %%\nfrom pathlib import Path\n"
        "folder = Path(__file__).parents[1] / 'data/market'\nfolder.mkdir(parents=True)\n"
        "(folder / 'prices.parquet').write_text('somebody else')\nprices = [1]\n"
    )
    lab.write({"market": text}, "notebooks: {market: {outputs: [prices]}}\n")
    lab.materialize("market")
    outcome = last_outcome(lab, "market")
    assert outcome.state is State.FAILED
    assert "is in the way" in outcome.reason
    assert outcome.peak_memory_bytes > 0
    assert not outcome.outputs
    assert "is in the way" in Path(outcome.report).read_text()


@pytest.mark.parametrize("kind", ["function", "generator"])
def test_a_failure_of_another_manager_leaves_the_record_of_the_run(lab: Any, kind: str) -> None:
    """As for our own, whichever kind of function stores, with the exception as its cause."""

    class Full(dg.IOManager):
        def handle_output(self, context: Any, obj: Any) -> None:
            raise OSError("the warehouse is full")

        def load_input(self, context: Any) -> Any:
            raise NotImplementedError

    class Yielding(Full):
        def handle_output(self, context: Any, obj: Any) -> Any:
            yield dg.AssetMaterialization("half")
            raise OSError("the warehouse is full")

    lab.write(
        {"market": PRICES},
        "notebooks: {market: {outputs: [prices, summary], io_manager: warehouse}}\n",
    )
    manager = Full() if kind == "function" else Yielding()
    run = lab.materialize("market", definitions=lab.defs(resources={"warehouse": manager}))
    reason = (
        "market: the IO manager 'warehouse' did not store the outputs: "
        "OSError: the warehouse is full"
    )
    assert run.failure("market").description == reason
    outcome = last_outcome(lab, "market")
    assert (outcome.state, outcome.reason) == (State.FAILED, reason)
    assert outcome.peak_memory_bytes > 0
    assert "the warehouse is full" in Path(outcome.report).read_text()
    (failed,) = [e for e in run.events if e.event_type_value == "STEP_FAILURE"]
    assert "in handle_output" in failed.step_failure_data.error.cause.to_string()
    assert not list((lab.root / "data/.staging").iterdir())


def test_what_another_manager_says_of_an_output_is_kept(lab: Any) -> None:
    """Metadata and materialisations that it yields, and metadata that it returns, reach Dagster."""

    class Yielding(dg.IOManager):
        def handle_output(self, context: Any, obj: Any) -> Any:
            context.add_output_metadata({"rows_stored": len(obj["prices"])})
            yield dg.AssetMaterialization("copy")

        def load_input(self, context: Any) -> Any:
            raise NotImplementedError

    lab.write(
        {"market": PRICES},
        "notebooks: {market: {outputs: [prices], io_manager: warehouse}}\n",
    )
    run = lab.materialize("market", definitions=lab.defs(resources={"warehouse": Yielding()}))
    assert run.success, run.errors
    assert run.metadata("market")["rows_stored"] == 2
    assert len(run.materializations("copy")) == 1


def test_dagsters_filesystem_manager_gets_the_mapping(lab: Any, tmp_path: Path) -> None:
    """`io_manager:` in the manifest: it stores a dict of values, and hands it to who reads."""
    lab.write(
        {"market": PRICES},
        "notebooks: {market: {outputs: [prices, summary], io_manager: warehouse}}\n",
    )
    got: list[Any] = []

    @dg.asset
    def mine(market: Any) -> None:
        got.append(market)

    manager = dg.FilesystemIOManager(base_dir=str(tmp_path / "warehouse"))
    definitions = lab.defs(assets=[mine], resources={"warehouse": manager})
    run = lab.materialize("market", "mine", definitions=definitions)
    assert run.success, run.errors
    assert sorted(got[0]) == ["prices", "summary"]
    assert got[0]["prices"].equals(
        pd.DataFrame({"close": [1.0, 2.0]}, index=pd.Index(["A", "B"], name="ticker"))
    )
    assert (tmp_path / "warehouse/market").exists()
    assert not (lab.root / "data/market").exists()
    # The report is made after that manager stored the outputs; its link is known before.
    made = run.metadata("market")
    page = Path(made["report_file"])
    assert "report" in made
    assert page.parent.parent == lab.root / "reports" / "market" / "_runs"
    assert page.is_file()


FRAME = """# %%
import {library} as lib
prices = lib.DataFrame({{"close": [1.0, 2.0]}})
"""


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_manager_of_tables_gets_the_table(lab: Any, tmp_path: Path, library: str) -> None:
    """dagster-polars takes polars frames: it gets the one output as one, whoever made it."""
    dagster_polars = pytest.importorskip("dagster_polars")
    import polars as pl

    lab.write(
        {"market": FRAME.format(library=library)},
        "notebooks: {market: {outputs: [prices], io_manager: warehouse}}\n",
    )
    manager = dagster_polars.PolarsParquetIOManager(base_dir=str(tmp_path / "warehouse"))
    run = lab.materialize("market", definitions=lab.defs(resources={"warehouse": manager}))
    assert run.success, run.errors
    # Read by itself: dagster-polars' own reading does not know polars 2 yet.
    assert pl.read_parquet(tmp_path / "warehouse/market.parquet")["close"].sum() == 3.0


def test_a_manager_of_database_tables_gets_the_table(lab: Any) -> None:
    """Dagster's database managers (DuckDB, Snowflake...) know frames by their handlers' types."""
    kept: list[Any] = []

    class Handler(DbTypeHandler[pd.DataFrame]):
        def handle_output(self, context: Any, table_slice: Any, obj: Any, connection: Any) -> None:
            kept.append((table_slice.table, obj))

        def load_input(self, context: Any, table_slice: Any, connection: Any) -> pd.DataFrame:
            raise NotImplementedError

        @property
        def supported_types(self) -> list[type]:
            return [pd.DataFrame]

    class Client(DbClient[None]):
        connect = staticmethod(lambda context, table_slice: nullcontext())
        delete_table_slice = ensure_schema_exists = staticmethod(lambda *_: None)
        get_select_statement = staticmethod(lambda table_slice: "select")

    lab.write(
        {"market": FRAME.format(library="pandas")},
        "notebooks: {market: {outputs: [prices], io_manager: warehouse}}\n",
    )
    manager = DbIOManager(type_handlers=[Handler()], db_client=Client(), database="d")
    run = lab.materialize("market", definitions=lab.defs(resources={"warehouse": manager}))
    assert run.success, run.errors
    ((table, frame),) = kept
    assert table == "market"
    assert frame["close"].sum() == 3.0


def test_a_manager_of_tables_refuses_several_outputs(lab: Any, tmp_path: Path) -> None:
    """One clear line, instead of a table that lacks half."""
    dagster_polars = pytest.importorskip("dagster_polars")
    lab.write(
        {"market": PRICES},
        "notebooks: {market: {outputs: [prices, summary], io_manager: warehouse}}\n",
    )
    manager = dagster_polars.PolarsParquetIOManager(base_dir=str(tmp_path / "w"))
    run = lab.materialize("market", definitions=lab.defs(resources={"warehouse": manager}))
    assert "market has 2 outputs (prices, summary)" in run.failure("market").description
    assert not list((lab.root / "data/.staging").iterdir())


def test_another_manager_runs_one_partition_at_a_time(lab: Any, tmp_path: Path) -> None:
    """A notebook with one asks Dagster for a run for each partition."""
    lab.write(
        {"s": DAILY},
        f"notebooks: {{s: {{outputs: [rows], io_manager: warehouse, {PARTITIONS}}}}}\n",
    )
    manager = dg.FilesystemIOManager(base_dir=str(tmp_path / "warehouse"))
    definitions = lab.defs(resources={"warehouse": manager})
    node = definitions.get_repository_def().asset_graph.get(dg.AssetKey("s"))
    assert node.backfill_policy == dg.BackfillPolicy.multi_run(1)
    run = lab.materialize("s", partition="2024-01-02", definitions=definitions)
    assert run.success, run.errors
    assert (tmp_path / "warehouse/s/2024-01-02").exists()


def test_it_keeps_outputs_of_notebooks_only(lab: Any) -> None:
    """An asset that uses the resource by mistake gets an error that says so."""

    @dg.asset(io_manager_key="notebook_io_manager")
    def mine() -> int:
        return 1

    lab.write({"market": PRICES})
    run = lab.materialize("mine", definitions=lab.defs(assets=[mine]))
    assert "keeps the outputs of notebooks only" in run.errors
