# %% [markdown]
# # Market data
#
# Daily closes of two equity indices and crude oil, cleaned once so that every other notebook
# starts from the same numbers.

# %%
import charts
import matplotlib.pyplot as plt
import pandas as pd
import research_data

# %% tags=["parameters"]
start = "2005-01-01"  # first day to keep

# %% Load prices
prices = research_data.closes().loc[start:]
prices.tail()

# %% [markdown]
# ## Is anything missing?
#
# A gap of more than five calendar days between two sessions is either a long holiday or a hole
# in the data, and worth a look.

# %% Coverage
sessions = prices.index.to_series()
gaps = sessions.diff().dt.days
coverage = pd.DataFrame(
    {
        "first": prices.apply(pd.Series.first_valid_index),
        "last": prices.apply(pd.Series.last_valid_index),
        "sessions": prices.count(),
        "missing": prices.isna().sum(),
        "longest_gap_days": int(gaps.max()),
    }
)
coverage

# %%
assert prices.index.is_monotonic_increasing
assert prices.index.is_unique
print(f"{len(prices):,} sessions from {prices.index[0]:%d %b %Y} to {prices.index[-1]:%d %b %Y}")

# %% Growth of 1
charts.lines(prices / prices.iloc[0], "Growth of 1", log=True)
plt.show()

# %% Volumes
volumes = research_data.volumes().loc[start:] / 1e9
charts.lines(volumes.rolling(21).mean().dropna(), "Shares traded, billions a day (month's average)")
plt.show()
