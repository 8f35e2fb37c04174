"""What differs between two executed notebooks."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research_jobs.comparison.shown import ShownChange, compare_shown, read_executed
from research_jobs.errors import ResearchJobsError


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": "stream", "name": name, "text": text}


def shows(**data: Any) -> dict[str, Any]:
    kinds = {"plotly": "application/vnd.plotly.v1+json", "vega": "application/vnd.vegalite.v5+json"}
    bundle = {kinds.get(kind, kind.replace("_", "/")): item for kind, item in data.items()}
    return {"output_type": "display_data", "data": bundle, "metadata": {}}


def executed(*cells: tuple[str, list[Any]]) -> dict[str, Any]:
    made = [
        {
            "cell_type": "code",
            "source": source,
            "metadata": {"title": f"T {source}"},
            "outputs": out,
        }
        for source, out in cells
    ]
    return {"cells": [{"cell_type": "markdown", "source": "prose"}, *made]}


def one(before: list[Any], after: list[Any]) -> ShownChange:
    return compare_shown(executed(("x", before)), executed(("x", after)))


def test_printed_text_as_a_diff() -> None:
    """Lines that differ are shown; addresses, times and stderr make no difference."""
    found = one([stream("a\nb 1\nc\n")], [stream("a\nb 2\nc\n")])
    assert (found.compared, found.cells[0].cell, found.cells[0].text) == (1, 2, ("-b 1", "+b 2"))
    quiet = [stream("<f at 0x7f0112>\nWall time: 3 s"), stream("warned once", "stderr")]
    again = [stream("<f at 0x7f9912>\nWall time: 4 s"), stream("warned twice", "stderr")]
    assert one(quiet, again).equal
    table = [shows(text_plain="   x\n0  1"), shows(text_plain="   x\n0  7")]
    assert one([table[0]], [table[1]]).cells[0].text == ("-0  1", "+0  7")


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (shows(image_png="QUJD"), shows(image_png="QUJE"), "picture"),
        (shows(image_png="QUJD"), shows(image_png="QUJD\n"), None),
        (shows(plotly={"data": [{"y": [1, 2]}]}), shows(plotly={"data": [{"y": [1, 3]}]}), "data"),
        (shows(plotly={"data": [], "layout": 1}), shows(plotly={"data": [], "layout": 2}), "look"),
        (shows(vega={"data": {"values": [{"a": 1}]}}), shows(vega={"data": {}}), "data"),
        (shows(vega={"mark": "bar"}), shows(vega={"mark": "line"}), "look"),
        (shows(vega={"mark": "bar"}), shows(image_png="QUJD"), "kind"),
    ],
)
def test_figures(before: dict[str, Any], after: dict[str, Any], what: str | None) -> None:
    """A picture differs by its bytes, a chart by its data or by its look."""
    found = one([before], [after])
    assert [change.what for cell in found.cells for change in cell.figures] == (
        [what] if what else []
    )


def test_numbers_that_plotly_packs() -> None:
    """Arrays in base64 are compared number by number."""

    def chart(values: list[float]) -> dict[str, Any]:
        packed = base64.b64encode(np.array(values).tobytes()).decode()
        return shows(plotly={"data": [{"y": {"dtype": "f8", "bdata": packed}}]})

    (change,) = one([chart([1.0, 2.0, 3.0])], [chart([1.0, 2.5, 3.0])]).cells[0].figures
    assert change.data is not None
    assert (change.data.compared, change.data.changed) == (3, 1)
    assert change.data.changes[0].path == "data[0].y[1]"


def test_cells_that_come_go_and_change() -> None:
    """Cells are matched by source, then by title, then in order; errors and figures are counted."""
    failed = {"output_type": "error", "ename": "KeyError", "evalue": "x", "traceback": []}
    before = executed(("a", [stream("1")]), ("b", [stream("2")]), ("c", []))
    after = executed(("new", [stream("3")]), ("c", [failed]), ("a", [stream("1")]), ("d", []))
    found = compare_shown(before, after)
    assert [(c.cell, c.status, c.text, c.error_after) for c in found.cells] == [
        (2, "both", ("-2", "+3"), None),
        (3, "both", (), "KeyError"),
        (5, "added", (), None),
    ]
    fewer = one([shows(image_png="QQ==")] * 2, [shows(image_png="QQ==")])
    assert (fewer.cells[0].figures_before, fewer.cells[0].figures_after) == (2, 1)


def test_hostile_notebooks_are_bounded(tmp_path: Path) -> None:
    """Texts that take difflib for ever, deep nesting and wrong types are compared all the same."""
    old = "".join(f"{n % 7}\n" for n in range(50_000))
    new = "".join(f"{n % 11}\n" for n in range(50_000))
    assert len(one([stream(old)], [stream(new)]).cells[0].text) == 41
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    odd = [
        3,
        None,
        {"output_type": 7},
        shows(plotly=[1]),
        shows(plotly={"data": deep}),
        {"data": 4},
    ]
    assert one(odd, odd).equal
    assert not one(odd, [shows(plotly={"data": [deep, deep]})]).equal
    assert compare_shown({"cells": [4, {"cell_type": "code", "outputs": 3}]}, {"cells": []}).cells
    for text in ("", "[]", '{"cells": 3}', "[" * 100_000, '{"cells": [],'):
        path = tmp_path / "notebook.ipynb"
        path.write_text(text)
        with pytest.raises(ResearchJobsError, match="is not a notebook"):
            read_executed(path)
    path.write_text(json.dumps(executed()))
    assert read_executed(path)["cells"]
