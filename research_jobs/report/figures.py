"""A plotly figure as a small static drawing: no browser and no plotly needed.

It is a sketch for thumbnails and for readers without scripts, not a second renderer: the traces'
shapes and colours, no axes' labels.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, cast

__all__ = ["from_vega", "needs_eval", "sketch"]

WIDTH, HEIGHT = 480, 300
MARGIN = 18
TITLE = 24
MOST_POINTS = 400
MOST_TRACES = 40
MOST_CELLS = 60

_COLOURS = [
    "#636efa",
    "#ef553b",
    "#00cc96",
    "#ab63fa",
    "#ffa15a",
    "#19d3f3",
    "#ff6692",
    "#b6e880",
    "#ff97ff",
    "#fecb52",
]
_SCALE = ((13, 8, 135), (126, 3, 168), (204, 71, 120), (248, 149, 64), (240, 249, 33))
_TYPES = {
    "i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d",
    "i8": "q", "u8": "Q",
}  # fmt: skip

# These draw with WebGL, whose shaders plotly compiles with eval.
_WITH_EVAL = frozenset(
    {"scattergl", "splom", "parcoords", "scatterpolargl", "heatmapgl", "pointcloud"}
)


def needs_eval(figure: Any) -> bool:
    """Whether a figure's traces are drawn by code that is compiled in the page."""
    return any(
        trace.get("type") in _WITH_EVAL or str(trace.get("type", "")).endswith("3d")
        for trace in _traces(figure)
    )


def _traces(figure: Any) -> list[dict[str, Any]]:
    data = figure.get("data") if isinstance(figure, dict) else None
    if not isinstance(data, list):
        return []
    return [trace for trace in cast("list[Any]", data) if isinstance(trace, dict)]


@dataclass
class _Series:
    """One trace, reduced to what is drawn."""

    kind: str  # line, area, points, bars, candles, cells, slices
    x: list[float] = field(default_factory=list[float])
    y: list[float] = field(default_factory=list[float])
    low: list[float] = field(default_factory=list[float])
    colour: str = ""
    colours: list[str] = field(default_factory=list[str])
    rows: list[list[float]] = field(default_factory=list[list[float]])


def sketch(figure: Any, *, width: int = WIDTH, height: int = HEIGHT) -> str | None:
    """A figure as SVG.

    Parameters
    ----------
    figure : dict
        Plotly's JSON, untrusted.
    width, height : int
        Pixels.

    Returns
    -------
    str or None
        None when there is nothing in it that can be drawn.
    """
    try:
        return _sketch(figure, width, height)
    except Exception:  # noqa: BLE001 - a figure of an unknown shape has no sketch, that is all
        return None


def _sketch(figure: Any, width: int, height: int) -> str | None:
    layout = figure.get("layout") or {}
    colourway = _colourway(layout)
    categories: dict[str, int] = {}
    series: list[_Series] = []
    for index, trace in enumerate(_traces(figure)[:MOST_TRACES]):
        made = _series(trace, categories)
        if made is not None:
            made.colour = _colour(trace) or colourway[index % len(colourway)]
            series.append(made)
    if not series:
        return None
    title = _title(layout)
    top = MARGIN + (TITLE if title else 0)
    body = _Plot(MARGIN, top, width - MARGIN, height - MARGIN).draw(series, colourway)
    if not body:
        return None
    heading = (
        f'<text x="{MARGIN}" y="{MARGIN + 10}" font-family="sans-serif" font-size="14" '
        f'fill="#444">{escape(title)}</text>'
        if title
        else ""
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}"><rect width="{width}" height="{height}" fill="#fff"/>{heading}'
        f"{body}</svg>"
    )


_VEGA_MARKS = {
    "area": {"type": "scatter", "fill": "tozeroy", "mode": "lines"},
    "bar": {"type": "bar"},
    "circle": {"type": "scatter", "mode": "markers"},
    "line": {"type": "scatter", "mode": "lines"},
    "point": {"type": "scatter", "mode": "markers"},
    "square": {"type": "scatter", "mode": "markers"},
    "tick": {"type": "scatter", "mode": "markers"},
    "trail": {"type": "scatter", "mode": "lines"},
}


def from_vega(specification: Any) -> Any:
    """A Vega-Lite chart as the plotly figure that is nearest, for `sketch`.

    Parameters
    ----------
    specification : dict
        Untrusted. Layers, and the first of several charts; fields as they are, not aggregated.

    Returns
    -------
    dict or None
    """
    try:
        traces = _vega_traces(specification, specification.get("datasets") or {}, {})
    except Exception:  # noqa: BLE001 - a chart of an unknown shape has no sketch, that is all
        return None
    if not traces:
        return None
    return {"data": traces, "layout": {"title": specification.get("title")}}


