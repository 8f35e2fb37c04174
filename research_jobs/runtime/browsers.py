"""What a notebook shows in a browser: batch has none, so it is shown in the report.

plotly's renderers that open a browser, or need one to draw a picture, show the chart itself. What
any other library (altair, bokeh, folium) hands to `webbrowser` is read and shown as a page.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

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
        """Show a local page in the report; of any other only the address is noted."""
        del new, autoraise
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname in _LOCAL:
            # Who has started a server for this page answers only when this has returned.
            thread = threading.Thread(target=self._fetch, args=(url,), daemon=True)
            thread.start()
            self._fetching.append(thread)
        elif parts.scheme in ("file", ""):
            self._read(Path(urllib.request.url2pathname(parts.path)))
        else:
            self._shown.recorder.note(f"A browser was asked to open {url}: batch has none.")
        return True

    def open_new(self, url: str) -> bool:
        """The same: there are no windows."""
        return self.open(url, 1)

    def open_new_tab(self, url: str) -> bool:
        """The same: there are no tabs."""
        return self.open(url, 2)

    def settle(self) -> None:
        """Wait for pages that are on their way, so that they stay with their cell."""
        for thread in self._fetching:
            thread.join(_PATIENCE)
        self._fetching.clear()

    def _fetch(self, url: str) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=_PATIENCE) as answer:
                self._show(answer.read(_LIMIT + 1), url)
        except (OSError, ValueError) as error:
            self._shown.recorder.note(f"The page {url} could not be shown: {error}")

    def _read(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._show(file.read(_LIMIT + 1), str(path))
        except OSError as error:
            self._shown.recorder.note(f"The page {path} could not be shown: {error}")

    def _show(self, content: bytes, place: str) -> None:
        if len(content) > _LIMIT or b"<" not in content[:4096]:
            self._shown.recorder.note(f"{place} was opened in a browser: it is not shown here.")
            return
        page = content.decode("utf-8", "replace")
        self._shown.publish({"text/html": page, "text/plain": f"<page {place}>"})


def adapt_webbrowser(module: Any, browser: Browser, undo: ExitStack) -> None:
    """Let `webbrowser` find our browser, whichever it is asked for."""

    def get(using: str | None = None) -> Browser:
        del using
        return browser

    replace_attribute(undo, module, "get", get)
    for name in ("open", "open_new", "open_new_tab"):
        replace_attribute(undo, module, name, getattr(browser, name))


def adapt_plotly(module: Any, shown: Shown, undo: ExitStack) -> None:
    """Have plotly's renderers that want a browser show the chart as the editor does."""

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
        except Exception as error:  # noqa: BLE001 - without a browser it raises what it likes
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            shown.recorder.note(f"plotly could not draw a picture ({first}): here is the chart.")
            return bundle(fig_dict)

    replace_attribute(undo, images, "to_mimebundle", to_mimebundle)
