"""Dependencies: from load() calls and the manifest, and how partitions map."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from research_jobs.orchestration.model.catalog import load_catalog

LOAD = "# %%\nfrom research_jobs import load\nx = load({!r}, 'x')\n"


def graph(lab: Any, **options: Any) -> dict[str, list[str]]:
    nodes = lab.defs(**options).get_repository_def().asset_graph.asset_nodes
    return {
        "/".join(node.key.path): sorted("/".join(key.path) for key in node.parent_keys)
        for node in nodes
    }


def test_load_calls_are_dependencies(lab: Any) -> None:
    """Directly, through a helper module, and from nested folders; deps and after add to them."""
    lab.write(
        {
            "a": "# %%\nx = 1\n",
            "vol/b": LOAD.format("a"),
            "helper": "from research_jobs import load\ndef get():\n    return load('vol/b', 'x')\n",
            "c": "# %%\nimport helper\nx = helper.get()\n",
            "d": "# %%\n",
        },
        "notebooks:\n  a: {outputs: [x]}\n  vol/b: {outputs: [x]}\n"
        "  d: {deps: [raw/prices, a], after: [c]}\n",
    )
    found = graph(lab)
    assert found["vol/b"] == ["a"]
    assert found["c"] == ["vol/b"]
    assert found["d"] == ["a", "c", "raw/prices"]


def test_another_asset_of_the_deployment_runs_first(lab: Any) -> None:
    """`deps:` names any asset key; a notebook and an asset can depend on each other's kind."""
    order: list[str] = []

    @dg.asset(key=["raw", "prices"])
    def raw() -> int:
        order.append("raw")
        return 1

    @dg.asset(deps=["a"])
    def last() -> None:
        order.append("last")

    lab.write({"a": "# %%\nx = 1\n"}, "notebooks: {a: {outputs: [x], deps: [raw/prices]}}\n")
    run = lab.materialize("a", "raw/prices", "last", definitions=lab.defs(assets=[raw, last]))
    assert run.success, run.errors
    assert order == ["raw", "last"]


def test_a_cycle_shows_the_loop_and_spares_the_others(lab: Any) -> None:
    """The notebooks in the loop are broken and say so; one that reads them still loads."""
    lab.write(
        {
            "a": LOAD.format("c"),
            "b": LOAD.format("a"),
            "c": LOAD.format("b"),
            "outside": LOAD.format("a"),
            "fine": "# %%\nx = 1\n",
        },
        "notebooks: {a: {outputs: [x]}, b: {outputs: [x]}, c: {outputs: [x]}}\n",
    )
    found = graph(lab)
    assert (found["a"], found["b"], found["c"]) == ([], [], [])
    assert found["outside"] == ["a"]
    run = lab.materialize("a", "b", "fine")
    description = run.failure("b").description
    assert "b -> a -> c -> b" in description
    assert description.startswith("notebooks/b.py:3")
    assert "a needs c: notebooks/a.py:3 loads it" in run.failure("b").metadata["details"].value
    assert len(run.materializations("fine")) == 1


@pytest.mark.parametrize("written", ["a", "desk/a"])
def test_deps_may_name_a_notebook_with_the_prefix(lab: Any, written: str) -> None:
    """As the manifest calls it or by its key in Dagster, it is a notebook: cycles included."""
    lab.write(
        {"a": "# %%\nx = 1\n", "b": "# %%\ny = 1\n"},
        f"prefix: desk\nnotebooks: {{b: {{deps: [{written}, desk/other]}}}}\n",
    )
    entry = load_catalog(lab.project).entries["b"]
    assert entry.upstream == ("a",)
    assert entry.assets == (("desk", "other"),)
    lab.write({"a": LOAD.format("b")})
    assert "a -> b -> a" in str(load_catalog(lab.project).entries["a"].error)


