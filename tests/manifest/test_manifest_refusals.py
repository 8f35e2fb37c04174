"""Every rule between keys: what breaks it is refused, and what just keeps it loads."""

from __future__ import annotations

import pytest

DAY = "by: day, start: 2020-01-01"
REFUSED = [
    ("partitions: {dimensions: {d: {by: day, start: 2020-01-01}}}", "dimensions has 1 entries"),
    (
        "partitions: {dimensions: {a: {values: [x]}, b: {values: [x]}, c: {values: [x]}}}",
        "dimensions has 3 entries",
    ),
    (
        f"partitions: {{dimensions: {{a: {{{DAY}}}, b: {{{DAY}}}}}}}",
        "both dimensions are time dimensions",
    ),
    (
        "partitions: {values: [x], dimensions: {a: {values: [x]}, b: {values: [y]}}}",
        "values cannot be combined with dimensions",
    ),
    ("partitions: {dimensions: {a-b: {values: [x]}, b: {values: [y]}}}", "the dimension 'a-b'"),
    ("partitions: {parameter: d}", "need one of by, values and dynamic"),
    (f"partitions: {{{DAY}, values: [x]}}", "partitions have by and values"),
    ("partitions: {values: [x], timezone: UTC}", "'timezone' is for time partitions only"),
    ("partitions: {values: [x], offset: 1}", "'offset' is for time partitions only"),
    ("partitions: {by: cron, start: 2020-01-01}", "by: cron needs its expression"),
    (f"partitions: {{{DAY}, cron: '0 0 * * *'}}", "'cron' belongs to by: cron"),
    (f"partitions: {{{DAY}, shift: 24h}}", "'shift' is whole minutes"),
    (f"partitions: {{{DAY}, shift: 90s}}", "'shift' is whole minutes"),
    ("partitions: {by: hour, start: 2020-01-01, shift: 60m}", "'shift' is whole minutes"),
    ("partitions: {by: day, start: 1000-01-01, end: 3737-11-29}", "1,000,001 partitions by day"),
    (
        "partitions: {by: cron, cron: '0 * * * *', start: 1800-01-01, end: 2100-01-01}",
        "2,629,752 partitions by cron",
    ),
    ("partitions: {by: week, start: 2020-01-01, calendar: XNYS}", "'calendar' needs by: day"),
    (f"partitions: {{{DAY}, calendar: '../x'}}", "is not a calendar name"),
    (f"partitions: {{{DAY}, offset: 10001}}", "10001 is too large"),
    (f"partitions: {{{DAY}, offset: -10001}}", "-10001 is too small"),
    ("partitions: {by: day, start: '2020-01-01T00:00:00+02:00'}", "carries its own offset"),
    ("partitions: {values: []}", "values has no partition key"),
    (f"partitions: {{values: [{'x' * 201}]}}", "has 201 characters"),
    ("partitions: {values: [' x']}", "begins or ends with a space"),
    ("partitions: {values: ['a|b']}", "contains '|'"),
    ("partitions: {values: [true]}", "True is not a partition key"),
    ("freshness: {within: 2h, warn_within: 2h}", "warn_within is not shorter than within"),
    ("freshness: {within: 59s}", "freshness is measured in minutes"),
    (
        "freshness: {within: 2h, warn_within: 1h, cron: '@daily'}",
        "warn_within and cron cannot be combined",
    ),
    (f"kinds: [{', '.join(f'k{n}' for n in range(11))}]", "11 kinds are listed"),
    ("kinds: ['a b']", "'a b' is not a kind"),
    ("after: [market_data]", "the notebook 'market_data' names itself"),
    ("after: [performance_report], automation: eager", "after and automation cannot be combined"),
    ("automation: {kind: eager, cron: '@daily'}", "eager takes no cron expression"),
    ("watch: ['']", "a watched pattern is empty"),
    ("outputs: {x: {severity: {rows: warn}}}", "severity names the check 'rows'"),
    ("outputs: {x: {range: {c: [2, 1]}}}", "goes from 2 to 1"),
    ("outputs: {x: {range: {c: [null, null]}}}", "has no bound"),
    ("outputs: {x: {range: {c: [1, b]}}}", "mixes types"),
    ("outputs: {x: {range: {c: [1]}}}", "is not a pair"),
    ("outputs: {x: {range: {c: [.nan, 1]}}}", "is not a number, text or date"),
    ("outputs: {x: {range: {c: [0, .inf]}}}", "is not a number, text or date"),
    ("outputs: {x: {range: {c: [true, 1]}}}", "is not a number, text or date"),
    ("outputs: {x: {min_rows: 3, max_rows: 2}}", "min_rows 3 is more than max_rows 2"),
    ("outputs: {x: {compression: gzip, compression_level: 10}}", "gzip has no level 10"),
    ("outputs: {x: {compression: brotli, compression_level: 12}}", "brotli has no level 12"),
    ("outputs: {x: {compression: snappy, compression_level: 1}}", "snappy has no level 1"),
    ("outputs: {x: {compression_level: 23}}", "zstd has no level 23"),
    ("outputs: {x: {compression_level: 0}}", "zstd has no level 0"),
    ("freshness: {within: 2h, warn_within: 59s}", "freshness is measured in minutes"),
    ("automation: {kind: on_cron}", "on_cron needs a cron expression"),
    ("automation: {kind: on_missing, cron: '@daily'}", "on_missing takes no cron expression"),
    (f"kinds: [{'k' * 51}]", "is not a kind"),
    (f"tags: {{{'k' * 64}: a}}", "is not a tag name"),
    (f"tags: {{a: {'v' * 64}}}", "is not a tag value"),
    ("tags: {a/b/c: x}", "'a/b/c' is not a"),
    (f"timeout: {'9' * 400}", "is not between"),
    ("retries: 1001", "1001 is too large"),
    ("partitions: {by: month, start: 2020-01-01, calendar: XNYS}", "'calendar' needs by: day"),
    (
        (
            "parameters: {d: {secret: A}}, "
            f"partitions: {{dimensions: {{d: {{{DAY}}}, e: {{values: [x]}}}}}}"
        ),
        "the secret parameter 'd' is also set by the partition",
    ),
    ("outputs: {x: {schema: nowhere}}", "does not name a schema"),
    ("environment: {1A: x}", "'1A' is not an environment variable name"),
    ('environment: {A: "x\\0y"}', "the variable A contains the character U+0000"),
    ("io_manager: a-b", "the io_manager 'a-b'"),
    ("pool: a b", "the pool 'a b'"),
    ("group: a-b", "the group 'a-b'"),
    ("parameters: {a: {secret: API_TOKEN, b: 1}}", "'a' does not name a secret"),
    ("parameters: {a: {secret: 1x}}", "'a' does not name a secret"),
    (
        f"parameters: {{d: {{secret: A}}}}, partitions: {{{DAY}, parameter: d}}",
        "the secret parameter 'd' is also set by the partition",
    ),
    (
        "parameters: {d: {secret: A}}, variants: {eu: {d: 1}}",
        "the secret parameter 'd' is also set by the partition",
    ),
    ("variants: {' eu': {}}", "the variant key ' eu'"),
    ("variants: {eu: 3}", "variant 'eu' is not a mapping of parameters"),
    ("deps: [[]]", "is not an asset key"),
]
REFUSED += [
    ("outputs: {x: {changed: {}}}", "changed has no limit"),
    ("outputs: {x: {changed: {max_share: 120%}}}", "'120%' is not a part from 0 to 1"),
    ("outputs: {x: {changed: {max_change: {a: x}}}}", "'x' is not how much 'a' may change"),
]
TAKEN = [
    f"partitions: {{{DAY}, shift: 23h59m}}",
    "partitions: {by: hour, start: 2020-01-01, shift: 59m}",
    f"partitions: {{{DAY}, end: 2020-01-02}}",
    f"partitions: {{{DAY}, offset: 10000}}",
    *(
        f"partitions: {{by: {by}, start: 1800-01-01, end: 2100-01-01}}"
        for by in ("week", "month", "quarter", "year", "cron, cron: '0 17 * * 1-5'")
    ),
    "partitions: {by: day, format: '%Y-%m-%dT%H', start: 1000-01-01, end: 3737-11-28}",
    f"partitions: {{{DAY}, offset: -10000}}",
    f"partitions: {{values: [{'x' * 200}]}}",
    f"partitions: {{dimensions: {{a: {{{DAY}}}, b: {{values: [x]}}}}}}",
    "freshness: {within: 2m, warn_within: 1m}",
    f"kinds: [{', '.join(f'k{n}' for n in range(10))}]",
    "outputs: {x: {min_rows: 2, max_rows: 2, range: {c: [1, 1], d: [null, 3]}}}",
    "outputs: {x: {compression: gzip, compression_level: 9}}",
    "outputs: {x: {compression_level: 22}}",
    "outputs: {x: {compression: brotli, compression_level: 11}}",
    "freshness: {within: 1m}",
    f"kinds: [{'k' * 50}]",
    f"tags: {{{'k' * 63}: {'v' * 63}}}",
    "retries: 1000",
    "outputs: {x: {severity: {fresh_within: warn, schema: warn, range: warn, unique: warn}}}",
    "parameters: {a: {secret: API_TOKEN}, b: {other: 1}}",
    "after: performance_report",
]


