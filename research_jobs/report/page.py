"""A run as one HTML page: static, without a network, legible without scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from research_jobs.notebook.rst import rst_to_markdown
from research_jobs.report.assets import asset_text
from research_jobs.report.header import (
    ReportHeader,
    local_time,
    readable_bytes,
    readable_duration,
)
from research_jobs.report.highlight import highlight_python
from research_jobs.report.outputs import Renderer
from research_jobs.report.prose import Heading, render_markdown
from research_jobs.report.record import Error, Recorded, RecordedCell

__all__ = ["Links", "Page", "failed_cell", "page_policy", "render_page"]

ENDINGS = {
    "succeeded": "Succeeded",
    "failed": "Failed",
    "skipped": "Skipped",
    "timed_out": "Timed out",
    "out_of_memory": "Out of memory",
    "crashed": "Crashed",
    "exited": "Ended early",
    "cancelled": "Cancelled",
}
SOURCE_LIMIT = 200_000
PREVIEW = 90


@dataclass(frozen=True)
class Links:
    """Where a page's neighbours are, relative to it.

    Parameters
    ----------
    gallery, notebook : str or None
        The pages of all notebooks, and of this one.
    ipynb : str or None
    script : str
        ``page.js``.
    plotly : str or None
        Plotly's script.
    """

    gallery: str | None = None
    notebook: str | None = None
    ipynb: str | None = None
    script: str | None = None
    plotly: str | None = None


@dataclass(frozen=True)
class Page:
    """A rendered page.

    Parameters
    ----------
    body : str
        Everything between the header and the scripts.
    headings : tuple of Heading
    anchor : str or None
        The failing cell's id.
    """

    body: str
    headings: tuple[Heading, ...]
    anchor: str | None


def failed_cell(recorded: Recorded, header: ReportHeader) -> RecordedCell | None:
    """The cell in which the run ended, where it did not end well."""
    for cell in recorded.cells:
        if cell.status == "error":
            return cell
    if header.ok:
        return None
    return next((cell for cell in recorded.cells if cell.status == "running"), None)


def render_body(recorded: Recorded, header: ReportHeader, renderer: Renderer) -> Page:
    """The cells with what they showed.

    Parameters
    ----------
    recorded : Recorded
    header : ReportHeader
    renderer : Renderer
        Collects what the page needs for the outputs.

    Returns
    -------
    Page
    """
    failed = failed_cell(recorded, header)
    out: list[str] = []
    headings: list[Heading] = []
    unrun = False
    # What stands behind the cell where the run ended was not reached, prose included.
    reached = failed is None and header.ending != "skipped"
    stopped = _stopping_cell(recorded, failed)
    behind = False
    for cell in recorded.cells:
        if behind and not unrun and not reached:
            out.append(_unrun(recorded, cell))
            unrun = True
        html, found = _cell(cell, header, renderer, failed=cell is failed)
        if unrun:
            html = html.replace('class="rj-cell', 'class="rj-cell rj-skipped', 1)
        out.append(html)
        headings += found
        behind = behind or cell is stopped
    if not recorded.cells and not header.ok:
        out.append('<p class="rj-empty">The run ended before the notebook was read.</p>')
    elif not any(item.strip() for item in out):
        out.append('<p class="rj-empty">This notebook shows nothing.</p>')
    anchor = f"cell-{failed.number}" if failed is not None else None
    return Page("\n".join(item for item in out if item), tuple(headings), anchor)


def _stopping_cell(recorded: Recorded, failed: RecordedCell | None) -> RecordedCell | None:
    if failed is not None:
        return failed
    return next((cell for cell in recorded.cells if cell.status == "skipped"), None)


def _unrun(recorded: Recorded, first: RecordedCell) -> str:
    rest = recorded.cells[recorded.cells.index(first) :]
    count = sum(cell.kind == "code" and cell.status == "not run" for cell in rest)
    if not count:
        return ""
    word = "1 cell was" if count == 1 else f"{count} cells were"
    return f'<p class="rj-unrun">{word} not run</p>'


def _cell(
    cell: RecordedCell, header: ReportHeader, renderer: Renderer, *, failed: bool
) -> tuple[str, Sequence[Heading]]:
    name = f"cell-{cell.number}"
    if cell.kind == "markdown":
        source = rst_to_markdown(cell.source) if cell.markup == "rst" else cell.source
        if not source.strip():
            return "", ()
        prose = render_markdown(source, anchor=name, scope=f"#{name}", picture=renderer.picture)
        html = f'<div class="rj-prose">{prose.html}</div>'
        return f'<section class="rj-cell" id="{name}">{html}</section>', prose.headings
    if cell.kind == "raw":
        if not cell.source.strip():
            return "", ()
        html = f'<pre class="rj-raw">{escape(cell.source)}</pre>'
        return f'<section class="rj-cell" id="{name}">{html}</section>', ()
    shown = [renderer.render(item, cell) for item in cell.shown]
    if failed and not any(isinstance(item, Error) for item in cell.shown):
        shown.append(_ended_here(header))
    code = _code(cell, failed=failed, line=_failing_line(cell, header) if failed else None)
    if not code and not any(shown):
        return "", ()
    kind = "rj-cell rj-failed" if failed else "rj-cell"
    return (
        f'<section class="{kind}" id="{name}">{code}{"".join(shown)}</section>',
        _titled(cell, name),
    )


def _titled(cell: RecordedCell, name: str) -> Sequence[Heading]:
    return (Heading(7, cell.title, name),) if cell.title else ()


def _failing_line(cell: RecordedCell, header: ReportHeader) -> int | None:
    for item in cell.shown:
        if isinstance(item, Error) and item.line is not None:
            return item.line
    return header.failure.line if header.failure is not None else None


def _ended_here(header: ReportHeader) -> str:
    """What is known of a process that could not say it itself."""
    failure = header.failure
    if failure is None:
        return ""
    trace = (
        f'<pre class="rj-trace" tabindex="0">{escape(failure.traceback)}</pre>'
        if failure.traceback
        else ""
    )
    return (
        f'<div class="rj-error"><p class="rj-headline">{escape(failure.headline)}</p>{trace}</div>'
    )


def _code(cell: RecordedCell, *, failed: bool, line: int | None) -> str:
    source = cell.source.rstrip()
    lines = source.split("\n")
    skip = 0
    while skip < len(lines) and not lines[skip].strip():
        skip += 1
    lines = lines[skip:]
    if not lines:
        return ""
    text = "\n".join(lines)
    if len(text) > SOURCE_LIMIT:
        text = text[:SOURCE_LIMIT] + "\n…"
    html = highlight_python(text)
    if line is not None:
        html = _marked(html, line - cell.first_line - skip)
    label = f'<span class="t">{escape(cell.title)}</span>' if cell.title else ""
    if not label:
        first = next((item for item in lines if not item.lstrip().startswith("#")), lines[0])
        label = f'<span class="c">{escape(first.strip()[:PREVIEW])}</span>'
    when = "not run" if cell.status == "not run" else ""
    if cell.status == "running":
        when = "did not finish"
    elif cell.duration_s is not None and cell.duration_s >= 0.05:
        when = readable_duration(cell.duration_s)
    opened = " open" if failed else ""
    return (
        f'<details class="rj-code"{opened}><summary>{label}<span class="w">{when}</span></summary>'
        f'<pre class="rj-source" tabindex="0"><code>{html}</code></pre></details>'
    )


def _marked(html: str, index: int) -> str:
    lines = html.split("\n")
    # A line inside a text of several lines has its colour from an element opened above it.
    if 0 <= index < len(lines) and lines[index].count("<span") == lines[index].count("</span"):
        lines[index] = f"<mark>{lines[index]}</mark>"
    return "\n".join(lines)


def page_policy(*, evaluates: bool, script_sources: str = "'self' file:") -> str:
    """The content security policy that stands in a page.

    Parameters
    ----------
    evaluates : bool
        Whether plotly must compile shaders in it.
    script_sources : str
        Where its scripts come from.
    """
    scripts = script_sources + (" 'unsafe-eval'" if evaluates else "")
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; "
        "img-src data: blob:; frame-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def render_page(page: Page, header: ReportHeader, links: Links, *, evaluates: bool) -> str:
    """The whole document.

    Parameters
    ----------
    page : Page
    header : ReportHeader
    links : Links
    evaluates : bool
        As for `page_policy`.

    Returns
    -------
    str
        HTML.
    """
    scripts = "".join(
        f'<script src="{escape(path)}" defer></script>'
        for path in (links.plotly, links.script)
        if path is not None
    )
    title = header.notebook + (f" · {header.partition}" if header.partition else "")
    policy = page_policy(evaluates=evaluates)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=False)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{escape(title)}</title><style>{asset_text('page.css')}</style></head>\n"
        f'<body><div class="rj-page">{_crumbs(header, links)}{_head(page, header)}'
        f"{_contents(page.headings)}\n<main>\n{page.body}\n</main>\n"
        f"{_foot(links)}</div>{scripts}</body></html>\n"
    )


def _crumbs(header: ReportHeader, links: Links) -> str:
    parts: list[str] = []
    ui_script = ""
    if links.gallery:
        parts.append(f'<a href="{escape(links.gallery)}">All notebooks</a>')
        ui_address = links.gallery.removesuffix("index.html") + "ui.js"
        ui_script = f'<script src="{escape(ui_address)}" defer></script>'
    if links.notebook:
        parts.append(f'<a href="{escape(links.notebook)}">{escape(header.notebook)}</a>')
    shown = "<span>/</span>".join(parts)
    return f'<nav class="rj-crumbs">{shown}{ui_script}</nav>' if parts else ""


def _head(page: Page, header: ReportHeader) -> str:
    folder, _, name = header.notebook.rpartition("/")
    folder = f'<span class="rj-part">{escape(folder)}/</span>' if folder else ""
    partition = (
        f' <span class="rj-part">· {escape(header.partition)}</span>' if header.partition else ""
    )
    kind = "" if header.ok else " rj-bad"
    if header.ending == "skipped":
        kind = " rj-idle"
    moment = local_time(header.started_at, header.timezone)
    when = (
        f'<time datetime="{moment.isoformat(timespec="seconds")}">'
        f"{moment:%a} {moment.day} {moment:%b %Y, %H:%M %Z}</time>"
        if header.started_at
        else ""
    )
    facts = [
        f"<b>{ENDINGS.get(header.ending, escape(header.ending))}</b>",
        when,
        f"<span>{readable_duration(header.duration_s)}</span>" if header.duration_s else "",
        f"<span>{readable_bytes(header.peak_memory_bytes)} peak memory</span>"
        if header.peak_memory_bytes
        else "",
        _run_link(header.run_url or ""),
    ]
    return (
        f'<header class="rj-head"><h1 class="rj-name">{folder}{escape(name)}{partition}</h1>'
        f'<p class="rj-ending{kind}">{"".join(facts)}</p>{_alert(page, header)}'
        f"{_facts(header)}</header>"
    )


def _run_link(url: str) -> str:
    if re.match(r"https?://", url):
        return f'<a href="{escape(url)}">Run in Dagster</a>'
    # A path in the UI: the page's script shows the link where it knows the UI's address.
    return f'<a data-ui="{escape(url)}" hidden>Run in Dagster</a>' if url.startswith("/") else ""


def _alert(page: Page, header: ReportHeader) -> str:
    if header.ending == "skipped" and header.skip_reason:
        return f'<div class="rj-alert rj-calm"><p>{escape(header.skip_reason)}</p></div>'
    if header.failure is None or header.ok:
        return ""
    link = f' <a href="#{page.anchor}">Go to the cell</a>' if page.anchor is not None else ""
    trace = ""
    if page.anchor is None and header.failure.traceback:
        trace = f"<pre>{escape(header.failure.traceback)}</pre>"
    return f'<div class="rj-alert"><p>{escape(header.failure.headline)}{link}</p>{trace}</div>'


def _facts(header: ReportHeader) -> str:
    rows: list[tuple[str, str]] = []
    if header.parameters:
        items = "".join(
            f"<span><i>{escape(name)}</i> {escape(value)}</span>"
            for name, value in header.parameters.items()
        )
        rows.append(("Parameters", f'<div class="rj-list">{items}</div>'))
    if header.outputs:
        items = "".join(
            f"<span>{escape(item.name)} <i>{_size(item.rows, item.bytes)}</i></span>"
            for item in header.outputs
        )
        rows.append(("Outputs", f'<div class="rj-list">{items}</div>'))
    rows += [("Note", escape(note)) for note in header.notes]
    more: list[tuple[str, str]] = []
    if header.path:
        more.append(("File", f"<code>{escape(header.path)}</code>"))
    if header.code_version:
        more.append(("Code version", f"<code>{escape(header.code_version)}</code>"))
    if header.git_commit:
        more.append(("Commit", f"<code>{escape(header.git_commit)}</code>"))
    more.append(("Run", f"<code>{escape(header.run_id)}</code>"))
    return (
        _list(rows)
        + '<details class="rj-more"><summary>Version and run</summary>'
        + _list(more)
        + "</details>"
    )


def _size(rows: int | None, size: int) -> str:
    if rows is None:
        return readable_bytes(size)
    return f"{rows:,} row{'' if rows == 1 else 's'}"


def _list(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return (
        '<dl class="rj-facts">'
        + "".join(f"<dt>{term}</dt><dd>{value}</dd>" for term, value in rows)
        + "</dl>"
    )


def _contents(headings: Sequence[Heading]) -> str:
    """The table of contents: headings of the prose, or the cells' titles where there are none."""
    prose = [heading for heading in headings if heading.level < 7]
    if len(prose) < 2:
        prose = [Heading(1, item.text, item.anchor) for item in headings if item.level == 7]
    if len(prose) < 3:
        return ""
    top = min(heading.level for heading in prose)
    # One title above everything is the notebook's name, not a level of its own.
    if sum(heading.level == top for heading in prose) == 1:
        top = min((item.level for item in prose if item.level > top), default=top)
    items = "".join(
        f'<li class="l{min(3, max(1, heading.level - top + 1))}">'
        f'<a href="#{heading.anchor}">{escape(heading.text)}</a></li>'
        for heading in prose
        if heading.level - top < 3
    )
    return f'<details class="rj-toc"><summary>Contents</summary><ol>{items}</ol></details>'


def _foot(links: Links) -> str:
    parts: list[str] = []
    if links.ipynb:
        parts.append(f'<a href="{escape(links.ipynb)}" download>Notebook (.ipynb)</a>')
    return (
        f'<footer class="rj-foot">{"".join(parts)}'
        '<button class="rj-all" type="button" hidden>Show code</button></footer>'
    )
