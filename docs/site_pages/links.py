"""Links of a page that works on GitHub, made to work in the site."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

__all__ = ["HOME", "for_site"]

LINK = re.compile(r"(\]\()((?!\w+:|#|/)[^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
HOME = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""A file at the top of the repository to the page that shows it."""


def for_site(markdown: str, source: str, root: Path, repository: str) -> str:
    """Replace links that leave docs/ or name a folder of it.

    Parameters
    ----------
    markdown : str
        The page's text.
    source : str
        Its path in the repository.
    root : Path
        The checkout.
    repository : str
        Its public address.

    Returns
    -------
    str
        The text with links to pages of the site, or to the repository.
    """
    # Addresses, not paths of this machine.
    folder = os.path.dirname(source)  # noqa: PTH120
    here = os.path.dirname(HOME.get(source, source.removeprefix("docs/"))) or "."  # noqa: PTH120

    def target(link: re.Match[str]) -> str:
        place = os.path.normpath(os.path.join(folder, link[2]))  # noqa: PTH118
        anchor = link[3] or ""
        is_folder = (root / place).is_dir()
        page = HOME.get(place)
        if place.startswith("docs/"):
            page = place.removeprefix("docs/") + ("/index.md" if is_folder else "")
        if page is not None:
            return f"{link[1]}{os.path.relpath(page, here)}{anchor}"
        return f"{link[1]}{repository}/{'tree' if is_folder else 'blob'}/main/{place}{anchor}"

    parts: list[str] = []
    end = 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(target, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(target, markdown[end:])])
