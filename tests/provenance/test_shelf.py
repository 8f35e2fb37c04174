"""Sources that records name: each content once, and only as long as one does."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from research_jobs.provenance.record import NAME, RUNS, Record
from research_jobs.provenance.shelf import KEPT, keep, kept, unnamed


def test_a_content_comes_back_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    """What is kept is what was given; anything else is as if it were not there."""
    name = keep(tmp_path, b"x = 1\n" * 1000)
    assert kept(tmp_path, name) == b"x = 1\n" * 1000
    assert keep(tmp_path, b"x = 1\n" * 1000) == name
    (tmp_path / KEPT / name).write_bytes(b"damaged")
    assert kept(tmp_path, name) is None
    assert kept(tmp_path, "0" * 64) is None


def test_what_no_record_names_goes(tmp_path: Path) -> None:
    """Old contents without a record go; named and new ones stay, and all of them beside a record
    of a newer version.
    """
    named, lost, new = (keep(tmp_path, text) for text in (b"named", b"lost", b"new"))
    for name in (named, lost):
        os.utime(tmp_path / KEPT / name, (1000, 1000))
    place = tmp_path / "deep" / "report" / RUNS / "1" / NAME
    place.parent.mkdir(parents=True)
    record = Record("report", "r", files={"notebooks/report.py": named}, environment=new)
    place.write_bytes(record.dump())
    assert [path.name for path in unnamed(tmp_path, before=2000)] == [lost]
    assert keep(tmp_path, b"lost") == lost  # a run that begins now needs it
    assert list(unnamed(tmp_path, before=2000)) == []
    os.utime(tmp_path / KEPT / lost, (1000, 1000))
    place.write_bytes(replace(record, partition="x").dump().replace(b'"format": 1', b'"format": 9'))
    assert list(unnamed(tmp_path, before=2000)) == []
