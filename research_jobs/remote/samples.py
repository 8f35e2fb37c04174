"""The outputs here that are samples of another machine's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from research_jobs.errors import ResearchJobsError
from research_jobs.project import Project
from research_jobs.remote.pulling import PULLS
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import current_version

__all__ = ["sample_lines"]


def sample_lines(project: Project) -> Iterator[str]:
    """Each current output that is a sample, of what and from when; of partitions how many."""
    if not (project.state / PULLS).is_dir():
        return  # nothing was ever pulled: the versions need not be read
    backend = backend_of(project.store)
    for notebook in backend.notebooks():
        lines: dict[str, list[str]] = {}
        for unit in backend.units(notebook):
            origin = None
            with suppress(ResearchJobsError):  # damaged: whoever reads it is told
                origin = current_version(backend, unit).origin
            for output in origin.samples if origin is not None else ():
                line = origin and origin.describe(notebook, output)
                if line:
                    lines.setdefault(output, []).append(line)
        for several in lines.values():
            more = f" (and {len(several) - 1} more partitions)" if several[1:] else ""
            yield f"{several[-1]}{more}."
