"""A run that a check refused, as every command says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("partitions", ["", ", partitions: {by: day, start: 2024-01-01}"])
def test_a_refused_run_is_called_refused(say: Any, project: Path, partitions: str) -> None:
    """Neither succeeded nor failed, in run, list, show and report, with the check that did it."""
    (project / "notebooks" / "checked.py").write_text("# %%\nrows = []\n")
    (project / "notebooks" / "manifest.yaml").write_text(
        f"notebooks: {{checked: {{outputs: {{rows: {{min_rows: 1}}}}{partitions}}}}}\n"
    )
    words = ("--partition", "2024-01-02") if partitions else ()
    ran = say("run", "checked", *words, "--json")
    assert ran.code == 1
    (outcome,) = ran.json
    (listed,) = [line for line in say("list", "--json").json if line["notebook"] == "checked"]
    (past,) = say("show", "checked", "--json").json["runs"]
    (report,) = say("report", "checked", "--list", "--json").json
    said = [outcome, listed["last"], past, report]
    assert [each["ending"] for each in said] == ["refused"] * 4
    assert all("failed the check min_rows" in each["error"] for each in said[:3])
    for command in (("list",), ("show", "checked"), ("report", "checked", "--list")):
        assert "refused" in say(*command).out
