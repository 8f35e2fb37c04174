"""Where Dagster's webserver is wrapped, and where ``dagster dev`` is given other programs.

Dagster offers neither. Both are caught where they must pass whatever Dagster's own code looks
like: an application at uvicorn's configuration, a program at the start of its process. No name of
Dagster's own is touched. Each function changes the process that calls it for good, so it is for
programs that do nothing else; ``tests/orchestration/test_dagster_contract_webserver.py`` shows that
Dagster still goes this way.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["replace_programs", "wrap_applications"]

WEBSERVER = ("dagster_webserver",)
DAEMON = ("dagster._daemon",)
CODE_SERVER = ("dagster", "code-server", "start")


def wrap_applications(wrap: Callable[[Any, str], Any]) -> None:
    """Wrap every application that this process serves.

    Parameters
    ----------
    wrap : callable
        Takes the ASGI application and the host that it is served on; gives what is served.
    """
    import uvicorn

    configure = uvicorn.Config.__init__

    def configure_wrapped(
        self: uvicorn.Config, app: Any, host: str = "127.0.0.1", *rest: Any, **options: Any
    ) -> None:
        configure(self, wrap(app, host), host, *rest, **options)

    uvicorn.Config.__init__ = configure_wrapped


def replace_programs(modules: Mapping[Sequence[str], str]) -> None:
    """Let ``dagster dev``, run in this process, start other modules where it starts its own.

    Parameters
    ----------
    modules : mapping
        The words behind ``python -m`` of a program of Dagster's (`WEBSERVER` and so on), and the
        module that takes their place.
    """
    start = subprocess.Popen.__init__

    def start_ours(self: subprocess.Popen[Any], args: Any, *rest: Any, **options: Any) -> None:
        if isinstance(args, list):
            for words, module in modules.items():
                end = 2 + len(words)
                # A location in another environment lacks our modules.
                if args[:end] == [sys.executable, "-m", *words]:
                    args = [*args[:2], module, *args[end:]]
        start(self, args, *rest, **options)

    subprocess.Popen.__init__ = start_ours
