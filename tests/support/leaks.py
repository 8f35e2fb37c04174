"""Notebooks that know the future, and notebooks that do not: what `lookahead` is measured by.

``python tests/support/leaks.py [PART/OF]`` tries all of them in a temporary project, and prints
which leaks were not found and which clean notebooks were accused.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from research_jobs.orchestration.model.catalog import load_catalog
from research_jobs.orchestration.operations.cutting import Bench
from research_jobs.orchestration.operations.lookahead import Finding, look_ahead
from research_jobs.project import find_project

SOURCES = {
    "prices": """
rng = np.random.default_rng(7)
days = pd.bdate_range("2018-01-01", periods=120, name="date")
parts = []
for symbol, first, last in (("A", 0, 120), ("B", 0, 120), ("C", 70, 120), ("D", 0, 115)):
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, 120)))
    parts.append(pd.DataFrame({"date": days, "symbol": symbol, "close": close})[first:last])
prices = pd.concat(parts, ignore_index=True)
""",
    "volumes": """
days = pd.bdate_range("2018-01-01", periods=120, name="date")
volumes = pd.DataFrame({"volume": np.random.default_rng(3).lognormal(9, 1, 120)}, index=days)
""",
    "filings": """
days = pd.bdate_range("2018-01-01", periods=120).date
filings = pd.DataFrame({"day": days, "earnings": np.random.default_rng(5).normal(size=120)})
""",
    "revisions": """
days = pd.bdate_range("2018-01-01", periods=120)
first = pd.DataFrame({"date": days, "asof": days, "gdp": np.arange(120.0)})
later = first.assign(asof=days + pd.Timedelta(days=20), gdp=first["gdp"] * 1.1)
revisions = pd.concat([first, later]).sort_values(["asof", "date"], ignore_index=True)
""",
    "trades": """
rng = np.random.default_rng(11)
moments = pd.date_range("2018-03-01 08:00", periods=400, freq="37min", tz="Europe/Zurich")
trades = pl.DataFrame({"time": moments, "price": 100 + rng.normal(size=400).cumsum()})
""",
}
BARS = """
day: date = date(2018, 3, 1)

# %%
bars = pd.DataFrame({"open": [float(day.toordinal() % 17)], "close": [float(day.toordinal() % 13)]})
"""
SMOOTH = {  # between the sources and what is tried
    "smooth": "smooth = w.rolling(5, center=True).mean()",
    "trailing": "trailing = w.rolling(5).mean()",
}
TABLE = """
p = load("prices", "prices")
w = p.pivot(index="date", columns="symbol", values="close")
r = w.pct_change(fill_method=None)
"""

# Each is the body of a notebook with the output `out`: of one day, if it says `day`.
LEAKY = {
    "shift": "out = r.shift(-1)",
    "shift_dropped": "out = (w.shift(-5) / w - 1).dropna(how='all')",
    "centred": "out = r.rolling(5, center=True).mean()",
    "z_score": "out = (w - w.mean()) / w.std()",
    "min_max": "out = (w - w.min()) / (w.max() - w.min())",
    "back_fill": "out = w.where(r > 0).bfill()",
    "interpolated": "out = w.where(r > 0).interpolate()",
    "filled_with_mean": "out = w.where(r > 0).fillna(w.mean())",
    "weeks_by_start": "out = w.resample('W', label='left').last()",
    "months_by_start": "out = w.resample('MS').last()",
    "month_mean": "out = w.groupby([w.index.year, w.index.month]).transform('mean')",
    "weekday_mean": "out = r.groupby(r.index.weekday).transform('mean')",
    "global_fit": """
