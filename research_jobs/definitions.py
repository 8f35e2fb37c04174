"""The code location: what ``dagster dev``, the code server and the daemon load."""

from research_jobs.orchestration.factory import build_defs

defs = build_defs()
