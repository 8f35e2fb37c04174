"""Drawings from notebooks as files of their own, made harmless.

An SVG file that is opened by itself is a page: it may run scripts and load other files. Only
elements and attributes on short lists are written again, by expat's events, each once.
"""

from __future__ import annotations

import re
from html import escape
from xml.parsers import expat

__all__ = ["SVG_LIMIT", "clean_svg"]

SVG_LIMIT = 4 * 1024 * 1024
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS = _words(
    """
    circle clipPath defs desc ellipse g image line linearGradient path pattern polygon
    polyline radialGradient rect stop svg text title tspan use
    """
)
_ATTRIBUTES = _words(
    """
    class clip-path clip-rule clipPathUnits color cx cy d display dominant-baseline dx dy fill
    fill-opacity fill-rule font-family font-size font-style font-weight fx fy gradientTransform
    gradientUnits height id letter-spacing offset opacity orient patternTransform
    patternUnits points preserveAspectRatio r refX refY rotate rx ry spreadMethod stop-color
    stop-opacity stroke stroke-dasharray stroke-dashoffset stroke-linecap stroke-linejoin
    stroke-miterlimit stroke-opacity stroke-width style text-anchor text-decoration transform
    vector-effect viewBox visibility width x x1 x2 y y1 y2
    """
)
# What a ``use`` may repeat: nothing that holds more of its kind, which would multiply.
_SINGLE = _words("circle ellipse line path polygon polyline rect")
_PICTURE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,[\w+/=\s]*+\Z")
_INSIDE = re.compile(r"#[\w.:-]+\Z")
_REFERENCE = re.compile(r"url\(\s*['\"]?#[\w.:-]+['\"]?\s*\)")


def clean_svg(text: str) -> str | None:
    """A drawing with nothing active in it.

    Parameters
    ----------
    text : str
        Untrusted.

    Returns
    -------
    str or None
        None where it is not well-formed, draws nothing, or is too large.
    """
    if len(text) > SVG_LIMIT:
        return None
    cleaner = _Cleaner()
    try:
        cleaner.parser.Parse(text.encode("utf-8", "replace"), True)
    except (expat.ExpatError, ValueError):
        return None
    return "".join(cleaner.out) if cleaner.draws and cleaner.out[0].startswith("<svg") else None


class _Cleaner:
    def __init__(self) -> None:
        self.out: list[str] = []
        self.draws = False
        self._hidden = 0
        self._single: set[str] = set()
        self.parser = expat.ParserCreate("utf-8", " ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        raise ValueError("a drawing that declares entities")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        space, _, local = name.rpartition(" ")
        if self._hidden or space not in (_SVG, "") or local not in _ELEMENTS:
            self._hidden += 1
            return
        self.draws = self.draws or local in _SINGLE or local in ("image", "text")
        if local in _SINGLE:
            self._single.add(f"#{attributes.get('id')}")
        if local == "use":
            target = attributes.get("href") or attributes.get(f"{_XLINK} href")
            if target not in self._single:
                self._hidden += 1
                return
        first = "" if self.out else f' xmlns="{_SVG}" xmlns:xlink="{_XLINK}"'
        kept = "".join(_attribute(local, key, value) for key, value in attributes.items())
        self.out.append(f"<{local}{first}{kept}>")

    def _end(self, name: str) -> None:
        if self._hidden:
            self._hidden -= 1
        else:
            self.out.append(f"</{name.rpartition(' ')[2]}>")

    def _text(self, text: str) -> None:
        if not self._hidden:
            self.out.append(escape(text, quote=False))


def _attribute(element: str, key: str, value: str) -> str:
    space, _, name = key.rpartition(" ")
    if name == "href" and space in ("", _XLINK):
        allowed = _PICTURE if element == "image" else _INSIDE
        return f' xlink:href="{escape(value)}"' if allowed.match(value) else ""
    if space or name not in _ATTRIBUTES:
        return ""
    # What is left of a value without its references into the drawing loads nothing.
    rest = _REFERENCE.sub("", value).lower()
    if "url" in rest or "\\" in rest or (":" in rest and name != "style") or "import" in rest:
        return ""
    return f' {name}="{escape(value)}"'
