"""Common data access: the market data that every notebook starts from.

A helper module: it has no cell markers, so it is no notebook. Notebooks import it as
``import research_data``.

The series are those that the package `arch` ships (daily, to the end of 2018), so nothing here
needs a network. Put your own vendor, database or file share behind the same functions.
"""

from __future__ import annotations

import pandas as pd
from arch.data import nasdaq, sp500, vix, wti

MARKETS = {"sp500": "S&P 500", "nasdaq": "NASDAQ Composite", "wti": "WTI crude oil"}


def equity_index(market: str) -> pd.DataFrame:
    """Daily open, high, low, close and volume of an equity index."""
    frame = {"sp500": sp500, "nasdaq": nasdaq}[market].load()
    frame = frame.rename(columns=lambda name: name.lower().replace(" ", "_"))
    return frame.rename_axis("date").sort_index()


def closes() -> pd.DataFrame:
    """Adjusted closes of all markets, one column each, on the days that New York traded."""
    equities = {market: equity_index(market)["adj_close"] for market in ("sp500", "nasdaq")}
    frame = pd.DataFrame(equities)
    # Oil has its own holidays: carry its last price over them, at most a week.
    oil = wti.load()["DCOILWTICO"].dropna()
    return frame.assign(wti=oil.reindex(frame.index, method="ffill", limit=5))


def volumes() -> pd.DataFrame:
    """Shares traded, for the two equity indices."""
    return pd.DataFrame({market: equity_index(market)["volume"] for market in ("sp500", "nasdaq")})


def implied_volatility() -> pd.Series:
    """The VIX, in percent a year (from 2014)."""
    return vix.load()["vix"].dropna().rename_axis("date")
