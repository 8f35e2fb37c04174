"""Markdown and mathematics as HTML that is safe in a page."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from html import escape, unescape
from typing import TYPE_CHECKING, Any, Protocol, cast

from research_jobs.report.sanitize import clean_html, clean_mathml

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

__all__ = [
    "FORMULA_LIMIT",
    "MARKDOWN_LIMIT",
    "Heading",
    "Prose",
    "latex_to_html",
    "render_markdown",
]

MARKDOWN_LIMIT = 50_000
"""Longer Markdown is shown as its text (characters): the parser takes up to 60 µs for each."""

FORMULA_LIMIT = 4000
"""A longer formula is shown as its source."""

# Above so many environments in one text they stay text: the plugin looks for each one's end.
MOST_ENVIRONMENTS = 100

# As nh3 writes a heading: every value in double quotes, and none of these in a value.
_HEADING = re.compile(r"""<h([1-6])(?: [\w-]+="[^"]*+")*+>(.*?)</h\1>""", re.DOTALL)
_TAG = re.compile(r"""<[^>]*+>""")
_LATEX = re.compile(
    r"\\(?:[(\[]|begin\{((?:(?:fl)?align|alignat|equation|gather|multline|eqnarray|cases)\*?)\})"
)
_TASK = re.compile(r"(<li>\s*+(?:<p>)?)\[([ xX])\] ")

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


class Formula(Protocol):
    """Makes safe HTML of a formula."""

    def __call__(self, tex: str, *, display: bool) -> str: ...


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
        Safe in a page.
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
    math: Formula | None = None,
) -> Prose:
    r"""Markdown as a page shows it.

    Parameters
    ----------
    source : str
        Untrusted. ``$...$``, ``$$...$$``, ``\(...\)``, ``\[...\]`` and LaTeX's display
        environments are mathematics.
    anchor : str
        What the ids of headings begin with.
    scope, picture
        As for `clean_html`.
    math : callable, optional
        Makes HTML of a formula; by default MathML.

    Returns
    -------
    Prose
        Where the Markdown is very long, or its markup could take a parser long, its text.
    """
    if len(source) > MARKDOWN_LIMIT:
        return _as_text(source)
    # Replaces a formula while the markup around it is cleaned. Nobody can guess it.
    secret = f"m{secrets.token_hex(12)}m"
    formulas: list[tuple[str, bool]] = []
    parser = _markdown(environments=source.count("\\begin{") <= MOST_ENVIRONMENTS)
    html = parser.render(source, {"secret": secret, "formulas": formulas})
    cleaned = clean_html(html, scope=scope, picture=picture, secret=secret)
    if cleaned.too_much:
        return _as_text(source)
    headings: list[Heading] = []

    def number(match: re.Match[str]) -> str:
        level, inner = int(match[1]), match[2]
        name = f"{anchor}-{len(headings) + 1}"
        text = place.sub(lambda mark: formulas[int(mark[1])][0], unescape(_TAG.sub("", inner)))
        headings.append(Heading(level, text, name))
        return f'<h{level} id="{name}">{inner}</h{level}>'

    place = re.compile(rf"{secret}(\d+);")
    body = _TASK.sub(lambda match: f"{match[1]}{'☐' if match[2] == ' ' else '☑'} ", cleaned.html)
    body = _HEADING.sub(number, body)
    body = place.sub(lambda mark: _formula(formulas[int(mark[1])], math), body)
    style = f"<style>{cleaned.style}</style>" if cleaned.style else ""
    return Prose(style + body, tuple(headings))


def _as_text(source: str) -> Prose:
    return Prose(f'<pre class="rj-raw">{escape(source, quote=False)}</pre>', ())


def _formula(formula: tuple[str, bool], math: Formula | None) -> str:
    tex, display = formula
    return (math or latex_to_html)(tex, display=display)


@lru_cache(maxsize=2)
def _markdown(*, environments: bool) -> MarkdownIt:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.amsmath import amsmath_plugin
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    options: dict[str, Any] = {"html": True, "linkify": False, "typographer": False}
    parser = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
    parser.use(dollarmath_plugin, allow_space=False, allow_digits=False, double_inline=True)
    if environments:
        parser.use(amsmath_plugin)
    parser.inline.ruler.before("escape", "latex_math", _latex_math)
    rules = cast("Any", parser.renderer).rules
    for name in ("math_inline", "math_inline_double", "math_block", "math_block_label", "amsmath"):
        rules[name] = partial(_put_aside, display=name != "math_inline")
    return parser


def _latex_math(state: Any, silent: bool) -> bool:
    r"""``\\(...\\)``, ``\\[...\\]`` and environments in a line, which CommonMark reads as text."""
    start = state.pos
    opening = _LATEX.match(state.src, start)
    if opening is None:
        return False
    name = opening[1]
    closing = f"\\end{{{name}}}" if name else {"(": "\\)", "[": "\\]"}[opening[0][1]]
    end = state.src.find(closing, opening.end())
    if end < 0:
        return False
    if not silent:
        inline = opening[0] == "\\("
        token = state.push("math_inline" if inline else "math_inline_double", "math", 0)
        token.content = (
            state.src[start : end + len(closing)] if name else state.src[start + 2 : end]
        )
    state.pos = end + len(closing)
    return True


def _put_aside(tokens: Any, index: int, _options: Any, environment: Any, *, display: bool) -> str:
    """A renderer's rule: the formula is kept, and its place is marked."""
    environment["formulas"].append((tokens[index].content, display))
    mark = f"{environment['secret']}{len(environment['formulas']) - 1};"
    return f"<p>{mark}</p>\n" if tokens[index].block else mark


def latex_to_html(tex: str, *, display: bool) -> str:
    """A formula as MathML; as its source where it cannot be converted."""
    tex = tex.strip()
    if len(tex) > FORMULA_LIMIT:
        return f'<code class="rj-tex">{escape(tex, quote=False)}</code>'
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
    return f'<span class="rj-display" tabindex="0">{markup}</span>' if display else markup


def _mathml(tex: str, display: bool) -> str | None:
    try:
        from latex2mathml.converter import convert_to_element

        root = convert_to_element(tex, display="block" if display else "inline")
        markup = clean_mathml(root)
    except Exception:  # noqa: BLE001 - its source is legible, whatever is wrong with it
        return None
    # What it does not know comes out as text that begins with a backslash, or with its columns.
    unknown = re.search(r">\\[A-Za-z]", markup) or (
        re.search(r">&(?:amp;)?<", markup) and "\\&" not in tex
    )
    return None if unknown else markup