@pytest.mark.parametrize(("entry", "message"), REFUSED, ids=[case[0][:60] for case in REFUSED])
def test_what_breaks_a_rule_is_refused(load, entry, message):
    """The notebook alone is lost, with the rule in the line and a way out behind it."""
    manifest = load(f"notebooks: {{market_data: {{{entry}}}, performance_report: {{}}}}")
    assert [p.name for p in manifest.problems] == ["market_data"]
    assert message in manifest.problems[0].error.what
    assert manifest.problems[0].error.hint
    assert list(manifest.notebooks) == ["performance_report"]


@pytest.mark.parametrize("entry", TAKEN, ids=[case[:60] for case in TAKEN])
def test_what_just_keeps_a_rule_loads(load, entry):
    """The last value within each rule is no mistake."""
    manifest = load(f"notebooks: {{market_data: {{{entry}}}}}")
    assert [str(p.error) for p in manifest.problems] == []
    assert "market_data" in manifest.notebooks


@pytest.mark.parametrize("many", ["partitions: {values: [a]}", "variants: {eu: {}}"])
def test_keys_come_from_a_notebook_without_partitions(load, many):
    """One output lists the keys: a partitioned notebook has many of it."""
    manifest = load(
        "notebooks:\n"
        f"  market_data: {{outputs: [keys], {many}}}\n"
        "  momentum_signals: {partitions: {dynamic: {notebook: market_data, output: keys}}}\n"
    )
    assert "is itself partitioned" in manifest.problems[0].error.what


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("notebooks: [market_data, market_data]", "the notebook 'market_data' is listed twice"),
        ("notebooks: []", "no notebook is named"),
        ("notebooks: [market_data], catch_up: 10001", "10001 is too large"),
        ("notebooks: [market_data], cron: []", "cron is empty"),
    ],
)
def test_a_schedules_rules_hold(load, entry, message):
    """The schedule alone is lost."""
    cron = "" if "cron" in entry else "cron: '@daily', "
    manifest = load(f"schedules: {{a: {{{cron}{entry}}}}}")
    assert [(p.scope, p.name) for p in manifest.problems] == [("schedule", "a")]
    assert message in manifest.problems[0].error.what


