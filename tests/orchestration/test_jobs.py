"""Jobs over notebooks: a folder with several partitionings loads, and each can be backfilled."""

from __future__ import annotations

import dagster as dg

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.definitions.jobs import (
    ALL_ASSETS_JOB,
    ScheduledNotebook,
    notebook_jobs,
)
from research_jobs.orchestration.model.partitions import build_partitions


def notebook(name: str, **spec) -> ScheduledNotebook:
    """A notebook with the partitions that the manifest would say."""
    made = NotebookSpec.model_validate({"partitions": spec} if spec else {})
    return ScheduledNotebook(
        name, build_partitions(made), by=spec.get("by"), op=name.replace("/", "__")
    )


NOTEBOOKS = [
    notebook("plain"),
    notebook("volatility/garch"),
    notebook("signals", by="day", start="2026-01-01"),
    notebook("carry", by="day", start="2026-01-01"),
    notebook("old", by="day", start="2020-01-01"),
    notebook("monthly", by="month", start="2026-01-01"),
    notebook("regions", values=["eu", "us"]),
    notebook("tickers", dynamic={"notebook": "plain", "output": "tickers"}),
    notebook(
        "grid",
        dimensions={"date": {"by": "day", "start": "2026-01-01"}, "region": {"values": ["eu"]}},
    ),
]


def test_each_partitioning_has_a_job_of_its_own():
    """Named for what its partitions are, and all resolve beside each other."""
    jobs = notebook_jobs({n.name: n for n in NOTEBOOKS})
    names = {
        "notebooks": {"plain", "volatility/garch"},
        "notebooks_by_day_carry": {"signals", "carry"},
        "notebooks_by_day_old": {"old"},
        "notebooks_by_month": {"monthly"},
        "notebooks_by_values": {"regions"},
        "notebooks_by_keys": {"tickers"},
        "notebooks_by_date_region": {"grid"},
    }
    assert {job.name for job in jobs} == set(names)

    def asset(member: ScheduledNotebook) -> dg.AssetsDefinition:
        @dg.asset(key=member.key, partitions_def=member.partitions)
        def made() -> None: ...

        return made

    definitions = dg.Definitions(assets=[asset(n) for n in NOTEBOOKS], jobs=jobs)
    dg.Definitions.validate_loadable(definitions)
    for name, members in names.items():
        job = definitions.resolve_job_def(name)
        selected = {key.to_user_string() for key in job.asset_layer.selected_asset_keys}
        assert selected == members


def test_the_job_of_all_assets_is_called_as_dagster_calls_it():
    """Schedules over several partitionings name it."""
    repository = dg.Definitions(assets=[dg.AssetSpec("x")]).get_repository_def()
    assert repository.get_implicit_global_asset_job_def().name == ALL_ASSETS_JOB


def test_many_partitionings_do_not_make_many_jobs():
    """Those with the most notebooks have one."""
    many = [notebook(f"n{i}", by="day", start=f"20{i // 12:02}-{i % 12 + 1:02}") for i in range(60)]
    shared = [notebook(f"m{i}", by="month", start="2020-01") for i in range(3)]
    jobs = notebook_jobs({n.name: n for n in [*many, *shared]})
    assert len(jobs) == 30
    assert "notebooks_by_month" in {job.name for job in jobs}


def test_no_two_jobs_have_one_name():
    """The dimensions of one may be called as the kind and a notebook of another."""
    grid = {"day": {"by": "day", "start": "2026-01-01"}, "market": {"values": ["eu"]}}
    named = [
        notebook("market", by="day", start="2026-01-01"),
        notebook("other", by="day", start="2020-01-01"),
    ]
    for members in (
        [notebook("a_grid", dimensions=grid), *named],
        [*named, notebook("z_grid", dimensions=grid)],
    ):
        jobs = notebook_jobs({n.name: n for n in members})
        assert len({job.name for job in jobs}) == len(jobs) == 3
