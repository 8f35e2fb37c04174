"""Mask secrets in text, even if they are escaped or split between writes.

Text is searched as it is and through *views*, which undo what formats do to a value: escapes of
HTML, JSON, Python and URLs, colours, markup and line breaks. Secrets go through the same views, so
a value that itself looks escaped is found too. Each step is linear in the length of the text.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import base64
import codecs
import html
import json
import re
import sys
import urllib.parse
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from research_jobs.runtime import views

__all__ = ["MASK", "ByteStreamMasker", "Masker", "StreamMasker"]

MASK = "***"

# A value shorter than this is not a secret: masking "1" would empty every report.
SHORTEST = 4
# From this length on, a line of a multi-line value (a PEM key) is a secret of its own.
_SHORTEST_LINE = 8
# A shorter part of a base64 text also occurs by chance, for example in an image.
_SHORTEST_BASE64 = 6
# Joined table cells or lines must not look like a value by chance.
_SHORTEST_IN_MARKUP = 8
_SHORTEST_OVER_LINES = 16
# An incomplete escape at the end of a text is searched for in its last characters only.
_PARTIAL = 64
_PARTIAL_MARKUP = 2_100

_Spans = list[tuple[int, int]]

_ESCAPE_CHARACTER = views.ESCAPE_CHARACTER
# The end of a text that may become an escape or markup when more text follows.
_ESCAPE_BEGUN = re.compile(
    r"(?:&[#A-Za-z0-9;]{0,40}"
    r"|(?:%(?:25){0,3}[c-fC-F][0-9a-fA-F](?:%(?:25){0,3}[89abAB][0-9a-fA-F]){0,2})?"
    r"%[0-9a-fA-F]{0,9}"
    r"|%(?:25){0,3}[c-fC-F][0-9a-fA-F](?:%(?:25){0,3}[89abAB][0-9a-fA-F]){0,2}"
    r"|(?:\\{1,8}x[c-fC-F][0-9a-fA-F](?:\\{1,8}x[89abAB][0-9a-fA-F]){0,2}"
    r"|\\{1,8}u[dD][89abAB][0-9a-fA-F]{2})?\\{1,8}(?:[uUx]\{?[0-9a-fA-F]{0,8})?"
    r"|\\{1,8}x[c-fC-F][0-9a-fA-F](?:\\{1,8}x[89abAB][0-9a-fA-F]){0,2}"
    r")\Z"
)
_TAG_BEGUN = re.compile(r"</?(?:[A-Za-z!][^<>]{0,500})?\Z")
_COLOUR_BEGUN = re.compile(
    rf"{_ESCAPE_CHARACTER}(?:\[[0-?]{{0,60}}[ -/]{{0,4}}|\][^\x07\x1b]{{0,2000}})?\Z"
)


class Masker:
    """Replaces secret values in text and in JSON values.

    Parameters
    ----------
    secrets : collection of str
        The values. Those shorter than four characters are ignored.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        values = {part for secret in secrets for part in _parts(secret)}
        escaped = {form for value in values for form in _escaped(value)}
        # Base64 and hexadecimal hide escapes from the views; JSON is often encoded like that.
        forms = {form for value in values | escaped for form in _encodings(value)}
        self._raw = _Needles(forms)
        # Undoing one escape may uncover another, in the text as in the value.
        plain = (*[views.undo_escapes] * 4, views.undo_plus)
        self._views = (
            _View(plain, forms, SHORTEST),
            _View((views.drop_tags, *plain), forms, _SHORTEST_IN_MARKUP),
            _View((views.drop_tags, *plain, views.drop_line_breaks), forms, _SHORTEST_OVER_LINES),
        )

    def __bool__(self) -> bool:
        return bool(self._raw)

    def text(self, value: str) -> str:
        """The text without secrets."""
        if not self._raw:
            return value
        parts: list[str] = []
        position = 0
        for start, end in self.spans(value):
            parts += (value[position:start], MASK)
            position = end
        return "".join((*parts, value[position:])) if parts else value

    def value(self, value: Any) -> Any:
        """A JSON value without secrets, in keys too."""
        if not self._raw:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool) and self.spans(str(value)):
            return MASK
        return value

    def spans(self, text: str) -> _Spans:
        """The positions of secrets: half-open ranges in order, overlapping ones merged."""
        ranges = list(self._raw.find(text))
        for view in self._views if views.SPECIAL.search(text) else ():
            projection = view.project(text)
            if projection is not None:
                ranges += [
                    (projection.start(start), projection.end(end))
                    for start, end in view.needles.find(projection.text)
                ]
        return _joined(ranges)

    def undecided(self, text: str) -> int:
        """The start of the part at the end of `text` that could begin a secret."""
        escape = _begin(_ESCAPE_BEGUN, text, _PARTIAL)
        colour = min(escape, _begin(_COLOUR_BEGUN, text, _PARTIAL_MARKUP))
        tag = min(colour, _begin(_TAG_BEGUN, text, _PARTIAL_MARKUP))
        first = min(escape, self._raw.prefix_at_end(text))
        # What looks like the start of a tag may also belong to a value.
        for end in {colour, tag}:
            first = min(first, self._undecided_before(text[:end]))
        return first

    def _undecided_before(self, body: str) -> int:
        """The same for a text that is followed by an escape or markup."""
        first = start if (start := self._raw.prefix_at_end(body)) < len(body) else sys.maxsize
        for view in self._views if views.SPECIAL.search(body) else ():
            first = min(first, view.undecided(body))
        return first