def test_of_a_notebook_that_stands_twice_neither_entry_counts(load):
    """Which of the two is meant only its author knows; the others are not touched."""
    manifest = load(
        "notebooks: {volatility/garch: {timeout: 1m}, volatility.garch: {}, market_data: {}}"
    )
    assert [p.name for p in manifest.problems] == ["volatility/garch"]
    assert list(manifest.notebooks) == ["market_data"]


def test_a_file_at_the_limit_of_size_is_read(load):
    """Four MiB are read, one byte more is not."""
    limit = 4 * 1024 * 1024
    assert load("#" * limit).problems == ()
    assert "bytes; the limit is" in load("#" * (limit + 1)).problems[0].error.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"prefix: {'p' * 51}", "is not a prefix"),
        ("prefix: a/b", "is not a prefix"),
        (f"group: {'g' * 33}", "is not the name of a Unix group"),
        ("group: 1g", "is not the name of a Unix group"),
        ("reports: {url: 'https://'}", "is not a URL"),
        ("reports: {dagster: 'https:///x'}", "is not a URL"),
        ("reports: {url: reports.example.com}", "is not a URL"),
        ("reports: {keep: 0}", "0 is too small"),
        ("defaults: {pool: a b}", "the pool 'a b'"),
        ("defaults: {group: a-b}", "the group 'a-b'"),
        ("defaults: {owners: [Jane]}", "'Jane' is not an owner"),
        ("defaults: {kinds: [a b]}", "'a b' is not a kind"),
        ("defaults: {io_manager: a-b}", "the io_manager 'a-b'"),
    ],
)
def test_the_projects_rules_hold(load, text, message):
    """What holds for the project is checked like what a notebook says."""
    problems = load(text).problems
    assert [p.scope for p in problems] == ["manifest"]
    assert message in problems[0].error.what


