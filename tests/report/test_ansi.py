"""Text as a terminal would have shown it."""

import pytest

from research_jobs.report.ansi import ansi_to_html, settle_lines, strip_ansi


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n", "plain\n"),
        ("a\r\nb", "a\nb"),
        ("  0%\r 50%\r100%", "100%"),
        ("x\n  0%\r100%\ny", "x\n100%\ny"),
        ("abc\x08\x08d", "ad"),
        ("a\rb\n", "b\n"),
        # two bars, the second below the first, as tqdm draws them
        ("outer 0%\n\rinner 0%\rinner 9%\x1b[A\router 1%\n\rinner 10%", "outer 1%\ninner 10%"),
        ("old\r\x1b[Knew", "new"),
        ("end\r", "end"),
    ],
)
def test_lines_that_were_written_over(text, shown):
    """Of a line that was drawn again and again, its last state is left."""
    assert settle_lines(text) == shown


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a < b", "a &lt; b"),
        ("\x1b[31mred\x1b[0m", '<span class="a-f1">red</span>'),
        ("\x1b[1;92mx\x1b[22my", '<span class="a-b a-f10">x</span><span class="a-f10">y</span>'),
        ("\x1b[48;5;196mx\x1b[m", '<span style="background-color:#ff0000">x</span>'),
        ("\x1b[38;5;244mx", '<span style="color:#808080">x</span>'),
        ("\x1b[38;2;1;2;3mx\x1b[39my", '<span style="color:#010203">x</span>y'),
        ("\x1b[38;2;999;2;3mx", '<span style="color:#ff0203">x</span>'),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x07", "link"),
        ("\x1b[2Jx\x00\x07", "x"),
        ("\x1b[38;5mx", "x"),
    ],
)
def test_colours(text, html):
    """Colours and styles become spans, everything else that is no text goes."""
    assert ansi_to_html(text) == html


def test_strip():
    """Without colours the text is left."""
    assert strip_ansi("\x1b[1mbold\x1b[0m and \x1b]0;title\x07plain") == "bold and plain"
