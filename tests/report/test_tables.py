"""Tables of a report in a real browser: sorted, filtered, paged, copied, saved and printed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import open_browser

from research_jobs.outcome import StagedOutput
from research_jobs.report.build import build_report
from research_jobs.report.whole import Published
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish

pytestmark = pytest.mark.browser

PRICES = pd.DataFrame(
    {
        "name": ["item 10", "item 9", "b", float("nan"), "a"],
        "value": ["1,234.5", "-2,000", "NaN", "7", "(12)"],
        "share": ["5.0%", "12.5%", "-1%", "100%", ""],
        "day": ["02.11.2024", "11.02.2024", "01.01.2025", "NaT", "31.12.2023"],
    }
)
LONG = pd.DataFrame({"key": [f"row-{n}" for n in range(120)], "n": np.arange(120)[::-1]})
TRADES = pd.DataFrame(
    {"name": np.tile(["b", "a"], 6000), "price": np.random.default_rng(1).normal(100, 15, 12_000)}
)
WIDE = pd.DataFrame(
    np.arange(480).reshape(12, 40),
    columns=[f"column {n}" for n in range(40)],
    index=pd.MultiIndex.from_product([["x", "y"], range(6)], names=["k", "n"]),
)
LEVELS = pd.DataFrame(
    [[2, 1, 5], [1, 2, 4]], columns=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y"), ("b", "x")])
)
HOSTILE = """<table><thead><tr><th>k<a href="https://example.com">x</a></th><th>v</th></tr></thead>
<tbody><tr><td>=HYPERLINK("x")</td><td>&lt;img src=x onerror=window.attacked=1&gt;</td></tr>
<tr><td>+cmd|' /C calc'!A0</td><td>a"b,c</td></tr><tr><td>-3</td><td>@x</td></tr></tbody></table>"""
GIANT = (
    "<table><thead><tr>" + "<th colspan=1000 rowspan=65534>x</th>" * 30 + "</tr></thead><tbody>"
    "<tr>" + "<td colspan=1000 rowspan=65534>x</td>" * 30 + "</tr></tbody></table>"
)
NAMES = ("prices", "long", "wide", "levels", "bad", "giant", "trades")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    with open_browser(chromium) as made:
        yield made


