"""Who may read the store: by the umask, or a group of the manifest's as well."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from permissions import expected, permissions, second_group, umask

from research_jobs.errors import StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish, reject
from research_jobs.store.load import load

DAYS = [
    PartitionKey(f"2018-11-0{day}", {"day": f"2018-11-0{day}"}, by={"day": "day"})
    for day in (1, 2, 3)
]


def publish_for(
    store: str,
    notebook: str,
    partition: PartitionKey | None,
    group: str | None,
    *,
    refused: bool = False,
) -> None:
    """Publish two outputs, or put them aside."""
    with open_staging(store, "r") as staging:
        staged = [
            write_output(name, [1], staging.path / name, options={}, metadata={})
            for name in ("x", "y")
        ]
        options: dict[str, Any] = {
            "staging": staging, "partition": partition, "run_id": "r", "group": group
        }  # fmt: skip
        (reject if refused else publish)(store, notebook, staged, **options)


def publish_everything(store: str, group: str | None) -> None:
    """Plain and partitioned outputs, below a folder too, refused ones, and a change of `by`."""
    publish_for(store, "plain", None, group)
    publish_for(store, "plain", None, group)
    publish_for(store, "deep/er/plain", None, group)
    publish_for(store, "refused", None, group, refused=True)
    for day in DAYS[:2]:
        publish_for(store, "days", day, group)
        publish_for(store, "days", day, group, refused=True)
    # another partitioning, and back: the links of earlier partitions are made again
    publish_for(store, "days", replace(DAYS[0], by={"day": "month"}), group)
    publish_for(store, "days", DAYS[2], group)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o007])
def test_group(store: str, mask: int) -> None:
    """Every published file is the group's to read, every folder to enter, whatever the umask."""
    group = second_group()
    with umask(mask):
        publish_everything(store, group.gr_name)
        assert permissions(Path(store)) == expected(Path(store), mask, group.gr_gid)
    assert "days/x/day=2018-11-01" in permissions(Path(store))
    assert "days/.partitioning.json" in permissions(Path(store))


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_no_group(store: str, mask: int) -> None:
    """Without the key the umask alone says who may read."""
    with umask(mask):
        publish_everything(store, None)
        assert permissions(Path(store)) == expected(Path(store), mask)


def test_group_comes_later(store: str) -> None:
    """The first publish after the key was added shares the way to what it publishes."""
    group = second_group()
    with umask(0o077):
        publish_for(store, "days", DAYS[0], None)
        publish_for(store, "days", DAYS[0], group.gr_name)
        assert permissions(Path(store)) == expected(Path(store), 0o077, group.gr_gid)


@pytest.mark.parametrize("partition", [None, DAYS[0]], ids=["plain", "partition"])
def test_unknown_group(store: str, partition: PartitionKey | None) -> None:
    """A group that does not exist is one clear error, and the published outputs stay."""
    publish_for(store, "nb", partition, None)
    with pytest.raises(StoreError, match="there is no group 'nobody-has-this'"):
        publish_for(store, "nb", partition, "nobody-has-this")
    assert load("nb", "x", partition.key if partition else None) == [1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files to any group")
def test_group_of_others(store: str) -> None:
    """A group that the user is not in is refused by name, and nothing is published."""
    with pytest.raises(StoreError, match=r"cannot be given to the group 'root'.*member"):
        publish_for(store, "nb", None, "root")
    assert not Path(store, "nb/x.parquet").exists()


def test_links_are_not_followed(store: str, tmp_path: Path) -> None:
    """Sharing changes nothing that a link leads to."""
    group = second_group()
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    publish_for(store, "nb", None, None, refused=True)
    Path(store, "nb/.rejected/latest/out").symlink_to(outside)
    from research_jobs.store.sharing import Sharing

    Sharing(group.gr_name).share_tree(Path(store))
    assert stat.S_IMODE(outside.stat().st_mode) == 0o700
    assert outside.stat().st_gid == os.getegid()
