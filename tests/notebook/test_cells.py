"""The percent grammar, dialect by dialect."""

from __future__ import annotations

import codecs
import hashlib
import os
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.errors import NotebookError, NotebookSyntaxError
from research_jobs.notebook.cells import (
    Cell,
    cell_at,
    cell_label,
    has_marker,
    parse_cells,
    read_notebook_text,
)
from research_jobs.notebook.decoding import SIZE_LIMIT, read_bytes, shown_path


def cells(text: str) -> tuple[Cell, ...]:
    return parse_cells(textwrap.dedent(text))


def outline(text: str) -> list[tuple[str, str]]:
    """Kind and source, blank edges aside."""
    return [(cell.kind.value, cell.source.strip()) for cell in cells(text)]


def test_a_cell_runs_from_its_marker_to_the_next() -> None:
    """Numbers, lines and sources are those that an editor shows."""
    first, second, third = cells(
        """\
        import numpy as np

        # %% Load prices
        prices = 1
        # %%
        """
    )
    assert (first.number, first.marker_line, first.first_line, first.last_line) == (1, None, 1, 2)
    assert first.source == "import numpy as np\n"
    assert (second.number, second.marker_line, second.first_line, second.last_line) == (2, 3, 4, 4)
    assert second.title == "Load prices"
    assert second.source == "prices = 1"
    assert (third.marker_line, third.first_line, third.last_line, third.source) == (5, 6, 5, "")


@pytest.mark.parametrize(
    ("line", "title", "kind", "tags", "metadata"),
    [
        ("# %%", None, "code", (), {}),
        ("#%%", None, "code", (), {}),
        ("#  %%", None, "code", (), {}),
        ("#%%Load", "Load", "code", (), {}),
        ("# %% Load prices", "Load prices", "code", (), {}),
        ("# %%% Deeper", "Deeper", "code", (), {"cell_depth": 1}),
        ("# %%%time", "time", "code", (), {"cell_depth": 1}),
        ("# %%%%", None, "code", (), {"cell_depth": 2}),
        ("# %% [markdown]", None, "markdown", (), {}),
        ("# %% raw", None, "raw", (), {}),
        ("# %%[markdown]", None, "markdown", (), {}),
        ("# %% [md] Intro", "Intro", "markdown", (), {}),
        ("# %% Intro [markdown]", "Intro", "markdown", (), {}),
        ("# %% [raw]", None, "raw", (), {}),
        ("# %% [code] x", "x", "code", (), {}),
        ("#%% md", None, "markdown", (), {}),
        ("# %% [1] Load", "[1] Load", "code", (), {}),
        ("# %% [Markdown] x", "x", "markdown", (), {}),
        ("# %% [RAW]", None, "raw", (), {}),
        ("#%% MD", None, "markdown", (), {}),
        ("# %% [markdown] [raw] x", "[raw] x", "markdown", (), {}),
        ("# %% [code] [markdown]", "[markdown]", "code", (), {}),
        ("# %% [markdownish] x", "[markdownish] x", "code", (), {}),
        ("# COMMAND -----", None, "code", (), {}),
        ('# %% tags=["parameters"]', None, "code", ("parameters",), {}),
        ("# %% tags=['parameters', 'x']", None, "code", ("parameters", "x"), {}),
        ("# %% tags = ['parameters']", None, "code", ("parameters",), {}),
        ("# %% tags=[parameters]", None, "code", ("parameters",), {}),
        ('# %% tags="parameters"', None, "code", ("parameters",), {}),
        ("# %% tags=parameters", None, "code", ("parameters",), {}),
        ('# %% Set [markdown] tags=["a"] k="v w"', "Set", "markdown", ("a",), {"k": "v w"}),
        ('# %% {"tags": ["parameters"], "n": 1}', None, "code", ("parameters",), {"n": 1}),
        ("# %% a=true b=2 c=None", None, "code", (), {"a": True, "b": 2, "c": None}),
        ('# %% x={"a": [1, 2]} T', "T", "code", (), {"x": {"a": [1, 2]}}),
        ("# %% What if a=b? {c", "What if a=b? {c", "code", (), {}),
        ('# %% open="', 'open="', "code", (), {}),
        ("# In[12]:", None, "code", (), {}),
        ("# In[ ]:", None, "code", (), {}),
        ("# <codecell>", None, "code", (), {}),
        ("# <markdowncell>", None, "markdown", (), {}),
        ("# COMMAND ----------", None, "code", (), {}),
    ],
)
def test_marker_lines(
    line: str, title: str | None, kind: str, tags: tuple[str, ...], metadata: dict[str, object]
) -> None:
    """Every spelling of a marker line gives kind, title, tags and metadata."""
    assert has_marker(line)
    (cell,) = parse_cells(line)
    assert (cell.title, cell.kind.value, cell.tags, dict(cell.metadata)) == (
        title,
        kind,
        tags,
        metadata,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "    # %% indented",
        "x = 1  # %%",
        "# %matplotlib inline",
        "# %%time",
        "# %%bash -e",
        "# !ls",
        "# % % no",
        "# COMMAND ----",
        "# COMMAND ---------- x",
        "# In [the end]",
        's = """\n# %% in a string\n"""',
        "s = '''\n# %%\n'''",
        "s = 'a\\\n# %%'",
        "'''\n# %%",
        "#" * 40 + "\n# A banner\n" + "#" * 40 + "\nx = 1",
        '"""A helper.\n\nNo title.\n"""\n' + "#" * 30 + "\n# Section\n",
        '"""\nTitle\n=====\n"""\n' + "#" * 30 + "\n# A banner\n" + "#" * 30 + "\nx = 1\n",
    ],
)
def test_what_is_no_marker(text: str) -> None:
    """Strings, magics, indented lines and ruled banners make no notebook of a helper module."""
    assert not has_marker(text)


