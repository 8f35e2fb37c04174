"""Files made to hold up or take down a scan: each costs little, or is one line of error.

Every case is a megabyte of its worst in a process that may use a few seconds of CPU and a bounded
address space; a scan that is not linear is killed by the kernel.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

SIZE = 990_000  # below the size from which words are counted
CPU_SECONDS = 20
ADDRESS_SPACE = 3 * 2**30

PROGRAM = """\
import sys
from pathlib import Path
from research_jobs.notebook.scan import scan
from research_jobs.project import Project
found = scan(Project(Path(sys.argv[1]), store=""), use_cache=False)
assert found.get("good").error is None
problems = [n.error for n in found.notebooks if n.error] + list(found.problems)
print(str(problems[0])[:20_000] if problems else "fine")
"""


def scanned(folder: Path, data: bytes) -> str:
    """What a scan says of a file with these bytes: its error, or ``fine``."""
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    (notebooks / "bad.py").write_bytes(data)
    (notebooks / "good.py").write_text("# %%\nx = 1\n", encoding="utf-8")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout.strip()


def times(text: str, size: int = SIZE) -> str:
    """A text, repeated up to a size."""
    return text * (size // len(text))


QUOTES = '"' * 3
GALLERY = '"""\nTitle\n=====\n\n'
PARAMETERS = '# %% tags=["parameters"]\n'
LOAD = "# %%\nfrom research_jobs import load\n"

