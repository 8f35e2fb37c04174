"""What a manifest says comes out as it was meant, and what it takes down when it does not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from research_jobs.manifest import load_manifest
from research_jobs.project import find_project

DESIGN = """
# yaml-language-server: $schema=./manifest.schema.json
defaults:
  timezone: Europe/Zagreb
  timeout: 30m
  retries: {max: 2, delay: 30s}
  tags: {desk: rates}
  owners: [research@example.com]
  environment: {MODE: batch}

notebooks:
  market_data:
    outputs: [prices]
  performance_report:
    outputs: [perf_df, summary]
    owners: [team:quants]
    tags: [nightly]
    environment: {SEED: 7}
  volatility/garch:
    outputs:
      forecast: {min_rows: 1, not_null: [variance], unique: [date], severity: {unique: warn}}
    timeout: 10m
    memory: 2GiB
    pool: heavy
    retries: 0
  momentum_signals:
    outputs: [signals]
    parameters: {lookback: 60, since: 2020-01-01}
    partitions: {by: day, start: 2018-01-02, parameter: run_date}

schedules:
  every_morning:
    cron: "0 6 * * 1-5"
    notebooks: [market_data, performance_report, volatility.garch]
  signals_nightly:
    cron: ["30 1 * * *", "@monthly"]
    timezone: America/New_York
    notebooks: momentum_signals
    catch_up: 7
    enabled: false

secrets: [DB_PASSWORD, DB_PASSWORD]
reports: {url: "https://reports.example.com/", dagster: "http://dagster:3000/", keep: 5}
"""


def test_the_designs_manifest_is_read_as_it_is_meant(load):
    """Every key of the design's manifest arrives with its value, defaults merged in."""
    manifest = load(DESIGN)
    assert manifest.problems == ()
    assert list(manifest.notebooks) == [
        "market_data",
        "performance_report",
        "volatility/garch",
        "momentum_signals",
    ]
    garch = manifest.notebooks["volatility/garch"]
    assert (garch.timeout, garch.memory, garch.pool) == (600.0, 2 * 1024**3, "heavy")
    assert garch.retries is not None
    assert garch.retries.max == 0
    assert garch.outputs["forecast"].checks() == {
        "min_rows": 1,
        "not_null": ["variance"],
        "unique": ["date"],
        "severity": {"min_rows": "error", "not_null": "error", "unique": "warn"},
    }
    report = manifest.notebooks["performance_report"]
    assert report.timeout == 1800.0
    assert report.retries is not None
    assert (report.retries.max, report.retries.delay) == (2, 30.0)
    assert report.owners == ("team:quants",)
    assert dict(report.tags) == {"desk": "rates", "nightly": ""}
    assert dict(report.environment) == {"MODE": "batch", "SEED": "7"}
    assert manifest.notebooks["market_data"].owners == ("research@example.com",)
    momentum = manifest.notebooks["momentum_signals"]
    assert momentum.partitions is not None
    assert momentum.partitions.timezone == "Europe/Zagreb"
    assert momentum.partitions.start == datetime.fromisoformat("2018-01-02")
    assert momentum.parameters == {"lookback": 60, "since": "2020-01-01"}


def test_schedules_know_their_zone_and_notebooks(load):
    """A schedule takes the default zone unless it has its own; names come out normalised."""
    schedules = load(DESIGN).schedules
    assert schedules["every_morning"].timezone == "Europe/Zagreb"
    assert schedules["every_morning"].notebooks[-1] == "volatility/garch"
    nightly = schedules["signals_nightly"]
    assert nightly.timezone == "America/New_York"
    assert nightly.cron == ("30 1 * * *", "@monthly")
    assert nightly.notebooks == ("momentum_signals",)
    assert (nightly.catch_up, nightly.enabled) == (7, False)


def test_what_a_notebook_says_wins_over_the_defaults(load):
    """Tag by tag and variable by variable; its time zone is that of its partitions too."""
    spec = load(
        "defaults: {timezone: Europe/Zagreb, tags: {a: x, b: x}, environment: {A: x, B: x}}\n"
        "notebooks:\n"
        "  market_data: {timezone: Asia/Tokyo, tags: {a: y}, environment: {A: y},\n"
        "    partitions: {by: day, start: 2018-01-02}}\n"
    ).notebooks["market_data"]
    assert dict(spec.tags) == {"a": "y", "b": "x"}
    assert dict(spec.environment) == {"A": "y", "B": "x"}
    assert spec.partitions.timezone == "Asia/Tokyo"


