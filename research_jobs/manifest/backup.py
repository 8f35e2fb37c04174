"""Where backups go, how long they are kept, and how old the last proven one may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, StrictStr, field_validator

from research_jobs.manifest.fields import Duration, Positive, Spec
from research_jobs.manifest.values import RefusedValueError, parse_duration

__all__ = ["BackupSpec", "KeepSpec", "read_backup"]

OLDEST = "8d"


class KeepSpec(Spec):
    """How older backups are thinned out: restic's ``--keep-...``."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "days": "daily",
        "weeks": "weekly",
        "months": "monthly",
        "years": "yearly",
    }

    last: Positive | None = Field(default=None, description="The last ones.")
    hourly: Positive | None = Field(default=None, description="One of each of so many hours.")
    daily: Positive | None = Field(default=None, description="One of each of so many days.")
    weekly: Positive | None = Field(default=None, description="One of each of so many weeks.")
    monthly: Positive | None = Field(default=None, description="One of each of so many months.")
    yearly: Positive | None = Field(default=None, description="One of each of so many years.")

    @property
    def rules(self) -> dict[str, int]:
        """dict: those that are set."""
        return {name: count for name, count in self.model_dump().items() if count is not None}


class BackupSpec(Spec):
    """Backups of the project, with restic."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "target": "to",
        "repository": "to",
        "repo": "to",
        "retention": "keep",
        "password": "password_file",
        "max_age": "verify",
    }

    to: StrictStr = Field(
        default="",
        validate_default=True,
        description="A restic repository: a folder, sftp:user@host:/path, s3:https://host/bucket.",
    )
    keep: KeepSpec | None = Field(
        default=None, description="How many are kept; by default all are."
    )
    password_file: StrictStr | None = Field(
        default=None, description="A file with the password; by default RESTIC_PASSWORD has it."
    )
    verify: Annotated[Duration, Field(description="How old the last proven one may be.")] = (
        parse_duration(OLDEST)
    )

    @field_validator("to")
    @classmethod
    def _check_to(cls, value: str) -> str:
        if not value.strip():
            raise RefusedValueError(
                "no repository is named", "Write to: /mnt/backup or sftp:host:/path."
            )
        return value

    @field_validator("verify")
    @classmethod
    def _check_verify(cls, value: float) -> float:
        if value < 3600:
            raise RefusedValueError("backups are not proven that often", "Write 8d.")
        return value


def read_backup(value: Any) -> Any:
    """A target is short for ``{to: ...}``."""
    return {"to": value} if isinstance(value, str) else value
