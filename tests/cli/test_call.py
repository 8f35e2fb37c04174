"""``research-jobs run`` where one Dagster run is not enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

UNIVERSE = "# %%\nfrom pathlib import Path\n\nmembers = Path('members.txt').read_text().split()\n"
PER_TICKER = '# %% tags=["parameters"]\nticker = "SPY"\n# %%\nrows = [ticker]\n'
MANIFEST = """
notebooks:
  universe: {outputs: [members]}
  per_ticker:
    outputs: [rows]
    partitions: {dynamic: {notebook: universe, output: members}, parameter: ticker}
"""


def endings(said: Any) -> list[tuple[str, str | None, str]]:
    """Notebook, partition and ending of each outcome, in order."""
    return [(o["notebook"], o["partition"], o["ending"]) for o in said.json]


@pytest.fixture
def listed(project: Path) -> Path:
    """A project in which one notebook lists the partitions of another."""
    for path in (project / "notebooks").rglob("*.py"):
        path.unlink()
    (project / "notebooks/universe.py").write_text(UNIVERSE)
    (project / "notebooks/per_ticker.py").write_text(PER_TICKER)
    (project / "notebooks/manifest.yaml").write_text(MANIFEST)
    (project / "notebooks/members.txt").write_text("AAPL MSFT")
    return project


def test_partitions_that_a_notebook_lists_are_the_newest(say: Any, listed: Path) -> None:
    """No daemon tells of them: each command looks, and one call makes list and partitions."""
    early = say("backfill", "per_ticker", "--all")
    assert early.code == 2
    assert early.err == (
        "research-jobs backfill: partitions are listed by universe, output members, which has not"
        " run yet. Run it first: research-jobs run universe\n"
    )
    both = say("run", "per_ticker", "universe", "--json")
    assert both.code == 0, both.err
    assert endings(both) == [
        ("universe", None, "succeeded"),
        ("per_ticker", "AAPL", "succeeded"),
        ("per_ticker", "MSFT", "succeeded"),
    ]
    (listed / "notebooks/members.txt").write_text("AAPL MSFT TSLA")
    assert say("run", "universe").code == 0
    missing = say("backfill", "per_ticker", "--missing", "--dry-run", "--json").json
    assert missing["plan"][0]["partitions"] == ["TSLA"]
    one = say("run", "per_ticker", "--partition", "TSLA", "--json")
    assert endings(one) == [("per_ticker", "TSLA", "succeeded")]


def test_a_list_that_failed_leaves_what_it_lists_alone(say: Any, listed: Path) -> None:
    """The partitions are not known: said so, and nothing of them runs."""
    (listed / "notebooks/members.txt").unlink()
    said = say("run", "--all", "--json")
    assert said.code == 1
    assert endings(said) == [("universe", None, "failed"), ("per_ticker", None, "blocked")]


def test_what_needs_another_run_that_failed_does_not_run(say: Any, project: Path) -> None:
    """Also where the two have different partitions; of the same ones, each needs its own."""
    (project / "notebooks/prices.py").write_text(
        '# %% tags=["parameters"]\nregion = ""\n# %%\nif region == "us": raise ValueError\nx = 1\n'
    )
    (project / "notebooks/same.py").write_text('# %% tags=["parameters"]\nregion = ""\n')
    (project / "notebooks/years.py").write_text("# %%\n")
    (project / "notebooks/manifest.yaml").write_text("""
notebooks:
  prices: {outputs: [x], partitions: {values: [eu, us], parameter: region}}
  same: {partitions: {values: [eu, us], parameter: region}, deps: [prices]}
  other: {deps: [same]}
  years: {partitions: {by: year, start: 2024, end: 2025}, deps: [other]}
