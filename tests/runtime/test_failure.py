"""The one line of a failure says in which file it went wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from research_jobs.notebook.cells import read_notebook_text
from research_jobs.runtime.failure import describe_failure
from research_jobs.runtime.importer import import_notebook

HELPERS = ("own_helper", "own_second")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of a notebook and its helpers."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in HELPERS:
        sys.modules.pop(name, None)


def headline(folder: Path, cell: str, helper: bytes = b"", second: bytes = b"") -> str:
    """What is said of a notebook that fails."""
    (folder / "study.py").write_text(f"# %%\n{cell}\n")
    for name, source in zip(HELPERS, (helper, second), strict=True):
        (folder / f"{name}.py").write_bytes(source)
    importlib.invalidate_caches()
    text = read_notebook_text(folder / "study.py")
    with pytest.raises(BaseException) as raised:
        import_notebook(text, "study")
    return describe_failure(raised.value, text, folder).headline


@pytest.mark.parametrize(
    ("raised", "end"),
    [
        ("SyntaxError", "SyntaxError"),
        ("SyntaxError(5)", "SyntaxError: 5"),
        ("Silent", "Silent: (its message cannot be shown)"),
    ],
)
def test_exceptions_without_a_text(folder: Path, raised: str, end: str) -> None:
    """What an exception is takes no text of it, even if to ask for one would end the process."""
    cell = "class Silent(Exception):\n    def __str__(self): raise SystemExit(0)\nraise " + raised
    assert headline(folder, cell) == f"study.py:4, cell 1: {end}"


@pytest.mark.parametrize(
    ("helper", "end"),
    [
        (b"x = 1\ndef f(:\n", "SyntaxError: invalid syntax (in own_helper.py:2)"),
        (b"def f():\nx = 1\n", "(in own_helper.py:2)"),
        (b"def f():\n\tx = 1\n        y = 2\n", "(in own_helper.py:3)"),
        (b"x = '\xff'\n", "(in own_helper.py:1)"),
        (b"# coding: no-such-coding\n", "(in own_helper.py)"),
        (b"x = 1\0\n", "source code string cannot contain null bytes (in own_helper.py)"),
        (b"x = 1\nraise KeyError('a')\n", "KeyError: 'a' (in own_helper.py:2)"),
        (b"import no_such_module\n", "(in own_helper.py:1)"),
        (b"import json\n\njson.loads('{')\n", "(in own_helper.py:3)"),
    ],
)
def test_an_import_that_fails(folder: Path, helper: bytes, end: str) -> None:
    """Whatever keeps a helper from being imported, the line names the helper and its line."""
    found = headline(folder, "import own_helper", helper)
    assert found.startswith("study.py:2, cell 1: ")
    assert found.endswith(end)
    found = headline(folder, "import own_helper", b"import own_second\n", helper)
    assert found.endswith(end.replace("own_helper", "own_second"))


@pytest.mark.parametrize(
    ("cell", "end"),
    [
        ("import own_helper\nown_helper.f(1)", "ValueError: bad (in own_helper.py:2)"),
        ("import own_helper\nown_helper.g(lambda: 1 / 0)", "division by zero"),
        ("1 / 0", "division by zero"),
        ("import json\njson.loads('{')", "(char 1)"),
        ("exec('a b')", "invalid syntax (in <string>:1)"),
        ("import ast\nast.literal_eval('{')", "'{' was never closed (in <unknown>:1)"),
        ("x = (", "'(' was never closed"),
    ],
)
def test_where_it_went_wrong(folder: Path, cell: str, end: str) -> None:
    """A helper's line is named where the error is the helper's, and only then."""
    helper = b"def f(x):\n    raise ValueError('bad')\ndef g(call):\n    return call()\n"
    assert headline(folder, cell, helper).endswith(end)


BELOW = "try: read('no')\nexcept Exception as error: raise ValueError(1) from error"
OURS = {
    "no cell takes it": ("x = 1", {"given": 1}),
    "an enum": ("import enum\nKind = enum.Enum('Kind', 'A B')\nkind = Kind.A", {"kind": "C"}),
    "a load": ("from research_jobs import load\nload('nothing')", {}),
    "a load below": (f"from research_jobs import load as read\n{BELOW}", {}),
    "a syntax error": ("x = (", {}),
}


@pytest.mark.parametrize("case", OURS)
def test_our_own_frames_are_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """What this program raises is shown with the notebook's frames, or with none."""
    monkeypatch.setenv("RESEARCH_JOBS_STORE", str(folder / "data"))
    cell, parameters = OURS[case]
    tag = "" if case == "no cell takes it" else ' tags=["parameters"]'
    (folder / "study.py").write_text(f"# %%{tag}\n{cell}\n")
    text = read_notebook_text(folder / "study.py")
    with pytest.raises(BaseException) as raised:
        import_notebook(text, "study", parameters=parameters)
    frames = raised.value.__traceback__
    assert frames is not None
    raised.value.__traceback__ = frames.tb_next  # in a run no test calls the notebook
    text_of_failure = describe_failure(raised.value, text, folder).traceback
    files = [
        line.split('"')[1] for line in text_of_failure.splitlines() if line.startswith('  File "')
    ]
    assert set(files) <= {"study.py", str(folder / "study.py")}
    assert ("(most recent call last)" in text_of_failure) == (case in ("a load", "a load below"))
    assert text_of_failure.splitlines()[-1].strip()
