"""One linear pass over markup: what is in it, before anything parses it.

A parser of HTML mends what it reads, and what that costs can grow with the square of the text:
elements nested deep, formatting that is opened again in each paragraph, content that a table
moves in front of itself. `look_at` reads tags as a browser's tokenizer does, each character once,
and says whether a parser may have the markup.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Markup", "look_at"]

DEEPEST = 256
MOST_FORMATS = 16
MOST_ATTRIBUTES = 64
MOST_REFERENCES = 20_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VOID = _words("area base br col embed hr img input link meta param source track wbr")
# Opened again by a parser wherever they were left open.
_FORMATS = _words("a b big code em font i nobr s small strike strong tt u")
_RAW = _words("script style textarea title xmp iframe noembed noframes plaintext")
_FOREIGN = frozenset({"svg", "math"})
_TABLE = _words("table tbody thead tfoot tr colgroup")
_IN_TABLE = _TABLE | _words("td th caption col style script template form input")
_CELLS = frozenset({"td", "th", "caption"})

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*+)")
_ATTRIBUTE = re.compile(
    r"""[\s/]*+(=?+[^\s/>=]++|=)"""
    r"""(?:\s*+=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z)|[^\s"'>][^\s>]*+|(?=>)|\Z))?+"""
)
_BETWEEN = re.compile(r"[\s/]*+")
_COMMENT_END = re.compile(r"--!?>")


@dataclass
class Markup:
    """What a pass over markup saw.

    Parameters
    ----------
    tags : set of str
        Names of the elements, in lower case.
    styles : list of str
        The contents of ``style`` elements.
    acts : bool
        An attribute handles an event.
    too_much : bool
        A parser could take long over it.
    """

    tags: set[str] = field(default_factory=set[str])
    styles: list[str] = field(default_factory=list[str])
    acts: bool = False
    too_much: bool = False


def look_at(text: str) -> Markup:
    """Read markup once.

    Parameters
    ----------
    text : str
        Untrusted.

    Returns
    -------
    Markup
        The pass ends early once it is too much.
    """
    seen = Markup(too_much=text.count("&") > MOST_REFERENCES)
    stack = _Open()
    place = 0
    while not seen.too_much:
        start = text.find("<", place)
        stop = start if start >= 0 else len(text)
        if stack.moves_text and text[place:stop].strip():
            seen.too_much = True
        if start < 0:
            break
        tag = _TAG.match(text, start)
        if tag is None:
            place = _after_other(text, start, seen)
            continue
        name = tag[2].lower()
        place = _after_tag(text, tag.end(), seen)
        if tag[1]:
            stack.close(name)
            continue
        seen.tags.add(name)
        seen.too_much = seen.too_much or not stack.open(name)
        if name in _RAW:
            stack.close(name)
            place = _after_raw(text, place, name, seen)
    return seen


def _after_other(text: str, start: int, seen: Markup) -> int:
    """The place behind a ``<`` that begins no tag: a comment, a declaration, or just text."""
    if text.startswith(("<!-->", "<!--->"), start):
        return text.index(">", start) + 1
    if text.startswith("<!--", start):
        end = _COMMENT_END.search(text, start + 4)
        return end.end() if end is not None else len(text)
    if text.startswith(("<!", "<?", "</"), start):
        if seen.tags & _FOREIGN:
            seen.too_much = True  # there a CDATA section is text, and reads otherwise
        end = text.find(">", start)
        return end + 1 if end >= 0 else len(text)
    return start + 1


def _after_tag(text: str, place: int, seen: Markup) -> int:
    """The place behind a tag's attributes and its ``>``."""
    count = 0
    while (attribute := _ATTRIBUTE.match(text, place)) is not None:
        place = attribute.end()
        count += 1
        if attribute[1][:2].lower() == "on":
            seen.acts = True
        if count > MOST_ATTRIBUTES:
            seen.too_much = True
            break
    between = _BETWEEN.match(text, place)
    return min(len(text), (between.end() if between is not None else place) + 1)


def _after_raw(text: str, place: int, name: str, seen: Markup) -> int:
    """The place behind an element whose content is text and not markup."""
    end = re.compile(rf"</{name}(?=[\s/>])", re.IGNORECASE).search(text, place)
    stop = end.start() if end is not None and name != "plaintext" else len(text)
    if name == "style":
        seen.styles.append(text[place:stop])
    # Both are read by other rules, and what comes next may be inside still.
    if seen.tags & _FOREIGN or (name == "script" and text.find("<!--", place, stop) >= 0):
        seen.too_much = True
    return stop


class _Open:
    """The elements that are open, as far as their number matters."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.formats = 0

    @property
    def moves_text(self) -> bool:
        """bool: whether a parser would move text from here to the front of a table."""
        return bool(self.names) and self.names[-1] in _TABLE

    def open(self, name: str) -> bool:
        """Open an element; False when a parser could take long over it."""
        if self.moves_text and name not in _IN_TABLE:
            return False
        if name in VOID:
            return True
        if name in _TABLE | _CELLS:
            self._close_cells(name)
        self.names.append(name)
        self.formats += name in _FORMATS
        return len(self.names) <= DEEPEST and self.formats <= MOST_FORMATS

    def close(self, name: str) -> None:
        """Close an element, if it is open, with everything in it."""
        for index in range(len(self.names) - 1, -1, -1):
            if self.names[index] == name:
                for gone in self.names[index:]:
                    self.formats -= gone in _FORMATS
                del self.names[index:]
                return

    def _close_cells(self, name: str) -> None:
        """Rows and cells without end tags close the ones before them."""
        closes = {
            "tr": ("tr", "td", "th"),
            "td": ("td", "th"),
            "th": ("td", "th"),
            "tbody": ("tbody", "thead", "tfoot", "tr", "td", "th"),
            "thead": ("tr", "td", "th"),
            "tfoot": ("tbody", "thead", "tr", "td", "th"),
        }.get(name, ())
        while self.names and self.names[-1] in closes:
            self.names.pop()
