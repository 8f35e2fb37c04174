"""IPython in a kept process: at a terminal's prompt, or as a Jupyter kernel.

Imported only for a visit: it imports IPython, and for a kernel ipykernel.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from traitlets.config import Config

from research_jobs.runtime.channel import send_message
from research_jobs.runtime.fresh import standard_streams
from research_jobs.runtime.remaining import Position, Remaining

__all__ = ["open_kernel", "open_terminal"]


class _Prompt(TerminalInteractiveShell):
    """IPython's terminal shell, which leaves nothing on the disk."""

    def init_ipython_dir(self, ipython_dir: Any) -> None: ...

    def init_profile_dir(self, profile_dir: Any) -> None: ...

    def init_virtualenv(self) -> None: ...

    def init_history(self) -> None:
        self.history_manager = HistoryManager(
            shell=self, parent=self, enabled=False, hist_file=":memory:"
        )


def open_terminal(
    connection: socket.socket, descriptors: Sequence[int], rest: Remaining, position: Position
) -> None:
    """A prompt on a visitor's terminal, until they leave it or their connection ends.

    Parameters
    ----------
    connection : socket
    descriptors : sequence of int
        The terminal's stdin, stdout and stderr.
    rest : Remaining
    position : Position
    """
    assert position.module is not None
    loop = _loop()
    with _standing_in(descriptors), _only_shell(), _own_names(position.module):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shell: Any = _Prompt.instance(
            user_module=position.module,
            user_ns=vars(position.module),
            simple_prompt=not (sys.stdin.isatty() and sys.stdout.isatty()),
            banner1="",
            confirm_exit=False,
            loop_runner=loop.run_until_complete,
        )
        try:
            _offer_remaining(shell, rest)
            with _when_closed(connection, lambda: _leave(shell)):
                send_message(connection, "Entered")
                shell.mainloop()
        finally:
            shell.restore_sys_module_state()
            _Prompt.clear_instance()


def open_kernel(
    connection: socket.socket, folder: Path, rest: Remaining, position: Position
) -> None:
    """A Jupyter kernel, until the visitor's connection ends or somebody shuts it down.

    Parameters
    ----------
    connection : socket
    folder : Path
        Takes the connection file and what IPython writes.
    rest : Remaining
    position : Position
    """
    try:
        from ipykernel.kernelapp import IPKernelApp
    except ModuleNotFoundError as error:
        what = f"a kernel needs {error.name}: {sys.executable} -m pip install ipykernel"
        send_message(connection, "Refused", text=what)
        return
    assert position.module is not None
    file = folder / "kernel.json"
    file.unlink(missing_ok=True)  # a new kernel has new keys
    _loop()
    with _only_shell(), _own_names(position.module):
        app: Any = IPKernelApp.instance(
            connection_file=str(file),
            log_level=50,
            config=Config({"HistoryManager": {"enabled": False}}),
            user_ns=vars(position.module),
        )
        try:
            with _ipython_folder(folder / "ipython"):
                app.initialize([])
            app.kernel.user_module = position.module
            app.kernel.user_ns = vars(position.module)
            app.shell.set_completer_frame()
            _show_figures(app.shell)
            _offer_remaining(app.shell, rest)
            with _when_closed(connection, lambda: _stop(app.kernel.io_loop)):
                send_message(connection, "Entered", file=str(file))
                app.start()
        finally:
            _close(app)


def _close(app: Any) -> None:
    """End a kernel, so that another may follow in this process."""
    kernel = app.kernel
    if kernel is not None:
        with contextlib.suppress(Exception):
            # The event loop goes on, and must not know a descriptor that is used again.
            kernel.shell_stream.close()
    with contextlib.suppress(Exception):
        app.close()
    for one in (getattr(app, "shell", None), kernel, app):
        if one is not None:
            type(one).clear_instance()


