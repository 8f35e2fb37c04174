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
_NOTHING = object()
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
        return {"text/plain": safe_repr(value)}, {}
    if inspect.isclass(value) or _claims_all(value):
        return None
    if _call(value, "_ipython_display_", _NOTHING) is not _NOTHING:
        return {}, {}
    data, metadata = _representations(value)
    if "text/plain" not in data:
        if not (data or _says_itself(kind)) or _method(value, "_repr_pretty_") is not None:
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


def _claims_all(value: Any) -> bool:
    """Whether it has any attribute, or fails to say: the editor then asks it for nothing."""
    try:
        return hasattr(value, _CANARY)
    except Exception:  # noqa: BLE001 - its __getattr__ may raise anything
        return True


def _representations(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of the value's own methods, the bundle first."""
    data: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    bundle = _call(value, "_repr_mimebundle_", include=None, exclude=None)
    parts = bundle if isinstance(bundle, tuple) else (bundle,)
    for target, part in zip((data, metadata), parts, strict=False):
        if isinstance(part, Mapping):
            target.update(part)
    for mime, method in _METHODS:
        if mime not in data:
            item = _call(value, method)
            if isinstance(item, tuple) and len(item) == 2:
                item, metadata[mime] = item
            if item is not None:
                data[mime] = item
    return data, metadata


def _method(value: Any, name: str) -> Callable[..., Any] | None:
    try:
        function = getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property may raise anything: as if it were not there
        return None
    return function if callable(function) else None


def _call(value: Any, method: str, nothing: Any = None, **options: Any) -> Any:
    """What a method of the value returns; `nothing` where there is none, or it fails."""
    function = _method(value, method)
    if function is None:
        return nothing
    try:
        return function(**options)
    except NotImplementedError:
        return nothing
    except Exception:  # noqa: BLE001 - as in the editor: reported on stderr, and shown another way
        traceback.print_exc()
        return nothing


def safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - a value that cannot be shown is not a failure
        traceback.print_exc()
        return f"<{type(value).__name__}: its repr() raised {type(error).__name__}>"
