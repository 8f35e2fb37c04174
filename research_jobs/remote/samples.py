"""The outputs here that are samples of another machine's."""

from __future__ import annotations

from collections.abc import Iterator

from research_jobs.project import Project
from research_jobs.remote.pulling import PULLS
from research_jobs.store.backends import backend_of

__all__ = ["sample_lines"]


def sample_lines(project: Project) -> Iterator[str]:
    """Each current output that is a sample, of what and from when; of partitions how many."""
    if not (project.state / PULLS).is_dir():
        return  # nothing was ever pulled: the versions need not be read
    backend = backend_of(project.store)
    for notebook in backend.notebooks():
        said: dict[str, str] = {}
        counts: dict[str, int] = {}
        for unit in backend.units(notebook):
            held = backend.hold(unit)
            held.release()
            origin = held.version.origin
            for output in origin.samples if origin is not None else ():
                line = origin.describe(notebook, output) if origin is not None else None
                if line is not None:
                    said[output] = line
                    counts[output] = counts.get(output, 0) + 1
        for output, line in said.items():
            more = counts[output] - 1
            yield f"{line} (and {more} more partitions)." if more else f"{line}."
