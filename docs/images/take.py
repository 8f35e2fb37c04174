"""Take the documentation's pictures anew: ``make screenshots``. Needs Chromium.

Starts ``research-jobs ui`` over a project of its own, runs the sample notebooks in it and one that
fails, and keeps what a person then sees. Nothing is drawn by hand.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMMAND = Path(sys.executable).with_name("research-jobs")
PORT, REPORTS_PORT = 38500, 38501
UI, REPORTS = f"http://127.0.0.1:{PORT}", f"http://127.0.0.1:{REPORTS_PORT}"
LARGEST = 300_000  # bytes

FAILING = """\
# %% [markdown]
# # Value at risk
#
# What a bad day costs, market by market.

# %%
from research_jobs import load

# %% tags=["parameters"]
level = 0.99  # share of days that are better

# %% Load prices
prices = load("market_data", "prices")
returns = prices.pct_change().dropna()
returns.tail(3)

# %% Worst days
losses = -returns.quantile(1 - level)
losses["dax"] / losses["sp500"]

# %% Expected shortfall
shortfall = -returns[returns < -losses].mean()
shortfall.plot.bar()
"""

TABLES = """\
# %% [markdown]
# # Trades of a year
#
# Every hour, and by month and market.

# %%
import numpy as np
import pandas as pd

rng = np.random.default_rng(1)
hours = pd.date_range("2024-01-01", periods=12_000, freq="h")
trades = pd.DataFrame(
    {
        "when": hours,
        "market": rng.choice(["dax", "nikkei", "sp500"], 12_000),
        "price": rng.normal(100, 15, 12_000),
        "volume": rng.integers(1, 90_000, 12_000),
    }
)

# %% All trades
trades

# %% Volume by month
pd.set_option("display.max_columns", None)
by = trades.groupby(["market", trades["when"].dt.strftime("%Y-%m")])["volume"].sum().unstack()
by.style.format("{:,.0f}")
"""


def main() -> None:
    """Run, wait, take, stop."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is not installed.")
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "research"
        shutil.copytree(ROOT / "notebooks", project / "notebooks")
        (project / "notebooks" / "value_at_risk.py").write_text(FAILING)
        (project / "notebooks" / "trades.py").write_text(TABLES)
        manifest = project / "notebooks" / "manifest.yaml"
        said = "\nnotebooks:\n  value_at_risk: {group: reports, retries: 0}\n"
        said += "  trades: {group: data, outputs: [trades]}\n"
        manifest.write_text(manifest.read_text().replace("\nnotebooks:\n", said, 1))
        environment = os.environ | {"RESEARCH_JOBS_PROJECT": str(project)}
        command = [COMMAND, "ui", "--port", str(PORT), "--reports-port", str(REPORTS_PORT)]
        with subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True
        ) as ui:
            try:
                for line in ui.stdout or ():
                    if "Ctrl-C" in line:
                        break
                # In another terminal, as it were. One of them fails.
                for words in (["run", "--all"], ["report"]):
                    subprocess.run([COMMAND, *words], env=environment, cwd=folder, check=False)
                with sync_playwright() as playwright:
                    browser = playwright.chromium.launch(
                        executable_path=chromium, args=["--no-sandbox"]
                    )
                    take(browser)
                    mail = Path(folder) / "mail.html"
                    words = ["deliver", "performance_report", "--preview", str(mail)]
                    subprocess.run([COMMAND, *words], env=environment, cwd=folder, check=True)
                    take_mail(browser, mail.as_uri())
                    take_site(browser)
                    take_changes(browser, project, environment)
                    browser.close()
            finally:
                ui.terminate()


