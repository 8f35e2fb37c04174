"""YAML text as plain data that knows the position of each of its parts.

Built from the parser's events: tags construct nothing, aliases are never followed, duplicate keys
are seen, and every key and value keeps its line and column. ``yaml.compose`` would be shorter, but
a file of brackets crashes the process with it (decision 0163).

Scalars follow YAML 1.2: ``NO`` is a country, ``1:30`` is text, ``007`` keeps its zeros, and a date
is a date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Protocol

import yaml

from research_jobs.errors import ManifestError, SourceLocation

__all__ = ["Defect", "Document", "Mark", "Node", "read_document"]

SIZE_LIMIT = 4 * 1024 * 1024
NODE_LIMIT = 150_000
KEY_LIMIT = 300
DEPTH_LIMIT = 32
# A person makes a few of them; more are an attack or another kind of file.
DEFECT_LIMIT = 100


class Mark(Protocol):
    """A position in the text as the parser gives it: line and column, from 0."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


class Node:
    """One value and its position.

    Parameters
    ----------
    data : Any
        Plain Python: dict, list or scalar, children included.
    mark : Mark
        Where the value begins.

    Attributes
    ----------
    children : dict
        Key or index to node, for mappings and sequences.
    keys : dict
        The position of each key of a mapping.
    """

    # A manifest of a thousand notebooks has forty thousand of these: no dataclass, no dict each.
    __slots__ = ("children", "data", "keys", "mark")

    def __init__(self, data: Any, mark: Mark) -> None:
        self.data = data
        self.mark = mark
        self.children: dict[str | int, Node] = _NO_CHILDREN
        self.keys: dict[str, Mark] = _NO_KEYS
        if isinstance(data, (dict, list)):
            self.children, self.keys = {}, {}

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a mapping, in order."""
        for key, child in self.children.items():
            if isinstance(key, str):
                yield key, child


# Shared by all scalars; never written to.
_NO_CHILDREN: dict[str | int, Node] = {}
_NO_KEYS: dict[str, Mark] = {}


@dataclass(frozen=True, slots=True)
class Defect:
    """Valid YAML that a manifest must not contain, at `path` in the document."""

    path: tuple[str | int, ...]
    mark: Mark
    what: str
    hint: str


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed manifest.

    Parameters
    ----------
    path : str
        The file's name in messages.
    root : Node or None
        None when the file is empty.
    defects : tuple of Defect
    """

    path: str
    root: Node | None
    defects: tuple[Defect, ...] = ()

    def where(self, mark: Mark) -> SourceLocation:
        """A mark as a location that an error can name."""
        return SourceLocation(self.path, mark.line + 1, mark.column + 1)

    def locate(self, path: Sequence[str | int], *, key: bool = False) -> SourceLocation:
        """The location of the value at `path`, or with ``key=True`` of its key.

        Parts of the path that the document does not have are skipped, so a path through a
        shorthand (``outputs: [prices]``) still ends near its cause.
        """
        node = self.root
        if node is None:
            return SourceLocation(self.path, 1, 1)
        mark = node.mark
        for part in path:
            child = node.children.get(part)
            if child is None and isinstance(part, str):
                # a name in a list, short for a mapping's key
                child = next(
                    (c for i, c in node.children.items() if isinstance(i, int) and c.data == part),
                    None,
                )
            if child is None:
                continue
            mark = node.keys.get(part, child.mark) if key and isinstance(part, str) else child.mark
            node = child
        return self.where(mark)

    def locate_quoted(self, path: Sequence[str | int], message: str) -> SourceLocation:
        """The location of the part of `path` that a message quotes, else of `path`."""
        node = self.root
        for part in path:
            child = node.children.get(part) if node is not None else None
            node = child if child is not None else node
        if node is None:
            return self.locate(path)
        for text in message.split("'")[1::2]:
            if text in node.keys:
                return self.where(node.keys[text])
            matches = [c for k, c in node.children.items() if isinstance(k, int) and c.data == text]
            if matches:  # of a duplicate, the second is the one too many
                return self.where(matches[-1].mark)
        return self.locate(path)


def read_document(path: Path, shown: str) -> Document:
    """Read and parse a manifest.

    Parameters
    ----------
    path : Path
        The file; a missing one is an empty document.
    shown : str
        The file's name in messages.

    Returns
    -------
    Document

    Raises
    ------
    ManifestError
        When the text cannot be parsed: too large, not UTF-8, bad syntax.
    """
    try:
        size = path.stat().st_size
        if size > SIZE_LIMIT:
            raise ManifestError(
                f"the manifest has {size:,} bytes; the limit is {SIZE_LIMIT:,}",
                where=SourceLocation(shown),
                hint="Keep data out of it.",
            )
        content = path.read_bytes()
    except FileNotFoundError:
        return Document(shown, None)
    except OSError as error:
        raise ManifestError(
            f"the manifest cannot be read: {error.strerror or error}",
            where=SourceLocation(shown),
            hint="Check the file's kind and permissions.",
        ) from error
    return parse_document(content, shown)


