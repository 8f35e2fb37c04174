"""What a forked run sees is what a cold start would see: one test for each kind of change."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import dagster as dg
import pytest
from hosted import Hosted

from research_jobs.orchestration.compat.instance import open_instance

LIBRARY = "rj_library_of_a_test"


def _run(hosted: Hosted, notebook: str, **environment: str) -> str:
    done = hosted.command("run", notebook, environment=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_notebook(hosted: Hosted) -> None:
    """An edited notebook runs as it is now."""
    hosted.manifest("notebooks: {edited: {outputs: [value]}}")
    hosted.write("edited", "# %%\nvalue = 1\n")
    _run(hosted, "edited")
    hosted.write("edited", "# %%\nvalue = 2\n")
    _run(hosted, "edited")
    assert hosted.value("edited", "value") == 2


def test_helper(hosted: Hosted) -> None:
    """An edited helper module is imported as it is now, and a new one before an installed one."""
    hosted.manifest("notebooks: {helped: {outputs: [value]}}")
    hosted.write("helper", "VALUE = 1\n")
    hosted.write(
        "helped", "# %%\nimport helper\nimport wave\nvalue = [helper.VALUE, wave.__file__]\n"
    )
    _run(hosted, "helped")
    assert hosted.value("helped", "value")[0] == 1
    hosted.write("helper", "VALUE = 2\n")
    hosted.write("wave", "# in the place of the standard library's\n")
    _run(hosted, "helped")
    assert hosted.value("helped", "value") == [2, str(hosted.root / "notebooks" / "wave.py")]
    (hosted.root / "notebooks" / "wave.py").unlink()


def test_new_and_deleted_notebooks(hosted: Hosted) -> None:
    """A new notebook, in a new folder too, is there at once, and a deleted one is not."""
    hosted.write("added/deeply/new", "# %%\nprint('new')\n")
    _run(hosted, "added/deeply/new")
    (hosted.root / "notebooks" / "added" / "deeply" / "new.py").unlink()
    assert hosted.command("run", "added/deeply/new").returncode == 2


def test_manifest(hosted: Hosted) -> None:
    """An output that the manifest has just declared is stored, by a launched run too."""
    for path in hosted.project.notebooks.glob("**/*.py"):
        path.unlink()
    hosted.manifest("notebooks: {declared: {outputs: [one]}}")
    hosted.write("declared", "# %%\none, two = 1, 2\n")
    assert hosted.ended(hosted.launch()).is_success
    hosted.manifest("notebooks: {declared: {outputs: [one, two]}}")
    assert hosted.ended(hosted.launch()).is_success
    assert hosted.value("declared", "two") == 2


def test_env_file_and_environment(hosted: Hosted) -> None:
    """A run has the variables of the project's ``.env`` as it is now, and those of its launcher."""
    for path in hosted.project.notebooks.glob("**/*.py"):
        path.unlink()
    hosted.manifest("notebooks: {reads: {outputs: [value]}}")
    hosted.write(
        "reads",
        "# %%\nimport os\nvalue = [os.environ.get('FROM_FILE'), os.environ.get('FROM_LAUNCHER')]\n",
    )
    (hosted.root / ".env").write_text("FROM_FILE=one\n")
    assert hosted.ended(hosted.launch({"FROM_LAUNCHER": "a"})).is_success
    assert hosted.value("reads", "value") == ["one", "a"]
    (hosted.root / ".env").write_text("FROM_FILE=two\n")
    _run(hosted, "reads", FROM_LAUNCHER="b")
    assert hosted.value("reads", "value") == ["two", "b"]
    (hosted.root / ".env").unlink()
    assert hosted.ended(hosted.launch()).is_success
    assert hosted.value("reads", "value") == [None, None]


def test_helper_outside_the_folder(own: Hosted) -> None:
    """The code version of a launched run follows a module beside the notebooks' folder."""
    own.manifest("notebooks: {uses: {outputs: [value]}}")
    own.write("uses", "# %%\nimport beside\nvalue = beside.VALUE\n")
    versions: list[str | None] = []
    for number in (1, 2):
        (own.root / "beside.py").write_text(f"VALUE = {number}\n")
        if number == 1:
            own.start()
        run = own.ended(own.launch())
        assert run.is_success
        with open_instance(own.root / "home") as instance:
            record = instance.get_latest_materialization_event(dg.AssetKey("uses"))
        assert record is not None
        materialization = record.asset_materialization
        assert materialization is not None
        versions.append((materialization.tags or {}).get("dagster/code_version"))
        assert own.value("uses", "value") == number
    assert None not in versions
    assert versions[0] != versions[1]


