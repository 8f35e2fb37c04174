"""matplotlib's backend where there is no IPython: figures go into the report as PNG.

With IPython and matplotlib_inline, the editor's own backend does this.
matplotlib imports the module `BACKEND` names; this one only holds what it shares with us, so
that asking for the name costs no import of matplotlib.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["BACKEND", "BACKEND_MODULE", "flush"]

BACKEND_MODULE = "research_jobs.runtime.figures_backend"
BACKEND = f"module://{BACKEND_MODULE}"

#: who takes the figures; set while a notebook runs
publish: Callable[[Mapping[str, Any]], None] | None = None


def flush() -> None:
    """Show the figures that are open, and close them."""
    sys.modules[BACKEND_MODULE].show()
