"""Named points where a test can stop or kill a process.

Nothing happens there unless a test has installed a hook; no setting or environment variable of
the product can do that.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["failpoint", "install"]

_hook: Callable[[str], None] | None = None


def failpoint(name: str) -> None:
    """Call the test's hook, if any, with the failpoint's name."""
    if _hook is not None:
        _hook(name)


def install(hook: Callable[[str], None] | None) -> None:
    """Have `hook` called at each failpoint of this process and its forks; None removes it."""
    global _hook
    _hook = hook
