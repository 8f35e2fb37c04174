"""The prose of gallery files as Markdown."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.notebook.rst import rst_to_markdown


@pytest.mark.parametrize(
    ("rst", "markdown"),
    [
        ("Title\n=====\n\ntext", "# Title\n\ntext"),
        ("=====\nTitle\n=====\n\nPart\n----\n\nOther\n=====", "# Title\n\n## Part\n\n### Other"),
        (":func:`~pandas.DataFrame.plot` and :class:`Axes`", "`plot` and `Axes`"),
        (":ref:`the guide <guide>` and :doc:`/a/b`", "the guide and /a/b"),
        ("`site <http://x.y>`_ and ``code``", "[site](http://x.y) and `code`"),
        ("an :math:`x^2`", "an $x^2$"),
        (".. math::\n\n   x^2\n   + 1\n\nmore", "$$\nx^2\n+ 1\n$$\n\nmore"),
        (".. math:: x^2", "$$\nx^2\n$$"),
        (".. code-block:: python\n\n   x = 1", "```python\nx = 1\n```"),
        (
            "Like this::\n\n   x = 1\n   y = 2\n\nmore",
            "Like this:\n\n```\nx = 1\ny = 2\n```\n\nmore",
        ),
        (".. note::\n   Mind :func:`f`.", "> **Note**\n>\n> Mind `f`."),
        (".. admonition:: Seen\n\n   text", "> **Seen**\n>\n> text"),
        (".. figure:: a.png\n   :width: 3\n\n   Caption", "![Caption](a.png)"),
        (".. _label:\n\ntext", "text"),
        (".. redirect-from:: /x\n\ntext", "text"),
        (".. a comment\n   that goes on\n\ntext", "text"),
        ("* item\n* other", "* item\n* other"),
        ("", ""),
    ],
)
def test_what_is_understood(rst: str, markdown: str) -> None:
    """Titles, roles, links, math, code, notes, figures; labels and comments vanish."""
    assert rst_to_markdown(textwrap.dedent(rst)) == markdown


@given(st.text(alphabet="=-`:.'\"~^_*+#<> \nabc\t|[]()"))
def test_any_text_gives_some_markdown(text: str) -> None:
    """It never raises."""
    rst_to_markdown(text)