@contextlib.contextmanager
def _ipython_folder(folder: Path) -> Generator[None]:
    """With a folder for what IPython writes: its profile, and the history."""
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["IPYTHONDIR"]
        else:
            os.environ["IPYTHONDIR"] = before


def _offer_remaining(shell: Any, rest: Remaining) -> None:
    """``%failed`` and ``%remaining``; cells that await run in the shell's own event loop."""
    # At the end it would clear the notebook's namespace.
    shell._atexit_once_called = True  # noqa: SLF001 - no public way
    atexit.unregister(shell.atexit_operations)
    shell.notebook_cells = rest
    for what in ("failed", "remaining"):
        shell.register_magic_function(_Magic(rest, what), "line", what)

    def transform(lines: list[str]) -> list[str]:
        word = "".join(lines).strip()
        if word in ("%failed", "%remaining") and rest.awaits(word[1:]):
            return [f"await get_ipython().notebook_cells.run_async({word[1:]!r})\n"]
        return lines

    shell.input_transformers_cleanup.append(transform)


class _Magic:
    """Runs cells of the notebook's file, as it is now."""

    def __init__(self, rest: Remaining, what: str) -> None:
        self._rest, self._what = rest, what

    def __call__(self, _line: str = "") -> None:
        __tracebackhide__ = True  # the user's cells are what a traceback shows
        self._rest.run(self._what)


def _show_figures(shell: Any) -> None:
    if "matplotlib" in sys.modules:
        with contextlib.suppress(Exception):
            shell.enable_matplotlib("inline")


@contextlib.contextmanager
def _own_names(module: ModuleType) -> Generator[None]:
    """Without the names that IPython adds, and with what the notebook itself calls so."""
    before = dict(vars(module))
    try:
        yield
    finally:
        for name in ("In", "Out", "get_ipython", "exit", "quit", "open"):
            if name in before:
                vars(module)[name] = before[name]
            else:
                vars(module).pop(name, None)


@contextlib.contextmanager
def _only_shell() -> Generator[None]:
    """Without the shell that the run may have left."""
    if InteractiveShell.initialized():
        type(InteractiveShell.instance()).clear_instance()
    yield


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of the notebook's cells, where one is open, or a new one."""
    with contextlib.suppress(RuntimeError), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where there is none
        loop = asyncio.get_event_loop()
        if not loop.is_closed():
            return loop
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop


@contextlib.contextmanager
def _standing_in(descriptors: Sequence[int]) -> Generator[None]:
    """With other standard streams."""
    before = [os.dup(number) for number in range(3)]
    streams = {
        name: getattr(sys, name)
        for each in ("stdin", "stdout", "stderr")
        for name in (each, f"__{each}__")
    }
    _take_over(descriptors)
    standard_streams()
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        _take_over(before)
        for name, stream in streams.items():
            setattr(sys, name, stream)


def _take_over(descriptors: Sequence[int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)


@contextlib.contextmanager
def _when_closed(connection: socket.socket, then: Callable[[], object]) -> Generator[None]:
    """Call a function, in a thread, when the visitor's connection ends meanwhile."""
    over = threading.Event()
    own = connection.dup()

    def watch() -> None:
        with contextlib.suppress(OSError), own:
            while own.recv(4096):
                pass
        if not over.is_set():
            with contextlib.suppress(Exception):
                then()

    threading.Thread(target=watch, name="visitor", daemon=True).start()
    try:
        yield
    finally:
        over.set()
        with contextlib.suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)


def _stop(loop: Any) -> None:
    loop.add_callback(loop.stop)


def _leave(shell: Any) -> None:
    """End a prompt whose visitor has gone."""
    shell.keep_running = False
    app = getattr(shell.pt_app, "app", None)
    if app is not None and app.is_running:
        app.loop.call_soon_threadsafe(lambda: app.exit(exception=EOFError))
    else:
        os.kill(os.getpid(), signal.SIGINT)
