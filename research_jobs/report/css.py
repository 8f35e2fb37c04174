"""Style from notebooks, confined to the output that it came with.

tinycss2 takes a sheet apart. Only what is on short lists is written again: properties, functions
in their values, and selectors whose every part is plain. A rule's subject always lies below the
output's own element, so no rule reaches what is beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import tinycss2

__all__ = ["CSS_LIMIT", "PREFIX", "harmless_declarations", "scoped_css"]

PREFIX = "u-"

CSS_LIMIT = 100_000
"""How much style one output may have (characters): tinycss2 takes up to 10 µs for each."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PROPERTIES = _words(
    """
    align-items background background-color background-image background-position
    background-repeat background-size border border-bottom border-bottom-color
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
# These could draw over what is beside an output.
_NEVER_NEGATIVE = ("margin", "text-indent", "letter-spacing")
_DISPLAYS = _words(
    "block inline inline-block flex inline-flex table table-cell table-row none grid"
)
_FUNCTIONS = _words(
    """
    rgb rgba hsl hsla hwb lab lch oklab oklch calc min max clamp linear-gradient
    radial-gradient conic-gradient repeating-linear-gradient repeating-radial-gradient
    """
)
_VALUES = _words("ident number percentage dimension hash string whitespace")
_PSEUDO_CLASSES = _words(
    """
    active empty even first-child first-of-type focus hover last-child last-of-type link
    only-child only-of-type visited
    """
)
_COUNTED = _words("nth-child nth-last-child nth-of-type nth-last-of-type")
_COUNT = re.compile(r"\s*+(?:odd|even|[+-]?\d*+n?(?:\s*+[+-]\s*+\d++)?)\s*+", re.IGNORECASE)
_DEEPEST = 6


@lru_cache(maxsize=4096)
def harmless_declarations(text: str) -> str:
    """The style declarations that are harmless, for a ``style`` attribute.

    Parameters
    ----------
    text : str
        Untrusted.
    """
    if len(text) > CSS_LIMIT:
        return ""
    return _declarations(tinycss2.parse_blocks_contents(text))


def scoped_css(css: str, scope: str) -> str:
    """A style sheet confined to one part of the page.

    Parameters
    ----------
    css : str
        Untrusted. At-rules and nested rules are dropped. One longer than `CSS_LIMIT` is dropped.
    scope : str
        A selector; every rule applies below it only.

    Returns
    -------
    str
        Classes and ids are prefixed as `clean_html` prefixes them in the markup.
    """
    if len(css) > CSS_LIMIT:
        return ""
    return "\n".join(
        f"{', '.join(f'{scope} {selector}' for selector in selectors)} {{ {declarations} }}"
        for selectors, declarations in _rules(css)
    )


# Tables of one library have one sheet.
@lru_cache(maxsize=64)
def _rules(css: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """The rules that are harmless once they are confined: selectors and declarations."""
    rules: list[tuple[tuple[str, ...], str]] = []
    for rule in tinycss2.parse_stylesheet(css, skip_comments=True, skip_whitespace=True):
        if rule.type != "qualified-rule":
            continue
        selectors = _selectors(rule.prelude)
        declarations = _declarations(tinycss2.parse_blocks_contents(rule.content))
        if selectors and declarations:
            rules.append((selectors, declarations))
    return tuple(rules)


def _declarations(nodes: Sequence[Any]) -> str:
    kept: list[str] = []
    for node in nodes:
        if node.type != "declaration" or node.lower_name not in _PROPERTIES:
            continue
        value = _value(node.value, node.lower_name)
        if not value or (node.lower_name == "display" and value.lower() not in _DISPLAYS):
            continue
        important = " !important" if node.important else ""
        kept.append(f"{node.lower_name}: {value}{important}")
    return "; ".join(kept)


def _value(tokens: Sequence[Any], name: str, depth: int = 0) -> str | None:
    """A value written again; None where a part of it is not known to be harmless."""
    out: list[str] = []
    for token in tokens:
        if token.type == "comment":
            continue
        if token.type == "function":
            inner = _value(token.arguments, name, depth + 1) if depth < _DEEPEST else None
            if inner is None or token.lower_name not in _FUNCTIONS:
                return None
            out.append(f"{token.lower_name}({inner})")
            continue
        written = token.serialize()
        harmless = token.type in _VALUES or (token.type == "literal" and token.value in "+-*/,")
        if not harmless or any(sign in written for sign in "<>\\"):
            return None
        if name.startswith(_NEVER_NEGATIVE) and written.startswith("-"):
            return None
        if name.startswith(_NEVER_NEGATIVE) and depth:
            return None  # its value cannot be known
        out.append(written)
    return "".join(out).strip()


def _selectors(tokens: Sequence[Any]) -> tuple[str, ...]:
    """The selectors of a rule; none where one of them is not plain."""
    parts: list[list[Any]] = [[]]
    for token in tokens:
        if token.type == "literal" and token.value == ",":
            parts.append([])
        elif token.type != "comment":
            parts[-1].append(token)
    written = [_selector(part) for part in parts]
    return tuple(item for item in written if item is not None) if None not in written else ()


def _selector(tokens: list[Any]) -> str | None:
    """One selector that begins with an element, not with a combinator."""
    out: list[str] = []
    rest = iter(_stripped(tokens))
    for token in rest:
        combines = token.type == "literal" and token.value in ">+~"
        if combines and not out:
            return None
        if combines or token.type == "whitespace":
            out.append(f" {token.value} " if combines else " ")
            continue
        written = _simple(token, rest)
        if written is None or any(sign in written for sign in "<>\\"):
            return None
        out.append(written)
    return " ".join("".join(out).split()) if out and out[-1].strip() not in (*">+~",) else None


def _stripped(tokens: list[Any]) -> list[Any]:
    first, last = 0, len(tokens)
    while first < last and tokens[first].type == "whitespace":
        first += 1
    while last > first and tokens[last - 1].type == "whitespace":
        last -= 1
    return tokens[first:last]


def _simple(token: Any, rest: Iterator[Any]) -> str | None:
    """One part of a selector: element, ``*``, class, id, or a pseudo-class of a short list."""
    if token.type == "ident":
        return token.serialize()
    if token.type == "hash" and token.is_identifier:
        return f"#{PREFIX}{token.serialize()[1:]}"
    if token.type != "literal":
        return None
    if token.value == "*":
        return "*"
    after = next(rest, None)
    if after is not None and token.value == "." and after.type == "ident":
        return f".{PREFIX}{after.serialize()}"
    return _pseudo_class(after) if after is not None and token.value == ":" else None


def _pseudo_class(token: Any) -> str | None:
    if token.type == "ident" and token.lower_value in _PSEUDO_CLASSES:
        return f":{token.lower_value}"
    if token.type != "function" or token.lower_name not in _COUNTED:
        return None
    count = "".join(item.serialize() for item in token.arguments)
    return f":{token.lower_name}({count})" if _COUNT.fullmatch(count) else None
