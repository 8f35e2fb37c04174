"""Sensors through Dagster's own evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.definitions import sensors as module
from research_jobs.orchestration.definitions.jobs import ScheduledNotebook
from research_jobs.orchestration.definitions.sensors import FILES_TAG, build_sensors
from research_jobs.orchestration.model.partitions import build_partitions
from research_jobs.project import Project, find_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a folder for files that come in; they settle at once."""
    monkeypatch.delenv("RESEARCH_JOBS_STORE", raising=False)
    monkeypatch.setattr("research_jobs.orchestration.definitions.watching.SETTLED_NS", 0)
    (tmp_path / "project" / "notebooks").mkdir(parents=True)
    (tmp_path / "project" / "in").mkdir()
    return find_project(tmp_path / "project")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance on disk."""
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as made:
        yield made


class Watched:
    """One notebook with its sensor, evaluated look by look."""

    def __init__(self, project: Project, instance: dg.DagsterInstance, **spec: Any) -> None:
        made = NotebookSpec.model_validate(spec)
        notebook = ScheduledNotebook("intake", build_partitions(made), op="intake")
        self.built = build_sensors(project, {"intake": made}, {"intake": notebook})

        @dg.asset(name="intake", partitions_def=notebook.partitions)
        def intake() -> None: ...

        @dg.asset(key=["universe"])
        def universe() -> None: ...

        self.definitions = dg.Definitions(
            assets=[intake, universe], sensors=list(self.built.sensors)
        )
        self.repository = self.definitions.get_repository_def()
        self.instance = instance
        self.cursor: str | None = None

    def look(self, name: str = "watch_intake") -> Any:
        """One evaluation, its cursor kept."""
        sensor = self.repository.get_sensor_def(name)
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.repository
        )
        data = sensor.evaluate_tick(context)
        self.cursor = data.cursor
        return data

    def asked(self) -> list[str | None]:
        """The partitions of one evaluation's requests."""
        return [request.partition_key for request in self.look().run_requests or []]


def test_a_new_file_runs_the_notebook_once(project, instance):
    """Several files of one look are one run, which tells their names."""
    watched = Watched(project, instance, watch="in/*.csv")
    assert watched.look().skip_message == "watching; 0 files already exist"
    (project.root / "in" / "a.csv").write_text("1")
    (project.root / "in" / "b.csv").write_text("1")
    requests = watched.look().run_requests
    assert [r.tags[FILES_TAG] for r in requests] == ["in/a.csv, in/b.csv"]
    assert requests[0].asset_selection == [dg.AssetKey("intake")]
    assert watched.look().skip_message == "nothing new"


def test_deep_folders_make_no_run_that_a_database_refuses(project, instance):
    """Postgres takes no tag of more than 2,704 bytes: the names of three files can have more."""
    watched = Watched(project, instance, watch="in/**/*.csv")
    watched.look()
    deep = project.root.joinpath("in", *["\u8fd9" * 80] * 5)
    deep.mkdir(parents=True)
    for name in "abcd":
        (deep / f"{name}.csv").write_text("1")
    (request,) = watched.look().run_requests
    assert request.tags[FILES_TAG].startswith("in/")
    assert len(request.tags[FILES_TAG].encode()) < 2600


def test_the_same_files_in_the_same_state_have_the_same_run_key(project, instance):
    """A daemon that dies before it keeps the cursor does not run twice."""
    watched = Watched(project, instance, watch="in/*.csv")
    watched.look()
    before = watched.cursor
    (project.root / "in" / "a.csv").write_text("1")
    first = watched.look().run_requests[0].run_key
    watched.cursor = before
    assert watched.look().run_requests[0].run_key == first
    (project.root / "in" / "a.csv").write_text("22")
    assert watched.look().run_requests[0].run_key != first


def test_a_field_of_the_pattern_is_the_partition(project, instance):
    """The file's name says which one; names of no partition are passed over."""
    watched = Watched(
        project,
        instance,
        watch="in/{run_date}.csv",
        partitions={"by": "day", "start": "2026-01-01", "parameter": "run_date"},
    )
    watched.look()
    for name in ("2026-01-02", "2026-01-03", "readme", "1999-01-01"):
        (project.root / "in" / f"{name}.csv").write_text("1")
    assert watched.asked() == ["2026-01-02", "2026-01-03"]
    assert watched.asked() == []


