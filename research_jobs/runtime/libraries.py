"""The editor's environment for libraries: a shell, a browser, additional builtins.

Nothing is imported for this. An imported library is adapted at once, any other when it is
imported.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from research_jobs.runtime import figures, reading
from research_jobs.runtime.after_import import AfterImport
from research_jobs.runtime.browsers import adapt_plotly, adapt_webbrowser, replace_attribute
from research_jobs.runtime.capture import Recorder
from research_jobs.runtime.display import (
    SHELL_MODULE,
    Display,
    display_environment,
    has_ipython,
    promise_shell,
)

__all__ = ["open_display"]

_MISSING = object()

_Adapter: TypeAlias = Callable[[Any], None]


@contextmanager
def open_display(recorder: Recorder) -> Generator[Display]:
    """Provide notebooks and libraries with what they find in the editor.

    Parameters
    ----------
    recorder : Recorder
        Receives what is shown.

    Yields
    ------
    Display
    """
    shown = Display(recorder)
    with ExitStack() as undo:
        names: dict[str, Any] = {"display": shown.show}
        if has_ipython():
            names |= {"get_ipython": shown.find_shell, "__IPYTHON__": True}
        for name, value in names.items():
            undo.callback(_restore, name, getattr(builtins, name, _MISSING))
            setattr(builtins, name, value)
        environment = display_environment()
        for name in environment:
            undo.callback(_restore_variable, name, os.environ.get(name))
        os.environ.update(environment)
        undo.callback(shown.close)
        replace_attribute(undo, figures, "publish", shown.publish if recorder.active else None)
        _tell_imported(environment)
        reading.watch_open(undo)
        adapters = _adapters(shown, undo)
        hook = AfterImport(adapters.__contains__, lambda module: adapters[module.__name__](module))
        sys.meta_path.insert(0, hook)  # pyright: ignore[reportArgumentType]
        undo.callback(_remove, hook)
        yield shown


def _adapters(shown: Display, undo: ExitStack) -> dict[str, _Adapter]:
    """Register what to do when libraries are imported, and do it now for those that are."""
    adapters: dict[str, _Adapter] = {
        "webbrowser": lambda module: adapt_webbrowser(module, shown.browser, undo),
        "plotly.io._base_renderers": lambda module: adapt_plotly(module, shown, undo),
        "ipywidgets.widgets.widget_output": lambda module: _adapt_outputs(module, shown, undo),
    }
    adapters |= reading.adapters(undo)
    if has_ipython():
        adapters[SHELL_MODULE] = lambda _module: promise_shell(shown)
    for name in list(adapters):
        module = sys.modules.get(name)
        if module is not None:
            adapters.pop(name)(module)
    return adapters


def _adapt_outputs(module: Any, shown: Display, undo: ExitStack) -> None:
    """Separate an output widget's content from its cell's."""
    enter, leave = module.Output.__enter__, module.Output.__exit__

    def entered_area(self: Any) -> Any:
        entered = enter(self)
        shown.recorder.enter(str(self.model_id))
        return entered

    def left_area(self: Any, *error: Any) -> Any:
        try:
            return leave(self, *error)
        finally:
            shown.recorder.leave()

    replace_attribute(undo, module.Output, "__enter__", entered_area)
    replace_attribute(undo, module.Output, "__exit__", left_area)


def _tell_imported(environment: Mapping[str, str]) -> None:
    """Configure libraries that were imported, and read their variables, before the run."""
    # It looks for the shell only on import, so it must be imported again.
    sys.modules.pop("matplotlib_inline.backend_inline", None)
    renderers = sys.modules.get("plotly.io._renderers")
    if renderers is not None and "PLOTLY_RENDERER" in environment:
        renderers.renderers.default = environment["PLOTLY_RENDERER"]
    matplotlib = sys.modules.get("matplotlib")
    if matplotlib is not None and "MPLBACKEND" in environment:
        chosen = matplotlib.rcParams._get("backend")  # noqa: SLF001 - reading it resolves it
        if not isinstance(chosen, str) or chosen.lower() == "agg":
            matplotlib.rcParams["backend"] = environment["MPLBACKEND"]
    pandas = sys.modules.get("pandas")
    if pandas is not None and pandas.get_option("display.max_columns") == 0:
        # Its default for a terminal; for a kernel it is 20.
        pandas.set_option("display.max_columns", 20)


def _restore(name: str, value: Any) -> None:
    if value is _MISSING:
        delattr(builtins, name)
    else:
        setattr(builtins, name, value)


def _restore_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _remove(hook: AfterImport) -> None:
    if hook in sys.meta_path:
        sys.meta_path.remove(hook)  # pyright: ignore[reportArgumentType]
