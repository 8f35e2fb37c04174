# %% [markdown]
# # Performance report
#
# How the markets did: return, risk, drawdowns, and how closely each follows the benchmark.

# %%
import charts
import frames
import matplotlib.pyplot as plt
import pandas as pd
import plotly.graph_objects as go
from research_jobs import load

# %% tags=["parameters"]
benchmark = "sp500"  # market that betas are measured against
window = 126  # trading days in the rolling beta
risk_free = 0.01  # rate a year

# %% Load prices
prices = load("market_data", "prices")
returns = frames.simple_returns(prices)
drawdowns = frames.drawdown(prices)
returns.describe().T

# %% [markdown]
# ## The table
#
# Ratios are over the whole sample. Drawdown is from the highest close before it.

# %% Measures
perf_df = pd.DataFrame(
    {
        "annual_return": frames.annual_return(returns),
        "annual_volatility": frames.annual_volatility(returns),
        "sharpe": frames.sharpe(returns, risk_free),
        "sortino": frames.sortino(returns, risk_free),
        "max_drawdown": drawdowns.min(),
        "worst_day": returns.min(),
        "beta": returns.cov()[benchmark] / returns[benchmark].var(),
        "skew": returns.skew(),
        "kurtosis": returns.kurt(),
    }
).rename_axis("market")
perf_df.style.format("{:.2f}").format(
    "{:.1%}", subset=["annual_return", "annual_volatility", "max_drawdown", "worst_day"]
)

# %% Drawdowns
charts.underwater(drawdowns, "Drawdown from the highest close")
plt.show()

# %% Rolling beta
beta = frames.rolling_beta(returns, benchmark, window)
axes = charts.lines(beta, f"Beta to {benchmark}, last {window} days")
axes.axhline(1, color="black", linewidth=0.6)
plt.show()

# %% [markdown]
# ## Month by month
#
# The benchmark's return in each month, in percent.

# %% Monthly returns
months = frames.monthly_table(returns[benchmark])
heatmap = go.Figure(
    go.Heatmap(
        z=100 * months,
        x=["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
        y=months.index.astype(str),
        colorscale="RdBu",
        zmid=0,
        hovertemplate="%{x} %{y}: %{z:.1f} %<extra></extra>",
    ),
    go.Layout(height=420, margin={"l": 50, "r": 20, "t": 20, "b": 30}),
)
heatmap

# %% Summary
best = perf_df["sharpe"].idxmax()
summary = {
    "as_of": prices.index[-1].date(),
    "sessions": len(prices),
    "best_sharpe": best,
    "worst_drawdown": float(perf_df["max_drawdown"].min()),
    "sharpe": perf_df["sharpe"].round(3).to_dict(),
}
print(f"Best by Sharpe ratio: {best} ({perf_df.loc[best, 'sharpe']:.2f})")
