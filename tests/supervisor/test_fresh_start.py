"""A forked run starts from what a cold start gives: proved part by part."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab

from research_jobs.outcome import State
from research_jobs.supervisor.run import Supervisor

PARTS = [
    "standard descriptors",
    "private descriptors",
    "inheritable",
    "stdin",
    "stdin object",
    "streams",
    "signals",
    "mask",
    "kernel's signals",
    "timers",
    "main",
    "environment",
    "directory",
    "argv",
    "path",
    "umask",
    "threads",
    "main thread",
    "locale",
    "filters",
    "warnings shown once",
    "warnings shown",
    "warnings' display",
    "logging",
    "decimal",
    "numpy's settings",
    "pandas' options",
    "matplotlib's settings",
    "figures",
    "error handlers",
    "start of processes",
    "thread hook",
    "numbers of threads",
    "collector's callbacks",
    "importers",
    "type of the environment",
    "root handlers",
    "root level",
    "gc",
    "session leader",
    "nice",
    "limits",
    "flags",
    "temporary folder",
    "zone",
    "recursion",
    "switch interval",
    "hooks",
    "event loop",
    "name",
    "project's modules",
    "wakeup",
]


def describe(lab: Lab, isolation: str, **fields: Any) -> dict[str, Any]:
    """What a fresh process says of itself."""
    file = lab.root / "description.json"
    file.unlink(missing_ok=True)
    outcome = lab.run(
        "describes_its_process",
        isolation=isolation,
        environment={"DESCRIPTION": str(file)},
        **fields,
    )
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert outcome.result.isolation == isolation
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def descriptions(
    tmp_path_factory: pytest.TempPathFactory, shared_supervisor: Supervisor
) -> Iterator[dict[str, dict[str, Any]]]:
    """Two forked processes and two cold ones, from a parent whose own state is unusual."""
    lab = Lab(tmp_path_factory.mktemp("fresh"), shared_supervisor)
    lab.add("describes_its_process")
    with pytest.MonkeyPatch.context() as patch:
        shared_supervisor.warm(lab.root)
        # What the parent does after the template was started must come through, or must not.
        patch.setenv("SET_AFTER_THE_TEMPLATE_STARTED", "here")
        patch.setenv("TZ", "Asia/Tokyo")
        patch.setenv("TMPDIR", str(lab.root))
        patch.delenv("HOME", raising=False)
        umask = os.umask(0o027)
        tempfile.gettempdir()
        random.seed(1)
        old_pipe = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        old_user = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        handler = logging.StreamHandler()
        logging.getLogger().addHandler(handler)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR2])
        held = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(held, True)
        try:
            yield {
                "fork": describe(lab, "fork"),
                "spawn": describe(lab, "spawn"),
                "fork again": describe(lab, "fork"),
                "spawn again": describe(lab, "spawn"),
            }
        finally:
            os.close(held)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            logging.getLogger().removeHandler(handler)
            signal.signal(signal.SIGPIPE, old_pipe)
            signal.signal(signal.SIGUSR1, old_user)
            os.umask(umask)


@pytest.mark.parametrize("part", PARTS)
def test_forked_as_cold(descriptions: dict[str, dict[str, Any]], part: str) -> None:
    """Each part of a forked process is that of a cold start."""
    assert descriptions["fork"]["same"][part] == descriptions["spawn"]["same"][part]


def test_every_part_is_compared(descriptions: dict[str, dict[str, Any]]) -> None:
    """No part that the notebook describes is left out of the comparison."""
    assert set(descriptions["spawn"]["same"]) == set(PARTS)


@pytest.mark.parametrize(
    "source",
    [
        "random",
        "numpy",
        "default_rng",
        "temporary name",
        "uuid4",
        "uuid1",
        "secrets",
        "key of multiprocessing",
        "pid",
    ],
)
@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_randomness_is_new(
    descriptions: dict[str, dict[str, Any]], source: str, isolation: str
) -> None:
    """Two runs never share what should differ, though the template's state was copied."""
    first = descriptions[isolation]["different"][source]
    assert first != descriptions[f"{isolation} again"]["different"][source]


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_what_a_fresh_process_has(descriptions: dict[str, dict[str, Any]], isolation: str) -> None:
    """What the parts are, beyond being equal."""
    same = descriptions[isolation]["same"]
    program = "import sys; print(sys.stdout.errors)"
    errors_of_python = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert same["standard descriptors"] == [0, 1, 2]
    assert same["private descriptors"] == 3
    assert same["inheritable"] == []
    assert same["stdin"] == "/dev/null"
    assert same["stdin object"] == ["<stdin>", "utf-8", ""]
    assert same["streams"][0] == [
        "<stdout>",
        "utf-8",
        errors_of_python,
        1,
        False,
    ]
    assert same["signals"][str(int(signal.SIGINT))].startswith("<built-in function default_int")
    assert same["signals"][str(int(signal.SIGPIPE))] == "<Handlers.SIG_IGN: 1>"
    assert same["signals"][str(int(signal.SIGTERM))] == "<Handlers.SIG_DFL: 0>"
    assert same["signals"][str(int(signal.SIGUSR1))] == "<Handlers.SIG_DFL: 0>"
    assert same["mask"] == []
    assert same["environment"]["SET_AFTER_THE_TEMPLATE_STARTED"] == "here"
    assert "HOME" not in same["environment"]
    assert same["zone"] == ["JST", "JST"]
    assert same["umask"] == "0027"
    assert Path(same["directory"]).name == "notebooks"
    assert [Path(same["argv"][0]).name] == ["describes_its_process.py"]
    assert same["threads"] == ["MainThread"]
    assert same["session leader"]
    assert same["root handlers"] == []
    assert {"__file__", "__spec__", "json", "os"} <= set(same["main"])
    # The notebook alone, by its own name and as the program that runs.
    assert set(same["project's modules"]) - {"__mp_main__"} == {
        "__main__",
        "describes_its_process",
    }
    assert not any("site-packages/research_jobs" in entry for entry in same["path"])


