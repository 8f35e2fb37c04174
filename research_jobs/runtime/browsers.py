"""What a notebook opens in a browser: batch has none, so the report shows it.

plotly's renderers that open a browser, or need one to render an image, show the chart itself.
Pages that other libraries (altair, bokeh, folium) pass to `webbrowser` are read and shown.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import http.client
import threading
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from research_jobs.runtime.shell import Shown

__all__ = ["Browser", "adapt_plotly", "adapt_webbrowser", "replace_attribute"]

_LIMIT = 32 * 1024 * 1024
_PATIENCE = 30.0
_LOCAL = ("127.0.0.1", "localhost", "::1", "0.0.0.0")  # noqa: S104 - compared, not listened on


def replace_attribute(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    """Set an attribute until `undo` is closed."""
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


class Browser:
    """Takes the place of every browser that `webbrowser` knows.

    Parameters
    ----------
    shown : Shown
    """

    name = "research_jobs"
    args = ()

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._fetching: list[threading.Thread] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        """Show a local page in the report; of any other page, only the URL."""
        del new, autoraise
        try:
            parts = urllib.parse.urlsplit(url)
        except ValueError:
            parts = urllib.parse.SplitResult("invalid", "", "", "", "")
        if parts.scheme in ("http", "https") and parts.hostname in _LOCAL:
            # A caller that serves this page itself answers only after this returns.
            thread = threading.Thread(target=self._fetch, args=(url,), daemon=True)
            thread.start()
            self._fetching.append(thread)
        elif parts.scheme in ("file", ""):
            self._read(Path(urllib.request.url2pathname(parts.path)))
        else:
            self._shown.recorder.note(
                f"The notebook tried to open {url} in a browser; batch has none."
            )
        return True

    def open_new(self, url: str) -> bool:
        """The same: there are no windows."""
        return self.open(url, 1)

    def open_new_tab(self, url: str) -> bool:
        """The same: there are no tabs."""
        return self.open(url, 2)

    def settle(self) -> None:
        """Wait for pages that are still loading, so that they stay with their cell."""
        for thread in self._fetching:
            thread.join(_PATIENCE)
        self._fetching.clear()

    def _fetch(self, url: str) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=_PATIENCE) as answer:
                self._show(answer.read(_LIMIT + 1), url)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._shown.recorder.note(f"The page {url} could not be shown: {error}")

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._show(file.read(_LIMIT + 1), str(path))
        except (OSError, ValueError) as error:
            self._shown.recorder.note(f"The page {path} could not be shown: {error}")

    def _show(self, content: bytes, place: str) -> None:
        if len(content) > _LIMIT or b"<" not in content[:4096]:
            self._shown.recorder.note(f"{place} was opened in a browser: it is not shown here.")
            return
        page = content.decode("utf-8", "replace")
        self._shown.publish({"text/html": page, "text/plain": f"<page {place}>"})


def adapt_webbrowser(module: Any, browser: Browser, undo: ExitStack) -> None:
    """Make `webbrowser` use our browser, whichever it is asked for."""

    def get(using: str | None = None) -> Browser:
        del using
        return browser

    replace_attribute(undo, module, "get", get)
    for name in ("open", "open_new", "open_new_tab"):
        replace_attribute(undo, module, name, getattr(browser, name))


def adapt_plotly(module: Any, shown: Shown, undo: ExitStack) -> None:
    """Make plotly's renderers that want a browser show the chart as the editor does."""

    def bundle(figure: Any, config: Any = None) -> dict[str, Any]:
        return module.PlotlyRenderer(config=config).to_mimebundle(figure)

    def render(self: Any, fig_dict: Any) -> None:
        shown.publish(bundle(fig_dict, getattr(self, "config", None)))

    for name in ("BrowserRenderer", "DatabricksRenderer"):
        if hasattr(module, name):
            replace_attribute(undo, getattr(module, name), "render", render)
    images = getattr(module, "ImageRenderer", None)
    if images is None:
        return
    draw = images.to_mimebundle

    def to_mimebundle(self: Any, fig_dict: Any) -> dict[str, Any]:
        try:
            return draw(self, fig_dict)
        except Exception as error:  # noqa: BLE001 - without a browser it may raise anything
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            shown.recorder.note(f"plotly could not render an image ({first}); here is the chart.")
            return bundle(fig_dict)

    replace_attribute(undo, images, "to_mimebundle", to_mimebundle)
