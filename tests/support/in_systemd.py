"""Boot a systemd of our own, install the server of deploy/ in it, and interrupt everything.

What happens in the machine is `interruptions.py`. It takes half an hour, and some minutes more the
first time, to make the machine.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path

import booted

# From systemd 254 on, the kernel holds notebooks' memory limits.
SUITE = "trixie"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "ca-certificates", "make", "git"),
    *("python3-venv", "postgresql", "restic", "caddy", "chromium"),
)
# What the notebooks of the proof import.
LIBRARIES = ("numba",)
# All of `deploy/install` that needs a network.
INSTALL = f"""
cd /{booted.PROJECT}; git init -q; git add -A
git -c user.name=proof -c user.email=proof@localhost commit -qm proof
cd deploy; python3 -Bc '
from server import environment, install
from server.host import Host
host = Host(); host.book.options = {{"project": ""}}
for step in (install._user(host), install._project(host), install._environment(host)): step.do()
host.as_user(*".venv/bin/python -m pip install --quiet {" ".join(LIBRARIES)}".split())
'
find /{booted.PROJECT} -mindepth 1 -maxdepth 1 ! -name .venv ! -name .git -exec rm -r {{}} +
"""


def main(words: list[str]) -> int:
    """Boot it, show the account, and return the account's exit code."""
    problem = booted.missing()
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
        return 2
    finish = f"mv /mnt/checkout /{booted.PROJECT}; {INSTALL}"
    machine = booted.machine(SUITE, PACKAGES, finish)
    command = f"/usr/bin/python3 /{booted.PROJECT}/tests/support/interruptions.py {' '.join(words)}"
    return booted.boot(machine, "research-jobs-systemd", command, partial(_fill, machine))


def _fill(machine: Path, upper: Path) -> None:
    """Put this checkout over the machine's own files."""
    project = upper / booted.PROJECT
    project.mkdir(parents=True)
    booted.checkout(project)
    shutil.rmtree(project / "notebooks")  # the proof brings its own
    booted.own(project, machine / booted.PROJECT)
    (upper / "srv").chmod(0o755)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
