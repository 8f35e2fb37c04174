"""What differs between two Python values: dicts, lists, sets and scalars, by path."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any

from research_jobs.comparison.changes import ValueChange, ValuesChange
from research_jobs.comparison.differing import short
from research_jobs.store.codec.typed_json import NotEncodableError, dumps, type_name

__all__ = ["compare_values"]

KEPT = 1000
_NAME = re.compile(r"[^\W\d][\w\- ]*\Z")
_TOO_DEEP = 200


def compare_values(before: Any, after: Any, tolerance: float = 0.0) -> ValuesChange:
    """Compare two values.

    Parameters
    ----------
    before, after : object
        Of the types that an output may have.
    tolerance : float
        Floats are the same whose difference is at most this part of the larger one, or of 1.

    Returns
    -------
    ValuesChange
        Dicts are compared by key, lists and tuples by position, sets by item.
    """
    counts: Counter[str] = Counter()
    compared = 0
    kept: list[ValueChange] = []
    for change in _walk("", before, after, tolerance, 0):
        compared += 1
        if change is not None:
            counts[change.what] += 1
            if len(kept) < KEPT:
                kept.append(change)
    return ValuesChange(
        compared=compared,
        added=counts["added"],
        removed=counts["removed"],
        changed=counts["changed"] + counts["type"],
        changes=tuple(kept),
    )


def _walk(
    path: str, before: Any, after: Any, tolerance: float, depth: int
) -> Iterator[ValueChange | None]:
    """Each part that was compared: None where it is the same."""
    before, after = _opened(before), _opened(after)
    if type(before) is not type(after):
        yield _leaf(path, "type", before, after)
    elif depth > _TOO_DEEP:
        yield None if _text(before) == _text(after) else _leaf(path, "changed", before, after)
    elif isinstance(before, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            place = _inside(path, key)
            if key not in after:
                yield _leaf(place, "removed", before[key], None)
            elif key not in before:
                yield _leaf(place, "added", None, after[key])
            else:
                yield from _walk(place, before[key], after[key], tolerance, depth + 1)
    elif isinstance(before, (list, tuple)):
        yield from _items(path, before, after, tolerance, depth)
    elif isinstance(before, AbstractSet):
        yield from _sets(path, before, after)
    elif _same(before, after, tolerance):
        yield None
    else:
        yield _leaf(path, "changed", before, after)


def _opened(value: Any) -> Any:
    """Arrays inside other values as lists."""
    return value.tolist() if type(value).__name__ == "ndarray" else value


def _items(
    path: str, before: Sequence[Any], after: Sequence[Any], tolerance: float, depth: int
) -> Iterator[ValueChange | None]:
    for place, (old, new) in enumerate(zip(before, after, strict=False)):
        yield from _walk(f"{path}[{place}]", old, new, tolerance, depth + 1)
    both = min(len(before), len(after))
    for place, old in enumerate(before[both:], start=both):
        yield _leaf(f"{path}[{place}]", "removed", old, None)
    for place, new in enumerate(after[both:], start=both):
        yield _leaf(f"{path}[{place}]", "added", None, new)


def _sets(
    path: str, before: AbstractSet[Any], after: AbstractSet[Any]
) -> Iterator[ValueChange | None]:
    old, new = ({_text(item): item for item in side} for side in (before, after))
    for text in sorted(old.keys() | new.keys()):
        if text in old and text in new:
            yield None
        elif text in old:
            yield _leaf(path, "removed", old[text], None)
        else:
            yield _leaf(path, "added", None, new[text])


def _inside(path: str, key: Any) -> str:
    if isinstance(key, str) and _NAME.match(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{short(repr(key))}]"


def _same(before: Any, after: Any, tolerance: float) -> bool:
    if isinstance(before, float):
        if math.isnan(before) or math.isnan(after):
            return math.isnan(before) and math.isnan(after)
        if before == after:
            return True
        size = max(1.0, abs(before), abs(after))
        return bool(tolerance and math.isfinite(size) and abs(after - before) <= tolerance * size)
    return _text(before) == _text(after)


def _text(value: Any) -> str:
    """A text that is the same for equal values of the same type only."""
    try:
        return dumps(value)
    except NotEncodableError:
        return f"{type_name(value)} {value!r}"


def _leaf(path: str, what: str, before: Any, after: Any) -> ValueChange:
    numbers = [each for each in (before, after) if _is_number(each)]
    change = relative = None
    if len(numbers) == 2:
        try:
            change = float(after) - float(before)
            relative = abs(change / float(before)) if before else None
        except OverflowError:
            pass  # an integer beyond the largest float
    return ValueChange(path, what, _shown(before), _shown(after), change, relative)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return short(repr(value))
    if isinstance(value, int) and abs(value) > 1 << 63:
        return short(hex(value))
    return short(value)
