"""Where links in metadata, reports and the gallery lead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from research_jobs.orchestration.model.addresses import (
    REPORT_LINKS,
    asset_page,
    public_addresses,
    report_link,
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


def links(catalog: Catalog) -> tuple[str, str, str]:
    report = catalog.project.reports / "a b" / "report.html"
    return (
        report_link(catalog, report, "cell-3"),
        run_page(catalog, "r1", "s"),
        asset_page(catalog, "a/b"),
    )


def test_links_name_no_port(tmp_path: Path) -> None:
    """Where nobody named a public address, links are paths: whoever shows them resolves them."""
    assert links(catalog_of(tmp_path)) == (
        f"{REPORT_LINKS}a%20b/report.html#cell-3",
        "/runs/r1?logs=step%3As",
        "/assets/a/b",
    )


def test_what_a_person_says_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest's public addresses are stored whole, and the environment beats them."""
    catalog = catalog_of(
        tmp_path, "reports: {url: 'https://reports.here/', dagster: 'https://dagster.here/'}"
    )
    assert public_addresses(catalog.project) == ("https://dagster.here", "https://reports.here")
    assert links(catalog) == (
        "https://reports.here/a%20b/report.html#cell-3",
        "https://dagster.here/runs/r1?logs=step%3As",
        "https://dagster.here/assets/a/b",
    )
    monkeypatch.setenv(REPORTS_VARIABLE, "https://r.there/")
    monkeypatch.setenv(UI_VARIABLE, "https://d.there/")
    assert public_addresses(catalog.project) == ("https://d.there", "https://r.there")
    assert public_addresses(None) == ("https://d.there", "https://r.there")
    assert links(catalog)[0].startswith("https://r.there/a%20b/")
    assert links(catalog)[2] == "https://d.there/assets/a/b"


def test_a_broken_manifest_names_nothing(tmp_path: Path) -> None:
    """A manifest that cannot be read takes no server down."""
    assert public_addresses(catalog_of(tmp_path, "reports: [").project) == (None, None)


def test_a_run_leads_to_its_report_and_back(lab: Any) -> None:
    """Metadata link the report, the report its run, the gallery the asset; none names a port."""
    lab.write(
        {
            "chart": "# %%\nfrom IPython.display import SVG\n"
            "SVG(\"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'>"
            "<rect width='9' height='9'/></svg>\")\n"
        }
    )
    project = find_project(lab.root)
    run = lab.materialize("chart")
    assert run.success, run.errors
    said = run.metadata("chart")
    assert said["report"].startswith(f"{REPORT_LINKS}chart/_runs/")
    assert said["chart"].startswith(f"![first chart]({REPORT_LINKS}chart/_runs/")
    page = project.reports / said["report"].removeprefix(REPORT_LINKS)
    assert page == Path(said["report_file"])
    assert f'data-ui="/runs/{run.run_id}?logs=step%3Achart"' in page.read_text()
    gallery = (project.reports / "chart" / "index.html").read_text()
    assert 'data-asset="/assets/chart"' in gallery
    for text in (page.read_text(), gallery, str(said)):
        assert not re.search(r"(?:127\.0\.0\.1|localhost):\d", text)
