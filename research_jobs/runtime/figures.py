"""matplotlib's backend without IPython: figures go into the report as PNG.

With IPython and matplotlib_inline, the editor's own backend does this.
matplotlib imports the module that `BACKEND` names. Only the shared state is here, so that
reading the name does not import matplotlib.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["BACKEND", "BACKEND_MODULE", "flush"]

BACKEND_MODULE = "research_jobs.runtime.figures_backend"
BACKEND = f"module://{BACKEND_MODULE}"

#: receives the figures; set while a notebook runs
publish: Callable[[Mapping[str, Any], Mapping[str, Any]], None] | None = None


def flush() -> None:
    """Show the open figures, and close them; one that cannot be drawn fails no cell."""
    try:
        sys.modules[BACKEND_MODULE].show()
    except Exception:  # noqa: BLE001 - as in the editor: reported on stderr
        traceback.print_exc()
