"""``research-jobs reuse``: what is listed, and where each would go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from research_jobs.cli.main import main

MEAN = "def mean(values):\n    total = sum(values)\n    return total / len(values)\n"
OTHER = "def mean(values):\n    values = sorted(values)\n    return values[len(values) // 2]\n"


def test_each_repeat_has_a_helper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Next to its notebooks or above them; two functions of one name do not share a module."""
    files = {
        "vol/a.py": f"# %%\n{MEAN}",
        "vol/b.py": f"# %%\nlimit = 1\n{MEAN}",
        "vol/c.py": f"# %%\n{OTHER}",
        "vol/d.py": f"# %%\n{OTHER}",
        "e.py": "# %%\ndef f(x):\n    y = x + 1\n    return y * limit\n",
        "vol/f.py": "# %%\ndef f(x):\n    y = x + 2\n    return y * limit\n",
        "helpers.py": "# %%\nlimit = 2\n",
        "broken_helper.py": "x = (",
    }
    for name, text in files.items():
        path = tmp_path / "notebooks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert main(["reuse", "--json", "--project", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["module"], one["import"], one["saved"]) for one in found] == [
        ("notebooks/helpers2.py", "from helpers2 import f", 1),
        ("notebooks/vol/helpers.py", "from vol.helpers import mean", 1),
        ("notebooks/vol/helpers2.py", "from vol.helpers2 import mean", 1),
    ]
    assert (found[0]["needs"], found[0]["differing_constants"]) == (["limit"], 1)
    assert [copy["path"] for copy in found[1]["copies"]] == [
        "notebooks/vol/a.py",
        "notebooks/vol/b.py",
    ]
    assert main(["reuse", "--project", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "  notebooks/e.py:2, notebooks/vol/f.py:2"
    assert lines[2].endswith(
        "import f (1 constant differs: make it an argument) (it needs limit too)"
    )
    assert lines[-1] == "7 notebooks, 3 repeats: helpers save 3 lines"
