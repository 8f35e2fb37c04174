"""One thing that a cell showed, as HTML that is safe in a report."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, TypeVar, cast

from research_jobs.report.ansi import ansi_to_html, settle_lines
from research_jobs.report.frames import FRAME_POLICY, Frame, acting_frame
from research_jobs.report.limits import OverBudgetError, budget
from research_jobs.report.prose import FORMULA_LIMIT, Prose, latex_to_html, render_markdown
from research_jobs.report.record import Error, Note, Output, RecordedCell, Shown, Stream
from research_jobs.report.sanitize import clean_html
from research_jobs.report.thumbnail import PLOTLY, Thumbnail, find_thumbnail, is_dark, joined
from research_jobs.report.whole import WholeTables
from research_jobs.runtime.vega import specification
from research_jobs.units import readable_size

__all__ = ["FRAME_POLICY", "Renderer", "guarded", "warm_up"]

T = TypeVar("T")

BOKEH = "application/vnd.bokehjs_exec.v0+json"

#: how much of one output a page takes (characters)
TEXT_LIMIT = 100_000
CLEAN_LIMIT = 4_000_000
FRAME_LIMIT = 12_000_000
JSON_LIMIT = 50_000
PAGE_LIMIT = 60_000_000
#: of the words that stand for a figure
ALT_LIMIT = 300
#: of a page that has more already, only outputs up to LARGE are part; others get a frame
ROOMY, LARGE = 4_000_000, 400_000

# Beyond so many lines, or characters in one, a text may have to scroll in its box.
LONG = 20
WIDE = 50

# What the editor prefers, in its order; what it does not know comes before it as text.
_ORDER = (
    PLOTLY,
    "image/svg+xml",
    "text/html",
    "text/markdown",
    "text/latex",
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "application/pdf",
    "application/javascript",
    "application/json",
    "text/plain",
)
_PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
# These draw with WebGL, whose shaders plotly compiles with eval.
_WITH_EVAL = ("scattergl", "splom", "parcoords", "scatterpolargl", "heatmapgl", "pointcloud")
# Within one tag, so that a page of tags without an end is read once.
_REMOTE = re.compile(
    r"""<(?:script|link|img|iframe)\b[^<>]*?\b(?:src|href)\s*+=\s*+["']?https?://|["']https://cdn""",
    re.IGNORECASE,
)
_BOKEH_ROOT = re.compile(r'\A\s*<div id="[\w-]+" data-root-id="(\w+)"[^>]*></div>\s*\Z')
# What pandas writes before its tables: its style sheet is then known.
_PANDAS = """<div>
<style scoped>
    .dataframe tbody tr th:only-of-type {
        vertical-align: middle;
    }

    .dataframe tbody tr th {
        vertical-align: top;
    }

    .dataframe thead th {
        text-align: right;
    }
</style>
</div>"""
_COLOURED = re.compile(r"\bbackground(?:-color)?:|[\s\"{;]color:")


