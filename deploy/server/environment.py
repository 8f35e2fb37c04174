"""Environments, side by side: each is named after the files that say what is in it."""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from server.host import HOME, PROJECT, USER, CommandError, Host, command, say

__all__ = ["build", "current", "environment_of", "is_ready", "remove_others", "switch"]

ENVIRONMENTS = HOME / "environments"
# What decides which packages an environment has.
SOURCES = ("pyproject.toml", "constraints.txt", "requirements.txt")
# The new tree stands in for the project while its environment is made: so the environment says from
# the start that research_jobs is in the project's folder.
BUILD = """
set -e
mount --bind "$1" "$2"
cd "$2"
exec setpriv --reuid "$4" --regid "$4" --init-groups \\
    make --no-print-directory install-server VENV="$3"
"""


def environment_of(host: Host, commit: str) -> Path:
    """Where the environment of a commit is, or would be."""
    digest = hashlib.sha256(f"{sys.version_info[:2]}".encode())
    for name in SOURCES:
        try:
            text = host.git("show", f"{commit}:{name}")
        except CommandError:
            text = ""  # a project without this file
        digest.update(f"\0{name}\0{text}".encode())
    return ENVIRONMENTS / digest.hexdigest()[:12]


def is_ready(host: Host, folder: Path) -> bool:
    """Whether an environment is there, and complete."""
    return (host.path(folder) / ".installed-server").exists()


def build(host: Host, commit: str) -> Path:
    """Make the environment of a commit, unless it is there.

    Nothing that runs sees it, nor the new commit's files.

    Returns
    -------
    Path
        Its folder.
    """
    folder = environment_of(host, commit)
    if is_ready(host, folder):
        return folder
    say(f"        making the environment {folder.name}; some minutes")
    shutil.rmtree(folder, ignore_errors=True)
    host.as_user("mkdir", "-p", str(ENVIRONMENTS))
    with tempfile.TemporaryDirectory(dir=ENVIRONMENTS, prefix=".tree-") as scratch:
        shutil.chown(scratch, USER, USER)
        host.as_user("sh", "-ec", 'git archive "$1" | tar -x -C "$2"', "sh", commit, scratch)
        words = ("sh", "-c", BUILD, "sh", scratch, str(PROJECT), str(folder), USER)
        command("unshare", "--mount", *words, environment={"HOME": str(HOME)})
    return folder


def current(host: Host) -> Path | None:
    """The environment that the units use."""
    link = host.path(PROJECT) / ".venv"
    return link.readlink() if link.is_symlink() else None


def switch(host: Host, folder: Path) -> None:
    """Have the units use an environment from their next start on."""
    if current(host) == folder:
        return
    link = PROJECT / ".venv"
    new = PROJECT / ".venv.new"
    host.as_user("ln", "-sfn", str(folder), str(new))
    host.as_user("mv", "-T", str(new), str(link))


def remove_others(host: Host, *commits: str | None) -> None:
    """Remove environments that belong to none of the commits, and that no process uses."""
    needed = {environment_of(host, commit).name for commit in commits if commit}
    for folder in ENVIRONMENTS.iterdir():
        if folder.name not in needed and not _is_used(folder):
            shutil.rmtree(folder)


def _is_used(folder: Path) -> bool:
    """Whether a process, such as a run that goes on, has loaded something from a folder."""
    return any(str(folder) in _read(maps) for maps in Path("/proc").glob("[0-9]*/maps"))


def _read(maps: Path) -> str:
    try:
        return maps.read_text(errors="replace")
    except OSError:
        return ""  # the process has ended meanwhile
