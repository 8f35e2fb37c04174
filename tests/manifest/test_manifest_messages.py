"""Broken manifests and their messages: where, what, what to do. Fault 19."""

from __future__ import annotations

import pytest

# ruff: noqa: ISC004 - a message is one line to a person and two here

# name, manifest, messages (each without the file's name in front)
BROKEN: list[tuple[str, str, list[str]]] = [
    (
        "unknown key of a notebook",
        "notebooks:\n  market_data:\n    outptus: [prices]\n",
        ["3:5: notebook market_data: unknown key 'outptus'. Did you mean 'outputs'?"],
    ),
    (
        "unknown key deeper down",
        "notebooks:\n  market_data:\n    retries: {max: 1, dlay: 3s}\n",
        ["3:23: notebook market_data: unknown key 'dlay' in retries. Did you mean 'delay'?"],
    ),
    (
        "a key that has another name here",
        "notebooks: {market_data: {env: {A: 1}}}",
        ["1:27: notebook market_data: unknown key 'env'. Did you mean 'environment'?"],
    ),
    (
        "a key that belongs elsewhere",
        'notebooks: {market_data: {cron: "0 6 * * *"}}',
        [
            "1:27: notebook market_data: 'cron' does not belong here."
            " A cron expression belongs to an entry under schedules."
        ],
    ),
    (
        "unknown notebook",
        "notebooks:\n  market_dta: {outputs: [prices]}\n",
        ["2:3: there is no notebook 'market_dta'. Did you mean 'market_data'?"],
    ),
    (
        "an output that is no identifier",
        "notebooks: {market_data: {outputs: [perf-df]}}",
        [
            "1:37: notebook market_data, outputs: the output 'perf-df' is not a Python variable"
            " name. Did you mean 'perf_df'?"
        ],
    ),
    (
        "an output that is a keyword",
        "notebooks:\n  market_data:\n    outputs:\n      class: {min_rows: 1}\n",
        [
            "4:7: notebook market_data, outputs: the output 'class' is not a Python variable"
            " name. Did you mean 'class_'?"
        ],
    ),
    (
        "an output twice",
        "notebooks: {market_data: {outputs: [a, b, a]}}",
        ["1:43: notebook market_data, outputs: duplicate output 'a'. Keep one."],
    ),
    (
        "a duration",
        "notebooks: {market_data: {timeout: 10 minuts}}",
        [
            "1:36: notebook market_data, timeout: '10 minuts' is not a duration: unknown unit"
            " 'minuts'. Did you mean 'minutes' or 'minute' or 'min'?"
        ],
    ),
    (
        "a size",
        "notebooks: {market_data: {memory: 2G}}",
        [
            "1:35: notebook market_data, memory: '2G' is not a size: unknown unit 'g'."
            " Write 2GiB (1024s) or 2GB (1000s)."
        ],
    ),
    (
        "a wrong type",
        "notebooks: {market_data: {retries: {max: two}, owners: {a: b}}}",
        [
            "1:42: notebook market_data, retries.max: 'two' is not a whole number."
            " Write it without quotes.",
            "1:56: notebook market_data, owners: a mapping is not a list."
            " Write [a, b], or one entry per line with dashes.",
        ],
    ),
    (
        "a choice",
        "notebooks: {market_data: {isolation: forc}}",
        [
            "1:38: notebook market_data, isolation: 'forc' is not one of fork, spawn."
            " Did you mean 'fork'?"
        ],
    ),
    (
        "the inputs of a test",
        """notebooks:
  market_data: {outputs: [prices]}
  volatility/garch: {test: {inputs: {market_dta.prices: a.parquet}}}
  momentum_signals: {test: {inputs: {market_data.price: a.parquet}}}
  performance_report: {test: {inputs: {market_data.prices: a.csv}, chekcs: false}}
""",
        [
            "3:38: notebook volatility/garch, test.inputs: there is no notebook 'market_dta'."
            " Did you mean 'market_data'?",
            "4:38: notebook momentum_signals, test.inputs: market_data declares no output 'price'."
            " Did you mean 'prices'?",
            "5:39: notebook performance_report, test.inputs: 'a.csv' is not a Parquet file."
            " Write tests/samples/prices.parquet.",
            "5:68: notebook performance_report: unknown key 'chekcs' in test."
            " Did you mean 'checks'?",
        ],
    ),
    (
        "a notebook twice",
        "notebooks:\n  market_data: {}\n  market_data: {}\n",
        ["3:3: notebook market_data: duplicate key 'market_data', first on line 2. Keep one."],
    ),
    (
        "a notebook twice in two spellings",
        "notebooks:\n  volatility/garch: {}\n  volatility.garch: {}\n",
        [
            "3:3: duplicate notebook 'volatility/garch', written as 'volatility/garch' and"
            " 'volatility.garch'. Keep one."
        ],
    ),
    (
        "a key twice",
        "notebooks:\n  market_data:\n    timeout: 5m\n    timeout: 6m\n",
        ["4:5: notebook market_data: duplicate key 'timeout', first on line 3. Keep one."],
    ),
    (
        "a cron hour",
        'schedules: {a: {cron: "0 26 * * *", notebooks: [market_data]}}',
        [
            "1:23: schedule a, cron: bad cron expression '0 26 * * *', hour: '26' is not usable."
            " Write numbers from 0-23 (5, 1-5, 1,15), * or */2."
        ],
    ),
    (
        "a cron day's name",
        'schedules: {a: {cron: "0 6 * * mon-fir", notebooks: [market_data]}}',
        [
            "1:23: schedule a, cron: bad cron expression '0 6 * * mon-fir', day of week: 'mon-fir'"
            " is not usable. Did you mean 'fri'?"
        ],
    ),
    (
        "too few cron fields",
        'schedules: {a: {cron: "0 6 * *", notebooks: [market_data]}}',
        [
            "1:23: schedule a, cron: the cron expression '0 6 * *' has 4 fields, not 5."
            ' Write minute, hour, day of month, month, day of week: "0 6 * * 1-5".'
        ],
    ),
    (
        "a day that never comes",
        'schedules: {a: {cron: "0 6 31 6 *", notebooks: [market_data]}}',
        [
            "1:23: schedule a, cron: the cron expression '0 6 31 6 *' never fires: that month has"
            " no such day. Write L for a month's last day."
        ],
    ),
    (
        "a schedule's notebook",
        'schedules: {a: {cron: "@daily", notebooks: [market_data, performance_reprot]}}',
        [
            "1:58: schedule a: there is no notebook 'performance_reprot'."
            " Did you mean 'performance_report'?"
        ],
    ),
    (
        "a time zone",
        'schedules: {a: {cron: "@daily", timezone: Zagreb, notebooks: [market_data]}}',
        ["1:43: schedule a, timezone: unknown time zone 'Zagreb'. Did you mean 'Europe/Zagreb'?"],
    ),
    (
        "what a schedule needs",
        "schedules:\n  a: {timezone: UTC}\n",
        [
            "2:3: schedule a: 'cron' is missing. Write cron: \"0 6 * * 1-5\".",
            "2:3: schedule a: 'notebooks' is missing. Write notebooks: [market_data].",
        ],
    ),
    (
        "a schedule's name",
        'schedules: {every morning: {cron: "@daily", notebooks: [market_data]}}',
        [
            "1:13: the schedule name 'every morning' has characters other than letters, digits"
            " and _. Did you mean 'every_morning'?"
        ],
    ),
    (
        "partitions without a start",
        "notebooks: {market_data: {partitions: {by: day}}}",
        [
            "1:39: notebook market_data, partitions: partitions by day have no start."
            " Write start: 2018-01-02."
        ],
    ),
    (
        "partitions of an unknown length",
        "notebooks: {market_data: {partitions: {by: dayly, start: 2018-01-02}}}",
        [
            "1:44: notebook market_data, partitions.by: 'dayly' is not one of hour, day, week,"
            " month, quarter, year, cron. Did you mean 'day'?"
        ],
    ),
    (
        "a date as Americans write it",
        'notebooks: {market_data: {partitions: {by: day, start: "01/02/2018"}}}',
        [
            "1:56: notebook market_data, partitions.start: '01/02/2018' is not a date."
            " Write 2018-01-02 or 2018-01-02 06:00."
        ],
    ),
    (
        "a key format that loses the year",
        'notebooks: {market_data: {partitions: {by: day, start: 2018-01-02, format: "%m-%d"}}}',
        [
            "1:39: notebook market_data, partitions: the format '%m-%d' gives several"
            " partitions the same key. Use %Y-%m-%d."
        ],
    ),
    (
        "a partition key twice",
        "notebooks: {market_data: {partitions: {values: [eu, us, eu]}}}",
        ["1:57: notebook market_data, partitions.values: duplicate partition key 'eu'. Keep one."],
    ),
    (
        "keys from an output that is not declared",
        "notebooks:\n"
        "  market_data: {outputs: [tickers]}\n"
        "  momentum_signals:\n"
        "    partitions: {dynamic: {notebook: market_data, output: ticker}}\n",
        [
            "4:59: notebook momentum_signals, partitions.dynamic: market_data declares no output"
            " 'ticker'. Did you mean 'tickers'?"
        ],
    ),
    (
        "an alias",
        "notebooks:\n  market_data: &all {outputs: [a]}\n  performance_report: *all\n",
        [
            "2:16: notebook market_data: the anchor '&all' is not allowed in a manifest."
            " Write the value where it is used, or put it under defaults.",
            "3:23: notebook performance_report: the alias '*all' is not allowed in a manifest."
            " Write the value out, or put it under defaults.",
        ],
    ),
    (
        "a misspelt section",
        "notebook: {market_data: {}}",
        ["1:1: unknown section 'notebook'. Did you mean 'notebooks'?"],
    ),
    (
        "a notebook outside its section",
        "market_data: {outputs: [prices]}\nnotebooks: {}\n",
        [
            "1:1: unknown section 'market_data'."
            " Put the notebook 'market_data' under notebooks, indented."
        ],
    ),
    (
        "a cron expression without quotes",
        "schedules:\n  a:\n    cron: * * * * *\n",
        [
            "3:12: this is not YAML: did not find expected alphabetic or numeric character."
            ' Put quotes around a value that begins with *: cron: "0 6 * * *".'
        ],
    ),
    (
        "a tab",
        "notebooks:\n\tmarket_data: {}\n",
        [
            "2:1: this is not YAML: found character that cannot start any token."
            " Indent with spaces, not with tabs."
        ],
    ),
    (
        "a bracket left open",
        "notebooks:\n  market_data: {outputs: [a\n",
        [
            "3:1: this is not YAML: did not find expected ',' or ']'."
            " Check the indentation and the brackets above this line."
        ],
    ),
    (
        "two documents",
        "a: b\n---\nc: d\n",
        [
            "2:1: a second YAML document begins here; a manifest is a single document."
            " Remove the line ---."
        ],
    ),
    (
        "secrets that are values",
        "secrets: [DB_PASSWORD, hunter2!]",
        [
            "1:24: secrets: 'hunter2!' is not an environment variable name."
            " List names such as DB_PASSWORD, never their values."
        ],
    ),
    (
        "an owner",
        "notebooks: {market_data: {owners: [Jane Doe]}}",
        [
            "1:36: notebook market_data, owners: 'Jane Doe' is not an owner."
            " Write an email address, or 'team:Jane-Doe'."
        ],
    ),
    (
        "after and automation",
        "notebooks: {market_data: {after: [performance_reprt], automation: on_cron}}",
        [
            "1:67: notebook market_data, automation: on_cron needs a cron expression."
            ' Write automation: {on_cron: "0 6 * * *"}.'
        ],
    ),
    (
        "catch_up",
        "schedules: {a: {cron: '@daily', notebooks: [market_data], catch_up: all}}",
        [
            "1:69: schedule a, catch_up: catch_up cannot be 'all'."
            " Write none, or how many older partitions to look at."
        ],
    ),
]


