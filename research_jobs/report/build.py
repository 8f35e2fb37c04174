"""Build the report of one run: the executed notebook, its page, its thumbnail."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from research_jobs.provenance.record import Load
from research_jobs.report.assets import install_asset, install_plotly, write_atomically
from research_jobs.report.header import ReportHeader
from research_jobs.report.ipynb import notebook_json
from research_jobs.report.layout import CHANGES, Report
from research_jobs.report.outputs import Renderer
from research_jobs.report.page import Links, page_policy, render_body, render_page
from research_jobs.report.pending import write_pending
from research_jobs.report.record import read_capture
from research_jobs.report.thumbnail import figure_script
from research_jobs.report.whole import Published, WholeTables

__all__ = ["build_report", "standalone"]

PICTURE_LIMIT = 4 * 1024 * 1024
_PICTURES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}


def build_report(
    capture_path: Path | None,
    header: ReportHeader,
    folder: Path,
    *,
    reports: Path | None = None,
    notebook_path: Path | None = None,
    unique: Mapping[str, Sequence[str]] | None = None,
    published: Published | None = None,
    inputs: Sequence[Load] = (),
) -> Report:
    """Write the report of one run.

    Parameters
    ----------
    capture_path : Path or None
        What the run's cells showed. It may be cut off or missing: the report has what there is.
    header : ReportHeader
    folder : Path
        Where the report goes, made if missing (see `report_folder`).
    reports : Path, optional
        The folder that all reports share; shared files go to its ``assets/``. By default `folder`
        itself, for a report on its own.
    notebook_path : Path, optional
        The notebook: pictures beside it that its prose shows are put into the page.
    unique : mapping of str to sequence of str, optional
        Output to the columns that the manifest declares ``unique``.
    published : Published, optional
        Where the run's outputs are, for tables that show a part of one.
    inputs : sequence of Load
        What the run read.

    Returns
    -------
    Report
    """
    root = reports if reports is not None else folder
    recorded = (
        read_capture(capture_path) if capture_path is not None else read_capture(folder / "?")
    )
    folder.mkdir(parents=True, exist_ok=True)
    whole = WholeTables(header.outcome, published)
    renderer = Renderer(
        _pictures_beside(notebook_path), _bokeh_script(recorded.assets.get("bokeh")), whole
    )
    page = render_body(recorded, header.outcome, renderer)
    up = os.path.relpath(root, folder).replace(os.sep, "/")
    shared = up + "/" if up != "." else ""
    plotly = install_plotly(root, recorded.assets.get("plotly")) if renderer.plotly else None
    if renderer.plotly and plotly is None:
        note = "Charts of plotly are not drawn: its script was not found."
        outcome = replace(header.outcome, notes=(*header.outcome.notes, note))
        header = replace(header, outcome=outcome)
    pending = write_pending(root, folder, header, unique or {}) if reports is not None else None
    links = Links(
        gallery=f"{shared}index.html" if reports is not None else None,
        up=shared if reports is not None else None,
        run=folder.name,
        notebook="../../index.html" if reports is not None else None,
        ipynb="notebook.ipynb",
        scripts=tuple(
            shared + path
            for path in (plotly, *(install_asset(root, name) for name in _SCRIPTS))
            if path is not None
        ),
        changes=CHANGES if pending is not None else None,
        since=pending.since if pending is not None else None,
    )
    for frame in renderer.frames:
        write_atomically(folder / "frames" / frame.name, frame.document.encode())
    for name, script in whole.scripts.items():
        write_atomically(folder / name, script.encode())
    report = Report(folder)
    write_atomically(report.ipynb, notebook_json(recorded, header).encode("utf-8", "replace"))
    if renderer.thumbnail is None and plotly is not None:
        renderer.thumbnail = figure_script(renderer.figure, header.outcome.notebook, plotly)
    thumbnail: Path | None = None
    if renderer.thumbnail is not None:
        thumbnail = folder / f"thumbnail{renderer.thumbnail.suffix}"
        write_atomically(thumbnail, renderer.thumbnail.content)
    text = render_page(page, header, links, evaluates=renderer.evaluates, inputs=inputs)
    write_atomically(report.html, text.encode("utf-8", "replace"))
    return Report(folder, thumbnail, page.anchor, changes=pending is not None)


def _bokeh_script(named: str | None) -> Path | None:
    path = Path(named) if named is not None else None
    return path if path is not None and path.name == "bokeh.min.js" and path.is_file() else None


class _pictures_beside:  # noqa: N801 - called like the function that it is
    """Pictures in the notebook's own folder and below, as ``data:`` addresses."""

    def __init__(self, notebook: Path | None) -> None:
        self._folder = notebook.parent.resolve() if notebook is not None else None

    def __call__(self, address: str) -> str | None:
        if self._folder is None or ":" in address or address.startswith("/"):
            return None
        path = (self._folder / address).resolve()
        kind = _PICTURES.get(path.suffix.lower())
        if kind is None or not path.is_relative_to(self._folder):
            return None
        try:
            if path.stat().st_size > PICTURE_LIMIT:
                return None
            content = path.read_bytes()
        except (OSError, ValueError):
            return None
        return f"data:{kind};base64,{base64.b64encode(content).decode()}"


