"""Which Python an environment is made from. None is ever downloaded."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from research_jobs.errors import InstallError

__all__ = ["Base", "find_base", "resolve_interpreter"]

# What runs a notebook's process, newest first.
_MINORS = ("3.14", "3.13", "3.12", "3.11", "3.10")
_ASK = "import platform; print(platform.python_version())"
_ANSWER_S = 20.0


@dataclass(frozen=True)
class Base:
    """An installed Python.

    Parameters
    ----------
    path : str
    version : str
        ``3.11.7``.
    """

    path: str
    version: str

    @property
    def minor(self) -> str:
        """str: ``3.11``."""
        return ".".join(self.version.split(".")[:2])

    @property
    def identity(self) -> str:
        """str: what changes when an environment made from it would no longer fit."""
        return f"{self.version} {os.path.realpath(self.path)} {platform.machine()}"


def resolve_interpreter(python: str | None, project: str) -> str | None:
    """The path of an interpreter named in the manifest: on the PATH, or from the project's root."""
    if python is None:
        return None
    if os.sep not in python:
        return shutil.which(python) or python
    return str(Path(project) / Path(python).expanduser())


def find_base(
    requires: str | None = None, *, named: str | None = None, locked: str | None = None
) -> Base:
    """The Python for an environment.

    Parameters
    ----------
    requires : str, optional
        The versions that do: ``>=3.11``.
    named : str, optional
        The path of the only candidate.
    locked : str, optional
        The version that its packages were resolved for, which is preferred: ``3.11``.

    Raises
    ------
    InstallError
        When none of them is installed.
    """
    if named is not None:
        return _named(named, requires)
    this = Base(sys.executable, platform.python_version())
    if _fits(this, requires) and locked in (None, this.minor):
        return this
    if locked is not None:
        exact = _ask(f"python{locked}")
        if exact is not None and _fits(exact, requires):
            return exact
        if _fits(this, requires):
            return this
    seen = [this]
    for found in _on_path():
        if _fits(found, requires):
            return found
        seen.append(found)
    versions = ", ".join(sorted({each.version for each in seen}))
    raise InstallError(
        f"no installed Python is {requires or f'{_MINORS[-1]} to {_MINORS[0]}'}",
        hint=f"Found on the PATH: {versions}. Install one, or name its path as `python:` in the "
        "manifest.",
    )


def _named(path: str, requires: str | None) -> Base:
    found = _ask(path)
    if found is None:
        raise InstallError(
            f"interpreter {path} cannot be started", hint="Check `python:` in the manifest."
        )
    if not _fits(found, requires):
        raise InstallError(
            f"{path} is Python {found.version}, and the notebook requires {requires}",
            hint="Correct `python:` in the manifest, or requires-python in the notebook.",
        )
    return found


def _fits(base: Base, requires: str | None) -> bool:
    from packaging.specifiers import SpecifierSet

    return base.minor in _MINORS and (
        requires is None or SpecifierSet(requires).contains(base.version, prereleases=True)
    )


def _on_path() -> Iterator[Base]:
    for name in (*(f"python{minor}" for minor in _MINORS), "python3", "python"):
        found = _ask(name)
        if found is not None:
            yield found


@lru_cache(maxsize=64)
def _ask(name: str) -> Base | None:
    """A Python by its name or path; None where there is none that starts."""
    path = name if os.sep in name else shutil.which(name)
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, "-I", "-c", _ASK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=_ANSWER_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return Base(path, done.stdout.strip())
