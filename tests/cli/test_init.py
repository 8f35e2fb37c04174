"""``research-jobs init``: what it writes and leaves, and that editor and batch then agree."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from research_jobs.manifest.schema import schema_text

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {
    ".env",
    ".gitignore",
    ".vscode/settings.json",
    "notebooks/manifest.schema.json",
    "notebooks/manifest.yaml",
}
CHECKED = {".github/workflows/notebooks.yml", ".pre-commit-config.yaml"}
# What VS Code's Interactive Window does: a kernel in the folder that the settings name, with the
# variables of .env, gets one cell after the other. A kernel has "" first on its path, as -c has.
WINDOW = """
import sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell
from research_jobs.notebook.cells import CellKind, read_notebook_text
shell = InteractiveShell.instance()
shell.user_ns["__file__"] = sys.argv[1]
for cell in read_notebook_text(Path(sys.argv[1])).cells:
    if cell.kind is CellKind.CODE:
        shell.run_cell(cell.source).raise_error()
"""
WHERE = """\
# %%
import json
import os
import helper_above
import toolbox
import elsewhere

# %%
where = {
    "folder": os.getcwd(),
    "modules": [m.__file__ for m in (helper_above, toolbox, elsewhere)],
}
print(json.dumps(where))
"""


def files(root: Path) -> set[str]:
    """All files below a folder."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def environment(root: Path, **more: str) -> dict[str, str]:
    """That of an editor's terminal or kernel: what is exported, then what .env says."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_", "PYTHONPATH"))
    }
    said = {name: value for name, value in dotenv_values(root / ".env").items() if value}
    return inherited | said | {"MPLBACKEND": "agg"} | more


def in_the_window(root: Path, notebook: Path) -> str:
    """Run a notebook's cells as the editor does with the settings that were written."""
    settings = json.loads((root / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    assert settings["python.envFile"] == "${workspaceFolder}/.env"
    folder = settings["jupyter.notebookFileRoot"]
    folder = folder.replace("${fileDirname}", str(notebook.parent))
    return python("-c", WINDOW, str(notebook), cwd=folder.replace("${workspaceFolder}", str(root)))


def as_a_file(root: Path, notebook: Path) -> str:
    """Run a notebook with the editor's button "Run Python File in Terminal"."""
    settings = json.loads((root / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    assert settings["python.terminal.useEnvFile"]
    beside = settings["python.terminal.executeInFileDir"]
    return python(str(notebook), cwd=str(notebook.parent if beside else root))


def python(*words: str, cwd: str) -> str:
    """What Python prints, in the environment of the project around a folder."""
    root = next(one for one in (Path(cwd), *Path(cwd).parents) if (one / ".env").exists())
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_empty_repository_becomes_a_project(call: Any, tmp_path: Path) -> None:
    """The plan alone writes nothing, --yes writes it, and then nothing is missing."""
    (tmp_path / ".git").mkdir()
    plan = call("init", "--dry-run")
    assert plan.returncode == 0
    assert files(tmp_path) == set()
    unasked = call("init")
    assert (unasked.returncode, files(tmp_path)) == (1, set())
    assert "--yes" in unasked.stderr
    done = call("init", "--yes")
    assert done.returncode == 0, done.stderr
    assert files(tmp_path) == WRITTEN | CHECKED
    assert all(name in plan.stdout for name in WRITTEN | CHECKED)
    assert "research-jobs new NAME" in done.stdout
    schema = (tmp_path / "notebooks" / "manifest.schema.json").read_text(encoding="utf-8")
    assert schema == schema_text()
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in WRITTEN | CHECKED}
    again = call("init", cwd=tmp_path / "notebooks")
    assert again.returncode == 0
    assert "nothing is missing" in again.stdout
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in WRITTEN | CHECKED} == before
    (hook,) = yaml.safe_load((tmp_path / ".pre-commit-config.yaml").read_text())["repos"][0][
        "hooks"
    ]
    ours = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())[0]
    assert {**hook, "files": "", "name": ""}.items() <= {**ours, "files": "", "name": ""}.items()
    assert re.search(hook["files"], "notebooks/vol/a.py")
    workflow = yaml.safe_load((tmp_path / ".github" / "workflows" / "notebooks.yml").read_text())
    words = workflow["jobs"]["check"]["steps"][-1]["run"].split()
    assert words[0] == "research-jobs"
    assert call(*words[1:]).returncode == 0


def test_hooks_and_workflows_of_others_stay(call: Any, tmp_path: Path) -> None:
    """Hooks of others are named and not changed; elsewhere than on GitHub is no workflow."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text(
        '[remote "origin"]\n\turl = git@example.org:a/b.git\n'
    )
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: []\n")
    done = call("init", "--yes")
    assert "pre-commit-config.yaml has no hook with `entry: research-jobs check`" in done.stdout
    assert (tmp_path / ".pre-commit-config.yaml").read_text() == "repos: []\n"
    assert not (tmp_path / ".github").exists()
    (tmp_path / ".git" / "config").write_text("")
    (tmp_path / "requirements.txt").write_text("pandas\n")
    workflows = tmp_path / ".github" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "tests.yml").write_text("on: push\n")
    assert call("init", "--yes").returncode == 0
    assert "install research_jobs -r requirements.txt" in (workflows / "notebooks.yml").read_text()
    (workflows / "notebooks.yml").rename(workflows / "ours.yaml")
    assert "nothing is missing" in call("init").stdout


def at_a_terminal(answer: bytes, *words: str, cwd: Path) -> tuple[int, bytes]:
    """The exit code and the text of a command at a terminal where somebody types an answer."""
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    with subprocess.Popen(
        [Path(sys.executable).with_name("research-jobs"), *words],
        cwd=cwd,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        status = process.wait()
    said = os.read(ours, 65536)
    os.close(ours)
    return status, said


def test_a_terminal_is_asked(tmp_path: Path) -> None:
    """On a terminal the plan is followed by a question, and "n" writes nothing."""
    for answer, wanted in ((b"n\n", set[str]()), (b"\n", WRITTEN)):
        status, said = at_a_terminal(answer, "init", str(tmp_path), cwd=tmp_path)
        assert status == (0 if wanted else 1)
        assert b"notebooks/manifest.yaml" in said
        assert files(tmp_path) == wanted


def test_new_outside_a_project_offers_to_make_one(call: Any, tmp_path: Path) -> None:
    """At a terminal it shows the plan and asks; elsewhere it is an error that names `init`."""
    refused = call("new", "spreads")
    assert (refused.returncode, files(tmp_path)) == (2, set())
    assert "`research-jobs init` makes this folder one" in refused.stderr
    for answer, wanted in ((b"n\n", set[str]()), (b"\n", WRITTEN | {"notebooks/spreads.py"})):
        status, said = at_a_terminal(answer, "new", "spreads", cwd=tmp_path)
        assert status == (0 if wanted else 2), said
        assert b"notebooks/manifest.yaml" in said
        assert files(tmp_path) == wanted
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0  # for its user only


def test_what_is_there_stays(call: Any, tmp_path: Path) -> None:
    """Files of others keep every byte: lines are appended, settings put in front of theirs."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / ".vscode").mkdir()
    mine = {
        "notebooks/manifest.yaml": b"notebooks: {}  # mine\n",
        "notebooks/manifest.schema.json": b"{}",
        ".gitignore": b"*.csv\r\nreports",
        ".env": b"TOKEN=abc",
    }
    for name, data in mine.items():
        (tmp_path / name).write_bytes(data)
    settings = '// of the team {\n{\n  "a": "http://x, ]", /* , */\n  "b": [1, ],\n}\n'
    (tmp_path / ".vscode" / "settings.json").write_text(settings)
    done = call("init", "--yes")
    assert done.returncode == 0, done.stderr
    assert "yaml-language-server" in done.stdout
    for name, data in mine.items():
        assert (tmp_path / name).read_bytes().startswith(data)
    ignored = (tmp_path / ".gitignore").read_bytes()
    assert b"\r\n# written by research-jobs init\r\n/.research_jobs/\r\n/data/\r\n" in ignored
    assert ignored.count(b"reports") == 1
    said = dotenv_values(tmp_path / ".env")
    assert said == {"TOKEN": "abc", "PYTHONPATH": f"{tmp_path}/notebooks:{tmp_path}"}
    after = (tmp_path / ".vscode" / "settings.json").read_text()
    start, end = settings[: settings.index('\n  "a"')], settings[settings.index('\n  "a"') :]
    assert after.startswith(start)
    assert after.endswith(end)
    assert '"jupyter.notebookFileRoot": "${fileDirname}"' in after
    assert "nothing is missing" in call("init", "--yes").stdout


@pytest.mark.parametrize("settings", ["[1]", "{", '{"a": 1 "b"}'])
def test_settings_that_cannot_be_read_stay(call: Any, tmp_path: Path, settings: str) -> None:
    """A settings file that no editor could read is named, with what it needs, and not changed."""
    (tmp_path / ".vscode").mkdir()
    (tmp_path / ".vscode" / "settings.json").write_text(settings)
    done = call("init", "--yes")
    assert done.returncode == 0, done.stderr
    assert "settings.json cannot be read; it needs {" in done.stdout
    assert (tmp_path / ".vscode" / "settings.json").read_text() == settings


def test_settings_that_differ_from_batch_are_named(call: Any, tmp_path: Path) -> None:
    """Nobody's setting is overwritten: what differs from batch is said."""
    (tmp_path / ".vscode").mkdir()
    own = '{"jupyter.notebookFileRoot": "${workspaceFolder}"}'
    (tmp_path / ".vscode" / "settings.json").write_text(own)
    (tmp_path / ".env").write_text("PYTHONPATH=src\n")
    done = call("init", "--yes")
    assert "settings.json: jupyter.notebookFileRoot differs from batch" in done.stdout
    assert f"PYTHONPATH without {tmp_path}/notebooks, {tmp_path}" in done.stdout
    assert (tmp_path / ".env").read_text() == "PYTHONPATH=src\n"
    after = json.loads((tmp_path / ".vscode" / "settings.json").read_text())
    assert after["jupyter.notebookFileRoot"] == "${workspaceFolder}"


def test_a_data_folder_of_others_is_left_alone(call: Any, tmp_path: Path) -> None:
    """Outputs go to another folder, from the shell and for load() in any process."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "result.parquet").write_text("theirs")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "shop.txt").write_text("theirs too")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "q3.txt").write_text("theirs")
    done = call("init", "--yes")
    assert "data/ has files that are not ours, so outputs are stored in outputs/" in done.stdout
    assert "reports/ has files that are not ours" in done.stdout
    ignored = (tmp_path / ".gitignore").read_text()
    assert "/outputs/" in ignored
    assert "/data/" not in ignored
    assert "/reports/" not in ignored
    (tmp_path / "notebooks" / "a.py").write_text("# %%\nresult = {'n': 1}\n")
    (tmp_path / "notebooks" / "manifest.yaml").write_text("notebooks: {a: {outputs: [result]}}\n")
    ran = call("run", "a")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (tmp_path / "outputs" / "a" / "result.parquet").exists()
    assert (tmp_path / "data" / "a" / "result.parquet").read_text() == "theirs"
    loading = "from research_jobs import load; print(load('a', 'result'))"
    loaded = subprocess.run(
        [sys.executable, "-c", loading],
        cwd=tmp_path / "notebooks",
        env={name: value for name, value in os.environ.items() if "RESEARCH" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.stdout == "{'n': 1}\n", loaded.stderr
    assert "nothing is missing" in call("init").stdout


def test_a_store_that_has_outputs_is_ours(call: Any, tmp_path: Path) -> None:
    """`init` in a project that has run keeps its store and its reports, and has Git ignore both."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.py").write_text("# %%\nresult = 1\n")
    (tmp_path / "notebooks" / "manifest.yaml").write_text("notebooks: {a: {outputs: [result]}}\n")
    assert call("run", "a").returncode == 0
    done = call("init", "--yes")
    assert "not ours" not in done.stdout
    assert "RESEARCH_JOBS_STORE" not in (tmp_path / ".env").read_text()
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[1:] == ["/.research_jobs/", "/reports/", "/data/", "/.env", "__pycache__/"]


