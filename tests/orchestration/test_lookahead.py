"""Signals that knew the future are found, and no others accused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import leaks
import pytest

from research_jobs.cli.main import main

# One of each way: a history, an upstream notebook, a day, another partition, known later, polars.
LEAKY = ("back_fill", "upstream", "known_later", "polars_shift", "day_fit", "day_all_bars")
CLEAN = ("every_day_filled", "positions", "chance", "known_later", "day_revised", "day_bars")
CASES = [f"leaky_{name}" for name in LEAKY] + [f"clean_{name}" for name in CLEAN]
INPUTS = {
    "leaky_back_fill": "prices.prices",
    "leaky_upstream": "smooth.smooth",
    "leaky_known_later": "filings.filings",
    "leaky_polars_shift": "prices.prices",
    "leaky_day_fit": "prices.prices",
    "leaky_day_all_bars": "bars.bars",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with notebooks of both kinds, whose sources have run."""
    root = tmp_path_factory.mktemp("foresight")
    leaks.write_project(root, [case for case in leaks.all_cases() if case[0] in CASES])
    command = str(Path(sys.executable).with_name("research-jobs"))
    bars = ["bars", "--from", "2018-05-01", "--to", "2018-05-04"]
    for words in (["run", *leaks.SOURCES, *leaks.SMOOTH], ["backfill", *bars]):
        subprocess.run([command, *words], cwd=root, check=True, capture_output=True)
    return root


def look(project: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """What the command says, as JSON."""
    code = main(["lookahead", "--project", str(project), "--json", *words])
    said = capsys.readouterr()
    assert said.out, said.err
    return code, json.loads(said.out)


@pytest.mark.parametrize("name", CASES)
def test_leaks_are_found_and_no_others(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each seeded leak is found, with its input; no clean notebook is accused."""
    stored = sorted((project / "data").rglob("*"))
    daily = leaks.is_daily(name)
    code, found = look(project, capsys, name, "--partitions", *(["2018-05-02"] if daily else ["1"]))
    leak = name.startswith("leaky")
    assert (code, [each["leak"] for each in found]) == (int(leak), [leak]), found
    assert found[0]["input"] == INPUTS.get(name)
    if leak:
        assert found[0]["output"] == "out"
        assert found[0]["column"]
    assert sorted((project / "data").rglob("*")) == stored


def test_what_is_left_out_is_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Chance, and the promise, in the text; an unknown date, and no partitions, are refused."""
    assert main(["lookahead", "--project", str(project), "clean_chance", "--partitions", "1"]) == 0
    said = capsys.readouterr().out
    assert "left out, for it differs between equal runs: out.noise" in said
    assert "detection on a sample, not a proof" in said
    words = ["lookahead", "--project", str(project), "clean_chance", "--partitions"]
    assert main([*words, "someday"]) == 2
    assert "'someday' is not a date to cut at" in capsys.readouterr().err
    assert main([*words, "0"]) == 2
    assert not list((project / ".research_jobs" / "trials").iterdir())


def test_a_raw_file_is_not_covered(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be cut is named: the notebook's own file; nobody is accused for it."""
    folder = project / "notebooks"
    (project / "raw.csv").write_text("date,x\n2018-03-01,1\n2018-06-01,2\n")
    (folder / "raw.py").write_text(
        "# %%\nimport pandas as pd\nfrom research_jobs import load\n"
        "days = load('prices', 'prices')[['date']]\n"
        "out = days.assign(x=pd.read_csv('../raw.csv')['x'].iloc[-1])\n"
    )
    manifest = folder / "manifest.yaml"
    manifest.write_text(manifest.read_text() + "  raw: {outputs: out}\n")
    code, found = look(project, capsys, "raw", "--partitions", "2018-04-03")
    assert (code, found[0]["leak"]) == (0, False)
    assert found[0]["not_covered"] == ["raw.csv, which raw reads"]