@pytest.fixture(scope="module")
def report(
    captures_in: Any, header: Any, show: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    with pd.option_context("display.max_columns", None, "display.max_rows", 200):
        frames = [frame.to_html() for frame in (PRICES, LONG, WIDE, LEVELS)]
    shown = dict(zip(NAMES, [*frames, HOSTILE, GIANT, TRADES._repr_html_()], strict=True))
    shows = {n: show("text/html", html) for n, html in enumerate(shown.values(), 1)}
    source = "".join(f"# %% {name}\n1\n" for name in shown)
    prose = "# %% [markdown]\n# | a | b |\n# |---|---|\n# | 2 | x |\n# | 1 | y |\n"
    store = str(folder / "data")
    with open_staging(store, "run-1") as staging:
        path = staging.path / "trades.parquet"
        staged = write_output("trades", TRADES, path, options={}, metadata={})
        publish(store, "nb", [staged], staging=staging, partition=None, run_id="run-1")
    run = header(notebook="nb", outputs=(StagedOutput("trades", "", "", 12_000, staged.bytes),))
    capture = captures_in(folder).write(source + prose, shows)
    return build_report(capture, run, folder, published=Published(store)).html


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    made = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    yield made
    made.close()


@pytest.fixture
def page(context: Any, report: Path) -> Iterator[Any]:
    made = context.new_page()
    made.goto(report.as_uri())
    yield made
    assert made.evaluate("window.attacked") is None
    made.close()


def cell(page: Any, number: int) -> Any:
    return page.locator(f"#cell-{number}")


def column(place: Any, number: int) -> list[str]:
    return place.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


@pytest.mark.parametrize(
    ("name", "ascending"),
    [
        ("value", ["-2,000", "(12)", "7", "1,234.5", "NaN"]),
        ("share", ["-1%", "5.0%", "12.5%", "100%", ""]),
        ("day", ["31.12.2023", "11.02.2024", "02.11.2024", "01.01.2025", "NaT"]),
        ("name", ["a", "b", "item 9", "item 10", "NaN"]),
    ],
)
def test_sorting_knows_what_is_in_a_column(page, name, ascending):
    """Numbers, percents, dates and texts sort by their meaning, missing ones last either way."""
    table, number = cell(page, 1), list(PRICES).index(name) + 2
    head, before = table.locator("th", has_text=name), column(table, number)
    head.get_by_role("button").click()
    assert column(table, number) == ascending
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").click()
    assert column(table, number) == [*ascending[-2::-1], ascending[-1]]
    head.get_by_role("button").click()
    assert column(table, number) == before
    assert head.get_attribute("aria-sort") is None


def test_text_is_at_the_left_and_numbers_at_the_right(page):
    """A column's cells and its heading stand where its values belong."""
    places = "e => e.map(cell => getComputedStyle(cell).textAlign)"
    assert cell(page, 1).locator("tbody tr").first.locator("th, td").evaluate_all(places) == [
        "right",
        "left",
        "right",
        "right",
        "left",
    ]
    assert set(cell(page, 4).locator("thead tr").last.locator("th").evaluate_all(places)) == {
        "right"
    }


def test_filter_and_pages_by_keyboard(page):
    """A long table has pages of 50 rows and a filter over all of them; keys alone do it."""
    table = cell(page, 2)
    said = table.get_by_role("status")
    assert (table.locator("tbody tr").count(), said.inner_text()) == (50, "1 to 50 of 120 rows")
    page.keyboard.press("Tab")
    table.get_by_label("Rows after").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert said.inner_text() == "101 to 120 of 120 rows"
    assert table.get_by_label("Rows after").is_disabled()
    table.get_by_role("button", name="n", exact=True).focus()
    page.keyboard.press("Space")
    assert column(table, 3)[:3] == ["0", "1", "2"]
    table.get_by_label("Filter rows").focus()
    page.keyboard.type("ROW-11")
    assert said.inner_text() == "11 rows of 120"
    assert column(table, 2)[:2] == ["row-119", "row-118"]


def test_copy_and_csv(page):
    """What is filtered and sorted is copied with its header, and saved as a file."""
    table = cell(page, 2)
    table.get_by_label("Filter rows").fill("row-3")
    table.get_by_role("button", name="n", exact=True).click()
    wanted = LONG[LONG["key"].str.contains("row-3")].sort_values("n")
    table.get_by_role("button", name="Copy").click()
    copied = pd.read_csv(io.StringIO(page.evaluate("navigator.clipboard.readText()")), sep="\t")
    assert copied["key"].tolist() == wanted["key"].tolist()
    with page.expect_download() as saving:
        table.get_by_role("button", name="Save CSV").click()
    saved = pd.read_csv(saving.value.path(), index_col=0)
    assert saving.value.suggested_filename == "table.csv"
    assert saved.index.tolist() == wanted.index.tolist()
    assert saved["n"].tolist() == wanted["n"].tolist()


def test_header_levels_and_row_spans(page):
    """Of a header of levels the lowest sorts; a table with row spans is not sorted, but saved."""
    levels = cell(page, 4)
    assert levels.locator("th button").count() == 4
    levels.locator("th button").nth(2).click()
    assert column(levels, 3) == ["1", "2"]
    assert column(levels, 2) == ["2", "1"]
    wide = cell(page, 3)
    assert wide.locator("th button, input").count() == 0
    assert wide.locator("tbody tr").count() == 12
    with page.expect_download() as saving:
        wide.get_by_role("button", name="Save CSV").click()
    saved = pd.read_csv(saving.value.path(), index_col=[0, 1])
    pd.testing.assert_frame_equal(saved, WIDE)


def test_index_and_header_stay_in_view(page):
    """However far a table is scrolled, both levels of its index and its header are in view."""
    wide = cell(page, 3)
    box = wide.locator(".rj-table")
    box.evaluate("e => { e.scrollLeft = 900; e.style.height = '200px'; e.scrollTop = 120 }")
    left = box.bounding_box()
    for place in ("tbody tr:last-child th", "thead tr:last-child th:nth-child(2)"):
        seen = wide.locator(place).first.bounding_box()
        assert left["x"] <= seen["x"] < left["x"] + 120
    assert wide.locator("thead tr").first.bounding_box()["y"] == pytest.approx(left["y"], abs=2)


def test_on_paper(page):
    """On paper a table has all rows; a wide one is in parts, each with the index, nothing lost."""
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    assert cell(page, 2).locator("tbody tr").count() == 120
    parts = cell(page, 3).locator("table:not(.rj-inparts)")
    assert parts.count() > 3
    heads = [parts.nth(n).locator("thead tr").first.locator("th") for n in range(parts.count())]
    said = [text for head in heads for text in head.all_inner_texts() if text]
    assert said == list(WIDE)
    for n in range(parts.count()):
        assert parts.nth(n).bounding_box()["width"] <= 718
        assert parts.nth(n).locator("tbody tr").nth(6).locator("th").first.inner_text() == "y"
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert cell(page, 3).locator("table").count() == 1
    assert cell(page, 2).locator("tbody tr").count() == 50


def test_hostile_tables(page):
    """Markup in a cell stays text, formulas leave as text, giant spans hold up nothing."""
    bad = cell(page, 5)
    bad.locator("th button").first.click()
    assert bad.locator("tbody img").count() == 0
    assert bad.locator("th a button, th button a").count() == 0
    with page.expect_download() as saving:
        bad.get_by_role("button", name="Save CSV").click()
    rows = pd.read_csv(saving.value.path(), header=None).to_numpy().tolist()
    assert {tuple(row) for row in rows[1:]} == {
        ('\'=HYPERLINK("x")', "<img src=x onerror=window.attacked=1>"),
        ("'+cmd|' /C calc'!A0", 'a"b,c'),
        ("-3", "'@x"),
    }
    assert cell(page, 6).locator("table").is_visible()
    assert cell(page, 6).locator("button").count() == 0


def test_the_whole_of_an_output(page):
    """Twelve thousand rows shown as ten are loaded, sorted and saved whole, with all digits."""
    trades = cell(page, 7)
    said = trades.get_by_role("status")
    assert said.inner_text() == "10 rows of 12,000"
    trades.get_by_role("button", name="Show all 12,000 rows").click()
    trades.get_by_text("1 to 50 of 12,000 rows").wait_for()
    trades.get_by_role("button", name="price", exact=True).click()
    ordered = TRADES.sort_values("price")
    assert column(trades, 3)[:3] == [f"{value:.6f}" for value in ordered["price"][:3]]
    with page.expect_download() as saving:
        trades.get_by_role("button", name="Save CSV").click()
    assert saving.value.suggested_filename == "trades.csv"
    pd.testing.assert_frame_equal(pd.read_csv(saving.value.path(), index_col=0), ordered)


def test_a_table_of_prose(page):
    """A table in Markdown is sorted too."""
    prose = cell(page, 8)
    prose.locator("th button").first.click()
    assert column(prose, 1) == ["1", "2"]


def test_without_scripts(browser, report):
    """Without scripts every row is there to read, and nothing that would not work."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report.as_uri())
    assert cell(page, 2).locator("tbody tr").count() == 120
    assert page.locator(".rj-tools").count() == 0
    context.close()
