"""The quick start, followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "quickstart.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# It runs until somebody stops it; tests/e2e does that.
ENDLESS = "research-jobs ui"


def blocks() -> list[tuple[str, str, str]]:
    """Language, text and file of each block: the file that the page named last before it."""
    page = PAGE.read_text(encoding="utf-8")
    found: list[tuple[str, str, str]] = []
    for block in BLOCK.finditer(page):
        prose = BLOCK.sub("", page[: block.start()])
        named = re.findall(r"`(notebooks/[\w./]+)`", prose)
        found.append((block[1], block[2], named[-1] if named else ""))
    return found


@pytest.mark.timeout(480)  # some fifteen commands, which take minutes where memory is slow
def test_every_step_works_as_written(tmp_path: Path) -> None:
    """In order, in an empty folder: files are written as shown, commands typed as shown."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_"))
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    here, ran = tmp_path, 0
    for language, text, file in blocks():
        if language != "sh":
            assert Path(file).suffix == {"python": ".py", "yaml": ".yaml"}[language], text
            (here / file).write_text(text, encoding="utf-8")
            continue
        for line in text.splitlines():
            if line.startswith(ENDLESS):
                continue
            done = subprocess.run(
                ["sh", "-ec", f"{line}\npwd"],
                cwd=here,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            here = Path(done.stdout.splitlines()[-1])
            ran += 1
    assert ran >= 14
    page = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"`(data/[^`]+)`", page):
        if "month=" in path:
            assert len(pd.read_parquet(here / path)) == 29
    assert (here / "data/spreads/result/month=2024-02/part-0.parquet").exists()
    assert "data/spreads/result/month=2024-02/part-0.parquet" in page
