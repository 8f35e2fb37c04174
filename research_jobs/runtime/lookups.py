"""What imports look up in their environment: variables, and modules that do not exist.

A template's imports depend on the results. A run for which they would differ must not start from
that template.

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
    """The lookups so far."""

    def __init__(self) -> None:
        self.variables: set[str] = set()
        self.missing: set[str] = set()
        #: whether lookups count at the moment
        self.on = True

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Record a name that no earlier finder has found."""
        del target
        if path is None and self.on:
            self.missing.add(fullname)

    def note_variable(self, name: str) -> None:
        """Record a variable that was read."""
        if self.on and not name.startswith(_OF_RUNS):
            self.variables.add(name)

    @contextlib.contextmanager
    def paused(self) -> Generator[None]:
        """Ignore our own lookups."""
        before, self.on = self.on, False
        try:
            yield
        finally:
            self.on = before


@contextlib.contextmanager
def watch_lookups() -> Generator[Lookups]:
    """Record lookups in this context."""
    lookups = Lookups()
    plain: Any = type(os.environ)

    class Watched(plain):  # type: ignore[misc, valid-type]
        """The environment, recording which variables are read by name."""

        def __getitem__(self, key: str) -> str:
            if key != self.__dict__.get("_passing"):
                lookups.note_variable(str(key))
            return super().__getitem__(key)

        def __iter__(self) -> Iterator[str]:
            # Iterating over all of them does not read any in particular.
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