def test_hash_seed(descriptions: dict[str, dict[str, Any]]) -> None:
    """The hash seed alone is the template's: equal for its runs, new for each cold one."""
    assert descriptions["fork"]["hash"] == descriptions["fork again"]["hash"]
    assert descriptions["spawn"]["hash"] != descriptions["spawn again"]["hash"]


@pytest.mark.parametrize(
    ("settings", "printed"),
    [
        ({"LC_ALL": "C.UTF-8"}, True),
        ({"LC_ALL": "C"}, True),
        ({"LC_ALL": "en_US.UTF-8"}, None),
        ({"PYTHONUTF8": "1"}, True),
        ({"PYTHONIOENCODING": ":strict"}, False),
        ({"PYTHONIOENCODING": ":backslashreplace"}, True),
    ],
)
def test_names_that_are_not_utf8_are_printed_as_python_prints_them(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], printed: bool | None
) -> None:
    """What stdout does with such a name is what plain Python does under the same variables."""
    for name in ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONIOENCODING"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    program = "import os\nprint(os.fsdecode(b'report-\\xff.csv'))\n"
    plain = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert printed in (None, plain.returncode == 0)
    lab.write("prints_a_name", f"# %%\n{program}")
    for isolation in ("fork", "spawn"):
        capture = lab.root / f"{isolation}.jsonl"
        outcome = lab.run("prints_a_name", isolation=isolation, capture_path=str(capture))
        assert outcome.result.state.ok == (plain.returncode == 0)
        assert outcome.stdout == plain.stdout
        capture.read_bytes().decode("utf-8")
        for line in capture.read_text().splitlines():
            json.dumps(json.loads(line), ensure_ascii=False).encode("utf-8")


def test_fixed_hash_seed_is_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHONHASHSEED set after the template started holds in both modes: another one starts."""
    lab.run("adds_up")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    forked, cold = (describe(lab, isolation)["hash"] for isolation in ("fork", "spawn"))
    assert forked == cold


def test_variables_that_are_read_at_start(lab: Lab) -> None:
    """A request that sets such a variable is run cold, and says so."""
    outcome = lab.run("adds_up", environment={"OMP_NUM_THREADS": "3"})
    assert outcome.result.state is State.SUCCEEDED
    assert outcome.result.isolation == "spawn"
    assert any("OMP_NUM_THREADS" in note for note in outcome.result.notes)


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_threads_are_waited_for(lab: Lab, isolation: str) -> None:
    """A notebook's own thread finishes; an idle pool and a daemon thread hold nothing up."""
    outcome = lab.run("leaves_threads", isolation=isolation)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert (lab.notebooks / "late.txt").read_text() == "written"


@pytest.mark.parametrize("isolation", ["fork", "spawn"])
def test_matplotlib_reads_the_notebooks_folder(lab: Lab, isolation: str) -> None:
    """A matplotlibrc beside the notebook, and MPLBACKEND, hold though matplotlib was preloaded."""
    lab.write(
        "plots",
        "# %% Settings\n"
        "import matplotlib, json, sys\n"
        "had_backend = 'matplotlib.backends.backend_svg' in sys.modules\n"
        "open('seen.json', 'w').write(json.dumps([\n"
        "    matplotlib.rcParams['lines.linewidth'], matplotlib.get_backend(), had_backend,\n"
        "    matplotlib.rcParamsOrig['lines.linewidth']]))\n",
    )
    (lab.notebooks / "matplotlibrc").write_text("lines.linewidth: 7.5\n")
    with Supervisor(preload=("matplotlib.pyplot",)) as supervisor:
        one = Lab(lab.root, supervisor)
        outcome = one.run("plots", isolation=isolation, environment={"MPLBACKEND": "svg"})
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert json.loads((lab.notebooks / "seen.json").read_text()) == [7.5, "svg", False, 7.5]


def test_output_is_live(lab: Lab) -> None:
    """What is printed is in the log before the cell ends, without a flush or a line end."""
    lab.write(
        "prints_and_reads_its_log",
        "# %% Print, and see it arrive\n"
        "import os, time\n"
        "print('no line end', end='')\n"
        "end = time.monotonic() + 10\n"
        "while b'no line end' not in open(os.environ['OWN_LOG'], 'rb').read():\n"
        "    assert time.monotonic() < end\n"
        "    time.sleep(0.005)\n",
    )
    request = lab.request(
        "prints_and_reads_its_log",
        run_id="live",
        environment={"OWN_LOG": str(lab.logs / "live.out")},
    )
    outcome = lab.run(request)
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
