"""``research-jobs adopt``: what notebooks show becomes their outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from research_jobs.cli.adopt import with_outputs, with_schedule
from research_jobs.errors import ManifestError

pytestmark = pytest.mark.timeout(300)

FRAME = """\
# %%
import pandas as pd
frame = pd.DataFrame({"n": range(20), "gap: a": [None] + [1.5] * 19, "b": "x"})
frame.head()
# %%
total = int(frame["n"].sum())
print("a long story")
unseen = 1
total
# %%
class Thing: ...
gadget = Thing()
gadget
"""


def test_what_is_shown_is_kept(call: Any, tmp_path: Path) -> None:
    """What cells end with becomes outputs, with checks that hold; failures keep no other out."""
    folder = tmp_path / "notebooks"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "frame.py").write_text(FRAME)
    (folder / "fails.py").write_text("# %%\n1 / 0\n")
    (folder / "known.py").write_text("# %%\nx = 1\nx\n")
    before = "# ours\nnotebooks:  # all\n    known: {timeout: 1m}  # stays\n"
    (folder / "manifest.yaml").write_text(before)
    listed = call("adopt")
    assert listed.returncode == 1
    assert (folder / "manifest.yaml").read_text() == before
    done = call("adopt", "--yes", "--schedule", "0 6 * * *")
    assert done.returncode == 1
    assert "fails: " in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "deep/frame ran" in done.stderr
    assert "a long story" not in done.stdout
    for shown in (listed.stdout, done.stdout):
        assert "20" in shown
        assert "unseen" not in shown
        assert "gadget" not in shown
    assert (folder / "manifest.yaml").read_text() == (
        "# ours\nnotebooks:  # all\n    deep/frame:\n      outputs:\n"
        "        frame: {min_rows: 1, columns: [n, 'gap: a', b], not_null: [n, b], unique: [n]}\n"
        "        total: {}\n    known: {timeout: 1m}  # stays\n\n"
        'schedules:\n  adopted_1:\n    cron: "0 6 * * *"\n    notebooks:\n      - deep/frame\n'
    )
    ran = call("run", "deep/frame")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "data" / "deep" / "frame" / "frame.parquet").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "notebooks:\n  a:\n    outputs: [x]\n"),
        ("# c\r\n", "# c\r\n\r\nnotebooks:\r\n  a:\r\n    outputs: [x]\r\n"),
        ("# c\n", "# c\n\nnotebooks:\n  a:\n    outputs: [x]\n"),
        ("notebooks: {}  # c\nprefix: p\n", "notebooks:  # c\n  a:\n    outputs: [x]\nprefix: p\n"),
    ],
)
def test_lines_are_added_and_none_is_lost(before: str, after: str) -> None:
    """Whatever the manifest has, its lines and comments stay."""
    assert with_outputs(before, {"a": {"x": {}}}) == after


def test_a_second_schedule_has_a_name_of_its_own() -> None:
    """Schedules that are there stay, whoever wrote them."""
    first = with_schedule("schedules:\n  mine: {}\n", "0 6 * * *", ["a", "b/c"])
    second = with_schedule(first, "0 7 * * *", ["d"])
    assert list(yaml.safe_load(second)["schedules"]) == ["adopted_2", "adopted_1", "mine"]


def test_a_manifest_in_one_line_is_refused() -> None:
    """Where a line cannot be added, the manifest stays and the error says what to do."""
    with pytest.raises(ManifestError, match="one line"):
        with_outputs("notebooks: {b: {}}\n", {"a": {"x": {}}})
