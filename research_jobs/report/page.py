"""A run as one HTML page: static, without a network, legible without scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from research_jobs.outcome import Failure, Outcome, State
from research_jobs.provenance.record import Load
from research_jobs.report.assets import asset_text
from research_jobs.report.header import ReportHeader, local_time, readable_duration
from research_jobs.report.highlight import highlight_python
from research_jobs.report.outputs import Renderer
from research_jobs.report.prose import Heading
from research_jobs.report.record import Error, Recorded, RecordedCell
from research_jobs.report.templates import render

__all__ = ["Links", "Page", "failed_cell", "page_policy", "render_page"]

SOURCE_LIMIT = 200_000
PREVIEW = 90
_TITLE = re.compile(r'<h1 id="[^"]*+">(.*?)</h1>\s*', re.DOTALL)


@dataclass(frozen=True)
class Links:
    """Where a page's neighbours are, relative to it.

    Parameters
    ----------
    gallery, notebook : str or None
        The pages of all notebooks, and of this one.
    up, run : str or None
        Where the folder of all reports is, and the name of the run's own.
    ipynb : str or None
    scripts : tuple of str
        Plotly's script, where a figure needs it, and our own.
    changes, since : str or None
        The page of what changed since the success before, and when that was.
    """

    gallery: str | None = None
    notebook: str | None = None
    ipynb: str | None = None
    scripts: tuple[str, ...] = ()
    changes: str | None = None
    since: str | None = None
    up: str | None = None
    run: str | None = None


@dataclass(frozen=True)
class CellView:
    """A cell as its template shows it.

    Parameters
    ----------
    name : str
        Its id in the page.
    prose : Markup or None
    raw : str
    title, preview, when : str
        Beside the folded code: its title, else its first line; how long it took.
    code : Markup or None
    shown : tuple of Markup
    failed : bool
        Whether the run ended in it.
    failure : Failure or None
        What is known of a process that could not say it itself.
    behind : bool
        Whether the run did not reach it.
    unrun : int
        At the first cell that the run did not reach: how many it is of.
    headings : tuple of Heading
    """

    name: str
    prose: Markup | None = None
    raw: str = ""
    title: str = ""
    preview: str = ""
    when: str = ""
    code: Markup | None = None
    shown: tuple[Markup, ...] = ()
    failed: bool = False
    failure: Failure | None = None
    behind: bool = False
    unrun: int = 0
    headings: tuple[Heading, ...] = ()

    @property
    def visible(self) -> bool:
        """bool: whether there is anything to see."""
        return bool(self.prose or self.raw or self.code or any(self.shown) or self.failure)


@dataclass(frozen=True)
class Page:
    """What a page shows below its header.

    Parameters
    ----------
    cells : tuple of CellView
    headings : tuple of Heading
    anchor : str or None
        The failing cell's id.
    empty : str
        Why there are no cells to see.
    title : Markup or None
        The title that the notebook gives itself, which is then not part of its cells.
    """

    cells: tuple[CellView, ...]
    headings: tuple[Heading, ...]
    anchor: str | None
    empty: str = ""
    title: Markup | None = None


def failed_cell(recorded: Recorded, outcome: Outcome) -> RecordedCell | None:
    """The cell in which the run ended, where it did not end well."""
    for cell in recorded.cells:
        if cell.status == "error":
            return cell
    if outcome.state.ok:
        return None
    return next((cell for cell in recorded.cells if cell.status == "running"), None)


def render_body(recorded: Recorded, outcome: Outcome, renderer: Renderer) -> Page:
    """The cells with what they showed.

    Parameters
    ----------
    recorded : Recorded
    outcome : Outcome
    renderer : Renderer
        Collects what the page needs for the outputs.

    Returns
    -------
    Page
    """
    failed = failed_cell(recorded, outcome)
    # Cells behind the one in which the run ended were not reached, prose included.
    ended = failed or next((cell for cell in recorded.cells if cell.status == "skipped"), None)
    stops = failed is not None or outcome.state is State.SKIPPED
    reached = recorded.cells.index(ended) + 1 if ended is not None and stops else None
    views: list[CellView] = []
    for index, cell in enumerate(recorded.cells):
        view = _cell(cell, outcome, renderer, failed=cell is failed)
        if reached is not None and index >= reached:
            unrun = _unrun(recorded.cells[index:]) if index == reached else 0
            view = replace(view, behind=True, unrun=unrun)
        views.append(view)
    title, views = _own_title(views)
    shown = tuple(view for view in views if view.visible or view.unrun)
    empty = ""
    if not recorded.cells and not outcome.state.ok:
        empty = "The run ended before the notebook was read."
    elif not shown:
        empty = "This notebook shows nothing."
    headings = tuple(heading for view in views for heading in view.headings)
    anchor = f"cell-{failed.number}" if failed is not None else None
    return Page(shown, headings, anchor, empty, title)


def _own_title(views: list[CellView]) -> tuple[Markup | None, list[CellView]]:
    """The title with which the first cell begins, and the cells without it."""
    for place, view in enumerate(views):
        if not view.visible:
            continue
        found = _TITLE.match(view.prose or "")
        if found is None or not view.headings:
            break
        rest = (view.prose or "")[found.end() :]
        view = replace(view, prose=Markup(rest) if rest.strip() else None)  # noqa: S704, PLW2901 - cleaned
        view = replace(view, headings=view.headings[1:])  # noqa: PLW2901
        return Markup(found[1]), [*views[:place], view, *views[place + 1 :]]  # noqa: S704 - cleaned
    return None, views


def _unrun(cells: Sequence[RecordedCell]) -> int:
    return sum(cell.kind == "code" and cell.status == "not run" for cell in cells)


def _cell(cell: RecordedCell, outcome: Outcome, renderer: Renderer, *, failed: bool) -> CellView:
    name = f"cell-{cell.number}"
    if cell.kind == "markdown":
        if not cell.source.strip():
            return CellView(name)
        prose = renderer.prose(cell.source, anchor=name)
        return CellView(name, prose=Markup(prose.html), headings=tuple(prose.headings))  # noqa: S704 - cleaned
    if cell.kind == "raw":
        return CellView(name, raw=cell.source if cell.source.strip() else "")
    shown = tuple(Markup(renderer.render(item, cell)) for item in cell.shown)  # noqa: S704 - cleaned
    reported = any(isinstance(item, Error) for item in cell.shown)
    view = CellView(
        name,
        shown=shown,
        failed=failed,
        failure=outcome.failure if failed and not reported else None,
        headings=(Heading(7, cell.title, name),) if cell.title else (),
    )
    view = _with_code(view, cell, _failing_line(cell, outcome) if failed else None)
    return view if view.visible else CellView(name)


def _failing_line(cell: RecordedCell, outcome: Outcome) -> int | None:
    for item in cell.shown:
        if isinstance(item, Error) and item.line is not None:
            return item.line
    return outcome.failure.line if outcome.failure is not None else None


def _with_code(view: CellView, cell: RecordedCell, line: int | None) -> CellView:
    lines = cell.source.rstrip().split("\n")
    skip = 0
    while skip < len(lines) and not lines[skip].strip():
        skip += 1
    lines = lines[skip:]
    if not lines:
        return view
    text = "\n".join(lines)
    if len(text) > SOURCE_LIMIT:
        text = text[:SOURCE_LIMIT] + "\n…"
    html = highlight_python(text)
    if line is not None:
        html = _marked(html, line - cell.first_line - skip)
    first = next((item for item in lines if not item.lstrip().startswith("#")), lines[0])
    when = "not run" if cell.status == "not run" else ""
    if cell.status == "running":
        when = "did not finish"
    elif cell.duration_s is not None and cell.duration_s >= 0.05:
        when = readable_duration(cell.duration_s)
    return replace(
        view,
        code=Markup(html),  # noqa: S704 - escaped word by word
        title=cell.title or "",
        preview=first.strip()[:PREVIEW],
        when=when,
    )


def _marked(html: str, index: int) -> str:
    lines = html.split("\n")
    # A line inside a text of several lines has its colour from an element opened above it.
    if 0 <= index < len(lines) and lines[index].count("<span") == lines[index].count("</span"):
        lines[index] = f"<mark>{lines[index]}</mark>"
    return "\n".join(lines)


def page_policy(*, evaluates: bool, script_sources: str = "'self' file:") -> str:
    """The content security policy of a page.

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


