"""What is out of date: another code, or newer data upstream; and what is not."""

from __future__ import annotations

from typing import Any

import dagster as dg

from research_jobs.orchestration.operations.staleness import stale_notebooks

READ = "# %%\nfrom research_jobs import load\nx = load({!r}, 'x') * 2\n"
MANIFEST = (
    "notebooks: {a: {outputs: [x]}, b: {outputs: [x]}, c: {outputs: [x]}, d: {outputs: [x]}}\n"
)


def stale(lab: Any) -> list[str]:
    return ["/".join(key.path) for key in stale_notebooks(lab.instance, lab.defs())]


def project(lab: Any) -> Any:
    """A chain a, b, c, and d beside it; b uses a helper."""
    lab.write(
        {
            "helper": "def double(x):\n    return 2 * x\n",
            "a": "# %%\nx = 1\n",
            "b": "# %%\nimport helper\nfrom research_jobs import load\n"
            "x = helper.double(load('a', 'x'))\n",
            "c": READ.format("b"),
            "d": "# %%\nx = 5\n",
        },
        MANIFEST,
    )
    assert lab.materialize("a", "b", "c", "d").success
    return lab


def test_all_are_stale_before_the_first_run_and_none_after(lab: Any) -> None:
    """What was never made is out of date; what was just made is not."""
    lab.write({"a": "# %%\nx = 1\n", "b": READ.format("a")}, "notebooks: {a: {outputs: [x]}}\n")
    assert stale(lab) == ["a", "b"]
    project(lab)
    assert stale(lab) == []


def test_a_change_of_code_touches_it_and_what_is_downstream(lab: Any) -> None:
    """Also a change in a helper; a change of comments and prose touches nothing."""
    project(lab)
    lab.write({"a": "# %% [markdown]\n# Prose\n# %%\nx = 1  # a comment\n"})
    assert stale(lab) == []
    lab.write({"helper": "def double(x):\n    return x + x\n"})
    assert stale(lab) == ["b", "c"]


def test_unchanged_data_leaves_what_is_downstream_up_to_date(lab: Any) -> None:
    """A rerun that makes the same again is no news; one that makes something else is."""
    project(lab)
    assert lab.materialize("a").success
    assert stale(lab) == []
    lab.write({"a": "# %%\nx = 2\n"})
    assert lab.materialize("a").success
    assert stale(lab) == ["b", "c"]
    assert lab.materialize("b", "c").success
    assert stale(lab) == []


def test_a_notebook_that_fetches_is_news_when_its_data_are(lab: Any) -> None:
    """The data version follows the content, not the code: Dagster's own would never change."""
    source = lab.root / "source.txt"
    source.write_text("1")
    lab.write(
        {"a": f"# %%\nx = open({str(source)!r}).read()\n", "b": READ.format("a")},
        "notebooks: {a: {outputs: [x]}, b: {outputs: [x]}}\n",
    )
    assert lab.materialize("a", "b").success
    source.write_text("2")
    assert stale(lab) == []
    assert lab.materialize("a").success
    assert stale(lab) == ["b"]


def test_newest_partition_counts(lab: Any) -> None:
    """A partitioned notebook is out of date when its newest partition is."""
    lab.write(
        {"s": "# %%\nx = 1\n"},
        "notebooks: {s: {outputs: [x], partitions: {by: day, start: 2024-01-01, "
        "end: 2024-01-04}}}\n",
    )
    assert stale(lab) == ["s"]
    assert lab.materialize("s", partition="2024-01-03").success
    assert stale(lab) == []
    lab.write({"s": "# %%\nx = 2\n"})
    assert stale(lab) == ["s"]


def test_the_ui_sees_the_same(lab: Any) -> None:
    """Dagster's own tags for code, inputs and data are on ranged materialisations too."""
    lab.write(
        {"s": "# %%\nx = 1\n", "t": READ.format("s")},
        "notebooks:\n"
        "  s: {outputs: [x], partitions: {by: day, start: 2024-01-01, end: 2024-01-04}}\n"
        "  t: {outputs: [x], partitions: {by: day, start: 2024-01-01, end: 2024-01-04}}\n",
    )
    run = lab.materialize("s", "t", span=("2024-01-01", "2024-01-03"))
    assert run.success, run.errors
    tags = run.materializations("t")[0].tags
    assert tags["dagster/input_data_version/s"]
    assert tags["dagster/input_event_pointer/s"] != "NULL"
    assert tags["dagster/data_version_is_user_provided"] == "true"
    provenance = dg.DataProvenance.from_tags(tags)
    assert provenance is not None
    assert provenance.code_version == tags["dagster/code_version"]
