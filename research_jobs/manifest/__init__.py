"""The manifest: ``notebooks/manifest.yaml`` as frozen models, and its mistakes as messages."""

from research_jobs.manifest.fields import RetrySpec
from research_jobs.manifest.load import load_manifest
from research_jobs.manifest.manifest import Manifest, Problem
from research_jobs.manifest.models import (
    AutomationSpec,
    Defaults,
    FreshnessSpec,
    NotebookSpec,
    ProjectSpec,
    ReportsSpec,
    ScheduleSpec,
)
from research_jobs.manifest.outputs import FreshWithin, OutputSpec
from research_jobs.manifest.partitions import DimensionSpec, DynamicSpec, PartitionsSpec
from research_jobs.manifest.schema import manifest_schema

__all__ = [
    "AutomationSpec",
    "Defaults",
    "DimensionSpec",
    "DynamicSpec",
    "FreshWithin",
    "FreshnessSpec",
    "Manifest",
    "NotebookSpec",
    "OutputSpec",
    "PartitionsSpec",
    "Problem",
    "ProjectSpec",
    "ReportsSpec",
    "RetrySpec",
    "ScheduleSpec",
    "load_manifest",
    "manifest_schema",
]
