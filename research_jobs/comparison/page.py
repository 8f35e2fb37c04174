"""A comparison as one HTML file, with the pictures that differ side by side."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from research_jobs.comparison.cells import joined
from research_jobs.comparison.shown import ShownChange, bundles_of

__all__ = ["comparison_page"]

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")
# What a notebook showed is untrusted: a picture cannot run scripts, and nothing is fetched.
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 80em; padding: 0 1em }}
pre {{ overflow-x: auto; background: #f6f6f6; padding: 1em }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 1em }}
figure {{ margin: 0 }} img {{ max-width: 100%; background: #fff }}
@media (prefers-color-scheme: dark) {{ body {{ background: #161616; color: #ddd }}
 pre {{ background: #222 }} }}
</style></head><body>
"""


def comparison_page(
    title: str,
    lines: Sequence[str],
    shown: ShownChange | None,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> str:
    """The page.

    Parameters
    ----------
    title : str
    lines : sequence of str
        What differs, as on a terminal.
    shown : ShownChange or None
    before, after : mapping or None
        The executed notebooks that it compares.
    """
    parts = [HEAD.format(title=escape(title)), f"<h1>{escape(title)}</h1>\n"]
    parts.append(f"<pre>{escape(chr(10).join(lines))}</pre>\n")
    if shown is not None and before is not None and after is not None:
        parts += _pairs(shown, before, after)
    return "".join([*parts, "</body></html>\n"])


def _pairs(
    shown: ShownChange, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[str]:
    for cell in shown.cells:
        old = list(bundles_of(before, cell.cell_before))
        new = list(bundles_of(after, cell.cell if cell.status != "removed" else None))
        numbers = {figure.number for figure in cell.figures}
        numbers |= set(range(min(len(old), len(new)) + 1, max(len(old), len(new)) + 1))
        for number in sorted(numbers):
            name = f"Cell {cell.cell}" + (f", {cell.title}" if cell.title else "")
            yield f'<h2>{escape(name)}: figure {number}</h2>\n<div class="pair">\n'
            for label, bundles in (("before", old), ("after", new)):
                bundle = bundles[number - 1] if number <= len(bundles) else None
                yield f"<figure><figcaption>{label}</figcaption>{_picture(bundle)}</figure>\n"
            yield "</div>\n"


def _picture(bundle: Mapping[str, Any] | None) -> str:
    if bundle is None:
        return "no figure"
    kind = next((kind for kind in PICTURES if kind in bundle), None)
    if kind is None:
        return "an interactive chart: its report draws it"
    text = joined(bundle[kind])
    if kind == "image/svg+xml":
        data = base64.b64encode(text.encode("utf-8", "replace")).decode()
    else:
        data = "".join(text.split())
    return f'<img alt="" src="data:{kind};base64,{escape(data)}">'
