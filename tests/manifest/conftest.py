"""A manifest written into a project of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from research_jobs.manifest import Manifest, load_manifest
from research_jobs.orchestration.model.crons import check_cron
from research_jobs.project import find_project

NOTEBOOKS = ("market_data", "performance_report", "volatility/garch", "momentum_signals")

Load = Callable[[str | bytes], Manifest]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a manifest's text as that of a project with four notebooks."""
    monkeypatch.delenv("RESEARCH_JOBS_STORE", raising=False)
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)

    def load_text(text: str | bytes) -> Manifest:
        content = text.encode() if isinstance(text, str) else text
        (folder / "manifest.yaml").write_bytes(content)
        return load_manifest(find_project(folder.parent), NOTEBOOKS, cron=check_cron)

    return load_text
