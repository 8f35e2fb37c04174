"""One thing that a cell showed, as HTML that can stand in a report."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from research_jobs.report.ansi import ansi_to_html, settle_lines
from research_jobs.report.figures import from_vega, needs_eval, sketch
from research_jobs.report.prose import latex_to_html, render_markdown
from research_jobs.report.record import Error, Note, Output, RecordedCell, Shown, Stream
from research_jobs.report.sanitize import clean_html
from research_jobs.report.thumbnail import PLOTLY, Thumbnail, find_thumbnail
from research_jobs.runtime.vega import specification

__all__ = ["FRAME_POLICY", "Frame", "Renderer", "frame_document", "warm_up"]

BOKEH = "application/vnd.bokehjs_exec.v0+json"

#: how much of one output a page takes (characters)
TEXT_LIMIT = 100_000
INLINE_LIMIT = 400_000
FRAME_LIMIT = 12_000_000
JSON_LIMIT = 50_000
PAGE_LIMIT = 60_000_000

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

FRAME_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; media-src data:; "
    "worker-src blob:; form-action 'none'; base-uri 'none'"
)
_REMOTE = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)\s*=\s*["']?https?://|["']https://cdn""",
    re.IGNORECASE,
)
_BOKEH_ROOT = re.compile(r'\A\s*<div id="[\w-]+" data-root-id="(\w+)"[^>]*></div>\s*\Z')
# Opened by itself from the disk, a frame's page has no sandbox: what follows is then text.
_FRAME_GUARD = (
    "<script>if(self===top)"
    'document.write("<p>Part of a report: open report.html.<plaintext hidden>")</script>'
)
# A frame's page tells its height; the report cannot look into it.
_FRAME_SCRIPT = """<script>(function(){
function tell(){var b=document.body,d=document.documentElement;
parent.postMessage({researchJobsHeight:Math.max(b?b.scrollHeight:0,d.offsetHeight)},"*")}
addEventListener("load",tell);addEventListener("resize",tell);
if(window.ResizeObserver)new ResizeObserver(tell).observe(document.documentElement)
})()</script>"""


@dataclass(frozen=True)
class Frame:
    """A page of its own for an output that acts: shown in a sandbox."""

    name: str
    document: str


