"""What a notebook shows, as the editor would show it, without a kernel.

IPython's formatters decide how a value looks, and libraries that look for a kernel find one
(`shell`). Both import IPython, so neither happens before it is needed: a value with its own
representation (``_repr_html_``), a number or a string is shown without it.

If the interpreter has no IPython, such values and figures are still shown.

Only this module imports IPython in the fresh process, and lazily. Python 3.10 and later.
"""

from __future__ import annotations

import base64
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from research_jobs.runtime import figures, vega
from research_jobs.runtime.browsers import Browser
from research_jobs.runtime.capture import Recorder
from research_jobs.runtime.formats import safe_repr, simple_format

if TYPE_CHECKING:
    from research_jobs.runtime.shell import Shell

__all__ = [
    "SHELL_MODULE",
    "Display",
    "display_environment",
    "display_modules",
    "has_ipython",
    "promise_shell",
]

SHELL_MODULE = "IPython.core.interactiveshell"
PLOTLY_MIME = "application/vnd.plotly.v1+json"
# The script that a page needs to show an output, and its place in the library.
_SCRIPTS = (
    (PLOTLY_MIME, "plotly", "package_data/plotly.min.js"),
    ("application/vnd.bokehjs_exec.v0+json", "bokeh", "server/static/js/bokeh.min.js"),
)
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
INLINE_BACKEND = "module://matplotlib_inline.backend_inline"


def has_ipython() -> bool:
    """Whether IPython can be imported, without importing it."""
    if "IPython" in sys.modules:
        return sys.modules["IPython"] is not None  # pyright: ignore[reportUnnecessaryComparison]
    try:
        return importlib.util.find_spec("IPython") is not None
    except (ImportError, ValueError):
        return False


def display_environment() -> dict[str, str]:
    """Environment variables that tell libraries where to show their figures.

    A process that imports matplotlib or plotly ahead of the notebook (a template) sets them
    first.

    Returns
    -------
    dict of str to str
        Those that are not set, or set to a value that only means "there is no screen".
    """
    wanted: dict[str, str] = {}
    backend = os.environ.get("MPLBACKEND", "")
    if backend.lower() in ("", "agg"):
        inline = has_ipython() and _found("matplotlib_inline")
        wanted["MPLBACKEND"] = INLINE_BACKEND if inline else figures.BACKEND
    if not os.environ.get("PLOTLY_RENDERER"):
        # The editor's choice. Other renderers write the whole script into every output.
        wanted["PLOTLY_RENDERER"] = "plotly_mimetype"
    return wanted


def display_modules(modules: Iterable[str]) -> tuple[str, ...]:
    """Modules that a template should import in addition to the project's own.

    A notebook's first figure needs IPython and matplotlib's drawing code, which would cost every
    such run 0.1 s.

    Parameters
    ----------
    modules : iterable of str
        The modules that the project's notebooks import.

    Returns
    -------
    tuple of str
        More modules; any of them may not be installed.
    """
    packages = {module.partition(".")[0] for module in modules}
    modules_to_add: list[str] = []
    if packages & {"IPython", "altair", "matplotlib", "plotly", "rich", "seaborn"}:
        modules_to_add += ["IPython", "IPython.core.pylabtools", "research_jobs.runtime.shell"]
    if packages & {"matplotlib", "seaborn"}:
        modules_to_add += [
            "matplotlib.pyplot",
            "matplotlib.backends.backend_agg",
            "matplotlib.font_manager",
            "PIL.PngImagePlugin",
        ]
    return tuple(modules_to_add)


