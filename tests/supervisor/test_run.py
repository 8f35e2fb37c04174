"""`run_notebook()` from ordinary programs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest
from lab import marked, wait_until

from research_jobs import run_notebook
from research_jobs.errors import (
    ManifestError,
    NotebookNotFoundError,
    ParameterError,
    PartitionError,
    ProjectError,
    RunError,
)

BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a notebook in a folder, and helpers."""

    def write(name: str, text: str) -> None:
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())

    write(
        "volatility/garch.py",
        """
        # %% Imports
        from dataclasses import dataclass
        from enum import Enum

        import pandas as pd

        import shared
        from shared import Curve

        # %% tags=["parameters"]
        lookback = 3

        # %% Model
        class Side(Enum):
            BUY = 1


        @dataclass
        class Model:
            lookback: int

            def frame(self):
                return shared.frame(self.lookback)

            def side(self):
                return Side.BUY


        model = Model(lookback)
        frame = model.frame()
        curve = Curve([1, 2])
        numbers = [1, 2.5, "three", None]
        side = Side.BUY


        def double(x):
            return shared.FACTOR * x
        """,
    )
    write(
        "shared.py",
        """
        import pandas as pd

        FACTOR = 2


        def frame(n):
            return pd.DataFrame({"a": range(n)})


        class Curve:
            def __init__(self, points):
                self.points = points

            def total(self):
                return FACTOR * sum(self.points)
        """,
    )
    write("fails.py", "# %% Fine\nx = 1\n# %% Load prices\ndict(a=1)['Close']\n")
    write("unpicklable.py", "# %% Lock\nimport threading\nlock = threading.Lock()\ngood = 1\n")
    write("skips.py", "# %% Skip\nx = 1\nfrom research_jobs import skip\nskip('closed')\n")
    return tmp_path


@BOTH
def test_values_in_order(project: Path, isolation: str) -> None:
    """Values come in the order asked for, None for what is not defined."""
    frame, nothing, numbers = run_notebook(
        "volatility/garch",
        ["frame", "not_there", "numbers"],
        project=project,
        isolation=isolation,  # type: ignore[arg-type]
    )
    assert frame.to_dict("list") == {"a": [0, 1, 2]}
    assert nothing is None
    assert numbers == [1, 2.5, "three", None]


@BOTH
def test_instances_of_the_projects_classes(project: Path, isolation: str) -> None:
    """Instances of classes of the notebook and of its helpers work in the caller."""
    model, curve, side, double = run_notebook(
        "volatility.garch",
        ["model", "curve", "side", "double"],
        project=project,
        isolation=isolation,  # type: ignore[arg-type]
    )
    assert model.lookback == 3
    assert repr(model) == "Model(lookback=3)"
    assert model.frame().shape == (3, 1)
    assert curve.total() == 6
    assert side.name == "BUY"
    assert model.side() is side
    assert double(4) == 8


def test_nothing_stays(project: Path) -> None:
    """Nothing of the notebook is in our modules, path, environment or working directory."""
    run_notebook("volatility/garch", project=project)
    before = set(sys.modules), list(sys.path), dict(os.environ), Path.cwd()
    run_notebook("volatility/garch", ["model", "curve"], project=project)
    after = set(sys.modules), list(sys.path), dict(os.environ), Path.cwd()
    new = after[0] - before[0]
    assert not [name for name in new if "garch" in name or "shared" in name or "volat" in name]
    assert after[1:] == before[1:]


def test_sees_the_edit(project: Path) -> None:
    """A second call sees the notebook and its helpers as they are then."""
    path, shared = (project / "notebooks" / name for name in ("volatility/garch.py", "shared.py"))
    assert run_notebook("volatility/garch", ["lookback"], project=project) == [3]
    path.write_text(path.read_text().replace("lookback = 3", "lookback = 4"))
    shared.write_text(shared.read_text().replace("FACTOR = 2", "FACTOR = 20"))
    lookback, curve = run_notebook("volatility/garch", ["lookback", "curve"], project=project)
    assert (lookback, curve.total()) == (4, 60)


