"""`defaults.concurrency`: one bound over all runs, kept by a pool of Dagster's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import pytest
from dagster import DagsterInstance, DagsterRunStatus, InMemoryIOManager
from lab import wait_until

from research_jobs.orchestration.execution import io_manager
from research_jobs.orchestration.execution.executor import (
    MAX_CONCURRENT_VARIABLE,
    _set_slots,  # pyright: ignore[reportPrivateUsage]
)
from research_jobs.orchestration.model.names import NOTEBOOKS_POOL
from research_jobs.orchestration.model.workers import PROCESS_TAG, process_tag

NOTEBOOK = "# %%\nx = 1\n"


def limits(lab: Any) -> dict[str, int]:
    return {pool.name: pool.limit for pool in lab.instance.event_log_storage.get_pool_limits()}


def pools(lab: Any, *names: str) -> list[set[str]]:
    assets = lab.defs().resolve_asset_graph().assets_defs
    found = {asset.key.to_user_string(): asset.node_def.pool for asset in assets}
    return [found[name] for name in names]


def test_by_default_it_is_the_number_of_cores(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest that says nothing still bounds all runs together, by the cores of the machine."""
    monkeypatch.delenv(MAX_CONCURRENT_VARIABLE, raising=False)
    lab.write({"a": NOTEBOOK, "b": NOTEBOOK}, "notebooks: {b: {pool: heavy}}\n")
    assert pools(lab, "a", "b") == [NOTEBOOKS_POOL, "heavy"]
    assert lab.materialize("a").success
    assert limits(lab) == {NOTEBOOKS_POOL: len(os.sched_getaffinity(0))}


def test_a_run_without_notebooks_of_it_sets_no_limit(lab: Any) -> None:
    """An instance whose runs have nothing to do with the pool does not get it."""
    lab.write({"a": NOTEBOOK}, "notebooks: {a: {pool: heavy}}\n")
    assert lab.materialize("a").success
    assert limits(lab) == {}


@pytest.mark.parametrize("slots", [1, 3])
def test_it_is_the_limit_of_one_pool_on_the_instance(lab: Any, slots: int) -> None:
    """Notebooks without a pool of their own share one, as wide as the manifest says."""
    lab.write(
        {"a": NOTEBOOK, "b": NOTEBOOK, "c": NOTEBOOK},
        f"defaults: {{concurrency: {slots}}}\nnotebooks: {{c: {{pool: heavy}}}}\n",
    )
    assert pools(lab, "a", "b", "c") == [NOTEBOOKS_POOL, NOTEBOOKS_POOL, "heavy"]
    assert lab.materialize("a", "b", "c").success
    assert limits(lab) == {NOTEBOOKS_POOL: slots}


def test_runs_that_begin_together_on_a_new_instance_share_it(lab: Any) -> None:
    """Of several first runs at the same moment one sets the limit, and none of them fails."""
    home = lab.instance.root_directory
    count = 8
    together = threading.Barrier(count)
    failed: list[str] = []

    def begin() -> None:
        with DagsterInstance.from_config(home) as instance:
            instance.event_log_storage.get_pool_limits()
            together.wait()
            try:
                _set_slots(instance, NOTEBOOKS_POOL, 2)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run would fail
                failed.append(str(error))

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert limits(lab) == {NOTEBOOKS_POOL: 2}


def test_an_edited_bound_holds_from_the_next_run_on(lab: Any) -> None:
    """Changing the number in the manifest changes the pool's limit, and gives slots back."""
    lab.write({"a": NOTEBOOK}, "defaults: {concurrency: 1}\n")
    assert lab.materialize("a").success
    lab.write(manifest="defaults: {concurrency: 2}\n")
    assert lab.materialize("a").success
    info = lab.instance.event_log_storage.get_concurrency_info(NOTEBOOKS_POOL)
    assert (info.slot_count, info.active_slot_count) == (2, 0)


