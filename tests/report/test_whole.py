"""The whole of a table that was shown in part: only of the output that it is, and in bounds."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

from research_jobs.outcome import Outcome, StagedOutput, State
from research_jobs.protocol import PartitionKey
from research_jobs.report import whole
from research_jobs.report.build import build_report, standalone
from research_jobs.report.whole import Published, WholeTables
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish

RANDOM = np.random.default_rng(1)
TRADES = pd.DataFrame(
    {
        "when": pd.date_range("2024-01-01", periods=12_000, freq="h"),
        "name": RANDOM.choice(["dax", "sp500", None], 12_000),
        "price": RANDOM.normal(100, 15, 12_000),
        "size": RANDOM.integers(1, 10_000, 12_000),
    }
)


@pytest.fixture
def published(tmp_path: Path) -> Callable[..., WholeTables]:
    """Publishes one value as ``trades``, and says what a report knows then."""

    def make(
        value: Any, *, secrets: tuple[str, ...] = (), row_group_size: int = 100_000, **changes: Any
    ) -> WholeTables:
        store = str(tmp_path / "data")
        with open_staging(store, "run-1") as staging:
            path = staging.path / "trades.parquet"
            staged = write_output(
                "trades", value, path, options={"row_group_size": row_group_size}, metadata={}
            )
            publish(store, "nb", [staged], staging=staging, partition=None, run_id="run-1")
        item = StagedOutput("trades", "", "", staged.rows, staged.bytes)
        said = {"notebook": "nb", "run_id": "run-1", "outputs": (item,)} | changes
        outcome = Outcome(said.pop("state", State.SUCCEEDED), **said)
        return WholeTables(outcome, Published(store, None, secrets))

    return make


def unpacked(tables: WholeTables) -> dict[str, Any]:
    (script,) = tables.scripts.values()
    packed = re.fullmatch(r'researchJobsTable\("tables/1.js","([\w+/=]+)"\);\n', script)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


INDEXED = TRADES.set_index("when")
LEVELS = TRADES.set_index(["name", "when"])


@pytest.mark.parametrize(
    ("value", "labels", "index"),
    [
        (TRADES, ["", "when", "name", "price", "size"], 1),
        (INDEXED, ["", "name", "price", "size"], 1),
        (LEVELS, ["", "", "price", "size"], 2),
        (pl.from_pandas(TRADES), ["when", "name", "price", "size"], 0),
    ],
)
def test_the_output_that_a_table_shows(published, value, labels, index):
    """12,000 rows shown as ten, by pandas or polars, are offered whole and with all digits."""
    tables = published(value)
    found = tables.find(value._repr_html_())
    assert (found.output, found.rows, found.of) == ("trades", 12_000, 12_000)
    said = unpacked(tables)
    assert (said["labels"], said["index"]) == (labels, index)
    assert [float(text) for text in said["columns"][-2]] == TRADES["price"].tolist()
    assert tables.find(value._repr_html_()) is found  # once, however often it is shown


@pytest.mark.parametrize(
    "other",
    [
        TRADES.assign(price=TRADES["price"] * 2),
        TRADES.iloc[::-1],
        TRADES.iloc[:-1],
        TRADES.rename(index=lambda n: n + 1),
        TRADES.head(5),
        TRADES.assign(name="1e999"),
    ],
)
def test_another_table_is_not_it(published, other):
    """A table of the same size with other values is not taken for the output."""
    assert published(TRADES.assign(name="5")).find(other._repr_html_()) is None


def test_what_was_not_published(published):
    """A run that failed, another run's file and a store that is gone offer nothing."""
    html = TRADES._repr_html_()
    assert published(TRADES, state=State.REFUSED).find(html) is None
    item = StagedOutput("trades", "", "", 12_000, 5)
    assert published(TRADES, outputs=(item,)).find(html) is None
    assert published(TRADES, notebook="gone").find(html) is None
    assert WholeTables(published(TRADES).outcome, None).find(html) is None


def test_only_what_a_page_can_load_is_read(published, tmp_path, monkeypatch):
    """Of a file that would not fit in memory, the rows between are never looked at."""
    monkeypatch.setattr(whole, "ROWS", 1000)
    tables = published(TRADES, row_group_size=1000)
    (path,) = (tmp_path / "data").rglob("trades.parquet")
    middle = pq.read_metadata(path).row_group(6).column(2)
    data = bytearray(path.read_bytes())
    place = middle.dictionary_page_offset or middle.data_page_offset
    data[place : place + 100] = bytes(100)
    path.resolve().write_bytes(data)
    found = tables.find(TRADES._repr_html_())
    assert (found.rows, found.of) == (1000, 12_000)


def test_bounds_and_secrets(published, monkeypatch):
    """A page loads the first rows of what is too large; secrets are masked; no row, no table."""
    monkeypatch.setattr(whole, "LARGEST", 20_000)
    tables = published(TRADES, secrets=("sp500",))
    found = tables.find(TRADES._repr_html_().replace("sp500", "sp500"))
    assert found is not None
    assert 100 < found.rows < 1000
    assert found.of == 12_000
    said = unpacked(tables)
    assert len(said["columns"][0]) == found.rows
    assert "sp500" not in json.dumps(said)
    monkeypatch.setattr(whole, "FILE", 10)
    assert published(TRADES).find(TRADES._repr_html_()) is None


def test_a_partition(tmp_path):
    """Of a partitioned notebook it is the run's own partition."""
    store, key = str(tmp_path), PartitionKey(key="a", dimensions={"part": "a"}, by={"part": "key"})
    with open_staging(store, "run-1") as staging:
        path = staging.path / "trades.parquet"
        staged = write_output("trades", TRADES, path, options={}, metadata={})
        publish(store, "nb", [staged], staging=staging, partition=key, run_id="run-1")
    item = StagedOutput("trades", "", "", 12_000, staged.bytes)
    outcome = Outcome(State.SUCCEEDED, notebook="nb", partition="a", outputs=(item,))
    for part, there in (("a", True), ("b", False)):
        tables = WholeTables(outcome, Published(store, {"part": part}))
        assert (tables.find(TRADES._repr_html_()) is not None) is there


def test_a_page_names_the_script(published, captures, header, show, tmp_path):
    """The table says what it can load; a page to mail, which has no other file, does not."""
    tables = published(TRADES)
    run = header(notebook="nb", outputs=tables.outcome.outputs)
    capture = captures.write("# %%\n1\n", {1: show("text/html", TRADES._repr_html_())})
    report = build_report(capture, run, tmp_path / "out", published=tables.published)
    page = report.html.read_text()
    assert 'data-whole="tables/1.js" data-shows="all 12,000 rows" data-output="trades"' in page
    assert (report.folder / "tables" / "1.js").stat().st_size < 500_000
    assert "data-whole=" not in standalone(report.html).partition("</main>")[0]
