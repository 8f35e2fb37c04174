"""The installed distributions of an interpreter, by the names of their metadata folders.

Source: https://packaging.python.org/en/latest/specifications/recording-installed-packages/.
Standard library only.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from research_jobs.notebook.environment import plain_name

__all__ = ["describe_environment", "parse_environment"]

_METADATA = re.compile(r"(?P<name>.+?)-(?P<version>\d[^-]*)(?:-.*)?\.(?:dist-info|egg-info)\Z")


def describe_environment(python: str | None) -> tuple[str, bytes]:
    r"""An interpreter's version, and its distributions, one a line.

    Parameters
    ----------
    python : str or None
        Path of an interpreter; None for this one.

    Returns
    -------
    (str, bytes)
        ``"3.11.7"`` and ``b"numpy==2.1.0\npandas==2.2.3\n"``.
    """
    if python is None:
        version, folders = platform.python_version(), [entry for entry in sys.path if entry]
    else:
        prefix = Path(python).absolute().parent.parent
        version = _version_of(prefix)
        folders = [str(path) for path in prefix.glob("lib/python3*/*-packages")]
    found = sorted(set(_distributions(dict.fromkeys(folders))), key=str.lower)
    return version, "".join(f"{line}\n" for line in found).encode()


def _distributions(folders: Iterable[str]) -> Iterable[str]:
    for folder in folders:
        if not folder.endswith("-packages"):
            continue
        try:
            names = [entry.name for entry in os.scandir(folder)]
        except OSError:
            continue
        for name in names:
            match = _METADATA.match(name)
            if match is not None:
                plain = plain_name(match["name"])
                yield f"{plain}=={match['version']}"


def _version_of(prefix: Path) -> str:
    """A virtual environment's Python, as its ``pyvenv.cfg`` says."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    said = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
    return said.get("version") or said.get("version_info", "")


def parse_environment(content: bytes) -> Mapping[str, str]:
    """Distribution to version, out of what `describe_environment` returns."""
    lines = content.decode("utf-8", "replace").splitlines()
    return {name: version for name, _, version in (line.partition("==") for line in lines)}
