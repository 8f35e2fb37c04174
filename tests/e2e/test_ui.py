"""The real UI in a real browser."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest


@pytest.mark.browser
@pytest.mark.timeout(240)
def test_materialise_by_clicking(
    page: Any, prices_project: Path, start_ui: Any, wait_for: Any
) -> None:
    """A click on Materialize runs the notebook; the asset's page has its rows, chart and report."""
    ui = start_ui(prices_project)
    page.goto(f"{ui.url}/assets/prices")
    # A first visit shows the page itself, with no invitation in front of it.
    # The click asks several things of the server before it launches: a reload would end that.
    with page.expect_response(_launches, timeout=120_000) as launched:
        page.locator("button:not([disabled])", has_text="Materialize").first.click()
    assert "LaunchRunSuccess" in launched.value.text()
    # The page as the next visitor sees it: an open one takes its time to fetch what is new.

    def shown() -> bool:
        page.reload()
        page.get_by_text("Latest materialization").wait_for()
        page.wait_for_timeout(1500)
        return page.get_by_text("CHARLIE").count() > 0

    wait_for("the materialisation", shown, timeout=150, interval=2)
    text = page.inner_text("body")
    assert "33" in text
    assert "peak_memory_bytes" in text
    assert "data/prices/prices.parquet" in text
    assert (prices_project / "data" / "prices" / "prices.parquet").is_file()

    # One click to the report of that run, its chart in sight before, and one click back.
    chart = page.locator(f"img[src^='{ui.reports_url}/prices/_runs/']").first
    chart.wait_for()
    assert 0 < chart.evaluate("image => image.naturalWidth") <= 600
    report = page.locator(f"a[href^='{ui.reports_url}/prices/_runs/']").first
    page.goto(report.get_attribute("href"))
    assert page.locator("h1").first.inner_text() == "prices"
    page.goto(page.get_by_text("Run in Dagster").get_attribute("href"))
    page.get_by_text("STEP_SUCCESS").first.wait_for()

    page.goto(f"{ui.url}/runs")
    page.get_by_text("Success").first.wait_for()


def _launches(response: Any) -> bool:
    return "LaunchPipelineExecution" in (response.request.post_data or "")


@pytest.mark.timeout(240)
def test_ctrl_c_leaves_no_process(prices_project: Path, start_ui: Any) -> None:
    """Interrupted, the UI ends with 0 and everything that it started ends with it."""
    ui = start_ui(prices_project)
    started = psutil.Process(ui.process.pid).children(recursive=True)
    assert len(started) >= 4
    ui.process.send_signal(signal.SIGINT)
    assert ui.process.wait(60) == 0
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []


@pytest.mark.timeout(240)
def test_killed_leaves_no_process(prices_project: Path, start_ui: Any) -> None:
    """SIGKILL of the command, which can then end nothing itself, ends all that it started."""
    ui = start_ui(prices_project)
    started = psutil.Process(ui.process.pid).children(recursive=True)
    assert len(started) >= 4
    ui.process.kill()
    _, alive = psutil.wait_procs(started, timeout=60)
    assert alive == []