""")
    (project / "notebooks/other.py").write_text("# %%\n")
    said = say("run", "years", "other", "same", "prices", "--json")
    assert said.code == 1
    assert set(endings(said)) == {
        ("prices", "eu", "succeeded"),
        ("same", "eu", "succeeded"),
        ("prices", "us", "failed"),
        ("same", "us", "blocked"),
        ("other", None, "blocked"),
        ("years", "2024", "blocked"),
    }


def test_a_notebook_whose_partitions_begin_later_waits(say: Any, project: Path) -> None:
    """Named it is a wrong call; among all it is skipped, and the others run."""
    (project / "notebooks/broken.py").unlink()
    text = (project / "notebooks/manifest.yaml").read_text()
    text = text.replace("start: 2024-01-01, end: 2024-01-08", "start: 2199-01-01")
    (project / "notebooks/manifest.yaml").write_text(text)
    named = say("run", "daily")
    assert named.code == 2
    assert "'daily' has no partition yet. The first begins on 2199-01-01 00:00" in named.err
    everything = say("run", "--all", "--json")
    assert everything.code == 0, everything.err
    assert endings(everything)[0] == ("daily", None, "skipped")
    assert [o["ending"] for o in everything.json[1:]] == ["succeeded", "succeeded"]


def test_a_partition_for_what_has_none_is_refused(say: Any, project: Path) -> None:
    """`run NAME --partition x` of a notebook without partitions does not ignore the key."""
    said = say("run", "numbers_table", "--partition", "2024-01-01")
    assert said.code == 2
    assert "--partition: numbers_table has no partitions" in said.err
    both = say("run", "numbers_table", "daily", "--partition", "2024-01-01", "--json")
    assert both.code == 0, "it is for the one that has"


def test_messages_leave_out_the_prefix(say: Any, project: Path) -> None:
    """A notebook's name, as on the command line, and not the asset's."""
    manifest = project / "notebooks/manifest.yaml"
    manifest.write_text(f"prefix: mine\n{manifest.read_text()}")
    said = say("run", "numbers_table", "--partition", "2024-01-01")
    assert "--partition: numbers_table has no partitions" in said.err
    said = say("run", "daily", "--partition", "2199-01-01")
    assert "'daily' has no partition '2199-01-01'" in said.err


def test_show_says_what_belongs_to_the_notebook(say: Any, project: Path) -> None:
    """`took` is the notebook's own time, and one without partitions shows no partition."""
    (project / "notebooks" / "daily.py").write_text(
        '# %% tags=["parameters"]\nfrom datetime import date\n\nday: date = date(2024, 1, 1)\n'
        "# %%\nimport time\ntime.sleep(2)\nvalue = day.day\n"
    )
    assert say("run", "numbers_table", "daily", "--partition", "2024-01-01").code == 0
    (quick,) = say("show", "numbers_table", "--json").json["runs"]
    (slow,) = say("show", "daily", "--json").json["runs"]
    assert quick["run_id"] == slow["run_id"]
    assert (quick["partition"], slow["partition"]) == (None, "2024-01-01")
    assert quick["duration_s"] < slow["duration_s"]


def test_what_needs_an_earlier_run_of_its_partition_is_held_back(say: Any, project: Path) -> None:
    """Two runs of a call over equal partitions: what failed in the first holds back the second."""
    first = '# %% tags=["parameters"]\nregion = ""\n# %%\nif region == "eu": raise ValueError\n'
    for name in ("first", "second", "last"):
        text = first if name == "first" else '# %% tags=["parameters"]\nregion = ""\n'
        (project / "notebooks" / f"{name}.py").write_text(text)
    (project / "notebooks/other.py").write_text("# %%\n")
    regions = "partitions: {values: [eu, us], parameter: region}"
    (project / "notebooks/manifest.yaml").write_text(f"""
notebooks:
  first: {{{regions}}}
  second: {{{regions}}}
  other: {{deps: [second]}}
  last: {{{regions}, deps: [first, other]}}
""")
    said = say("run", "first", "second", "other", "last", "--json")
    assert said.code == 1
    assert set(endings(said)) == {
        ("first", "eu", "failed"),
        ("first", "us", "succeeded"),
        ("second", "eu", "succeeded"),
        ("second", "us", "succeeded"),
        ("other", None, "succeeded"),
        ("last", "eu", "blocked"),
        ("last", "us", "succeeded"),
    }
