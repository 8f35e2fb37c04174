"""What each code of ``check`` means: ``check --explain CODE``, and the pages in ``docs/check/``.

``python -m research_jobs.cli.codes docs/check`` writes the pages.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomllib

__all__ = ["Code", "codes", "index", "page"]

_LANGUAGES = {".py": "python", ".yaml": "yaml"}


@dataclass(frozen=True)
class Code:
    """A kind of finding.

    Parameters
    ----------
    name : str
    what, why : str
    example : dict of str to str
        Files below ``notebooks/`` that have the finding.
    mended : dict of str to str
        Those that have it no longer.
    beside : dict of str to str
        Files that are there in both.
    """

    name: str
    what: str
    why: str
    example: Mapping[str, str]
    mended: Mapping[str, str]
    beside: Mapping[str, str] = field(default_factory=dict[str, str])


@cache
def codes() -> Mapping[str, Code]:
    """All codes by name, in the order of the index."""
    text = files("research_jobs.notebook").joinpath("codes.toml").read_text(encoding="utf-8")
    return {name: _code(name, entry) for name, entry in tomllib.loads(text).items()}


def _code(name: str, entry: dict[str, Any]) -> Code:
    for key in ("example", "mended"):
        if isinstance(entry[key], str):
            entry[key] = {"a.py": entry[key]}
    return Code(name, **entry)


def page(code: Code) -> str:
    """The page of a code, in Markdown."""
    parts = [
        f"# `{code.name}`: {code.what}",
        code.why,
        "## Example",
        *_blocks({**code.example, **code.beside}),
        "## Mended",
        *_blocks({name: code.mended[name] for name in code.mended}),
    ]
    return "\n\n".join(parts) + "\n"


def _blocks(shown: Mapping[str, str]) -> list[str]:
    return [
        f"`{_path(name)}`:\n\n```{_LANGUAGES.get(Path(name).suffix, 'text')}\n{text.strip()}\n```"
        for name, text in shown.items()
    ]


def _path(name: str) -> str:
    return name.removeprefix("../") if name.startswith("../") else f"notebooks/{name}"


def index() -> str:
    """The page that lists all codes."""
    rows = [f"| [`{name}`]({name}.md) | {code.what} |" for name, code in codes().items()]
    return "\n".join([_HEAD, *rows, ""])


_HEAD = """\
# Findings of `check`

[`research-jobs check`](../commands.md#check) names the code of each finding in brackets, and
`research-jobs check --explain CODE` prints its page. A comment `# parity: ignore[code]` on a line
silences that code there.

| code | what |
|---|---|"""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for one in codes().values():
        (folder / f"{one.name}.md").write_text(page(one), encoding="utf-8")
    (folder / "README.md").write_text(index(), encoding="utf-8")
