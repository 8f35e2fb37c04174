"""Values with their own representation, shown as by IPython but without it.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["add_alt", "safe_repr", "simple_format"]

_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("application/pdf", "_repr_pdf_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)
_CANARY = "_ipython_canary_method_should_not_exist_"
_PLAIN_TYPES = (
    bool,
    bytes,
    complex,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    float,
    int,
    str,
)


def add_alt(value: Any, data: Mapping[str, Any], metadata: dict[str, Any]) -> None:
    """Say in a matplotlib figure's metadata what stands for it: its title, else those of its axes.

    Under the name by which nbconvert too knows it. Anything else is left as it is.
    """
    mime = next((mime for mime in data if mime.startswith("image/")), None)
    if mime is None or not type(value).__module__.startswith("matplotlib.figure"):
        return
    with contextlib.suppress(Exception):  # whatever a subclass does: the figure is shown
        titles = [getattr(value, "_suptitle", None)]
        titles = [title.get_text() for title in titles if title is not None]
        if not any(titles):
            places = ("center", "left", "right")
            titles = [axes.get_title(place) for axes in value.axes for place in places]
        text = ", ".join(" ".join(title.split()) for title in titles if title.strip())
        if text:
            metadata.setdefault(mime, {})["alt"] = text[:300]


# Types that IPython's pretty printer formats: it breaks their lines.
_PRETTY = (dict, frozenset, list, range, set, slice, super, tuple, type, BaseException)


def simple_format(value: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The representations of a value, if IPython's would be the same.

    Returns
    -------
    (dict, dict) or None
        None if IPython's own rules (its pretty printer) apply.
    """
    kind = type(value)
    if kind in _PLAIN_TYPES:
        return {"text/plain": repr(value)}, {}
    if inspect.isclass(value) or hasattr(value, _CANARY):
        return None
    if _displays_itself(value):
        return {}, {}
    data, metadata = _representations(value)
    if "text/plain" not in data:
        if not (data or _says_itself(kind)) or hasattr(value, "_repr_pretty_"):
            return None
        data["text/plain"] = safe_repr(value)
    return data, metadata


def _says_itself(kind: type) -> bool:
    """Whether the pretty printer would only use the type's own ``repr()``."""
    for cls in kind.__mro__:
        if cls in _PRETTY or cls.__module__ in ("collections", "types"):
            return False
        if "__repr__" in cls.__dict__:
            return cls is not object
    return False


def _displays_itself(value: Any) -> bool:
    own_display = getattr(value, "_ipython_display_", None)
    if not callable(own_display):
        return False
    try:
        own_display()
    except NotImplementedError:
        return False
    return True


def _representations(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of the value's own methods, the bundle first."""
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    bundle = _call(value, "_repr_mimebundle_", include=None, exclude=None)
    if isinstance(bundle, tuple):
        data.update(bundle[0])
        metadata.update(bundle[1])
    elif bundle:
        data.update(bundle)
    for mime, method in _METHODS:
        if mime not in data:
            item = _call(value, method)
            if isinstance(item, tuple) and len(item) == 2:
                item, metadata[mime] = item
            if item is not None:
                data[mime] = item
    return data, metadata


def _call(value: Any, method: str, **options: Any) -> Any:
    function: Callable[..., Any] | None = getattr(value, method, None)
    if not callable(function):
        return None
    try:
        return function(**options)
    except NotImplementedError:
        return None
    except Exception:  # noqa: BLE001 - as in the editor: reported on stderr, and shown another way
        traceback.print_exc()
        return None


def safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a value that cannot be shown is not a failure
        traceback.print_exc()
        return f"<{type(value).__name__}: its repr() raised {type(error).__name__}>"
