"""altair's charts as SVG, if the notebook's interpreter can render them.

altair writes a page that fetches vega from the network, which a report must not do. If
vl-convert-python is installed (altair's own way to save charts), the chart is rendered here, in
the notebook's process. Standard library only at the top, Python 3.10 and later.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["draw", "specification"]

_MIME = re.compile(r"application/vnd\.vegalite\.v\d+(?:\.\d+)*[+.]json")
# The call of the page's script with the chart. It is a whole line, so no data can look like it.
_CALL = re.compile(r"^[ \t]*\}\)\((?=\{)", re.MULTILINE)


def specification(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The Vega-Lite specification in an output; None if there is none.

    Parameters
    ----------
    data : mapping
        Representations by mime type: altair's own type, or the page that it writes.
    """
    for mime, value in data.items():
        if _MIME.match(mime) and isinstance(value, dict):
            return cast("dict[str, Any]", value)
    page = data.get("text/html")
    if not isinstance(page, str) or "vegaEmbed" not in page:
        return None
    call = _CALL.search(page)
    if call is None:
        return None
    try:
        value, _ = json.JSONDecoder().raw_decode(page, call.end())
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def draw(data: Mapping[str, Any]) -> str | None:
    """The chart in an output as SVG.

    Returns
    -------
    str or None
        None if there is no chart, or nothing installed to render it.
    """
    chart = specification(data)
    if chart is None or importlib.util.find_spec("vl_convert") is None:
        return None
    try:
        import vl_convert  # pyright: ignore[reportMissingImports] - optional

        return str(vl_convert.vegalite_to_svg(chart))
    except Exception:  # noqa: BLE001 - the output is kept as it is
        return None
