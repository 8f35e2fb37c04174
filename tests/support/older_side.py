"""A far side of another version, which says what it can and then does one thing."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_PROGRAM = """
import sys
from research_jobs.remote.frames import GREETING, Frames

out = sys.stdout.buffer
out.write(GREETING)
frames = Frames(sys.stdin.buffer, out)
frames.receive()
frames.send({said})
{then}
"""


def older_side(folder: Path, version: str, can: Sequence[str], then: str) -> str:
    """The command of such a side; `then` is Python, and knows `frames` and `sys`."""
    script = folder / "older.py"
    said = {"protocol": 1, "version": version, "can": list(can)}
    script.write_text(_PROGRAM.format(said=said, then=then))
    return shlex.join([sys.executable, str(script)])
