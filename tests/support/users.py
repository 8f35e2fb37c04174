"""Running tests as a user who is not root, for those who are (in CI)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]


def as_user(user: int) -> list[str]:
    """How a command begins that runs as another user.

    That user may read what root may, since the interpreter may lie in root's home.
    """
    able = "-all,+dac_read_search"
    who = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
    return ["setpriv", *who, f"--inh-caps={able}", f"--ambient-caps={able}", "--"]


def run_as_another_user(tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run tests in a pytest of their own as ``nobody``.

    That user owns one folder of temporary files.
    """
    folder = Path(tempfile.mkdtemp(prefix="nobody-"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [f"--basetemp={folder / 'tests'}", *tests]
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        command = [*as_user(NOBODY), *command]
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={
                **{name: os.environ[name] for name in ("PATH", "LANG", "CI") if name in os.environ},
                "HOME": str(folder),
                "TMPDIR": str(folder),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