def test_error_has_the_place_first(project: Path) -> None:
    """A notebook that raises gives its own place and traceback."""
    with pytest.raises(RunError) as caught:
        run_notebook("fails", project=project)
    lines = str(caught.value).splitlines()
    assert lines[0] == "notebooks/fails.py:4, cell 2 \"Load prices\": KeyError: 'Close'"
    assert lines[1] == "Traceback (most recent call last):"
    assert "KeyError: 'Close'" in lines
    assert "->" in str(caught.value)
    assert "research_jobs/" not in str(caught.value)
    assert caught.value.ending == "failed"


def test_unknown_notebook(project: Path) -> None:
    """A notebook that is not there: the error lists close names."""
    with pytest.raises(NotebookNotFoundError, match="volatility/garch"):
        run_notebook("volatility/garhc", project=project)


def test_value_that_cannot_travel(project: Path) -> None:
    """A value that does not pickle is named with its type."""
    with pytest.raises(RunError, match=r"result 'lock' of type _thread\.lock cannot be pickled"):
        run_notebook("unpicklable", ["good", "lock"], project=project)


def test_parameters(project: Path) -> None:
    """Parameters replace the cell's values; an unknown one is refused before anything runs."""
    assert run_notebook(
        "volatility/garch", ["lookback"], parameters={"lookback": "7"}, project=project
    ) == [7]
    with pytest.raises(ParameterError, match="lookback"):
        run_notebook("volatility/garch", parameters={"lookbak": 1}, project=project)


def test_partition(project: Path) -> None:
    """A partition sets its parameter; one that is none is refused before anything runs."""
    (project / "notebooks" / "signals.py").write_text(
        '# %% tags=["parameters"]\nfrom datetime import date\nrun_date = date(2018, 1, 2)\n'
        "# %% Look\nfrom research_jobs import context\nkey = context().partition_key\n"
    )
    (project / "notebooks" / "manifest.yaml").write_text(
        "notebooks:\n  signals:\n"
        "    partitions: {by: day, start: 2018-01-02, parameter: run_date}\n"
    )
    wanted = ["run_date", "key"]
    found = run_notebook("signals", wanted, partition="2018-11-01", project=project)
    assert found == [date(2018, 11, 1), "2018-11-01"]
    assert run_notebook("signals", wanted, project=project) == [date(2018, 1, 2), None]
    with pytest.raises(PartitionError, match="no partitions"):
        run_notebook("fails", partition="2018-11-01", project=project)


MIXED = """
# %% tags=["parameters"]
b = "cell"
c = "cell"
region = "cell"
when = "cell"
token = ""
size = 1
# %% Look
from research_jobs import context

given = [b, c, region, when, size, token, dict(context().partition)]
"""


