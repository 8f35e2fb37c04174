"""Run notebooks that nobody here wrote: as a script, as a run, and in a real kernel.

Run it as ``python -m benchmarks.galleries FOLDER...`` with folders of sphinx-gallery's scripts, for
which the source distributions of matplotlib (``galleries/``) and scikit-learn (``examples/``) are
good. Scripts that want the network or a screen are left out. The others run three ways::

    python file.py      figures are those that pyplot made
    a run               figures are the pictures in its capture file
    a Jupyter kernel    the same cells by nbclient; figures are the pictures in its outputs

The kernel is what the editor's interactive window runs, so it says what parity is. The table goes
into ``docs/parity.md`` with ``--write``; results are kept as JSON lines: an interrupted study
goes on where it was. What the scripts import beside pandas, matplotlib and scikit-learn
(scikit-image, colorspacious) can be put on ``PYTHONPATH``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.table import Table, machine
from research_jobs.manifest import load_manifest
from research_jobs.notebook.cells import CellKind, has_marker, read_notebook_text
from research_jobs.notebook.scan import scan
from research_jobs.project import find_project
from research_jobs.report.record import Output, read_capture
from research_jobs.supervisor.request import build_request
from research_jobs.supervisor.run import Supervisor

GUARDED = re.compile(r"^if __name__ == ['\"]__main__['\"]:", re.MULTILINE)
ONLINE = re.compile(
    r"\bfetch_(?:openml|olivetti|20newsgroups|california|lfw|species|covtype|kddcup|rcv1|file)"
    r"|urlopen|urlretrieve|requests\.get|https?://[^\s]*\.(?:csv|zip|gz|parquet)\b|get_sample_data"
)
SCREEN = re.compile(
    r"import (?:gi|wx|tkinter|pygame|pyglet)\b|from (?:gi|wx|tkinter)\b"
    r"|backend_(?:qt|gtk|wx|tk|web)|matplotlib\.use\(|ginput|waitforbuttonpress|PyQt|PySide"
)
PRELOAD = ("numpy", "matplotlib.pyplot", "scipy", "sklearn", "pandas")
LIBRARIES = ("matplotlib", "scikit-learn", "numpy", "scipy", "pandas", "ipython", "ipykernel")
PICTURES = ("image/png", "image/svg+xml", "image/jpeg")

PLAIN = """\
import json, runpy, sys
import matplotlib._pylab_helpers as helpers
made = []
first = helpers.Gcf._set_new_active_manager.__func__
def count(cls, manager):
    if not any(seen is manager for seen in made):
        made.append(manager)
    return first(cls, manager)
helpers.Gcf._set_new_active_manager = classmethod(count)
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
finally:
    print("\\n#figures", len(made))
"""

KERNEL = """\
import json, sys
import nbclient, nbformat
notebook = nbformat.v4.new_notebook()
for kind, source in json.load(open(sys.argv[1])):
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    notebook.cells.append(make(source))
try:
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute(cwd=sys.argv[2])
finally:
    found = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "data" in o]
    print("\\n#figures", sum(any(m.startswith("image/") for m in o["data"]) for o in found))
