"""Sketches of plotly figures."""

import base64
import json
import struct
import xml.etree.ElementTree as ET

import plotly.express as px
import plotly.graph_objects as go
import pytest

from research_jobs.report.figures import from_vega, needs_eval, sketch

FIGURES = {
    "line": go.Figure(go.Scatter(x=[1, 2, 3], y=[3, 1, 2])),
    "dates": go.Figure(go.Scatter(x=["2024-01-01", "2024-01-02T05:00:00Z"], y=[1, 2])),
    "numpy": px.line(x=list(range(2000)), y=[n % 7 for n in range(2000)]),
    "bars": go.Figure([go.Bar(x=["a", "b"], y=[1, -2]), go.Bar(x=["a", "b"], y=[2, 3])]),
    "lying bars": go.Figure(go.Bar(x=[1, 2], y=["a", "b"], orientation="h")),
    "histogram": go.Figure(go.Histogram(x=[1, 1, 2, 5])),
    "heatmap": go.Figure(go.Heatmap(z=[[1, 2], [3, None]])),
    "surface": go.Figure(go.Surface(z=[[1, 2], [3, 4]])),
    "candles": go.Figure(go.Candlestick(open=[1, 2], high=[3, 3], low=[0, 1], close=[2, 1])),
    "pie": go.Figure(go.Pie(values=[1, 2, 3])),
    "one slice": go.Figure(go.Pie(values=[3])),
    "boxes": go.Figure([go.Box(y=[1, 2, 3, 9], name="a"), go.Box(y=[2, 3], name="b")]),
    "area": px.area(x=[1, 2], y=[3, 4], title="Of <b>bold</b>"),
    "one point": go.Figure(go.Scatter(y=[5])),
    "constant": go.Figure(go.Scatter(y=[5, 5, 5])),
    "gaps": go.Figure(go.Scatter(y=[1, None, float("nan"), 4])),
    "3d": go.Figure(go.Scatter3d(x=[1, 2], y=[1, 2], z=[1, 2])),
}


@pytest.mark.parametrize("name", FIGURES)
def test_drawn(name):
    """Each kind of figure has a drawing that is well-formed and within its frame."""
    drawn = sketch(json.loads(FIGURES[name].to_json()))
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert len(drawn) < 40_000
    assert "nan" not in drawn
    assert "inf" not in drawn


def test_typed_arrays():
    """Arrays that plotly packed are read: the line is where the values are."""
    packed = {"dtype": "f8", "bdata": base64.b64encode(struct.pack("<3d", 1, 2, 3)).decode()}
    plain = sketch({"data": [{"y": [1.0, 2.0, 3.0], "mode": "lines"}]})
    assert sketch({"data": [{"y": packed, "mode": "lines"}]}) == plain
    matrix = {
        "dtype": "i1",
        "bdata": base64.b64encode(bytes([1, 2, 3, 4])).decode(),
        "shape": "2, 2",
    }
    assert sketch({"data": [{"type": "heatmap", "z": matrix}]}) == sketch(
        {"data": [{"type": "heatmap", "z": [[1, 2], [3, 4]]}]}
    )


@pytest.mark.parametrize(
    "figure",
    [
        {},
        {"data": []},
        {"data": [{"type": "scattergeo"}]},
        {"data": "nonsense"},
        {"data": [{"y": {"bdata": "!", "dtype": "f8"}}]},
        {"data": [{"type": "pie", "values": [0]}]},
        {"data": [None, 3]},
        [],
        None,
    ],
)
def test_nothing_to_draw(figure):
    """What cannot be drawn has no sketch, and fails nothing."""
    assert sketch(figure) is None


def test_hostile():
    """Colours and titles cannot break out of the drawing."""
    drawn = sketch(
        {
            "data": [{"y": [1, 2], "line": {"color": '"/><script>x</script>'}}],
            "layout": {"title": {"text": '"&x<script>'}, "colorway": ["url(x)<", "red"]},
        }
    )
    assert "script" not in drawn
    ET.fromstring(drawn)


def test_needs_eval():
    """Only traces that are drawn by compiled shaders need it."""
    assert needs_eval({"data": [{"type": "scatter"}, {"type": "scattergl"}]})
    assert needs_eval({"data": [{"type": "scatter3d"}]})
    assert not needs_eval({"data": [{"type": "scatter"}, {"type": "heatmap"}]})
    assert not needs_eval({"data": None})


def test_altair():
    """A chart of altair's is sketched from what it says, layers and groups included."""
    import altair as alt
    import pandas as pd

    frame = pd.DataFrame({"x": [1, 2, 1, 2], "y": [3, 4, 5, 6], "g": ["a", "a", "b", "b"]})
    line = alt.Chart(frame).mark_line().encode(x="x", y="y", color="g")
    figure = from_vega((line + line.mark_point()).to_dict())
    assert [trace["mode"] for trace in figure["data"]] == ["lines"] * 2 + ["markers"] * 2
    assert figure["data"][1]["y"] == [5, 6]
    assert sketch(figure).startswith("<svg")


@pytest.mark.parametrize("chart", [None, {}, {"mark": "geoshape"}, {"layer": 3}, {"hconcat": [{}]}])
def test_no_altair(chart):
    """What is no chart that can be sketched has none, and fails nothing."""
    assert from_vega(chart) is None
