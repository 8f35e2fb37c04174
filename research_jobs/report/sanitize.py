"""Markup from notebooks, made harmless: what is not known to be safe is not let through.

A whole document is never judged. Markup is taken apart, and only elements, attributes and style
properties from short lists are written again, escaped, balanced and with every name prefixed.
Markup that needs more than that (scripts, forms, drawings) is not cut down to nonsense: `Cleaned`
says so, and the page shows it in a sandboxed frame instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser

__all__ = ["Cleaned", "clean_html", "clean_mathml", "scoped_css"]

PREFIX = "u-"


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
_VOID = _words(
    """
    br col hr img wbr
    """
)
# Gone with their tags, and nothing is lost: what they hold is kept.
_TRANSPARENT = _words(
    """
    article aside body footer header html label main nav
    """
)
# Gone with what is in them.
_SILENT = _words(
    """
    head meta noscript title
    """
)
_ATTRIBUTES = _words(
    """
    align alt border class colspan color datetime dir headers height id lang open reversed
    rowspan scope span start title type valign value width
    """
)
_PROPERTIES = _words(
    """
    align-items background background-color border border-bottom border-bottom-color
    border-bottom-style border-bottom-width border-collapse border-color border-left
    border-left-color border-left-style border-left-width border-radius border-right
    border-right-color border-right-style border-right-width border-spacing border-style
    border-top border-top-color border-top-style border-top-width border-width caption-side
    color column-gap display flex flex-direction flex-wrap float font font-family font-size
    font-style font-variant font-variant-numeric font-weight gap height justify-content
    letter-spacing line-height list-style list-style-type margin margin-bottom margin-left
    margin-right margin-top max-height max-width min-height min-width opacity overflow
    overflow-wrap overflow-x overflow-y padding padding-bottom padding-left padding-right
    padding-top row-gap text-align text-decoration text-decoration-color
    text-decoration-line text-indent text-overflow text-transform vertical-align white-space
    width word-break word-wrap
    """
)
_DISPLAYS = _words(
    """
    block inline inline-block flex inline-flex table table-cell table-row none grid
    """
)
# No address, no escape, nothing that ends the attribute or the style element.
_BAD_VALUE = re.compile(
    r"[\\<>{}@;]|/\*|url|image|expression|behaviou?r|binding|var\(|env\(|attr\(|fixed|sticky",
    re.IGNORECASE,
)
_LINK = re.compile(r"(?:https?://|mailto:)[^\s\x00-\x1f]+\Z", re.IGNORECASE)
_IMAGE = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp|bmp|svg\+xml)(?:;charset=[\w-]+)?;base64,[\w+/=\s]*\Z",
    re.IGNORECASE,
)
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
    voffset width xmlns
    """
)


@dataclass(frozen=True)
class Cleaned:
    """Markup that can stand in a page.

    Parameters
    ----------
    html : str
        Balanced, with nothing active in it.
    complete : bool
        False when something that matters was left out: show the original in a sandboxed frame.
    remote : int
        Pictures that would have been fetched over the network, and were left out.
    """

    html: str
    complete: bool
    remote: int = 0


