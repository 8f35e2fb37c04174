"""The index of decisions, from the titles of their files."""

from __future__ import annotations

from pathlib import Path

__all__ = ["page"]


def page(root: Path) -> str:
    """The page's Markdown."""
    lines = [
        "# Decisions",
        "",
        "Each record states a question, what was measured, and the choice.",
        "",
        "| number | question |",
        "|---|---|",
    ]
    for path in sorted((root / "docs" / "decisions").glob("[0-9]*.md")):
        heading = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        number, _, question = heading.partition(" · ")
        lines.append(f"| {number} | [{question or heading}]({path.name}) |")
    return "\n".join(lines) + "\n"
