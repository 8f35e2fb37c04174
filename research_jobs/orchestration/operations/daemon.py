"""Dagster's daemon, which first says who it is, so that the watch can find and end it.

::

    python -m research_jobs.orchestration.operations.daemon run --workspace workspace.yaml

It takes the arguments of ``dagster-daemon``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import distribution

from research_jobs.errors import ResearchJobsError
from research_jobs.project import find_project
from research_jobs.resident.services import register

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """Run ``dagster-daemon`` with some arguments.

    Parameters
    ----------
    arguments : sequence of str
    """
    with suppress(ResearchJobsError):
        register(find_project(), "daemon")
    sys.argv[:] = ["dagster-daemon", *arguments]
    (program,) = distribution("dagster").entry_points.select(name="dagster-daemon")
    program.load()()


if __name__ == "__main__":
    main(sys.argv[1:])