def test_a_slot_that_a_killed_run_held_is_taken_back(lab: Any) -> None:
    """Without a daemon too: whoever needs the slot fails the run whose process is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.kill()
    run_id = str(uuid.uuid4())
    tag = process_tag(run_id).replace(f":{os.getpid()}:", f":{process.pid}:")
    lab.write({"a": NOTEBOOK}, "defaults: {concurrency: 1}\n")
    lab.instance.create_run_for_job(
        lab.defs().resolve_implicit_global_asset_job_def(),
        run_id=run_id,
        status=DagsterRunStatus.STARTED,
        tags={PROCESS_TAG: tag},
    )
    storage = lab.instance.event_log_storage
    storage.set_concurrency_slots(NOTEBOOKS_POOL, 1)
    assert storage.claim_concurrency_slot(NOTEBOOKS_POOL, run_id, "step").is_claimed
    assert lab.materialize("a").success
    assert lab.instance.get_run_by_id(run_id).status is DagsterRunStatus.FAILURE


def test_a_slot_that_another_run_holds_is_waited_for(lab: Any) -> None:
    """With the one slot taken by another run, a notebook begins only when that run frees it."""
    storage = lab.instance.event_log_storage
    storage.set_concurrency_slots(NOTEBOOKS_POOL, 1)
    assert storage.claim_concurrency_slot(NOTEBOOKS_POOL, "another-run", "step").is_claimed
    lab.write({"a": NOTEBOOK}, "defaults: {concurrency: 1}\n")
    over = threading.Event()
    waited = []

    def free_once_it_waits() -> None:
        while not over.wait(0.05):
            waiting = storage.get_concurrency_info(NOTEBOOKS_POOL).pending_step_count
            if waiting:
                waited.append(waiting)
                storage.free_concurrency_slot_for_step("another-run", "step")
                return

    other = threading.Thread(target=free_once_it_waits)
    other.start()
    try:
        assert lab.materialize("a").success
    finally:
        over.set()
        other.join()
    assert waited == [1]


def at_once(steps: int) -> dict[str, Any]:
    """Run config: so many steps at a time."""
    return {"execution": {"config": {"max_concurrent": steps}}}


BEGAN = """# %%
from pathlib import Path
Path(__file__).with_suffix(".began").touch()
x = 1
"""


def test_a_notebook_begins_while_the_one_before_is_published(
    lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time means one process: what follows it does not keep the next from beginning."""
    lab.write(
        {"a": BEGAN, "b": BEGAN},
        "defaults: {concurrency: 1}\nnotebooks: {a: {outputs: [x]}, b: {outputs: [x]}}\n",
    )
    publish = io_manager.StagedRun.publish

    def publish_beside_the_next(staged: Any, **options: Any) -> Any:
        other = {"a": "b", "b": "a"}[staged.notebook]
        wait_until((lab.root / "notebooks" / f"{other}.began").exists, seconds=60)
        return publish(staged, **options)

    monkeypatch.setattr(io_manager.StagedRun, "publish", publish_beside_the_next)
    run = lab.materialize("a", "b", run_config=at_once(1))
    assert run.success, run.errors
    # The first cannot have ended before the second had begun.
    kinds = [e.event_type_value for e in run.events if e.event_type_value.startswith("STEP_S")]
    assert kinds == ["STEP_START", "STEP_START", "STEP_SUCCESS", "STEP_SUCCESS"]
    info = lab.instance.event_log_storage.get_concurrency_info(NOTEBOOKS_POOL)
    assert (info.slot_count, info.active_slot_count, info.pending_step_count) == (1, 0, 0)


def test_what_is_being_published_is_bounded(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One notebook at a time: beside the one that runs, three at most are being published."""
    names = [f"n{number}" for number in range(6)]
    outputs = "".join(f"  {name}: {{outputs: [x]}}\n" for name in names)
    lab.write(dict.fromkeys(names, BEGAN), f"defaults: {{concurrency: 1}}\nnotebooks:\n{outputs}")
    begun: list[int] = []

    def count() -> None:
        time.sleep(1)  # a fifth could begin meanwhile
        begun.append(len(list((lab.root / "notebooks").glob("*.began"))))

    four = threading.Barrier(4, action=count)
    publish = io_manager.StagedRun.publish

    def publish_with_three_others(staged: Any, **options: Any) -> Any:
        if not begun:
            four.wait(timeout=60)
        return publish(staged, **options)

    monkeypatch.setattr(io_manager.StagedRun, "publish", publish_with_three_others)
    run = lab.materialize(*names, run_config=at_once(1))
    assert run.success, run.errors
    assert begun == [4]


@pytest.mark.parametrize("manifest", ["pool: database", "io_manager: memory"])
def test_a_pool_of_its_own_is_kept_until_all_is_written(
    lab: Any, monkeypatch: pytest.MonkeyPatch, manifest: str
) -> None:
    """Where a pool or an IO manager is named, the next begins when the one before has ended."""
    lab.write(
        {"a": BEGAN, "b": BEGAN},
        "defaults: {concurrency: 1}\n"
        f"notebooks: {{a: {{outputs: [x], {manifest}}}, b: {{outputs: [x], {manifest}}}}}\n",
    )
    lab.instance.event_log_storage.set_concurrency_slots("database", 1)
    memory = InMemoryIOManager()
    defs = lab.defs(resources={"memory": memory})
    run = lab.materialize("a", "b", definitions=defs, run_config=at_once(1))
    assert run.success, run.errors
    kinds = [e.event_type_value for e in run.events if e.event_type_value.startswith("STEP_S")]
    assert kinds == ["STEP_START", "STEP_SUCCESS"] * 2


AT_ONCE = """# %%
import os, time
from pathlib import Path
running = Path(__file__).parent / "running"
running.mkdir(exist_ok=True)
mine = running / str(os.getpid())
mine.touch()
seen = 0
for _ in range(20):
    seen = max(seen, len(list(running.iterdir())))
    time.sleep(0.01)
mine.unlink()
"""


def test_no_more_processes_run_than_are_allowed(lab: Any) -> None:
    """Of eight notebooks, two at a time, two run at once, and never three."""
    names = [f"n{number}" for number in range(8)]
    lab.write(
        dict.fromkeys(names, AT_ONCE),
        "defaults: {concurrency: 2}\nnotebooks:\n"
        + "".join(f"  {name}: {{outputs: [seen]}}\n" for name in names),
    )
    run = lab.materialize(*names, run_config=at_once(2))
    assert run.success, run.errors
    from research_jobs.store.load import load

    seen = [load(name, "seen", project=lab.project) for name in names]
    assert max(seen) == 2