@dataclass
class Renderer:
    """Renders the outputs of one notebook, and remembers what the page needs for them.

    Parameters
    ----------
    picture : callable or None
        Gives a ``data:`` address for a picture beside the notebook.
    bokeh : Path or None
        Bokeh's script, where the notebook's interpreter has it.
    whole : WholeTables or None
        Knows the outputs of which a table shows a part.
    """

    picture: Callable[[str], str | None] | None = None
    bokeh: Path | None = None
    whole: WholeTables | None = None
    frames: list[Frame] = field(default_factory=list[Frame])
    thumbnail: Thumbnail | None = None
    figure: dict[str, Any] | None = None
    plotly: bool = False
    evaluates: bool = False
    _roots: dict[str, str] = field(default_factory=dict[str, str])
    _size: int = 0
    _number: int = 0
    _alt: str = ""

    def render(self, shown: Shown, cell: RecordedCell) -> str:
        """One shown thing as an HTML block; a note where it cannot be shown."""
        html = guarded(lambda: self._render(shown, cell), _note)
        self._size += len(html)
        if self._size > PAGE_LIMIT:
            self._size -= len(html)
            return _note("Left out: the page is large enough. The .ipynb beside it has it.")
        return html

    def prose(self, source: str, *, anchor: str) -> Prose:
        """A cell of Markdown; its text where it cannot be rendered."""
        return guarded(
            lambda: render_markdown(
                source, anchor=anchor, scope=f"#{anchor}", picture=self.picture
            ),
            lambda note: Prose(_note(note) + _text_block(source, "rj-raw"), ()),
        )

    def _render(self, shown: Shown, cell: RecordedCell) -> str:
        match shown:
            case Stream():
                return self._stream(shown)
            case Output():
                return self._output(shown, cell)
            case Error():
                return _error(shown)
            case Note():
                return _note(shown.text)

    def _stream(self, stream: Stream) -> str:
        text = settle_lines(stream.text)
        if not text.strip():
            return ""
        kind = "rj-err" if stream.name == "stderr" else ""
        return _text_block(text.rstrip("\n"), f"rj-out {kind}".strip())

    def _output(self, output: Output, cell: RecordedCell) -> str:
        self._number += 1
        data = output.data
        if self.thumbnail is None and self.figure is None:
            self.thumbnail = find_thumbnail(data)
            if self.thumbnail is None and isinstance(data.get(PLOTLY), dict):
                self.figure = data[PLOTLY]
        self._alt = _alt(output, cell)
        known = self._bokeh(output, cell)
        known = self._vega(data) if known is None else known
        if known is not None:
            return f'<div class="rj-output">{known}</div>' if known else ""
        place = joined(data.get("text/html", ""))
        root = _BOKEH_ROOT.match(place)
        if root is not None:
            # The place of a plot whose script comes next.
            self._roots[root[1]] = place
            return ""
        mime = next((mime for mime in _ORDER if data.get(mime)), None)
        if mime is None:
            return ""
        name = f"{cell.number}-{self._number}"
        scope = f"rj-o{name}"
        inner = self._mime(mime, data, output.metadata, name, scope)
        return f'<div class="rj-output" id="{scope}">{inner}</div>' if inner else ""

    def _mime(
        self, mime: str, data: dict[str, Any], metadata: dict[str, Any], name: str, scope: str
    ) -> str:
        value = data[mime]
        if mime == PLOTLY:
            return self._plotly(value)
        if mime in _PICTURES:
            return _picture(mime, joined(value), metadata.get(mime) or metadata, self._alt)
        text = joined(value)
        if mime == "image/svg+xml":
            encoded = base64.b64encode(text.encode()).decode()
            return _picture(mime, encoded, metadata.get(mime) or {}, self._alt)
        if mime == "text/html":
            return self._html(text, name, scope, data)
        if mime == "text/markdown":
            prose = render_markdown(text, anchor=scope, scope=f"#{scope}", picture=self.picture)
            return f'<div class="rj-prose">{prose.html}</div>'
        if mime == "text/latex" and len(text) <= FORMULA_LIMIT:
            return f'<div class="rj-prose">{latex_to_html(text, display=True)}</div>'
        if mime == "application/pdf":
            return (
                f'<a class="rj-file" download="output.pdf" '
                f'href="data:application/pdf;base64,{escape(text)}">PDF document</a>'
            )
        if mime == "application/javascript":
            return self._frame(f"<script>{text}</script>", name)
        if mime == "application/json":
            shown = value if isinstance(value, str) else json.dumps(value, indent=2, default=str)
            return (
                '<details class="rj-json"><summary>JSON</summary>'
                f"{_text_block(shown, 'rj-out', JSON_LIMIT)}</details>"
            )
        return _text_block(text, "rj-out rj-value")

    def _html(self, text: str, name: str, scope: str, data: dict[str, Any]) -> str:
        if len(text) > FRAME_LIMIT:
            return _note(
                f"A table or page of {readable_size(len(text))} is left out here; "
                "the .ipynb has it."
            ) + _text_block(joined(data.get("text/plain", "")), "rj-out rj-value")
        if len(text) > (CLEAN_LIMIT if self._size < ROOMY else LARGE):
            return self._frame(text, name)
        cleaned = clean_html(text, scope=f"#{scope}", picture=self.picture)
        if not cleaned.complete:
            return self._frame(text, name)
        note = _note("A picture on the network is not loaded.") if cleaned.remote else ""
        kind = "rj-table" if "<table" in cleaned.html else "rj-html"
        if _COLOURED.search(cleaned.styled):
            kind += " rj-paper"
        whole = self.whole.find(text) if self.whole is not None and kind != "rj-html" else None
        if whole is None:
            return f'<div class="{kind}" tabindex="0">{cleaned.styled}</div>{note}'
        kept = f"the first {whole.rows:,}" if whole.rows < whole.of else f"all {whole.of:,}"
        return (
            f'<div class="{kind}" data-whole="{whole.script}" data-shows="{kept} rows" '
            f'data-output="{escape(whole.output)}" data-rows="{whole.of}" tabindex="0">'
            f"{cleaned.styled}</div>{note}"
        )

    def _bokeh(self, output: Output, cell: RecordedCell) -> str | None:
        """A bokeh plot in a frame that has bokeh's script; None where it is none."""
        loading = any(mime.startswith("application/vnd.bokehjs_load") for mime in output.data)
        if loading or "bk-notebook-logo" in str(output.data.get("text/html", "")):
            return ""
        plot = output.metadata.get(BOKEH)
        if BOKEH not in output.data or not isinstance(plot, dict):
            return None
        root = str(plot.get("id"))
        place = self._roots.pop(root, None)
        code = output.data.get("application/javascript")
        if place is None or not isinstance(code, str) or self.bokeh is None:
            return _note("A bokeh plot is not shown: bokeh's script was not found.")
        names = ["bokeh.min.js"]
        if re.search(
            r'"(?:DataTable|\w*(?:Slider|Button|Select|Input|Picker|Toggle|Group))"', code
        ):
            names += ["bokeh-widgets.min.js", "bokeh-tables.min.js"]
        try:
            scripts = [(self.bokeh.parent / name).read_text(encoding="utf-8") for name in names]
        except OSError:
            return _note("A bokeh plot is not shown: bokeh's script was not found.")
        loaded = "".join(
            f"<script>{script.replace('</script', '<' + chr(92) + '/script')}</script>"
            for script in scripts
        )
        name = f"{cell.number}-{self._number}"
        return self._frame(f"{loaded}{place}<script>{code}</script>", name, complete=True)

    def _vega(self, data: dict[str, Any]) -> str | None:
        """A note for an altair chart that nothing drew; None where there is none."""
        if "image/svg+xml" in data or "image/png" in data or specification(data) is None:
            return None
        return _note(
            "An altair chart is not shown: it would load its scripts from the network. With "
            "vl-convert-python installed beside the notebook, the chart is drawn as it is."
        )

    def _frame(self, text: str, name: str, *, complete: bool = False) -> str:
        remote = not complete and _REMOTE.search(text)
        note = (
            _note("This output asks the network for scripts or styles; reports load none.")
            if remote
            else ""
        )
        frame = acting_frame(f"{name}.html", text)
        self.frames.append(frame)
        return (
            f'<iframe class="rj-frame" sandbox="allow-scripts" loading="lazy" '
            f'title="Output" src="frames/{frame.name}"></iframe>{note}'
        )

    def _plotly(self, figure: Any) -> str:
        if not isinstance(figure, dict):
            return ""
        known = cast("dict[str, Any]", figure)
        kept = {key: known[key] for key in ("data", "layout", "frames") if key in known}
        encoded = json.dumps(kept, allow_nan=False).replace("<", "\\u003c")
        self.plotly = True
        self.evaluates = self.evaluates or _needs_eval(known)
        layout = known.get("layout")
        height = layout.get("height") if isinstance(layout, dict) else None
        pixels = height if isinstance(height, (int, float)) and 40 <= height <= 4000 else 450
        return (
            f'<div class="rj-plotly" role="figure" aria-label="{escape(self._alt)}" '
            f'style="min-height:{pixels:.0f}px">'
            f'<script type="application/json">{encoded}</script>'
            "<noscript>"
            f"{_note('A chart that is drawn by a script, which this browser does not run.')}"
            "</noscript></div>"
        )