def take(browser: Browser) -> None:
    """Every picture."""
    page = opened(browser, 1440, 900)
    page.goto(REPORTS)
    page.get_by_text("performance_report").first.wait_for()
    page.set_viewport_size({"width": 1280, "height": 660})
    keep(page, "gallery")
    page.set_viewport_size({"width": 1440, "height": 900})

    page.goto(f"{REPORTS}/performance_report/index.html")
    page.get_by_text("Succeeded").first.click()
    address = page.url
    keep(page, "report", until="Rolling beta")
    phone = opened(browser, 390, 844, scale=2)
    phone.goto(address)
    keep(phone, "report-phone")
    phone.close()

    take_tables(browser)

    page.goto(f"{REPORTS}/value_at_risk/index.html")
    page.get_by_text("Failed").first.click()
    keep(page, "report-failed")
    run = page.get_by_text("Run in Dagster").get_attribute("href")
    page.close()

    page = opened(browser, 1700, 1160)
    page.goto(f"{UI}/assets/performance_report")
    page.get_by_text("annual_return").first.wait_for()
    for section in ("Description", "Columns"):
        page.get_by_text(section, exact=True).first.click()  # folded, for what comes below
    keep(page, "ui")
    assert run is not None
    page.set_viewport_size({"width": 1700, "height": 760})
    page.goto(run)
    page.get_by_text("KeyError").first.wait_for()
    keep(page, "run-failed")
    page.close()


def take_changes(browser: Browser, project: Path, environment: dict[str, str]) -> None:
    """What changed since the run before, on a screen and on a phone: market_data starts later."""
    notebook = project / "notebooks" / "market_data.py"
    source = notebook.read_text()
    notebook.write_text(source.replace('start = "2005-01-01"', 'start = "2006-03-01"'))
    words = [COMMAND, "run", "market_data", "performance_report"]
    subprocess.run(words, env=environment, check=True)
    made = subprocess.run(
        [COMMAND, "report", "performance_report", "--changes"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    for name, width, height, scale in (("changes", 1280, 1500, 1), ("changes-phone", 390, 844, 2)):
        page = opened(browser, width, height, scale=scale)
        page.goto(Path(made.stdout.strip()).as_uri())
        keep(page, name)
        page.close()


def take_tables(browser: Browser) -> None:
    """A long and a wide table: on light and dark screens, and on paper."""
    page = opened(browser, 1100, 1000)
    page.goto(f"{REPORTS}/trades/index.html")
    page.get_by_text("Succeeded").first.click()
    page.get_by_role("button", name="Show all 12,000 rows").click()
    page.get_by_text("1 to 50 of 12,000 rows").wait_for()
    page.get_by_role("button", name="price", exact=True).click()
    page.get_by_label("Filter rows").first.fill("2024-07 dax")
    page.locator(".rj-table").first.evaluate("box => { box.style.maxHeight = '20rem' }")
    for name, colours in (("tables", "light"), ("tables-dark", "dark")):
        page.emulate_media(color_scheme=colours)
        keep(page, name)
    page.get_by_label("Filter rows").first.fill("2024-07-01 dax")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print", color_scheme="light")
    page.set_viewport_size({"width": 720, "height": 800})
    keep(page, "tables-print")
    page.close()


def take_mail(browser: Browser, address: str) -> None:
    """A report's mail on a screen and on a phone."""
    for name, width, height, scale in (("mail", 720, 1100, 1), ("mail-phone", 390, 844, 2)):
        page = opened(browser, width, height, scale=scale)
        page.goto(address)
        keep(page, name)
        page.close()


def take_site(browser: Browser) -> None:
    """The front page of the documentation's site."""
    subprocess.run(["make", "docs"], cwd=ROOT, check=True)
    page = opened(browser, 1280, 800)
    page.goto((ROOT / "build" / "site" / "index.html").as_uri())
    keep(page, "site")
    page.close()


def opened(browser: Browser, width: int, height: int, *, scale: float = 1) -> Page:
    """A window of a size."""
    page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=scale)
    page.set_default_timeout(120_000)
    return page


def keep(page: Page, name: str, *, until: str | None = None) -> None:
    """Keep what the window shows, or the page from its top down to a text."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(3000)  # pictures, and what slides into place
    clip = None
    if until is not None:
        box = page.get_by_text(until).last.bounding_box()
        size = page.viewport_size
        assert box is not None
        assert size is not None
        clip = {"x": 0, "y": 0, "width": size["width"], "height": box["y"]}
    taken = page.screenshot(full_page=until is not None, clip=clip)
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    path = HERE / f"{name}.png"
    # 256 colours are enough for pages, and a third of the size.
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < LARGEST, f"{path.name}: {path.stat().st_size:,} bytes"


if __name__ == "__main__":
    main()