def test_what_holds_where_nothing_is_said(load):
    """The documented defaults, and the last values that the project's own keys take."""
    manifest = load(
        f"prefix: {'p' * 50}\n"
        f"group: {'g' * 32}\n"
        "reports: {url: 'https://a.example/b/', dagster: 'http://c.example'}\n"
        "schedules:\n"
        "  a: {cron: '@daily', notebooks: [market_data]}\n"
        "  b: {cron: '@daily', notebooks: [market_data], catch_up: 10000}\n"
        "notebooks:\n"
        "  market_data: {outputs: {keys: {min_rows: 1, max_rows: 9, severity: {max_rows: warn}}}}\n"
        "  momentum_signals: {partitions: {dynamic: {notebook: market_data, output: keys}}}\n"
        f"  performance_report: {{partitions: {{{DAY}}}}}\n"
    )
    assert manifest.problems == ()
    assert (manifest.reports.url, manifest.reports.keep) == ("https://a.example/b", 30)
    assert manifest.reports.dagster == "http://c.example"
    assert manifest.defaults.timezone == "UTC"
    assert manifest.schedules["a"].enabled
    output = manifest.notebooks["market_data"].outputs["keys"]
    assert output.checks()["severity"] == {"min_rows": "error", "max_rows": "warn"}
    assert output.keep is None
    dynamic = manifest.notebooks["momentum_signals"].partitions.dynamic
    assert not dynamic.prune
    day = manifest.notebooks["performance_report"].partitions
    assert (day.offset, day.shift, day.timezone) == (0, 0.0, "UTC")


def test_a_time_zone_of_its_own_is_kept(load):
    """Defaults fill in a zone where none is named, in one dimension and in two."""
    manifest = load(
        "defaults: {timezone: Europe/Zagreb}\n"
        "notebooks:\n"
        f"  market_data: {{partitions: {{{DAY}, timezone: Asia/Tokyo}}}}\n"
        f"  momentum_signals: {{partitions: {{{DAY}}}}}\n"
        "  performance_report: {partitions: {dimensions: "
        f"{{z: {{{DAY}, timezone: Asia/Tokyo}}, a: {{values: [x]}}}}}}}}\n"
    )
    assert manifest.problems == ()
    zones = {
        name: {column: d.timezone for column, d in spec.partitions.columns.items()}
        for name, spec in manifest.notebooks.items()
    }
    assert zones == {
        "market_data": {"partition": "Asia/Tokyo"},
        "momentum_signals": {"partition": "Europe/Zagreb"},
        "performance_report": {"a": None, "z": "Asia/Tokyo"},
    }
    assert list(zones["performance_report"]) == ["a", "z"]


def test_close_names_are_searched_for_twenty_mistakes(load):
    """Each costs a search among all notebooks: whoever has more of them reads the first."""
    entries = "\n".join(f"  market_dat{n}: {{}}" for n in range(21))
    hints = [problem.error.hint for problem in load(f"notebooks:\n{entries}\n").problems]
    assert hints == ["Did you mean 'market_data'?"] * 20 + ["Correct its name."]
