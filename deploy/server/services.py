"""The units: which of them are to be started, and whether all of it works."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

from server.files import UNITS
from server.host import HOME, PROJECT, SETTINGS, CommandError, Host, ProblemError, command
from server.steps import DONE, Look, Step

__all__ = [
    "backup_step",
    "broken",
    "heartbeat_step",
    "is_current",
    "services_step",
    "start",
    "to_start",
    "wait_for_ui",
]

# In the order in which each finds those it asks.
SERVICES = tuple(
    f"research-jobs-{name}" for name in ("host", "code", "webserver", "daemon", "watch")
)
TIMERS = ("research-jobs-backup.timer", "research-jobs-verify.timer")
UI = "http://127.0.0.1:3000/server_info"
UI_S = 120.0
# Checks that services pass only some time after their start, half a minute for the daemon.
SETTLING = frozenset({"daemon", "code", "host"})
SETTLED_S = 90.0
# A program that cannot start needs some seconds to find that out.
STEADY_S = 20.0
MANIFEST = """
import json
from research_jobs.manifest.load import load_manifest
from research_jobs.project import find_project
said = load_manifest(find_project(), ())
print(json.dumps([said.backup and said.backup.to, said.backup and said.backup.password_file,
                  said.heartbeat and said.heartbeat.url]))
"""


def to_start() -> list[str]:
    """The services that do not run, or run something older than the files they come from."""
    files = [
        SETTINGS,
        HOME / "dagster.yaml",
        PROJECT / "deploy" / "workspace.yaml",
        PROJECT / ".venv",
    ]
    files += (UNITS / "research-jobs-.service.d").glob("*.conf")
    files += (PROJECT / "research_jobs").rglob("*.py")
    return [one for one in SERVICES if not is_current(one, [*files, UNITS / f"{one}.service"])]


def is_current(unit: str, files: Iterable[Path] = ()) -> bool:
    """Whether a unit runs, will after the next boot, and was started after its files changed."""
    wanted = ("ActiveState", "ActiveEnterTimestampMonotonic", "UnitFileState", "NeedDaemonReload")
    lines = command("systemctl", "show", unit, f"--property={','.join(wanted)}").splitlines()
    said = dict(line.split("=", 1) for line in lines)
    state = said["ActiveState"], said["UnitFileState"], said["NeedDaemonReload"]
    if state != ("active", "enabled", "no"):
        return False
    since_boot = int(said["ActiveEnterTimestampMonotonic"]) / 1e6
    started = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + since_boot
    return all(file.lstat().st_mtime < started for file in files)


def start() -> Callable[[], None]:
    """Start what is to be started, with the units as they are on disk.

    Returns
    -------
    callable
        Raises a `ProblemError` if a service has ended since, even if systemd started it again. It
        answers `STEADY_S` after the start at the earliest.
    """
    names = to_start()
    command("systemctl", "daemon-reload")
    if names:
        command("systemctl", "enable", *names)
        command("systemctl", "restart", *names)
    end = time.monotonic() + (STEADY_S if names else 0)
    before = _restarts()

    def expect_steady() -> None:
        time.sleep(max(end - time.monotonic(), 0))
        for name, count in _restarts().items():
            if count != before[name]:
                raise ProblemError(
                    f"{name} does not stay up: systemd has started it again {count} times\n"
                    f"  Look at: journalctl -u {name}"
                )

    return expect_steady


def _start_steadily() -> None:
    expect_steady = start()
    expect_steady()


def _restarts() -> dict[str, int]:
    """How often systemd has started each service again by itself."""
    words = ("systemctl", "show", "--property=NRestarts", "--value")
    return {name: int(command(*words, name)) for name in SERVICES}


def services_step(host: Host) -> Step:
    """The five services, running what is on disk."""

    def look() -> Look:
        if not all(host.path(UNITS / f"{name}.service").exists() for name in SERVICES):
            return Look("to do", f"start {', '.join(SERVICES)}")
        names = to_start()
        return Look("to do", f"start {', '.join(names)}") if names else DONE

    return Step("services", look, _start_steadily)


def wait_for_ui() -> None:
    """Return once Dagster's UI answers."""
    end = time.monotonic() + UI_S
    while True:
        try:
            with urllib.request.urlopen(UI, timeout=10):
                return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > end:
                raise ProblemError(
                    f"the UI does not answer within {UI_S:.0f} seconds: {error}\n"
                    "  Look at: journalctl -u research-jobs-webserver"
                ) from None
        time.sleep(0.5)


def broken(host: Host, known: frozenset[str] = frozenset(), *, wait: bool = True) -> dict[str, str]:
    """What ``research-jobs doctor`` finds wrong, beyond what is known.

    It is asked again for a while if that may pass: services that have just started are not heard of
    at once.
    """
    end = time.monotonic() + (SETTLED_S if wait else 0)
    while True:
        try:
            answer = host.tool("research-jobs", "doctor", "--json")
        except CommandError as error:
            answer = error.output
            if not answer:
                raise
        found = {
            one["check"]: "\n        ".join(filter(None, (one["detail"], one["fix"])))
            for one in json.loads(answer)
            if one["ok"] is False and one["check"] not in known
        }
        if found.keys().isdisjoint(SETTLING) or time.monotonic() > end:
            return found
        time.sleep(3)


def _manifest(host: Host) -> tuple[str | None, str | None, str | None]:
    """The backups' repository, the file with its password, the heartbeat's address."""
    return tuple(json.loads(host.tool("python", "-c", MANIFEST)))


def _is_installed(host: Host) -> bool:
    return (host.path(PROJECT) / ".venv").exists() and host.path(SETTINGS).exists()


def backup_step(host: Host, secrets: dict[str, str], new_password: str) -> Step:
    """The timers, and a password, where the manifest names a repository."""

    def look() -> Look:
        if not _is_installed(host):
            return Look("to do", "if the manifest names one: make a password, start the timers")
        to, password_file, _ = _manifest(host)
        if to is None:
            return Look(
                "note", "nothing is backed up: the manifest names no `backup` (docs/backup.md)"
            )
        if password_file is None and "RESTIC_PASSWORD" not in host.settings():
            return Look("to do", f"to {to}: make a password, start the timers")
        waiting = [name for name in TIMERS if not is_current(name)]
        return Look("to do", f"to {to}: start {', '.join(waiting)}") if waiting else DONE

    def do() -> None:
        _, password_file, _ = _manifest(host)
        if password_file is None and "RESTIC_PASSWORD" not in host.settings():
            text = host.path(SETTINGS).read_text(encoding="utf-8")
            host.write(SETTINGS, f"{text}RESTIC_PASSWORD={new_password}\n".encode(), mode=0o600)
            secrets["Backups' password (keep a copy elsewhere: nothing is restored without it)"] = (
                new_password
            )
            _start_steadily()
        command("systemctl", "enable", "--now", *TIMERS)

    return Step("backup", look, do)


def heartbeat_step(host: Host) -> Step:
    """Whether somebody elsewhere notices that the server is dead: the manifest says."""

    def look() -> Look:
        if not _is_installed(host):
            return Look("to do", "see whether the manifest names one")
        _, _, url = _manifest(host)
        if url is None:
            return Look(
                "note",
                "nobody notices a dead server: the manifest names no `heartbeat` (docs/alerts.md)",
            )
        return DONE

    return Step("heartbeat", look, lambda: None)
