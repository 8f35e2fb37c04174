"""Cleaned HTML as mail programs show it: styles on each element, no classes, tables bounded."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from html import escape
from html.parser import HTMLParser

from research_jobs.report.css import PREFIX, harmless_declarations

__all__ = ["Rewriter", "id_styles"]

MOST_ROWS = 25
_KEPT_STYLE = frozenset(
    ("color", "background-color", "font-weight", "font-style", "text-align", "text-decoration")
)
_INK = "color:#1f2933;"
_MONO = "font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
_CELL = "padding:5px 8px;border-bottom:1px solid #e6e9ed;white-space:nowrap;vertical-align:top;"
# Every element that a mail may have, with its style.
_STYLES: Mapping[str, str] = {
    "a": "color:#0b5cad;text-decoration:underline;",
    "b": "", "strong": "", "em": "", "i": "", "u": "", "s": "", "del": "", "sub": "", "sup": "",
    "small": "", "mark": "", "span": "", "br": "", "center": "", "font": "", "kbd": _MONO,
    "blockquote": "margin:0 0 14px;padding:2px 0 2px 14px;border-left:3px solid #d5dae0;",
    "code": _MONO + "font-size:13px;",
    "div": "",
    "dd": "margin:0 0 8px 18px;", "dl": "margin:0 0 14px;", "dt": "font-weight:600;",
    "h1": "margin:26px 0 10px;font-size:21px;line-height:1.3;" + _INK,
    "h2": "margin:26px 0 8px;font-size:18px;line-height:1.3;" + _INK,
    "h3": "margin:20px 0 6px;font-size:16px;line-height:1.35;" + _INK,
    "h4": "margin:16px 0 4px;font-size:15px;" + _INK,
    "hr": "border:0;border-top:1px solid #e6e9ed;margin:18px 0;",
    "img": "display:block;max-width:100%;height:auto;",
    "li": "margin:0 0 4px;", "ol": "margin:0 0 14px;padding-left:24px;",
    "p": "margin:0 0 14px;",
    "pre": _MONO + "margin:0 0 14px;font-size:12px;line-height:1.5;white-space:pre-wrap;"
    "overflow-wrap:anywhere;",
    "ul": "margin:0 0 14px;padding-left:24px;",
    "caption": "padding:0 0 6px;text-align:left;color:#66707c;",
    "table": "border-collapse:collapse;font-size:12px;line-height:1.45;"
    "font-variant-numeric:tabular-nums;",
    "tbody": "", "thead": "", "tfoot": "", "tr": "",
    "td": _CELL + "text-align:right;",
    "th": _CELL + "text-align:left;font-weight:600;",
}  # fmt: skip
_HEAD_CELL = "text-align:right;color:#66707c;"
_CLASSES = {
    "a": "rj-link", "td": "rj-cell", "th": "rj-cell", "hr": "rj-cell", "blockquote": "rj-cell",
    "h1": "rj-ink", "h2": "rj-ink", "h3": "rj-ink", "h4": "rj-ink", "caption": "rj-muted",
}  # fmt: skip
_VOID = frozenset(("br", "hr", "img"))
_NUMBER = re.compile(r"\d{1,4}\Z")
_PICTURE = re.compile(r"data:(image/(?:png|jpe?g|gif));base64,(.*)\Z", re.DOTALL | re.IGNORECASE)
_ID = re.compile(r"#([\w-]+)\Z")


def id_styles(sheets: str) -> dict[str, str]:
    """What a style sheet says of single elements, as pandas' ``style`` writes it for cells.

    Parameters
    ----------
    sheets : str
        Untrusted.

    Returns
    -------
    dict
        An element's id, as cleaned HTML has it, to harmless declarations.
    """
    found: dict[str, str] = {}
    for rule in sheets.split("}"):
        selectors, _, declarations = rule.rpartition("{")
        selectors = selectors.rpartition("{")[2]
        ids = [match[1] for one in selectors.split(",") if (match := _ID.match(one.strip()))]
        style = _kept(harmless_declarations(declarations)) if ids else ""
        for name in ids if style else ():
            found[PREFIX + name] = found.get(PREFIX + name, "") + style
    return found


class Rewriter(HTMLParser):
    """Writes cleaned markup again for a mail.

    Parameters
    ----------
    picture : callable
        Takes a picture's type and bytes; gives its address in the mail, or None.
    styles : mapping of str to str, optional
        As `id_styles` gives them.

    Attributes
    ----------
    left_out : int
        Rows that are not in the mail.
    """

    def __init__(
        self, picture: Callable[[str, bytes], str | None], styles: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(convert_charrefs=True)
        self._picture = picture
        self._styles = styles or {}
        self._out: list[str] = []
        self._rows = 0
        self._head = self._depth = 0
        self._skipping = False
        self.left_out = 0

    def rewritten(self, markup: str) -> str:
        """The markup, written again."""
        self.feed(markup)
        self.close()
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._depth += 1
            if self._depth == 1:
                self._rows = 0
                self._out.append('<div style="overflow-x:auto;margin:0 0 14px;">')
        self._head += tag == "thead"
        if tag == "tr" and self._depth == 1 and not self._head:
            self._rows += 1
            self._skipping = self._rows > MOST_ROWS
            self.left_out += self._skipping
        if self._skipping or tag not in _STYLES:
            return
        given = {name: value or "" for name, value in attrs}
        text = self._attributes(tag, given)
        if text is not None:
            self._out.append(f"<{tag}{text}>")

    def handle_endtag(self, tag: str) -> None:
        if not self._skipping and tag in _STYLES and tag not in _VOID:
            self._out.append(f"</{tag}>")
        if tag == "tr" and self._depth == 1:
            self._skipping = False
        self._head -= tag == "thead"
        if tag == "table" and self._depth:
            self._depth -= 1
            if not self._depth:
                self._out.append("</div>")

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._out.append(escape(data, quote=False))

    def _attributes(self, tag: str, given: Mapping[str, str]) -> str | None:
        """An element's attributes; None where it cannot be shown."""
        style = _STYLES[tag]
        if tag in ("td", "th") and self._head:
            style += _HEAD_CELL
        style += _kept(self._styles.get(given.get("id", ""), "")) + _kept(given.get("style", ""))
        names = _CLASSES.get(tag, "")
        if tag in ("td", "th") and self._head:
            names += " rj-muted"
        kept = [f' class="{names}"'] if names else []
        if tag == "table":
            kept += [' cellpadding="0"', ' cellspacing="0"', ' border="0"']
        for name in ("colspan", "rowspan", "start"):
            if _NUMBER.match(given.get(name, "")):
                kept.append(f' {name}="{given[name]}"')
        if tag == "a" and "href" in given:
            kept.append(f' href="{escape(given["href"])}"')
        if tag == "img":
            address = self._address(given.get("src", ""))
            if address is None:
                return None
            kept.append(f' src="{address}" alt="{escape(given.get("alt") or "Figure")}"')
        if style:
            kept.append(f' style="{escape(style)}"')
        return "".join(kept)

    def _address(self, source: str) -> str | None:
        match = _PICTURE.match(source)
        if match is None:
            return None
        try:
            content = base64.b64decode(match[2])
        except (binascii.Error, ValueError):
            return None
        return self._picture(match[1].lower(), content)


def _kept(declarations: str) -> str:
    parts = (one.partition(":") for one in declarations.split(";"))
    return "".join(
        f"{name.strip()}:{value.strip()};"
        for name, _, value in parts
        if name.strip().lower() in _KEPT_STYLE and value.strip()
    )
