"""Import a notebook with importlib, cell by cell.

A cell sees what a plain import would give it: the module in ``sys.modules``, its ``__spec__``,
``__file__`` and real line numbers. In addition a cell shows what it would show in the editor
(the value of a bare last expression, figures, ``display()``), and ``await`` works at the top
level.

Two things differ from the editor: there is no ``_`` or ``Out`` (earlier results by number), and
``__name__`` is the module's name, not ``__main__``.

Standard library only, Python 3.10 and later: the fresh process imports this.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import linecache
import reprlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from research_jobs.errors import ParameterError, SourceLocation
from research_jobs.notebook.cells import Cell, NotebookText
from research_jobs.run_context import NotebookSkipped
from research_jobs.runtime.capture import NullRecorder, Recorder
from research_jobs.runtime.compiling import CompiledCell, awaits, compile_notebook
from research_jobs.runtime.display import Display
from research_jobs.runtime.failure import describe_failure
from research_jobs.runtime.libraries import open_display
from research_jobs.runtime.streams import capture_streams

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "NullRecorder",
    "Recorder",
    "describe_failure",
    "import_notebook",
    "prime_linecache",
    "set_parameters",
]

PARAMETERS_TAG = "parameters"


def import_notebook(
    text: NotebookText,
    module: str,
    *,
    recorder: Recorder | None = None,
    parameters: Mapping[str, Any] = {},
    parameter_types: Mapping[str, str] = {},
    on_module: Callable[[ModuleType], None] | None = None,
    on_cell: Callable[[Cell], None] | None = None,
    keep_loop: bool = False,
) -> tuple[ModuleType, dict[str, str]]:
    """Import a notebook under a module name, cell by cell.

    Parameters
    ----------
    text : NotebookText
        The file's text, read once: it is what runs and what tracebacks show.
    module : str
        Its name in ``sys.modules``, ``"volatility.garch"``.
    recorder : Recorder, optional
        Receives what the cells show.
    parameters : mapping
        JSON values, set right after the cell tagged ``parameters`` has run.
    parameter_types : mapping of str to str
        The type each is converted to; by default that of the cell's own value.
    on_module : callable, optional
        Called with the notebook's module before its first cell runs.
    on_cell : callable, optional
        Called with each code cell just before it runs.
    keep_loop : bool
        Whether the event loop of cells that await stays open, and this thread's, when one fails.

    Returns
    -------
    (ModuleType, dict of str to str)
        The module, and the parameters used, as short text.

    Raises
    ------
    ParameterError
        When there are values but no cell tagged ``parameters``.
    BaseException
        Whatever the notebook raises, `NotebookSkipped`, SystemExit and KeyboardInterrupt included.
    """
    taker = recorder if recorder is not None else NullRecorder()
    taker.start(text.cells)
    prime_linecache(text)
    with capture_streams(taker), open_display(taker) as display:
        loader = _Loader(module, text, taker, display, parameters, parameter_types)
        loader.on_module, loader.on_cell, loader.keep_loop = on_module, on_cell, keep_loop
        finder = _Finder(module, loader)
        sys.meta_path.insert(0, finder)
        sys.modules.pop(module, None)
        try:
            loaded = _import(module, finder)
        finally:
            sys.meta_path.remove(finder)
    return loaded, loader.used


def _annotation(module: ModuleType, name: str) -> Any:
    """A parameter's annotation: the only source for an Enum whose default is ``None``."""
    try:
        return module.__annotations__.get(name)
    except (AttributeError, NameError):  # there is none, or it cannot be evaluated
        return None


def prime_linecache(text: NotebookText) -> None:
    """Make tracebacks and ``inspect`` show what ran, even if the file is edited or deleted."""
    lines = text.text.splitlines(keepends=True)
    # Without a modification time checkcache() keeps the entry.
    linecache.cache[str(text.path)] = (len(text.text), None, lines, str(text.path))


class _Finder:
    """Finds this one module only."""

    def __init__(self, module: str, loader: _Loader) -> None:
        self._module = module
        self._loader = loader

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        return self.spec() if fullname == self._module else None

    def spec(self) -> importlib.machinery.ModuleSpec:
        path = str(self._loader.text.path)
        spec = importlib.util.spec_from_file_location(self._module, path, loader=self._loader)
        assert spec is not None
        spec.cached = importlib.util.cache_from_source(path)
        return spec


def _import(module: str, finder: _Finder) -> ModuleType:
    parent = module.rpartition(".")[0]
    if parent:
        try:
            package = importlib.import_module(parent)
        except ModuleNotFoundError as error:
            if error.name is None or not (parent + ".").startswith(error.name + "."):
                raise
            package = None
        if package is None or not hasattr(package, "__path__"):
            # The folder has the name of another module (``notebooks/random/walk.py``): importlib
            # cannot find the notebook below it, but it must run.
            return _load(finder.spec())
    return importlib.import_module(module)


