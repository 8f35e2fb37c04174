"""The JSON schema that editors check a manifest with, generated from the models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from research_jobs.manifest.alerts import ChannelSpec, HeartbeatSpec
from research_jobs.manifest.backup import BackupSpec
from research_jobs.manifest.fields import Texts
from research_jobs.manifest.models import (
    Defaults,
    NotebookSpec,
    ProjectSpec,
    ReportsSpec,
    ScheduleSpec,
)
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.manifest.retention import RetentionSpec

__all__ = ["manifest_schema", "schema_text"]


class ManifestModel(ProjectSpec):
    """What notebooks/manifest.yaml may say."""

    # Without `| None`, which the loader allows: an editor's message would lose its place.
    defaults: Defaults = Field(default_factory=Defaults)
    notebooks: Mapping[str, NotebookSpec | None] = Field(default_factory=dict)
    schedules: Mapping[str, ScheduleSpec] = Field(default_factory=dict)
    secrets: Annotated[
        Texts,
        Field(description="Environment variables whose values are masked everywhere."),
    ] = ()
    reports: ReportsSpec = Field(default_factory=ReportsSpec)
    alerts: Annotated[
        Mapping[str, ChannelSpec], Field(description="Channels by name, and what each tells.")
    ] = Field(default_factory=dict)
    heartbeat: Annotated[
        HeartbeatSpec | str | None, Field(description="Told regularly that all is well.")
    ] = None
    backup: Annotated[BackupSpec | str | None, Field(description="Where backups go.")] = None
    retention: RetentionSpec = Field(default_factory=RetentionSpec)
    remotes: Annotated[
        Mapping[str, RemoteSpec], Field(description="Projects on other machines, by name.")
    ] = Field(default_factory=dict)


def manifest_schema() -> dict[str, Any]:
    """The manifest's JSON schema.

    Returns
    -------
    dict
        Written to ``notebooks/manifest.schema.json`` by ``python -m research_jobs.manifest``.
    """
    schema = ManifestModel.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "research_jobs manifest",
    }


def schema_text() -> str:
    """The schema as the text of its file."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"