FINE = {
    "keys": "# %% " + times("a=b ") + "\n",
    "open brackets": "# %% " + times("a=[ ") + "\n",
    "open quotes": "# %% " + times('a=" ') + "\n",
    "open braces": "# %% " + times("{ ") + "\n",
    "nested braces": "# %% " + times("{ ", SIZE // 2) + times("} ", SIZE // 2) + "\n",
    "signs": "# %% a=" + times("-") + "1\n",
    "deep lists": "# %% a=" + times("[", SIZE // 2) + times("]", SIZE // 2) + "\n",
    "spaces": "# %% tags" + times(" ") + "x\n",
    "cells": times("# %%\n"),
    "prose cells": times("# %% [markdown]\n# a\n"),
    "databricks": "# Databricks notebook source\n" + times("# COMMAND ----------\n# MAGIC %md a\n"),
    "rules": GALLERY + '"""\n' + times("#" * 20 + "\n# a\n\n"),
    "hashes": "# %%\n" + times("#" + " " * 998 + "\n"),
    "a long string": '# %%\nx = """' + times("a") + '"""\n',
    "backslashes": '# %%\nx = """' + times("\\\\") + '"""\n',
    "statements": "# %%\n" + times("x=1\n", SIZE // 2),
    "one line": "# %%\n" + times("x=1;", SIZE // 2) + "\n",
    "parameters on a line": PARAMETERS + "".join(f"a{i}=1;" for i in range(60_000)) + "\n",
    "odd parameters on a line": PARAMETERS + "".join(f"é{i}=1;" for i in range(60_000)) + "\n",
    "parameters below comments": (
        PARAMETERS + times("# c\n", SIZE // 2) + "".join(f"a{i}=1;" for i in range(30_000)) + "\n"
    ),
    "a sum": PARAMETERS + "x = " + "+".join(["f()"] * 900) + "\n",
    "elif": "# %%\nif 0: pass\n" + "elif 0: x = 1\n" * 900,
    "reST roles": GALLERY + times(":a") + '\n"""\n# %%\n',
    "reST references": GALLERY + times(":ref:`") + '\n"""\n# %%\n',
    "reST spaces": GALLERY + "`a" + times(" ") + '`\n"""\n# %%\n',
    "reST directives": (
        GALLERY + "".join("  " * i + ".. note::\n\n" for i in range(900)) + '"""\n# %%\n'
    ),
    "reST directives, few": (
        GALLERY + "".join("  " * i + ".. note::\n\n" for i in range(200)) + '"""\n# %%\n'
    ),
    "coding": "#" + times(" coding ") + "\n# %%\n",
    "loads": LOAD + times("load(x)\n", SIZE // 4),
    "aliases": LOAD + "".join(f"l{i + 1}=l{i}\n" for i in reversed(range(30_000))) + "l0=load\n",
}

REFUSED = {
    "brackets": ("# %%\nx = " + times("(") + "\n", "too many nested parentheses"),
    "minus": ("# %%\nx = " + times("-") + "1\n", "nested too deeply"),
    "attributes": ("# %%\nx" + times(".a") + "\n", "nested too deeply"),
    "sums": ("# %%\nx = " + times("1+") + "1\n", "nested too deeply"),
    "elifs": ("# %%\nif 0: pass\n" + times("elif 0: pass\n"), "nested too deeply"),
    "lambdas": ("# %%\nx = " + times("lambda: ") + "1\n", "nested too deeply"),
    "fields": ("# %%\nx = f'" + times("{a}") + "'\n", "an f-string of more than 10,000 fields"),
    "an import": ("# %%\nimport a" + times(".a") + "\n", "more than 10,000 parts"),
    "a million statements": ("# %%\n" + "x=1\n" * 10**6, "more than 1,000,000 tokens"),
    "ten megabytes of data": ("# %%\nx = [" + "0," * 5 * 10**6 + "]\n", "tokens"),
    "a magic": ("# %%\n%" + times("a") + "\n", "invalid syntax"),
    "NULs": ("# %%\n" + times("\0"), "null bytes"),
    "an open string": ('# %%\nx = """' + times('"a'), "unterminated"),
}


@pytest.mark.parametrize("name", FINE)
def test_a_megabyte_is_read(tmp_path: Path, name: str) -> None:
    """It costs a few seconds of CPU at most, and the other notebooks are read."""
    assert scanned(tmp_path, FINE[name].encode()) == "fine"


@pytest.mark.parametrize("name", REFUSED)
def test_a_megabyte_is_refused(tmp_path: Path, name: str) -> None:
    """One short error for that notebook alone."""
    text, message = REFUSED[name]
    said = scanned(tmp_path, text.encode())
    assert said.startswith("notebooks/bad.py")
    assert message in said.split("\n")[0]
    assert len(said) < 1_500


def test_ten_megabytes_of_text_are_read(tmp_path: Path) -> None:
    """Long strings, comments and many cells are source code."""
    text = "# %%\n" + "# " + "a" * 3_000_000 + QUOTES.join(["\nx = ", "b\n" * 3_000_000, "\n"])
    assert scanned(tmp_path, (text + "# %%\nx = 1\n" * 50_000).encode()) == "fine"


@pytest.mark.parametrize(
    "codec",
    ["idna", "punycode", "undefined", "rot13", "hex", "base64", "zlib", "uu", "unicode_escape",
     "raw_unicode_escape", "utf-7", "utf-16", "utf-32", "mbcs", "oem", "latin-1", "cp037", "nope",
     "utf_8_sig", "ascii", "shift_jis", "..", "-"],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"x = 1\n", b"x = '+2AA-\\ud800\xff\xfe'\n"], ids=["plain", "odd"]
)
def test_any_coding_line_is_text_or_one_error(tmp_path: Path, codec: str, body: bytes) -> None:
    """Whatever an encoding makes of a file, it is read or is an error of that file."""
    from research_jobs.notebook.scan import scan
    from research_jobs.project import Project

    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "bad.py").write_bytes(b"# -*- coding: " + codec.encode() + b" -*-\n# %%\n" + body)
    (notebooks / "good.py").write_text("# %%\nx = 1\n", encoding="utf-8")
    found = scan(Project(tmp_path, store=""))
    assert found.get("good").error is None
    errors = [n.error for n in found.notebooks if n.error] + list(found.problems)
    for error in errors:
        assert error.headline.startswith("notebooks/bad.py")
        assert "\n" not in error.headline
