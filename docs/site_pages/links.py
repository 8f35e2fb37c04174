"""Links of a page that works on GitHub, made to work in the site."""

from __future__ import annotations

import os.path
import re
from pathlib import Path

__all__ = ["for_site"]

LINK = re.compile(r"(\]\()((?!\w+:|#|/)[^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
HOME = {"README.md": "index.md"}
"""A page of the repository to the site's page with the same content."""


def for_site(markdown: str, page: str, root: Path, repository: str) -> str:
    """Replace links that leave docs/ or name a folder of it.

    Parameters
    ----------
    markdown : str
        The page's text.
    page : str
        Its path in docs/.
    root : Path
        The checkout.
    repository : str
        Its public address.

    Returns
    -------
    str
        The text with links to pages of the site, or to the repository.
    """
    folder = os.path.dirname(page)  # noqa: PTH120 - an address, not a path

    def target(link: re.Match[str]) -> str:
        place = os.path.normpath(os.path.join("docs", folder, link[2]))  # noqa: PTH118 - as above
        anchor = link[3] or ""
        if place.startswith("docs/"):
            if (root / place).is_dir():
                return f"{link[1]}{link[2].rstrip('/')}/index.md{anchor}"
            return link[0]
        if place in HOME and not anchor:
            return f"{link[1]}{os.path.relpath(HOME[place], folder or '.')}"
        kind = "tree" if (root / place).is_dir() else "blob"
        return f"{link[1]}{repository}/{kind}/main/{place}{anchor}"

    parts: list[str] = []
    end = 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(target, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(target, markdown[end:])])
