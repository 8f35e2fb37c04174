"""``research-jobs run``: real runs, on the project's own instance."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from research_jobs import load
from research_jobs.cli.run import read_parameters


def test_names_run_in_order_of_dependence(say: Any, project: Path) -> None:
    """Two notebooks of which one loads the other: one run, both endings, files where said."""
    said = say("run", "reports.total", "numbers_table.py", "--json")
    assert said.code == 0, said.err
    outcomes = {outcome["notebook"]: outcome for outcome in said.json}
    assert list(outcomes) == ["numbers_table", "reports/total"]
    assert len({outcome["run_id"] for outcome in outcomes.values()}) == 1
    numbers = outcomes["numbers_table"]
    assert numbers["ending"] == "succeeded"
    assert numbers["error"] is None
    assert numbers["partition"] is None
    assert numbers["duration_s"] > 0
    path = project / "data" / "numbers_table" / "table.parquet"
    other = path.with_name("total.parquet")
    assert numbers["outputs"] == {
        "table": {"path": str(path), "rows": 10, "bytes": path.stat().st_size},
        "total": {"path": str(other), "rows": 1, "bytes": other.stat().st_size},
    }
    assert len(pd.read_parquet(path)) == 10


def test_a_failure_is_one_line_and_exit_code_1(say: Any) -> None:
    """The line says file, line and cell; the notebook's own traceback goes to stderr."""
    said = say("run", "broken", "numbers_table")
    assert said.code == 1
    line = next(text for text in said.out.splitlines() if text.startswith("broken failed"))
    assert "broken.py:5" in line
    assert 'cell 2 "Take one"' in line
    assert "KeyError: 'Close'" in line
    assert 'prices["Close"]' in said.err
    assert "research_jobs/" not in said.err, "frames of ours"
    assert "numbers_table succeeded" in said.out


def test_what_waits_for_a_failure_is_not_run(say: Any, project: Path) -> None:
    """Downstream of a failure nothing runs, and the outcome says so."""
    (project / "notebooks" / "numbers_table.py").write_text("# %%\n1 / 0\n", encoding="utf-8")
    said = say("run", "numbers_table", "reports/total", "--json")
    assert said.code == 1
    endings = {outcome["notebook"]: outcome["ending"] for outcome in said.json}
    assert endings == {"numbers_table": "failed", "reports/total": "blocked"}
    assert "ZeroDivisionError" in said.json[0]["error"]


def test_values_for_computed_defaults(say: Any, project: Path) -> None:
    """A value arrives as what the default is, wherever it comes from, or is refused."""
    (project / "notebooks" / "study.py").write_text(
        textwrap.dedent(
            """
            # %% tags=["parameters"]
            from datetime import timedelta

            import numpy as np

            threshold = np.float64(1.5)
            share = np.pi
            count = max(1, 2)
            label = str.upper("a")
            anything = None
            window = timedelta(days=3)
            # %%
            out = [repr(each) for each in (threshold * 2, share, count, label, anything)]
            """
        ),
        encoding="utf-8",
    )
    manifest = project / "notebooks" / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(
        text.replace(
            "notebooks:\n", "notebooks:\n  study: {outputs: [out], parameters: {share: 0.5}}\n", 1
        ),
        encoding="utf-8",
    )
    values = ["threshold=2.5", "count=7", "label=007", "anything=2.5"]
    said = say("run", "study", *(word for value in values for word in ("-p", value)))
    assert said.code == 0, said.err
    assert load("study", "out", project=project) == [
        repr(np.float64(5.0)), "0.5", "7", "'007'", "2.5",
    ]  # fmt: skip
    refused = say("run", "study", "-p", "window=5")
    assert refused.code == 1
    assert "window = '5' is not a timedelta, as the notebook's default is." in refused.out
    assert 'File "' not in refused.err