@pytest.mark.parametrize("parameter", [{}, {"parameter": "region"}])
def test_a_field_may_be_called_partition(project, instance, parameter):
    """Of a notebook with one dimension, whether or not the key sets a parameter."""
    keys = {"values": ["eu", "us"], **parameter}
    watched = Watched(project, instance, watch="in/{partition}.csv", partitions=keys)
    watched.look()
    (project.root / "in" / "us.csv").write_text("1")
    assert watched.asked() == ["us"]


def test_why_nothing_runs_is_said(project, instance, monkeypatch):
    """A file that is being written, one of no partition, a notebook without partitions yet."""
    keyed = Watched(project, instance, watch="in/{partition}.csv", partitions={"values": ["eu"]})
    future = {"by": "day", "start": "2999-01-01"}
    early = Watched(project, instance, watch="in/*.csv", partitions=future)
    keyed.look(), early.look()
    (project.root / "in" / "uk.csv").write_text("1")
    monkeypatch.setattr("research_jobs.orchestration.definitions.watching.SETTLED_NS", 10**15)
    assert keyed.look().skip_message == "nothing new; 1 are still being written"
    monkeypatch.undo()
    monkeypatch.setattr("research_jobs.orchestration.definitions.watching.SETTLED_NS", 0)
    stray = "in/uk.csv names the partition 'uk', which does not exist"
    assert keyed.look().skip_message == stray
    assert early.look().skip_message == "there is no partition yet"


@pytest.mark.parametrize(
    ("number", "listed"),
    [(3, "in/0.csv, in/1.csv, in/2.csv"), (5, "in/0.csv, in/1.csv, in/2.csv and 2 more")],
)
def test_a_runs_tag_names_the_first_files(project, instance, number, listed):
    """Three by name, the rest by their number: a tag is short."""
    watched = Watched(project, instance, watch="in/*.csv")
    watched.look()
    for name in range(number):
        (project.root / "in" / f"{name}.csv").write_text("1")
    assert [r.tags[FILES_TAG] for r in watched.look().run_requests] == [listed]


def test_a_file_whose_name_is_not_utf_8_arrives(project, instance):
    """Its name is escaped, or the run could not be stored, nor any other of that look."""
    watched = Watched(project, instance, watch="in/*.csv")
    watched.look()
    (project.root / "in" / os.fsdecode(b"caf\xe9.csv")).write_text("1")
    assert [r.tags[FILES_TAG] for r in watched.look().run_requests] == ["in/caf\\udce9.csv"]


# Dagster's own tags for two dimensions
@pytest.mark.filterwarnings("ignore:Non-compliant tag keys")
def test_fields_of_two_dimensions(project, instance):
    """Both parts of the key come from the path, in whatever order it names them."""
    watched = Watched(
        project,
        instance,
        watch="in/{ticker}/{date}.csv",
        partitions={
            "dimensions": {
                "ticker": {"values": ["AAPL", "MSFT"]},
                "date": {"by": "day", "start": "2026-01-01"},
            }
        },
    )
    watched.look()
    (project.root / "in" / "MSFT").mkdir()
    (project.root / "in" / "MSFT" / "2026-01-02.csv").write_text("1")
    assert watched.asked() == ["2026-01-02|MSFT"]


def test_without_a_field_the_newest_partition_runs(project, instance):
    """Of values, all of them."""
    watched = Watched(
        project,
        instance,
        watch="in/*.csv",
        partitions={"by": "day", "start": "2026-01-01", "end": "2026-01-04"},
    )
    watched.look()
    (project.root / "in" / "a.csv").write_text("1")
    assert watched.asked() == ["2026-01-03"]
    values = Watched(project, instance, watch="in/*.csv", partitions={"values": ["eu", "us"]})
    values.look()
    (project.root / "in" / "b.csv").write_text("1")
    assert values.asked() == ["eu", "us"]