"""


@dataclass
class Outcome:
    """One script, three ways.

    Parameters
    ----------
    library, script : str
    plain, run, kernel : int or None
        Figures; None where it failed.
    why : str
        The last line of the first failure.
    """

    library: str
    script: str
    plain: int | None = None
    run: int | None = None
    kernel: int | None = None
    why: str = ""
    guarded: bool = False
    """Whether it holds an ``if __name__ == "__main__"``."""


def candidates(
    folders: Iterable[Path], left_out: Counter[tuple[str, str]]
) -> Iterator[tuple[str, Path]]:
    """Scripts that can run without a network and a screen, in an order of no meaning."""
    found: list[tuple[str, Path]] = []
    for folder in folders:
        library = folder.resolve().parent.name.partition("-")[0]
        for path in folder.rglob("*.py"):
            text = path.read_text(errors="replace")
            if not has_marker(text):
                left_out[library, "marker"] += 1
            elif ONLINE.search(text):
                left_out[library, "online"] += 1
            elif SCREEN.search(text):
                left_out[library, "screen"] += 1
            else:
                found.append((library, path))
    yield from sorted(found, key=lambda item: hashlib.sha256(item[1].name.encode()).hexdigest())


class Study:
    """Runs scripts in a project made for them.

    Parameters
    ----------
    root : Path
        The project's folder.
    timeout_s : float
        For each way of each script.
    """

    def __init__(self, root: Path, timeout_s: float) -> None:
        (root / "notebooks").mkdir(parents=True)
        self.project = find_project(root)
        self.timeout_s = timeout_s
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if name not in ("MPLBACKEND", "DISPLAY", "PLOTLY_RENDERER")
        }
        # Nothing may be fetched, whether or not this machine could.
        self.environment |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        self.environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def run(self, supervisor: Supervisor, library: str, path: Path) -> Outcome:
        """One script, three ways."""
        guarded = bool(GUARDED.search(path.read_text(errors="replace")))
        outcome = Outcome(library, path.name, guarded=guarded)
        with tempfile.TemporaryDirectory() as scratch:
            for way in ("plain", "kernel"):
                folder = Path(scratch) / way
                # Some read files beside them.
                shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns("*.pyc"))
            outcome.plain, why = self._plain(Path(scratch) / "plain" / path.name)
            outcome.kernel, kernel_why = self._kernel(Path(scratch) / "kernel" / path.name)
            outcome.run, run_why = self._ours(supervisor, path, Path(scratch))
        outcome.why = run_why or why or kernel_why
        return outcome

    def _command(
        self, code: str, *arguments: str, cwd: Path, backend: str
    ) -> tuple[int | None, str]:
        environment = self.environment | ({"MPLBACKEND": backend} if backend else {})
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code, *arguments],
                cwd=cwd,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, f"longer than {self.timeout_s:.0f} s"
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return None, _plain_line(lines[-1] if lines else f"exit code {done.returncode}")
        return int(done.stdout.rsplit("#figures", 1)[1]), ""

    def _plain(self, path: Path) -> tuple[int | None, str]:
        return self._command(PLAIN, str(path), cwd=path.parent, backend="agg")

    def _kernel(self, path: Path) -> tuple[int | None, str]:
        cells = [
            (cell.kind.value, cell.source)
            for cell in read_notebook_text(path).cells
            if cell.kind is CellKind.CODE
        ]
        # The docstring is a cell of prose; a kernel has no __doc__ of the file either way.
        script = path.with_suffix(".cells.json")
        script.write_text(json.dumps(cells))
        return self._command(KERNEL, str(script), str(path.parent), cwd=path.parent, backend="")

    def _ours(self, supervisor: Supervisor, path: Path, scratch: Path) -> tuple[int | None, str]:
        place = self.project.notebooks / f"n{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        shutil.copytree(path.parent, place, ignore=shutil.ignore_patterns("*.py", "*.pyc"))
        for helper in path.parent.glob("*.py"):
            if not has_marker(helper.read_text(errors="replace")):
                shutil.copy(helper, place)
        # One whose name no import could say is refused, and told so: give it another.
        name = re.sub(r"^(?=\d)", "nb_", re.sub(r"\W", "_", path.stem))
        shutil.copy(path, place / f"{name}.py")
        try:
            with _scan_lock:
                notebook = scan(self.project, use_cache=False).get(f"{place.name}/{name}")
                manifest = load_manifest(self.project, [notebook.name])
            request = build_request(
                self.project,
                notebook,
                manifest.spec(notebook.name),
                manifest,
                run_id="study",
                staging=None,
                capture_path=str(scratch / "capture.jsonl"),
            )
            log = os.open(scratch / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            timer = replace(request, timeout_s=self.timeout_s, environment=self.environment)
            result = supervisor.run(timer, stdout=log, stderr=log)
            os.close(log)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if not result.state.ok:
            failure = result.failure.headline if result.failure else str(result.state)
            return None, _plain_line(failure.partition(": ")[2] or failure)
        shown = [
            item
            for cell in read_capture(scratch / "capture.jsonl").cells
            for item in cell.shown
            if isinstance(item, Output) and any(mime in item.data for mime in PICTURES)
        ]
        return len(shown), ""


_scan_lock = threading.Lock()


def _plain_line(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()[:160]


def tables(outcomes: list[Outcome], left_out: Counter[tuple[str, str]]) -> list[Table]:
    """What came of it: in sum, and every script whose three ways differ."""
    choice = Table(
        "Which scripts",
        ["gallery", "percent scripts", "need the network", "need a screen", "run here"],
    )
    for library in sorted({outcome.library for outcome in outcomes}):
        online, screen = left_out[library, "online"], left_out[library, "screen"]
        whole = online + screen + left_out[library, "offline"]
        choice.add(
            library, whole, online, screen, sum(item.library == library for item in outcomes)
        )
    summary = Table(
        "Totals",
        [
            "gallery",
            "scripts",
            "script succeeds",
            "run",
            "kernel",
            "figures: script",
            "run",
            "kernel",
        ],
    )
    for library in sorted({outcome.library for outcome in outcomes}):
        of = [outcome for outcome in outcomes if outcome.library == library]
        summary.add(
            library,
            len(of),
            *(
                sum(getattr(item, way) is not None for item in of)
                for way in ("plain", "run", "kernel")
            ),
            *(sum(getattr(item, way) or 0 for item in of) for way in ("plain", "run", "kernel")),
        )
    differing = Table(
        "Scripts with different results",
        ["script", "figures: script", "run", "kernel", "why"],
        notes=["`-` is a failure."],
    )
    for outcome in sorted(outcomes, key=lambda item: (item.library, item.script)):
        ways = (outcome.plain, outcome.run, outcome.kernel)
        if len(set(ways)) > 1:
            shown = ("-" if way is None else way for way in ways)
            differing.add(f"{outcome.library}: {outcome.script}", *shown, explain(outcome))
    failing = Table("Scripts that fail in all three ways", ["script", "error"])
    for outcome in outcomes:
        if outcome.plain is outcome.run is outcome.kernel is None:
            failing.add(f"{outcome.library}: {outcome.script}", outcome.why.replace("|", "\\|"))
    return [choice, summary, differing, failing]


def explain(outcome: Outcome) -> str:
    """Why the ways differ, where the numbers say it."""
    plain, run, kernel = outcome.plain, outcome.run, outcome.kernel
    if plain is None or run is None or kernel is None:
        why = outcome.why.replace("|", "\\|")
        if run is kernel is None:
            return f"fails in the editor too: {why}"
        return f"not run, being below the guard; elsewhere: {why}" if outcome.guarded else why
    if run == kernel:
        if plain > run:
            return "without axes, or wants LaTeX: not shown, nor by the editor"
        return "several cells draw into it; shown and closed with each, as in the editor"
    if outcome.guarded and run < kernel:
        return "below `if __name__ == '__main__'`, which is false in an import"
    return "run and kernel differ"


def main() -> None:
    """Run the study, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--limit", type=int, default=160, help="scripts of each gallery (160)")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for each way (60)")
    parser.add_argument("--kept", type=Path, help="file of JSON lines to go on from")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/parity.md")
    arguments = parser.parse_args()
    kept = arguments.kept or Path(tempfile.gettempdir()) / "galleries.jsonl"
    outcomes = (
        [Outcome(**json.loads(line)) for line in kept.read_text().splitlines()]
        if kept.exists()
        else []
    )
    done = {(outcome.library, outcome.script) for outcome in outcomes}
    counts: Counter[str] = Counter()
    left_out: Counter[tuple[str, str]] = Counter()
    todo: list[tuple[str, Path]] = []
    for library, path in candidates(arguments.folders, left_out):
        counts[library] += 1
        left_out[library, "offline"] += 1
        if counts[library] <= arguments.limit and (library, path.name) not in done:
            todo.append((library, path))
    print(f"{dict(counts)} candidates, {len(outcomes)} kept, {len(todo)} to run", flush=True)
    begun = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as root,
        Supervisor(preload=PRELOAD) as supervisor,
        ThreadPoolExecutor(arguments.jobs) as pool,
        kept.open("a") as file,
    ):
        study = Study(Path(root) / "project", arguments.timeout)
        for future in as_completed([pool.submit(study.run, supervisor, *item) for item in todo]):
            outcome = future.result()
            outcomes.append(outcome)
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            print(
                outcome.library,
                outcome.script,
                outcome.plain,
                outcome.run,
                outcome.kernel,
                outcome.why,
                flush=True,
            )
    text = "\n".join(table.text() for table in tables(outcomes, left_out))
    print(f"\n{machine()}\n\n{text}\n({time.monotonic() - begun:.0f} s)")
    if arguments.write:
        page = Path(__file__).resolve().parents[1] / "docs" / "parity.md"
        head = (
            page.read_text().partition("<!-- measured -->")[0] if page.exists() else "# Parity\n\n"
        )
        versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
        page.write_text(
            f"{head.rstrip()}\n\n<!-- measured -->\n\n"
            f"Python {platform.python_version()}, {versions}.\n\n{text}"
        )


if __name__ == "__main__":
    main()
