"""What ``check`` says of notebooks before they run, beside what became of them.

Run it as ``python -m benchmarks.foresight PROJECT`` with a project of notebooks that nobody here
wrote: convert the ``.ipynb`` files of source distributions (statsmodels, arch, control, dowhy)
into an environment that lacks some of their modules. Results are kept as JSON lines in the
project's state folder: an interrupted study goes on where it was.

A failure can be read in the file if it is of a kind that text, environment and disk tell: imports,
names, attributes of modules, files, syntax, input, exits. ``check`` has foreseen it if it has a
finding about the line that failed, or about the module, name or file of the error. A false alarm is
a finding that says a notebook will fail, where it succeeded. Half of the notebooks, by a hash of
their names, are kept back from whoever tunes ``check``; ``--half open`` shows only the others.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.table import Table
from research_jobs.cli.main import main as command
from research_jobs.notebook.scan import scan
from research_jobs.project import Project, find_project
from research_jobs.supervisor.run import record_notebook

READABLE = re.compile(
    r"ModuleNotFoundError|ImportError|NameError|FileNotFoundError|SyntaxError|EOFError|SystemExit"
    r"|NotImplementedError: .*does not run here|StdinNotImplemented"
    r"|AttributeError: module .* has no attribute|this cell does not run"
)
FATAL = frozenset({
    "syntax", "notebook", "missing-module", "missing-name", "removed-name", "missing-file",
    "undefined-name", "used-before-assigned", "input-call", "kernel-name", "other-language",
    "always-raises",
})  # fmt: skip
"""Codes of findings that say that a notebook will fail. ``sys.exit()`` may end it well."""


@dataclass(frozen=True)
class Ran:
    """What became of one notebook.

    Parameters
    ----------
    notebook, state, headline : str
    line : int or None
        Where it failed.
    readable : bool
        Whether the failure can be read in the file.
    """

    notebook: str
    state: str
    headline: str = ""
    line: int | None = None
    readable: bool = False

    @property
    def kept_back(self) -> bool:
        return hashlib.sha256(self.notebook.encode()).digest()[0] % 2 == 1


def run_all(project: Project, results: Path, timeout_s: float) -> list[Ran]:
    """Run each notebook once; those that ran before are read from the file."""
    lines = results.read_text().splitlines() if results.exists() else []
    done = {one.notebook: one for one in (Ran(**json.loads(line)) for line in lines)}
    with tempfile.TemporaryDirectory() as folder, results.open("a") as file:
        for notebook in scan(project).notebooks:
            if notebook.name in done:
                continue
            capture = Path(folder, "cells.jsonl")
            outcome = record_notebook(notebook.name, capture, project=project, timeout=timeout_s)
            capture.unlink(missing_ok=True)
            failure = outcome.failure
            one = Ran(notebook.name, str(outcome.state))
            if failure is not None and not outcome.state.ok:
                shown = READABLE.search(f"{failure.exception}: {failure.headline}") is not None
                one = Ran(notebook.name, one.state, failure.headline, failure.line, shown)
            done[one.notebook] = one
            file.write(json.dumps(asdict(one)) + "\n")
            file.flush()
            print(f"{one.notebook}: {one.state}", file=sys.stderr)
    return list(done.values())


def findings(project: Project) -> dict[str, list[dict[str, Any]]]:
    """What ``check`` says, by notebook; what is about a helper is about nobody."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command(["check", "--json", "--project", str(project.root)])
    by_path: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(out.getvalue()):
        by_path.setdefault(finding["path"] or "", []).append(finding)
    return {one.name: by_path.get(project.display(one.path), []) for one in scan(project).notebooks}


def foreseen(ran: Ran, found: Iterable[dict[str, Any]]) -> bool:
    """Whether a finding is about the line that failed, or about what the error names."""
    error = ran.headline.partition(": ")[2]
    named = {Path(word).name for word in re.findall(r"'([^']+)'", error)}
    return any(
        finding["line"] == ran.line
        or named & {Path(word).name for word in re.findall(r"'([^']+)'", finding["message"])}
        for finding in found
        if finding["code"] in FATAL | {"exit-call"}
    )


def main() -> None:
    """Run, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("project", type=Path)
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--half", choices=("open", "kept"), help="list the misses of this half")
    arguments = parser.parse_args()
    project = find_project(arguments.project)
    results = project.root / ".research_jobs" / "foresight.jsonl"
    results.parent.mkdir(exist_ok=True)
    ran = run_all(project, results, arguments.timeout)
    found = findings(project)
    rows: list[tuple[str, ...]] = []
    for half in ("open", "kept"):
        mine = [one for one in ran if one.kept_back == (half == "kept")]
        failed = [one for one in mine if one.readable]
        missed = [one for one in failed if not foreseen(one, found[one.notebook])]
        good = [one for one in mine if one.state == "succeeded"]
        alarms = Counter(
            one.notebook for one in good for f in found[one.notebook] if f["code"] in FATAL
        )
        rows.append((
            half, str(len(mine)), str(len(good)), str(len(mine) - len(good)), str(len(failed)),
            str(len(failed) - len(missed)), str(len(alarms)),
        ))  # fmt: skip
        if arguments.half == half:
            for one in missed:
                print(f"missed: {one.headline}")
            for one in good:
                for finding in found[one.notebook]:
                    if finding["code"] in FATAL:
                        print(f"false alarm: {finding['text']}")
    columns = ["half", "notebooks", "ran", "failed", "readable", "foreseen", "false alarms"]
    print(Table("Foresight of check", columns, rows).text())


if __name__ == "__main__":
    main()
