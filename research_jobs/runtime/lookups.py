"""What imports ask of their surroundings: variables that they read, modules that they do not find.

A run whose surroundings answer otherwise must not start from a template that has imported under
these.

Standard library only, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator, Iterator
from typing import Any

__all__ = ["Lookups", "watch_lookups"]

# Set for each run, and handled there (`display`, `fresh`).
_OF_RUNS = ("RESEARCH_JOBS_", "MPLBACKEND", "PLOTLY_RENDERER", "MATPLOTLIBRC")


class Lookups:
    """What has been asked for so far."""

    def __init__(self) -> None:
        self.variables: set[str] = set()
        self.missing: set[str] = set()
        #: whether what is looked up now counts
        self.on = True

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Note a name that no finder before this one has found."""
        del target
        if path is None and self.on:
            self.missing.add(fullname)

    def note_variable(self, name: str) -> None:
        """Note a variable that was read."""
        if self.on and not name.startswith(_OF_RUNS):
            self.variables.add(name)

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Leave out what we look up ourselves."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before


@contextlib.contextmanager
def watch_lookups() -> Generator[Lookups]:
    """Note what is looked up meanwhile."""
    lookups = Lookups()
    plain: Any = type(os.environ)

    class Watched(plain):  # type: ignore[misc, valid-type]
        """The environment, noting which variables are read by name."""

        def __getitem__(self, key: str) -> str:
            if key != self.__dict__.get("_passing"):
                lookups.note_variable(str(key))
            return super().__getitem__(key)

        def __iter__(self) -> Iterator[str]:
            # Who goes through all of them has not asked for any.
            try:
                for key in super().__iter__():
                    self.__dict__["_passing"] = key
                    yield key
            finally:
                self.__dict__.pop("_passing", None)

    finder: Any = lookups
    sys.meta_path.append(finder)
    os.environ.__class__ = Watched
    try:
        yield lookups
    finally:
        os.environ.__class__ = plain
        os.environ.__dict__.pop("_passing", None)
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
