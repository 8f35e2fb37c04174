# %% [markdown]
# # Momentum signals
#
# Time-series momentum, one day at a time: the return over the look-back less the last month
# ("12-1" with the defaults), scaled so that each position carries the same risk.

# %%
from datetime import date

import charts
import frames
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from research_jobs import load

# %% tags=["parameters"]
run_date: date = date(2018, 12, 31)  # the partition: signals as known after this day's close
lookback: int = 252  # trading days of the whole window
gap: int = 21  # most recent trading days to leave out
target_volatility: float = 0.10  # a year, for each position

# %% Prices as they were known that day
known = load("market_data", "prices").loc[: pd.Timestamp(run_date)]
window = known.tail(lookback + 1)
session = window.index[-1]
print(f"{run_date}: {len(window) - 1} returns up to the close of {session:%Y-%m-%d}")

# %% Signals
returns = frames.log_returns(window)
momentum = np.exp(returns.iloc[:-gap].sum()) - 1
volatility = frames.annual_volatility(returns.tail(63))
signals = pd.DataFrame(
    {
        "session": session,
        "momentum": momentum,
        "volatility": volatility,
        "weight": np.sign(momentum) * (target_volatility / volatility).clip(upper=2.0),
    }
).rename_axis("market")
signals["rank"] = signals["momentum"].rank(ascending=False).astype("int64")
signals = signals.reset_index()
signals

# %% Look-back
charts.lines(
    window / window.iloc[0] - 1, f"Return over the look-back to {session:%d %b %Y}", percent=True
)
plt.axvspan(window.index[-gap], window.index[-1], color="0.9", zorder=0)
plt.show()

# %% Weights
axes = charts.panel("Weights", height=2.2)
axes.barh(
    signals["market"], signals["weight"], color=[charts.COLOURS[m] for m in signals["market"]]
)
axes.axvline(0, color="black", linewidth=0.6)
plt.show()
