"""The shell's completion: a real bash, and what an answer imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from research_jobs.cli.main import main
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish

BIN = Path(sys.executable).parent
HEAVY = ("dagster", "pandas", "pyarrow", "numpy", "pydantic", "yaml", "IPython", "rich")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two notebooks, stored outputs, partitions, and a run with a report."""
    root = tmp_path_factory.mktemp("completed")
    for name in ("market_data", "volatility/garch"):
        path = root / "notebooks" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# %%\nx = 1\n")
    store = str(root / "data")
    day = PartitionKey("2018-11-01", {"day": "2018-11-01"})
    for name, outputs, partition in (
        ("market_data", ["coverage", "prices"], None),
        ("volatility/garch", ["fit"], day),
    ):
        with open_staging(store, "x") as staging:
            staged = [
                write_output(it, 1, staging.path / f"{it}.parquet", options={}, metadata={})
                for it in outputs
            ]
            publish(store, name, staged, staging=staging, partition=partition, run_id="x")
    (root / "reports" / "market_data" / "_runs" / "20181101T060000-1f0c9a2e-00000000").mkdir(
        parents=True
    )
    return root


@pytest.fixture(scope="module")
def bash(project: Path) -> Iterator[pexpect.spawn[str]]:
    """An interactive bash in which the line of the documentation was run."""
    environment = {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "TERM": "dumb",
        "PS1": "$ ",
        "HOME": str(project),
        "LC_ALL": "C.UTF-8",
    }
    shell = pexpect.spawn(
        "bash",
        ["--norc", "--noprofile", "-i"],
        cwd=str(project),
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    shell.sendline('bind "set bell-style none"; bind "set enable-bracketed-paste off"')
    shell.sendline('eval "$(research-jobs completion bash)"; echo ready=$?')
    shell.expect("ready=0")
    yield shell
    shell.close(force=True)


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("backf", "backfill "),
        ("run --proj", "--project "),
        ("run vol", "volatility/garch "),
        ("run market_data ", "volatility/garch "),
        ("show market_data pri", "prices "),
        ("show volatility/garch fit --partition 2018", "2018-11-01 "),
        ("diff market_data 1f", "1f0c9a2e "),
    ],
)
def test_bash_completes(bash: pexpect.spawn[str], line: str, completed: str) -> None:
    """A Tab in a real bash completes commands, options, notebooks, outputs, partitions, runs."""
    bash.send(f"\x15research-jobs {line}\t#")  # a # behind what was completed
    bash.expect_exact(f"{completed}#")


def test_an_answer_is_light(project: Path, tmp_path: Path) -> None:
    """What is offered for a notebook and its outputs comes without a heavy import."""
    for line, answer in ("run vol", "volatility/garch"), ("show market_data pri", "prices"):
        text = f"research-jobs {line}"
        environment = os.environ | {
            "_ARGCOMPLETE": "1",
            "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"),
            "COMP_LINE": text,
            "COMP_POINT": str(len(text)),
            "RESEARCH_JOBS_PROJECT": str(project),
        }
        done = subprocess.run(
            [sys.executable, "-X", "importtime", BIN / "research-jobs"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        imported = {row.rpartition("|")[2].strip() for row in done.stderr.splitlines()}
        assert "argcomplete" in imported
        assert not imported & set(HEAVY)
        assert answer in (tmp_path / "answer").read_text()


def test_a_shell_that_is_not_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a name, the shell is that of SHELL; one that is not known is said so."""
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert main(["completion"]) == 0
    assert "complete --command research-jobs" in capsys.readouterr().out
    monkeypatch.setenv("SHELL", "/bin/dash")
    assert main(["completion"]) == 2
    assert "bash, zsh or fish" in capsys.readouterr().err