@pytest.mark.parametrize(
    ("text", "messages"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN]
)
def test_a_mistake_is_reported_with_its_place_and_a_way_out(load, text, messages):
    """Each broken manifest gives exactly these lines."""
    found = [problem.error.headline for problem in load(text).problems]
    assert found == [f"notebooks/manifest.yaml:{message}" for message in messages]


def test_every_message_names_a_place_in_the_file(load):
    """No mistake of the table is without line and column."""
    for _, text, _ in BROKEN:
        for problem in load(text).problems:
            assert problem.error.where is not None
            assert problem.error.where.line is not None
            assert problem.error.where.column is not None


def test_bytes_that_are_not_utf8_are_told_with_their_place(load):
    """A manifest in another encoding says where it stops being UTF-8."""
    problem = load(b"notebooks: {}\n# caf\xe9\n").problems[0]
    assert str(problem.error) == (
        "notebooks/manifest.yaml:2:6: byte 0xe9 is not UTF-8. Save the file as UTF-8."
    )


def test_a_control_character_is_reported_with_its_place(load):
    """What no editor shows is named by its code."""
    problem = load('notebooks:\n  market_data: {timeout: "\x07"}\n').problems[0]
    assert problem.error.headline == (
        "notebooks/manifest.yaml:2:27: the character U+0007 is not allowed in YAML. Remove it."
    )


def test_a_manifest_that_is_a_folder_is_a_problem(tmp_path):
    """Whatever stands in the manifest's place, loading does not raise."""
    from research_jobs.manifest import load_manifest
    from research_jobs.project import find_project

    (tmp_path / "notebooks" / "manifest.yaml").mkdir(parents=True)
    manifest = load_manifest(find_project(tmp_path), [])
    assert manifest.unreadable is not None
