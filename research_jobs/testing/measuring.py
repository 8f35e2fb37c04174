"""Measure the lines of a tested notebook, if the tests are measured."""

from __future__ import annotations

import copy
import os
import sys
from typing import Any

from research_jobs.runtime.measuring import CONFIG_VARIABLE

__all__ = ["coverage_variables"]


def coverage_variables() -> dict[str, str]:
    """The environment variables with which coverage.py measures another process as this one.

    Empty when this process is not measured, or when its environment says so already.
    """
    coverage: Any = sys.modules.get("coverage")
    if coverage is None or os.environ.get(CONFIG_VARIABLE):
        return {}
    current = coverage.Coverage.current()
    if current is None or not hasattr(current.config, "serialize"):
        return {}
    # If the notebook's are the only lines that count, this process has none.
    unneeded = (*current.get_option("run:disable_warnings"), "no-data-collected")
    current.set_option("run:disable_warnings", list(unneeded))
    config = copy.copy(current.config)
    config.parallel = True  # a data file of its own, which is combined with the others
    return {CONFIG_VARIABLE: config.serialize()}