def _load(spec: importlib.machinery.ModuleSpec) -> ModuleType:
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    assert spec.loader is not None
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(spec.name, None)
        raise
    return sys.modules.get(spec.name, module)


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs the cells in the module's namespace; otherwise a loader for any source file."""

    def __init__(
        self,
        module: str,
        text: NotebookText,
        recorder: Recorder,
        display: Display,
        parameters: Mapping[str, Any],
        parameter_types: Mapping[str, str],
    ) -> None:
        super().__init__(module, str(text.path))
        self.text = text
        self.used: dict[str, str] = {}
        self._recorder = recorder
        self._display = display
        self._parameters = parameters
        self._parameter_types = parameter_types
        self.on_module: Callable[[ModuleType], None] | None = None
        self.on_cell: Callable[[Cell], None] | None = None
        self.keep_loop = False
        self._annotators: list[Callable[[Any], dict[str, Any]]] = []

    # importlib's protocol

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            # A pool that a cell creates pickles the notebook's functions in its own thread, which
            # imports the notebook. It must find the module without waiting for the import, which
            # waits for the pool.
            module.__spec__._initializing = False  # type: ignore[attr-defined]  # noqa: SLF001
        compiled = compile_notebook(self.text)
        cells = compiled.cells
        if self._parameters and not any(PARAMETERS_TAG in cell.cell.tags for cell in cells):
            raise ParameterError(
                f"parameters {', '.join(self._parameters)} are given, but no cell takes them",
                where=SourceLocation(str(self.text.path)),
                hint='Tag the cell with their defaults: # %% tags=["parameters"].',
            )
        self._display.namespace(module.__dict__)
        if self.on_module is not None:
            self.on_module(module)
        if compiled.docstring is not None:
            exec(compiled.docstring, module.__dict__)  # noqa: S102 - running it is what we are for
        if any(cell.awaits for cell in cells):
            self._run_in_loop(cells, module)
        else:
            for cell in cells:
                self._run_cell(cell, module, None)

    def get_source(self, fullname: str) -> str:
        """The source as it was read, even if the file has changed since."""
        del fullname
        return self.text.text

    # cells

    def _run_in_loop(self, cells: Sequence[CompiledCell], module: ModuleType) -> None:
        """Run all cells inside one event loop, as the editor's kernel does.

        A cell can await a task that an earlier one started.
        """
        import asyncio

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        ended = False
        try:
            for cell in cells:
                self._run_cell(cell, module, loop)
            ended = True
        finally:
            if ended or not self.keep_loop:
                self._close_loop(loop)

    def _close_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        import asyncio

        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _run_cell(
        self, compiled: CompiledCell, module: ModuleType, loop: asyncio.AbstractEventLoop | None
    ) -> None:
        cell = compiled.cell
        if self.on_cell is not None:
            self.on_cell(cell)
        recorder = self._recorder
        recorder.begin_cell(cell.number)
        begun = time.perf_counter()
        status = "error"
        try:
            try:
                if loop is None:
                    self._run_code(compiled, module.__dict__)
                else:
                    loop.run_until_complete(self._run_code_async(compiled, module.__dict__))
                if PARAMETERS_TAG in cell.tags:
                    self._set_parameters(compiled, module)
                status = "ok"
            finally:
                # Figures drawn before an error are also shown.
                self._display.finish_cell()
        except NotebookSkipped:
            status = "skipped"
            raise
        except SystemExit as error:
            status = "ok" if error.code in (None, 0) else "error"
            raise
        except BaseException as error:
            self._record_error(error)
            raise
        finally:
            self._keep_annotations(module.__dict__)
            recorder.end_cell(cell.number, time.perf_counter() - begun, status)

    def _run_code(self, compiled: CompiledCell, namespace: dict[str, Any]) -> None:
        if compiled.body is not None:
            exec(compiled.body, namespace)  # noqa: S102 - running it is what we are for
        if compiled.shown is not None:
            value = eval(compiled.shown, namespace)  # noqa: S307 - likewise
            self._display.result(value)

    async def _run_code_async(self, compiled: CompiledCell, namespace: dict[str, Any]) -> None:
        if compiled.body is not None:
            pending = eval(compiled.body, namespace)  # noqa: S307 - likewise
            if awaits(compiled.body):
                await pending
        if compiled.shown is not None:
            value = eval(compiled.shown, namespace)  # noqa: S307 - likewise
            if awaits(compiled.shown):
                value = await value
            self._display.result(value)

    def _set_parameters(self, compiled: CompiledCell, module: ModuleType) -> None:
        set_parameters(module, self._parameters, self._parameter_types)
        namespace = module.__dict__
        names = dict.fromkeys((*compiled.assigned, *self._parameters))
        self.used.update({name: _short(namespace[name]) for name in names if name in namespace})

    def _record_error(self, error: BaseException) -> None:
        if not self._recorder.active:
            return
        failure = describe_failure(error, self.text, self.text.path.parent)
        _, _, message = failure.headline.partition(f"{type(error).__name__}: ")
        self._recorder.error(
            type(error).__name__, message, failure.traceback.split("\n"), failure.line
        )

    def _keep_annotations(self, namespace: dict[str, Any]) -> None:
        """Join the cells' annotations, which Python 3.14 keeps in a function."""
        if sys.version_info < (3, 14):
            return
        annotate = namespace.get("__annotate__")
        if annotate is None or annotate in self._annotators:
            return
        self._annotators.append(annotate)
        if len(self._annotators) > 1:
            parts = tuple(self._annotators)

            def joined(format: Any, /) -> dict[str, Any]:  # noqa: A002 - Python's own name
                annotations: dict[str, Any] = {}
                for part in parts:
                    annotations.update(part(format))
                return annotations

            self._annotators = [joined]
            namespace["__annotate__"] = joined


def set_parameters(
    module: ModuleType, parameters: Mapping[str, Any], types: Mapping[str, str]
) -> None:
    """Give a run's values to the parameters of a notebook, whose cell has run.

    Parameters
    ----------
    module : ModuleType
    parameters : mapping
        JSON values.
    types : mapping of str to str
        As for `import_notebook`.
    """
    from research_jobs.notebook.restoring import restore_parameter

    namespace = module.__dict__
    for name, value in parameters.items():
        kind = types.get(name, "any")
        annotation = _annotation(module, name) if kind == "enum" else None
        namespace[name] = restore_parameter(value, kind, namespace.get(name), annotation, name=name)


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 100
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = 10


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value if len(value) <= 100 else value[:97] + "..."
    return _Short().repr(value)
