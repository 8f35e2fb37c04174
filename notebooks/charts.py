"""Chart helpers: one look for all notebooks."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from research_data import MARKETS

COLOURS = {"sp500": "#1f5fa8", "nasdaq": "#c2571a", "wti": "#4d7c3a"}


def panel(title: str, *, height: float = 3.2, percent: bool = False) -> Axes:
    """An empty chart in the house style."""
    _, axes = plt.subplots(figsize=(9, height), layout="constrained")
    axes.set_title(title, loc="left", fontweight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return axes


def lines(frame: pd.DataFrame, title: str, *, percent: bool = False, log: bool = False) -> Axes:
    """One line for each column."""
    axes = panel(title, percent=percent)
    for column in frame:
        axes.plot(
            frame.index,
            frame[column],
            label=MARKETS.get(column, column),
            color=COLOURS.get(column),
            linewidth=1.2,
        )
    if log:
        axes.set_yscale("log")
    axes.legend(frameon=False, loc="upper left")
    return axes


def underwater(drawdowns: pd.DataFrame, title: str) -> Axes:
    """Drawdowns as filled areas below zero."""
    axes = panel(title, percent=True)
    for column in drawdowns:
        colour = COLOURS.get(column)
        axes.fill_between(drawdowns.index, drawdowns[column], alpha=0.2, color=colour)
        axes.plot(
            drawdowns.index, drawdowns[column], label=MARKETS.get(column, column), color=colour
        )
    axes.legend(frameon=False, loc="lower left")
    return axes
