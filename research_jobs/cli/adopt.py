"""``research-jobs adopt``: run notebooks that the manifest does not name, keep what they show."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from research_jobs.cli.output import complain, is_terminal, print_table
from research_jobs.errors import ManifestError, ResearchJobsError
from research_jobs.notebook.cells import read_notebook_text
from research_jobs.notebook.scan import scan
from research_jobs.notebook.source import parse_source
from research_jobs.project import find_project
from research_jobs.units import readable_size

__all__ = ["add_arguments", "run"]

_PEEKS = {"head", "tail", "sample", "describe", "round"}
_TABLES = {"DataFrame", "Series", "Table"}
_SCALARS = (bool, int, float, str, date, time, timedelta)


@dataclass(frozen=True)
class _Candidate:
    """A variable that a notebook shows and the store can keep."""

    notebook: str
    name: str
    kind: str
    rows: int | None
    size: int
    checks: Mapping[str, object] = field(default_factory=dict[str, object])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--yes", action="store_true", help="keep all of them, without asking")
    parser.add_argument(
        "--schedule",
        metavar="CRON",
        help="also write a schedule for those that ran, for example '0 6 * * 1-5'",
    )
    parser.epilog = "Exit code: 1 if a notebook did not run. What the others show is kept."


def run(arguments: argparse.Namespace) -> int:
    """Run, list, ask, write."""
    from research_jobs.manifest.load import load_manifest
    from research_jobs.supervisor.run import run_notebook

    project = find_project(arguments.project)
    found = scan(project)
    manifest = load_manifest(project, [notebook.name for notebook in found.notebooks])
    if manifest.unreadable is not None:
        raise manifest.unreadable.error
    text = project.manifest.read_bytes().decode() if project.manifest.exists() else ""
    broken = {problem.name for problem in manifest.problems if problem.scope == "notebook"}
    candidates: list[_Candidate] = []
    ran: list[str] = []
    failed = 0
    for notebook in found.notebooks:
        if notebook.name in manifest.notebooks or notebook.name in broken:
            continue
        try:
            names = shown_names(Path(notebook.path))
            with _silence():
                values = run_notebook(notebook.name, names, project=project)
        except ResearchJobsError as error:
            complain(f"{notebook.name}: {error.headline}")
            failed += 1
            continue
        ran.append(notebook.name)
        complain(f"{notebook.name} ran")
        described = (_describe(notebook.name, *pair) for pair in zip(names, values, strict=True))
        candidates += [one for one in described if one is not None]
    chosen = _choose(candidates, everything=arguments.yes)
    outputs: dict[str, dict[str, Mapping[str, object]]] = {}
    for one in chosen:
        outputs.setdefault(one.notebook, {})[one.name] = one.checks
    after = with_outputs(text, outputs) if outputs else text
    scheduled = ran if arguments.schedule and (outputs or arguments.yes) else []
    if scheduled:
        after = with_schedule(after, arguments.schedule, scheduled)
    if after != text:
        project.manifest.write_bytes(after.encode())
        schedule = f", a schedule for {len(scheduled)} notebooks" if scheduled else ""
        print(f"Written to {project.display(project.manifest)}: {len(chosen)} outputs{schedule}")
    return 1 if failed else 0


@contextmanager
def _silence() -> Generator[None]:
    """What notebooks print is not shown: the list is what to read."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with Path(os.devnull).open("wb") as nowhere:
        try:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            for descriptor, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)


def shown_names(path: Path) -> list[str]:
    """The variables that are the last line of a cell, as they are, a peek at them, or displayed."""
    text = read_notebook_text(path)
    body = parse_source(text).body
    shown: dict[str, None] = {}
    for cell in text.cells:
        inside = [one for one in body if cell.first_line <= one.lineno <= cell.last_line]
        if inside and isinstance(inside[-1], ast.Expr):
            name = _shown(inside[-1].value)
            if name is not None:
                shown[name] = None
    return list(shown)


