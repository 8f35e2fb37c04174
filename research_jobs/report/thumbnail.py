"""The first chart of a notebook as one file, for the gallery and for Dagster's pages.

Those show a picture at its own size, so none is wider than `WIDEST`: a wider one is put into an
SVG that scales it, which needs nothing that could decode pictures. Of a figure that only plotly can
draw the file is a script that hands it to the gallery.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, cast

from research_jobs.report.svg import clean_svg

__all__ = [
    "PLOTLY",
    "WIDEST",
    "Thumbnail",
    "figure_script",
    "find_thumbnail",
    "is_dark",
    "joined",
    "picture_size",
]

WIDEST = 600  # pixels
PLOTLY = "application/vnd.plotly.v1+json"
FIGURE_LIMIT = 1_000_000
_PICTURES = (("image/png", ".png"), ("image/jpeg", ".jpg"))
_SVG_TAG = re.compile(r"<svg\b[^>]*+>")
# Of an attribute, so that "stroke-width" is none; without a unit, or in pixels or points.
_LENGTH = r"""\s{}\s*=\s*["']\s*([\d.]+)(px|pt)?\s*["']"""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"


@dataclass(frozen=True)
class Thumbnail:
    """The first chart of a notebook.

    Parameters
    ----------
    suffix : str
        ``".png"``, ``".jpg"``, ``".svg"``; ``".js"`` for a figure.
    content : bytes
    """

    suffix: str
    content: bytes


def find_thumbnail(data: Mapping[str, Any]) -> Thumbnail | None:
    """The picture of an output.

    Parameters
    ----------
    data : mapping
        Its representations by mime type, untrusted.

    Returns
    -------
    Thumbnail or None
        None if it is not a chart.
    """
    for mime, suffix in _PICTURES:
        if mime in data:
            try:
                content = base64.b64decode(joined(data[mime]))
            except (binascii.Error, ValueError):
                continue
            size = picture_size(content)
            if size is not None and size[0] > WIDEST:
                return _scaled(mime, content, size)
            return Thumbnail(suffix, content)
    if "image/svg+xml" not in data:
        return None
    drawing = clean_svg(joined(data["image/svg+xml"]))
    if drawing is None:
        return None
    measured = _svg_size(drawing)
    if measured is not None and measured[0] > WIDEST:
        return _scaled("image/svg+xml", drawing.encode(), measured)
    return Thumbnail(".svg", drawing.encode())


def figure_script(figure: Any, notebook: str, plotly: str) -> Thumbnail | None:
    """A figure as a script that hands it to the gallery, which works from the disk too.

    Parameters
    ----------
    figure : dict
        Plotly's JSON, untrusted.
    notebook : str
    plotly : str
        Where plotly's script is, below the folder of all reports.

    Returns
    -------
    Thumbnail or None
        None where the figure is too large for a gallery, or cannot be written as JSON.
    """
    if not isinstance(figure, dict):
        return None
    known = cast("dict[str, Any]", figure)
    record = {"notebook": notebook, "plotly": plotly}
    record |= {key: known[key] for key in ("data", "layout") if key in known}
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return None
    if len(text) > FIGURE_LIMIT:
        return None
    return Thumbnail(".js", f"researchJobsFigure({text});\n".encode())


def _scaled(mime: str, content: bytes, size: tuple[float, float]) -> Thumbnail:
    width, height = WIDEST, max(1, round(size[1] * WIDEST / size[0]))
    address = f"data:{mime};base64,{base64.b64encode(content).decode()}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><image href="{address}" width="{width}" '
        f'height="{height}"/></svg>'
    )
    return Thumbnail(".svg", svg.encode())


def picture_size(picture: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG or JPEG, from its header."""
    if picture.startswith(_PNG) and len(picture) >= 24:
        width, height = struct.unpack(">II", picture[16:24])
        return (width, height) if width and height else None
    if picture.startswith(_JPEG):
        return _jpeg_size(picture)
    return None


def is_dark(encoded: str) -> bool:
    """Whether the first pixel of a PNG is dark: light ink on it needs no light paper.

    Parameters
    ----------
    encoded : str
        Base64.
    """
    # Of the first pixel nothing is predicted, so whichever way the row is filtered, it is as it is.
    try:
        picture = base64.b64decode(encoded[: 4 * 20_000])
        if not picture.startswith(_PNG):
            return False
        depth, kind = picture[24], picture[25]
        start = picture.index(b"IDAT") + 4
        row = zlib.decompressobj().decompress(picture[start:], 16)
        if depth != 8 or kind not in (2, 6):
            return False
        red, green, blue, alpha = *row[1:4], row[4] if kind == 6 else 255
    except (ValueError, IndexError, zlib.error):
        return False
    return alpha > 127 and 0.3 * red + 0.59 * green + 0.11 * blue < 100


def _jpeg_size(picture: bytes) -> tuple[int, int] | None:
    place = 2
    while place + 9 <= len(picture) and picture[place] == 0xFF:
        kind, length = picture[place + 1], int.from_bytes(picture[place + 2 : place + 4])
        # A frame's header; of the same range, these three are tables.
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", picture[place + 5 : place + 9])
            return (width, height) if width and height else None
        place += 2 + length
    return None


def _svg_size(drawing: str) -> tuple[float, float] | None:
    tag = _SVG_TAG.search(drawing)
    if tag is None:
        return None
    lengths = [re.search(_LENGTH.format(name), tag[0]) for name in ("width", "height")]
    try:
        width, height = (
            float(match[1]) * (4 / 3 if match[2] == "pt" else 1) if match else 0.0
            for match in lengths
        )
    except ValueError:
        return None
    return (width, height) if 0 < width < inf and 0 < height < inf else None


def joined(value: Any) -> str:
    """A representation as one text: nbformat also allows a list of lines."""
    if isinstance(value, list):
        return "".join(str(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value, default=str)
