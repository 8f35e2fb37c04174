"""How long what runs leave behind is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from research_jobs.manifest.fields import Cron, Duration, Flag, Positive, Spec
from research_jobs.manifest.values import RefusedValueError, parse_duration

__all__ = ["RetentionSpec"]

# What the morning page shows of each notebook, and the history that the account is made from.
FEWEST = 14
SHORTEST_S = 7 * 86_400.0


class RetentionSpec(Spec):
    """What the nightly job keeps of runs, their logs and their reports."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "age": "runs",
        "days": "runs",
        "after": "runs",
        "last": "keep",
        "max": "most",
        "schedule": "cron",
        "active": "enabled",
    }

    runs: Annotated[Duration, Field(description="How long runs stay, with their logs.")] = (
        parse_duration("90d")
    )
    keep: Positive = Field(
        default=30, description="So many of the last runs of each notebook stay, however old."
    )
    most: Positive = Field(
        default=10_000, description="So many runs of each notebook at most, however young."
    )
    reports: Annotated[
        Duration, Field(description="How long the last report of a partition stays.")
    ] = parse_duration("730d")
    cron: Cron = Field(default="45 3 * * *", description="When the job runs.")
    enabled: Flag = Field(default=True, description="Whether the job runs by itself.")

    @field_validator("runs", "reports")
    @classmethod
    def _check_age(cls, value: float) -> float:
        if value < SHORTEST_S:
            raise RefusedValueError("a week is the least that is kept", "Write 90d.")
        return value

    @field_validator("keep")
    @classmethod
    def _check_keep(cls, value: int) -> int:
        if value < FEWEST:
            raise RefusedValueError(
                f"the morning page shows the last {FEWEST} runs", f"Write {FEWEST} or more."
            )
        return value

    @model_validator(mode="after")
    def _check_most(self) -> Self:
        if self.most < self.keep:
            raise RefusedValueError(
                f"most ({self.most:,}) is less than keep ({self.keep:,})", "Correct one of them."
            )
        return self
