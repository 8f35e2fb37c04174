"""altair's charts in outputs."""

import importlib.util

import altair as alt
import pandas as pd
import pytest

from research_jobs.runtime.vega import draw, specification

CHART = alt.Chart(pd.DataFrame({"x": ["})(", "b"], "y": [1, 2]})).mark_bar().encode(x="x", y="y")


@pytest.mark.parametrize("renderer", ["html", "mimetype"])
def test_specification(renderer):
    """The chart is found in the page that altair writes, and in its own mime type."""
    with alt.renderers.enable(renderer):
        data = CHART._repr_mimebundle_()
    bundle = data[0] if isinstance(data, tuple) else data
    found = specification(bundle)
    assert found["mark"]["type"] == "bar"
    (rows,) = found["datasets"].values()
    assert rows == [{"x": "})(", "y": 1}, {"x": "b", "y": 2}]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"text/html": "<p>vegaEmbed</p>"},
        {"text/html": "vegaEmbed })(nonsense"},
        {"text/html": "vegaEmbed })([1]"},
        {"text/html": "vegaEmbed" + "\n" * 200_000},
        {"application/vnd.vegalite.v5+json": "text"},
    ],
)
def test_no_chart(data):
    """Other outputs hold none."""
    assert specification(data) is None
    assert draw(data) is None


@pytest.mark.skipif(importlib.util.find_spec("vl_convert") is not None, reason="it can be drawn")
def test_nothing_to_draw_with():
    """Without vl-convert the output stays as it is."""
    assert draw({"application/vnd.vegalite.v6+json": CHART.to_dict()}) is None
