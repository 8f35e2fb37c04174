"""Text as a terminal would have shown it."""

import pytest

from research_jobs.report.ansi import ansi_to_html, settle_lines


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


@pytest.mark.parametrize(
    "text", ["{0}", "{0}\x1b[31mx", "\x1b[31m{0}\x1b[0m", "\x1b[31mx\x1b[0m{0}"]
)
def test_markup_is_text_wherever_it_stands(text):
    """Before, between and behind colours, and without any, what looks like markup is escaped."""
    html = ansi_to_html(text.format("<b onclick=x>&amp;"))
    assert html.count("&lt;b onclick=x&gt;&amp;amp;") == 1
    assert "<b" not in html


COLOURS = [
    *((30 + n, f"a-f{n}", 39) for n in range(8)),
    *((90 + n, f"a-f{n + 8}", 39) for n in range(8)),
    *((40 + n, f"a-b{n}", 49) for n in range(8)),
    *((100 + n, f"a-b{n + 8}", 49) for n in range(8)),
    *(
        (1, "a-b", 22),
        (2, "a-d", 22),
        (3, "a-i", 23),
        (4, "a-u", 24),
        (7, "a-r", 27),
        (9, "a-s", 29),
    ),
]


@pytest.mark.parametrize(("code", "name", "off"), COLOURS)
def test_every_code_has_its_class_and_its_end(code, name, off):
    """Each of the sixteen colours and six styles begins with its code; its own end and 0 end it."""
    assert ansi_to_html(f"\x1b[{code}mx\x1b[{off}my") == f'<span class="{name}">x</span>y'
    assert ansi_to_html(f"\x1b[{code}mx\x1b[0my") == f'<span class="{name}">x</span>y'
    others = {end for _, _, end in COLOURS} - {off}
    for other in others:
        assert ansi_to_html(f"\x1b[{code}mx\x1b[{other}my") == f'<span class="{name}">xy</span>'


def test_the_palette_is_the_terminals():
    """Numbers 16 to 231 are a cube of six levels, 232 to 255 greys, below them sixteen names."""
    levels = (0x00, 0x5F, 0x87, 0xAF, 0xD7, 0xFF)
    cube = [(red, green, blue) for red in levels for green in levels for blue in levels]
    palette = [*cube, *((grey, grey, grey) for grey in range(8, 248, 10))]
    for number, (red, green, blue) in enumerate(palette, start=16):
        shown = ansi_to_html(f"\x1b[38;5;{number}mx")
        assert shown == f'<span style="color:#{red:02x}{green:02x}{blue:02x}">x</span>'
    for number in range(16):
        assert ansi_to_html(f"\x1b[48;5;{number}mx") == f'<span class="a-b{number}">x</span>'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\x1b[9A\rX", "X\nb"),
        ("a\nb\x1b[A\rX\x1b[9B\rY", "X\nY"),
        ("a\nb\nc\x1b[2A\rX", "X\nb\nc"),
        ("a\nb\nc\x1b[1A\rX", "a\nX\nc"),
    ],
)
def test_moves_stay_on_the_lines_that_there_are(text, shown):
    """A move goes as far as it says, and never above the first line or below the last."""
    assert settle_lines(text) == shown