def test_parameters_and_partitions(say: Any, project: Path) -> None:
    """-p goes to the notebooks that have it, --partition to those with partitions."""
    said = say("run", "numbers_table", "daily", "-p", "count=3", "--partition", "2024-01-02",
               "--json")  # fmt: skip
    assert said.code == 0, said.err
    by_name = {outcome["notebook"]: outcome for outcome in said.json}
    assert by_name["numbers_table"]["outputs"]["table"]["rows"] == 3
    assert by_name["numbers_table"]["partition"] is None
    assert by_name["daily"]["partition"] == "2024-01-02"
    folder = project / "data" / "daily" / "value" / "day=2024-01-02"
    assert by_name["daily"]["outputs"]["value"]["path"] == str(folder / "part-0.parquet")


def test_a_dry_run_says_what_would_run(say: Any, project: Path) -> None:
    """In order, with partitions, in backfill's words; then exactly that runs."""
    words = ("run", "reports/total", "daily", "numbers_table")
    planned = say(*words, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    plan = [(part["notebook"], part["partitions"]) for part in planned.json["plan"]]
    names = [name for name, _ in plan]
    assert sorted(plan) == [
        ("daily", ["2024-01-07"]), ("numbers_table", []), ("reports/total", [])
    ]  # fmt: skip
    assert names.index("numbers_table") < names.index("reports/total")
    assert [part["to_run"] for part in planned.json["plan"]] == [1, 1, 1]
    assert (planned.json["run_ids"], planned.json["foreseen"]) == ([], [])
    assert not (project / "data").exists()
    backfill = say("backfill", "daily", "--all", "--dry-run", "--json").json
    assert backfill.keys() == planned.json.keys()
    assert backfill["plan"][0].keys() == planned.json["plan"][0].keys()
    done = say(*words, "--json")
    assert {(one["notebook"], one["partition"]) for one in done.json} == {
        (name, keys[0] if keys else None) for name, keys in plan
    }
    old = say("run", "daily", "--partition", "2024-01-02", "--dry-run").out
    assert "2024-01-02" in old
    assert "to run" in old
    assert "up to date" in say("run", "numbers_table", "--stale", "--dry-run").out


def test_a_dry_run_says_what_cannot_run(say: Any) -> None:
    """An input that nobody has made, a wrong key, a wrong parameter: as a run would."""
    total = say("run", "reports/total", "--dry-run")
    assert total.code == 1
    assert "reports/total reads numbers_table, which has no outputs yet. Run it first." in total.err
    assert say("run", "numbers_table", "reports/total", "--dry-run").code == 0
    assert say("run", "daily", "--partition", "2025", "--dry-run").code == 2
    assert "no parameter 'day_'" in say("run", "numbers_table", "-p", "day_=1", "--dry-run").err


def test_a_skip_is_no_failure(say: Any) -> None:
    """A notebook that skips: exit code 0, its reason printed, nothing published."""
    said = say("run", "daily", "--partition", "2024-01-06", "--json")
    assert said.code == 0
    (outcome,) = said.json
    assert (outcome["ending"], outcome["reason"]) == ("skipped", "market closed")
    assert outcome["error"] is None
    assert outcome["outputs"] == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["numbers_tabel"], "Did you mean 'numbers_table'?"),
        ([], "say which notebooks"),
        (["daily", "--all"], "not several of them"),
        (["numbers_table", "-p", "cuont=3"], "Did you mean 'count'?"),
        (["numbers_table", "-p", "count=many"], "not a whole number"),
        (["numbers_table", "-p", "count"], "is not name=value"),
        (["daily", "--partition", "2023-01-01"], "2024-01-01 to 2024-01-07"),
        (["--select", "group:(("], "cannot be read"),
        (["--select", "group:nothing"], "matches no notebook"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_code_2(
    say: Any, project: Path, words: list[str], message: str
) -> None:
    """A mistake is reported before anything runs."""
    said = say("run", *words)
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1
    assert not (project / "data").exists()


def test_selections_are_dagsters(say: Any) -> None:
    """--select speaks Dagster's language: a group and what depends on it."""
    said = say("run", "--select", "group:numbers+", "--json")
    assert [outcome["notebook"] for outcome in said.json] == ["numbers_table", "reports/total"]


def test_stale_runs_what_changed_and_no_more(say: Any, project: Path) -> None:
    """After a run nothing is stale; an edit makes the notebook and what loads it stale."""
    names = ["numbers_table", "reports/total"]
    assert [o["notebook"] for o in say("run", *names, "--stale", "--json").json] == names
    again = say("run", *names, "--stale")
    assert again.code == 0
    assert "up to date" in again.out
    path = project / "notebooks" / "reports" / "total.py"
    path.write_text(path.read_text(encoding="utf-8") + "double += 1\n", encoding="utf-8")
    changed = say("run", *names, "--stale", "--json").json
    assert [outcome["notebook"] for outcome in changed] == ["reports/total"]


def test_works_from_elsewhere_and_leaves_one_folder_of_state(
    call: Any, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """--project points anywhere; state, data and reports stay in that project."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = call("run", "numbers_table", "--project", str(project), cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert "data/numbers_table/table.parquet" in done.stdout
    assert "Traceback" not in done.stderr
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name for path in project.iterdir()) == [
        ".research_jobs",
        "data",
        "notebooks",
        "reports",
    ]


def test_interrupted_ends_what_it_started(project: Path, tmp_path: Path) -> None:
    """Ctrl-C cancels the run, ends the notebook's process, and gives exit code 130."""
    mark = tmp_path / "started"
    (project / "notebooks" / "slow.py").write_text(
        f"# %%\nimport os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n",
        encoding="utf-8",
    )
    command = [Path(sys.executable).with_name("research-jobs"), "run", "slow", "--project", project]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not (mark.exists() and mark.read_text()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130
    assert "slow cancelled" in out
    assert not Path(f"/proc/{mark.read_text()}").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_message_that_the_terminal_cannot_show(project: Path, encoding: str) -> None:
    """An exception's text that has no encoding is escaped, and the other notebooks run on."""
    folder = project / "notebooks"
    folder.joinpath("broken.py").write_text(
        '# %%\nraise ValueError("half \\ud83d of \\udcff, a caf\u00e9")\n', encoding="utf-8"
    )
    command = [sys.executable, "-m", "research_jobs.cli.main", "run", "broken", "numbers_table"]
    ended = subprocess.run(
        [*command, "--project", str(project)],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
        encoding=encoding,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    cafe = "caf\u00e9" if encoding == "utf-8" else r"caf\xe9"
    assert rf"ValueError: half \ud83d of \udcff, a {cafe}" in ended.stdout
    assert "numbers_table succeeded" in ended.stdout


def test_a_value_may_hold_an_equals_sign() -> None:
    """The first one ends the name; of a name that is given twice the last value counts."""
    assert read_parameters(["a=b=c", " n =1", "n=2", "empty="]) == {
        "a": "b=c",
        "n": "2",
        "empty": "",
    }


def test_it_ends_with_what_failed(say: Any, project: Path) -> None:
    """Totals come after the table, then each cause once: line, report, and a command that works."""
    for name in ("first", "second"):
        (project / "notebooks" / f"{name}.py").write_text("# %%\nraise OSError('no route')\n")
    said = say("run", "numbers_table", "first", "second", "daily", "--partition", "2024-01-04")
    assert said.code == 1
    end = said.out[said.out.index("1 succeeded, 3 failed\n") :]
    assert end.count("no route") == 1
    assert "first, second: failed since" in end
    assert "    research-jobs run first second\n" in end
    assert "daily [2024-01-04]: failed since" in end
    (report,) = (line.strip() for line in end.splitlines() if line.endswith(".html"))
    assert (project / report).is_file()
    assert "    research-jobs run daily --partition 2024-01-04\n" in end
    quiet = say("run", "numbers_table")
    assert "succeeded\n" not in quiet.out.partition("numbers_table  succeeded")[2]