def test_secrets_and_reports_are_read(load):
    """The two small sections arrive; an address loses its last slash."""
    manifest = load(DESIGN)
    assert manifest.secrets == ("DB_PASSWORD",)
    assert (manifest.reports.url, manifest.reports.keep) == ("https://reports.example.com", 5)
    assert manifest.reports.dagster == "http://dagster:3000"


def test_no_manifest_means_defaults(tmp_path: Path):
    """A project without a manifest has no problems and every notebook has the defaults."""
    (tmp_path / "notebooks").mkdir()
    manifest = load_manifest(find_project(tmp_path), ["a"])
    assert manifest.problems == ()
    assert manifest.spec("a").outputs == {}
    assert manifest.spec("a").timezone == "UTC"


@pytest.mark.parametrize("text", ["", "# nothing\n", "notebooks:\nschedules:\n", "{}", "---\n"])
def test_an_empty_manifest_means_defaults(load, text):
    """Empty sections are no mistake."""
    manifest = load(text)
    assert manifest.problems == ()
    assert manifest.notebooks == {}


def test_an_unnamed_notebook_has_the_defaults(load):
    """A notebook that the manifest does not name runs under the defaults."""
    manifest = load("defaults: {timeout: 5m, pool: heavy}\n")
    assert manifest.spec("market_data").timeout == 300.0
    assert manifest.spec("market_data").pool == "heavy"
    assert manifest.spec("volatility.garch") == manifest.spec("volatility/garch")


def test_a_mistake_takes_down_its_notebook_alone(load):
    """The other notebooks and the schedules load, and the broken one is reported."""
    manifest = load(
        "notebooks:\n"
        "  market_data: {outptus: [prices]}\n"
        "  performance_report: {outputs: [perf_df]}\n"
        "schedules:\n"
        '  daily: {cron: "0 6 * * *", notebooks: [market_data, performance_report]}\n'
    )
    assert list(manifest.notebooks) == ["performance_report"]
    assert [p.name for p in manifest.problems] == ["market_data"]
    assert manifest.problems_of("market_data") == manifest.problems
    assert manifest.problems_of("performance_report") == ()
    # A broken notebook stays in its schedule: its step fails there, in sight.
    assert manifest.schedules["daily"].notebooks == ("market_data", "performance_report")


def test_a_mistake_takes_down_its_schedule_alone(load):
    """A schedule with a mistake is lost; its notebooks and the other schedules are not."""
    manifest = load(
        "notebooks: {market_data: {outputs: [prices]}}\n"
        "schedules:\n"
        '  bad: {cron: "0 26 * * *", notebooks: [market_data]}\n'
        '  good: {cron: "0 6 * * *", notebooks: [market_data]}\n'
    )
    assert list(manifest.schedules) == ["good"]
    assert list(manifest.notebooks) == ["market_data"]
    assert [(p.scope, p.name) for p in manifest.problems] == [("schedule", "bad")]


def test_a_wrong_default_falls_back_alone(load):
    """Of the defaults only the mistaken key is lost."""
    manifest = load("defaults: {timeout: soon, memory: 1GB, nonsense: 1}\n")
    assert (manifest.defaults.timeout, manifest.defaults.memory) == (None, 10**9)
    assert [p.scope for p in manifest.problems] == ["manifest", "manifest"]
    assert manifest.unreadable is None


def test_who_needs_a_wrong_default_timezone_is_lost(load):
    """Nothing runs at another hour than was meant because the zone's name has a typo."""
    manifest = load(
        "defaults: {timezone: Europe/Zagrb}\n"
        "notebooks:\n"
        "  market_data: {outputs: [prices]}\n"
        "  momentum_signals: {partitions: {by: day, start: 2018-01-02}}\n"
        "  performance_report: {partitions: {values: [eu]}}\n"
        "schedules:\n"
        '  unsure: {cron: "0 6 * * *", notebooks: [market_data]}\n'
        '  sure: {cron: "0 6 * * *", timezone: UTC, notebooks: [market_data]}\n'
    )
    assert list(manifest.notebooks) == ["market_data", "performance_report"]
    assert list(manifest.schedules) == ["sure"]


