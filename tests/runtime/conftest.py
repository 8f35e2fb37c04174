"""Fixtures: a lab in which notebooks run for real."""

from __future__ import annotations

from lab import lab, marker, shared_supervisor

__all__ = ["lab", "marker", "shared_supervisor"]
