"""Inline script metadata: what the specification says is a block, and where mistakes are."""

from __future__ import annotations

import pytest

from research_jobs.errors import DependencyError
from research_jobs.notebook.script_metadata import read_script_metadata, script_block

BLOCK = """\
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pandas<3",
#   'numpy',
# ]
# [tool.uv]
# exclude-newer = "2024-01-01T00:00:00Z"
# ///
"""


def test_a_block() -> None:
    """Dependencies and Python come with their places; tables of tools are left to them."""
    found = read_script_metadata(f"{BLOCK}# %%\nx = 1\n", "a.py")
    assert found is not None
    said = [(each.text, each.line, each.column) for each in found.dependencies]
    assert said == [("pandas<3", 4, 6), ("numpy", 5, 6)]
    assert found.requires_python is not None
    assert (found.requires_python.text, found.requires_python.line) == (">=3.11", 2)


@pytest.mark.parametrize(
    "text",
    [
        "# %%\nx = 1\n",
        BLOCK.replace("# ///\n", ""),  # not closed
        BLOCK.replace("# /// script", "#/// script"),
        BLOCK.replace("# /// script", "# /// script "),
        BLOCK.replace("# /// script", "# /// scripts"),
        BLOCK.replace("#   'numpy',", "  # 'numpy',"),  # a line that is no comment of the block
        BLOCK.replace("#   'numpy',", "#   'numpy',\n#[]"),  # a comment without a space
        f'"""\n{BLOCK}"""\n# %%\n',
        f"# /// other\n{BLOCK.replace('/// script', 'inside')}",
        "# /// script\n# [tool.other]\n# dependencies = ['a']\n# ///\n",
    ],
)
def test_what_is_no_block(text: str) -> None:
    """What the specification ignores, what is in a string, and tools' tables ask for nothing."""
    assert read_script_metadata(text, "a.py") is None


def test_the_last_end_marker_counts() -> None:
    """An end marker that more lines of the block follow is content."""
    text = "# /// script\n# dependencies = ['''\n# ///\n#\n# ''']\n# ///\nx = 1\n"
    found = read_script_metadata(text, "a.py")
    assert found is not None
    assert [each.text for each in found.dependencies] == ["///\n\n"]
    assert script_block(text) == "# dependencies = ['''\n# ///\n#\n# ''']"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BLOCK.replace('"pandas<3"', "pandas"), "a.py:4:5: the script metadata is not TOML: "),
        (BLOCK + "x = 1\n" + BLOCK, "a.py:11:1: a second block of script metadata; the first"),
        (BLOCK + BLOCK, "a.py:10:1: a block of metadata begins inside another one"),
        (
            BLOCK.replace("dependencies", "dependancies"),
            (
                "a.py:3:3: 'dependancies' is not a key of script metadata. "
                "Did you mean 'dependencies'?"
            ),
        ),
        (BLOCK.replace('">=3.11"', "3.11"), "a.py:2:3: requires-python is not a string"),
        (BLOCK.replace("'numpy'", "1"), "a.py:3:3: dependencies is not a list of strings"),
    ],
)
def test_mistakes(text: str, said: str) -> None:
    """Each mistake is one line with its place."""
    with pytest.raises(DependencyError) as error:
        read_script_metadata(text, "a.py")
    assert error.value.headline.startswith(said)
