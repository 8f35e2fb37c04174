"""Text as a terminal would have shown it: colours, and lines that were written over."""

from __future__ import annotations

import re
from html import escape

__all__ = ["ansi_to_html", "settle_lines"]

_ESCAPE = re.compile(r"\x1b\[([0-9;:]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MOVES = re.compile(r"\r(?!\n)|\x08|\x1b\[[0-9]*[AB]")
_STEP = re.compile(r"\r|\n|\x08|\x1b\[[0-9]*[ABK]")
_UNIT = re.compile(r"\x1b\[[0-9;:]*[A-Za-z]|.", re.DOTALL)
_EMPTY = re.compile(r"<span[^<>]*+></span>")
_STYLES = {1: "b", 2: "d", 3: "i", 4: "u", 7: "r", 9: "s"}
_OFF = {22: ("b", "d"), 23: ("i",), 24: ("u",), 27: ("r",), 29: ("s",)}


def settle_lines(text: str) -> str:
    """What is left on the screen of lines that were written over (progress bars).

    Parameters
    ----------
    text : str
        With carriage returns, backspaces, and moves up and down. As in a terminal, no move leaves
        the lines that there are.

    Returns
    -------
    str
    """
    if not _MOVES.search(text):
        return text.replace("\r\n", "\n")
    screen = _Screen()
    position = 0
    for match in _STEP.finditer(text):
        screen.write(text[position : match.start()])
        screen.step(match.group())
        position = match.end()
    screen.write(text[position:])
    return screen.text()


class _Screen:
    """Lines that are written over. A line is a list of characters and escape sequences."""

    def __init__(self) -> None:
        self.lines: list[list[str]] = [[]]
        self.row = 0
        self.fresh = False  # the next text replaces the line

    def write(self, text: str) -> None:
        if text:
            if self.fresh:
                self.lines[self.row] = []
                self.fresh = False
            self.lines[self.row] += _UNIT.findall(text) if "\x1b" in text else text

    def step(self, control: str) -> None:
        if control == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append([])
            self.fresh = bool(self.lines[self.row])
        elif control == "\r":
            self.fresh = True
        elif control == "\x08":
            line = self.lines[self.row]
            while line and len(line.pop()) > 1:
                pass
        elif control[-1] == "K":
            if self.fresh:
                self.lines[self.row] = []
        else:
            count = _number(control[2:-1], 1)
            row = self.row - count if control[-1] == "A" else self.row + count
            self.row = min(max(row, 0), len(self.lines) - 1)

    def text(self) -> str:
        lines = ["".join(line) for line in self.lines]
        return "\n".join(line.rstrip(" ") if index else line for index, line in enumerate(lines))


def _number(digits: str, default: int) -> int:
    return int(digits[-9:]) if digits else default


def ansi_to_html(text: str) -> str:
    """Escaped text with colours as ``span`` elements (classes ``a-...`` of the page)."""
    if "\x1b" not in text:
        return escape(_CONTROL.sub("", text), quote=False)
    out: list[str] = []
    styles: set[str] = set()
    colours: dict[str, str] = {}
    position = 0
    opened = ""  # the tag that the text before this place is in
    for match in _ESCAPE.finditer(text):
        out.append(escape(_CONTROL.sub("", text[position : match.start()]), quote=False))
        position = match.end()
        if match[2] != "m":
            continue
        _apply(match[1], styles, colours)
        tag = _tag(styles, colours)
        if tag != opened:
            out.append(("</span>" if opened else "") + tag)
            opened = tag
    out.append(escape(_CONTROL.sub("", text[position:]), quote=False))
    out.append("</span>" if opened else "")
    return _EMPTY.sub("", "".join(out))


def _tag(styles: set[str], colours: dict[str, str]) -> str:
    classes = [f"a-{style}" for style in sorted(styles)]
    inline: list[str] = []
    for kind, colour in colours.items():
        if colour.startswith("#"):
            inline.append(f"{'color' if kind == 'f' else 'background-color'}:{colour}")
        else:
            classes.append(f"a-{kind}{colour}")
    if not classes and not inline:
        return ""
    attributes = f' class="{" ".join(classes)}"' if classes else ""
    attributes += f' style="{";".join(inline)}"' if inline else ""
    return f"<span{attributes}>"


def _apply(codes: str, styles: set[str], colours: dict[str, str]) -> None:
    numbers = [_number(part, 0) for part in re.split("[;:]", codes)]
    index = 0
    while index < len(numbers):
        code = numbers[index]
        index += 1
        if code == 0:
            styles.clear()
            colours.clear()
        elif code in _STYLES:
            styles.add(_STYLES[code])
        elif code in _OFF:
            styles.difference_update(_OFF[code])
        elif code in (38, 48):
            colour, used = _extended(numbers[index:])
            index += used
            if colour is not None:
                colours["f" if code == 38 else "b"] = colour
        elif code in (39, 49):
            colours.pop("f" if code == 39 else "b", None)
        else:
            for first, kind, bright in ((30, "f", 0), (40, "b", 0), (90, "f", 8), (100, "b", 8)):
                if first <= code <= first + 7:
                    colours[kind] = str(code - first + bright)


def _extended(numbers: list[int]) -> tuple[str | None, int]:
    """A colour of 256 (``5;n``) or of 16 million (``2;r;g;b``), and how many numbers it took."""
    if len(numbers) >= 2 and numbers[0] == 5:
        number = numbers[1]
        if number < 16:
            return str(number), 2
        if number < 232:
            number -= 16
            levels = [0, 95, 135, 175, 215, 255]
            red, green, blue = levels[number // 36 % 6], levels[number // 6 % 6], levels[number % 6]
            return f"#{red:02x}{green:02x}{blue:02x}", 2
        grey = min(255, 8 + (number - 232) * 10)
        return f"#{grey:02x}{grey:02x}{grey:02x}", 2
    if len(numbers) >= 4 and numbers[0] == 2:
        red, green, blue = (min(255, value) for value in numbers[1:4])
        return f"#{red:02x}{green:02x}{blue:02x}", 4
    return None, len(numbers)
