"""YAML that means harm, or looks like it, is refused at once. Fault 20."""

from __future__ import annotations

import string
import time

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HOSTILE = {
    "python object": (
        "notebooks:\n  market_data: !!python/object/apply:os.system ['touch /tmp/owned']\n"
    ),
    "python name": "notebooks: {market_data: {pool: !!python/name:os.system }}",
    "local tag": "notebooks: {market_data: !include other.yaml }",
    "billion laughs": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "\n".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]"
        for old, new in zip(string.ascii_lowercase, string.ascii_lowercase[1:], strict=False)
    ),
    "merge bomb": "a: &a {k: v}\n"
    + "\n".join(
        f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 9)}]}}"
        for old, new in zip(string.ascii_lowercase, string.ascii_lowercase[1:], strict=False)
    ),
    "alias to itself": "notebooks: &n {market_data: *n}",
    "many aliases": "notebooks: [" + "*a," * 1_000_000 + "]",
    "many values": "notebooks: [" + "a," * 1_900_000 + "]",
    "deep brackets": "[" * 2_000_000,
    "deep braces": "{a: " * 500_000,
    "deep dashes": "- " * 1_000_000,
    "deep questions": "? " * 1_000_000,
    "duplicate keys": "notebooks:\n" + "  market_data: {}\n" * 100_000,
    "a long key": '"' + "a" * 2_000_000 + '": 1',
    "an open quote": "notebooks: '" + "a" * 3_000_000,
    "a long duration": "notebooks: {market_data: {timeout: '" + "1h" * 1_000_000 + "'}}",
    "a long cron": "schedules: {a: {notebooks: [market_data], cron: '" + "1," * 1_000_000 + "'}}",
    "a long number": "defaults: {concurrency: " + "9" * 3_000_000 + "}",
    "too large": "#" * 5_000_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_yaml_is_refused(load, text):
    """It becomes problems, nothing of it is constructed, and it costs next to nothing."""
    started = time.process_time()
    manifest = load(text)
    # CPU time with room for a busy machine: a bomb would take minutes or all memory.
    assert time.process_time() - started < 10
    assert manifest.problems
    assert "market_data" not in manifest.notebooks


def test_every_value_after_a_refused_alias_is_absent(load):
    """A notebook whose entry used an alias is lost, not loaded with a hole in it."""
    manifest = load("notebooks:\n  market_data:\n    <<: {timeout: 3}\n    outputs: [prices]\n")
    assert "market_data" not in manifest.notebooks
    assert [p.name for p in manifest.problems] == ["market_data"]


def test_complex_keys_are_refused_where_they_stand(load):
    """A key that is a list or a mapping is a mistake of the entry that has it."""
    manifest = load(
        "notebooks:\n  market_data:\n    ? [a, b]\n    : {c: d}\n    outputs: [prices]\n"
        "  performance_report: {outputs: [x]}\n"
    )
    assert list(manifest.notebooks) == ["performance_report"]
    assert "plain name" in str(manifest.problems[0].error)


@pytest.mark.parametrize(
    ("fine", "too_much", "place", "what"),
    [
        (
            "parameters: {a: " + "[" * 28 + "]" * 28 + "}",
            "parameters: {a: " + "[" * 29 + "]" * 29 + "}",
            "3:49",
            "nested more than 32 levels deep",
        ),
        (
            f"parameters: {{{'a' * 300}: 1}}",
            f"parameters: {{{'a' * 301}: 1}}",
            "3:18",
            "a key has 301 characters; the limit is 300",
        ),
        (
            f"parameters: {{a: [{'1,' * 149_990}1]}}",
            f"parameters: {{a: [{'1,' * 150_000}1]}}",
            None,
            "more than 150,000 values",
        ),
    ],
    ids=["depth", "key", "values"],
)
def test_each_limit_is_where_it_says(load, fine, too_much, place, what):
    """What is just within a limit loads; what is one beyond is refused where it stands."""
    begin = "notebooks:\n  market_data:\n    "
    assert load(begin + fine).problems == ()
    problem = load(begin + too_much).problems[0]
    assert what in problem.error.what
    if place is not None:
        assert str(problem.error.where) == f"notebooks/manifest.yaml:{place}"


def test_the_hundredth_mistake_of_form_is_the_last(load):
    """A hundred are listed; one more stops the reading, at its own line and column."""
    rows = "".join(f"  a{n}: &x{n} 1\n" for n in range(100))
    assert len(load("defaults:\n" + rows).problems) >= 100
    problem = load("defaults:\n" + rows + "  b: &y 1\n").problems[0]
    assert str(problem.error.where) == "notebooks/manifest.yaml:102:6"
    assert "after 100 mistakes, the rest is not read" in problem.error.what


# the fixture only writes one file anew
ANY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(st.text(max_size=300))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_text_makes_loading_raise(load, text):
    """Whatever stands in the file, it gives a manifest and perhaps problems."""
    load(text.encode("utf-8", "surrogatepass"))


_names = st.sampled_from(
    [
        *("notebooks", "schedules", "defaults", "secrets", "reports", "market_data", "outputs"),
        *("partitions", "by", "start", "values", "cron", "timeout", "retries", "max", "dynamic"),
        *("automation", "on_cron", "tags", "range", "watch", "dimensions", "freshness", "after"),
    ]
)
_scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), _names, st.text(max_size=8)
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_names, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "defaults": _values,
            "notebooks": st.dictionaries(st.just("market_data"), _values),
            "schedules": st.dictionaries(st.just("a"), _values),
            "secrets": _values,
            "reports": _values,
        },
    )
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_shape_of_data_makes_loading_raise(load, data):
    """Every key may hold a value of any shape: it loads or becomes a problem with a place."""
    manifest = load(yaml.safe_dump(data, allow_unicode=True))
    for problem in manifest.problems:
        assert problem.error.where is not None
