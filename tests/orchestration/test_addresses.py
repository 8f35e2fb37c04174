"""Where links in metadata, reports and the gallery lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.ui import address
from research_jobs.orchestration.model.addresses import (
    announced,
    asset_page,
    expect_ui,
    reports_address,
    run_page,
)
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.project import REPORTS_VARIABLE, UI_VARIABLE, find_project


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No address comes from this machine's own settings."""
    monkeypatch.delenv(REPORTS_VARIABLE, raising=False)
    monkeypatch.delenv(UI_VARIABLE, raising=False)


def catalog_of(folder: Path, manifest: str = "") -> Catalog:
    notebooks = folder / "notebooks"
    notebooks.mkdir(exist_ok=True)
    (notebooks / "manifest.yaml").write_text(manifest)
    return load_catalog(find_project(folder))


def test_nobody_serves_anything(tmp_path: Path) -> None:
    """Without a server there is no address, and so no link that leads nowhere."""
    catalog = catalog_of(tmp_path)
    found = (reports_address(catalog), run_page(catalog, "r1", "s"), asset_page(catalog, "a/b"))
    assert found == (None, None, None)


def test_a_running_ui_is_found_and_a_dead_one_is_not(tmp_path: Path) -> None:
    """Its addresses hold exactly as long as it lives, though its file stays."""
    catalog = catalog_of(tmp_path)
    with announced(catalog.project, ui="http://127.0.0.1:1", reports="http://127.0.0.1:2"):
        assert reports_address(catalog) == "http://127.0.0.1:2"
        assert run_page(catalog, "r1", "s") == "http://127.0.0.1:1/runs/r1?logs=step%3As"
        assert asset_page(catalog, "a/b") == "http://127.0.0.1:1/assets/a/b"
    assert (catalog.project.state / "ui.json").exists()
    assert reports_address(catalog) is None


def test_the_last_ui_is_found(tmp_path: Path) -> None:
    """Of two over one project the later one counts, and its end does not disturb the other."""
    catalog = catalog_of(tmp_path)
    with announced(catalog.project, ui="http://a", reports="http://b"):
        with announced(catalog.project, ui="http://c", reports="http://d"):
            assert reports_address(catalog) == "http://d"
        assert reports_address(catalog) is None


def test_the_command_line_expects_a_ui(tmp_path: Path) -> None:
    """Its runs link where a UI will be started to see them: the usual ports, else the last ones."""
    catalog = catalog_of(tmp_path)
    with expect_ui():
        assert reports_address(catalog) == "http://127.0.0.1:3001"
        assert asset_page(catalog, "a") == "http://127.0.0.1:3000/assets/a"
        with announced(catalog.project, ui="http://a", reports="http://b"):
            assert reports_address(catalog) == "http://b"
        assert reports_address(catalog) == "http://b"
    assert reports_address(catalog) is None


def test_what_a_person_says_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest's public addresses beat a running UI's, and the environment beats both."""
    catalog = catalog_of(
        tmp_path, "reports: {url: 'https://reports.here/', dagster: 'https://dagster.here/'}"
    )
    with announced(catalog.project, ui="http://a", reports="http://b"):
        assert reports_address(catalog) == "https://reports.here"
        assert run_page(catalog, "r1", "s") == "https://dagster.here/runs/r1?logs=step%3As"
        monkeypatch.setenv(REPORTS_VARIABLE, "https://r.there/")
        monkeypatch.setenv(UI_VARIABLE, "https://d.there/")
        assert reports_address(catalog) == "https://r.there"
        assert asset_page(catalog, "a") == "https://d.there/assets/a"


def test_a_run_leads_to_its_report_and_back(lab: Any) -> None:
    """While a UI runs, metadata link the report, the report its run, the gallery the asset."""
    lab.write(
        {
            "chart": "# %%\nfrom IPython.display import SVG\n"
            "SVG(\"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>\")\n"
        }
    )
    project = find_project(lab.root)
    with announced(project, ui="http://127.0.0.1:1", reports="http://127.0.0.1:2"):
        run = lab.materialize("chart")
    assert run.success, run.errors
    said = run.metadata("chart")
    assert said["report"].startswith("http://127.0.0.1:2/chart/_runs/")
    assert said["chart"].startswith("![first chart](http://127.0.0.1:2/chart/_runs/")
    page = project.reports / said["report"].removeprefix("http://127.0.0.1:2/")
    assert f'href="http://127.0.0.1:1/runs/{run.run_id}?logs=step%3Achart"' in page.read_text()
    gallery = (project.reports / "gallery.js").read_text()
    assert '"url":"http://127.0.0.1:1/assets/chart"' in gallery


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "http://127.0.0.1:3000"), ("::1", "http://[::1]:3000")],
)
def test_address_of_a_host(host: str, shown: str) -> None:
    """A server's address is one that a browser takes."""
    assert address(host, 3000) == shown


def test_address_of_all_hosts() -> None:
    """Listening everywhere, links name this machine: no browser elsewhere could open 0.0.0.0."""
    assert "0.0.0.0" not in address("0.0.0.0", 3000)
