"""The plan of deploy/install, for an empty folder. `make test-install` carries one out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from server.files import CADDY, LOGINS, UNITS, caddy_site, file_steps
from server.host import BOOK, SETTINGS, Host, ProblemError
from server.install import plan
from server.steps import Step, carry_out

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
OPTIONS = {
    "ui_host": "dagster.example.com",
    "reports_host": "reports.example.com",
    "login": "research",
    "tls": "internal",
    "project": "https://example.com/research.git",
}
HARDENING = str(UNITS / "research-jobs-.service.d" / "hardening.conf")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    found = Host(tmp_path / "machine")
    found.root.mkdir()
    found.book.options = dict(OPTIONS)
    return found


def marks(steps: list[Step]) -> dict[str, str]:
    return {step.title: step.look().mark for step in steps}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "under which host name? Say --ui-host NAME"),
        (["--ui-host", "a.example.com"], "under which host name? Say --reports-host NAME"),
        (["--ui-host", "a.example.com", "--reports-host", "a.example.com"], "two host names"),
        (["--tls", "none"], "invalid choice: 'none'"),
    ],
)
def test_what_is_missing_is_named(words: list[str], line: str) -> None:
    """A call without both host names, or with a wrong option, changes nothing and says which."""
    done = subprocess.run(
        [sys.executable, "-B", DEPLOY / "install", "--dry-run", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert line in done.stderr


def test_from_nothing_everything_is_to_do(host: Host) -> None:
    """A plan names every step, and making it writes nothing."""
    looks = {step.title: step.look() for step in plan(host, {})}
    assert {look.mark for look in looks.values()} == {"to do"}
    assert OPTIONS["project"] in looks["project /srv/research-jobs"].detail
    assert list(host.root.iterdir()) == []


def test_written_once(host: Host) -> None:
    """Files are written with their modes; a second run finds nothing to do."""
    steps = file_steps(host, DEPLOY)
    assert carry_out(steps) == len(steps)
    assert set(marks(steps).values()) == {"done"}
    again = Host(host.root)
    assert again.book.options == OPTIONS
    assert set(marks(file_steps(again, DEPLOY)).values()) == {"done"}
    assert host.path(SETTINGS).stat().st_mode & 0o777 == 0o600
    assert again.settings()["RESEARCH_JOBS_UI_URL"] == "https://dagster.example.com"


def test_new_versions_replace_what_nobody_edited(host: Host, tmp_path: Path) -> None:
    """A new version's files replace the old ones; one that a person edited stays, with a diff."""
    carry_out(file_steps(host, DEPLOY))
    edited = host.path(Path(HARDENING))
    edited.write_text(edited.read_text().replace("ProtectHome=yes", "ProtectHome=no"))
    newer = tmp_path / "deploy"
    shutil.copytree(DEPLOY, newer)
    for name in ("hardening.conf", "research-jobs-code.service"):
        (newer / name).write_text((newer / name).read_text() + "# new\n")
    steps = file_steps(host, newer)
    unit = str(UNITS / "research-jobs-code.service")
    looks = {step.title: step.look() for step in steps}
    assert {look.mark for title, look in looks.items() if title not in (HARDENING, unit)} == {
        "done"
    }
    assert looks[unit].mark == "to do"
    assert looks[HARDENING].mark == "kept"
    assert "-ProtectHome=no\n+ProtectHome=yes" in looks[HARDENING].detail
    assert carry_out(steps) == 1
    assert host.path(Path(unit)).read_text().endswith("# new\n")
    assert "ProtectHome=no" in edited.read_text()


def test_a_later_version_has_written_more(host: Host) -> None:
    """What a later version noted does not keep an earlier one from rolling back."""
    host.book.previous = "abc"
    host.remember()
    path = host.path(BOOK)
    path.write_text(json.dumps({**json.loads(path.read_text()), "of_later": 1}))
    assert Host(host.root).book == host.book


def test_settings_belong_to_a_person(host: Host) -> None:
    """The environment file is never replaced; what it lacks is named, and no value is shown."""
    carry_out(file_steps(host, DEPLOY))
    host.path(SETTINGS).write_text("RESTIC_PASSWORD=hidden\nDAGSTER_HOME=/elsewhere\n")
    look = file_steps(host, DEPLOY)[0].look()
    assert look.mark == "kept"
    assert "RESEARCH_JOBS_UI_URL=https://dagster.example.com" in look.detail
    assert "hidden" not in look.detail


def test_a_step_that_does_not_help_stops(host: Host) -> None:
    """A step that is still to be done after it was done is a problem, which names it."""
    (first, *_) = file_steps(host, DEPLOY)
    with pytest.raises(ProblemError, match=str(SETTINGS)):
        carry_out([Step(first.title, first.look, lambda: None)])


@pytest.mark.skipif(shutil.which("caddy") is None, reason="needs caddy")
@pytest.mark.parametrize("tls", ["internal", "public"])
def test_caddy_takes_it(tls: str, tmp_path: Path) -> None:
    """Caddy accepts its part of the configuration, with a login of its own making."""
    hashed = subprocess.run(
        ["caddy", "hash-password"], input="secret\n", capture_output=True, text=True, check=True
    ).stdout.split()[-1]
    (tmp_path / LOGINS.name).write_text(f"research {hashed}\n")
    text = caddy_site({**OPTIONS, "tls": tls}).replace(str(LOGINS), str(tmp_path / LOGINS.name))
    (tmp_path / CADDY.name).write_text(text)
    (tmp_path / "Caddyfile").write_text(f"import {CADDY.name}\n")
    done = subprocess.run(
        ["caddy", "validate", "--adapter", "caddyfile", "--config", tmp_path / "Caddyfile"],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin"},
    )
    assert "Valid configuration" in done.stdout + done.stderr, done.stderr
    assert done.returncode == 0
