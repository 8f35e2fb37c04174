"""The value of ``get_ipython()``: an IPython shell that looks like a kernel's to libraries.

It is IPython's own shell class, so formatters, events, magics and configuration are real. It does
not touch the machine or the notebook's namespace: there is no profile folder, no history file, no
completer, and no ``In``/``Out``/``_`` among the notebook's names.

Imported only when something needs IPython.
"""

from __future__ import annotations

import atexit
import sys
import traceback
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import DisplayFormatter
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from research_jobs.runtime.formats import add_alt

if TYPE_CHECKING:
    from research_jobs.runtime.capture import Recorder

__all__ = ["Shell", "make_shell"]

# Kernel features that notebooks call through get_ipython() and batch does not need.
_QUIET_MAGICS = frozenset({"autoreload", "load_ext", "reload_ext", "unload_ext", "matplotlib"})


class Shown(Protocol):
    """Receives what the shell shows (`display.Display`)."""

    @property
    def recorder(self) -> Recorder: ...
    @property
    def user_namespace(self) -> dict[str, Any]: ...
    @property
    def execution_count(self) -> int: ...
    def result(self, value: Any) -> None: ...
    def publish(
        self,
        data: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        output_type: str = "display_data",
        display_id: str | None = None,
        update: bool = False,
    ) -> None: ...


class _Publisher(DisplayPublisher):
    """Passes what is displayed to the recorder."""

    def publish(  # pyright: ignore[reportIncompatibleMethodOverride] - versions differ
        self,
        data: Any,
        metadata: Any = None,
        source: Any = None,
        *,
        transient: Any = None,
        update: bool = False,
        **_options: Any,
    ) -> None:
        del source
        assert isinstance(self.shell, Shell)
        shown = self.shell.shown
        display_id = (transient or {}).get("display_id")
        shown.publish(data, metadata, display_id=display_id, update=update)

    def clear_output(self, wait: bool = False) -> None:
        assert isinstance(self.shell, Shell)
        self.shell.shown.recorder.clear(wait=wait)


class _Formatter(DisplayFormatter):
    """IPython's formatters, idle if nothing is recorded."""

    def format(self, obj: Any, include: Any = None, exclude: Any = None) -> Any:
        assert isinstance(self.parent, Shell)
        if not self.parent.shown.recorder.active:
            return {}, {}
        data, metadata = super().format(obj, include=include, exclude=exclude)
        add_alt(obj, data, metadata)
        return data, metadata


class _Result:
    """The shell's ``sys.displayhook``."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.exec_result = None

    def __call__(self, value: Any = None) -> None:
        self.shell.shown.result(value)


class _Comms:
    """A comm manager without a frontend."""

    def register_target(self, *_args: Any, **_options: Any) -> None: ...

    def unregister_target(self, *_args: Any, **_options: Any) -> None: ...


class Shell(InteractiveShell):
    """IPython's shell without a terminal, a profile or a history."""

    shown: Shown

    def __init__(self, shown: Shown) -> None:
        self.shown = shown
        module = ModuleType("__main__")
        module.__dict__.update(shown.user_namespace)
        config = Config({"IPKernelApp": {"connection_file": ""}})
        super().__init__(user_module=module, user_ns=shown.user_namespace, config=config)
        # At exit it would clear the notebook's namespace, which exit handlers may use.
        atexit.unregister(self.atexit_operations)
        self.kernel = SimpleNamespace(
            shell=self,
            session=None,
            iopub_socket=None,
            comm_manager=_Comms(),
            get_parent=lambda *_args: {},
        )
        self.parent_header: dict[str, Any] = {}

    # Terminal setup, which a batch run must not do.

    def init_ipython_dir(self, ipython_dir: Any) -> None: ...

    def init_profile_dir(self, profile_dir: Any) -> None: ...

    def init_environment(self) -> None: ...

    def init_virtualenv(self) -> None: ...

    def init_sys_modules(self) -> None: ...

    def init_user_ns(self) -> None: ...

    def init_builtins(self) -> None:
        from IPython.core.builtin_trap import BuiltinTrap

        self.builtin_trap = BuiltinTrap(shell=self)

    def init_completer(self) -> None: ...

    def init_logstart(self) -> None: ...

    def init_history(self) -> None:
        self.history_manager = HistoryManager(
            shell=self, parent=self, enabled=False, hist_file=":memory:"
        )

    def init_display_formatter(self) -> None:
        self.display_formatter = _Formatter(parent=self)
        self.configurables.append(self.display_formatter)  # pyright: ignore[reportArgumentType]

    def init_display_pub(self) -> None:
        self.display_pub = _Publisher(parent=self, shell=self)

    def init_displayhook(self) -> None:
        from IPython.core.display_trap import DisplayTrap

        self.displayhook = _Result(self)
        self.display_trap = DisplayTrap(hook=self.displayhook)

    # Called by notebooks and libraries.

    def formats(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A value's representations and their metadata, by mime type."""
        formatter: Any = self.display_formatter
        return formatter.format(value)

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        if magic_name in _QUIET_MAGICS:
            return None
        return super().run_line_magic(magic_name, line, _stack_depth)

    def enable_gui(self, gui: Any = None) -> None: ...

    def showtraceback(self, *args: Any, **_options: Any) -> None:
        given = args[0] if args else None
        kind, error, trace = given or sys.exc_info()
        if kind is not None:
            traceback.print_exception(kind, error, trace)

    def finish_cell(self) -> None:
        """Trigger the events of a cell's end, which show matplotlib's figures."""
        self.events.trigger("post_execute")
        self.events.trigger("post_run_cell", SimpleNamespace(success=True, result=None))
        self.execution_count = self.shown.execution_count + 1

    def close(self) -> None:
        """Remove this shell from IPython's singleton, and undo its hooks."""
        self.restore_sys_module_state()
        type(self).clear_instance()


def make_shell(shown: Shown) -> Shell:
    """Install the shell where IPython looks for one.

    Libraries recognize a kernel by the class's name and module.
    """
    kind = type("ZMQInteractiveShell", (Shell,), {"__module__": "ipykernel.zmqshell"})
    InteractiveShell.clear_instance()
    shell: Shell = kind(shown)
    # As SingletonConfigurable.instance() does: the class and its parents share one shell.
    for cls in kind.__mro__:
        if issubclass(cls, InteractiveShell):
            setattr(cls, "_instance", shell)  # noqa: B010 - a plain assignment has no type
    shell.execution_count = shown.execution_count + 1
    return shell