def test_a_marker_behind_a_string_counts() -> None:
    """Only what is inside the string is hidden."""
    assert has_marker('s = """\n# %%\n"""\n# %%\n')
    assert [cell.first_line for cell in parse_cells('s = """\n# %%\n"""\n# %%\n')] == [1, 5]


def test_markdown_in_comments() -> None:
    """One hash and one space are the prefix; blank lines between comments belong to the text."""
    assert outline(
        """\
        # %% [markdown]
        # # Title
        #
        # - item
        #   more
        #tight

        # last
        # %%
        x = 1
        """
    ) == [("markdown", "# Title\n\n- item\n  more\ntight\n\nlast"), ("code", "x = 1")]


@pytest.mark.parametrize("quotes", ['"""', "'''", 'r"""'])
def test_markdown_in_a_string(quotes: str) -> None:
    """VS Code's and jupytext's other way to write prose."""
    end = quotes[-3:]
    assert outline(f"# %% [markdown]\n\n{quotes}\n# Title\n\n$\\alpha$\n{end}\n") == [
        ("markdown", "# Title\n\n$\\alpha$")
    ]


def test_code_below_prose_is_a_cell_of_its_own() -> None:
    """A plain import runs it, so it must not vanish into the prose."""
    assert outline("# %% [markdown]\n# Text\nx = 1\n") == [("markdown", "Text"), ("code", "x = 1")]
    assert outline('# %% [md]\n"""Text"""\n\nx = 1\n') == [("markdown", "Text"), ("code", "x = 1")]
    assert outline("# %% [markdown]\nx = 1\n") == [("markdown", ""), ("code", "x = 1")]
    assert outline('# %% [markdown]\n"""Text""".strip()\n') == [
        ("markdown", ""),
        ("code", '"""Text""".strip()'),
    ]


