"""Dagster's pools, which bound how many steps run at once in all runs together."""

from __future__ import annotations

__all__ = ["NOTEBOOKS_POOL"]

NOTEBOOKS_POOL = "notebooks"
"""The pool of every notebook that names none of its own."""
