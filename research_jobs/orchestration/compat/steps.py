"""How a running step is known."""

from __future__ import annotations

from dagster import AssetCheckExecutionContext, AssetExecutionContext, OpExecutionContext

from research_jobs.orchestration.compat.fallback import lacking

__all__ = ["StepContext", "step_identity"]

StepContext = AssetExecutionContext | AssetCheckExecutionContext | OpExecutionContext


def step_identity(context: StepContext) -> tuple[str, str]:
    """The run id and the step key of a running asset, asset check or op."""
    try:
        step_context = context.get_step_execution_context()
    except AttributeError as error:
        lacking(error, "steps inside graphs are known by their op alone")
        return context.run.run_id, context.op_execution_context.op.name
    return step_context.run_id, step_context.step.key
