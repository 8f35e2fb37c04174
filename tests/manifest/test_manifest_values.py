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


UNITS = {
    0.001: "ms",
    1: "s sec second seconds",
    60: "m min minute minutes",
    3600: "h hour hours",
    86400: "d day days",
    604800: "w week weeks",
}


@pytest.mark.parametrize(
    ("unit", "seconds"), [(unit, n) for n, units in UNITS.items() for unit in units.split()]
)
def test_every_unit_of_time_is_its_length(unit, seconds):
    """However a unit is spelt, alone and in a sum, it is as long as the clock says."""
    assert parse_duration(f"3{unit}") == pytest.approx(3 * seconds)
    assert parse_duration(f"1.5 {unit.upper()}") == pytest.approx(1.5 * seconds)
    assert parse_duration(f"1d 2{unit}") == pytest.approx(86400 + 2 * seconds)


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        *(("", 1), ("B", 1), ("kB", 10**3), ("MB", 10**6), ("GB", 10**9), ("TB", 10**12)),
        *(("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40)),
    ],
)
def test_every_unit_of_size_is_its_power(unit, size):
    """Units with an i count in powers of 1024, the others of 1000."""
    assert parse_size(f"3{unit}") == 3 * size
    assert parse_size(f"3 {unit.lower()}") == 3 * size


def test_the_longest_and_the_largest():
    """Ten years and an EiB are the last values that mean something; nothing is below a byte."""
    ten_years = 10 * 365 * 86400
    assert parse_duration(ten_years) == parse_duration("3650d") == ten_years
    assert parse_duration(0) == 0
    assert parse_size(2**60) == 2**60
    assert parse_size(1) == 1
    for refused, read in (
        *((value, parse_duration) for value in (ten_years + 1, "3650d 1s", -0.001, float("nan"))),
        *((value, parse_size) for value in (2**60 + 1, 0, "0")),
        *((value, parse_duration) for value in ("010m", "00", "1h 05m")),
        *((value, parse_size) for value in ("010MB", "01")),
    ):
        with pytest.raises(RefusedValueError):
            read(refused)


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "Factory"])
def test_files_that_are_no_zones(zone):
    """What a name means may not depend on the machine."""
    with pytest.raises(RefusedValueError):
        check_timezone(zone)


@pytest.mark.parametrize("name", ["class", "None", "await", "1a", "a-b", "a b", "", "é!"])
def test_what_is_no_identifier_is_refused(name):
    """Keywords and whatever Python cannot assign to are refused with a name that it can."""
    with pytest.raises(RefusedValueError) as caught:
        check_identifier(name, "the output")
    assert caught.value.hint


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
    """The unit distinguishes powers of 1000 from powers of 1024."""
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
