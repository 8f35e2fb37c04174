"""What a notebook shows, as the editor would show it, without a kernel.

IPython's formatters decide how a value looks, and libraries that look for a kernel find one
(`shell`). Both cost an import of IPython, so neither happens before something needs them: a
value that says itself how it looks (``_repr_html_``), a number or a text is shown without.

Where the interpreter has no IPython at all, such values are still shown, and figures too.

IPython is imported lazily here and nowhere else in the fresh process. Python 3.10 and later.
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
# What a page needs to show an output, and where its library has it.
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
    """Variables by which libraries know where they show their figures.

    A process that imports matplotlib or plotly ahead of the notebook (a template) wants them
    set before it does.

    Returns
    -------
    dict of str to str
        Those that are not set yet, or set to what only means "there is no screen".
    """
    wanted: dict[str, str] = {}
    backend = os.environ.get("MPLBACKEND", "")
    if backend.lower() in ("", "agg"):
        inline = has_ipython() and _found("matplotlib_inline")
        wanted["MPLBACKEND"] = INLINE_BACKEND if inline else figures.BACKEND
    if not os.environ.get("PLOTLY_RENDERER"):
        # The editor's choice. Its other fallbacks write the whole script into every output.
        wanted["PLOTLY_RENDERER"] = "plotly_mimetype"
    return wanted


def display_modules(modules: Iterable[str]) -> tuple[str, ...]:
    """What a template is worth importing beside a project's own choice.

    The first figure of a notebook needs IPython and matplotlib's drawing code: 0.1 s that every
    run of such a notebook would pay.

    Parameters
    ----------
    modules : iterable of str
        What the project's notebooks import.

    Returns
    -------
    tuple of str
        Further modules; any of them may not be installed.
    """
    packages = {module.partition(".")[0] for module in modules}
    found: list[str] = []
    if packages & {"IPython", "altair", "matplotlib", "plotly", "rich", "seaborn"}:
        found += ["IPython", "IPython.core.pylabtools", "research_jobs.runtime.shell"]
    if packages & {"matplotlib", "seaborn"}:
        found += [
            "matplotlib.pyplot",
            "matplotlib.backends.backend_agg",
            "matplotlib.font_manager",
            "PIL.PngImagePlugin",
        ]
    return tuple(found)


def _found(module: str) -> bool:
    try:
        return module in sys.modules or importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class Display:
    """Formats what cells show and hands it to a recorder.

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
        """What the editor does when a cell ends: show its figures, settle its widgets."""
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
            # Nobody can have taught the formatters anything before there is a shell.
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
            mime: base64.b64encode(item).decode() if isinstance(item, bytes) else item
            for mime, item in data.items()
        }
        self._note_assets(ready)
        widget = ready.get(WIDGET_MIME)
        if widget is not None and display_id is None:
            # A widget goes on changing: its text is taken again when the cell ends.
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
        """``display()``, as notebooks have it without an import."""
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
        """Shell: what ``get_ipython()`` gives; made when first asked for."""
        if self._shell is None:
            from research_jobs.runtime.shell import make_shell

            _withdraw_promise()
            self._shell = make_shell(self)
        return self._shell

    def find_shell(self) -> Any:
        """What ``get_ipython()`` gives: the shell, or its stand-in while there is none.

        pandas and rich only ask what kind of shell it is: that is no reason to make one.
        """
        if self._shell is None and (self._preloaded or SHELL_MODULE not in sys.modules):
            return self._stand_in
        return self.shell

    @property
    def has_shell(self) -> bool:
        """bool: whether anything has asked for the shell yet."""
        return self._shell is not None

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
        """Say where the scripts are that draw an output, of the version that made it."""
        for mime, name, place in _SCRIPTS:
            if mime in data and name not in self._assets:
                self._assets.add(name)
                package = sys.modules.get(name)
                if package is not None and package.__file__:
                    script = pathlib.Path(package.__file__).parent / place
                    self.recorder.asset(name, str(script))


def _widget(model_id: Any) -> Any:
    """The ipywidgets widget with an id, None where it is not found."""
    module = sys.modules.get("ipywidgets.widgets.widget")
    known: Any = getattr(module, "_instances", None)
    return known.get(model_id) if isinstance(known, dict) else None


def _stand_in_attribute(self: Any, name: str) -> Any:
    if name == "kernel":
        return None
    return getattr(self.__dict__["_shown"].shell, name)


def _stand_in_init(self: Any, shown: Display) -> None:
    self.__dict__["_shown"] = shown


# Libraries go by the class's name and module; anything beyond that makes the real shell.
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
    """Let IPython say that there is a shell; it is made when it is first asked for."""
    cls: Any = sys.modules[SHELL_MODULE].InteractiveShell
    cls.initialized = classmethod(lambda _cls: True)
    cls.instance = classmethod(lambda _cls, *_args, **_options: shown.shell)


def _withdraw_promise() -> None:
    module: Any = sys.modules.get(SHELL_MODULE)
    for name in ("initialized", "instance"):
        if module is not None and name in module.InteractiveShell.__dict__:
            delattr(module.InteractiveShell, name)
