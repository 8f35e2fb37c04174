"""`deliver`: who gets reports, the conditions, and what a mistake takes away."""

from __future__ import annotations

import pytest

from research_jobs.manifest.expression import ConditionError, parse_condition


class Known:
    """Values that a condition may ask for."""

    def __init__(self, changed: bool | None = True) -> None:
        self.changed = changed

    def rows(self, output):
        return {"prices": 3}[output]

    def value(self, output, keys):
        found = {
            "summary": {"dd": -0.4, "best": "sp500", "none": None, "flag": True, "list": [1, 2.5]},
            "prices": {"close": [1.0, 2.0]},
        }[output]
        for key in keys:
            found = found[key]
        return found


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("summary.dd < -0.3", True),
        ("summary.dd < -0.3 and rows(prices) > 3", False),
        ("summary.dd > 0 or summary.best == 'sp500'", True),
        ("not (summary.best != 'sp500')", True),
        ("summary.none == null", True),
        ("summary.flag == true and summary.flag", True),
        ("summary.list[1] * 2 - 1 == 4 and prices.close[-1] / 2 <= 1", True),
        ('abs(summary["dd"]) >= 0.4', True),
        ("-1 < summary.dd < 0", True),
        ("changed", True),
        ("not changed and summary.nothing > 1", False),
    ],
)
def test_a_condition_says_what_it_says(text, held):
    """Each construct of the language means what it means elsewhere; and/or stop early."""
    assert parse_condition(text).holds(Known()) is held


@pytest.mark.parametrize(
    ("text", "said", "column"),
    [
        ("summary.dd <", "it ends too early", 13),
        ("summary.dd = 3", "it cannot be read at '= 3'", 12),
        ("__import__('os').system('x') == 0", "is no part of a condition", 1),
        ("1 < foo(summary.dd)", "there is no function 'foo'", 5),
        ("rows(summary.dd) > 1", "rows takes an output's name", 1),
        ("summary.dd < True", "'True' is Python's", 14),
        ("[x for x in summary] == 1", "is no part of a condition", 1),
        ("lambda: 1", "is no part of a condition", 1),
        ("summary.dd ** 9 > 1", "is no part of a condition", 1),
        ("summary[prices] > 1", "is no part of a condition", 1),
        ("f'{summary}' == 'x'", "is no part of a condition", 1),
        ("(" * 300 + "1" + ")" * 300, "characters", 1),
        ("-" * 100 + "1 > 0", "it nests too deep", 31),
        ("", "it is not one line", 1),
    ],
)
def test_what_is_no_condition_is_refused(text, said, column):
    """Nothing but the language gets through, and the error says where."""
    with pytest.raises(ConditionError) as caught:
        parse_condition(text)
    assert said in caught.value.what
    assert caught.value.column == column or "cannot be read" in caught.value.what


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("summary.none < 1", "summary.none < 1: null and 1 have no <"),
        ("summary.best * 2 > 1", "summary.best is 'sp500', not a number"),
        ("summary.dd / 0 > 1", "summary.dd / 0 cannot be computed: -0.4 and 0"),
        ("summary.dd", "'summary.dd' is -0.4, not true or false"),
        ("summary.dd and true", "summary.dd is -0.4, not true or false"),
    ],
)
def test_a_condition_without_an_answer_says_why(text, said):
    """A value that cannot be compared is one line."""
    with pytest.raises(ConditionError) as caught:
        parse_condition(text).holds(Known())
    assert caught.value.what == said


def test_whether_outputs_changed_may_be_unknown():
    """A notebook without outputs has none that could change."""
    with pytest.raises(ConditionError, match="not known"):
        parse_condition("changed").holds(Known(None))


def test_a_mistake_takes_the_delivery_and_nothing_else(load):
    """Unknown channels, outputs and bad conditions have a place; the notebook still runs."""
    manifest = load(
        "alerts: {team: {email: a@b.ch}}\n"
        "defaults: {deliver: tem}\n"
        "notebooks:\n"
        "  market_data: {outputs: [prices], deliver: {to: team, when: rows(prics) > 1}}\n"
        "  performance_report: {outputs: [summary], deliver: [team, q@b.ch]}\n"
        "  volatility/garch: {deliver: {to: team, when: changed}}\n"
        "schedules:\n"
        "  daily: {cron: '0 6 * * *', notebooks: [market_data], deliver: {to: team, when: x >}}\n"
    )
    said = [str(problem.error).partition("manifest.yaml:")[2] for problem in manifest.problems]
    assert said == [
        "2:21: defaults, deliver: there is no channel 'tem'. Did you mean 'team'?",
        (
            "4:67: notebook market_data, deliver.when: there is no output 'prics'."
            " Did you mean 'prices'?"
        ),
        (
            "6:48: notebook volatility/garch, deliver.when: it declares no outputs that could"
            " change. Declare outputs."
        ),
        "8:85: schedule daily, deliver.when: it ends too early",
    ]
    assert {problem.scope for problem in manifest.problems} == {"manifest"}
    assert list(manifest.notebooks) == ["market_data", "performance_report", "volatility/garch"]
    assert manifest.spec("market_data").deliver is None
    assert manifest.spec("elsewhere").deliver is None
    assert manifest.spec("performance_report").deliver.to == ("team", "q@b.ch")
    assert manifest.schedules["daily"].deliver is None


def test_an_address_is_one_word(load):
    """No name can carry a header of a mail."""
    manifest = load('notebooks: {market_data: {deliver: "a@b.ch\\nBcc: c@d.ch"}}')
    [problem] = manifest.problems
    assert "neither a channel nor an address" in str(problem.error)
