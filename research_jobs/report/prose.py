"""Markdown and mathematics as HTML that can stand in a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from html import escape, unescape
from typing import TYPE_CHECKING, Any

from research_jobs.report.sanitize import clean_html, clean_mathml

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = ["Heading", "Prose", "latex_to_html", "render_markdown"]

# Stand in for formulas while the markup around them is cleaned. Private use: no text has them.
_OPEN, _CLOSE = "\ue000", "\ue001"
_PLACE = re.compile(f"{_OPEN}([id])(\\d+){_CLOSE}")
_FORMULA = re.compile(
    r"(?P<fence>^```.*?^```[^\n]*$|^~~~.*?^~~~[^\n]*$)"
    r"|(?P<code>(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<escaped>\\\$)"
    r"|\$\$(?P<block>.+?)\$\$"
    r"|\\\[(?P<bracket>.+?)\\\]"
    r"|\\\((?P<paren>.+?)\\\)"
    r"|(?P<env>\\begin\{(?P<name>(?:(?:fl)?align|alignat|equation|gather|multline|eqnarray|cases)\*?)\}.+?"
    r"\\end\{(?P=name)\})"
    r"|(?<![\w$])\$(?!\s)(?P<inline>(?:[^$\\\n]|\\.|\n(?!\n))+?)(?<!\s)\$(?![\w$])",
    re.DOTALL | re.MULTILINE,
)

_ALIGN = (r"\begin{align*}", r"\end{align*}")
_ROWS = (r"\begin{matrix}", r"\end{matrix}")
# The converter knows few environments: these look the same as ones that it does know.
_ENVIRONMENTS = {
    **dict.fromkeys(("aligned", "alignat", "alignedat", "flalign", "eqnarray"), _ALIGN),
    **dict.fromkeys(("gather", "gathered", "multline"), _ROWS),
    "dcases": (r"\begin{cases}", r"\end{cases}"),
    "rcases": (r"\left.\begin{array}{ll}", r"\end{array}\right\}"),
}
_ENVIRONMENT = re.compile(
    rf"\\(?:begin|end)\{{({'|'.join(sorted(_ENVIRONMENTS, key=len, reverse=True))})\*?\}}"
    r"(?:(?<=at\})\{\d+\}|(?<=at\*\})\{\d+\}|(?<=ed\})\[[tbc]\])?"
)


@dataclass(frozen=True)
class Heading:
    """A heading, for the table of contents."""

    level: int
    text: str
    anchor: str


@dataclass(frozen=True)
class Prose:
    """Rendered Markdown.

    Parameters
    ----------
    html : str
        Safe to stand in a page.
    headings : tuple of Heading
    """

    html: str
    headings: tuple[Heading, ...]


def render_markdown(
    source: str,
    *,
    anchor: str,
    scope: str | None = None,
    picture: Callable[[str], str | None] | None = None,
) -> Prose:
    r"""Markdown as HTML.

    Parameters
    ----------
    source : str
        Untrusted. ``$...$``, ``$$...$$``, ``\(...\)``, ``\[...\]`` and LaTeX's display
        environments are mathematics.
    anchor : str
        What the ids of headings begin with.
    scope, picture
        As for `clean_html`.

    Returns
    -------
    Prose
    """
    formulas: list[str] = []

    def hide(match: re.Match[str]) -> str:
        if match["fence"] or match["code"] or match["escaped"]:
            return match.group()
        display = match["block"] or match["bracket"] or match["env"]
        tex = display or match["paren"] or match["inline"]
        formulas.append(tex)
        return f"{_OPEN}{'d' if display else 'i'}{len(formulas) - 1}{_CLOSE}"

    source = source.replace(_OPEN, "").replace(_CLOSE, "")
    if "$" in source or "\\" in source:
        source = _FORMULA.sub(hide, source)
    cleaned = clean_html(_markdown().render(source), scope=scope, picture=picture)

    def show(match: re.Match[str]) -> str:
        return latex_to_html(formulas[int(match[2])], display=match[1] == "d")

    headings: list[Heading] = []

    def number(match: re.Match[str]) -> str:
        level, inner = int(match[1]), match[2]
        name = f"{anchor}-{len(headings) + 1}"
        text = unescape(re.sub(r"<[^>]*>", "", inner))
        text = _PLACE.sub(lambda place: formulas[int(place[2])], text)
        headings.append(Heading(level, text, name))
        return f'<h{level} id="{name}">{inner}</h{level}>'

    html = re.sub(
        r"(<li>\s*(?:<p>)?)\[([ xX])\] ",
        lambda match: f"{match[1]}{'☐' if match[2] == ' ' else '☑'} ",
        cleaned.html,
    )
    html = re.sub(r"<h([1-6])[^>]*>(.*?)</h\1>", number, html, flags=re.DOTALL)
    return Prose(_PLACE.sub(show, html), tuple(headings))


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # 35 ms to import: only a notebook with prose pays for it.
    from markdown_it import MarkdownIt

    options: dict[str, Any] = {"html": True, "linkify": False, "typographer": False}
    return MarkdownIt("commonmark", options).enable(["table", "strikethrough"])


def latex_to_html(tex: str, *, display: bool) -> str:
    """A formula as MathML; as its source where it cannot be converted."""
    tex = tex.strip()
    shown = re.fullmatch(r"(\$\$?)(.*)\1", tex, re.DOTALL)
    if shown:
        display = display or shown[1] == "$$"
        tex = shown[2].strip()
    tex = re.sub(r"\\(?:begin|end)\{equation\*?\}", "", tex)
    tex = _ENVIRONMENT.sub(lambda match: _ENVIRONMENTS[match[1]][match[0][1] == "e"], tex)
    tex = re.sub(r"\\label\{[^}]*\}|\\(?:nonumber|notag)\b", "", tex)
    markup = _mathml(tex, display)
    if markup is None:
        kind = "rj-tex rj-display" if display else "rj-tex"
        return f'<code class="{kind}">{escape(tex, quote=False)}</code>'
    return f'<span class="rj-display">{markup}</span>' if display else markup


def _mathml(tex: str, display: bool) -> str | None:
    try:
        from latex2mathml.converter import convert
    except ImportError:
        return None
    try:
        markup = clean_mathml(convert(tex, display="block" if display else "inline"))
    except Exception:  # noqa: BLE001 - its source is legible, whatever is wrong with it
        return None
    # What it does not know comes out as text that begins with a backslash, or with its columns.
    unknown = re.search(r">\\[A-Za-z]", markup) or (
        re.search(r">&(?:amp;)?<", markup) and "\\&" not in tex
    )
    return None if unknown else markup