def parse_document(content: bytes, shown: str) -> Document:
    """Parse a manifest's bytes; see `read_document`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise ManifestError(
            f"byte {content[error.start]:#04x} is not UTF-8",
            where=SourceLocation(shown, line, column),
            hint="Save the file as UTF-8.",
        ) from error
    builder = _Builder(shown)
    # libyaml's parser where PyYAML was built with it: ten times faster, same events and marks.
    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = None
    try:
        loader = loader_class(text)
        builder.build(loader.get_event)
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, shown) from error
    finally:
        if loader is not None:
            loader.dispose()
    return Document(shown, builder.root, tuple(builder.defects))


class _Open:
    """A mapping or sequence that is still open."""

    __slots__ = ("is_mapping", "key", "node", "path")

    def __init__(self, node: Node, path: tuple[str | int, ...], is_mapping: bool) -> None:
        self.node = node
        self.path = path
        self.is_mapping = is_mapping
        self.key: str | None = None


class _Builder:
    """Events in, one tree out."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.root: Node | None = None
        self.defects: list[Defect] = []
        self.stack: list[_Open] = []
        self.count = 0
        self.documents = 0

    def build(self, get_event: Callable[[], Any]) -> None:
        stack = self.stack
        while (event := get_event()) is not None:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                if event.tag is not None or event.anchor is not None:
                    self._refuse_decoration(event)
                top = stack[-1] if stack else None
                if top is not None and top.key is None and top.is_mapping:
                    self._key(top, event)
                    continue
                # only unquoted scalars have a type of their own
                value = event.value if event.style else _resolve(event.value)
                self._add(Node(value, event.start_mark))
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                self._open(event)
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                stack.pop()
            else:
                self._rare(event)

    def _rare(self, event: Any) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._defect(
                event.start_mark,
                f"the alias '*{event.anchor}' is not allowed in a manifest",
                "Write the value out, or put it under defaults.",
            )
            top = self.stack[-1] if self.stack else None
            if top is not None and top.key is None and top.is_mapping:
                top.key = ""
            else:
                self._add(Node(None, event.start_mark))
        elif isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise ManifestError(
                    "a second YAML document begins here; a manifest is a single document",
                    where=SourceLocation(self.shown, event.start_mark.line + 1, 1),
                    hint="Remove the line ---.",
                )

    def _open(self, event: Any) -> None:
        mark = event.start_mark
        if len(self.stack) >= DEPTH_LIMIT:
            raise self._error(
                mark, f"the manifest is nested more than {DEPTH_LIMIT} levels deep", "Flatten it."
            )
        if event.tag is not None or event.anchor is not None:
            self._refuse_decoration(event)
        is_mapping = type(event) is yaml.MappingStartEvent
        node = Node({} if is_mapping else [], mark)
        top = self.stack[-1] if self.stack else None
        if top is not None and top.key is None and top.is_mapping:
            self._defect(mark, "a key must be a plain name", "Write the key as a word.")
            top.key = ""  # its value is dropped, and so is the key
            self.stack.append(_Open(node, top.path, is_mapping))
            return
        path = self._path()  # before the node takes its key
        self._add(node)
        self.stack.append(_Open(node, path, is_mapping))

    def _add(self, node: Node) -> None:
        self.count += 1
        if self.count > NODE_LIMIT:
            raise self._error(
                node.mark,
                f"the manifest has more than {NODE_LIMIT:,} values",
                "Keep data out of it.",
            )
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        parent = top.node
        if not top.is_mapping:
            parent.children[len(parent.data)] = node
            parent.data.append(node.data)
            return
        key, top.key = top.key, None
        if not key or key in parent.children:
            return  # a duplicate's value, or one below a refused key
        parent.children[key] = node
        parent.data[key] = node.data

    def _key(self, top: _Open, event: Any) -> None:
        text: str = event.value
        mark = event.start_mark
        keys = top.node.keys
        top.key = text
        if text in keys:
            self._defect(
                mark,
                f"duplicate key '{text}', first on line {keys[text].line + 1}",
                "Keep one.",
            )
        elif not text:
            self._defect(mark, "a key is empty", "Give it a name.")
        elif text == "<<" and not event.style:
            self._defect(
                mark,
                "the merge key '<<' is not allowed in a manifest",
                "Write the values out, or put them under defaults.",
            )
            top.key = ""
        elif len(text) > KEY_LIMIT:
            raise self._error(
                mark, f"a key has {len(text):,} characters; the limit is {KEY_LIMIT}", "Shorten it."
            )
        else:
            keys[text] = mark

    def _refuse_decoration(self, event: Any) -> None:
        mark = event.start_mark
        if event.tag is not None and event.tag != "!":
            name = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._defect(
                mark, f"the tag '{name}' is not allowed in a manifest", "Write a plain value."
            )
        if event.anchor is not None:
            self._defect(
                mark,
                f"the anchor '&{event.anchor}' is not allowed in a manifest",
                "Write the value where it is used, or put it under defaults.",
            )

    def _defect(self, mark: Mark, what: str, hint: str) -> None:
        if len(self.defects) == DEFECT_LIMIT:
            raise self._error(
                mark, f"{what}; after {DEFECT_LIMIT} mistakes, the rest is not read", hint
            )
        self.defects.append(Defect(self._path(), mark, what, hint))

    def _error(self, mark: Mark, what: str, hint: str) -> ManifestError:
        where = SourceLocation(self.shown, mark.line + 1, mark.column + 1)
        return ManifestError(what, where=where, hint=hint)

    def _path(self) -> tuple[str | int, ...]:
        """The path of the next value."""
        if not self.stack:
            return ()
        top = self.stack[-1]
        if not top.is_mapping:
            return (*top.path, len(top.node.data))
        return (*top.path, top.key) if top.key else top.path