def _shown(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in _PEEKS:
            node = node.func.value
        elif isinstance(node.func, ast.Name) and node.func.id == "display" and node.args:
            node = node.args[-1]
    return node.id if isinstance(node, ast.Name) and not node.id.startswith("_") else None


def _describe(notebook: str, name: str, value: Any) -> _Candidate | None:
    kind = type(value)
    if kind.__module__.partition(".")[0] in ("pandas", "polars", "pyarrow"):
        if kind.__name__ not in _TABLES:
            return None
        what = "series" if kind.__name__ == "Series" else "table"
        return _Candidate(notebook, name, what, len(value), _bytes(value), _checks(value))
    if isinstance(value, dict):
        return _Candidate(notebook, name, "dict", len(value), sys.getsizeof(value))
    if isinstance(value, _SCALARS) or (
        kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0
    ):
        return _Candidate(notebook, name, "scalar", None, sys.getsizeof(value))
    return None


def _checks(table: Any) -> dict[str, object]:
    """What holds today and is likely meant: rows, columns, no gaps, a key in front."""
    if not len(table):
        return {}
    checks: dict[str, object] = {"min_rows": 1}
    names: list[Any] = list(getattr(table, "columns", ()))
    pandas = type(table).__module__.startswith("pandas")
    if not pandas or not names or not all(isinstance(one, str) for one in names):
        return checks
    if len(set(names)) == len(names):
        checks["columns"] = names
        checks["not_null"] = [one for one in names if table[one].notna().all()]
        if table[names[0]].dtype.kind not in "fc" and table[names[0]].is_unique and len(table) > 1:
            checks["unique"] = names[:1]
    return {name: value for name, value in checks.items() if value}


def _bytes(table: Any) -> int:
    if hasattr(table, "memory_usage"):
        used = table.memory_usage(deep=True)
        return int(used.sum() if hasattr(used, "sum") else used)
    return int(table.estimated_size() if hasattr(table, "estimated_size") else table.nbytes)


def _choose(candidates: list[_Candidate], *, everything: bool) -> list[_Candidate]:
    if not candidates:
        print("No notebook that the manifest does not name shows a table, series, dict or scalar.")
        return []
    rows = [
        (str(n), one.notebook, one.name, one.kind, str(one.rows or ""), readable_size(one.size))
        for n, one in enumerate(candidates, 1)
    ]
    print_table(("", "notebook", "variable", "what", "rows", "size"), rows, right=("rows", "size"))
    if everything:
        return candidates
    if not (is_terminal() and sys.stdin.isatty()):
        print("Nothing was written: pass --yes to keep all of them.")
        return []
    answer = input("Keep which? Numbers, Enter for all, n for none: ").strip().lower()
    if not answer:
        return candidates
    wanted = {int(number) for number in re.findall(r"\d+", answer)}
    return [one for n, one in enumerate(candidates, 1) if n in wanted]


def with_outputs(text: str, outputs: Mapping[str, Mapping[str, Mapping[str, object]]]) -> str:
    """The manifest's text with entries for notebooks that it does not have; the rest stays.

    Parameters
    ----------
    text : str
    outputs : mapping
        Notebook to output to its checks.

    Raises
    ------
    ManifestError
        When `notebooks` is written in a form that lines cannot be added to.
    """
    added: list[str] = []
    for notebook, names in outputs.items():
        added.append(f"{notebook}:")
        if any(names.values()):
            added.append("  outputs:")
            added += [f"    {name}: {_flow(checks)}" for name, checks in names.items()]
        else:
            added.append(f"  outputs: [{', '.join(names)}]")
    return _with_lines(text, "notebooks", added)


def with_schedule(text: str, cron: str, notebooks: Sequence[str]) -> str:
    """The manifest's text with one more schedule; for errors see `with_outputs`."""
    taken = re.findall(r"^ +adopted_(\d+):", text, re.MULTILINE)
    number = max(map(int, taken), default=0) + 1
    lines = [f"adopted_{number}:", f"  cron: {json.dumps(cron)}", "  notebooks:"]
    return _with_lines(text, "schedules", [*lines, *(f"    - {name}" for name in notebooks)])


def _with_lines(text: str, key: str, added: Sequence[str]) -> str:
    """A text with lines below one of its keys, indented as those that are there."""
    lines = text.splitlines()
    at = next((n for n, line in enumerate(lines) if re.match(rf"{key}\s*:", line)), None)
    indent = "  "
    if at is None:
        lines += ["", f"{key}:"] if lines else [f"{key}:"]
        at = len(lines) - 1
    elif re.match(rf"{key}\s*:\s*\{{\s*\}}\s*(#.*)?$", lines[at]):
        lines[at] = re.sub(r"\s*\{\s*\}", "", lines[at])
    elif not re.match(rf"{key}\s*:\s*(#.*)?$", lines[at]):
        raise ManifestError(
            f"{key}: is written in one line, so none can be added",
            hint=f"Write one of the {key} a line.",
        )
    else:
        below = (re.match(r"( +)[^\s#]", line) for line in lines[at + 1 :])
        indent = next((match[1] for match in below if match), indent)
    lines[at + 1 : at + 1] = [f"{indent}{line}" for line in added]
    end = "\r\n" if "\r\n" in text else "\n"
    return end.join(lines) + end


def _flow(checks: Mapping[str, object]) -> str:
    import yaml

    return yaml.safe_dump(
        dict(checks), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    ).strip()