def clean_html(
    markup: str,
    *,
    scope: str | None = None,
    picture: Callable[[str], str | None] | None = None,
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

    Returns
    -------
    Cleaned
    """
    cleaner = _Cleaner(scope, picture)
    cleaner.feed(markup)
    cleaner.close()
    return Cleaned(cleaner.result(), cleaner.complete, cleaner.remote)


class _Cleaner(HTMLParser):
    def __init__(self, scope: str | None, picture: Callable[[str], str | None] | None) -> None:
        super().__init__(convert_charrefs=True)
        self.complete = True
        self.remote = 0
        self._scope = scope
        self._picture = picture
        self._out: list[str] = []
        self._open: list[str] = []
        self._skipping: list[str] = []
        self._style: list[str] | None = None

    def result(self) -> str:
        while self._open:
            self._out.append(f"</{self._open.pop()}>")
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.append(tag)
            return
        if tag == "style":
            self._style = []
            return
        if tag in _TRANSPARENT:
            return
        if tag not in _ELEMENTS:
            if tag not in _SILENT:
                self.complete = False
            if tag not in ("meta", "link", "input", "base", "embed", "source", "track", "param"):
                self._skipping.append(tag)
            return
        written = self._attributes(tag, attrs)
        if tag == "img" and " src=" not in written:
            self._out.append(f"[{escape(dict(attrs).get('alt') or 'picture')}]")
            return
        self._out.append(f"<{tag}{written}>")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # HTML knows no <div/>: a browser reads it as <div>.
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._skipping:
            if tag == self._skipping[-1]:
                self._skipping.pop()
            return
        if tag == "style" and self._style is not None:
            if self._scope is not None:
                css = scoped_css("".join(self._style), self._scope)
                if css:
                    self._out.append(f"<style>{css}</style>")
            self._style = None
            return
        if tag in self._open:
            while True:
                closed = self._open.pop()
                self._out.append(f"</{closed}>")
                if closed == tag:
                    break

    def handle_data(self, data: str) -> None:
        if self._style is not None:
            self._style.append(data)
        elif not self._skipping:
            self._out.append(escape(data, quote=False))

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> str:
        kept: list[str] = []
        for name, value in attrs:
            if name.startswith("on"):
                # A handler says that the author wanted it to act.
                self.complete = False
            safe = self._attribute(tag, name, value or "")
            if safe is not None:
                kept.append(f' {name}="{escape(safe)}"')
                if name == "href":
                    kept.append(' rel="noopener noreferrer" target="_blank"')
        return "".join(kept)

    def _attribute(self, tag: str, name: str, value: str) -> str | None:
        if name == "style":
            return _declarations(value) or None
        if name == "href" and tag == "a":
            return value.strip() if _LINK.match(value.strip()) else None
        if name == "src" and tag == "img":
            return self._source(value)
        if name not in _ATTRIBUTES:
            return None
        if name in ("id", "headers"):
            return " ".join(PREFIX + word for word in value.split()) or None
        if name == "class":
            return " ".join(PREFIX + word for word in value.split()) or None
        return value

    def _source(self, value: str) -> str | None:
        if _IMAGE.match(value):
            return value
        found = self._picture(value) if self._picture is not None else None
        if found is None:
            self.remote += 1
        return found


def _declarations(text: str) -> str:
    """The style declarations that are harmless."""
    kept: list[str] = []
    for part in text.split(";"):
        name, _, value = part.partition(":")
        name, value = name.strip().lower(), value.strip()
        bare = re.sub(r"\s*!important\s*$", "", value)
        if name not in _PROPERTIES or not bare or _BAD_VALUE.search(bare):
            continue
        if name == "display" and bare.lower() not in _DISPLAYS:
            continue
        kept.append(f"{name}: {value}")
    return "; ".join(kept)


_SELECTOR = re.compile(r"[\w\s.#:>+~*,()\-=\[\]\"']+\Z")
_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_NAME = re.compile(r"([.#])(?=[A-Za-z_-])")


def scoped_css(css: str, scope: str) -> str:
    """A style sheet confined to one part of the page.

    Parameters
    ----------
    css : str
        Untrusted. At-rules are dropped.
    scope : str
        A selector; every rule applies below it only.

    Returns
    -------
    str
        Classes and ids prefixed as `clean_html` prefixes them in the markup.
    """
    rules: list[str] = []
    for rule in _COMMENT.sub("", css).split("}"):
        selectors, brace, body = rule.partition("{")
        if not brace or "{" in body or "@" in selectors or not _SELECTOR.match(selectors):
            continue
        declarations = _declarations(body)
        if declarations:
            named = _NAME.sub(rf"\g<1>{PREFIX}", selectors)
            inside = ", ".join(
                f"{scope} {part.strip()}" for part in named.split(",") if part.strip()
            )
            rules.append(f"{inside} {{ {declarations} }}")
    return "\n".join(rules)


def clean_mathml(markup: str) -> str:
    """MathML with nothing but MathML in it."""
    cleaner = _MathCleaner()
    cleaner.feed(markup)
    cleaner.close()
    return cleaner.result()


class _MathCleaner(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._out: list[str] = []
        self._open: list[str] = []

    def result(self) -> str:
        while self._open:
            self._out.append(f"</{self._open.pop()}>")
        return "".join(self._out)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _MATHML:
            return
        kept = "".join(
            f' {name}="{escape(value or "")}"'
            for name, value in attrs
            if name in _MATHML_ATTRIBUTES and not _BAD_VALUE.search(value or "")
        )
        self._out.append(f"<{tag}{kept}>")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while True:
                closed = self._open.pop()
                self._out.append(f"</{closed}>")
                if closed == tag:
                    break

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        self._out.append(escape(data, quote=False))
