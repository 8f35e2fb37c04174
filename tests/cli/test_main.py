"""The command line itself: help, mistakes, exit codes, what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from keyword import iskeyword
from pathlib import Path

import pytest

from research_jobs.cli.main import COMMANDS, GROUPS, _enter_project, main  # pyright: ignore[reportPrivateUsage]

HEAVY = ("dagster", "pandas", "pyarrow", "rich", "pydantic", "yaml", "IPython")


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS)])
def test_help_is_light(words: list[str]) -> None:
    """Neither the help nor that of any command imports what takes time."""
    program = (
        "import sys\n"
        "from research_jobs.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit:\n"
        "    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """What can be called stands in the help, in one group, and has a module."""
    grouped = [name for names in GROUPS.values() for name in names]
    assert len(set(grouped)) == len(grouped)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"  {name}" in shown
        module = f"{name}_" if iskeyword(name) else name
        assert (Path(sys.modules["research_jobs.cli"].__path__[0]) / f"{module}.py").is_file()


def test_unknown_command_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command is one line with a suggestion and exit code 2."""
    assert main(["backfil"]) == 2
    error = capsys.readouterr().err
    assert error == "research-jobs: no command 'backfil'. Did you mean 'backfill' or 'backup'?\n"


def test_wrong_option_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong option is one line that names the help, and exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(["list", "--jsno"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--jsno" in error
    assert "research-jobs list --help" in error


def test_no_project_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without notebooks/ is one line and exit code 2, not a traceback."""
    assert main(["check", "--project", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("research-jobs check: ")
    assert "notebooks/" in error
    assert error.count("\n") == 1


def test_a_command_reads_dot_env_as_runs_do(tmp_path: Path) -> None:
    """Credentials that are only there suffice; a host is found without them, as it was started."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / ".env").write_text("BUCKET_KEY=abc\n")
    words = ["--project", str(tmp_path)]
    before = dict(os.environ)
    _enter_project("host", Namespace(project=str(tmp_path)))
    assert dict(os.environ) == before
    assert main(["space", *words]) == 0
    assert os.environ["BUCKET_KEY"] == "abc"


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing asked for is a wrong call that shows what there is."""
    assert main([]) == 2
    assert "Run:" in capsys.readouterr().err