def test_comments_at_the_top_of_a_code_cell_are_code() -> None:
    """VS Code's reading wins outside gallery files, with or without a blank line below."""
    text = "# %%\n# load the prices\n\nprices = 1\n"
    assert outline(text) == [("code", "# load the prices\n\nprices = 1")]


GALLERY = '''\
"""
.. _example:

=========
My figure
=========

What it shows.
"""
# License: BSD
import numpy as np

# %%
# Data
# ----
#
# Some prose.
x = np.arange(3)
# a comment

####################
# More prose
# in hashes.

y = x

# %% Titled
# a comment of the code
z = y

# %%
w = z
'''


def test_gallery_files() -> None:
    """An rst title in the docstring makes comments below a bare marker prose."""
    assert outline(GALLERY) == [
        ("markdown", ".. _example:\n\n=========\nMy figure\n=========\n\nWhat it shows."),
        ("code", "# License: BSD\nimport numpy as np"),
        ("markdown", "Data\n----\n\nSome prose."),
        ("code", "x = np.arange(3)\n# a comment"),
        ("markdown", "More prose\nin hashes."),
        ("code", "y = x"),
        ("code", "# a comment of the code\nz = y"),
        ("code", "w = z"),
    ]
    prose, code = cells(GALLERY)[2:4]
    assert (prose.marker_line, code.marker_line) == (13, None)


def test_a_gallery_file_with_rules_only_is_a_notebook() -> None:
    """Older galleries have no `# %%` at all."""
    text = '"""\nTitle\n=====\n"""\n' + "#" * 79 + "\n# Prose\n\nx = 1\n"
    assert has_marker(text)
    assert outline(text)[1:] == [("markdown", "Prose"), ("code", "x = 1")]


def test_a_leading_docstring_is_prose() -> None:
    """With or without a title, and whatever stands above it."""
    text = (
        '#!/usr/bin/env python\n# coding: utf-8\n\n"""Volatility of\n    oil."""\n\n# %%\nx = 1\n'
    )
    first = cells(text)[0]
    assert (first.kind.value, first.source) == ("markdown", "Volatility of\noil.")
    assert (first.first_line, first.last_line, first.marker_line) == (4, 6, None)


def test_a_string_that_is_no_docstring_is_code() -> None:
    """Concatenated, in an expression, an f-string, or sharing its line with code."""
    for text in ('"a" "b"\n', '"a".strip()\n', 'f"a"\n', 'b"a"\n', '"a"; x = 1\n', 'x = "a"\n'):
        assert [cell.kind.value for cell in parse_cells(text + "# %%\n")] == ["code", "code"]


def test_jupytext_header_is_no_cell() -> None:
    """The YAML between `# ---` lines is neither prose nor code."""
    header = "# ---\n# jupyter:\n#   jupytext:\n#     text: x\n# ---\n"
    assert outline(header + "\n# %%\nx = 1\n") == [("code", "x = 1")]
    assert outline(header + "import os\n# %%\n") == [("code", "import os"), ("code", "")]
    assert outline("# ---\n# just a rule\nimport os\n# %%\n")[0] == (
        "code",
        "# ---\n# just a rule\nimport os",
    )


def test_comments_above_the_first_marker_are_no_cell() -> None:
    """A licence or a coding line shifts no numbers."""
    assert [cell.number for cell in cells("#!/usr/bin/env python\n# (c)\n\n# %%\nx\n")] == [1]


DATABRICKS = """\
# Databricks notebook source
# MAGIC %md
# MAGIC # Title
# MAGIC
# MAGIC text

# COMMAND ----------

# DBTITLE 1,Load prices
x = 1

# COMMAND ----------

# MAGIC %sql
# MAGIC select 1

# COMMAND ----------

# DBTITLE 1,Why
# MAGIC %md-sandbox why
"""