def _vega_traces(
    chart: dict[str, Any], datasets: dict[str, Any], above: dict[str, Any]
) -> list[dict[str, Any]]:
    here = {**above, **{key: chart[key] for key in ("data", "encoding", "mark") if key in chart}}
    layers = chart.get("layer")
    if layers:
        return [trace for layer in layers for trace in _vega_traces(layer, datasets, here)]
    for several in ("hconcat", "vconcat", "concat"):
        if chart.get(several):
            return _vega_traces(chart[several][0], datasets, here)
    if "spec" in chart:
        return _vega_traces(chart["spec"], datasets, here)
    mark: Any = here.get("mark")
    kind = _VEGA_MARKS.get(str(mark.get("type") if isinstance(mark, dict) else mark))
    data: dict[str, Any] = here.get("data") or {}
    rows: list[dict[str, Any]] = data.get("values") or datasets.get(data.get("name", "")) or []
    encoding: dict[str, Any] = here.get("encoding") or {}
    x, y = (str((encoding.get(axis) or {}).get("field") or "") for axis in ("x", "y"))
    if kind is None or not rows or not x or not y:
        return []
    group = str((encoding.get("color") or {}).get("field") or "")
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row.get(group)) if group else "", []).append(row)
    return [
        {**kind, "x": [row.get(x) for row in part], "y": [row.get(y) for row in part]}
        for part in groups.values()
    ]


def _title(layout: dict[str, Any]) -> str:
    title = layout.get("title")
    if isinstance(title, dict):
        title = cast("dict[str, Any]", title).get("text")
    text = title if isinstance(title, str) else ""
    text = text.split("<", 1)[0].strip()
    return text if len(text) <= 52 else text[:51] + "…"


def _colourway(layout: dict[str, Any]) -> Sequence[str]:
    found = layout.get("colorway")
    if not found:
        found = ((layout.get("template") or {}).get("layout") or {}).get("colorway")
    safe = [colour for colour in found or () if _safe_colour(colour)]
    return safe or _COLOURS


def _safe_colour(value: Any) -> bool:
    return isinstance(value, str) and all(part.isalnum() or part in "#(), .%" for part in value)


def _colour(trace: dict[str, Any]) -> str | None:
    for holder in (trace.get("line"), trace.get("marker"), trace):
        if isinstance(holder, dict):
            for name in ("color", "fillcolor"):
                value = cast("dict[str, Any]", holder).get(name)
                if _safe_colour(value):
                    return value
    return None


def _series(trace: dict[str, Any], categories: dict[str, int]) -> _Series | None:
    kind = str(trace.get("type") or "scatter")
    if kind in ("scatter", "scattergl", "scatterpolar"):
        return _scatter(trace, categories)
    if kind in ("bar", "funnel", "waterfall"):
        return _bars(trace, categories)
    if kind == "histogram":
        return _histogram(trace)
    if kind in ("candlestick", "ohlc"):
        return _candles(trace)
    if kind in ("heatmap", "contour", "surface", "image", "heatmapgl"):
        rows = _matrix(trace.get("z"))
        return _Series("cells", rows=rows) if rows else None
    if kind == "pie":
        values = [value for value in _numbers(trace.get("values")) if value > 0][:24]
        return _Series("slices", y=values) if values else None
    if kind in ("box", "violin"):
        return _boxes(trace, categories)
    if kind in ("histogram2d", "histogram2dcontour", "density_heatmap", "scatter3d", "splom"):
        return _scatter({**trace, "mode": "markers"}, categories)
    return None


def _scatter(trace: dict[str, Any], categories: dict[str, int]) -> _Series | None:
    y = _values(trace.get("y", trace.get("r")), {})
    x = _values(trace.get("x", trace.get("theta")), categories)
    if not y and not x:
        return None
    if not x:
        start, step = _number(trace.get("x0")) or 0.0, _number(trace.get("dx")) or 1.0
        x = [start + index * step for index in range(len(y))]
    if not y:
        y = [float(index) for index in range(len(x))]
    mode = trace.get("mode") or ("lines+markers" if len(y) < 20 else "lines")
    kind = "line" if "lines" in mode else "points"
    if trace.get("stackgroup") or trace.get("fill") not in (None, "none"):
        kind = "area"
    return _Series(kind, *_thinned(x, y))


def _bars(trace: dict[str, Any], categories: dict[str, int]) -> _Series | None:
    first, second = ("y", "x") if trace.get("orientation") == "h" else ("x", "y")
    heights = _values(trace.get(second), {})
    places = _values(trace.get(first), categories) or [float(i) for i in range(len(heights))]
    return _Series("bars", *_thinned(places, heights)) if heights else None


