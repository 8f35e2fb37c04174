"""Frame helpers: returns, drawdowns and the usual ratios, each a small pure function."""

from __future__ import annotations

import numpy as np
import pandas as pd

TRADING_DAYS = 252


def simple_returns(prices: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """Day-on-day returns, as fractions."""
    return prices.pct_change(fill_method=None).iloc[1:]


def log_returns(prices: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """Day-on-day log returns."""
    return np.log(prices).diff().iloc[1:]


def drawdown(prices: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """How far below its highest price so far each day stands (0 to -1)."""
    return prices / prices.cummax() - 1


def annual_return(returns: pd.DataFrame) -> pd.Series:
    """Compound return a year."""
    years = returns.count() / TRADING_DAYS
    return (1 + returns).prod() ** (1 / years) - 1


def annual_volatility(returns: pd.DataFrame) -> pd.Series:
    """Standard deviation of returns, a year."""
    return returns.std() * np.sqrt(TRADING_DAYS)


def sharpe(returns: pd.DataFrame, risk_free: float = 0.0) -> pd.Series:
    """Sharpe ratio, with `risk_free` as a rate a year."""
    excess = returns - risk_free / TRADING_DAYS
    return excess.mean() / excess.std() * np.sqrt(TRADING_DAYS)


def sortino(returns: pd.DataFrame, risk_free: float = 0.0) -> pd.Series:
    """Sortino ratio: like Sharpe's, but only losses count as risk."""
    excess = returns - risk_free / TRADING_DAYS
    downside = np.sqrt((excess.clip(upper=0) ** 2).mean())
    return excess.mean() / downside * np.sqrt(TRADING_DAYS)


def rolling_beta(returns: pd.DataFrame, benchmark: str, window: int) -> pd.DataFrame:
    """Beta of each column to `benchmark`, over the last `window` days."""
    market = returns[benchmark]
    others = returns.drop(columns=benchmark)
    return others.rolling(window).cov(market).div(market.rolling(window).var(), axis=0).dropna()


def monthly_table(returns: pd.Series) -> pd.DataFrame:
    """Returns by year (rows) and month (columns)."""
    months = (1 + returns).resample("ME").prod() - 1
    table = pd.DataFrame(
        {"year": months.index.year, "month": months.index.month, "return": months.to_numpy()}
    )
    return table.pivot(index="year", columns="month", values="return")