def test_databricks_files() -> None:
    """`# MAGIC %md` is prose, other magics are raw, `# DBTITLE` is the title."""
    assert outline(DATABRICKS) == [
        ("markdown", "# Title\n\ntext"),
        ("code", "# DBTITLE 1,Load prices\nx = 1"),
        ("raw", "%sql\nselect 1"),
        ("markdown", "why"),
    ]
    found = cells(DATABRICKS)
    assert [cell.title for cell in found] == [None, "Load prices", None, "Why"]
    assert found[2].metadata == {"magic": "sql"}
    assert has_marker("# Databricks notebook source\nx = 1\n")


def test_nbconvert_scripts() -> None:
    """`jupyter nbconvert --to script` writes cells that VS Code understands, and so do we."""
    text = "#!/usr/bin/env python\n# coding: utf-8\n\n# In[1]:\n\n\nx = 1\n\n# In[ ]:\n\n\nx\n"
    assert outline(text) == [("code", "x = 1"), ("code", "x")]


def test_line_ends_and_marks_of_windows(tmp_path: Path) -> None:
    """CRLF, a byte order mark and a missing last line end change no cell."""
    path = tmp_path / "study.py"
    path.write_bytes(codecs.BOM_UTF8 + "# %% Café\r\nx = 1\r\n\r\n# %%\r\ny = 2".encode())
    text = read_notebook_text(path)
    assert [(cell.title, cell.source) for cell in text.cells] == [
        ("Café", "x = 1\n"),
        (None, "y = 2"),
    ]
    assert "\r" not in text.text
    assert text.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_pep_263_coding_line(tmp_path: Path) -> None:
    """Another encoding is understood where the first two lines name it."""
    path = tmp_path / "study.py"
    path.write_bytes("#!/usr/bin/python\n# -*- coding: latin-1 -*-\n# %% Café\n".encode("latin-1"))
    assert read_notebook_text(path).cells[0].title == "Café"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"# %%\nx = '\xff'\n", "notebooks/study.py:2:6: byte 0xff is not utf-8"),
        (b"# coding: klingon\n# %%\n", "notebooks/study.py:1: the coding line names an unknown"),
        (b"# coding: base64\n# %%\n", "notebooks/study.py:1: the coding line names an unknown"),
    ],
)
def test_bytes_that_are_no_text(tmp_path: Path, data: bytes, message: str) -> None:
    """The line is named, with what to do."""
    path = tmp_path / "notebooks" / "study.py"
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(NotebookSyntaxError) as caught:
        read_notebook_text(path)
    assert str(caught.value).startswith(message)
    assert "UTF-8" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and one that is no source are errors of ours, not of Python."""
    with pytest.raises(NotebookError, match="no such file"):
        read_notebook_text(tmp_path / "missing.py")
    with pytest.raises(NotebookError, match="directory"):
        read_notebook_text(tmp_path)
    large = tmp_path / "large.py"
    with large.open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    with pytest.raises(NotebookError, match="larger than 32 MiB"):
        read_notebook_text(large)
    os.truncate(large, SIZE_LIMIT)
    assert len(read_bytes(large)) == SIZE_LIMIT


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/notebooks/project/notebooks/sub/study.py", "notebooks/sub/study.py"),
        ("/home/notebooks/study.py", "notebooks/study.py"),
        ("/home/study.py", "/home/study.py"),
        ("/home/notebooks", "/home/notebooks"),
    ],
)
def test_paths_as_a_person_sees_them(path: str, shown: str) -> None:
    """A path begins at the innermost folder of notebooks above the file, else it is whole."""
    assert shown_path(Path(path)) == shown


@pytest.mark.parametrize("width", [20, 21, 79])
def test_rules_of_a_banner_begin_no_prose(width: int) -> None:
    """In a gallery file comments between two lines of twenty or more `#` are a banner, and code."""
    title, rule = '"""\nA longer title\n===\n"""\n', "#" * width
    assert outline(f"{title}{rule}\n# Prose\n\nx = 1\n")[1:] == [
        ("markdown", "Prose"),
        ("code", "x = 1"),
    ]
    assert not has_marker(f"{title}{rule}\n# A banner\n{rule}\nx = 1\n")
    assert not has_marker(f"{title}{'#' * 19}\n# Prose\n\nx = 1\n")


def test_cell_at_and_label() -> None:
    """A line belongs to the cell whose marker or body it is in."""
    found = parse_cells("# licence\n# %% Load\nx = 1\n# %%\n# %% End\n")
    assert [(line, getattr(cell_at(found, line), "number", None)) for line in range(7)] == [
        (0, None),
        (1, None),
        (2, 1),
        (3, 1),
        (4, 2),
        (5, 3),
        (6, None),
    ]
    assert [cell_label(cell) for cell in found] == ['cell 1 "Load"', "cell 2", 'cell 3 "End"']


# --- properties --------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "# %%", "#%% T", "# %% [markdown]", "# %% [raw] x", "# %%time", "# %%% s", "# In[1]:",
        "# COMMAND ----------", "# Databricks notebook source", "# MAGIC %md t", "# DBTITLE 1,T",
        "#" * 25, "# text", "#", "", "   ", "x = 1", "    y", '"""', "'''", '"', "s = '''a", "\\",
        "Title", "=====", "# ---", "f(", ")", "\f", "\x1c", "\u2028", "é = '\\", "%time x", "!ls",
    ]
)  # fmt: skip
TEXTS = st.one_of(
    st.text(),
    st.lists(PIECES).map("\n".join),
    st.lists(PIECES).map(lambda lines: '"""\nTitle\n=====\n"""\n' + "\n".join(lines)),
    st.lists(PIECES).map("\r\n".join),
)


