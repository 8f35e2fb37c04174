"""No garbage collection while a command starts up.

What is imported and loaded then is a million objects that stay. The collector looks through all of
them time and again as they grow in number: a tenth of the time of a short command.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["collect_again", "uncollected"]


@contextmanager
def uncollected() -> Generator[None]:
    """Within this context nothing is collected, until `collect_again`."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if before:
            gc.enable()


def collect_again() -> None:
    """From here on the command works, for as long as it takes; what there is by now stays."""
    gc.freeze()
    gc.enable()