def test_another_store_is_not_written(own: Hosted) -> None:
    """A launcher with another store is declined: its run is launched as without a host."""
    own.manifest("notebooks: {stores: {outputs: [value]}}")
    own.write("stores", "# %%\nvalue = 1\n")
    own.start()
    elsewhere = own.root / "elsewhere"
    run = own.ended(own.launch({"RESEARCH_JOBS_STORE": str(elsewhere)}))
    assert run.is_success
    assert list(elsewhere.rglob("value.parquet"))
    assert any("the host declines: its RESEARCH_JOBS_STORE" in line for line in own.events(run))


def test_instance(hosted: Hosted) -> None:
    """A launched run uses the instance of its launcher, with dagster.yaml as that has read it."""
    hosted.write("declared", "# %%\none, two = 1, 2\n")
    hosted.configure(
        compute_logs={
            "module": "dagster._core.storage.local_compute_log_manager",
            "class": "LocalComputeLogManager",
            "config": {"base_dir": str(hosted.root / "elsewhere")},
        }
    )
    assert hosted.ended(hosted.launch()).is_success
    assert list((hosted.root / "elsewhere").rglob("*.out"))
    hosted.configure()


@pytest.fixture
def packages(own: Hosted) -> Path:
    """A folder of packages that the host and all its runs have on their path."""
    folder = own.root.parent / "packages"
    folder.mkdir()
    own.environment["PYTHONPATH"] = os.pathsep.join(
        [str(folder), os.environ.get("PYTHONPATH", "")]
    ).rstrip(os.pathsep)
    return folder


def _package(folder: Path, version: str) -> None:
    (folder / f"{LIBRARY}.py").write_text(f"VALUE = {version!r}\n")
    for old in folder.glob("*.dist-info"):
        (old / "METADATA").unlink()
        old.rmdir()
    info = folder / f"{LIBRARY}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {LIBRARY}\nVersion: {version}\n")


def test_packages(own: Hosted, packages: Path) -> None:
    """An installed, upgraded or removed package is seen by the next run, its metadata too."""
    own.manifest("notebooks: {uses: {outputs: [value]}}")
    own.write(
        "uses",
        textwrap.dedent(f"""
            # %%
            from importlib.metadata import PackageNotFoundError, version

            try:
                import {LIBRARY}

                value = [{LIBRARY}.VALUE, version("{LIBRARY}")]
            except ImportError:
                value = []
            """),
    )
    own.start()
    _run(own, "uses")
    assert own.value("uses", "value") == []
    for number in ("1.0", "2.0"):
        _package(packages, number)
        _run(own, "uses")
        assert own.value("uses", "value") == [number, number]
    (packages / f"{LIBRARY}.py").unlink()
    assert own.ended(own.launch()).is_success
    assert own.value("uses", "value") == []


def test_the_hosts_own_code(own: Hosted, packages: Path) -> None:
    """A host whose own modules have changed executes itself anew; its runs have the new ones."""
    startup = packages / "sitecustomize.py"
    startup.write_text("import builtins\nbuiltins.rj_generation = 1\n")
    own.manifest("notebooks: {asks: {outputs: [value]}}")
    own.write("asks", "# %%\nimport builtins\nvalue = getattr(builtins, 'rj_generation', 0)\n")
    own.start()
    before = own.status()
    _run(own, "asks")
    assert own.value("asks", "value") == 1
    startup.write_text("import builtins\nbuiltins.rj_generation = 2\n")
    _run(own, "asks")
    assert own.value("asks", "value") == 2
    after = own.status()
    assert (after["pid"], after["since"] > before["since"]) == (before["pid"], True)


def test_another_environment_is_not_served(own: Hosted) -> None:
    """A program whose interpreter starts with other settings does not find the host."""
    own.write("prints", "# %%\nprint('hello')\n")
    own.start()
    assert own.command("run", "prints").returncode == 0
    before = len(own.log.read_text())
    done = own.command("run", "prints", environment={"PYTHONHASHSEED": "1"})
    assert done.returncode == 0
    assert own.log.read_text()[before:] == ""
    assert sys.prefix  # the same interpreter: only the variable differs


def test_nothing_changes_nothing_is_loaded(own: Hosted) -> None:
    """Runs, the first one too, with all that they write, do not make the host load itself anew."""
    own.manifest("notebooks: {writes: {outputs: [value]}}")
    own.write(
        "writes", "# %%\nfrom pathlib import Path\nPath('x.csv').write_text('1')\nvalue = 1\n"
    )
    own.start()
    since = own.status()["since"]
    for _ in range(3):
        _run(own, "writes")
    (own.root / "run.log").write_text("a file that no import could find")
    _run(own, "writes")
    assert own.status()["since"] == since