def test_what_sets_a_parameter(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call goes before the partition, that before the manifest, that before the notebook.

    Keys of two dimensions are in the order of their names, and a variant is one of them.
    """
    for name in ("mixed", "grid"):
        (project / "notebooks" / f"{name}.py").write_text(MIXED)
    (project / "notebooks" / "manifest.yaml").write_text(
        "notebooks:\n"
        "  mixed:\n"
        "    parameters: {c: manifest, when: manifest, size: 2, token: {secret: THE_TOKEN}}\n"
        "    partitions: {by: day, start: 2018-01-02, parameter: when}\n"
        "    variants: {eu: {region: EU, size: 3}, us: {region: US}}\n"
        "  grid:\n"
        "    partitions:\n"
        "      dimensions: {region: {values: [EU]}, when: {by: day, start: 2018-01-02}}\n"
    )
    token = "from-the-environment"
    monkeypatch.setenv("THE_TOKEN", token)

    def call(name: str, partition: str | None = None, **parameters: object) -> object:
        return run_notebook(
            name, "given", parameters=parameters, partition=partition, project=project
        )[0]

    day, key = "2018-11-01", {"variant": "eu", "when": "2018-11-01"}
    assert call("mixed") == ["cell", "manifest", "cell", "manifest", 2, token, {}]
    assert call("mixed", f"eu|{day}") == ["cell", "manifest", "EU", day, 3, token, key]
    found = call("mixed", f"eu|{day}", size=4, when="call")
    assert found == ["cell", "manifest", "EU", "call", 4, token, key]
    key = {"region": "EU", "when": day}
    assert call("grid", f"EU|{day}") == ["cell", "cell", "EU", day, 1, "", key]
    with pytest.raises(PartitionError, match=r"Write it as <variant>\|<when>\."):
        call("mixed", day)
    with pytest.raises(PartitionError, match="It has no partitions"):
        call("skips", day)
    with pytest.raises(ParameterError, match="'token' is secret"):
        call("mixed", token="call")


def test_how_the_manifest_has_it_run(project: Path) -> None:
    """Isolation and interpreter are the manifest's, unless the call says otherwise."""
    (project / "notebooks" / "looks.py").write_text(
        "# %% Look\nimport os, sys\npython = sys.executable\n"
        "stat = open(f'/proc/{os.getppid()}/stat').read()\n"
        "starter = int(stat.rpartition(')')[2].split()[1])\n"
    )
    python = project / "python"
    python.symlink_to(sys.executable)
    manifest = project / "notebooks" / "manifest.yaml"
    manifest.write_text("notebooks:\n  looks: {isolation: spawn, python: ./python}\n")
    wanted = ["python", "starter"]
    assert run_notebook("looks", wanted, project=project) == [str(python), os.getpid()]
    manifest.write_text("notebooks:\n  looks: {isolation: spawn}\n")
    assert run_notebook("looks", "starter", project=project) == [os.getpid()]
    assert run_notebook("looks", "starter", project=project, isolation="fork") != [os.getpid()]


def test_broken_manifest(project: Path) -> None:
    """A mistake in the notebook's entry is reported with its place, until it is mended."""
    manifest = project / "notebooks" / "manifest.yaml"
    manifest.write_text("notebooks:\n  volatility/garch: {timeoot: 3}\n")
    with pytest.raises(ManifestError, match=r"manifest.yaml:2:\d+.*timeout"):
        run_notebook("volatility/garch", project=project)
    manifest.write_text("notebooks:\n  volatility/garch: {timeout: 60, after: fails}\n")
    assert run_notebook("volatility/garch", ["lookback"], project=project) == [3]


def test_skipped(project: Path) -> None:
    """A run that skips itself is no error, and hands nothing over."""
    assert run_notebook("skips", ["x"], project=project) == [None]


def test_timeout(project: Path) -> None:
    """A timeout is an error that says so."""
    (project / "notebooks" / "sleeps.py").write_text("# %% Sleep\nimport time\ntime.sleep(600)\n")
    with pytest.raises(RunError, match=r"sleeps.py:3.*timed out after 0\.3 s") as caught:
        run_notebook("sleeps", timeout=0.3, project=project)
    assert caught.value.ending == "timed_out"


def test_project_by_environment_and_by_folder(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works from any folder by RESEARCH_JOBS_PROJECT, and from below the project without."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT", raising=False)
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ProjectError):
        run_notebook("volatility/garch", project=None)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(project))
    assert run_notebook("volatility/garch", ["lookback"]) == [3]
    monkeypatch.delenv("RESEARCH_JOBS_PROJECT")
    monkeypatch.chdir(project / "notebooks" / "volatility")
    assert run_notebook("volatility/garch", ["lookback"]) == [3]


def test_from_threads(project: Path) -> None:
    """Calls from many threads do not mix."""
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(
                run_notebook,
                "volatility/garch",
                ["lookback", "frame"],
                parameters={"lookback": n},
                project=project,
            )
            for n in range(8)
        ]
        for n, call in enumerate(calls):
            lookback, frame = call.result()
            assert (lookback, len(frame)) == (n, n)


