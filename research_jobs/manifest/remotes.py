"""Where the project is on other machines, and how to get there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field, StrictStr, field_validator

from research_jobs.manifest.fields import Positive, Spec
from research_jobs.manifest.values import RefusedValueError
from research_jobs.project import REPORTS_PORT, UI_PORT

__all__ = ["RemoteSpec"]


class RemoteSpec(Spec):
    """A project on another machine, reached over the system's own ssh."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "host": "ssh",
        "address": "ssh",
        "path": "project",
        "folder": "project",
        "program": "command",
    }

    ssh: StrictStr = Field(
        description="As the ssh program takes it: a host of ~/.ssh/config, user@host, ssh://host:22.",
    )
    project: StrictStr = Field(description="The project's folder there.")
    command: StrictStr = Field(
        default="research-jobs", description="research-jobs there, if it is not on the PATH."
    )
    ui_port: Positive = Field(default=UI_PORT, description="The port of Dagster's UI there.")
    reports_port: Positive = Field(
        default=REPORTS_PORT, description="The port of the reports there."
    )

    @field_validator("ssh")
    @classmethod
    def _check_ssh(cls, value: str) -> str:
        # A word that begins with a hyphen would be an option.
        if not value or value.startswith("-") or any(letter.isspace() for letter in value):
            raise RefusedValueError(
                f"'{value}' is not a host", "Write a host of ~/.ssh/config, or user@host."
            )
        return value

    @field_validator("project", "command")
    @classmethod
    def _check_text(cls, value: str) -> str:
        if not value.strip() or not value.isprintable():
            raise RefusedValueError(f"{value!r} is not a path", "Write a path of that machine.")
        return value
