"""``python -m research_jobs.manifest [FILE]``: write the manifest's JSON schema."""

from __future__ import annotations

import sys
from pathlib import Path

from research_jobs.manifest.schema import schema_text
from research_jobs.project import find_project

if __name__ == "__main__":
    target = (
        Path(sys.argv[1])
        if len(sys.argv) > 1
        else find_project().notebooks / "manifest.schema.json"
    )
    target.write_text(schema_text(), encoding="utf-8")
    sys.stdout.write(f"{target}\n")
