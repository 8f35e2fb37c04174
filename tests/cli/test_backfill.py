"""``research-jobs backfill``: real runs over partitions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from research_jobs import load
from research_jobs.cli.backfill import grouped_problems
from research_jobs.orchestration.operations.backfill_plan import (
    BackfillSummary,
    PlannedNotebook,
)
from research_jobs.outcome import Failure, Outcome, State


def test_a_backfill_tells_what_failed_and_goes_on(say: Any, project: Path) -> None:
    """Failures do not stop the others; --failed and --missing pick up what is left."""
    said = say("backfill", "daily", "--from", "2024-01-03", "--to", "2024-01-06", "--json")
    assert said.code == 1, said.err
    summary = said.json
    assert summary["counts"] == {"succeeded": 2, "failed": 1, "skipped": 1}
    (problem,) = summary["problems"]
    assert problem["partition"] == "2024-01-04"
    assert "no prices on 2024-01-04" in problem["error"]
    assert len(summary["run_ids"]) == 1

    missing = say("backfill", "daily", "--missing", "--dry-run", "--json").json
    assert missing["plan"][0]["partitions"] == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-04",
        "2024-01-07",
    ]
    assert missing["plan"][0]["skipped_before"] == 1
    assert missing["run_ids"] == []
    failed = say("backfill", "daily", "--failed", "--dry-run")
    assert "2024-01-04" in failed.out

    path = project / "notebooks" / "daily.py"
    text = path.read_text(encoding="utf-8").replace("2024-01-04", "1999-01-04")
    path.write_text(text, encoding="utf-8")
    mended = say("backfill", "daily", "--missing")
    assert mended.code == 0, mended.err
    assert "4 succeeded in" in mended.out
    nothing = say("backfill", "daily", "--missing")
    assert nothing.out == "Nothing to run.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["daily"], "say which partitions"),
        (["daily", "--all", "--from", "2024-01-01"], "not both"),
        (["daily", "--partitions", "2024-01-01", "--to", "2024-01-02"], "not both"),
        (["daily", "--all", "--concurrency", "0"], "at least 1"),
        (["daily", "--from", "2023-01-01", "--to", "2023-01-31"], "daily"),
        (["daily", "--partitions", "2024-02-30"], "2024-02-30"),
        (["numbers_table", "--all"], "has no partitions"),
        (["dialy", "--all"], "Did you mean 'daily'?"),
        (["daily", "--all", "-p", "day=2024-01-02"], "-p day: it is set by daily's partitions."),
        (["daily", "numbers_table", "--all", "-p", "cuont=1"], "Did you mean 'count'?"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_code_2(say: Any, words: list[str], message: str) -> None:
    """A mistake is reported before anything runs."""
    said = say("backfill", *words)
    assert said.code == 2
    assert said.err.count("\n") == 1
    if message != "daily":
        assert message in said.err


def test_killed_it_loses_nothing_finished(project: Path, say: Any, tmp_path: Path) -> None:
    """SIGKILL in the middle: what was done stays done, --missing runs the rest and no more."""
    mark = tmp_path / "third"
    (project / "notebooks" / "daily.py").write_text(
        '# %% tags=["parameters"]\nfrom datetime import date\n\nday: date = date(2024, 1, 1)\n'
        "# %%\nimport os, time\n"
        f"mark = {str(mark)!r}\n"
        "if day.day == 3 and not os.path.exists(mark):\n"
        "    open(mark, 'w').close()\n    time.sleep(600)\n"
        "value = day.day\n",
        encoding="utf-8",
    )
    command = [
        *(Path(sys.executable).with_name("research-jobs"), "backfill", "daily", "--all"),
        *("--concurrency", "1", "--project", project),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
    ) as process:
        wait_for_the_third(process, mark, say)
        process.kill()
    again = say("backfill", "daily", "--missing", "--json")
    assert again.code == 0, again.err
    rest = [f"2024-01-0{day}" for day in range(3, 8)]
    assert again.json["plan"][0]["partitions"] == rest
    runs = say("show", "daily", "--json").json["runs"]
    assert len(runs) == 2
    assert materialized(say) == 7


def test_ctrl_c_says_what_is_left_in_a_few_lines(project: Path, say: Any, tmp_path: Path) -> None:
    """What did not run is counted and not listed; the run is a cancelled one; --missing goes on."""
    mark = tmp_path / "third"
    (project / "notebooks" / "daily.py").write_text(
        '# %% tags=["parameters"]\nfrom datetime import date\n\nday: date = date(2024, 1, 1)\n'
        "# %%\nimport os, time\n"
        f"mark = {str(mark)!r}\n"
        "if day.day == 3 and not os.path.exists(mark):\n"
        "    open(mark, 'w').close()\n    time.sleep(600)\n"
        "value = day.day\n",
        encoding="utf-8",
    )
    command = [
        *(Path(sys.executable).with_name("research-jobs"), "backfill", "daily", "--all"),
        *("--concurrency", "1", "--project", project),
    ]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(os.environ),
        preexec_fn=_hear_interrupts,  # noqa: PLW1509 - this process has no threads
    ) as process:
        wait_for_the_third(process, mark, say)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    first, run, rest = printed.splitlines()[-3:]
    assert first.startswith("Interrupted: 2 succeeded, 5 cancelled")
    assert run.startswith("Run ")
    assert rest == "Go on with what is left:  research-jobs backfill daily --missing"
    assert "Dagster" not in printed
    assert printed.count("cancelled") == 1
    (past,) = say("show", "daily", "--json").json["runs"]
    assert (past["ending"], past["error"]) == ("cancelled", "interrupted")
    assert say("backfill", "daily", "--missing").code == 0


def wait_for_the_third(process: subprocess.Popen[Any], mark: Path, say: Any) -> None:
    """Until the third partition runs, and the two before, published beside it, are recorded."""
    deadline = time.monotonic() + 90
    while not (mark.exists() and materialized(say) == 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def materialized(say: Any) -> int:
    """How many partitions of `daily` there are, by Dagster's account."""
    listed = next(line for line in say("list", "--json").json if line["notebook"] == "daily")
    assert listed["partitions"]["total"] == 7
    return listed["partitions"]["materialized"]