t = np.arange(len(w))
out = w[['A']] - np.polyval(np.polyfit(t, w['A'], 1), t)[:, None]
""",
    "global_rank": "out = w.rank(pct=True)",
    "global_bins": "out = pd.DataFrame({'bin': pd.qcut(w['A'], 5, labels=False)})",
    "winsorised": "out = r.clip(r.quantile(0.05), r.quantile(0.95), axis=1)",
    "remaining_sum": "out = r[::-1].cumsum()[::-1]",
    "future_peak": "out = w / w[::-1].cummax()[::-1]",
    "reversed_ewm": "out = r[::-1].ewm(5).mean()[::-1]",
    "next_day_joined": (
        "n = p.assign(date=p['date'] - pd.offsets.BDay(1))\n"
        "out = p.merge(n, on=['date', 'symbol'], suffixes=('', '_next'))"
    ),
    "asof_forward": (
        "few = w[['A']].iloc[::7].rename(columns={'A': 'few'}).reset_index()\n"
        "out = pd.merge_asof(w[['B']].reset_index(), few, on='date', direction='forward')"
    ),
    "asof_nearest": (
        "few = w[['A']].iloc[::7].rename(columns={'A': 'few'}).reset_index()\n"
        "out = pd.merge_asof(w[['B']].reset_index(), few, on='date', direction='nearest')"
    ),
    "convolved": (
        "out = pd.DataFrame({'a': np.convolve(w['A'], np.ones(5) / 5, mode='same')}, index=w.index)"
    ),
    "fourier": (
        "f = np.fft.rfft(w['A'])\nf[8:] = 0\n"
        "out = pd.DataFrame({'a': np.fft.irfft(f, len(w))}, index=w.index)"
    ),
    "components": (
        "x = r[['A', 'B']].fillna(0)\n_, _, v = np.linalg.svd(x, full_matrices=False)\n"
        "out = pd.DataFrame({'pc': np.abs(x @ v[0])})"
    ),
    "bottom_flagged": "out = (w == w.min()).astype(int)",
    "survivors": "out = w.loc[:, w.iloc[-1].notna()]",
    "rolled": "out = pd.DataFrame({'a': np.roll(w['A'], -1)}, index=w.index)",
    "upstream": "s = load('smooth', 'smooth')\nout = s.shift(1)",
    "second_input": "v = load('volumes', 'volumes')\nout = r.join(v['volume'].shift(-1))",
    "known_later": (
        "f = load('filings', 'filings')\nf['date'] = pd.to_datetime(f['day'])\n"
        "out = w.join(f.set_index('date')['earnings'])"
    ),
    "polars_shift": (
        "q = pl.from_pandas(p).sort('symbol', 'date')\n"
        "out = q.with_columns(next=pl.col('close').shift(-1).over('symbol'))"
    ),
    "polars_weeks": (
        "q = pl.from_pandas(w[['A']].reset_index()).sort('date')\n"
        "out = q.group_by_dynamic('date', every='1w').agg(pl.col('A').last())"
    ),
    "trades_backward": (
        "q = load('trades', 'trades')\n"
        "out = q.with_columns(next=pl.col('price').reverse().rolling_mean(4).reverse())"
    ),
    "day_centred": "out = w.rolling(5, center=True).mean().loc[[pd.Timestamp(day)]]",
    "day_fit": "out = {'mean': float(w['A'].mean()), 'close': float(w['A'][str(day)])}",
    "day_last": "out = w.iloc[[-1]]",
    "day_next": "out = float(w['A'][w.index > pd.Timestamp(day)].iloc[0])",
    "day_revised": (
        "v = load('revisions', 'revisions')\n"
        "out = v[v['date'] == pd.Timestamp(day)].drop_duplicates('date', keep='last')"
    ),
    "day_all_bars": (
        "b = load('bars', 'bars', partition='all')\nout = {'mean': float(b['close'].mean())}"
    ),
    "day_next_bar": (
        "nxt = (pd.Timestamp(day) + pd.offsets.BDay(1)).date()\n"
        "out = load('bars', 'bars', partition=nxt)"
    ),
    "day_upstream": "s = load('smooth', 'smooth')\nout = s.loc[[pd.Timestamp(day)]]",
}

CLEAN = {
    "lagged": "out = r.shift(1)",
    "returns": "out = r",
    "log_returns": "out = np.log(w).diff()",
    "trailing_mean": "out = w.rolling(5).mean()",
    "trailing_std": "out = r.rolling(20).std()",
    "trailing_median": "out = r.rolling(7).median()",
    "trailing_skew": "out = r.rolling(15).skew()",
    "trailing_rank": "out = w.rolling(10).rank(pct=True)",
    "trailing_days": "out = w.rolling('10D').mean()",
    "trailing_z": "out = (w - w.rolling(20).mean()) / w.rolling(20).std()",
    "trailing_corr": "out = r[['A']].assign(c=r['A'].rolling(20).corr(r['B']))",
    "trailing_beta": """
out = r[['A']].assign(b=r['A'].rolling(20).cov(r['B']) / r['B'].rolling(20).var())
""",
    "expanding_z": "out = (w - w.expanding().mean()) / w.expanding().std()",
    "expanding_rank": "out = w.expanding().rank(pct=True)",
    "expanding_quantile": "out = w.expanding().quantile(0.9)",
    "forward_fill": "out = w.where(r > 0).ffill()",
    "filled_with_zero": "out = w.where(r > 0).fillna(0.0)",
    "every_day_filled": "out = w.resample('D').ffill()",
    "weeks_by_end": "out = w.resample('W').last()",
    "weeks_to_friday": "out = w.resample('W-FRI', label='right').last()",
    "months_by_end": "out = w.resample('ME').last()",
    "last_week_ffilled": "out = w.resample('W').last().shift(1).reindex(w.index, method='ffill')",
    "month_to_date": "out = r.groupby([r.index.year, r.index.month]).cumsum()",
    "weekday_expanding": """
