"""`research-jobs diff`: what differs between two runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

PRICES = """\
# %% Prices
import pandas as pd

close = [10.0, 20.0, {close}]
prices = pd.DataFrame({{"day": pd.date_range("2018-11-01", periods=3), "close": close}})
stats = {{"best": {{"close": max(close)}}, "days": 3}}
print("the last is", close[-1])
"""


@pytest.fixture
def runs(say: Any, project: Path) -> list[dict[str, Any]]:
    """Three runs of a notebook that keeps its outputs, the second of which changes them."""
    (project / "notebooks" / "manifest.yaml").write_text(
        "notebooks:\n  prices: {outputs: {prices: {unique: [day], keep: 5}, stats: {}}}\n"
    )
    for close in ("30.0", "33.0", "33.0"):
        (project / "notebooks" / "prices.py").write_text(PRICES.format(close=close))
        assert say("run", "prices").code == 0
    return say("show", "prices", "--json").json["runs"]


def test_two_runs_are_compared(say: Any, runs: list[dict[str, Any]], project: Path) -> None:
    """Tables, values and printed text of the runs that one names, as text and as JSON."""
    same = say("diff", "prices", "--json")
    assert (same.code, same.json["equal"], same.json["causes"]) == (0, True, [])
    ids = [run["run_id"] for run in runs]
    assert [same.json[side]["run_id"] for side in ("before", "after")] == [ids[1], ids[0]]

    found = say("diff", "prices", "-2", "-1", "--json")
    assert (found.code, found.json["equal"]) == (1, False)
    table = found.json["outputs"]["prices"]
    counts = [table[f"rows_{what}"] for what in ("added", "removed", "changed")]
    assert (table["equal"], counts, table["key"]) == (False, [0, 0, 1], ["day"])
    assert table["columns"]["close"]["largest"]["change"] == pytest.approx(3.0)
    assert found.json["outputs"]["stats"]["parts"][0]["path"] == "best.close"
    cell = found.json["shown"]["cells"][0]
    assert cell["text"] == ["-the last is 30.0", "+the last is 33.0"]

    text = say("diff", "prices", ids[2][:8], "--html", "diff.html")
    assert "+the last is 33.0" in (project / "diff.html").read_text()
    assert text.code == 1
    assert "prices: rows: 1 changed; 3 as before; by day (declared unique)" in text.out
    assert "largest +3 (10 %) at 2018-11-03: 30 -> 33" in text.out
    assert "best.close: 30.0 -> 33.0" in text.out or "best.close: 30 -> 33 (10 %)" in text.out
    assert "+the last is 33.0" in text.out
    assert "memory" in text.out
    assert say("diff", "prices", ids[2], "--tolerance", "0.2").code == 0

    tomorrow = (datetime.now(tz=UTC) + timedelta(days=2)).date().isoformat()
    assert say("diff", "prices", tomorrow, "000001", "--json").json["after"]["run_id"] == ids[2]
    assert (say("diff", "prices", "2001-01-01").code, say("diff", "prices", "-7").code) == (2, 2)
    refused = say("diff", "prices", "nosuch")
    assert "has no run 'nosuch' of which anything is kept. There are: 20" in refused.err
    assert not list((project / ".research_jobs").glob(".comparing*"))


def test_a_run_that_changes_too_much_is_refused(say: Any, project: Path) -> None:
    """The check `changed` compares with what is published, which stays if it fails."""
    (project / "notebooks" / "manifest.yaml").write_text(
        "notebooks: {prices: {outputs: {prices: {changed: {max_change: {close: 10%}}}}}}\n"
    )
    for close, code in (("30.0", 0), ("32.0", 0), ("40.0", 1)):
        (project / "notebooks" / "prices.py").write_text(PRICES.format(close=close))
        last = say("run", "prices", "--json")
        assert last.code == code
    (check,) = last.json[0]["checks"]
    said = "close: +8 (25 %) at 2018-11-03: 32 -> 40, at most 10 % allowed"
    assert (check["check"], check["passed"], check["description"]) == ("changed", False, said)
    stored = say("show", "prices", "prices", "--json").json["head"]
    assert [row["close"] for row in stored] == [10.0, 20.0, 32.0]


def test_outputs_that_are_no_longer_stored(say: Any, project: Path) -> None:
    """Without the older outputs what cells show is compared, and the command says so."""
    manifest = project / "notebooks" / "manifest.yaml"
    kept = manifest.read_text().replace("[table, total]", "{table: {keep: 0}, total: {keep: 0}}")
    manifest.write_text(kept)
    assert say("diff", "numbers_table").code == 2
    say("run", "numbers_table")
    assert "has only one run" in say("diff", "numbers_table").err
    say("run", "numbers_table")
    lost = say("diff", "numbers_table", "--json")
    assert lost.code == 2
    assert "are no longer stored: `keep`" in lost.err
    assert (lost.json["outputs"], lost.json["shown"]["equal"]) == ({}, True)
    (project / "notebooks" / "plain.py").write_text("# %%\nprint(1)\n")
    for _ in range(2):
        say("run", "plain")
    assert say("diff", "plain").code == 0
    assert say("run", "daily", "--partition", "2024-01-02").code == 0
    parted = say("diff", "daily", "0", "0", "--json")
    assert (parted.code, parted.json["partition"]) == (0, "2024-01-02")
