"""Markup from notebooks, made harmless: what is not known to be safe is not let through.

nh3 parses the markup as a browser does and writes again only what is on short lists. A linear pass
looks at it first (`research_jobs.report.markup`). Markup that needs more than the lists have
(scripts, forms, drawings), or that a parser could take long over, is not cut down to nonsense:
`Cleaned` says so, and the page shows it in a sandboxed frame instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape, unescape
from typing import TYPE_CHECKING

import nh3

from research_jobs.report.css import CSS_LIMIT, PREFIX, harmless_declarations, scoped_css
from research_jobs.report.limits import uninterrupted
from research_jobs.report.markup import Markup, look_at

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["Cleaned", "clean_html", "clean_mathml"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTS = _words(
    """
    a abbr b blockquote br caption center cite code col colgroup dd del details dfn div dl
    dt em figcaption figure font h1 h2 h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s
    samp section small span strike strong sub summary sup table tbody td tfoot th thead time
    tr tt u ul var wbr
    """
)
# Their tags go, and nothing is lost: what they hold is kept, or says nothing to a reader.
_TRANSPARENT = _words("article aside body footer head header html label main meta nav style title")
_WITH_CONTENT = _words(
    """
    applet audio canvas embed frameset iframe math noembed noframes noscript object plaintext
    script select style svg template textarea title video xmp
    """
)
_ATTRIBUTES = _words(
    """
    align alt border class colspan color datetime dir headers height id lang open reversed
    rowspan scope span start style title type valign value width
    """
)
_NAMES = frozenset({"class", "id", "headers"})
_LINK = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f]+\Z", re.IGNORECASE)
_IMAGE = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp|bmp|svg\+xml)(?:;charset=[\w-]+)?;base64,[\w+/=\s]*\Z",
    re.IGNORECASE,
)
# Whoever hears the page would be told the picture's address.
_WITHOUT_WORDS = re.compile(r"<img(?![^<>]*\salt=)")
_ALLOWED = {name: set(_ATTRIBUTES) for name in _ELEMENTS}
_ALLOWED["a"].add("href")
_ALLOWED["img"].add("src")

_MATHML = _words(
    """
    maction math menclose mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom
    mprescripts mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr
    munder munderover none
    """
)
_MATHML_ATTRIBUTES = _words(
    """
    accent accentunder align bevelled close columnalign columnlines columnspacing columnspan
    depth display displaystyle fence form frame height largeop linethickness lspace
    mathcolor mathsize mathvariant maxsize minsize movablelimits notation open rowalign
    rowlines rowspacing rowspan rspace scriptlevel separator separators stretchy symmetric
    voffset width
    """
)
# A length, a number, a colour, words; an operator for what encloses and separates.
_MATHML_VALUE = re.compile(r"[\w#.%+ -]{0,100}|[^\w\s<>&\"'\\]{1,8}")


@dataclass(frozen=True)
class Cleaned:
    """Markup that is safe in a page.

    Parameters
    ----------
    html : str
        Balanced, with nothing active in it.
    complete : bool
        False when something that matters was left out: show the original in a sandboxed frame.
    remote : int
        Pictures that would have been fetched over the network, and were left out.
    style : str
        The output's own style, confined to it: belongs in front of `html`.
    too_much : bool
        A parser could take long over it, so `html` is empty.
    """

    html: str
    complete: bool
    remote: int = 0
    style: str = ""
    too_much: bool = False

    @property
    def styled(self) -> str:
        """str: the markup with its style."""
        return f"<style>{self.style}</style>{self.html}" if self.style else self.html


@dataclass
class _Attributes:
    """Judges attributes that are on the lists by their values."""

    picture: Callable[[str], str | None] | None
    secret: str | None
    remote: int = 0
    css: int = 0
    error: BaseException | None = None

    def __call__(self, tag: str, name: str, value: str) -> str | None:
        try:
            return self._judge(tag, name, value)
        except BaseException as error:  # noqa: BLE001 - raised once nh3 has returned
            self.error = error
            return None

    def _judge(self, tag: str, name: str, value: str) -> str | None:
        if self.secret is not None and self.secret in value:
            return None
        if name == "style":
            self.css += len(value)
            return harmless_declarations(value) or None if self.css <= CSS_LIMIT else None
        if name in _NAMES:
            return " ".join(PREFIX + word for word in value.split()) or None
        if name == "href":
            return value.strip() if tag == "a" and _LINK.match(value.strip()) else None
        return self._source(value) if name == "src" else value

    def _source(self, value: str) -> str | None:
        if _IMAGE.match(value):
            return value
        address = self.picture(value) if self.picture is not None else None
        self.remote += address is None
        return address


def clean_html(
    markup: str,
    *,
    scope: str | None = None,
    picture: Callable[[str], str | None] | None = None,
    secret: str | None = None,
) -> Cleaned:
    """Markup without anything active.

    Parameters
    ----------
    markup : str
        Untrusted.
    scope : str, optional
        The selector that style sheets in the markup are confined to. Without one they are dropped.
    picture : callable, optional
        Gives a ``data:`` address for a picture's relative path, or None.
    secret : str, optional
        A text that marks places in the markup: no attribute with it is kept.

    Returns
    -------
    Cleaned
    """
    seen = look_at(markup)
    if seen.too_much:
        return Cleaned("", complete=False, too_much=True)
    judge = _Attributes(picture, secret)
    # nh3 swallows what its judge raises, so nothing may be raised there.
    with uninterrupted():
        html = nh3.clean(
            markup,
            tags=set(_ELEMENTS),
            clean_content_tags=set(_WITH_CONTENT),
            attributes=_ALLOWED,
            attribute_filter=judge,
            set_tag_attribute_values={"a": {"target": "_blank"}},
            url_schemes={"http", "https", "mailto", "data"},
            link_rel="noopener noreferrer",
        )
    if judge.error is not None:
        raise judge.error
    html = _WITHOUT_WORDS.sub('<img alt=""', html)
    css = "\n".join(seen.styles)
    fits = len(css) + judge.css <= CSS_LIMIT
    style = scoped_css(css, scope) if scope is not None and fits else ""
    complete = fits and not seen.acts and not _unavailable(seen)
    return Cleaned(html, complete, judge.remote, style)


def _unavailable(seen: Markup) -> frozenset[str]:
    """Elements that are not shown and whose absence matters."""
    return frozenset(seen.tags) - _ELEMENTS - _TRANSPARENT


def clean_mathml(root: Element) -> str:
    """MathML with nothing but MathML in it.

    Parameters
    ----------
    root : Element
        As latex2mathml makes it, of untrusted LaTeX.

    Returns
    -------
    str
        Of an element that is not MathML, what is in it is kept.
    """
    out: list[str] = []
    # Not recursive: however deep it nests, it is written.
    left: list[Element | str] = [root]
    while left:
        item = left.pop()
        if isinstance(item, str):
            out.append(item)
            continue
        tag = item.tag.rpartition("}")[2]
        after: list[Element | str] = [_mathml_text(item.text)]
        if tag in _MATHML:
            out.append(f"<{tag}{''.join(_mathml_attributes(item))}>")
        for child in item:
            after += [child, _mathml_text(child.tail)]
        if tag in _MATHML:
            after.append(f"</{tag}>")
        left += reversed(after)
    return "".join(out)


def _mathml_text(text: str | None) -> str:
    # The converter writes signs as character references, which its own printer would resolve.
    return escape(unescape(text or ""), quote=False)


def _mathml_attributes(element: Element) -> list[str]:
    return [
        f' {name}="{escape(value)}"'
        for name, value in ((name, unescape(value)) for name, value in element.items())
        if name in _MATHML_ATTRIBUTES and _MATHML_VALUE.fullmatch(value)
    ]