_SCRIPTS = ("copy.js", "page.js", "table.js")
_SCRIPT = re.compile(r'<script src="([^"]+)" defer></script>')
_FRAME = re.compile(r'(<iframe class="rj-frame"[^>]*?) loading="lazy"([^>]*?) src="(frames/[^"]+)"')
_WHOLE = re.compile(r'(<div class="rj-table[^"<>]*") data-whole="[^"<>]*" data-shows="[^"<>]*"')
_POLICY = re.compile(r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*(">)')
_OUTWARD = re.compile(
    r'<nav class="rj-crumbs">.*?</nav>|<a href="notebook\.ipynb" download>.*?</a>'
    r'|<a href="changes\.html">.*?</a>'
    # Of no use on another machine.
    r'|<a href="http://(?:127\.0\.0\.1|localhost|\[::1\])[^"]*">Run in Dagster</a>'
)


def standalone(html: Path) -> str:
    """A report's page as one file, to mail: its scripts and frames are put into it.

    Parameters
    ----------
    html : Path
        A page that `build_report` wrote.

    Returns
    -------
    str
        HTML that needs no other file.
    """
    text = html.read_text(encoding="utf-8")
    # Only what follows the last cell is certainly ours: text of a notebook is escaped and
    # cannot hold these tags, but a page is cut there all the same.
    head, mark, tail = text.rpartition("</main>")
    framed = False

    def inline_frame(match: re.Match[str]) -> str:
        nonlocal framed
        framed = True
        document = (html.parent / match[3]).read_text(encoding="utf-8")
        return f'{match[1]}{match[2]} srcdoc="{escape(document)}"'

    hashes: list[str] = []

    def inline_script(match: re.Match[str]) -> str:
        code = (html.parent / match[1]).read_text(encoding="utf-8")
        packed = Path(match[1]).name.startswith("plotly-")
        if not packed:
            code = code.replace("</script", "<\\/script")
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        hashes.append(f"'sha256-{digest}'")
        if not packed:
            return f"<script>{code}</script>"
        # Two fifths of its size: page.js unpacks it, and the policy has its hash.
        content = base64.b64encode(gzip.compress(code.encode(), mtime=0)).decode()
        return f'<script type="application/gzip">{content}</script>'

    head = _WHOLE.sub(r"\1", _OUTWARD.sub("", _FRAME.sub(inline_frame, head)))
    tail = _OUTWARD.sub("", _SCRIPT.sub(inline_script, tail))
    evaluates = "'unsafe-eval'" in text.split("</head>", 1)[0]
    # A frame in the page inherits the page's policy: with one, inline scripts must be allowed,
    # and its sandbox is what keeps it from the page.
    sources = "'unsafe-inline'" if framed else " ".join(hashes) or "'none'"
    policy = page_policy(evaluates=evaluates or framed, script_sources=sources)
    head = _POLICY.sub(
        lambda match: f"{match[1]}{escape(policy, quote=False)}{match[2]}", head, count=1
    )
    return head + mark + tail
