"""What can happen to a small file that somebody else's program, a full disk or a hand touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

DAMAGES = ("gone", "empty", "binary", "half", "null", "folder", "link", "circle")


def damage(path: Path, how: str) -> None:
    """Damage a file or link in one of the ways of `DAMAGES`."""
    content = b"000001" if path.is_symlink() else path.read_bytes()
    remove(path)
    if how == "folder":
        path.mkdir()
    elif how == "link":
        path.symlink_to("nowhere")
    elif how == "circle":
        path.symlink_to(path.name)
    elif how != "gone":
        made = {"empty": b"", "binary": bytes(range(256)), "null": b"null"}
        path.write_bytes(made.get(how, content[: len(content) // 2]))


def remove(path: Path) -> None:
    """Remove a file, a link or a folder; one that is gone already is well."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