def test_every_partition_runs_however_many_there_are(project, instance):
    """Nothing tells later which of them a file has not reached."""
    keys = [f"k{number}" for number in range(300)]
    watched = Watched(project, instance, watch="in/*.csv", partitions={"values": keys})
    watched.look()
    (project.root / "in" / "a.csv").write_text("1")
    assert watched.asked() == keys


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"watch": "in/{run_dat}.csv"}
            | {"partitions": {"by": "day", "start": "2026-01-01", "parameter": "run_date"}},
            "notebook intake: watch: {run_dat} is not a partition of it. Did you mean 'run_date'?",
        ),
        (
            {"watch": "in/{x}.csv"},
            "notebook intake: watch: {x} is not a partition of it. Write * for any text.",
        ),
        (
            {"watch": "in/{a}.csv"}
            | {"partitions": {"dimensions": {"a": {"values": ["1"]}, "b": {"values": ["2"]}}}},
            (
                "notebook intake: watch: 'in/{a}.csv' names only part of the partition, not {b}."
                " Name every dimension, or none."
            ),
        ),
    ],
)
def test_a_field_that_is_no_partition_is_a_problem(project, spec, message):
    """The sensor is lost, and nothing else."""
    made = NotebookSpec.model_validate(spec)
    notebook = ScheduledNotebook("intake", build_partitions(made), op="intake")
    built = build_sensors(project, {"intake": made}, {"intake": notebook})
    assert built.sensors == ()
    assert [str(p.error) for p in built.problems] == [message]


def test_all_sensors_are_switched_on_and_named_for_what_they_do(project):
    """One for each watched notebook, one for each list of keys, one for all automation."""
    specs = {
        "volatility/garch": NotebookSpec.model_validate({"watch": "in/*"}),
        "a": NotebookSpec.model_validate({"after": "volatility/garch"}),
        "b": NotebookSpec.model_validate({"automation": "eager"}),
        "c": NotebookSpec.model_validate(
            {"partitions": {"dynamic": {"notebook": "universe", "output": "tickers"}}}
        ),
        "d": NotebookSpec.model_validate(
            {"partitions": {"dynamic": {"notebook": "universe", "output": "tickers"}}}
        ),
        "e": NotebookSpec.model_validate(
            {"partitions": {"dynamic": {"notebook": "universe", "output": "regions"}}}
        ),
    }
    notebooks = {
        name: ScheduledNotebook(name, build_partitions(spec), op=name.replace("/", "__"))
        for name, spec in specs.items()
    }
    built = build_sensors(project, specs, notebooks)
    assert [sensor.name for sensor in built.sensors] == [
        *("watch_volatility__garch", "keys_of_universe_tickers", "keys_of_universe_regions"),
        "notebooks_automation",
    ]
    assert {sensor.default_status for sensor in built.sensors} == {dg.DefaultSensorStatus.RUNNING}


def test_keys_are_added_when_their_notebook_was_made(project, instance, monkeypatch):
    """Once for each materialisation, and only what is new."""
    listed = ["AAPL", "MSFT"]
    monkeypatch.setattr(
        module,
        "changes",
        lambda instance, _project, spec: (
            [
                key
                for key in listed
                if key not in instance.get_dynamic_partitions(spec.definition_name)
            ],
            [],
        ),
    )
    watched = Watched(
        project,
        instance,
        partitions={"dynamic": {"notebook": "universe", "output": "tickers"}},
    )
    name = "keys_of_universe_tickers"
    assert watched.look(name).skip_message == "universe has not run yet"
    instance.report_runless_asset_event(dg.AssetMaterialization("universe"))
    added = watched.look(name).dynamic_partitions_requests
    assert [list(request.partition_keys) for request in added] == [["AAPL", "MSFT"]]
    instance.add_dynamic_partitions("universe/tickers", listed)
    assert watched.look(name).skip_message == "universe has nothing new"
    instance.report_runless_asset_event(dg.AssetMaterialization("universe"))
    assert watched.look(name).skip_message == "the same keys as before"
    assert watched.look(name).skip_message == "universe has nothing new"
    instance.report_runless_asset_event(dg.AssetMaterialization("universe"))
    monkeypatch.setattr(module, "changes", lambda *_: ([], ["MSFT"]))
    (gone,) = watched.look(name).dynamic_partitions_requests
    assert isinstance(gone, dg.DeleteDynamicPartitionsRequest)
    assert list(gone.partition_keys) == ["MSFT"]
