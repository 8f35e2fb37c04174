"""The log of how schedules were defined: what adds a line, who may read it, what it survives."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from dagster._core.scheduler.instigation import InstigatorStatus
from scheduler import Scheduler

from research_jobs.decisions.definitions import Definition, read_log
from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.model.definition_log import (
    log_file,
    read_definitions,
    record_manifest,
    record_switches,
    was_owed,
)

SCHEDULE = 'schedules: {{nightly: {{cron: "{cron}", notebooks: [good]}}}}'


@pytest.fixture
def project(lab):
    """A project with a schedule."""
    lab.write({"good": "# %%\nx = 1\n"}, SCHEDULE.format(cron="0 1 * * *"))
    return lab


def record(lab) -> list[tuple[tuple[str, ...], bool]]:
    """Record the manifest; what the log then says: expressions, and whether the schedule is on."""
    record_manifest(load_catalog(lab.project))
    return [(one.crons, one.on) for one in read_definitions(lab.project)]


def test_a_line_is_added_only_for_a_change(project) -> None:
    """Loading again adds nothing; an edit, a removal and a return add a line each."""
    assert record(project) == [(("0 1 * * *",), True)]
    assert len(record(project)) == 1
    project.write(manifest=SCHEDULE.format(cron="0 2 * * *"))
    assert len(record(project)) == 2
    project.write(manifest="")
    assert record(project)[2:] == [(("0 2 * * *",), False)]
    assert len(record(project)) == 3
    project.write(manifest=SCHEDULE.format(cron="0 2 * * *"))
    assert record(project)[3:] == [(("0 2 * * *",), True)]
    assert stat.S_IMODE(log_file(project.project).stat().st_mode) == 0o600


def test_a_line_is_one_line() -> None:
    """Whatever characters are in it, that end lines or cannot be stored."""
    one = Definition("s", 1.0, ("* * * * *",), "UTC", broken="a\u2028b\x85 caf\udce9")
    assert read_log(one.line.encode().decode().splitlines()) == [one]


def test_a_broken_manifest_owes_what_the_sound_one_did(project) -> None:
    """Whether the schedule alone or the whole text is broken, its ticks are owed still."""
    record(project)
    for text in (SCHEDULE.format(cron="61 1 * * *"), "schedules: [: {"):
        project.write(manifest=text)
        assert record(project)[-1] == (("0 1 * * *",), True)
        assert read_definitions(project.project)[-1].broken
    project.write(manifest=SCHEDULE.format(cron="0 1 * * *"))
    record(project)
    assert read_definitions(project.project)[-1].broken is None


def test_a_line_that_was_cut_off_is_passed_over(project) -> None:
    """The next line begins anew, and nothing else is lost."""
    record(project)
    with log_file(project.project).open("a") as file:
        file.write('{"schedule": "nigh')
    project.write(manifest=SCHEDULE.format(cron="0 2 * * *"))
    assert record(project) == [(("0 1 * * *",), True), (("0 2 * * *",), True)]


def test_several_processes_record_at_once(project) -> None:
    """Eight that find the same change add one line together."""
    program = (
        "import sys; from research_jobs.orchestration.model.catalog import load_catalog;"
        "from research_jobs.orchestration.model.definition_log import record_manifest;"
        "from research_jobs.project import find_project;"
        "record_manifest(load_catalog(find_project(sys.argv[1])))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(project.root)]) for _ in range(8)
    ]
    assert [process.wait() for process in started] == [0] * 8
    assert len(log_file(project.project).read_text().splitlines()) == 1


def test_switches_of_the_user_interface_are_recorded(project) -> None:
    """Off from when it is seen, on from when Dagster says, and kept through an edit."""
    record(project)
    daemon = Scheduler(project, "nightly", time.time())
    record_switches(project.project, project.instance)
    assert len(read_definitions(project.project)) == 1
    daemon.switch(InstigatorStatus.STOPPED)
    record_switches(project.project, project.instance)
    assert not read_definitions(project.project)[-1].on
    project.write(manifest=SCHEDULE.format(cron="0 2 * * *"))
    assert record(project)[-1] == (("0 2 * * *",), False)
    since = time.time()
    daemon.switch(InstigatorStatus.RUNNING, since)
    record_switches(project.project, project.instance)
    last = read_definitions(project.project)[-1]
    assert (last.on, last.at) == (True, since)


def test_a_log_that_cannot_be_written_stops_nothing(project) -> None:
    """A folder in its place: definitions load all the same."""
    log_file(project.project).mkdir(parents=True)
    record_manifest(load_catalog(project.project))
    assert read_definitions(project.project) == []


def test_the_log_knows_which_ticks_were_owed(project) -> None:
    """From its first line on; before that nothing is known."""
    record(project)
    tomorrow = datetime.now(UTC).replace(hour=1, minute=0, second=0, microsecond=0)
    tomorrow += timedelta(days=1)
    assert was_owed(project.project, "nightly", tomorrow) is True
    assert was_owed(project.project, "nightly", tomorrow + timedelta(hours=1)) is False
    assert was_owed(project.project, "nightly", tomorrow - timedelta(days=3)) is None
