# %% [markdown]
# # Volatility forecast
#
# A GARCH(1,1), fitted to one market's daily returns by quasi-maximum likelihood, and the path of
# variance that it expects over the coming weeks.

# %%
import charts  # parity: ignore[batch-only-import]
import frames  # parity: ignore[batch-only-import]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from arch import arch_model
from research_jobs import load

# %% tags=["parameters"]
market = "sp500"  # a column of market_data's prices
horizon = 21  # trading days to look ahead
window = 2500  # trading days to fit on: about ten years

# %% Returns
# In percent: the optimiser likes numbers near one.
prices = load("market_data", "prices")
returns = 100 * frames.log_returns(prices[market].dropna()).tail(window)
returns.agg(["mean", "std", "skew", "kurt"]).round(3)

# %% Fit
model = arch_model(returns, mean="Constant", vol="GARCH", p=1, q=1)
fitted = model.fit(disp="off")
print(fitted.summary().tables[2])

# %% [markdown]
# Persistence near one means that shocks die slowly; the half-life says how slowly.

# %% Persistence
alpha, beta = fitted.params["alpha[1]"], fitted.params["beta[1]"]
persistence = float(alpha + beta)
fit = {
    "market": market,
    "persistence": persistence,
    "half_life_days": float(np.log(0.5) / np.log(persistence)),
    "long_run_volatility": float(
        np.sqrt(fitted.params["omega"] / (1 - persistence) * frames.TRADING_DAYS)
    ),
    "log_likelihood": float(fitted.loglikelihood),
}
fit

# %% Forecast
variance = fitted.forecast(horizon=horizon, reindex=False).variance.iloc[0].to_numpy()
forecast = pd.DataFrame(
    {
        "date": pd.bdate_range(returns.index[-1], periods=horizon + 1)[1:],
        "step": np.arange(1, horizon + 1),
        "variance": variance,
        "volatility": np.sqrt(variance * frames.TRADING_DAYS),
    }
)
forecast.head()

# %% Charts
fitted_volatility = fitted.conditional_volatility * np.sqrt(frames.TRADING_DAYS)
realised = returns.rolling(21).std() * np.sqrt(frames.TRADING_DAYS)
axes = charts.panel("Volatility, percent a year")
axes.plot(realised.index, realised, color="0.65", label="realised, 21 days")
axes.plot(fitted_volatility.index, fitted_volatility, color="#1f5fa8", label="GARCH(1,1)")
axes.legend(frameon=False)
plt.show()

axes = charts.panel(f"Expected volatility over the next {horizon} days, percent a year")
axes.plot(forecast["date"], forecast["volatility"], color="#c2571a", marker="o", markersize=3)
axes.axhline(fit["long_run_volatility"], color="0.5", linestyle="--", linewidth=0.8)
axes.text(forecast["date"].iloc[0], fit["long_run_volatility"], " long run", va="bottom")
plt.show()
