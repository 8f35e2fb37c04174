"""Boot a Debian 12, install a server in it from nothing, upgrade it and roll it back.

What happens in the machine is `installing.py`; its account is a transcript. It takes a quarter of
an hour, and some minutes more the first time, to make the machine: Debian's packages and wheels
are fetched into it then, because a boot has no network.
"""

from __future__ import annotations

import sys
from pathlib import Path

import booted

SUITE = "bookworm"
# What a Debian has once it is installed, and what the first line of deploy/README.md adds.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "ca-certificates", "curl"),
    *("git", "python3"),
)
# `humanize` is what the new version's notebook needs. The last commands forget what helped here.
FETCH = """
install="apt-get -qq install --yes --no-install-recommends"
$install python3-venv
python3 -m venv /tmp/venv
cd /mnt/checkout
export PIP_CERT=/etc/ssl/certs/ca-certificates.crt
pip="/tmp/venv/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --upgrade --constraint constraints.txt pip
$pip wheel --wheel-dir /opt/wheels --constraint constraints.txt pip 'setuptools>=77' humanize .
rm -rf /tmp/venv /opt/wheels/research_jobs-*.whl /mnt/checkout
apt-get -qq purge --autoremove --yes python3-venv
$install --download-only make python3-venv postgresql restic caddy
printf '[global]\\nno-index = true\\nfind-links = /opt/wheels\\n' > /etc/pip.conf
"""


def main(words: list[str]) -> int:
    """Boot it, show the account, and return the account's exit code."""
    problem = booted.missing()
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
        return 2
    machine = booted.machine(SUITE, PACKAGES, FETCH)
    command = f"/usr/bin/python3 -B /mnt/checkout/tests/support/installing.py {' '.join(words)}"
    return booted.boot(machine, "research-jobs-install", command, _fill)


def _fill(upper: Path) -> None:
    """Put this checkout beside the machine's own files."""
    booted.checkout(upper / "mnt" / "checkout")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
