"""Two versions of pandas from an index: `make test-index`, as it downloads 60 MB."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from research_jobs import load
from research_jobs.cli.main import main

LOOK = """
# %%
import pandas as pd

frame = pd.DataFrame({"version": pd.Series([pd.__version__], dtype="category")})
frame
"""
BLOCK = '# /// script\n# dependencies = ["pandas==2.2.3"]\n# ///'


@pytest.mark.timeout(600)
@pytest.mark.skipif(
    "RESEARCH_JOBS_TEST_INDEX" not in os.environ, reason="downloads pandas: make test-index"
)
def test_another_pandas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run has a notebook with pandas 2.2.3 and one with ours; both outputs are read here."""
    monkeypatch.chdir(tmp_path)
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "older.py").write_text(BLOCK + LOOK)
    (notebooks / "ours.py").write_text(LOOK)
    (notebooks / "manifest.yaml").write_text(
        "notebooks:\n  older: {outputs: [frame]}\n  ours: {outputs: [frame]}\n"
    )
    assert main(["run", "--all", "--project", str(tmp_path)]) == 0
    shown = {name: load(name, "frame", project=tmp_path) for name in ("older", "ours")}
    assert {name: frame["version"].tolist() for name, frame in shown.items()} == {
        "older": ["2.2.3"],
        "ours": [pd.__version__],
    }
    assert {str(frame["version"].dtype) for frame in shown.values()} == {"category"}
