"""What the site has and docs/ has not: generated pages, and links that work outside GitHub.

MkDocs calls these functions by their names; mkdocs.yml names this file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomllib
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from site_pages import api, commands, decisions, links, manifest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
GENERATED = {
    "reference/manifest.md": manifest.page,
    "reference/commands.md": commands.page,
    "reference/api.md": api.page,
    "decisions/index.md": decisions.page,
}
"""Page to the function that writes it."""
SHOWN = {page: source for source, page in links.HOME.items()}
"""Page to the file at the top of the repository that it shows."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The repository is the one that pyproject.toml names; pages that nav forgot come last."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config.repo_url = project["urls"]["Repository"]
    config.repo_name = "/".join(config.repo_url.split("/")[-2:])
    config.watch.append(str(ROOT / "research_jobs"))
    listed = str(config.nav)
    forgotten = [path.name for path in sorted(DOCS.glob("*.md")) if path.name not in listed]
    if forgotten and config.nav is not None:
        config.nav.append({"More": forgotten})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and those that are not in docs/."""
    for place, write in GENERATED.items():
        files.append(File.generated(config, place, content=write(ROOT)))
    for place, source in SHOWN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Point links that leave docs/ to the repository."""
    place = page.file.src_uri
    return links.for_site(markdown, SHOWN.get(place, f"docs/{place}"), ROOT, f"{config.repo_url}")