def _hear_interrupts() -> None:
    """A test session in a shell's background ignores Ctrl-C, and so would the command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("failing", "spans"),
    [
        ([1, 2, 3], "2024-01-01…2024-01-03"),
        ([1, 3], "2024-01-01, 2024-01-03"),
        ([1, 3, 5, 7], "2024-01-01, 2024-01-03, 2024-01-05 and 1 more spans"),
    ],
)
def test_equal_failures_are_one_line(
    project: Path, say: Any, failing: list[int], spans: str
) -> None:
    """Partitions that fail for one reason are counted, with their spans, and the reason once."""
    (project / "notebooks" / "daily.py").write_text(
        '# %% tags=["parameters"]\nfrom datetime import date\n\nday: date = date(2024, 1, 1)\n'
        f"# %%\nif day.day in {failing}:\n    raise ValueError(f'no prices on {{day}}')\n"
        "value = day.day\n",
        encoding="utf-8",
    )
    said = say("backfill", "daily", "--all")
    assert said.code == 1
    assert (
        f"daily failed for {len(failing)} partitions ({spans}): "
        "notebooks/daily.py:7, cell 2: ValueError: no prices on <partition>" in said.out
    )
    assert said.out.count("no prices on") == 2, "the first as it happened, and all of them"


def test_missing_after_the_partitions_changed(say: Any, project: Path) -> None:
    """After a renamed partition parameter all are missing, and readers see the new ones alone."""
    notebooks = project / "notebooks"
    cells = '# %% tags=["parameters"]\nk: str = "-"\nz: str = "-"\n# %%\nv = k + z\n'
    (notebooks / "renamed.py").write_text(cells)
    manifest = notebooks / "manifest.yaml"
    before = manifest.read_text()
    entry = "  renamed: {outputs: [v], partitions: {values: [%s], parameter: %s}}\n"
    manifest.write_text(
        before.replace("schedules:\n", entry % ("a, b, c", "k") + "schedules:\n", 1)
    )
    assert say("backfill", "renamed", "--all").code == 0
    manifest.write_text(before.replace("schedules:\n", entry % ("a, b", "z") + "schedules:\n", 1))
    planned = say("backfill", "renamed", "--missing", "--dry-run", "--json").json
    assert planned["plan"][0]["partitions"] == ["a", "b"]
    assert say("backfill", "renamed", "--missing").code == 0
    assert load("renamed", "v", project=project) == {"a": "-a", "b": "-b"}
    assert "Nothing to run" in say("backfill", "renamed", "--missing").out
    # changed back: one run brings back what the others made before
    manifest.write_text(
        before.replace("schedules:\n", entry % ("a, b, c", "k") + "schedules:\n", 1)
    )
    back = say("backfill", "renamed", "--missing", "--json").json
    assert back["plan"][0]["partitions"] == ["c"]
    assert load("renamed", "v", project=project) == {"a": "a-", "b": "b-", "c": "c-"}
    assert "Nothing to run" in say("backfill", "renamed", "--missing").out


def test_a_dry_run_says_what_cannot_work(say: Any, project: Path) -> None:
    """What the notebooks read and nobody has made, a parameter that it lacks, a bad value."""
    reader = '# %% tags=["parameters"]\nday: str = "2024-01-01"\ncount: int = 1\n# %%\n'
    reader += 'from research_jobs import load\nvalue = load("numbers_table", "total")\n'
    (project / "notebooks" / "reader.py").write_text(reader)
    manifest = project / "notebooks" / "manifest.yaml"
    partitions = "{by: day, start: 2024-01-01, end: 2024-01-03, parameter: day}"
    before = manifest.read_text()
    manifest.write_text(
        before.replace("notebooks:\n", f"notebooks:\n  reader: {{partitions: {partitions}}}\n", 1)
    )
    dry = ("backfill", "reader", "--all", "--dry-run")
    planned = say(*dry)
    assert planned.code == 1
    line = "reader reads numbers_table, which has no outputs yet. Run it first."
    assert line in planned.err
    assert say(*dry, "--json").json["foreseen"] == [line]
    assert "count = 'many' is not a whole number" in say(*dry, "-p", "count=many").err
    assert say("run", "numbers_table").code == 0
    ready = say(*dry)
    assert (ready.code, ready.err) == (0, "")
    text = manifest.read_text().replace("parameter: day}}", "parameter: when}}")
    manifest.write_text(text)
    lacking = say(*dry)
    assert lacking.code == 2
    assert "the partition's parameter 'when' is not one of reader's" in lacking.err


def test_a_failure_of_its_own_is_reported_once() -> None:
    """It stood there as it happened; the summary counts those that share a cause."""
    keys = ("2024-01-01", "2024-01-02", "2024-01-03")
    reasons = dict(zip(keys, ("no file", "no prices", "no prices"), strict=True))
    outcomes = [
        Outcome(State.FAILED, failure=Failure(why), notebook="daily", partition=key)
        for key, why in reasons.items()
    ]
    plan = (PlannedNotebook("daily", keys, 3),)
    summary = BackfillSummary("id", plan, problems=tuple(outcomes))
    assert grouped_problems(summary) == [
        "daily failed for 2 partitions (2024-01-02…2024-01-03): no prices",
    ]
