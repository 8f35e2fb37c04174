"""The morning page in a real browser: what a person finds there, and how they narrow it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser
from every_state import every_state

from research_jobs.decisions.account import Account, AccountedTick, Became
from research_jobs.orchestration.operations.morning import write_morning_page
from research_jobs.orchestration.operations.overview import Overview
from research_jobs.outcome import State
from research_jobs.report.server import ReportServer

pytestmark = pytest.mark.browser

TICK = AccountedTick("mornings", datetime(2026, 11, 27, 6, tzinfo=UTC), Became.RAN)
ACCOUNT = Account(
    TICK.at.timestamp(), 2e9, (*[TICK] * 210, *[replace(TICK, became=Became.MISSED)] * 2)
)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with open_browser(chromium) as made:
        yield made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Overview]:
    """The page of 25 notebooks in every state."""
    catalog, overview = every_state(tmp_path_factory.mktemp("project"))
    return write_morning_page(catalog, overview, ACCOUNT), overview


@pytest.fixture
def opened(browser: Any, written: tuple[Path, Overview]) -> Iterator[Any]:
    """Opens the page, from the disk, four minutes after it was written."""
    pages: list[Any] = []
    errors: list[str] = []

    def open_page(address: str | None = None, *, width: int = 1280, **options: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and errors.append(said.text))
        page.clock.install(time=written[1].now + timedelta(minutes=4))
        page.goto(
            address if address and "://" in address else written[0].as_uri() + (address or "")
        )
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert errors == []


def rows(page: Any) -> list[str]:
    """The notebooks that the table shows, in its order."""
    return page.locator(".rg-all tr[data-name]:visible th a").all_inner_texts()


def test_every_state_is_there_and_the_worst_comes_first(opened: Any) -> None:
    """Each thing that needs attention has its reason, since when, its report and its command."""
    page = opened()
    assert page.locator("h1").inner_text() == "11 things need attention"
    shown = page.locator(".rg-problem .rg-head .rg-state").all_inner_texts()
    assert shown[-5:] == ["Refused", "Blocked", "Late", "Missing", "Cancelled"]
    states = {*shown, *page.locator(".rg-all .rg-state:visible").all_inner_texts()}
    assert states == {state.heading for state in State}
    one = page.locator(".rg-problem", has_text="prices/fx")
    assert one.locator(".rg-who a").all_inner_texts() == [
        "prices/commodities",
        "prices/fx",
        "prices/rates",
    ]
    assert one.locator(".rg-why").inner_text() == (
        "ConnectionError: no route to host data.vendor.example"
    )
    assert one.locator("code").inner_text() == (
        "research-jobs run prices/commodities prices/fx prices/rates"
    )
    assert "since Fri 27 Nov 06:09" in one.locator(".rg-when").inner_text()
    crashed = page.locator(".rg-problem", has_text="Crashed")
    crashed.get_by_text("Report", exact=True).click()
    assert page.title() == "report"


def test_what_else_is_asked_in_the_morning(opened: Any) -> None:
    """What is slow or large, what is unused, what partitions failed, how old it is, which zone."""
    page = opened()
    assert "took 312 s, usually 90 s" in page.locator("#unusual").inner_text()
    momentum = page.locator("tr[data-name='signals/momentum']")
    assert momentum.locator(".c-parts").inner_text() == "215/226 4 failed"
    unused = page.locator("tr[data-flags~=unused] .rg-unused:visible").all_inner_texts()
    assert unused == ["nobody"] * 9
    assert "(4 min ago)" in page.locator(".rg-asof").first.inner_text()
    assert "Times are of Europe/Zagreb" in page.locator(".rg-asof").first.inner_text()
    numbers = page.locator("#account dl").inner_text().split()
    assert "since Fri 27 Nov 07:00" in page.locator("#account h2").inner_text()
    assert numbers == ["owed", "212", "ran", "210", "missed", "2", "unaccounted", "0"]
    groups = page.locator(".rg-group th:visible").all_inner_texts()
    assert [group.split()[0] for group in groups] == (
        ["market_data", "reports", "signals", "volatility", "default"]
    )
    assert len(momentum.locator(".rg-strip i").all()) == 14


def test_sorting(opened: Any) -> None:
    """A heading sorts over all groups, and the other way when pressed again; then by group."""
    page = opened()
    grouped = rows(page)
    head = page.locator("thead th[data-by=took]")
    head.locator("button").click()
    took = page.locator(".c-took").evaluate_all(
        "cells => cells.filter(c => c.offsetParent).map(c => Number(c.dataset.sort))"
    )
    assert took == sorted(took, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator(".rg-group:visible").count() == 0
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert rows(page) == grouped
    page.locator("thead th[data-by=name] button").click()
    assert rows(page) == sorted(grouped)


def test_filters_live_in_the_address(opened: Any, written: tuple[Path, Overview]) -> None:
    """An address opens the page narrowed as it was, and narrowing it changes the address."""
    page = opened("#show=unused&group=reports")
    assert len(rows(page)) == 5
    assert page.locator(".rg-problem:visible").count() == 1
    page.select_option("select[aria-label='Any group']", "")
    assert len(rows(page)) == 9
    page.fill("input[type=search]", "old")
    assert rows(page) == ["experiments/old_model"]
    assert page.url.endswith("#show=unused&q=old")
    again = opened(page.url)
    assert rows(again) == ["experiments/old_model"]
    assert again.input_value("input[type=search]") == "old"
    again.evaluate("location.hash = '#sort=-ended'")
    again.wait_for_function("document.querySelectorAll('.rg-all tr[data-name]').length == 25")
    assert len(rows(again)) == 25
    again.evaluate("location.hash = '#sort=nonsense&show=nothing'")
    again.locator(".rg-none").wait_for()


def test_keys(opened: Any) -> None:
    """``/`` leads to the search, and Escape empties it."""
    page = opened()
    page.keyboard.press("/")
    page.keyboard.type("GARCH vol")
    assert rows(page) == ["volatility/garch"]
    page.keyboard.press("Escape")
    assert len(rows(page)) == 25


def test_a_command_is_copied(opened: Any, written: tuple[Path, Overview]) -> None:
    """The button beside a command puts it on the clipboard, served and from the disk."""
    with ReportServer(written[0].parent, port=0) as server:
        for address in (None, f"{server.url}/"):
            page = opened(address)
            page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            item = page.locator(".rg-problem", has_text="--missing")
            item.locator("button").click()
            item.get_by_text("Copied").wait_for()
            copied = page.evaluate("navigator.clipboard.readText()")
            assert copied == "research-jobs backfill signals/seasonality --missing"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_widths(opened: Any, width: int, scheme: str) -> None:
    """The page never scrolls sideways, in the table, as charts and with every name open.

    Set RESEARCH_JOBS_SCREENSHOTS to a folder to keep what it looks like.
    """
    page = opened(width=width, color_scheme=scheme)
    if folder := os.environ.get("RESEARCH_JOBS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/morning-{width}-{scheme}.png", full_page=True)
    for address in ("#", "#sort=-took", "#view=charts"):
        page.evaluate(f"location.hash = '{address}'")
        page.wait_for_timeout(50)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_contrast_and_names(opened: Any) -> None:
    """Every text has a contrast of 4.5, and every control and image a name, in both schemes."""
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == []
        unnamed = page.evaluate(
            "Array.from(document.querySelectorAll('button,a,input,select,[role=img]'))"
            ".filter(e => e.offsetParent && !(e.textContent.trim() || e.ariaLabel)).length"
        )
        assert unnamed == 0
        assert page.locator("main").count() == page.locator("h1").count() == 1


def test_it_is_whole_without_scripts(opened: Any) -> None:
    """Without JavaScript everything can be read, and no control is shown that does nothing."""
    page = opened(java_script_enabled=False)
    assert len(rows(page)) == 25
    assert page.locator(".rg-problem:visible").count() == 11
    assert page.locator("button:visible, select:visible, input:visible").count() == 0
    assert "need scripts" in page.locator("noscript").inner_text()


def test_runs_since_are_shown(browser: Any, tmp_path: Path) -> None:
    """A run that ended after the page was written changes its row, and what needs attention."""
    catalog, overview = every_state(tmp_path)
    index = write_morning_page(catalog, overview)
    after = overview.now.timestamp() + 60
    ran = {"id": "x", "duration": 3.0, "partition": None, "thumbnail": None, "headline": None}
    lines = [
        ran | {"name": "prices/fx", "ending": "succeeded", "started": after},
        ran | {"name": "prices/equities", "ending": "failed", "started": after, "headline": "why"},
        ran | {"name": "brand/new", "ending": "crashed", "started": after, "partition": "it's"},
        ran | {"name": "calendar", "ending": "failed", "started": 1.0},
    ]
    text = [json.dumps(line | {"report": f"{line['name']}/r.html"}) for line in lines]
    (index.parent / "gallery.js").write_text(
        "".join(f"researchJobsRan({line});\n" for line in text)
        + 'researchJobsNotebook({"name": "of an earlier version"});\n'
    )
    page = browser.new_page()
    page.goto(index.as_uri())
    page.get_by_text("3 runs have ended since").wait_for()

    def state(name: str) -> str:
        return page.locator(f"tr[data-name='{name}'] .c-state").inner_text()

    assert state("prices/fx") == "Succeeded"
    assert state("prices/equities") == "Failed"
    assert state("brand/new") == "Crashed"
    assert state("calendar") == "Succeeded"
    problems = page.locator(".rg-problem")
    assert problems.count() == 13
    first = problems.filter(has_text="brand/new")
    assert first.locator("code").inner_text() == (
        "research-jobs run brand/new --partition 'it'\"'\"'s'"
    )
    assert problems.filter(has_text="prices/equities").locator(".rg-why").inner_text() == "why"
    page.close()


def test_size(tmp_path: Path) -> None:
    """The page of 100 notebooks stays below 400 kB, and names nothing outside its folder."""
    catalog, overview = every_state(tmp_path, copies=4)
    page = write_morning_page(catalog, overview, ACCOUNT)
    assert page.stat().st_size < 400_000
    text = page.read_text()
    assert "http:" not in text
    assert "https:" not in text


CONTRAST = """() => {
  function light(color) {
    return color.map(part => part / 255)
      .map(part => part <= 0.03928 ? part / 12.92 : Math.pow((part + 0.055) / 1.055, 2.4))
      .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  }
  function parts(color) { return color.match(/[\\d.]+/g).map(Number); }
  function behind(element) {
    for (let at = element; at; at = at.parentElement) {
      const color = parts(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
    }
    return [255, 255, 255];
  }
  const found = [];
  for (const element of document.querySelectorAll('main *')) {
    const own = Array.from(element.childNodes).some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !element.offsetParent || element.closest('.rg-hide')) continue;
    const [a, b] = [parts(getComputedStyle(element).color).slice(0, 3), behind(element)].map(light);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${element.className} ${element.textContent} ${ratio}`);
  }
  return found;
}"""