def _found(module: str) -> bool:
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class Display:
    """Formats what cells show and passes it to a recorder.

    Parameters
    ----------
    recorder : Recorder
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.user_namespace: dict[str, Any] = {}
        self.execution_count = 0
        self._shell: Shell | None = None
        self._widgets: list[tuple[str, Any]] = []
        self._assets: set[str] = set()
        self._stand_in = _STAND_IN(self)
        self.browser = Browser(self)
        self._preloaded = SHELL_MODULE in sys.modules

    # -- what the importer calls ------------------------------------------------------------

    def namespace(self, namespace: dict[str, Any]) -> None:
        """The namespace that the cells run in."""
        self.user_namespace = namespace

    def result(self, value: Any) -> None:
        """Show the value of a cell's bare last expression."""
        if value is None or not self.recorder.active:
            return
        data, metadata = self.format(value)
        if data:
            self.publish(data, metadata, output_type="execute_result")

    def finish_cell(self) -> None:
        """Do what the editor does when a cell ends: show its figures, settle its widgets."""
        self.execution_count += 1
        if self._shell is not None:
            self._shell.finish_cell()
        if figures.BACKEND_MODULE in sys.modules:
            figures.flush()
        self.browser.settle()
        self._settle_widgets()

    # -- showing ----------------------------------------------------------------------------

    def format(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A value's representations by mime type, and their metadata."""
        if self._shell is None:
            # Without a shell, nothing can have customized the formatters.
            simple = simple_format(value)
            if simple is not None:
                return simple
            if not has_ipython():
                return {"text/plain": safe_repr(value)}, {}
        return self.shell.formats(value)

    def publish(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        output_type: str = "display_data",
        display_id: str | None = None,
        update: bool = False,
    ) -> None:
        """Record representations that are ready."""
        if not self.recorder.active:
            return
        ready: dict[str, Any] = {
            str(mime): base64.b64encode(item).decode() if isinstance(item, bytes) else item
            for mime, item in data.items()
        }
        self._note_assets(ready)
        widget = ready.get(WIDGET_MIME)
        if isinstance(widget, dict) and display_id is None:
            # A widget keeps changing: its text is taken again when the cell ends.
            display_id = f"widget-{widget.get('model_id')}"
            self._widgets.append((display_id, _widget(widget.get("model_id"))))
        if "image/svg+xml" not in ready:
            drawing = vega.draw(ready)
            if drawing is not None:
                ready["image/svg+xml"] = drawing
        self.recorder.display(
            ready, metadata, output_type=output_type, display_id=display_id, update=update
        )

    def show(self, *objects: Any, **options: Any) -> Any:
        """``display()``, which notebooks use without an import."""
        if options or self._shell is not None:
            if has_ipython():
                from IPython.display import display

                self.shell  # noqa: B018 - there must be one before IPython looks for it
                return display(*objects, **options)
            return self._show_without(objects, options)
        if self.recorder.active:
            for value in objects:
                data, metadata = self.format(value)
                if data:
                    self.publish(data, metadata)
        return None

    def _show_without(self, objects: tuple[Any, ...], options: dict[str, Any]) -> None:
        """``display()`` with options where there is no IPython."""
        if options.get("clear"):
            self.recorder.clear(wait=True)
        for value in objects:
            data, metadata = (value, {}) if options.get("raw") else self.format(value)
            metadata = {**metadata, **(options.get("metadata") or {})}
            display_id = options.get("display_id")
            self.publish(
                data,
                metadata,
                display_id=display_id if isinstance(display_id, str) else None,
                update=bool(options.get("update")),
            )

    @property
    def shell(self) -> Shell:
        """Shell: the value of ``get_ipython()``; created on first use."""
        if self._shell is None:
            from research_jobs.runtime.shell import make_shell

            _withdraw_promise()
            self._shell = make_shell(self)
        return self._shell

    def find_shell(self) -> Any:
        """The value of ``get_ipython()``: the shell, or a stand-in until one is needed.

        pandas and rich only ask for the kind of the shell, for which the stand-in is enough.
        """
        if self._shell is None and (self._preloaded or SHELL_MODULE not in sys.modules):
            return self._stand_in
        return self.shell

    def close(self) -> None:
        """Take the shell out of IPython again."""
        _withdraw_promise()
        if self._shell is not None:
            self._shell.close()
            self._shell = None

    def _settle_widgets(self) -> None:
        for display_id, value in self._widgets:
            if value is None:
                continue
            data, metadata = self.format(value)
            if data:
                self.publish(data, metadata, display_id=display_id, update=True)
        self._widgets = []

    def _note_assets(self, data: Mapping[str, Any]) -> None:
        """Record the paths of the scripts that draw an output, in the version that made it."""
        for mime, name, place in _SCRIPTS:
            if mime in data and name not in self._assets:
                self._assets.add(name)
                package = sys.modules.get(name)
                if package is not None and package.__file__:
                    script = pathlib.Path(package.__file__).parent / place
                    self.recorder.asset(name, str(script))


def _widget(model_id: Any) -> Any:
    """The ipywidgets widget with an id; None if there is none."""
    module = sys.modules.get("ipywidgets.widgets.widget")
    known: Any = getattr(module, "_instances", None)
    return known.get(model_id) if isinstance(known, dict) else None


def _stand_in_attribute(self: Any, name: str) -> Any:
    if name == "kernel":
        return None
    return getattr(self.__dict__["_shown"].shell, name)


def _stand_in_init(self: Any, shown: Display) -> None:
    self.__dict__["_shown"] = shown


# Libraries check the class's name and module; anything else creates the real shell.
_STAND_IN = type(
    "ZMQInteractiveShell",
    (),
    {
        "__module__": "ipykernel.zmqshell",
        "__init__": _stand_in_init,
        "__getattr__": _stand_in_attribute,
    },
)


def promise_shell(shown: Display) -> None:
    """Make IPython report a shell, which is created on first use."""
    cls: Any = sys.modules[SHELL_MODULE].InteractiveShell
    cls.initialized = classmethod(lambda _cls: True)
    cls.instance = classmethod(lambda _cls, *_args, **_options: shown.shell)


def _withdraw_promise() -> None:
    module: Any = sys.modules.get(SHELL_MODULE)
    for name in ("initialized", "instance"):
        if module is not None and name in module.InteractiveShell.__dict__:
            delattr(module.InteractiveShell, name)