class StreamMasker:
    """Masks a text that comes in pieces, wherever it is split.

    Parameters
    ----------
    masker : Masker
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = ""
        # How much of the held text belongs to a secret that is already masked.
        self._covered = 0

    def feed(self, text: str) -> str:
        """The part of the text so far that can be shown, masked."""
        if not self._masker:
            return text
        pending = self._held + text
        end = self._masker.undecided(pending)
        shown, position = self._shown(pending, end)
        self._held = pending[end:]
        self._covered = max(0, position - end)
        return shown

    def rest(self) -> str:
        """The held text: no more follows."""
        shown, _ = self._shown(self._held, len(self._held))
        self._held, self._covered = "", 0
        return shown

    def _shown(self, pending: str, end: int) -> tuple[str, int]:
        """The text up to `end`, masked, and the end of the last secret that begins in it."""
        spans = self._masker.spans(pending)
        if self._covered:  # the rest of that secret is covered by the same mask
            spans = _joined([(0, self._covered), *spans])
        parts: list[str] = []
        position = self._covered
        for start, stop in spans:
            if start >= end:
                break
            if start or not self._covered:
                parts += (pending[position:start], MASK)
            position = stop
        parts.append(pending[position:end])
        return "".join(parts), position


class ByteStreamMasker:
    """Masks bytes that come in pieces; bytes that are not UTF-8 pass unchanged.

    Parameters
    ----------
    masker : Masker
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = StreamMasker(masker)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")

    def feed(self, data: bytes) -> bytes:
        """The part of the bytes so far that can be shown, masked."""
        return self._masker.feed(self._decoder.decode(data)).encode("utf-8", "surrogateescape")

    def rest(self) -> bytes:
        """The held bytes: no more follow."""
        text = self._masker.feed(self._decoder.decode(b"", final=True)) + self._masker.rest()
        return text.encode("utf-8", "surrogateescape")


# -- what is looked for -----------------------------------------------------------------------


def _parts(secret: str) -> Iterator[str]:
    """A value without surrounding space, and its lines if it has several."""
    for value in (secret, secret.strip()):
        if len(value) >= SHORTEST:
            yield value
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        # "-----BEGIN PRIVATE KEY-----" is not a secret.
        yield from (
            line for line in lines if len(line) >= _SHORTEST_LINE and not line.startswith("-----")
        )


