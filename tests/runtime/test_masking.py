"""Secrets never survive: every value, in every usual encoding, wherever the text is cut."""

from __future__ import annotations

import base64
import dataclasses
import html
import itertools
import json
import textwrap
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any

import markupsafe
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from research_jobs.outcome import CheckOutcome, Failure, Outcome, StagedOutput, State
from research_jobs.runtime.ending import mask_result
from research_jobs.runtime.masking import ByteStreamMasker, Masker, StreamMasker

PRINTABLE = st.characters(min_codepoint=33, max_codepoint=126)
SECRETS = (
    st.text(PRINTABLE, min_size=12, max_size=40)
    | st.text(st.sampled_from("ab\\\"'&<>%+ /;#{}"), min_size=12, max_size=20).map(
        lambda text: f"k{text}k"
    )
    | st.text(
        st.characters(min_codepoint=161, max_codepoint=0x1FFFF, categories=("L", "N", "S")),
        min_size=8,
        max_size=12,
    )
)


def each(form: str) -> Callable[[str], str]:
    """Every character written by its number."""
    return lambda text: "".join(form.format(ord(character)) for character in text)


def utf16(text: str) -> str:
    """Every character as JSON may write it."""
    raw = text.encode("utf-16-be")
    return "".join(f"\\u{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, len(raw), 2))


def coloured(text: str) -> str:
    """Colours inside the value, as a highlighter sets them."""
    return "\x1b[1;32m".join((text[:3], text[3:5], text[5:])) + "\x1b[0m"


def marked_up(text: str) -> str:
    """Markup inside the value, as a highlighter writes it."""
    return "<b>" + '</b><span style="color: red">'.join(map(html.escape, (text[:4], text[4:])))


def long_tags(text: str) -> str:
    """The same with tags that say a lot."""
    return marked_up(text).replace("color: red", "color: red; " * 40)


def latin_1(text: str) -> str:
    """Bytes that are no UTF-8, as Python writes them."""
    try:
        return repr(text.encode("latin-1"))[2:-1]
    except UnicodeEncodeError:
        return repr(text.encode())[2:-1]


ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "html": html.escape,
    "html without quotes": lambda text: html.escape(text, quote=False),
    "html by markupsafe": lambda text: str(markupsafe.escape(text)),
    "html twice": lambda text: html.escape(html.escape(text)),
    "html by number": each("&#{};"),
    "html by hexadecimal number": each("&#x{:X};"),
    "json": lambda text: json.dumps(text)[1:-1],
    "json twice": lambda text: json.dumps(json.dumps(text))[3:-3],
    "json with slashes": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "json for scripts": lambda text: (
        json.dumps(text)[1:-1]
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
        .replace("&", "\\u0026")
        .replace("'", "\\u0027")
    ),
    "json by number": utf16,
    "repr": lambda text: repr(text)[1:-1],
    "repr of bytes": lambda text: repr(text.encode())[2:-1],
    "repr of bytes in latin-1": latin_1,
    "percent": urllib.parse.quote,
    "percent without slashes": lambda text: urllib.parse.quote(text, safe=""),
    "percent in lower case": lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    "percent twice": lambda text: urllib.parse.quote(urllib.parse.quote(text)),
    "form": urllib.parse.quote_plus,
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal in upper case": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 in a url": lambda text: urllib.parse.quote(
        base64.b64encode(text.encode()).decode(), safe=""
    ),
    "colours": coloured,
    "markup": marked_up,
    "markup with long tags": long_tags,
}


