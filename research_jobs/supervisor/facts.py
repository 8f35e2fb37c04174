"""What a template has imported, and by what it is judged fit for a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

__all__ = ["Facts", "PreloadReport"]


@dataclass
class PreloadReport:
    """What a template has preloaded.

    Parameters
    ----------
    loaded : dict of str to float
        Module to the seconds of its import.
    left_out : dict of str to str
        Module to the reason.
    """

    loaded: dict[str, float] = field(default_factory=dict[str, float])
    left_out: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Facts:
    """The facts that decide whether a template may serve a run.

    Parameters
    ----------
    files : tuple of str
        The files of its modules, and other files that were read.
    path : tuple of str
        Where it has searched for modules.
    modules, missing : frozenset of str
        Top-level names that it has imported, and those that it did not find.
    variables : frozenset of str
        Environment variables that imports have read.
    began : int
        When it began to import, nanoseconds of Unix time.
    """

    files: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    began: int = 0

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Facts:
        return cls(
            tuple(map(str, message.get("files", ()))),
            tuple(map(str, message.get("path", ()))),
            frozenset(map(str, message.get("modules", ()))),
            frozenset(map(str, message.get("missing", ()))),
            frozenset(map(str, message.get("variables", ()))),
            int(message.get("began", 0)),
        )

    def to_json(self) -> dict[str, Any]:
        """As `of` reads it."""
        return {
            "files": list(self.files),
            "path": list(self.path),
            "modules": sorted(self.modules),
            "missing": sorted(self.missing),
            "variables": sorted(self.variables),
            "began": self.began,
        }

    @cached_property
    def places(self) -> frozenset[str]:
        """The folders from which modules were imported, or could have been."""
        return frozenset({*self.path, *map(os.path.dirname, self.files)})