def render_page(
    page: Page,
    header: ReportHeader,
    links: Links,
    *,
    evaluates: bool,
    inputs: Sequence[Load] = (),
) -> str:
    """The whole document.

    Parameters
    ----------
    page : Page
    header : ReportHeader
    links : Links
    evaluates : bool
        As for `page_policy`.
    inputs : sequence of Load

    Returns
    -------
    str
        HTML.
    """
    return render(
        "page.html",
        page=page,
        header=header,
        links=links,
        contents=_contents(page.headings),
        inputs=inputs,
        outcome=header.outcome,
        moment=local_time(header.outcome.started_at, header.timezone),
        policy=Markup(page_policy(evaluates=evaluates)),  # noqa: S704 - ours; servers read it
        style=Markup(asset_text("page.css")),  # noqa: S704 - ours
    )


def _contents(headings: Sequence[Heading]) -> list[tuple[int, Heading]]:
    """The table of contents: headings of the prose, or the cells' titles where there are none."""
    prose = [heading for heading in headings if heading.level < 7]
    if len(prose) < 2:
        prose = [Heading(1, item.text, item.anchor) for item in headings if item.level == 7]
    if len(prose) < 3:
        return []
    top = min(heading.level for heading in prose)
    # One title above everything is the notebook's name, not a level of its own.
    if sum(heading.level == top for heading in prose) == 1:
        top = min((item.level for item in prose if item.level > top), default=top)
    return [
        (min(3, max(1, heading.level - top + 1)), heading)
        for heading in prose
        if heading.level - top < 3
    ]
