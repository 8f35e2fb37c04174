"""Python source in colours: one pass of one expression, no import of a highlighter."""

from __future__ import annotations

import builtins
import keyword
import re
from html import escape

__all__ = ["highlight_python"]

_TOKEN = re.compile(
    r"(?P<c>\#[^\n]*)"
    r"|(?P<s>(?i:\b(?:rb|br|rf|fr|rt|tr|[rbuft]))?(?:"
    r'"""(?:[^"\\]|\\.|"(?!""))*(?:"""|\Z)'
    r"|'''(?:[^'\\]|\\.|'(?!''))*(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'(?:[^'\\\n]|\\.)*'?))"
    r"|(?P<d>^[ \t]*@[\w.]+)"
    r"|(?P<n>\b(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.[\d_]*)?(?:[eE][+-]?\d+)?[jJ]?)|\.\d[\d_]*)"
    r"|(?P<k>^[ \t]*+(?:match|case)\b(?=[^\n]*:[ \t]*$))"
    r"|(?P<def>\b(?:def|class)[ \t]+)(?P<name>\w+)"
    r"|(?P<w>\b[A-Za-z_]\w*)",
    re.DOTALL | re.MULTILINE,
)
_KEYWORDS = frozenset(keyword.kwlist)
_CONSTANTS = frozenset({"True", "False", "None", "self", "cls"})
_BUILTINS = frozenset(name for name in dir(builtins) if not name.startswith("_")) | {"display"}


def highlight_python(source: str) -> str:
    """Escaped source with ``span`` elements (classes ``h-...`` of the page)."""
    out: list[str] = []
    position = 0
    for match in _TOKEN.finditer(source):
        kind = match.lastgroup
        text = match.group()
        if kind == "name":
            out.append(escape(source[position : match.start()], quote=False))
            out.append(f'<span class="h-k">{match["def"]}</span>')
            out.append(f'<span class="h-f">{match["name"]}</span>')
            position = match.end()
            continue
        if kind == "w":
            kind = _word(text, source, match)
            if kind is None:
                continue
        out.append(escape(source[position : match.start()], quote=False))
        out.append(f'<span class="h-{kind}">{escape(text, quote=False)}</span>')
        position = match.end()
    out.append(escape(source[position:], quote=False))
    return "".join(out)


def _word(text: str, source: str, match: re.Match[str]) -> str | None:
    after_dot = match.start() > 0 and source[match.start() - 1] == "."
    if after_dot:
        return None
    if text in _CONSTANTS:
        return "o"
    return "k" if text in _KEYWORDS else "b" if text in _BUILTINS else None