def test_two_loops_and_a_long_chain(lab: Any) -> None:
    """Each loop is reported by itself; a chain deeper than Python's stack is no trouble."""
    notebooks = {f"n{i}": LOAD.format(f"n{i + 1}") for i in range(1500)}
    notebooks |= {"n1500": "# %%\nx = 1\n"}
    notebooks |= {"p": LOAD.format("q"), "q": LOAD.format("p")}
    lab.write(notebooks)
    catalog = load_catalog(lab.project)
    broken = sorted(entry.name for entry in catalog if entry.error is not None)
    assert broken == ["p", "q"]
    assert "p -> q -> p" in str(catalog.entries["p"].error)


def test_reading_oneself_is_no_cycle(lab: Any) -> None:
    """A notebook may read what it made before."""
    lab.write(
        {
            "a": "# %%\nfrom research_jobs import load\n"
            "from research_jobs.errors import StoreError\n"
            "try:\n    x = load('a', 'x') + 1\nexcept StoreError:\n    x = 1\n"
        },
        "notebooks: {a: {outputs: [x]}}\n",
    )
    entry = load_catalog(lab.project).entries["a"]
    assert entry.error is None
    assert entry.reads_itself
    for _ in range(3):
        assert lab.materialize("a").success
    from research_jobs import load

    assert load("a", "x", project=lab.root) == 3


def test_loads_of_what_is_not_there_are_warnings(lab: Any) -> None:
    """A misspelt notebook or output is reported with its place; the notebook still runs."""
    lab.write(
        {
            "market_data": "# %%\nprices = 1\n",
            "a": "# %%\nfrom research_jobs import load\nif False:\n    load('market_dta')\n"
            "    load('market_data', 'price')\n",
        },
        "notebooks: {market_data: {outputs: [prices]}}\n",
    )
    first, second = load_catalog(lab.project).entries["a"].warnings
    assert first.startswith("notebooks/a.py:4:")
    assert "Did you mean 'market_data'?" in first
    assert "declares no output 'price'" in second
    assert "Did you mean 'prices'?" in second
    node = lab.defs().get_repository_def().asset_graph.get(dg.AssetKey("a"))
    assert node.description.count("**Warning:**") == 2
    assert lab.materialize("a").success


def test_partition_mappings(lab: Any) -> None:
    """Alike, daily from weekly, all of a partitioned one from an unpartitioned one."""
    day = "partitions: {by: day, start: 2024-01-01, end: 2024-02-01}"
    lab.write(
        {
            "daily": "# %%\nx = 1\n",
            "plain": "# %%\nx = 1\n",
            "same": LOAD.format("daily"),
            "weekly": LOAD.format("daily"),
            "whole": LOAD.format("daily"),
            "from_plain": LOAD.format("plain"),
        },
        f"""
notebooks:
  plain: {{outputs: [x]}}
  daily: {{outputs: [x], {day}}}
  same: {{{day}}}
  weekly: {{partitions: {{by: week, start: 2024-01-01, end: 2024-02-01}}}}
  from_plain: {{{day}}}
""",
    )
    nodes = lab.defs().get_repository_def().asset_graph

    def mapping(name: str, upstream: str) -> Any:
        key = dg.AssetKey(upstream)
        return nodes.get(dg.AssetKey(name)).assets_def.get_partition_mapping(key)

    assert isinstance(mapping("same", "daily"), dg.IdentityPartitionMapping)
    assert isinstance(mapping("weekly", "daily"), dg.TimeWindowPartitionMapping)
    assert isinstance(mapping("whole", "daily"), dg.AllPartitionMapping)
    assert mapping("from_plain", "plain") is None


def test_partitions_that_do_not_go_together_are_refused(lab: Any) -> None:
    """Nothing says which ticker a day belongs to: that notebook is broken, and says why."""
    lab.write(
        {"daily": "# %%\nx = 1\n", "tickers": LOAD.format("daily")},
        """
notebooks:
  daily: {outputs: [x], partitions: {by: day, start: 2024-01-01}}
  tickers: {partitions: {values: [A, B]}}
""",
    )
    node = lab.defs().get_repository_def().asset_graph.get(dg.AssetKey("tickers"))
    assert "nothing says which partitions belong together" in node.description
    assert node.partitions_def is None
