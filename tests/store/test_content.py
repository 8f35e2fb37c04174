"""The data version: a hash of what a run's outputs hold, and of nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from research_jobs.outcome import StagedOutput
from research_jobs.store.content import content_version


def staged(
    folder: Path, name: str, data: bytes = b"rows", footer: bytes = b"run 1"
) -> StagedOutput:
    """An output whose file has the shape of a Parquet file."""
    path = folder / f"{name}-{data.decode()}-{footer.decode()}"
    path.write_bytes(b"PAR1" + data + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return StagedOutput(name, str(path), "dict", 1, 4, (("a", "int64"),))


def test_the_order_of_outputs_and_the_footer_do_not_count(tmp_path: Path) -> None:
    """The same outputs, staged in another order by another run, are no news downstream."""
    a, b = staged(tmp_path, "a"), staged(tmp_path, "b", b"more")
    other = staged(tmp_path, "a", footer=b"run 22")
    assert content_version([a, b]) == content_version([b, other])


@pytest.mark.parametrize(
    "change",
    [{"name": "b"}, {"kind": "list"}, {"rows": 2}, {"columns": (("a", "float64"),)}],
    ids=str,
)
def test_what_an_output_is_counts(tmp_path: Path, change: dict[str, object]) -> None:
    """Another name, type, number of rows or column type is another version."""
    output = staged(tmp_path, "a")
    assert content_version([output]) != content_version([replace(output, **change)])


@pytest.mark.parametrize("data", [b"rowz", b"rows!", b"r"])
def test_what_an_output_holds_counts(tmp_path: Path, data: bytes) -> None:
    """Another byte of data is another version; no output has none."""
    assert content_version([staged(tmp_path, "a")]) != content_version(
        [staged(tmp_path, "a", data)]
    )
    assert content_version([]) is None