@pytest.mark.parametrize(
    "entry",
    ["automation: {on_cron: '0 6 * * *'", "freshness: {within: 2h, cron: '0 6 * * *'"],
)
def test_a_cron_beside_a_wrong_default_timezone_is_lost(load, entry):
    """Unless it, or its notebook, names a zone of its own."""
    manifest = load(
        "defaults: {timezone: Europe/Zagrb}\n"
        "notebooks:\n"
        f"  market_data: {{{entry}}}}}\n"
        f"  momentum_signals: {{timezone: UTC, {entry}}}}}\n"
        f"  performance_report: {{{entry}, timezone: UTC}}}}\n"
    )
    assert list(manifest.notebooks) == ["momentum_signals", "performance_report"]


def test_text_that_is_not_yaml_breaks_every_notebook(load):
    """Without knowing the outputs nothing may run: each notebook has the one problem."""
    manifest = load("notebooks:\n  market_data: [\n")
    assert manifest.unreadable is not None
    assert manifest.schedules == {}
    assert manifest.problems_of("market_data") == manifest.problems
    assert len(manifest.problems) == 1


@pytest.mark.parametrize("text", ["notebook: {}", "notebooks: [market_data]", "- a", "text"])
def test_a_lost_section_of_notebooks_breaks_every_notebook(load, text):
    """A misspelt or misshapen section is not taken for one that declares nothing."""
    assert load(text).unreadable is not None


def test_all_mistakes_of_an_entry_are_reported_at_once(load):
    """One look at the list is enough to correct an entry."""
    manifest = load("notebooks: {market_data: {timeout: x, memory: y, foo: 1}}")
    assert len(manifest.problems) == 3
    assert [p.error.where.column for p in manifest.problems if p.error.where] == [36, 47, 50]


def test_positions_can_be_asked_for(load):
    """Other checks (of parameters against the notebook) can point at the manifest too."""
    manifest = load("notebooks:\n  volatility.garch:\n    parameters: {p: 1, q: two}\n")
    where = manifest.locate("notebooks", "volatility/garch", "parameters", "q")
    assert str(where) == "notebooks/manifest.yaml:3:27"
    assert str(manifest.locate("notebooks", "volatility/garch", "parameters", "q", key=True)) == (
        "notebooks/manifest.yaml:3:24"
    )


def test_the_norwegian_and_other_classic_traps(load):
    """Countries, times and leading zeros stay the texts that they were written as."""
    manifest = load(
        "notebooks:\n"
        "  market_data:\n"
        "    partitions: {values: [NO, SE, on, 007, 2019, 1:30, 1.10, 2020-01-01]}\n"
    )
    partitions = manifest.notebooks["market_data"].partitions
    assert partitions is not None
    assert partitions.values == ("NO", "SE", "on", "007", "2019", "1:30", "1.1", "2020-01-01")


def test_specs_are_frozen(load):
    """Nobody changes what the manifest said behind the others' backs."""
    spec = load("notebooks: {market_data: {outputs: [prices]}}").notebooks["market_data"]
    with pytest.raises(ValidationError):
        spec.timeout = 3


def test_windows_line_ends_and_a_bom_are_fine(load):
    """A manifest saved by another editor reads the same."""
    text = b"\xef\xbb\xbf" + DESIGN.replace("\n", "\r\n").encode()
    assert load(text).notebooks == load(DESIGN).notebooks