@given(TEXTS)
def test_parsing_is_total_and_cells_cover_the_file(text: str) -> None:
    """Any text has cells, which follow each other without gap to the last line."""
    found = parse_cells(text)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    assert [cell.number for cell in found] == list(range(1, len(found) + 1))
    position = 1
    for index, cell in enumerate(found):
        start = cell.marker_line or cell.first_line
        if index == 0:
            assert all(not line.strip() or line.startswith("#") for line in lines[: start - 1])
        else:
            assert start == position
        if cell.marker_line is not None:
            assert cell.first_line == cell.marker_line + 1
        assert cell.last_line >= cell.first_line - 1
        if cell.kind.value == "code":
            assert cell.source == "\n".join(lines[cell.first_line - 1 : cell.last_line])
        position = cell.last_line + 1
    if found:
        assert position == len(lines) + 1
    else:
        assert all(not line.strip() or line.lstrip().startswith("#") for line in lines)


@given(TEXTS)
def test_every_code_line_is_in_a_code_cell(text: str) -> None:
    """What a plain import might run is never shown as prose, strings aside."""
    if '"' in text or "'" in text:
        return
    found = parse_cells(text)
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            cell = cell_at(found, number)
            assert cell is not None
            assert cell.kind.value == "code"


@given(TEXTS)
def test_a_file_with_a_marker_has_a_cell_with_one(text: str) -> None:
    """`has_marker` and `parse_cells` agree."""
    assert has_marker(text) == any(cell.marker_line for cell in parse_cells(text))


MAGICS = (
    "bash bigquery capture cython debug file html javascript js latex lprun markdown memit mprun "
    "perl prun pypy python python2 python3 R ruby script sh snakeviz spark sql svg system sx time "
    "timeit writefile"
)


@pytest.mark.parametrize("magic", MAGICS.split())
def test_magics_that_jupytext_comments_out(magic: str) -> None:
    """`# %%time` is a magic and no marker, for every cell magic; `# %% time` is a title."""
    assert not has_marker(f"# %%{magic}")
    assert not has_marker(f"# %%{magic} -n 1\nx = 1\n")
    assert parse_cells(f"# %% {magic} x")[0].title == f"{magic} x"
    assert parse_cells(f"#%%{magic}ish")[0].title == f"{magic}ish"
