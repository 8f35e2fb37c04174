"""Cron expressions are taken and refused as Dagster takes and refuses them."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator

from research_jobs.orchestration.model.crons import remembered_crons

NAMES = ["mon", "Fri", "SUN", "jan", "DEC", "sunday", "fir", "may", "l", "L", "?", "*", "", "w"]
WORDS = ["@daily", "@hourly", "@weekly", "@monthly", "@yearly", "@annually", "@midnight"]
ODD = [
    *WORDS, "@dayly", "@reboot", "@DAILY", "@ daily", "", " ", "* * * *", "* * * * * *",
    "0 6 * * 1-5", " 0 6 * * * ", "0\t6 * * *", "0  6  * * *", "0 6\u00a0* * *", "0 0 L * *",
    "0 0 * * L5", "0 0 * * 5L", "0 0 * * sat#1", "0 0 * * 1#2,3#4", "0 0 * * 1#6", "0 0 ? * *",
    "? * * * *", "0 0 * * 7", "0 0 * * 0-7", "0 0 * * 6-1", "0 0 29 2 *", "0 0 30 2 *",
    "0 0 31 2,4 *", "0 6 31 6 *", "0 6 31 6 1", "\u0663 6 * * *", "\uff15 6 * * *", "*/0 * * * *",
    "*/90 * * * *", "5/15 * * * *", "10-5 * * * *", "1,,2 * * * *", "H H * * *", "R R * * *",
    "-1 * * * *", "+1 * * * *", "1.5 * * * *", "0x5 * * * *", "0 24 * * *", "0 0 0 * *",
    "0 0 * 0 *", "0 0 * 13 *", "0 0 * * 8", "0 0 1W * *", "a b c d e", "0 6 * * mon-fri",
    "0 6 * JAN-mar Mon", "0 0 1 1 * 2020", "007 06 * * *", "*/5,3 * * * *", "* * * * *",
]  # fmt: skip


def generated(number: int) -> list[str]:
    """Expressions that are mostly nearly right."""
    dice = random.Random(20261127)

    def atom(high: int) -> str:
        if dice.random() < 0.12:
            return dice.choice(NAMES)
        return str(dice.randint(0, high + dice.choice([0, 0, 0, 3])))

    def item(high: int) -> str:
        kind = dice.random()
        if kind < 0.4:
            return atom(high)
        if kind < 0.6:
            return f"{atom(high)}-{atom(high)}"
        base = dice.choice(["*", "*", atom(high), f"{atom(high)}-{atom(high)}"])
        return f"{base}/{dice.randint(0, high)}" if kind < 0.8 else f"{base}#{dice.randint(0, 6)}"

    def field(high: int) -> str:
        if dice.random() < 0.5:
            return "*"
        return ",".join(item(high) for _ in range(dice.choice([1, 1, 1, 2, 3])))

    return [
        dice.choice([" ", " ", " ", "  ", "\t"]).join(
            field(high) for high in [59, 23, 31, 12, 7][: dice.choice([5] * 12 + [4])]
        )
        for _ in range(number)
    ]


def dagster_takes(expression: str) -> bool:
    """Whether Dagster makes a schedule of it, and finds out when it fires."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dg.ScheduleDefinition(name="a", job_name="b", cron_schedule=expression)
        except dg.DagsterInvalidDefinitionError:
            assert not is_valid_cron_schedule(expression)
            return False
        assert is_valid_cron_schedule(expression)
        try:
            next(schedule_execution_time_iterator(1.7e9, expression, "UTC"))
        except Exception:  # noqa: BLE001 - whatever its library raises for one that never fires
            return False
    return True


def test_two_thousand_expressions_are_taken_and_refused_as_dagster_does(load):
    """One manifest with a schedule for each: exactly those are lost that Dagster refuses."""
    expressions = [*ODD, *generated(2000)]
    entries = {
        f"s{n}": {"cron": e, "notebooks": ["market_data"]} for n, e in enumerate(expressions)
    }
    manifest = load(yaml.safe_dump({"schedules": entries}, allow_unicode=True))
    refused = {problem.name for problem in manifest.problems}
    expected = {f"s{n}" for n, e in enumerate(expressions) if not dagster_takes(e)}
    wrong = refused ^ expected
    assert not wrong, [(expressions[int(name[1:])], name in refused) for name in sorted(wrong)]
    assert set(manifest.schedules) == set(entries) - expected
    assert 300 < len(expected) < len(expressions) - 300, "the expressions are of both kinds"
    for problem in manifest.problems:
        assert problem.scope == "schedule"
        assert problem.error.where is not None
        assert problem.error.where.column is not None


