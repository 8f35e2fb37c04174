"""The account of ticks, from real runs and from ticks as Dagster's daemon stores them."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import available_timezones

import pytest
from dagster._core.scheduler.instigation import TickStatus
from dagster._utils.schedules import schedule_execution_time_iterator
from scheduler import Scheduler

from research_jobs.cli.main import main
from research_jobs.decisions.account import Became
from research_jobs.decisions.definitions import Definition, owed_ticks
from research_jobs.orchestration.definitions.schedules import SCHEDULE_TAG, TICK_TAG
from research_jobs.orchestration.model.catalog import Entry, load_catalog
from research_jobs.orchestration.model.definition_log import log_file
from research_jobs.orchestration.operations import account as module
from research_jobs.orchestration.operations.account import (
    _local_ticks,
    read_account,
    read_outages,
)

MINUTE = 60.0
MANIFEST = """
notebooks:
  good: {outputs: [x]}
  bad: {outputs: [x]}
  daily: {outputs: [x], partitions: {by: day, start: 2026-01-01, parameter: day}}
schedules:
  nightly: {cron: "* * * * *", notebooks: [good], timezone: UTC}
"""


@pytest.fixture
def project(lab):
    """A project of which one notebook fails."""
    lab.write(
        {
            "good": "# %%\nx = 1\n",
            "bad": "# %%\nx = 1 / 0\n",
            "daily": '# %% tags=["parameters"]\nday = ""\n\n# %%\nx = day\n',
        },
        MANIFEST,
    )
    return lab


def defined(lab, *definitions: Definition) -> None:
    """The log of definitions says so."""
    lab.project.make_state_folder()
    log_file(lab.project).write_text("".join(f"{one.line}\n" for one in definitions))


def last_minute() -> float:
    """The last full minute but two, so that all ticks up to it are judged."""
    return time.time() // MINUTE * MINUTE - 3 * MINUTE


def run(lab, notebook: str, schedule: str, at: float, **options) -> str:
    """A run that a tick requested."""
    due = datetime.fromtimestamp(at, UTC).isoformat()
    tags = {SCHEDULE_TAG: schedule, TICK_TAG: due}
    return lab.materialize(notebook, tags=tags, **options).run_id


def account(lab, start: float, end: float):
    """The account between two moments."""
    return read_account(lab.instance, load_catalog(lab.project), start, end)


def test_each_tick_is_accounted_for(project) -> None:
    """Ran, nothing to do, healed by a later run, failed: each once, with runs and reason."""
    last = last_minute()
    start = last - 3 * MINUTE
    one = Definition("nightly", start, ("* * * * *",), "UTC", ("good",))
    hopeless = Definition("hopeless", last, ("* * * * *",), "UTC", ("bad",))
    defined(project, one, hopeless)
    daemon = Scheduler(project, "nightly", start)
    daemon.tick(start + MINUTE, TickStatus.SKIPPED, "every partition exists")
    daemon.tick(start + 2 * MINUTE, TickStatus.STARTED)
    daemon.tick(last, TickStatus.SUCCESS)
    good = run(project, "good", "nightly", last)
    bad = run(project, "bad", "hopeless", last)
    found = account(project, start, last + 1)
    told = {(tick.schedule, int(tick.at.timestamp() - start) // 60): tick for tick in found.ticks}
    assert {key: tick.became for key, tick in told.items()} == {
        ("nightly", 0): Became.HEALED,
        ("nightly", 1): Became.NOTHING_TO_DO,
        ("nightly", 2): Became.HEALED,
        ("nightly", 3): Became.RAN,
        ("hopeless", 3): Became.FAILED,
    }
    assert told["nightly", 1].reason == "every partition exists"
    assert told["nightly", 3].runs == (good,)
    assert told["nightly", 0].healed_by == (good,)
    assert told["nightly", 0].late_s > 3 * MINUTE
    assert told["hopeless", 3].runs == (bad,)
    assert "division by zero" in told["hopeless", 3].reason
    assert not found.good
    assert sum(found.counts.values()) == found.owed == 5


def test_a_failed_run_is_made_up_for_by_a_later_one(project) -> None:
    """The later run needs no tick: somebody may have started it."""
    last = last_minute()
    defined(project, Definition("nightly", last, ("* * * * *",), "UTC", ("bad",)))
    first = run(project, "bad", "nightly", last)
    project.write({"bad": "# %%\nx = 1\n"})
    later = project.materialize("bad").run_id
    (tick,) = account(project, last, last + 1).ticks
    assert (tick.became, tick.runs, tick.healed_by) == (Became.HEALED, (first,), (later,))


def test_a_partition_that_is_there_heals_the_tick_that_owed_it(project) -> None:
    """Of a missed tick the newest partition counts; a run for another one heals nothing."""
    last = last_minute()
    defined(project, Definition("nightly", last, ("* * * * *",), "UTC", ("daily",)))
    newest = datetime.fromtimestamp(last - 86400, UTC).strftime("%Y-%m-%d")
    project.materialize("daily", partition="2026-01-01")
    (tick,) = account(project, last, last + 1).ticks
    assert tick.became is Became.MISSED
    run_id = project.materialize("daily", partition=newest).run_id
    (tick,) = account(project, last, last + 1).ticks
    assert (tick.became, tick.healed_by) == (Became.HEALED, (run_id,))
    # begun after the partition was made, so it was there already
    later = Definition("nightly", last, ("* * * * *",), "UTC", ("daily",))
    defined(project, later)
    ticks = read_account(
        project.instance, load_catalog(project.project), last, time.time() + 1
    ).ticks
    assert {tick.became for tick in ticks} == {Became.HEALED}


def test_the_store_is_listed_once_for_all_ticks(project, monkeypatch) -> None:
    """Not for each tick that made nothing: an outage has hundreds, and a notebook 10,000 keys."""
    asked: list[str] = []

    def stored_keys(_store: str, entry: Entry) -> frozenset[str]:
        asked.append(entry.name)
        return frozenset()

    monkeypatch.setattr(module, "stored_keys", stored_keys)
    now = time.time()
    facts = module._Facts(project.instance, load_catalog(project.project), now, [])
    for day in range(1, 6):
        assert facts.made("daily", f"2020-01-0{day}") == []
    assert asked == ["daily"]


def test_an_outage_explains_a_missed_tick(project) -> None:
    """What the watch wrote down is the reason; lines of other kinds and torn ones do not matter."""
    last = last_minute()
    defined(project, Definition("nightly", last - 600, ("* * * * *",), "UTC", ("good",)))
    (project.project.state / "watch.jsonl").write_text(
        json.dumps({"at": last, "said": "restarted"})
        + "\n"
        + json.dumps({"down": "server", "since": last - 700, "until": last - 400})
        + '\n{"down": "serv'
    )
    assert [one.reason for one in read_outages(project.project)] == ["server down"]
    with (project.project.state / "watch.jsonl").open("a") as file:  # what no date can show
        file.write(f'{{"down": "a", "since": 1{"0" * 400}}}\n{"[" * 100_000}\n')
        file.writelines(f'{{"down": "a", "since": {number}}}\n' for number in ("NaN", "1e999"))
    assert [one.reason for one in read_outages(project.project)] == ["server down"]
    found = account(project, last - 600, last + 1)
    assert {tick.became for tick in found.ticks} == {Became.MISSED}
    reasons = [tick.reason for tick in found.ticks]
    assert [reason.startswith("server down from") for reason in reasons] == [True] * 4 + [False] * 7
    assert reasons[-1] == "nothing was evaluated until now"


def test_ticks_are_owed_by_the_schedule_as_it_stood(project) -> None:
    """Edited, switched off and on, broken and removed: each from its moment on."""
    last = last_minute()
    first = Definition("nightly", last - 600, ("* * * * *",), "UTC", ("good",))
    defined(
        project,
        first,
        replace(first, at=last - 500, crons=("*/5 * * * *",)),
        replace(first, at=last - 300, switched=False),
        replace(first, at=last - 180, switched=None, broken="no such notebook"),
        replace(first, at=last - 60, removed=True),
    )
    found = account(project, last - 600, last + 1)
    minutes = [round((last - tick.at.timestamp()) / 60) for tick in found.ticks]
    every_fifth = [n for n in (8, 7, 6) if (last / 60 - n) % 5 == 0]
    assert minutes == [10, 9, *every_fifth, 3, 2]
    assert found.ticks[-1].reason == "it was broken: no such notebook"


def test_what_dagster_no_longer_keeps_is_unaccounted_for(project, monkeypatch) -> None:
    """A tick older than the shortest retention may have been evaluated, and its record deleted."""
    last = last_minute()
    defined(project, Definition("nightly", last, ("* * * * *",), "UTC", ("good",)))
    Scheduler(project, "nightly", last)
    kept = dict.fromkeys(TickStatus, 1)
    instance = type(project.instance)
    monkeypatch.setattr(instance, "get_tick_retention_settings", lambda self, kind: kept)
    monkeypatch.setattr(time, "time", lambda: last + 2 * 86400)
    (tick,) = account(project, last, last + 1).ticks
    assert tick.became is Became.UNACCOUNTED


def test_ticks_are_dagsters_in_every_zone() -> None:
    """What is owed is what the scheduler keeps, in each zone over a change of clocks."""
    start = datetime(2026, 3, 1, tzinfo=UTC).timestamp()
    for zone in sorted(available_timezones()):
        for crons in (["30 2 * * *"], ["0 0 * * 0", "15 1 1 * *"]):
            owed = owed_ticks(
                [Definition("nightly", start, tuple(crons), zone)],
                start, start + 40 * 86400, _local_ticks,
            )  # fmt: skip
            dagsters = schedule_execution_time_iterator(start, crons, zone)
            for tick in owed:
                assert tick.at == next(dagsters), zone


def test_the_command_prints_the_sum_and_says_whether_all_is_well(
    project, capsys, monkeypatch, tmp_path
) -> None:
    """Exit code 1 with a missed tick, 0 where none was owed; the JSON has the numbers."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    words = ["account", "--project", str(project.root)]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "owed": 0, "ran": 0, "nothing_to_do": 0, "healed": 0, "missed": 0, "failed": 0,
        "unaccounted": 0, "ticks": [],
    }  # fmt: skip
    defined(project, Definition("nightly", last_minute(), ("* * * * *",), "UTC", ("good",)))
    assert main(words) == 1
    shown = capsys.readouterr().out
    assert "missed" in shown
    assert "ticks owed" in shown
    assert main([*words, "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["owed"] == said["missed"] == len(said["ticks"]) > 0
    assert said["ticks"][0]["schedule"] == "nightly"
