"""An ``ssh`` without a network, which ends where a test says: after a frame, and within one."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """
import os, subprocess, sys

folder = os.path.dirname(os.path.abspath(__file__))
cuts = open(folder + "/cuts").read().splitlines() if os.path.exists(folder + "/cuts") else []
cut = cuts[0].encode() if cuts else b""
with open(folder + "/cuts", "w") as file:
    file.write("\\n".join(cuts[1:]))
far = subprocess.Popen(["sh", "-c", sys.argv[-1]], stdout=subprocess.PIPE)


def send(block):
    while block:
        block = block[os.write(1, block):]


seen = b""
while not seen.endswith(b"remote-serve\\0\\n"):
    letter = far.stdout.read(1)
    if not letter:
        sys.exit(far.wait())
    seen += letter
if cut == b"greeting":
    send(seen[:-9])
    sys.exit(255)
send(seen)
while len(head := far.stdout.read(8)) == 8:
    length, size = (int.from_bytes(head[n:n + 4], "big") for n in (0, 4))
    header = far.stdout.read(length)
    body = far.stdout.read(size)
    frame = head + header + body
    if cut and cut in header:
        send(frame[:len(frame) - 2])  # in the middle of what is said
        sys.exit(255)
    send(frame)
sys.exit(far.wait())
"""


@dataclass(frozen=True)
class CutSsh:
    """A folder with that program, to go before PATH."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        program = self.folder / "ssh"
        program.write_text(f"#!{sys.executable} -IS\n{_PROGRAM}")
        program.chmod(0o755)

    def cut(self, *places: str) -> None:
        """Where the next connections end, one each: ``greeting``, or a text of a frame's header."""
        (self.folder / "cuts").write_text("\n".join(places))
