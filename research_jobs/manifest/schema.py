"""The JSON schema that editors check a manifest with, made from the models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from research_jobs.manifest.fields import Spec, Texts
from research_jobs.manifest.models import Defaults, NotebookSpec, ReportsSpec, ScheduleSpec

__all__ = ["manifest_schema", "schema_text"]


class ManifestModel(Spec):
    """What notebooks/manifest.yaml may say."""

    defaults: Defaults | None = None
    notebooks: Mapping[str, NotebookSpec | None] | None = None
    schedules: Mapping[str, ScheduleSpec] | None = None
    secrets: Annotated[
        Texts | None,
        Field(description="Environment variables whose values are masked everywhere."),
    ] = None
    reports: ReportsSpec | None = None


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
    """The schema as the file has it."""
    return json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"
