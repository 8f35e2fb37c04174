"""Ask a Python of our own something that only another process should import."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["ask_python"]


def ask_python(words: Sequence[str], seconds: float) -> dict[str, Any]:
    """The JSON that a process prints as its last line.

    Parameters
    ----------
    words : sequence of str
        Arguments of this interpreter.
    seconds : float
        How long it may take.

    Returns
    -------
    dict
        Without an answer, ``{"error": ...}``: the last line of what it says on stderr.
    """
    try:
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {seconds:g} s"}
    try:
        return json.loads(done.stdout.strip().rpartition("\n")[2])
    except ValueError:
        return {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1][:200]}
