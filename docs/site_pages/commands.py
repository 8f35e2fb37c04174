"""The reference of commands, from the parsers that read them."""

from __future__ import annotations

import os
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from unittest.mock import patch

from research_jobs.cli import main

__all__ = ["page"]

INTRODUCTION = """\
# Command options

What `research-jobs COMMAND --help` prints. [Commands](../commands.md) explains them with examples.
"""


def page(_root: Path) -> str:
    """The page's Markdown."""
    parts = [INTRODUCTION]
    for heading, names in main.GROUPS.items():
        parts.append(f"## {heading}")
        parts += [f"### {name}\n\n```text\n{_help(name)}```" for name in names]
    return "\n\n".join(parts) + "\n"


def _help(name: str) -> str:
    module = import_module(
        f"research_jobs.cli.{name}_" if iskeyword(name) else f"research_jobs.cli.{name}"
    )
    with patch.dict(os.environ, {"COLUMNS": "82", "NO_COLOR": "1"}):
        return main._parser(name, module).format_help()  # noqa: SLF001 - the one that `main` uses