def _needs_eval(figure: dict[str, Any]) -> bool:
    """Whether a figure's traces are drawn by code that is compiled in the page."""
    traces = figure.get("data")
    kinds = [
        str(cast("dict[str, Any]", trace).get("type"))
        for trace in (cast("list[Any]", traces) if isinstance(traces, list) else [])
        if isinstance(trace, dict)
    ]
    return any(kind in _WITH_EVAL or kind.endswith("3d") for kind in kinds)


def guarded(make: Callable[[], T], otherwise: Callable[[str], T]) -> T:
    """What `make` makes, within the time of one output; else what `otherwise` makes of a note."""
    try:
        with budget():
            return make()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - nh3 panics with one; an output is lost, alone
        return otherwise(
            f"This cannot be shown here: {_reason(error)}. The .ipynb beside this page has it."
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, OverBudgetError):
        return "it takes too long"
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    if isinstance(error, RecursionError):
        return "it nests too deep"
    return f"its content is not what its type says ({type(error).__name__})"


def warm_up() -> None:
    """Import and prepare what outputs need, for the processes that are forked from this one."""
    render_markdown("*a* $x$", anchor="a")
    clean_html(_PANDAS, scope="#a")


def _alt(output: Output, cell: RecordedCell) -> str:
    """What a figure says of itself: its title, else that of its cell."""
    for known in output.metadata.values():
        if isinstance(known, dict) and isinstance(known.get("alt"), str):
            return known["alt"][:ALT_LIMIT]
    title: Any = None
    figure = output.data.get(PLOTLY)
    if isinstance(figure, dict) and isinstance(figure.get("layout"), dict):
        title = figure["layout"].get("title")
    elif (chart := specification(output.data)) is not None:
        title = chart.get("title")
    if isinstance(title, dict):
        title = title.get("text")
    if isinstance(title, list):
        title = " ".join(str(line) for line in title)
    if isinstance(title, str) and title.strip():
        return re.sub(r"<[^<>]{0,200}>", " ", title[:ALT_LIMIT]).strip()
    return f"Figure: {cell.title[:ALT_LIMIT]}" if cell.title else "Figure"


