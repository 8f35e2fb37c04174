"""`status`: what needs attention, in one look."""

from __future__ import annotations

import html
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from research_jobs.cli.status import parse_since
from research_jobs.errors import ParameterError
from research_jobs.outcome import State

ZAGREB = ZoneInfo("Europe/Zagreb")


def _write(project: Path, name: str, text: str) -> None:
    (project / "notebooks" / f"{name}.py").write_text(text)


def test_all_is_well(say: Callable[..., object], project: Path) -> None:
    """Where the last run of everything did what it should, one line says so, and the code is 0."""
    (project / "notebooks" / "broken.py").unlink()
    assert say("run", "numbers_table", "reports/total").code == 0
    said = say("status")
    assert said.code == 0
    assert said.out.startswith("Nothing needs attention.\n")
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.strip()}
    assert "succeeded" in lines["numbers_table"]
    assert lines["numbers_table"].split()[-1] == "1", said.out  # used by one
    assert "never run" in lines["daily"]
    assert "2 succeeded" in said.out
    assert say("status", "--json").json == []


def test_what_failed_and_how_to_run_it_again(say: Callable[..., object], project: Path) -> None:
    """A failure has its reason, since when, how often, its report, and a command that works."""
    for _ in range(3):
        assert say("run", "broken").code == 1
    said = say("status", "--json")
    assert said.code == 1
    (one,) = said.json
    assert (one["notebook"], one["state"], one["partition"]) == ("broken", "failed", None)
    assert one["times"] == 3
    assert one["reason"] == ("notebooks/broken.py:5, cell 2 \"Take one\": KeyError: 'Close'")
    assert Path(one["report"]).is_file()
    since = datetime.fromisoformat(one["since"])
    assert timedelta() < datetime.now(ZAGREB) - since < timedelta(minutes=5)
    assert one["rerun"] == "research-jobs run broken"

    _write(project, "broken", "# %%\nprices = 1\n")
    assert say(*one["rerun"].split()[1:]).code == 0
    assert say("status", "--json").json == []


def test_failures_of_one_cause_are_one_entry(say: Callable[..., object], project: Path) -> None:
    """Notebooks that fail for the same reason are named in one line, with one command for all."""
    for name in ("first", "second", "third", "fourth"):
        _write(project, name, "# %%\nraise ConnectionError('no route to the vendor')\n")
    say("run", "first", "second", "third", "fourth")
    out = say("status").out
    assert "first, fourth, second and 1 more: failed since" in out
    assert out.count("no route to the vendor") == 1
    assert "    research-jobs run first fourth second third\n" in out


def test_blocked_and_broken(say: Callable[..., object], project: Path) -> None:
    """A notebook that cannot run, or did not come to its turn, is not one that never ran."""
    _write(project, "numbers_table", "# %%\nraise ValueError('no numbers')\n")
    _write(project, "spelt_wrong", "# %%\nif True print(1)\n")
    say("run", "numbers_table", "reports/total")
    found = {one["notebook"]: one for one in say("status", "--json").json}
    assert found["numbers_table"]["state"] == "failed"
    assert found["reports/total"]["state"] == "blocked"
    assert "numbers_table" in found["reports/total"]["reason"]
    assert found["spelt_wrong"]["state"] == "blocked"
    assert "notebooks/spelt_wrong.py:2" in found["spelt_wrong"]["reason"]


def test_partitions_behind_a_green_one(say: Callable[..., object], project: Path) -> None:
    """Failed partitions and holes show although the newest partition succeeded."""
    for day in (2, 4, 7):
        say("run", "daily", "--partition", f"2024-01-0{day}")
    say("run", "daily", "--partition", "2024-01-07")
    found = {one["state"]: one for one in say("status", "--json").json}
    assert found["failed"]["partition"] == "2024-01-04"
    assert "no prices on 2024-01-04" in found["failed"]["reason"]
    assert found["failed"]["rerun"] == "research-jobs backfill daily --failed"
    assert found["missing"]["partition"] == "2024-01-03, 2024-01-05...2024-01-06"
    assert found["missing"]["reason"] == "3 partitions have no data"
    say(*found["missing"]["rerun"].split()[1:])
    assert [one["state"] for one in say("status", "--json").json] == ["failed"]


def test_the_morning_page_says_the_same(say: Callable[..., object], project: Path) -> None:
    """`report` writes a page with each reason and each command that `status` has, and no others."""
    _write(project, "spelt_wrong", "# %%\nif True print(1)\n")
    say("run", "broken", "numbers_table")
    for day in (2, 4, 7):
        say("run", "daily", "--partition", f"2024-01-0{day}")
    said = say("status", "--json").json
    page = Path(say("report").out.strip()).read_text()
    items = [html.unescape(item) for item in page.split('<li class="rg-problem')[1:-1]]
    assert len(items) == len(said) == 4
    for one, item in zip(said, items, strict=True):
        assert State(one["state"]).heading in item
        assert one["reason"] in item
        assert f"<code>{one['rerun']}</code>" in item
        assert one["partition"] is None or one["partition"] in item
        if one["report"]:
            assert Path(one["report"]).relative_to(project / "reports").as_posix() in item
    assert "2/7" in page
    assert "1 failed" in page


@pytest.mark.parametrize("width", [80, 60])
def test_narrow_screens(
    say: Callable[..., object], project: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    """No line of a table is wider than the screen, and of the text only what must not be cut."""
    name = "volatility_surface_calibration_with_a_name_that_is_longer_than_others"
    _write(project, name, f"# %%\nraise ValueError('{'not enough quotes ' * 8}')\n")
    say("run", name, "numbers_table", "daily")
    monkeypatch.setenv("COLUMNS", str(width))
    for command in ("status", "list"):
        said = say(command).out.splitlines()
        wide = [line.strip() for line in said if len(line) > width]
        assert not [line for line in wide if " " in line and not line.startswith("research-jobs")]
        assert command == "status" or not wide
        head = next(line for line in said if line.startswith("notebook"))
        rows = said[said.index(head) + 1 :][:5]
        assert [row.split()[0][:3] for row in rows] == ["bro", "dai", "num", "rep", "vol"]
        assert all("…" in row for row in rows[4:])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("yesterday", datetime(2026, 3, 29, tzinfo=ZAGREB)),
        ("today", datetime(2026, 3, 30, tzinfo=ZAGREB)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=ZAGREB)),
        ("2026-03-01T06:30", datetime(2026, 3, 1, 6, 30, tzinfo=ZAGREB)),
        ("12h", datetime(2026, 3, 29, 21, 15, tzinfo=ZAGREB)),
        ("3d", datetime(2026, 3, 27, 9, 15, tzinfo=ZAGREB)),
    ],
)
def test_since(text: str, moment: datetime) -> None:
    """A moment is a day's midnight in the project's zone, a date, or a time ago."""
    assert parse_since(text, datetime(2026, 3, 30, 9, 15, tzinfo=ZAGREB)) == moment


@pytest.mark.parametrize("text", ["", "last week", "3w", "-1d", "2026-13-01"])
def test_since_that_is_no_moment(text: str) -> None:
    """Anything else is refused in one line that says what can be written."""
    with pytest.raises(ParameterError, match="is not a moment"):
        parse_since(text, datetime(2026, 3, 30, tzinfo=ZAGREB))