out = r['A'].groupby(r.index.weekday).transform(lambda x: x.expanding().mean()).to_frame()
""",
    "cumulative": "out = (1 + r.fillna(0)).cumprod()",
    "drawdown": "out = w / w.cummax() - 1",
    "ewm": "out = r.ewm(span=10).mean()",
    "macd": "out = w.ewm(span=12).mean() - w.ewm(span=26).mean()",
    "breakout": "out = (w > w.shift(1).rolling(20).max()).astype(int)",
    "rsi": """
up, dn = r.clip(lower=0), -r.clip(upper=0)
out = 100 - 100 / (1 + up.rolling(14).mean() / dn.rolling(14).mean())
""",
    "cross_rank": "out = r.rank(axis=1)",
    "cross_demeaned": "out = r.sub(r.mean(axis=1), axis=0)",
    "cross_long": "out = p.assign(x=p['close'] - p.groupby('date')['close'].transform('mean'))",
    "long_lag": "out = p.assign(lag=p.groupby('symbol')['close'].shift(1))",
    "long_dropped": "out = p.assign(lag=p.groupby('symbol')['close'].shift(1)).dropna()",
    "positions": """
m = p.groupby('date', as_index=False)['close'].mean()
out = p.merge(m, on='date').sort_values(['symbol', 'date'])
""",
    "categories": "out = p.assign(symbol=p['symbol'].astype('category'))",
    "walk_forward": (
        "a = w['A']\n"
        "fit = [np.polyfit(np.arange(i), a.iloc[:i], 1)[0] for i in range(30, len(w))]\n"
        "fit = [np.nan] * 30 + fit\n"
        "out = pd.DataFrame({'slope': fit}, index=w.index)"
    ),
    "state_machine": (
        "held, rows = 0, []\nfor x in r['A'].fillna(0):\n"
        "    held = 1 if x > 0.01 else 0 if x < -0.01 else held\n    rows.append(held)\n"
        "out = pd.DataFrame({'held': rows}, index=w.index)"
    ),
    "asof_backward": (
        "few = w[['A']].iloc[::7].rename(columns={'A': 'few'}).reset_index()\n"
        "out = pd.merge_asof(w[['B']].reset_index(), few, on='date')"
    ),
    "filtered": """
f = np.convolve(w['A'], np.ones(5) / 5)[:len(w)]
out = pd.DataFrame({'a': f}, index=w.index)
""",
    "seeded_noise": "out = w[['A']].add(np.random.default_rng(1).normal(size=len(w)), axis=0)",
    "chance": "out = w.assign(noise=np.random.default_rng().normal(size=len(w)))",
    "clock": "out = w.assign(made=pd.Timestamp.now())",
    "summary": "out = {'mean': float(w['A'].mean()), 'last': float(w['A'].iloc[-1])}",
    "summary_table": "out = w.describe()",
    "upstream": "s = load('trailing', 'trailing')\nout = s.shift(1)",
    "second_input": "v = load('volumes', 'volumes')\nout = r.join(v['volume'].shift(1))",
    "known_later": (
        "f = load('filings', 'filings')\n"
        "f['date'] = pd.to_datetime(f['day']) + pd.offsets.BDay(2)\n"
        "out = w.join(f.set_index('date')['earnings'])"
    ),
    "polars_lag": (
        "q = pl.from_pandas(p).sort('symbol', 'date')\n"
        "out = q.with_columns(last=pl.col('close').shift(1).over('symbol'))"
    ),
    "polars_rolling": (
        "q = pl.from_pandas(w[['A']].reset_index()).sort('date')\n"
        "out = q.with_columns(m=pl.col('A').rolling_mean(5))"
    ),
    "polars_weeks": (
        "q = pl.from_pandas(w[['A']].reset_index()).sort('date')\n"
        "out = q.group_by_dynamic('date', every='1w', label='right').agg(pl.col('A').last())"
    ),
    "trades": """
q = load('trades', 'trades')
out = q.with_columns(m=pl.col('price').rolling_mean(4))
""",
    "trade_hours": (
        "q = load('trades', 'trades').sort('time')\n"
        "out = q.group_by_dynamic('time', every='4h', label='right').agg(pl.col('price').last())"
    ),
    "day_trailing": "out = w.rolling(5).mean().loc[[pd.Timestamp(day)]]",
    "day_history": "out = w[w.index <= pd.Timestamp(day)]",
    "day_window": "out = p[p['date'] < pd.Timestamp(context().end.date())].tail(20)",
    "day_row": "out = p[p['date'] == pd.Timestamp(day)]",
    "day_fit": """
