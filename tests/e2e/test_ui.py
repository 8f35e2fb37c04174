"""The real UI in a real browser."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from contextlib import ExitStack
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
    wait_for("the run", lambda: _succeeded(ui.url), timeout=150)
    # The page as the next visitor sees it: an open one takes its time to fetch what is new.
    page.reload()
    page.get_by_text("CHARLIE").first.wait_for()
    text = page.inner_text("body")
    assert "33" in text
    assert "peak_memory_bytes" in text
    assert "data/prices/prices.parquet" in text
    assert (prices_project / "data" / "prices" / "prices.parquet").is_file()

    # One click to the report of that run, its chart in sight before, and one click back.
    chart = page.locator("img[src^='/research-jobs/reports/prices/_runs/']").first
    chart.wait_for()
    page.wait_for_function("image => image.complete", arg=chart.element_handle())
    assert 0 < chart.evaluate("image => image.naturalWidth") <= 600
    with page.expect_popup() as opened:
        page.locator("a[href^='/research-jobs/reports/prices/_runs/']").first.click()
    report = opened.value
    report.locator("h1.rj-name", has_text="prices").wait_for()
    assert report.url.startswith(f"{ui.reports_url}/prices/_runs/")
    report.get_by_text("Run in Dagster").click()
    report.get_by_text("STEP_SUCCESS").first.wait_for()
    assert report.url.startswith(f"{ui.url}/runs/")

    # From the gallery to the notebook's page, and from there to the asset's.
    page.goto(f"{ui.reports_url}/prices/")
    page.get_by_text("In Dagster").click()
    page.get_by_text("Latest materialization").wait_for()
    assert page.url.startswith(f"{ui.url}/assets/prices")

    page.goto(f"{ui.url}/runs")
    page.get_by_text("Success").first.wait_for()


def _succeeded(url: str) -> bool:
    query = b'{"query": "{ runsOrError { ... on Runs { results { status } } } }"}'
    request = urllib.request.Request(f"{url}/graphql", query, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        statuses = [run["status"] for run in json.load(answer)["data"]["runsOrError"]["results"]]
    assert "FAILURE" not in statuses
    return statuses == ["SUCCESS"]


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


@pytest.mark.browser
@pytest.mark.timeout(240)
def test_two_projects_never_lead_into_each_other(page: Any, tmp_path: Path, e2e: Any) -> None:
    """Of two projects served side by side, links of earlier runs lead to their own reports."""
    projects = [
        e2e.write_project(tmp_path / name, {"same.py": f"# %%\nprint('of {name}')\n"})
        for name in ("one", "two")
    ]
    for project in projects:
        # Nobody serves anything yet.
        command = [e2e.BIN / "research-jobs", "run", "same", "--project", project]
        subprocess.run(command, env=e2e.environment(), check=True, capture_output=True)
    with ExitStack() as stack:
        for project in projects:
            ui = stack.enter_context(e2e.running_ui(project, project))
            page.goto(f"{ui.url}/assets/same")
            link = page.locator("a[href^='/research-jobs/reports/same/_runs/']").first
            link.wait_for()
            page.goto(f"{ui.url}{link.get_attribute('href')}")
            assert page.get_by_text(f"of {project.name}").count()
            assert page.url.startswith(ui.reports_url)
            back = page.get_by_text("Run in Dagster")
            back.wait_for()
            assert back.get_attribute("href").startswith(f"{ui.url}/runs/")
