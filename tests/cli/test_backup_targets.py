"""Backups to servers: over sftp, to S3; and of a history that is in Postgres."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from research_jobs import load
from research_jobs.cli.main import main


class Said(NamedTuple):
    """What a command said."""

    stdout: str
    stderr: str


Say = Callable[..., Said]


@pytest.fixture
def root(tmp_path: Path, restic: str) -> Path:
    """A project with one output."""
    root = tmp_path / "research"
    (root / "notebooks").mkdir(parents=True)
    (root / "notebooks" / "prices.py").write_text("# %%\nprices = {'close': 7}\n")
    (root / "notebooks" / "manifest.yaml").write_text("notebooks: {prices: {outputs: [prices]}}\n")
    return root


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Say:
    """The command in this process, with variables of its own."""

    def run(*words: str, code: int = 0, **environment: str) -> Said:
        with monkeypatch.context() as patch:
            for name in list(os.environ):
                if name.startswith(("RESEARCH_JOBS_", "DAGSTER_", "AWS_")):
                    patch.delenv(name)
            for name, value in (environment | {"RESTIC_PASSWORD": "secret"}).items():
                patch.setenv(name, value)
            patch.setenv("RESEARCH_JOBS_PROJECT", "")
            patch.chdir(tmp_path)  # the project may be gone
            capfd.readouterr()
            ended = main(list(words))
        out, err = capfd.readouterr()
        assert ended == code, (out, err)
        return Said(out, err)

    return run


def lose_and_restore(root: Path, target: str, say: Say, **environment: str) -> dict[str, Any]:
    """Run, back up, lose the folder, restore it, load."""
    say("run", "prices", "--project", str(root), **environment)
    say("backup", "--to", target, "--project", str(root), **environment)
    shutil.rmtree(root)
    done = say("restore", "--from", target, "--json", "--project", str(root), **environment)
    assert load("prices", project=root) == {"close": 7}
    return json.loads(done.stdout)


def test_over_sftp(root: Path, say: Say, sftp: Any) -> None:
    """A folder of another machine, of which this one has nothing but a key."""
    path = f"{sftp.programs}:{os.environ['PATH']}"
    target = sftp.target(root.parent / "remote")
    said = lose_and_restore(root, target, say, PATH=path)
    assert said["checked"]["damaged"] == said["lost"] == []
    assert (root.parent / "remote" / "config").exists()


def test_to_s3(root: Path, say: Say, s3: Any) -> None:
    """A bucket, with the credentials of the environment."""
    target = f"s3:{s3.address}/{s3.make_bucket()}"
    said = lose_and_restore(root, target, say, **s3.environment)
    assert said["checked"]["damaged"] == said["lost"] == []


def test_a_history_in_postgres(root: Path, say: Say, postgres: Any) -> None:
    """It is dumped as of one moment, restored into an empty database, and into no other."""
    database = postgres.create_database()
    storage = postgres.storage(database)
    storage["postgres"]["postgres_db"]["db_name"] = {"env": "DATABASE"}
    (root / "dagster.yaml").write_text(yaml.safe_dump({"storage": storage}))
    target = str(root.parent / "backups")
    words = ("--project", str(root))
    say("run", "prices", *words, DATABASE=database)
    say("backup", "--to", target, *words, DATABASE=database)
    say("backup", "--to", target, "--verify", *words, DATABASE=database)
    shutil.rmtree(root)
    refused = say("restore", "--from", target, *words, code=2, DATABASE=database)
    assert f"the database {database} is not empty" in refused.stderr
    assert list(root.iterdir()) == []
    empty = postgres.create_database()
    done = say("restore", "--from", target, "--json", *words, DATABASE=empty)
    said = json.loads(done.stdout)
    assert said["checked"]["damaged"] == said["lost"] == said["unknown"] == []
    listed = json.loads(say("list", "--json", *words, DATABASE=empty).stdout)
    assert [one["state"] for one in listed] == ["succeeded"]
