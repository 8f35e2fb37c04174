"""A second process that reads a part of the files of a large project.

Parsing takes a millisecond a file, under one interpreter's lock. Where nothing is remembered yet of
hundreds of files, a process beside this one reads nearly half of them. What it does not answer for
(a file that does not parse, or all of them because it could not be started) is read here.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from research_jobs.errors import NotebookError
from research_jobs.notebook.cache import Remembered
from research_jobs.notebook.cells import NotebookText, decode_source, notebook_cells, read_bytes
from research_jobs.notebook.facts import facts_from_json, facts_to_json, read_facts
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
        self._found: dict[str, Remembered] = {}
        self._asked: set[str] = set()
        if len(paths) < FEWEST or _cores() < 2 or not sys.executable:
            return
        asked = paths[-int(len(paths) * _SHARE) :]
        try:
            with tempfile.TemporaryFile() as source:
                source.write(json.dumps([str(project.root), asked]).encode())
                source.seek(0)
                self._sink = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the answers
                # -P: nothing of the folder that we are in is imported.
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _PROGRAM],
                    stdin=source,
                    stdout=self._sink,
                    stderr=subprocess.DEVNULL,
                )
        except OSError:
            return
        self._asked = set(asked)

    def get(self, path: str) -> Remembered | None:
        """What the other process found in a file; None where it has to be read here."""
        if path not in self._asked:
            return None
        self._collect()
        return self._found.get(path)

    def _collect(self) -> None:
        process, sink = self._process, self._sink
        self._process = None
        if process is None or sink is None:
            return
        with sink:
            if process.wait() != 0:
                return
            sink.seek(0)
            found: dict[str, list[Any]] = json.loads(sink.read())
        for path, (sha256, marked, facts) in found.items():
            self._found[path] = Remembered(sha256, marked, facts_from_json(facts))

    def close(self) -> None:
        """End the process, if nobody has asked for its answers."""
        if self._process is not None:
            self._process.kill()
        self._collect()


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
        found[name] = [one.sha256, one.marked, facts_to_json(one.facts)]
    json.dump(found, sys.stdout, separators=(",", ":"))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
