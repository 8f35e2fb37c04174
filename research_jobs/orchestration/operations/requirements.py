"""Install what a project says that it needs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tomllib

from research_jobs.errors import ProjectError

__all__ = ["Requirements"]

_CONSTRAINTS = "constraints.txt"


@dataclass(frozen=True)
class Requirements:
    """The file that lists what a project needs, as it was read.

    Parameters
    ----------
    path : Path
        A ``requirements.txt``, or a ``pyproject.toml`` that describes a package.
    digest : str
        Changes with the file, and with the ``constraints.txt`` beside it.
    """

    path: Path
    digest: str

    @classmethod
    def of(cls, root: Path) -> Requirements | None:
        """Those of a project; ``requirements.txt`` comes first.

        Raises
        ------
        ProjectError
            When the file cannot be read.
        """
        path = root / "requirements.txt"
        if not path.is_file():
            path = root / "pyproject.toml"
            try:
                if not path.is_file() or "project" not in tomllib.loads(path.read_text("utf-8")):
                    return None
            except ValueError as error:
                raise ProjectError(f"pyproject.toml cannot be read: {error}") from error
        files = (path, root / _CONSTRAINTS)
        content = [file.read_bytes() if file.is_file() else b"" for file in files]
        return cls(path, hashlib.sha256(b"\0".join(content)).hexdigest())

    def install(self) -> None:
        """Install them into the environment of this process.

        Raises
        ------
        ProjectError
            When pip does not succeed, with its last line.
        """
        folder = self.path.parent
        what = ["--requirement", self.path.name]
        if self.path.name == "pyproject.toml":
            what = ["--editable", "."]
        if (folder / _CONSTRAINTS).is_file():
            what += ["--constraint", _CONSTRAINTS]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "install", "--quiet"),
                *("--disable-pip-version-check", "--no-input", *what),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
            errors = [line for line in lines if line.startswith("ERROR")] or lines
            raise ProjectError(
                f"{self.path.name} cannot be installed: {errors[-1].removeprefix('ERROR: ')}"
            )