_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)\Z")
_HEX = re.compile(r"0x[0-9a-fA-F_]+\Z|0o[0-7_]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
    r"([Zz]|[-+][0-9]{2}:[0-9]{2})?\Z"
)
_WORDS: Mapping[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


def _resolve(text: str) -> Any:
    """A plain scalar's value."""
    if text in _WORDS:
        return _WORDS[text]
    first = text[0]
    if not (first.isdigit() or first in "+-."):
        return text
    try:
        if _INT.match(text):
            # int() refuses absurdly many digits; then the value stays text
            return int(text.replace("_", ""))
        if _HEX.match(text):
            return int(text.replace("_", ""), 0)
        if _DATE.match(text):
            return date.fromisoformat(text)
        if _TIME.match(text):
            return datetime.fromisoformat(text.upper().replace(" ", "T"))
        # `0123` is text, `0.5` and `1e3` are numbers
        if _FLOAT.match(text) and not re.match(r"[-+]?0[0-9]", text):
            return float(text)
    except ValueError:
        return text
    return text


def _syntax_error(error: yaml.YAMLError, text: str, shown: str) -> ManifestError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", None) or "")
    context = str(getattr(error, "context", None) or "")
    if mark is None:
        # the reader's error: a character that YAML does not allow
        position = getattr(error, "position", 0) or 0
        before = text[:position]
        line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
        bad = next((c for c in text[position:] if not c.isprintable() and c not in "\r\n\t"), "")
        if bad and text[position : position + 1] != bad:
            position = text.index(bad)
            before = text[:position]
            line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
        code = f"U+{ord(bad):04X} " if bad else ""
        return ManifestError(
            f"the character {code}is not allowed in YAML",
            where=SourceLocation(shown, line, column),
            hint="Remove it.",
        )
    line, column = mark.line + 1, mark.column + 1
    lines = text.splitlines()
    source = lines[mark.line] if mark.line < len(lines) else ""
    return ManifestError(
        f"this is not YAML: {problem or context or 'it cannot be parsed'}",
        where=SourceLocation(shown, line, column),
        hint=_syntax_hint(problem, context, source),
        details=f"    {source[:200]}" if source.strip() else None,
    )


def _syntax_hint(problem: str, context: str, source: str) -> str:
    if "\t" in source[: len(source) - len(source.lstrip())] or (
        "cannot start any token" in problem and "\t" in source
    ):
        return "Indent with spaces, not with tabs."
    if "alias" in context or "alphabetic or numeric" in problem:
        return 'Put quotes around a value that begins with *: cron: "0 6 * * *".'
    if "mapping values are not allowed" in problem:
        return "Put quotes around a value with ': ' in it, or check the indentation."
    if "cannot start any token" in problem:
        return "Put quotes around the value."
    if "expected ':'" in problem:
        return "A key needs a colon and a space after it."
    if "expected <block end>" in problem or "did not find expected" in problem:
        return "Check the indentation and the brackets above this line."
    if "unexpected end of stream" in problem:
        return "Close the open quote or bracket."
    return "Check the indentation, quotes and brackets here."
