"""What counts as the same output."""

from __future__ import annotations

import pytest

from research_jobs.comparison.cells import Shown, compare_cells, stored_cells


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0.12", "0.12"),
        ("   a    b\n0  1  2.50", "   a  b\n0  1  2.5"),
        ("0.1234", "0.12345"),
        ("1,234.5", "1234.5"),
        ("1e-05", "1.0e-05"),
        ("<f at 0x7f0123>", "<f at 0x7f99ab>"),
        ("<a.B at 0x7f0123>", "<a.B object at 0x7f99ab>"),
        ("A, id: 0x7f0123456", "A, id: 0x7f99ab456"),
        ("%pylab is deprecated, use\nPopulating the interactive namespace\n1", "1"),
        ("x\nWall time: 3 s", "x\nWall time: 4 s"),
        ("=====\nx 1\n=====", "==========\nx 1\n=========="),
        ("Tue, 26 Nov 2024 Time: 12:00:01 R2 0.5", "Wed, 27 Nov 2024 Time: 13:10:11 R2 0.5"),
    ],
)  # fmt: skip
def test_the_same(before: str, after: str) -> None:
    """Widths, digits that were not printed, times and addresses make no difference."""
    assert compare_cells([Shown(before)], [Shown(after)]) == (1, [])


@pytest.mark.parametrize(
    ("before", "after", "what", "numbers"),
    [
        (Shown("size 250000"), Shown("size 10000"), "numbers", "250000"),
        (Shown("0.12 0.34"), Shown("0.12 0.35678"), "numbers", "0.34"),
        (Shown("-1.5"), Shown("1.5"), "numbers", "-1.5"),
        (Shown("a 1"), Shown("b 1"), "text", "a 1"),
        (Shown("1 2"), Shown("1"), "text", "1 2"),
        (Shown("", 2), Shown("", 1), "figures", "2"),
        (Shown("1"), Shown("1", 0, "NameError"), "error", "no error"),
        (Shown("1"), None, "text", "1"),
    ],
)
def test_differences(before: Shown, after: Shown | None, what: str, numbers: str) -> None:
    """Each kind of difference is named with what was there before."""
    compared, differences = compare_cells([None, before], [None, after])
    assert compared == 1
    assert [(one.cell, one.what, one.before) for one in differences] == [(2, what, numbers)]


def test_stored_outputs_are_read() -> None:
    """Streams (a line in pieces, too), values, figures, errors; empty cells are not compared."""
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["a\n", "b"]},
        {"output_type": "stream", "name": "stdout", "text": "c\n"},
        {"output_type": "stream", "name": "stderr", "text": "warned"},
        {"output_type": "execute_result", "data": {"text/plain": ["1"], "text/html": "<b>1</b>"}},
        {"output_type": "display_data", "data": {"image/png": "x", "text/plain": "<Figure>"}},
        {"output_type": "error", "ename": "KeyError"},
    ]
    cells = [
        {"cell_type": "markdown"},
        {"cell_type": "code", "outputs": outputs},
        {"cell_type": "code", "outputs": []},
        {"cell_type": "code"},
    ]
    assert stored_cells({"cells": cells}) == [
        None,
        Shown("a\nbc\n\n1\n", 1, "KeyError"),
        None,
        None,
    ]
