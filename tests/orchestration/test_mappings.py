"""Which partitions of one notebook another reads."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product

import dagster as dg
import pytest
from partitioning import definition

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.mappings import partition_mapping

NOW = datetime(2026, 3, 30, 12, tzinfo=UTC)


DAILY = definition(by="day", start="2026-01-01")
WEEKLY = definition(by="week", start="2026-01-01")
LATER = definition(by="day", start="2026-02-01")
ZAGREB = definition(by="day", start="2026-01-01", timezone="Europe/Zagreb")
REGIONS = definition(values=["eu", "us", "asia"])
TWO_REGIONS = definition(values=["us", "eu"])
TICKERS = definition(values=["AAPL"])
DYNAMIC = definition(dynamic={"notebook": "u", "output": "t"})
OTHER_DYNAMIC = definition(dynamic={"notebook": "u", "output": "v"})
GRID = definition(
    dimensions={"date": {"by": "day", "start": "2026-01-01"}, "region": {"values": ["eu", "us"]}}
)
WEEK_GRID = definition(
    dimensions={"date": {"by": "week", "start": "2026-01-01"}, "region": {"values": ["eu", "us"]}}
)


def read(upstream, downstream, key: str) -> list[str]:
    """The partitions that `key` of the one that reads belongs to."""
    mapping = partition_mapping(upstream, downstream)
    assert mapping is not None
    with dg.partition_loading_context(NOW), dg.DagsterInstance.ephemeral() as instance:
        subset = downstream.empty_subset().with_partition_keys([key])
        result = mapping.get_upstream_mapped_partitions_result_for_partitions(
            subset, downstream, upstream, NOW, instance
        )
        return sorted(str(k) for k in result.partitions_subset.get_partition_keys())


def test_what_has_no_partitions_is_read_whole():
    """Partitioned from unpartitioned, and the other way round."""
    assert partition_mapping(None, DAILY) is None
    assert partition_mapping(None, None) is None
    assert isinstance(partition_mapping(DAILY, None), dg.AllPartitionMapping)


@pytest.mark.parametrize(
    ("upstream", "downstream", "key", "expected"),
    [
        (DAILY, DAILY, "2026-03-05", ["2026-03-05"]),
        (DAILY, LATER, "2026-03-05", ["2026-03-05"]),
        (WEEKLY, DAILY, "2026-03-05", ["2026-03-02"]),
        (DAILY, WEEKLY, "2026-03-02", [f"2026-03-0{n}" for n in range(2, 9)]),
        (REGIONS, TWO_REGIONS, "us", ["us"]),
        (GRID, GRID, "2026-03-05|eu", ["2026-03-05|eu"]),
        (GRID, DAILY, "2026-03-05", ["2026-03-05|eu", "2026-03-05|us"]),
        (DAILY, GRID, "2026-03-05|eu", ["2026-03-05"]),
        (WEEK_GRID, GRID, "2026-03-05|eu", ["2026-03-02|eu"]),
        (TWO_REGIONS, definition(values=["us"]), "us", ["us"]),
    ],
)
def test_partitions_that_belong_together_are_read(upstream, downstream, key, expected):
    """The same one, the one around it, or all within it."""
    assert read(upstream, downstream, key) == expected


@pytest.mark.parametrize(
    ("upstream", "downstream", "message"),
    [
        (ZAGREB, DAILY, "has partitions in UTC and reads up, which has them in Europe/Zagreb"),
        (TWO_REGIONS, REGIONS, "down has the partition 'asia', which up does not have"),
        (TICKERS, DAILY, "nothing says which partitions belong together: time (0 0 * * *)"),
        (DYNAMIC, REGIONS, "eu, us, asia against the keys of u/t"),
        (DYNAMIC, DAILY, "against the keys of u/t"),
        (TICKERS, GRID, "date by region against AAPL"),
        (ZAGREB, WEEK_GRID, "date by region against time (0 0 * * *)"),
        (GRID, ZAGREB, "time (0 0 * * *) against date by region"),
    ],
)
def test_partitions_that_do_not_belong_together_are_refused(upstream, downstream, message):
    """One line says which two, and why."""
    with pytest.raises(PartitionError) as caught:
        partition_mapping(upstream, downstream, names=("up", "down"))
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("upstream", "downstream"),
    list(
        product(
            [
                *(None, DAILY, WEEKLY, ZAGREB, REGIONS, TWO_REGIONS),
                *(DYNAMIC, OTHER_DYNAMIC, GRID, WEEK_GRID),
            ],
            repeat=2,
        )
    ),
)
def test_dagster_takes_every_mapping_that_is_not_refused(upstream, downstream):
    """A mapping that we make never stops the code location from loading."""
    try:
        mapping = partition_mapping(upstream, downstream)
    except PartitionError:
        return

    @dg.asset(partitions_def=upstream)
    def first() -> None: ...

    @dg.asset(partitions_def=downstream, deps=[dg.AssetDep(first, partition_mapping=mapping)])
    def second() -> None: ...

    dg.Definitions.validate_loadable(dg.Definitions(assets=[first, second]))