def _histogram(trace: dict[str, Any]) -> _Series | None:
    values = [v for v in _values(trace.get("x", trace.get("y")), {}) if math.isfinite(v)]
    if not values:
        return None
    low, high = min(values), max(values)
    bins = max(1, min(40, round(math.sqrt(len(values)))))
    counts = [0.0] * bins
    width = (high - low) / bins or 1.0
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    return _Series("bars", [low + (index + 0.5) * width for index in range(bins)], counts)


def _candles(trace: dict[str, Any]) -> _Series | None:
    close = _values(trace.get("close"), {})
    if not close:
        return None
    x = _values(trace.get("x"), {}) or [float(index) for index in range(len(close))]
    return _Series("line", *_thinned(x, close))


def _boxes(trace: dict[str, Any], categories: dict[str, int]) -> _Series | None:
    values = sorted(v for v in _values(trace.get("y", trace.get("x")), {}) if math.isfinite(v))
    if not values:
        return None
    at = categories.setdefault(str(trace.get("name") or f"box {len(categories)}"), len(categories))
    ranks = [values[int(part * (len(values) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)]
    return _Series("box", [float(at)], ranks)


def _thinned(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    count = min(len(x), len(y))
    step = max(1, math.ceil(count / MOST_POINTS))
    return x[:count:step], y[:count:step]


def _array(value: Any) -> list[Any]:
    """A list, also from plotly's typed arrays (``{"dtype": "f8", "bdata": base64}``)."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    if isinstance(value, dict) and "bdata" in value:
        packed = cast("dict[str, Any]", value)
        code = _TYPES.get(str(packed.get("dtype", "")).lstrip("<|="))
        data = base64.b64decode(packed["bdata"])
        if code is None:
            return []
        size = struct.calcsize("<" + code)
        flat = list(struct.unpack(f"<{len(data) // size}{code}", data[: len(data) // size * size]))
        shape = [int(part) for part in str(packed.get("shape") or "").split(",") if part.strip()]
        if len(shape) == 2:
            return [flat[row * shape[1] : (row + 1) * shape[1]] for row in range(shape[0])]
        return flat
    return []


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _numbers(value: Any) -> list[float]:
    return [number for item in _array(value) if (number := _number(item)) is not None]


def _values(value: Any, categories: dict[str, int]) -> list[float]:
    """Numbers, dates as seconds, and names by the order in which they come; gaps are nan."""
    out: list[float] = []
    for item in _array(value):
        number = _number(item)
        if number is None and isinstance(item, str):
            number = _date(item)
            if number is None:
                number = float(categories.setdefault(item, len(categories)))
        out.append(math.nan if number is None else number)
    return out


def _date(text: str) -> float | None:
    if len(text) < 8 or not text[:4].isdigit():
        return None
    from datetime import datetime, timezone

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def _matrix(value: Any) -> list[list[float]]:
    rows = [row for row in _array(value) if isinstance(row, (list, dict))]
    step = max(1, math.ceil(len(rows) / MOST_CELLS))
    made: list[list[float]] = []
    for row in rows[::step]:
        numbers = _values(row, {})
        made.append(numbers[:: max(1, math.ceil(len(numbers) / MOST_CELLS))])
    return [row for row in made if row]


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


@dataclass
class _Plot:
    """The rectangle that is drawn in, and how values map to it."""

    left: float
    top: float
    right: float
    bottom: float
    x0: float = 0.0
    x1: float = 1.0
    y0: float = 0.0
    y1: float = 1.0

    def draw(self, series: Sequence[_Series], colours: Sequence[str]) -> str:
        for made in series:
            if made.kind == "slices":
                return self.pie(made, colours)
            if made.kind == "cells":
                return self.cells(made)
        xs = _finite(value for made in series for value in made.x)
        ys = _finite(value for made in series for value in made.y)
        if not xs or not ys:
            return ""
        bars = any(made.kind in ("bars", "area") for made in series)
        self.x0, self.x1 = min(xs), max(xs)
        self.y0, self.y1 = min([*ys, 0.0] if bars else ys), max([*ys, 0.0] if bars else ys)
        if any(made.kind in ("bars", "box") for made in series):
            count = max(len(made.x) for made in series if made.kind in ("bars", "box"))
            half = (self.x1 - self.x0) / max(1, 2 * (count - 1)) or 0.5
            self.x0, self.x1 = self.x0 - half, self.x1 + half
        room = (self.y1 - self.y0) * 0.05 or 0.5
        self.y1 += room
        self.y0 -= 0 if bars and self.y0 == 0 else room
        frame = (
            f'<path d="M{self.left} {self.top}V{self.bottom}H{self.right}" fill="none" '
            'stroke="#d0d4da"/>'
        )
        return frame + "".join(self.one(made, series) for made in series)

    def px(self, value: float) -> float:
        span = self.x1 - self.x0 or 1.0
        return round(self.left + (value - self.x0) / span * (self.right - self.left), 1)

    def py(self, value: float) -> float:
        span = self.y1 - self.y0 or 1.0
        return round(self.bottom - (value - self.y0) / span * (self.bottom - self.top), 1)

    def one(self, made: _Series, series: Sequence[_Series]) -> str:
        points = [
            (self.px(x), self.py(y))
            for x, y in zip(made.x, made.y, strict=False)
            if math.isfinite(x) and math.isfinite(y)
        ]
        colour = escape(made.colour)
        if made.kind == "box":
            return self.box(made, colour, series)
        if made.kind == "bars":
            return self.bars(made, points, colour, series)
        if made.kind == "points":
            return "".join(
                f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}" fill-opacity=".75"/>'
                for x, y in points
            )
        if not points:
            return ""
        path = "M" + "L".join(f"{x} {y}" for x, y in points)
        line = f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        if made.kind == "area":
            base = self.py(max(0.0, self.y0))
            filled = f"{path}L{points[-1][0]} {base}L{points[0][0]} {base}Z"
            return f'<path d="{filled}" fill="{colour}" fill-opacity=".25"/>{line}'
        return line

    def bars(
        self,
        made: _Series,
        points: list[tuple[float, float]],
        colour: str,
        series: Sequence[_Series],
    ) -> str:
        groups = [other for other in series if other.kind == "bars"]
        place = next(index for index, other in enumerate(groups) if other is made)
        slots = max(len({x for other in groups for x in other.x}), 1)
        wide = (self.right - self.left) / slots * 0.8 / len(groups)
        base = self.py(max(self.y0, min(self.y1, 0.0)))
        out: list[str] = []
        for x, y in points:
            left = x + (place - len(groups) / 2) * wide
            out.append(
                f'<rect x="{left:.1f}" y="{min(y, base):.1f}" width="{max(wide, 0.8):.1f}" '
                f'height="{abs(y - base):.1f}" fill="{colour}"/>'
            )
        return "".join(out)

    def box(self, made: _Series, colour: str, series: Sequence[_Series]) -> str:
        count = sum(other.kind == "box" for other in series)
        half = (self.right - self.left) / max(count, 1) * 0.25
        low, first, middle, third, high = (self.py(value) for value in made.y)
        x = self.px(made.x[0])
        return (
            f'<path d="M{x} {low}V{high}" stroke="{colour}"/>'
            f'<rect x="{x - half:.1f}" y="{third}" width="{2 * half:.1f}" '
            f'height="{first - third:.1f}" fill="{colour}" fill-opacity=".5" stroke="{colour}"/>'
            f'<path d="M{x - half:.1f} {middle}H{x + half:.1f}" stroke="{colour}"/>'
        )

    def cells(self, made: _Series) -> str:
        values = _finite(value for row in made.rows for value in row)
        if not values:
            return ""
        low, high = min(values), max(values)
        tall = (self.bottom - self.top) / len(made.rows)
        out: list[str] = []
        for index, row in enumerate(made.rows):
            wide = (self.right - self.left) / len(row)
            y = self.bottom - (index + 1) * tall
            out += [
                f'<rect x="{self.left + place * wide:.1f}" y="{y:.1f}" width="{wide + 0.5:.1f}" '
                f'height="{tall + 0.5:.1f}" fill="{_shade(value, low, high)}"/>'
                for place, value in enumerate(row)
                if math.isfinite(value)
            ]
        return "".join(out)

    def pie(self, made: _Series, colours: Sequence[str]) -> str:
        total = sum(made.y)
        cx, cy = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        radius = min(self.right - self.left, self.bottom - self.top) / 2
        angle = -math.pi / 2
        out: list[str] = []
        if len(made.y) == 1:
            return f'<circle cx="{cx}" cy="{cy}" r="{radius}" fill="{escape(colours[0])}"/>'
        for index, value in enumerate(made.y):
            end = angle + 2 * math.pi * value / total
            x0, y0 = cx + radius * math.cos(angle), cy + radius * math.sin(angle)
            x1, y1 = cx + radius * math.cos(end), cy + radius * math.sin(end)
            large = int(end - angle > math.pi)
            out.append(
                f'<path d="M{cx:.1f} {cy:.1f}L{x0:.1f} {y0:.1f}A{radius:.1f} {radius:.1f} 0 '
                f'{large} 1 {x1:.1f} {y1:.1f}Z" fill="{escape(colours[index % len(colours)])}" '
                'stroke="#fff"/>'
            )
            angle = end
        return "".join(out)


def _shade(value: float, low: float, high: float) -> str:
    part = (value - low) / (high - low) if high > low else 0.5
    place = part * (len(_SCALE) - 1)
    index = min(int(place), len(_SCALE) - 2)
    share = place - index
    red, green, blue = (
        round(a + (b - a) * share) for a, b in zip(_SCALE[index], _SCALE[index + 1], strict=True)
    )
    return f"#{red:02x}{green:02x}{blue:02x}"
