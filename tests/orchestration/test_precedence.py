"""Where a parameter's value comes from: the notebook, the manifest, a schedule, the launchpad."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs import load

NOTEBOOK = """# %% tags=["parameters"]
from datetime import date
lookback: int = 1  # days
today = date.today()
# %%
x = [lookback, today]
"""
MANIFEST = """
notebooks: {market: {outputs: [x], parameters: {lookback: 2}}}
schedules:
  mornings: {cron: "0 6 * * *", notebooks: [market], parameters: {lookback: 3}}
"""


def test_the_launchpad_wins_over_the_schedule_and_that_over_the_manifest(lab: Any) -> None:
    """Each on a real run, recorded as used; what nobody set is computed when it runs."""
    lab.write({"market": NOTEBOOK}, MANIFEST)
    definitions = lab.defs()
    context = dg.build_schedule_context(
        instance=lab.instance,
        scheduled_execution_time=datetime(2026, 1, 1, 6, tzinfo=UTC),
        repository_def=definitions.get_repository_def(),
    )
    tick = definitions.resolve_schedule_def("mornings").evaluate_tick(context)
    (request,) = tick.run_requests or ()
    scheduled = {op: value["config"] for op, value in request.run_config["ops"].items()}
    # the last is the notebook's own default, which the manifest replaces: it was asked for
    for config, expected in (
        ({}, 2),
        (scheduled, 3),
        ({"market": {"lookback": 4}}, 4),
        ({"market": {"lookback": 1}}, 1),
        ({"market": {"today": "2018-11-01"}}, 2),
    ):
        run = lab.materialize("market", config=config)
        assert run.success, run.errors
        day = date(2018, 11, 1) if "today" in config.get("market", {}) else date.today()  # noqa: DTZ011 - as there
        assert load("market", "x", project=lab.root) == [expected, day]
        said = run.metadata("market")
        assert said["parameters"]["lookback"] == str(expected)
        page = Path(said["report_file"].partition("#")[0])
        text = re.sub(r"<[^>]+>", " ", page.read_text(encoding="utf-8"))
        assert f"Parameters lookback {expected} today datetime.date" in " ".join(text.split())