def _encodings(value: str) -> Iterator[str]:
    """A value as it is, in hexadecimal, and in base64 at any offset of a longer text."""
    yield value
    raw = value.encode("utf-8", "surrogateescape")
    yield raw.hex()
    yield raw.hex().upper()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = encode(raw).decode()
        yield encoded
        alone = encoded.rstrip("=")
        within = [
            # The characters that do not depend on the bytes around the value.
            encode(bytes(before) + raw).decode()[-(-before * 8 // 6) : (before + len(raw)) * 8 // 6]
            for before in range(3)
        ]
        yield from (part for part in (alone, *within) if len(part) >= _SHORTEST_BASE64)


def _escaped(value: str) -> Iterator[str]:
    """A value as common formats escape it."""
    raw = value.encode("utf-8", "surrogateescape")
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield urllib.parse.quote(raw)
    yield urllib.parse.quote(raw, safe="")
    yield urllib.parse.quote_plus(raw)


class _View:
    """A view of a text, and the secrets in the same view."""

    def __init__(self, steps: tuple[views.Maker, ...], forms: Iterable[str], shortest: int) -> None:
        self._steps = steps
        # Anything like markup in a value is escaped when the value is put into markup.
        plain = [step for step in steps if step is not views.drop_tags]
        seen = {views.seen(form, way) for form in forms for way in (steps, plain)}
        self.needles = _Needles(form for form in seen if len(form) >= shortest)

    def project(self, text: str) -> views.Projection | None:
        """The text in this view; None if the view does not change it."""
        return views.project(text, self._steps)

    def undecided(self, text: str) -> int:
        """Like `Masker.undecided`, for a text that does not end within an escape."""
        projection = self.project(text)
        # An escape inside another escape may have begun as well, and one more before that one.
        for _ in self._steps:
            if projection is None:
                break
            begun = min(
                projection.start(_begin(_ESCAPE_BEGUN, step, _PARTIAL), upto=number)
                for number, step in enumerate(projection.texts, 1)
            )
            if begun >= len(text):
                break
            text = text[:begun]
            projection = self.project(text)
        if projection is None:
            return self.needles.prefix_at_end(text)
        start = self.needles.prefix_at_end(projection.text)
        return projection.start(start) if start < len(projection.text) else len(text)


class _Needles:
    """Texts to search for, by their first characters."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._by_head: dict[str, list[str]] = {}
        for text in sorted(set(texts), key=lambda text: (-len(text), text)):
            if len(text) >= SHORTEST:
                self._by_head.setdefault(text[:SHORTEST], []).append(text)
        self._beginnings = {head[:size] for head in self._by_head for size in range(1, SHORTEST)}
        self._heads = re.compile(_either(self._by_head) or r"(?!)")
        self._longest = max((texts[0] for texts in self._by_head.values()), key=len, default="")

    def __bool__(self) -> bool:
        return bool(self._by_head)

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """The longest match at each position; they may overlap."""
        match = self._heads.search(text)
        while match is not None:
            start = match.start()
            for needle in self._by_head[match.group()]:
                if text.startswith(needle, start):
                    yield start, start + len(needle)
                    break
            match = self._heads.search(text, start + 1)

    def prefix_at_end(self, text: str) -> int:
        """The start of the longest proper prefix of one that `text` ends with."""
        position = max(0, len(text) - len(self._longest) + 1)
        match = self._heads.search(text, position)
        while match is not None:
            start = match.start()
            end = text[start:]
            for needle in self._by_head[match.group()]:
                if len(needle) > len(end) and needle.startswith(end):
                    return start
            match = self._heads.search(text, start + 1)
        for start in range(max(position, len(text) - SHORTEST + 1), len(text)):
            if text[start:] in self._beginnings:
                return start
        return len(text)


def _either(texts: Collection[str]) -> str:
    """A pattern for texts of one length, with common prefixes merged."""
    by_first: dict[str, list[str]] = {}
    for text in texts:
        if text:
            by_first.setdefault(text[0], []).append(text[1:])
    options = [re.escape(first) + _either(rest) for first, rest in by_first.items()]
    return options[0] if len(options) == 1 else f"(?:{'|'.join(options)})" if options else ""


def _begin(pattern: re.Pattern[str], text: str, reach: int) -> int:
    match = pattern.search(text, max(0, len(text) - reach))
    return len(text) if match is None else match.start()


def _joined(spans: _Spans) -> _Spans:
    joined: _Spans = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