@dataclass
class Renderer:
    """Renders the outputs of one notebook, and remembers what the page needs for them.

    Parameters
    ----------
    picture : callable or None
        Gives a ``data:`` address for a picture beside the notebook.
    bokeh : Path or None
        Bokeh's script, where the notebook's interpreter has it.
    """

    picture: Callable[[str], str | None] | None = None
    bokeh: Path | None = None
    frames: list[Frame] = field(default_factory=list[Frame])
    thumbnail: Thumbnail | None = None
    plotly: bool = False
    evaluates: bool = False
    _roots: dict[str, str] = field(default_factory=dict[str, str])
    _size: int = 0
    _number: int = 0

    def render(self, shown: Shown, cell: RecordedCell) -> str:
        """One shown thing as an HTML block."""
        match shown:
            case Stream():
                html = self._stream(shown)
            case Output():
                html = self._output(shown, cell)
            case Error():
                html = _error(shown)
            case Note():
                html = _note(shown.text)
        self._size += len(html)
        if self._size > PAGE_LIMIT:
            self._size -= len(html)
            return _note("Left out: the page is large enough. The .ipynb beside it has it.")
        return html

    def _stream(self, stream: Stream) -> str:
        text = settle_lines(stream.text)
        if not text.strip():
            return ""
        kind = "rj-err" if stream.name == "stderr" else ""
        return _text_block(text.rstrip("\n"), f"rj-out {kind}".strip())

    def _output(self, output: Output, cell: RecordedCell) -> str:
        self._number += 1
        data = output.data
        if self.thumbnail is None:
            self.thumbnail = find_thumbnail(data)
        known = self._bokeh(output, cell)
        known = self._vega(data) if known is None else known
        if known is not None:
            return f'<div class="rj-output">{known}</div>' if known else ""
        root = _BOKEH_ROOT.search(data["text/html"]) if "text/html" in data else None
        if root is not None:
            # The place of a plot whose script comes next.
            self._roots[root[1]] = data["text/html"]
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
            return _picture(mime, _joined(value), metadata.get(mime) or metadata)
        text = _joined(value)
        if mime == "image/svg+xml":
            encoded = base64.b64encode(text.encode()).decode()
            return _picture(mime, encoded, metadata.get(mime) or {})
        if mime == "text/html":
            return self._html(text, name, scope, data)
        if mime == "text/markdown":
            prose = render_markdown(text, anchor=scope, scope=f"#{scope}", picture=self.picture)
            return f'<div class="rj-prose">{prose.html}</div>'
        if mime == "text/latex":
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
                f"A table or page of {len(text) / 1e6:.0f} MB is left out here; the .ipynb has it."
            ) + _text_block(_joined(data.get("text/plain", "")), "rj-out rj-value")
        if len(text) > INLINE_LIMIT:
            return self._frame(text, name)
        cleaned = clean_html(text, scope=f"#{scope}", picture=self.picture)
        if not cleaned.complete:
            return self._frame(text, name)
        note = _note("A picture on the network is not loaded.") if cleaned.remote else ""
        kind = "rj-table" if "<table" in cleaned.html else "rj-html"
        if re.search(r"\bbackground(?:-color)?:|[\s\"{;]color:", cleaned.html):
            kind += " rj-paper"
        return f'<div class="{kind}" tabindex="0">{cleaned.html}</div>{note}'

    def _bokeh(self, output: Output, cell: RecordedCell) -> str | None:
        """A bokeh plot in a frame that has bokeh's script; None where it is none."""
        loading = any(mime.startswith("application/vnd.bokehjs_load") for mime in output.data)
        if loading or "bk-notebook-logo" in str(output.data.get("text/html", "")):
            return ""
        found = output.metadata.get(BOKEH)
        if BOKEH not in output.data or not isinstance(found, dict):
            return None
        root = str(found.get("id"))
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
        """A sketch of an altair chart that nothing could draw; None where it is none."""
        if "image/svg+xml" in data or "image/png" in data:
            return None
        found = specification(data)
        drawn = sketch(from_vega(found), width=700) if found is not None else None
        if drawn is None:
            return None
        return (
            f'<img class="rj-sketch" alt="Sketch of the chart" src="{_svg_address(drawn)}">'
            + _note("A sketch: with vl-convert-python installed, the chart is drawn as it is.")
        )

    def _frame(self, text: str, name: str, *, complete: bool = False) -> str:
        file = f"{name}.html"
        self.frames.append(Frame(file, frame_document(text)))
        remote = not complete and _REMOTE.search(text)
        note = (
            _note("This output asks the network for scripts or styles; reports load none.")
            if remote
            else ""
        )
        return (
            f'<iframe class="rj-frame" sandbox="allow-scripts" loading="lazy" '
            f'title="Output" src="frames/{file}"></iframe>{note}'
        )

    def _plotly(self, figure: Any) -> str:
        if not isinstance(figure, dict):
            return ""
        self.plotly = True
        self.evaluates = self.evaluates or needs_eval(figure)
        layout = figure.get("layout")
        height = layout.get("height") if isinstance(layout, dict) else None
        pixels = height if isinstance(height, (int, float)) and 40 <= height <= 4000 else 450
        kept = {key: figure[key] for key in ("data", "layout", "frames") if key in figure}
        encoded = json.dumps(kept).replace("<", "\\u003c")
        drawn = sketch(figure, width=700, height=round(min(pixels, 700)))
        still = (
            f'<img class="rj-sketch" alt="Sketch of the chart" src="{_svg_address(drawn)}">'
            if drawn
            else ""
        )
        return (
            f'<div class="rj-plotly" style="min-height:{pixels:.0f}px">'
            f'<script type="application/json">{encoded}</script>{still}</div>'
        )


def warm_up() -> None:
    """Import and prepare everything that outputs may need."""
    render_markdown("*a* $x$", anchor="a")


def frame_document(body: str) -> str:
    """A page for a sandboxed frame: it may run its own scripts, and reach nothing.

    Parameters
    ----------
    body : str
        Untrusted markup.
    """
    return (
        '<!doctype html><html><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(FRAME_POLICY, quote=False)}">'
        "<style>body{margin:0;font:14px/1.5 system-ui,sans-serif;background:#fff;color:#1f2328}"
        "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 8px}</style>"
        f"{_FRAME_GUARD}{_FRAME_SCRIPT}</head><body>{body}</body></html>"
    )


def _joined(value: Any) -> str:
    """A representation as one text: nbformat also allows a list of lines."""
    if isinstance(value, list):
        return "".join(str(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _picture(mime: str, encoded: str, metadata: Any) -> str:
    encoded = "".join(encoded.split())
    if not re.fullmatch(r"[\w+/=-]*", encoded):
        return ""
    size = ""
    if isinstance(metadata, dict):
        for name in ("width", "height"):
            pixels = metadata.get(name)
            if isinstance(pixels, (int, float)) and 0 < pixels <= 10_000:
                size += f' {name}="{pixels:.0f}"'
    return f'<img class="rj-figure" alt="Figure"{size} src="data:{mime};base64,{encoded}">'


def _svg_address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


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
    body = ansi_to_html("\n".join(error.traceback))
    name = escape(error.ename)
    first = escape(error.evalue.strip().split("\n", 1)[0][:2000])
    headline = f"<strong>{name}</strong>: {first}" if first else f"<strong>{name}</strong>"
    return (
        f'<div class="rj-error"><p class="rj-headline">{headline}</p>'
        f'<pre class="rj-trace" tabindex="0">{body}</pre></div>'
    )
