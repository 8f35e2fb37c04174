"""A run of one machine, looked at on another that shares its store and its reports."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterInstance

from research_jobs.cli.main import main

NOTEBOOKS = {
    "prices": "# %%\nprices = [1, 2, 3]\n",
    "report": "# %%\nfrom research_jobs import load\ntotal = sum(load('prices', 'prices'))\n",
}
MANIFEST = """\
notebooks:
  prices: {outputs: {prices: {keep: 5}}}
  report: {outputs: {total: {keep: 5}}}
"""


def test_the_other_machine_explains_and_repeats_a_run(
    lab: Any,
    tmp_path: Path,
    new_instance: Callable[..., DagsterInstance],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`diff`, `rerun`, `show --lineage` and `report` there know what ran here."""
    monkeypatch.setenv("RESEARCH_JOBS_STORE", f"file://{tmp_path}/store")
    monkeypatch.setenv("RESEARCH_JOBS_SHARED_REPORTS", f"file://{tmp_path}/shared")
    here, there = tmp_path / "here", tmp_path / "there"
    for root in (here, there):
        (root / "notebooks").mkdir(parents=True)
        lab = dataclasses.replace(lab, root=root, instance=new_instance()).write(
            NOTEBOOKS, MANIFEST
        )
        if root == here:
            assert lab.materialize("prices", "report").success
            changed = NOTEBOOKS["report"].replace("sum(", "10 + sum(")
            run = lab.write({"report": changed}).materialize("report")
            assert run.success

    def said(*words: str, code: int = 0) -> dict:
        capsys.readouterr()
        assert main([*words, "--project", str(there), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    page = Path(said("report", "report")["html"])
    assert page.is_relative_to(there)
    assert page.is_file()
    lineage = said("show", "report", "total", "--lineage")
    assert "prices" in json.dumps(lineage["origin"])
    differs = json.dumps(said("diff", "report", code=1))
    assert "10 + sum(" in differs
    again = said("rerun", run.run_id)
    assert "equal" in json.dumps(again)


def test_a_place_that_is_not_a_url(lab: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It is one line in the log, and the run succeeds; a command that reads reports says it too."""
    monkeypatch.setenv("RESEARCH_JOBS_SHARED_REPORTS", "s3:/typo")
    run = lab.write({"a": "# %%\nx = 1\n"}).materialize("a")
    assert run.success
    assert "'s3:/typo' is not a URL" in caplog.text
    caplog.clear()
    assert main(["report", "a", "--project", str(lab.root)]) == 0
    assert "'s3:/typo' is not a URL. Write it as s3://" in caplog.text
