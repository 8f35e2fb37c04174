"""``research-jobs space``: what is in a store and in the reports is counted once, as what it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from research_jobs.cli.main import main
from research_jobs.filesystem import folder_bytes
from research_jobs.protocol import PartitionKey
from research_jobs.provenance.shelf import keep
from research_jobs.provenance.space import spaces
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, reject
from research_jobs.store.layout import unit_of
from research_jobs.store.readers import mark_read
from research_jobs.store.versions import version_ids

DAY = PartitionKey("2018-11-01", {"run_date": "2018-11-01"})


def filled(where: str, put: Any) -> None:
    """Two notebooks, one in a folder named like the other: 3 versions, partitions, one refused."""
    for number in range(3):
        put("v/g", {"x": number}, keep={"x": 5}, where=where)
    for number in range(2):
        put("v/g/h", {"x": list(range(5000 + number))}, DAY, {"x": 5}, where=where)
    with open_staging(where, "run-2") as staging:
        path = staging.path / "x.parquet"
        item = write_output("x", 3, path, options={}, metadata={})
        reject(where, "v/g", [item], staging=staging, partition=None, run_id="run-2")


def test_everything_is_counted_once(
    store: str, put: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions are current, older or named, the largest notebook is first, and sums are right."""
    filled(store, put)
    reports = Path(store).parent / "reports"
    (reports / "v" / "g" / "_runs" / "1-run").mkdir(parents=True)
    record = reports / "v" / "g" / "_runs" / "1-run" / "provenance.json"
    record.write_bytes(bytes(1000))
    keep(reports, b"source")
    unit = unit_of(store, "v/g", None)
    first = unit.versions / version_ids(unit)[0]
    mark_read(first, record)
    put("v/g", {"x": 0}, DAY, {"x": 5})  # its unpartitioned outputs are set aside
    assert main(["space", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    large, small = shown["notebooks"]
    assert (large["notebook"], large["versions"], large["named"]) == ("v/g/h", 1, 0)
    assert (small["notebook"], small["versions"], small["named"]) == ("v/g", 3, 1)
    assert small["older"] == folder_bytes(unit.versions) - _link(unit.current)
    assert small["rejected"] == folder_bytes(unit.rejected) > 0
    assert (small["reports"], large["reports"]) == (1000, 0)
    day = unit_of(store, "v/g", DAY, root=".partitions")
    assert small["current"] == folder_bytes(day.versions) - _link(day.current)
    assert shown["kept_sources"] == folder_bytes(reports / ".kept") > 0
    assert shown["total"] == large["total"] + small["total"] + shown["kept_sources"]
    assert main(["space"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["v/g/h", "v/g"]
    assert "3 (1 named)" in lines[2]


def _link(path: Path) -> int:
    return path.lstat().st_size


def test_a_store_behind_a_url(tmp_path: Path, put: Any) -> None:
    """Objects of versions, plain copies and refused outputs are counted with their notebook."""
    url = f"file://{tmp_path}/o"
    filled(url, put)
    large, small = spaces(url, tmp_path / "none")
    assert (large.notebook, large.versions, small.notebook, small.versions) == (
        "v/g/h",
        1,
        "v/g",
        2,
    )
    assert small.rejected > 0 == large.rejected
    assert large.total + small.total == folder_bytes(tmp_path / "o")


def test_a_damaged_notebook_is_counted_too(store: str, put: Any) -> None:
    """A link that points elsewhere does not stop the others."""
    put("a", {"x": 1})
    put("b", {"x": 1})
    unit = unit_of(store, "a", None)
    unit.current.unlink()
    unit.current.symlink_to("/elsewhere")
    by_name = {space.notebook: space for space in spaces(store, Path(store) / "none")}
    assert (by_name["a"].current, by_name["a"].versions, by_name["b"].versions) == (0, 1, 0)


def test_it_imports_nothing_heavy(store: str, put: Any) -> None:
    """Neither Dagster nor pandas nor pyarrow."""
    put("a", {"x": 1})
    program = (
        "import sys\nfrom research_jobs.cli.main import main\nmain(['space'])\n"
        "print([n for n in ('dagster', 'pandas', 'pyarrow') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
