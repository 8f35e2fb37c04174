"""The lock of a notebook's environment: a text of names and versions, and of what they are for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from research_jobs.errors import DependencyError, SourceLocation
from research_jobs.notebook.environment import plain_name

__all__ = ["LOCKS", "Lock", "lock_path", "parse_lock", "read_lock"]

LOCKS = "locks"
_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9.!+_-]+)\Z")
_FOR, _PYTHON, _MADE = "# for: ", "# requires-python: ", "# Python "


@dataclass(frozen=True)
class Lock:
    """Names with versions.

    Parameters
    ----------
    pins : tuple of str
        ``pandas==2.2.3``, sorted.
    dependencies : tuple of str
        What they were resolved from.
    requires_python : str or None
    python : str or None
        The Python that they were resolved for: ``3.11``.
    """

    pins: tuple[str, ...]
    dependencies: tuple[str, ...] = ()
    requires_python: str | None = None
    python: str | None = None

    @property
    def versions(self) -> dict[str, str]:
        """dict: distribution to version."""
        return dict(pin.split("==", 1) for pin in self.pins)  # pyright: ignore[reportReturnType]

    def dump(self, notebook: str) -> str:
        """As a file: names and versions, no addresses."""
        requires = [_PYTHON + self.requires_python] if self.requires_python else []
        lines = (
            f"# Written by `research-jobs lock {notebook}`.",
            *(_FOR + each for each in self.dependencies),
            *requires,
            *([_MADE + self.python] if self.python else []),
            *self.pins,
        )
        return "".join(f"{line}\n" for line in lines)


def lock_path(notebooks: Path, name: str) -> Path:
    """Where the lock of a notebook is: ``notebooks/locks/volatility/garch.txt``."""
    return notebooks / LOCKS / f"{name}.txt"


def read_lock(path: Path, shown: str) -> Lock | None:
    """The lock in a file; None where there is none.

    Raises
    ------
    DependencyError
        With file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DependencyError(
            f"the lock cannot be read: {error}", where=SourceLocation(shown)
        ) from None
    return parse_lock(text, shown)


def parse_lock(text: str, shown: str) -> Lock:
    """The lock in a text.

    Raises
    ------
    DependencyError
        With file and line.
    """
    pins: list[str] = []
    dependencies: list[str] = []
    requires = made = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(_FOR):
            dependencies.append(stripped.removeprefix(_FOR))
        elif stripped.startswith(_PYTHON):
            requires = stripped.removeprefix(_PYTHON)
        elif stripped.startswith(_MADE):
            made = stripped.removeprefix(_MADE)
        elif stripped and not stripped.startswith("#"):
            pin = _PIN.match(stripped)
            if pin is None:
                raise DependencyError(
                    f"'{stripped[:80]}' is not a name with a version",
                    where=SourceLocation(shown, number, 1),
                    hint="Write pandas==2.2.3, or have `research-jobs lock` write the file.",
                )
            pins.append(f"{plain_name(pin[1])}=={pin[2]}")
    return Lock(_sorted(pins), tuple(dependencies), requires, made)


def _sorted(pins: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(pins)))
