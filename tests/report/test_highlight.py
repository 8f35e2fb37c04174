"""Python in colours."""

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research_jobs.report.highlight import highlight_python


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("import os", '<span class="h-k">import</span>'),
        ("def f(): pass", '<span class="h-f">f</span>'),
        ("x = 'a' # b", "<span class=\"h-s\">'a'</span>"),
        ("x = 'a' # b", '<span class="h-c"># b</span>'),
        ('f"""a\n# b"""', '<span class="h-s">f"""a\n# b"""</span>'),
        ("@a.b\ndef f(): ...", '<span class="h-d">@a.b</span>'),
        ("1_000.5e-3", '<span class="h-n">1_000.5e-3</span>'),
        ("match x:\n    case 1: pass", '<span class="h-k">match</span>'),
        ("print(x.import_)", '<span class="h-b">print</span>'),
    ],
)
def test_parts(source, part):
    """The parts of a program have their colours."""
    assert part in highlight_python(source)


@pytest.mark.parametrize("source", ["match = 3", "x.print", "matching", "a.class_"])
def test_names_are_plain(source):
    """Names that only look like keywords are plain."""
    assert "<span" not in highlight_python(source).replace('<span class="h-n">3</span>', "")


@given(st.text(alphabet="ab01'\"\\#\n <>&{}()=@.def", max_size=60))
def test_text_is_kept(source):
    """Whatever is coloured, the text is the source, escaped."""
    assert unescape(re.sub(r"<[^>]*>", "", highlight_python(source))) == source
