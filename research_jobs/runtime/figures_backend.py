"""The backend itself: matplotlib imports it by name for the first figure."""

from __future__ import annotations

import io
from typing import Any

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from research_jobs.runtime import figures
from research_jobs.runtime.formats import add_alt

__all__ = ["FigureCanvas", "FigureManager", "show"]

FigureCanvas = FigureCanvasAgg
FigureManager = FigureManagerBase


def show(*_args: Any, **_options: Any) -> None:
    """Show all open figures, and close them (what ``plt.show()`` calls)."""
    for manager in Gcf.get_all_fig_managers():
        figure = manager.canvas.figure
        Gcf.destroy(manager)
        if figures.publish is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", bbox_inches="tight", dpi=figure.dpi)
            size = figure.get_size_inches()
            text = f"<Figure size {size[0] * figure.dpi:.0f}x{size[1] * figure.dpi:.0f}>"
            data, metadata = {"image/png": buffer.getvalue(), "text/plain": text}, {}
            add_alt(figure, data, metadata)
            figures.publish(data, metadata)
