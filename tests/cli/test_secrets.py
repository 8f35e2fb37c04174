"""A secret is in nothing that a run leaves behind but the data itself."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

import pytest

CANARY = "c4n'ary-<hidden>&value"
MANIFEST = """
secrets: [CANARY, OWN]
notebooks:
  tells:
    outputs:
      df: {not_null: [plain], unique: [plain]}
  fails:
    environment: {OWN: "own-c4nary-value"}
"""
TELLS = """\
# %% The secret is in the environment
import os, base64, logging
import pandas as pd
from IPython.display import HTML, JSON, Markdown, display
secret = os.environ["CANARY"]
df = pd.DataFrame({secret: [secret, "b"], "plain": [1, 2], "nested": [{secret: 1}, {secret: 2}]})

# %%
print(secret, repr(secret), base64.b64encode(b"user:" + secret.encode()))
logging.warning("it is %s", secret)
print("\\x1b[1m".join(secret))
display(df)
display(df[[secret]].style.format(escape="html"))
display(HTML("<b>" + "</b><b>".join((secret[:5], "-<hi")) + "</b>"), JSON({secret: secret}))
display(Markdown("# " + secret), metadata={"title": secret})

# %%
for half in (secret[:7], secret[7:]):
    os.write(1, half.encode())
secret
"""
FAILS = """\
# %%
import os
raise RuntimeError(f"cannot log in with {os.environ['CANARY']} or {os.environ['OWN']}")
"""


@pytest.fixture
def left(call: Any, tmp_path: Path) -> list[Path]:
    """Every file that two runs left behind, one of which failed."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "manifest.yaml").write_text(MANIFEST)
    (notebooks / "tells.py").write_text(TELLS)
    (notebooks / "fails.py").write_text(FAILS)
    environment = {"CANARY": CANARY}
    for name, code in (("tells", 0), ("fails", 1)):
        done = call("run", name, "--project", str(tmp_path), **environment)
        assert done.returncode == code, done.stdout + done.stderr
        assert CANARY not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    # The data is what the notebook made, and the sources are the user's own.
    return [
        path for path in files if path.relative_to(tmp_path).parts[0] not in ("data", "notebooks")
    ]


def test_no_file_holds_it(left: list[Path]) -> None:
    """Logs, reports, captured notebooks, the event log: none has the value, in any form."""
    assert {path.suffix for path in left} >= {".db", ".ipynb", ".html", ".out", ".err"}
    forms = [
        CANARY,
        html.escape(CANARY),
        CANARY.replace("'", "&#39;"),
        CANARY[4:16],
        "own-c4nary-value",
        base64.b64encode(b"user:" + CANARY.encode()).decode()[8:-4],
    ]
    for path in left:
        content = path.read_bytes()
        for form in forms:
            assert form.encode() not in content, (path, form)