@pytest.mark.parametrize("setting", ["", "  working_directory: project\n"])
def test_editor_file_and_batch_agree(call: Any, tmp_path: Path, setting: str) -> None:
    """A notebook in a subfolder has one working directory and the same modules in all three."""
    root = tmp_path / "a project"
    folder = root / "notebooks" / "vol"
    folder.mkdir(parents=True)
    (root / "lib").mkdir()
    for place in ("notebooks/vol/helper_beside", "notebooks/helper_above", "toolbox"):
        (root / f"{place}.py").write_text("x = 1\n")
    (root / "lib" / "elsewhere.py").write_text("x = 1\n")
    # A kernel has its working directory on the path, and the notebook's folder only if that is it.
    beside = "" if setting else "# %%\nimport helper_beside\n"
    (folder / "where.py").write_text(beside + WHERE)
    manifest = (
        f"defaults:\n{setting}  sys_path: [lib]\nnotebooks: {{vol/where: {{outputs: [where]}}}}\n"
    )
    (root / "notebooks" / "manifest.yaml").write_text(manifest)
    assert call("init", str(root), "--yes").returncode == 0
    ran = call("run", "vol/where", "--project", str(root))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    shown = call("show", "vol/where", "where", "--json", "--project", str(root))
    batch = json.loads(shown.stdout)["head"]
    assert batch["folder"] == str(root if setting else folder)
    assert json.loads(in_the_window(root, folder / "where.py")) == batch
    assert json.loads(as_a_file(root, folder / "where.py")) == batch


def test_the_samples_run_in_the_editor(call: Any, tmp_path: Path) -> None:
    """Each sample notebook runs cell by cell as in the Interactive Window, and as a file."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    assert call("init", "--yes").returncode == 0
    ran = call("run", "--all")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in ("market_data", "momentum_signals", "performance_report", "volatility/garch"):
        in_the_window(tmp_path, tmp_path / "notebooks" / f"{name}.py")
        as_a_file(tmp_path, tmp_path / "notebooks" / f"{name}.py")


def test_jupyter_notebooks_are_pointed_out(call: Any, tmp_path: Path) -> None:
    """Folders with Jupyter notebooks are named for `convert`, reports of runs are not."""
    for name in ("old/deep/a.ipynb", "reports/x/b.ipynb"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("{}")
    done = call("init", "--yes")
    assert "research-jobs convert old   #" in done.stdout


def test_what_cannot_be_a_project_is_refused(call: Any, tmp_path: Path) -> None:
    """A folder that does not exist, and a file called notebooks, end in one line."""
    assert call("init", "nowhere").returncode == 2
    (tmp_path / "notebooks").write_text("")
    done = call("init", "--yes")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert files(tmp_path) == {"notebooks"}
