"""A second process that reads a part of the files of a large project.

Parsing takes a millisecond a file, under one interpreter's lock. Where nothing is remembered yet of
hundreds of files, a process beside this one reads nearly half of them. What it does not answer for
(a file that does not parse, or all of them because it could not be started) is read here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from research_jobs.errors import NotebookError
from research_jobs.notebook.cache import Remembered, to_json
from research_jobs.notebook.cells import NotebookText, decode_source, notebook_cells, read_bytes
from research_jobs.notebook.facts import read_facts
from research_jobs.process import usable_cores
from research_jobs.project import Project

__all__ = ["FEWEST", "ReadAhead", "read_file"]

FEWEST = 300
"""Files below which a process costs more than it saves."""

# Less than half: it has to start first, and its answers are read here.
_SHARE = 0.4
_PROGRAM = "from research_jobs.notebook.reading_ahead import answer; answer()"


def read_file(path: Path, data: bytes, sha256: str, shown: str) -> Remembered:
    """What a scan keeps of a file.

    Parameters
    ----------
    path : Path
    data : bytes
        What is in it, and `sha256` of that.
    sha256 : str
    shown : str
        The file as a person should see it.

    Raises
    ------
    NotebookError
        When it is no text or, being a notebook or a helper, does not parse.
    """
    text = decode_source(data, path)
    cells = notebook_cells(text)
    marked = cells is not None
    notebook = NotebookText(path, text, sha256, cells or ())
    return Remembered(sha256, marked, read_facts(notebook, notebook=marked, shown=shown))


class ReadAhead:
    """Files that another process reads meanwhile.

    Parameters
    ----------
    project : Project
    paths : sequence of str
        Files that have to be read, in the order in which they will be asked for.
    """

    def __init__(self, project: Project, paths: Sequence[str]) -> None:
        self.began_at = time.time_ns()
        self._process: subprocess.Popen[bytes] | None = None
        self._sink: IO[bytes] | None = None
        self._asked: set[str] = set()
        self._found: dict[str, list[Any]] = {}
        if len(paths) < FEWEST or usable_cores() < 2 or not sys.executable:
            return
        asked = paths[-int(len(paths) * _SHARE) :]
        with contextlib.suppress(OSError), tempfile.TemporaryFile() as source:
            source.write(json.dumps([str(project.root), asked]).encode())
            source.seek(0)
            self._sink = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            # -P: nothing of the folder that we are in is imported.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM],
                stdin=source,
                stdout=self._sink,
                stderr=subprocess.DEVNULL,
            )
            self._asked = set(asked)

    def get(self, path: str) -> list[Any] | None:
        """What the other process found in a file, for the cache; None: it has to be read here."""
        if path not in self._asked:
            return None
        if self._process is not None and self._sink is not None:
            if self._process.wait() == 0:
                self._sink.seek(0)
                self._found = json.loads(self._sink.read())
            self._process = None
        return self._found.get(path)

    def close(self) -> None:
        """End the process, if nobody has waited for its answers."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._sink is not None:
            self._sink.close()


def answer() -> None:
    """Read the files that stdin names and write what was found to stdout, as JSON."""
    root, paths = json.load(sys.stdin)
    project = Project(Path(root), store="")
    found: dict[str, list[Any]] = {}
    for name in paths:
        path = Path(name)
        try:
            data = read_bytes(path)
            sha256 = hashlib.sha256(data).hexdigest()
            one = read_file(path, data, sha256, project.display(path))
        except NotebookError:
            continue  # whoever asked reads it again, and says what is wrong
        found[name] = to_json(one)
    json.dump(found, sys.stdout, separators=(",", ":"))