def cut(text: str, places: Sequence[int]) -> list[str]:
    """The text in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[low:high] for low, high in itertools.pairwise(edges)]


def streamed(masker: Masker, pieces: Sequence[str]) -> str:
    """What is left of a text that comes in pieces."""
    stream = StreamMasker(masker)
    return "".join(map(stream.feed, pieces)) + stream.rest()


CUTS = st.lists(st.integers(0, 1000), max_size=12)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=12, deadline=None)
@given(secret=SECRETS, places=CUTS, every=st.booleans())
@example(secret="<A0000000000", places=[], every=True)  # looks like a tag that has begun
def test_no_encoding_survives_any_cut(
    encoding: str, secret: str, places: list[int], every: bool
) -> None:
    """A value is masked in each encoding, at once and wherever writes cut it."""
    encoded = ENCODINGS[encoding](secret)
    text = f"token: '{encoded}' |"
    masker = Masker([secret])
    places = list(range(len(text))) if every else places
    for found in (masker.text(text), streamed(masker, cut(text, places))):
        assert encoded not in found
        assert "***" in found
        assert (found[:8], found[-2:]) == ("token: '", " |")
        # What is left beside the mask are the ends of markup, padding, or a base64 character
        # that the value shares with what is around it.
        assert len(found) <= len("token: '***' |") + (40 if encoding.startswith("markup") else 9)


ESCAPES = (
    "html", "html by number", "json", "json by number", "repr", "percent",
    "percent without slashes", "form",
)  # fmt: skip
# What hides its content from whoever undoes escapes: these are looked for as wholes.
WHOLE = ("html", "json", "repr", "percent", "percent without slashes", "form")
BINARY = tuple(name for name in ENCODINGS if name.startswith(("base64", "hexadecimal")))
NESTED = [
    *itertools.product(ESCAPES, ESCAPES),
    *itertools.product(WHOLE, BINARY),
    *itertools.product(BINARY, ESCAPES),
]


@pytest.mark.parametrize(("inner", "outer"), NESTED)
@settings(max_examples=5, deadline=None)
@example(secret="\\00000000000", places=[])
@example(secret="0%0000000000", places=[93])
@given(secret=SECRETS, places=CUTS)
def test_one_encoding_inside_another(
    inner: str, outer: str, secret: str, places: list[int]
) -> None:
    """Escapes inside escapes, inside base64 and hexadecimal, and around those."""
    encoded = ENCODINGS[outer](ENCODINGS[inner](secret))
    text = f"token: '{encoded}' |"
    masker = Masker([secret])
    for found in (masker.text(text), streamed(masker, cut(text, places))):
        assert encoded not in found
        assert (found[:8], found[-2:]) == ("token: '", " |")
        assert "***" in found
        # Backslashes at either end of the value may be taken for marks of an escape, and stay.
        ends = (secret[: -len(secret.lstrip("\\")) or None], secret[len(secret.rstrip("\\")) :])
        left = sum(len(ENCODINGS[outer](ENCODINGS[inner](end))) for end in ends)
        assert len(found) <= len("token: '***' |") + max(9, left)


@pytest.mark.parametrize("before", range(3))
@settings(max_examples=8, deadline=None)
@given(secret=SECRETS, after=st.binary(max_size=5), places=CUTS, urlsafe=st.booleans())
def test_base64_of_a_longer_text(
    before: int, secret: str, after: bytes, places: list[int], urlsafe: bool
) -> None:
    """A value is masked in base64 wherever it lies in the encoded text (``user:secret``)."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    encoded = encode(b"u:" * 3 + b"x" * before + secret.encode() + after).decode()
    begin, end = (6 + before) * 8, (6 + before + len(secret.encode())) * 8
    core = encoded[-(-begin // 6) : end // 6]
    found = streamed(Masker([secret]), cut(f"Authorization: Basic {encoded}\n", places))
    assert core not in found
    assert "***" in found


@settings(max_examples=200, deadline=None)
@given(
    secrets=st.lists(st.text("abc", min_size=4, max_size=9), min_size=1, max_size=4),
    text=st.text("abc", max_size=40),
    places=CUTS,
)
def test_overlapping_values(secrets: list[str], text: str, places: list[int]) -> None:
    """Of values that overlap, or begin one another, no character is left, wherever a cut is."""
    covered = [False] * len(text)
    for secret in secrets:
        start = text.find(secret)
        while start >= 0:
            covered[start : start + len(secret)] = [True] * len(secret)
            start = text.find(secret, start + 1)
    kept = "".join(letter for letter, hidden in zip(text, covered, strict=True) if not hidden)
    masker = Masker(secrets)
    assert masker.text(text).replace("***", "") == kept
    assert streamed(masker, cut(text, places)).replace("***", "") == kept
    assert streamed(masker, list(text)).replace("***", "") == kept


@given(text=st.text(max_size=60), places=CUTS)
def test_all_else_passes(text: str, places: list[int]) -> None:
    """A text without the secret comes through as it was, escapes and markup included."""
    masker = Masker(["sk-0123456789abcdef"])
    text = f"&amp; {text} %41 \\u0041 \\U00110000 \\u{{110000}} &#1114112; <b>\x1b[1m"
    assert masker.text(text) == text
    assert streamed(masker, cut(text, places)) == text


@given(data=st.binary(max_size=60), places=CUTS, secret=st.sampled_from(["pässwörd", "hunter22"]))
def test_bytes(data: bytes, places: list[int], secret: str) -> None:
    """In bytes a value is masked too, and what is not UTF-8 is left as it is."""
    masker = ByteStreamMasker(Masker([secret]))
    whole = data + b"|" + secret.encode() + b"|" + data
    edges = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    pieces = [whole[low:high] for low, high in itertools.pairwise(edges)]
    found = b"".join(map(masker.feed, pieces)) + masker.rest()
    assert found == data + b"|***|" + data


def test_a_value_that_looks_like_markup() -> None:
    """A value with markup of its own is masked, escaped within markup as well as bare."""
    secret = "00000000<A>0"
    for text in (marked_up(secret), secret, html.escape(secret), f"<b>{secret}</b>"):
        assert "0000" not in Masker([secret]).text(text).replace("***", "")


@pytest.mark.parametrize("secret", ["hunter22\n", "  hunter22", "\thunter22 \n"])
def test_space_around_a_value_is_no_part_of_it(secret: str) -> None:
    """A value that was read from a file is masked without the file's last line break too."""
    assert Masker([secret]).text("Bearer hunter22;") == "Bearer ***;"


@pytest.mark.parametrize("before", range(3))
def test_the_shortest_base64(before: int) -> None:
    """Six characters that a short value gives a longer base64 text are masked."""
    encoded = base64.b64encode(b"abc" + b"x" * before + b"hunt5" + b"xyz").decode()
    begin, end = (3 + before) * 8, (3 + before + 5) * 8
    assert encoded[-(-begin // 6) : end // 6] not in Masker(["hunt5"]).text(encoded)


def test_escaped_again_and_again() -> None:
    """However often a value was escaped, it is found."""
    text = "<hunter22>"
    for _ in range(12):
        text = html.escape(text)
    assert Masker(["<hunter22>"]).text(text) == "***"


def test_values_side_by_side() -> None:
    """Each has a mask of its own, so that a reader sees that there are two."""
    assert Masker(["abcd1", "efgh2"]).text("abcd1efgh2") == "******"


KEY = "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n".format(
    "\n".join(textwrap.wrap(base64.b64encode(bytes(range(200))).decode(), 64))
)


@pytest.mark.parametrize("wrapped", [str, str.splitlines, lambda key: json.dumps({"key": key})])
def test_a_value_of_several_lines(wrapped: Callable[[str], Any]) -> None:
    """Of a key that is a block of lines each line is masked, together, alone or in JSON."""
    found = str(Masker([KEY]).value(wrapped(KEY)))
    assert not any(line in found for line in KEY.splitlines()[1:-1])
    assert Masker([KEY]).text(KEY.splitlines()[0]) == KEY.splitlines()[0]


def test_lines_that_a_console_broke() -> None:
    """A long value that was broken into lines is masked."""
    assert Masker(["sixteen-letters!"]).text("key: sixteen\n  -letters!") == "key: ***"
    secret = "eyJhbGciOiJIUzI1NiJ9." + "c2VjcmV0LXRva2Vu" * 8
    masker = Masker([secret])
    for text in (
        "\n".join(textwrap.wrap(secret, 80)),
        base64.encodebytes(secret.encode() * 3).decode(),
        repr(base64.encodebytes(b"user:" + secret.encode())),
    ):
        found = masker.text(text)
        assert "***" in found
        assert len(found) <= len(text) - len(secret) + 4


@pytest.mark.parametrize(
    "unit",
    [
        "&#39;",
        "%41",
        "25",
        "\\",
        "\\n",
        "<b>",
        "<",
        "<a",
        "\x1b[",
        "\x1b]",
        "\n",
        "&amp;",
        "hunt",
        " ",
    ],
)
def test_the_time_is_linear_in_the_text(unit: str) -> None:
    """Much of the worst text is searched in one go: this ends, and finds the value in it."""
    text = "%" + unit * (200_000 // len(unit))
    assert Masker(["hunter22"]).text(f"{text} hunter22 {text}").count("***") == 1


def test_every_field_of_a_record_is_masked() -> None:
    """No field of a result lets a value out, column names and nested types included."""
    secret = "c4nary-value"
    result = Outcome(
        state=State.FAILED,
        failure=Failure(secret, secret, secret, 3, 1, secret, secret),
        skip_reason=secret,
        outputs=(
            StagedOutput(
                name="df",
                path="/staging/df.parquet",
                kind="pandas.DataFrame",
                rows=1,
                bytes=12,
                columns=((secret, f"struct<{secret}: int64>"),),
                preview={"columns": [secret], "rows": [[secret]]},
                statistics={secret: {"min": secret, "max": [secret]}},
            ),
        ),
        checks=(CheckOutcome("df", "unique", True, "error", secret, {secret: secret}),),
        parameters={secret: secret},
        isolation="fork",
        notes=(secret,),
    )
    masked = mask_result(result, Masker([secret]))
    assert secret not in str(dataclasses.asdict(masked))
    assert masked.outputs[0].path == "/staging/df.parquet"
    assert masked.outputs[0].columns == (("***", "struct<***: int64>"),)
    assert (masked.state, masked.outputs[0].bytes) == (State.FAILED, 12)
    assert mask_result(result, Masker([])) == result


def test_numbers_in_values() -> None:
    """A value of digits is masked as a number too; a truth value never is."""
    masker = Masker(["48151623", "True"])
    assert masker.value({"pin": 48151623, "ok": True}) == {"pin": "***", "ok": True}


@pytest.mark.parametrize("secret", ["", "1", "abc"])
def test_short_values_are_left_alone(secret: str) -> None:
    """Masking what is too short to be a secret would empty the report."""
    assert Masker([secret]).text("abc 111") == "abc 111"