@pytest.mark.parametrize(("spaces", "problems"), [(492, 0), (493, 1)])
def test_an_expression_of_five_hundred_characters_is_taken(load, spaces, problems):
    """And none that is longer."""
    cron = f"0{' ' * spaces}6 * * *"
    entry = f"{{cron: '{cron}', notebooks: [market_data]}}"
    assert len(cron) == 500 + problems
    assert len(load(f"schedules: {{a: {entry}}}").problems) == problems


def test_what_is_taken_is_passed_on_as_it_stands(load):
    """Dagster gets the very text that it judged."""
    text = "schedules: {a: {cron: ' 0  6 * * MON ', notebooks: [market_data]}}"
    assert load(text).schedules["a"].cron == " 0  6 * * MON "


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("schedule", "schedules: {a: {notebooks: [market_data], cron: ['@daily', '0 26 * * *']}}"),
        ("notebook", "notebooks: {market_data: {automation: {on_cron: 0 26 * * *}}}"),
        ("notebook", "notebooks: {market_data: {freshness: {within: 2h, cron: 0 26 * * *}}}"),
        (
            "notebook",
            "notebooks: {market_data: {partitions: {by: cron, start: 2020, cron: 0 26 * * *}}}",
        ),
    ],
)
def test_every_expression_of_the_manifest_is_judged(load, place, text):
    """Automation, freshness, partitions and each of several: the mistake stands where it is."""
    problems = load(text).problems
    assert [problem.scope for problem in problems] == [place]
    assert "bad cron expression '0 26 * * *', hour: '26' is not usable" in str(problems[0].error)
    assert problems[0].error.where is not None
    assert problems[0].error.where.column in (text.index("0 26") + 1, text.index("0 26"))


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("0 6 * * mon-fir", "day of week: 'mon-fir' is not usable. Did you mean 'fri'"),
        ("0 6 * * wednesday", "day of week: 'wednesday' is not usable. Did you mean 'wed'"),
        ("0 6 * jum *", "month: 'jum' is not usable. Did you mean"),
        ("0 6 32 * *", "day of month: '32' is not usable. Write numbers from 1-31"),
        ("61 6 * * *", "minute: '61' is not usable. Write numbers from 0-59"),
        ("@dayly", "unknown cron word '@dayly'. Did you mean '@daily'"),
        ("0 6 * *", "has 4 fields, not 5. Write minute, hour, day of month"),
        ("", "has 0 fields, not 5."),
        ("0 6 31 6 *", "never fires: that month has no such day. Write L"),
    ],
)
def test_a_bad_expression_says_which_part_is_wrong(load, cron, message):
    """The field is named, and what may stand there."""
    problems = load(f"schedules: {{a: {{cron: '{cron}', notebooks: [market_data]}}}}").problems
    assert message in problems[0].error.headline


def test_a_judged_expression_is_remembered_for_this_dagster(tmp_path: Path) -> None:
    """What Dagster said is not asked again, except of another version or where it is damaged."""
    check = remembered_crons(tmp_path)
    judged = {text: check(text) for text in ("0 6 * * 1-5", "61 * * * *")}
    assert judged == {"0 6 * * 1-5": "valid", "61 * * * *": "invalid"}
    program = (
        "import sys; from pathlib import Path\n"
        "from research_jobs.orchestration.model.crons import remembered_crons\n"
        "check = remembered_crons(Path(sys.argv[1]))\n"
        "print(check('61 * * * *'), 'dagster' in sys.modules)\n"
    )
    place = tmp_path / "crons.json"
    for text, said in (
        (None, "invalid False"),
        (place.read_text().replace(version("dagster"), "0.1"), "invalid True"),
        (place.read_text().replace("invalid", "perhaps"), "invalid True"),
        ("[]", "invalid True"),
    ):
        if text is not None:
            place.write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == said