def test_inside_a_running_loop(project: Path) -> None:
    """It works where an asyncio loop runs, as in a Jupyter cell."""

    async def call() -> list[object]:
        return run_notebook("volatility/garch", ["lookback"], project=project)

    assert asyncio.run(call()) == [3]


def test_inside_a_dagster_op(project: Path) -> None:
    """An op of another deployment can call it; the notebook's output is in that op's logs."""
    import dagster as dg

    notebook = project / "notebooks" / "prints.py"
    notebook.write_text("# %% Print\nprint('out of the notebook')\nvalue = 5\n")

    @dg.op
    def take() -> int:
        return run_notebook("prints", ["value"], project=project)[0]

    @dg.job
    def job() -> None:
        take()

    with dg.DagsterInstance.local_temp() as instance:
        result = job.execute_in_process(instance=instance)
        assert result.output_for_node("take") == 5


SCRIPT = """
import os, sys
from research_jobs import run_notebook
print(run_notebook("volatility/garch", ["lookback"]))
if sys.argv[1] == "fork":
    child = os.fork()
    if child == 0:
        print(run_notebook("volatility/garch", ["lookback"]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(run_notebook("volatility/garch", ["lookback"]))
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("ending", ["plain", "fork", "killed"])
def test_bare_script(project: Path, tmp_path: Path, ending: str) -> None:
    """A bare script leaves no process and no warning behind, however it ends; forks included."""
    marker = f"script-{ending}-{os.getpid()}"
    environment = os.environ | {
        "RESEARCH_JOBS_PROJECT": str(project),
        "RESEARCH_JOBS_TEST_MARKER": marker,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, ending],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == (-9 if ending == "killed" else 0)
    assert done.stderr == ""
    if ending != "killed":
        assert done.stdout.splitlines() == ["[3]"] * (3 if ending == "fork" else 1)
    wait_until(lambda: not marked(marker, spares=True), 2.0)


CLOSED = """
import sys
from pathlib import Path
from research_jobs import run_notebook
Path(sys.argv[1]).write_text(repr(run_notebook("prints", ["x"], isolation=sys.argv[2])))
"""


@BOTH
def test_caller_without_streams(project: Path, tmp_path: Path, isolation: str) -> None:
    """Where the caller's stdout and stderr are closed, output goes nowhere and values come."""
    (project / "notebooks" / "prints.py").write_text(
        "# %% Print\nimport sys\nprint('out', flush=True)\nprint('err', file=sys.stderr)\nx = 5\n"
    )
    result = tmp_path / "result"
    script = 'exec "$@" >&- 2>&-'
    subprocess.run(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-c", CLOSED, str(result), isolation],
        env=os.environ | {"RESEARCH_JOBS_PROJECT": str(project)},
        timeout=60,
        check=False,
    )
    assert result.read_text() == "[5]"


def test_interrupted_caller(project: Path) -> None:
    """Ctrl-C in the caller ends the run and leaves nothing."""
    (project / "notebooks" / "sleeps.py").write_text(
        "# %% Sleep\nimport time\nopen('asleep', 'w').close()\ntime.sleep(600)\n"
    )
    marker = f"interrupted-{os.getpid()}"
    script = "from research_jobs import run_notebook; run_notebook('sleeps')"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=project,
        env=os.environ | {"RESEARCH_JOBS_TEST_MARKER": marker},
        stderr=subprocess.PIPE,
    )
    wait_until((project / "notebooks" / "asleep").exists, 100)
    process.send_signal(2)
    _out, error = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in error
    wait_until(lambda: not marked(marker, spares=True), 2.0)


def test_many_values_and_large_ones(project: Path) -> None:
    """A large value arrives whole, and no thread or descriptor is left behind."""
    (project / "notebooks" / "large.py").write_text(
        "# %% Large\nimport numpy as np\nblock = np.arange(8_000_000)\n"
    )
    run_notebook("large", ["block"], project=project)
    before = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    (block,) = run_notebook("large", ["block"], project=project)
    assert block[-1] == 7_999_999
    assert (len(list(Path("/proc/self/fd").iterdir())), threading.active_count()) == before
