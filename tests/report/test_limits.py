"""One output that cannot be shown, or takes too long, is replaced by a note, alone."""

import json
import subprocess
import sys

import pytest

from research_jobs.report.outputs import Renderer
from research_jobs.report.record import Output, RecordedCell, Stream, read_capture
from research_jobs.report.sanitize import clean_html

PLOTLY = "application/vnd.plotly.v1+json"
CELL = RecordedCell(1, "code", None, [], 1, "", "ok")

SLOW = """
import sys
from research_jobs.report import outputs
from research_jobs.report.limits import Limits, limited
from research_jobs.report.record import Output, RecordedCell
cell = RecordedCell(1, "code", None, [], 1, "", "ok")
def for_ever(address):
    number = 0
    while number < 10 ** 8:
        number += 1
    return None
renderer = outputs.Renderer(picture=for_ever)
slow = {"text/html": "<p style='position: fixed'>slow</p><img src='a.png'>" * 2}
text = {"text/plain": "shown"}
with limited(Limits(seconds=100, outputs_s=float(sys.argv[1]), output_s=0.3)):
  for data in (text, slow, text, slow, text):
    print(renderer.render(Output("display_data", data, {}), cell).replace("\\n", ""))
"""


def render(data, **options) -> str:
    return Renderer(**options).render(Output("display_data", data, {}), CELL)


def slow(outputs_s: float) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SLOW.replace("10 ** 8", "10 ** 7"), str(outputs_s)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_one_output_takes_too_long():
    """What takes longer than one output may is a note; what is before and after it is shown."""
    first, note, second, again, third = slow(100)
    assert "shown" in first and "shown" in second and "shown" in third  # noqa: PT018
    assert "it takes too long" in note
    assert "it takes too long" in again
    assert "fixed" not in note


def test_all_outputs_take_too_long():
    """Once all outputs together took what they may, those that are left are notes."""
    first, note, *rest = slow(0.3)
    assert "shown" in first
    assert "it takes too long" in note
    assert all("it takes too long" in item for item in rest)


BUDGETS = """
import json, resource, signal, time
from research_jobs.report.limits import Limits, OverBudgetError, budget, limited
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
def over(seconds):
    try:
        with budget():
            spin(seconds)
    except OverBudgetError:
        return True
    return False
def limits(outputs_s, output_s):
    return limited(Limits(50, outputs_s, output_s, memory_bytes=1 << 30))
def held():
    kinds = (resource.RLIMIT_CPU, resource.RLIMIT_AS)
    most = [resource.getrlimit(kind)[0] for kind in kinds]
    return most, signal.getitimer(signal.ITIMER_REAL)[0]
free = held()
with limits(0.4, 0.1):
    found = {"within": over(0.01)}
    spin(0.2)  # what is no output has no budget
    found["one"] = over(1)
    (cpu, memory), clock = held()
    found["held"] = (51 <= cpu <= 55, (memory >> 30) < 1024, 0 < clock <= 50)
with limits(0.2, 100):
    found["all"] = over(5)
with limits(0, 100):
    found["nothing left"] = over(0.01)
found["afterwards"] = over(0.2) or held() != free
print(json.dumps(found))
"""


def test_what_is_held_to_a_budget():
    """One output and all of them have their time, the process has its; nothing else is stopped."""
    done = subprocess.run(
        [sys.executable, "-c", BUDGETS], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "within": False,
        "one": True,
        "all": True,
        "nothing left": True,
        "held": [True, True, True],
        "afterwards": False,
    }


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({PLOTLY: {"data": [{"y": [float("nan")]}]}}, "not what its type says"),
        ({"image/svg+xml": {"a": {1, 2}}}, None),
    ],
)
def test_odd_content(data, reason):
    """An output that is not what its type says is a note, or its text, and raises nothing."""
    html = render(data)
    assert (reason or "rj-output") in html


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError, KeyError])
def test_judge_that_raises(error):
    """An attribute whose judge raises is never kept: the output is a note."""

    def picture(_address):
        raise error

    assert "cannot be shown" in render({"text/html": "<img src='x.png'>"}, picture=picture)
    with pytest.raises(error):
        clean_html("<img src='x.png'>", picture=picture)


def test_interrupts_are_not_swallowed():
    """Ctrl-C ends what renders outputs in a command."""

    def picture(_address):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render({"text/html": "<img src='x.png'>"}, picture=picture)


def test_odd_records(tmp_path):
    """Lines of a capture file that are not what they should be cost no other line."""
    lines = [
        {"type": "stream", "cell": None, "name": "stdout", "text": "before"},
        {"type": "output", "cell": 1},
        {"type": "stream", "cell": {}, "name": "stdout", "text": "x"},
        {"type": "error", "cell": 1, "ename": 3},
        {"type": "start"},
        {"type": "start", "cells": [3]},
        {"type": ["output"]},
        [],
        3,
        {"type": "stream", "cell": None, "name": "stdout", "text": "after"},
    ]
    path = tmp_path / "capture.jsonl"
    deep = '{"type": "output", "data": ' + "[" * 100_000 + "]" * 100_000 + "}"
    path.write_text("\n".join([*map(json.dumps, lines), deep, "{", "\x00"]) + "\n")
    (cell,) = read_capture(path).cells
    texts = [item.text for item in cell.shown]
    assert texts[0] == "before"
    assert "after" in texts
    assert "An output nests too deep to be read." in texts
    assert texts.count("A record of the run could not be read.") == 5


def test_streams_join():
    """What was written in many pieces is one text."""
    assert Stream("stdout", ["a"] * 3).text == "aaa"