def _picture(mime: str, encoded: str, metadata: Any, alt: str) -> str:
    encoded = "".join(encoded.split())
    if not re.fullmatch(r"[\w+/=-]*", encoded):
        return ""
    size = ""
    if isinstance(metadata, dict):
        for name in ("width", "height"):
            pixels = metadata.get(name)
            if isinstance(pixels, (int, float)) and 0 < pixels <= 10_000:
                size += f' {name}="{pixels:.0f}"'
    kind = "rj-figure rj-dark" if mime == "image/png" and is_dark(encoded) else "rj-figure"
    return f'<img class="{kind}" alt="{escape(alt)}"{size} src="data:{mime};base64,{encoded}">'


def _text_block(text: str, kind: str, limit: int = TEXT_LIMIT) -> str:
    note = ""
    if len(text) > limit:
        left_out = len(text) - limit
        text = text[: limit * 3 // 4] + "\n\n…\n\n" + text[-limit // 4 :]
        note = _note(
            f"{left_out:,} characters in the middle are left out here; the .ipynb has them."
        )
    lines = text.split("\n")
    if len(lines) > LONG or any(len(line) > WIDE for line in lines):
        kind += " rj-long"
    return f'<pre class="{kind}" tabindex="0">{ansi_to_html(text)}</pre>{note}'


def _note(text: str) -> str:
    return f'<p class="rj-note">{escape(text)}</p>'


def _error(error: Error) -> str:
    body = _text_block("\n".join(error.traceback), "rj-trace")
    name = escape(error.ename[:500])
    first = escape(error.evalue[:2000].strip().split("\n", 1)[0])
    headline = f"<strong>{name}</strong>: {first}" if first else f"<strong>{name}</strong>"
    return f'<div class="rj-error"><p class="rj-headline">{headline}</p>{body}</div>'