def test_every_optional_key_is_read(load):
    """Keys that the design only names are understood in their short and long forms."""
    manifest = load(
        """
notebooks:
  market_data:
    outputs:
      tickers:
      prices:
        columns: {close: double, open: null}
        range: {close: [0, null], date: {min: 2018-01-01}}
        fresh_within: {column: date, within: 3d}
        schema: checks.prices:Prices
        changed: {max_share: 20%, max_change: {close: 10%, open: 0.5}, tolerance: 1.0e-9}
        compression: zstd
        compression_level: 9
        row_group_size: 100000
        keep: 3
    group: data
    kinds: [python, parquet]
    description: Daily prices.
    isolation: spawn
    python: /opt/py310/bin/python
    io_manager: duckdb
    deps: [raw/prices, [vendor, x]]
    watch: incoming/*.csv
    freshness: {within: 26h, warn_within: 25h}
  performance_report:
    outputs: summary
    after: market_data
    variants: {eu: {region: EU}, us: {region: US, start: 2020-01-01}, all: null}
    freshness: 24h
  volatility/garch:
    automation: {on_cron: "0 6 * * *"}
    partitions:
      dimensions:
        date: {by: month, start: 2018-01, offset: 1}
        ticker: {dynamic: {notebook: market_data, output: tickers}}
  momentum_signals:
    automation: eager
    partitions: {by: day, start: 2018-01-02, shift: 17h, calendar: XNYS}
"""
    )
    assert [str(p.error) for p in manifest.problems] == []
    data = manifest.notebooks["market_data"]
    assert data.deps == (("raw", "prices"), ("vendor", "x"))
    assert data.watch == ("incoming/*.csv",)
    prices = data.outputs["prices"]
    assert prices.checks() == {
        "columns": {"close": "double", "open": None},
        "range": {"close": [0, None], "date": ["2018-01-01", None]},
        "fresh_within": {"column": "date", "seconds": 3 * 86400.0},
        "schema": "checks.prices:Prices",
        "changed": {
            "max_share": 0.2,
            "max_change": {"close": {"relative": 0.1}, "open": {"absolute": 0.5}},
            "tolerance": 1e-9,
        },
        "severity": dict.fromkeys(
            ("columns", "range", "fresh_within", "schema", "changed"), "error"
        ),
    }
    assert prices.options() == {
        "compression": "zstd",
        "compression_level": 9,
        "row_group_size": 100000,
    }
    assert prices.keep == 3
    report = manifest.notebooks["performance_report"]
    assert report.after == ("market_data",)
    assert report.variants["us"] == {"region": "US", "start": "2020-01-01"}
    assert report.variants["all"] == {}
    assert report.freshness is not None
    assert report.freshness.within == 86400.0
    garch = manifest.notebooks["volatility/garch"]
    assert garch.automation is not None
    assert (garch.automation.kind, garch.automation.cron) == ("on_cron", "0 6 * * *")
    assert garch.partitions is not None
    date = garch.partitions.columns["date"]
    assert (date.start, date.timezone, date.offset) == (
        datetime.fromisoformat("2018-01-01"),
        "UTC",
        1,
    )
    assert date.key_format == "%Y-%m"
    assert garch.partitions.columns["ticker"].timezone is None
    momentum = manifest.notebooks["momentum_signals"]
    assert momentum.partitions is not None
    assert momentum.partitions.shift == 17 * 3600.0


def test_the_samples_manifest_has_no_mistake():
    """The manifest that this repository ships loads without a problem."""
    root = Path(__file__).parents[2]
    path = root / "notebooks" / "manifest.yaml"
    names = [
        p.relative_to(path.parent).with_suffix("").as_posix() for p in path.parent.rglob("*.py")
    ]
    manifest = load_manifest(find_project(root), names)
    assert [str(p.error) for p in manifest.problems] == []


def test_the_projects_own_keys_are_read(load):
    """`prefix` and `group` stand at the top; without them there is neither."""
    project = load("prefix: desk-a\ngroup: research\n").project
    assert (project.prefix, project.group) == ("desk-a", "research")
    assert (load("").project.prefix, load("").project.group) == (None, None)


def test_a_wrong_prefix_stops_every_notebook(load):
    """To run a notebook under another asset key than was meant would be wrong."""
    manifest = load("notebooks: {market_data: {outputs: [prices]}}\nprefix: a b\n")
    assert manifest.unreadable is not None
    assert str(manifest.unreadable.error.where) == "notebooks/manifest.yaml:2:9"
    assert manifest.notebooks == {}


def test_a_wrong_group_is_lost_alone(load):
    """Nothing is shared with a group by mistake, and the notebooks still run."""
    manifest = load("notebooks: {market_data: {outputs: [prices]}}\ngroup: 'a:b'\nprefix: x\n")
    assert [str(p.error.where) for p in manifest.problems] == ["notebooks/manifest.yaml:2:8"]
    assert list(manifest.notebooks) == ["market_data"]
    assert (manifest.project.group, manifest.project.prefix) == (None, "x")
