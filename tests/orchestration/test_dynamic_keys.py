"""Partition keys that a notebook's output lists."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pytest

from research_jobs.errors import PartitionError
from research_jobs.manifest import DynamicSpec
from research_jobs.orchestration.model.answers import ask_python
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.model.dynamic_keys import (
    keys_of,
    newest_dynamic_keys,
    read_keys,
)
from research_jobs.project import Project, find_project
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish

SPEC = DynamicSpec(notebook="universe", output="tickers")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with an empty store."""
    monkeypatch.delenv("RESEARCH_JOBS_STORE", raising=False)
    (tmp_path / "notebooks").mkdir()
    return find_project(tmp_path)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def store(project: Project, value: Any) -> None:
    """Publish a value as the output, as a run would."""
    with open_staging(project.store, "run") as staging:
        staged = write_output(
            "tickers", value, staging.path / "tickers.parquet", options={}, metadata={}
        )
        publish(project.store, "universe", [staged], staging=staging, partition=None, run_id="run")


@pytest.mark.parametrize(
    ("value", "column"),
    [
        (["AAPL", "MSFT", "AAPL", None], None),
        (("AAPL", "MSFT"), None),
        ({"AAPL": 1, "MSFT": 2}, None),
        (pd.Series(["AAPL", "MSFT", np.nan]), None),
        (pd.Index(["AAPL", "MSFT"]), None),
        (np.array(["AAPL", "MSFT"]), None),
        (pd.DataFrame({"ticker": ["AAPL", "MSFT"]}), None),
        (pd.DataFrame({"ticker": ["AAPL", "MSFT"], "weight": [1, 2]}), "ticker"),
        (pl.Series(["AAPL", "MSFT"]), None),
        (pl.DataFrame({"ticker": ["AAPL", "MSFT"], "weight": [1, 2]}), "ticker"),
    ],
)
def test_keys_are_read_from_whatever_lists_them(value, column):
    """In order, each once, without missing ones."""
    assert keys_of(value, column) == ["AAPL", "MSFT"]


def test_numbers_and_dates_become_texts():
    """Midnight is a date."""
    assert keys_of([1, 2.5]) == ["1", "2.5"]
    assert keys_of([dt.date(2026, 1, 2)]) == ["2026-01-02"]
    assert keys_of(pd.Series(pd.to_datetime(["2026-01-02 00:00", "2026-01-02 15:00"]))) == [
        *("2026-01-02", "2026-01-02T15:00:00"),
    ]


@pytest.mark.parametrize(
    ("value", "column", "message"),
    [
        (pd.DataFrame({"a": [1], "b": [2]}), None, "a table of 2 columns: name one with column:"),
        (pd.DataFrame({"a": [1]}), "b", "no column 'b'; there are a"),
        ([1], "b", "column 'b' is named, but a list has none"),
        ("AAPL", None, "a str is not a list of keys"),
        (3, None, "a int is not a list of keys"),
        (["a|b"], None, "contains '|'"),
    ],
)
def test_what_lists_no_keys_is_reported(value, column, message):
    """One line that says what it is instead."""
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        keys_of(value, column)


def test_stored_keys_are_read_in_another_process(project):
    """From the store, as the notebook left them."""
    store(project, ["AAPL", "MSFT"])
    assert read_keys(project, SPEC) == ["AAPL", "MSFT"]


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("import warnings; print('noise'); print('{\"keys\": []}')", {"keys": []}),
        ("import sys; sys.stderr.buffer.write(b'broken: \\xe9\\n')", {"error": "broken: \ufffd"}),
        ("pass", {"error": "no answer"}),
        ("import time; time.sleep(60)", {"error": "no answer in 0.5 s"}),
    ],
)
def test_whatever_another_process_does_is_an_answer(code, answer):
    """Noise, bytes that are no text, silence and a process that hangs raise nothing."""
    assert ask_python(["-c", code], 0.5 if "sleep" in code else 60) == answer


def test_an_output_that_is_not_there_is_reported(project):
    """With the command that makes it."""
    with pytest.raises(PartitionError, match="which has not run yet"):
        read_keys(project, SPEC)


def test_keys_that_are_known_do_without_the_output(project, instance):
    """A store that was emptied stops no run of partitions that there are."""
    with pytest.raises(PartitionError, match="which has not run yet"):
        newest_dynamic_keys(instance, project, SPEC)
    instance.add_dynamic_partitions("universe/tickers", ["AAPL"])
    newest_dynamic_keys(instance, project, SPEC)
    assert list(instance.get_dynamic_partitions("universe/tickers")) == ["AAPL"]


@pytest.mark.parametrize(("prefix", "name"), [("", "u/x"), ("prefix: desk\n", "desk/u/x")])
def test_projects_with_a_prefix_have_keys_of_their_own(lab, prefix, name):
    """On an instance that projects share, none adds to or prunes another's keys."""
    lab.write(
        {"u": "# %%\nx = ['AAPL']\n", "a": "# %%\n"},
        f"{prefix}notebooks:\n  u: {{outputs: [x]}}\n"
        "  a: {partitions: {dynamic: {notebook: u, output: x}}}\n",
    )
    spec = load_catalog(lab.project).entries["a"].spec.partitions.dynamic
    lab.materialize(name.removesuffix("/x"))
    newest_dynamic_keys(lab.instance, lab.project, spec)
    assert lab.instance.get_dynamic_partitions(name) == ["AAPL"]


def test_partitions_follow_the_output(project, instance):
    """New keys are added; with `prune` those that are gone are removed."""
    store(project, ["AAPL", "MSFT"])
    newest_dynamic_keys(instance, project, SPEC)
    store(project, ["MSFT", "TSLA"])
    newest_dynamic_keys(instance, project, SPEC)
    assert set(instance.get_dynamic_partitions("universe/tickers")) == {"AAPL", "MSFT", "TSLA"}
    newest_dynamic_keys(instance, project, SPEC.model_copy(update={"prune": True}))
    assert list(instance.get_dynamic_partitions("universe/tickers")) == ["MSFT", "TSLA"]
