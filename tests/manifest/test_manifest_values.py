"""Durations, sizes, time zones and keys."""

from __future__ import annotations

import pytest
from dagster import AssetSpec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from research_jobs.manifest.models import NotebookSpec
from research_jobs.manifest.values import (
    RefusedValueError,
    check_identifier,
    check_key,
    check_timezone,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("90", 90.0),
        ("30s", 30.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("1h 30m", 5400.0),
        ("2 days", 172800.0),
        ("250ms", 0.25),
        ("1.5h", 5400.0),
        ("1W", 604800.0),
    ],
)
def test_durations_are_read(value, seconds):
    """The ways in which people write a duration mean what they mean."""
    assert parse_duration(value) == seconds


@pytest.mark.parametrize("value", ["", "m", "10x", "1h30", "-5m", -1, True, None, [1], "1e9d"])
def test_what_is_no_duration_is_refused(value):
    """Anything else is refused with an example of what to write."""
    with pytest.raises(RefusedValueError) as caught:
        parse_duration(value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("value", "size"),
    [(1024, 1024), ("512MB", 512 * 10**6), ("2GiB", 2 * 2**30), ("1.5 gib", 1610612736)],
)
def test_sizes_are_read(value, size):
    """Powers of 1000 and of 1024 are told apart by their unit."""
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["2G", "2Gi", "lots", "", "0MB", -1, 1.5, True, None])
def test_what_is_no_size_is_refused(value):
    """A unit that could mean either power is refused too."""
    with pytest.raises(RefusedValueError):
        parse_size(value)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Zagreb", "America/New_York", "Asia/Kolkata"])
def test_time_zones_are_taken(zone):
    """Names of the IANA database are zones."""
    assert check_timezone(zone) == zone


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Zagreb", "'Europe/Zagreb'"),
        ("new york", "'America/New_York'"),
        ("Europe/Zagrb", "'Europe/Zagreb'"),
        ("../../etc/passwd", "IANA"),
        ("", "IANA"),
        ("/etc/shadow", "IANA"),
    ],
)
def test_what_is_no_time_zone_is_refused_with_the_closest(zone, hint):
    """A city alone finds its zone; a path finds nothing."""
    with pytest.raises(RefusedValueError) as caught:
        check_timezone(zone)
    assert caught.value.hint is not None
    assert hint in caught.value.hint


@pytest.mark.parametrize("key", ["eu", "2018-01-02", "BRK.B", "a b", "ünïcode", "x" * 200])
def test_partition_keys_are_taken(key):
    """Tickers, dates and words are keys."""
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", " ", " a", "a|b", "a...b", "a\nb", "a\x00", "x" * 201])
def test_what_no_key_can_be_is_refused(key):
    """What Dagster, a path or a command line would read otherwise is refused."""
    with pytest.raises(RefusedValueError):
        check_key(key)


@pytest.mark.parametrize("name", ["prices", "_x", "Größe"])
def test_identifiers_are_taken(name):
    """Whatever Python can assign to is an output's name."""
    assert check_identifier(name, "the output") == name


@given(
    owners=st.lists(st.sampled_from(["a@b.ch", "team:x y", "team:", "Jane", "a@b", ""])),
    tags=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    group=st.one_of(st.none(), st.text(max_size=5)),
    kinds=st.lists(st.text(min_size=1, max_size=4), max_size=3),
)
@example(owners=[], tags={"x" * 64: ""}, group=None, kinds=[])
@example(owners=[], tags={"a/b": "x" * 64}, group=None, kinds=[])
@example(owners=[], tags={}, group="", kinds=[])
@settings(max_examples=200, deadline=None)
def test_what_the_manifest_takes_for_an_asset_dagster_takes(owners, tags, group, kinds):
    """Owners, tags, groups and kinds that pass here never stop the code location from loading."""
    try:
        spec = NotebookSpec.model_validate(
            {"owners": owners, "tags": tags, "group": group, "kinds": kinds}
        )
    except ValueError:
        return
    AssetSpec(
        "notebook",
        owners=list(spec.owners),
        tags=dict(spec.tags),
        group_name=spec.group,
        kinds=set(spec.kinds),
    )
