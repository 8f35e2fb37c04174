"""The manifest's ``automation:`` and ``after:`` as Dagster's automation conditions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import dagster as dg

from research_jobs.manifest import NotebookSpec
from research_jobs.orchestration.model.names import AssetNames

__all__ = ["AUTOMATION_SENSOR", "automation_condition", "automation_sensor"]

AUTOMATION_SENSOR = "notebooks_automation"
_WITHOUT_PREFIX = AssetNames()


def automation_condition(
    spec: NotebookSpec, names: AssetNames = _WITHOUT_PREFIX
) -> dg.AutomationCondition[Any] | None:
    """The automation condition of a notebook.

    Parameters
    ----------
    spec : NotebookSpec
        With defaults merged in.
    names : AssetNames

    Returns
    -------
    dagster.AutomationCondition or None
        For ``after`` it depends only on those notebooks, which must be among the asset's
        dependencies. With time partitions it depends on the newest one.
    """
    if spec.after:
        return _after(spec.after, names)
    automation = spec.automation
    if automation is None:
        return None
    if automation.kind == "eager":
        return dg.AutomationCondition.eager()
    if automation.kind == "on_missing":
        return dg.AutomationCondition.on_missing()
    assert automation.cron is not None
    zone = automation.timezone or spec.timezone or "UTC"
    return dg.AutomationCondition.on_cron(automation.cron, zone)


def _after(notebooks: Iterable[str], names: AssetNames) -> dg.AutomationCondition[Any]:
    """New data of any of these, once none of them is still running.

    This is Dagster's ``eager`` without the part that also runs assets that were never made:
    ``after`` names a trigger, and a missing notebook is not one. If one run produces both (a
    schedule over both), ``after`` does not trigger again.
    """
    others = dg.AssetSelection.assets(*map(names.key, notebooks))
    condition = dg.AutomationCondition
    return (
        condition.in_latest_time_window()
        & condition.any_deps_updated().allow(others).since_last_handled()
        & ~condition.any_deps_missing().allow(others)
        & ~condition.any_deps_in_progress().allow(others)
        & ~condition.in_progress()
    ).with_label(f"after {', '.join(notebooks)}")


def automation_sensor(
    assets: Iterable[dg.AssetKey],
) -> dg.AutomationConditionSensorDefinition | None:
    """The sensor that evaluates the conditions of `assets`; None without any.

    It is switched on. Dagster's own sensor is off until someone starts it.
    """
    keys = list(assets)
    if not keys:
        return None
    return dg.AutomationConditionSensorDefinition(
        name=AUTOMATION_SENSOR,
        target=dg.AssetSelection.assets(*keys),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests runs of notebooks with after: or automation: in the manifest.",
    )