h = w['A'][:str(day)]
out = {'mean': float(h.mean()), 'fit': np.polyfit(np.arange(len(h)), h, 1)}
""",
    "day_revised": (
        "v = load('revisions', 'revisions')\nv = v[v['asof'] <= pd.Timestamp(day)]\n"
        "out = v.drop_duplicates('date', keep='last')"
    ),
    "day_bar": "b = load('bars', 'bars')\nout = float(b['close'].iloc[0])",
    "day_bars": (
        "b = load('bars', 'bars', partition=slice(None, day))\n"
        "out = {'mean': float(b['close'].mean())}"
    ),
    "day_upstream": "s = load('trailing', 'trailing')\nout = s.loc[[pd.Timestamp(day)]]",
    "day_optimised": """
h = r[:str(day)].dropna(how='all')
c = h.cov() if len(h) > 2 else pd.DataFrame()
out = c
""",
    "day_chance": """
out = {'close': float(w['A'][str(day)]), 'made': pd.Timestamp.now().isoformat()}
""",
}

IMPORTS = """# %%
import numpy as np
import pandas as pd
import polars as pl
from research_jobs import context, load
"""
PARAMETERS = '# %% tags=["parameters"]\nfrom datetime import date\n'
DAYS = "{by: day, start: 2018-01-01, end: 2018-06-16, calendar: XNYS, parameter: day}"


def is_daily(name: str) -> bool:
    """Whether a notebook is of one day: ``leaky_day_fit``."""
    return name.partition("_")[2].startswith("day_")


def write_project(root: Path, cases: Iterable[tuple[str, str]]) -> None:
    """A project of the sources and of these notebooks, each by its name and body."""
    folder = root / "notebooks"
    folder.mkdir(parents=True)
    lines = ["notebooks:"]
    for name, body in SOURCES.items():
        (folder / f"{name}.py").write_text(IMPORTS + body)
    lines += [
        "  prices: {outputs: {prices: {unique: [date, symbol]}}}",
        "  volumes: {outputs: volumes}",
    ]
    lines += ["  filings: {outputs: {filings: {known_after: 1d}}}", "  trades: {outputs: trades}"]
    lines += ["  revisions: {outputs: {revisions: {time: asof}}}"]
    (folder / "bars.py").write_text(IMPORTS + PARAMETERS + BARS)
    lines.append(f"  bars: {{outputs: bars, partitions: {DAYS}}}")
    for name, body in SMOOTH.items():
        (folder / f"{name}.py").write_text(IMPORTS + TABLE + body + "\n")
        lines.append(f"  {name}: {{outputs: {name}}}")
    for name, body in cases:
        daily = is_daily(name)
        parameters = PARAMETERS + "day: date = date(2018, 3, 1)\n" if daily else ""
        (folder / f"{name}.py").write_text(parameters + IMPORTS + TABLE + body + "\n")
        lines.append(f"  {name}: {{outputs: out{f', partitions: {DAYS}' if daily else ''}}}")
    (folder / "manifest.yaml").write_text("\n".join(lines) + "\n")


def all_cases() -> list[tuple[str, str]]:
    """All notebooks, by name and body."""
    kinds = (("leaky", LEAKY), ("clean", CLEAN))
    return [(f"{kind}_{name}", body) for kind, cases in kinds for name, body in cases.items()]


def try_cases(root: Path, names: Iterable[str], cuts: int = 3) -> dict[str, list[Finding]]:
    """What `lookahead` says of these notebooks; the sources' outputs are there already."""
    catalog = load_catalog(find_project(root))
    found: dict[str, list[Finding]] = {}
    for name in names:
        keys = [None] if not catalog.entries[name].partitioned else ["2018-03-14", "2018-05-02"]
        with Bench(catalog) as bench:
            found[name] = [each for key in keys for each in look_ahead(bench, name, key, cuts)]
    return found


def main() -> None:
    """Try all, or the N-th of M parts of them."""
    import subprocess

    part, of = map(int, sys.argv[1].split("/")) if len(sys.argv) > 1 else (1, 1)
    cases = all_cases()[part - 1 :: of]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_project(root, cases)
        command = str(Path(sys.executable).with_name("research-jobs"))
        subprocess.run([command, "run", *SOURCES, *SMOOTH], cwd=root, check=True)
        subprocess.run(
            [command, "backfill", "bars", "--from", "2018-03-01", "--to", "2018-05-31"],
            cwd=root,
            check=True,
        )
        wrong: list[str] = []
        for name, _ in cases:
            findings = try_cases(root, [name])[name]
            leak = any(each.leak for each in findings)
            right = leak == name.startswith("leaky")
            if not right:
                wrong.append(name)
            first = next((each for each in findings if each.leak), findings[0])
            print(f"{'' if right else 'WRONG '}{name}: {first.to_json()}", flush=True)
        print(f"{len(cases)} notebooks, {len(wrong)} wrong: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
