"""Secrets out of text: whole values, their escaped forms, and values split across writes.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["MASK", "Masker", "StreamMasker"]

MASK = "***"

# A value shorter than this is no secret, and masking "1" would empty every report.
SHORTEST = 4


class Masker:
    """Replaces secret values in text and in JSON values.

    Parameters
    ----------
    secrets : collection of str
        The values. Those shorter than four characters are left alone.
    """

    def __init__(self, secrets: Collection[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            if len(secret) >= SHORTEST:
                forms |= _forms(secret)
        # Longest first: a form that holds another one must go whole.
        self._forms = sorted(forms, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if forms else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    @property
    def forms(self) -> tuple[str, ...]:
        """Tuple of str: every text that is looked for, longest first."""
        return tuple(self._forms)

    @property
    def longest(self) -> int:
        """int: length of the longest form that is looked for; 0 without secrets."""
        return len(self._forms[0]) if self._forms else 0

    def text(self, value: str) -> str:
        """The text without secrets."""
        return self._pattern.sub(MASK, value) if self._pattern is not None else value

    def value(self, value: Any) -> Any:
        """A JSON value without secrets, in keys too."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self._pattern.sub(MASK, value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def held_back(self, text: str) -> int:
        """How many characters at the end of `text` could be the beginning of a secret."""
        for length in range(min(self.longest - 1, len(text)), 0, -1):
            end = text[-length:]
            if any(len(form) > length and form.startswith(end) for form in self._forms):
                return length
        return 0


class StreamMasker:
    """Masks a text that comes in pieces, wherever it is cut.

    Parameters
    ----------
    masker : Masker
    """

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = ""

    def feed(self, text: str) -> str:
        """The part of the text so far that can be shown, masked."""
        if not self._masker:
            return text
        masked = self._masker.text(self._held + text)
        keep = self._masker.held_back(masked)
        self._held = masked[len(masked) - keep :]
        return masked[: len(masked) - keep]

    def rest(self) -> str:
        """What was held back: no more text comes."""
        rest, self._held = self._held, ""
        return rest


def _forms(secret: str) -> set[str]:
    """The ways in which a value appears: as it is, and as other formats escape it."""
    raw = secret.encode("utf-8", "surrogateescape")
    forms = {
        secret,
        html.escape(secret),
        html.escape(secret, quote=False),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
        urllib.parse.quote(raw),
        urllib.parse.quote_plus(raw),
        base64.b64encode(raw).decode(),
    }
    return {form for form in forms if len(form) >= SHORTEST}
