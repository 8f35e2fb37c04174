"""Just enough reStructuredText for the prose of gallery files, as Markdown."""

from __future__ import annotations

import re
import textwrap

__all__ = ["rst_to_markdown"]

_LONGEST = 50_000
_LONGEST_LINE = 1_000

_UNDERLINE = re.compile(r"([=\-`:.'\"~^_*+#<>])\1{2,}\s*$")


def rst_to_markdown(text: str) -> str:
    """Turn the prose of a gallery file into Markdown.

    Titles, links, roles, math, code blocks, notes and images are understood;
    everything else stays unchanged, and so does text of more than 50,000 characters.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    if len(text) > _LONGEST:
        return text.strip()
    try:
        return _blocks(_titles(text.expandtabs().split("\n"))).strip()
    except RecursionError:  # directives within directives
        return text.strip()


def _titles(lines: list[str]) -> list[str]:
    """Underlined (and overlined) titles as ``#`` lines; the first style is the highest level."""
    styles: list[str] = []
    out: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        over = _UNDERLINE.match(line)
        following = lines[index + 1] if index + 1 < len(lines) else ""
        if (
            over
            and following.strip()
            and index + 2 < len(lines)
            and lines[index + 2].rstrip() == line.rstrip()
        ):
            style, title, step = f"over {over[1]}", following, 3
        else:
            under = _UNDERLINE.match(following)
            if not (under and line.strip() and not over and not line[0].isspace()):
                out.append(line)
                index += 1
                continue
            style, title, step = under[1], line, 2
        if style not in styles:
            styles.append(style)
        out.append("#" * min(6, styles.index(style) + 1) + " " + title.strip())
        index += step
    return out


_DIRECTIVE = re.compile(r"(\s*)\.\. ([\w:\-]+)::[ ]*(.*)$")
_TARGET = re.compile(r"\s*\.\. _[^:]+:\s*$")
_COMMENT = re.compile(r"\s*\.\.(?: |$)(?!\[)")


def _blocks(lines: list[str]) -> str:
    out: list[str] = []
    index = 0
    while index < len(lines):
        line = lines[index]
        directive = _DIRECTIVE.match(line)
        if directive:
            body, index = _indented(lines, index + 1, len(directive[1]))
            out += _directive(directive[2], directive[3].strip(), body)
            continue
        if _TARGET.match(line):
            index += 1
            continue
        if _COMMENT.match(line) and not line.strip().startswith(".. _"):
            _, index = _indented(lines, index + 1, len(line) - len(line.lstrip()))
            continue
        if line.rstrip().endswith("::"):
            body, index = _indented(lines, index + 1, len(line) - len(line.lstrip()))
            lead = line.rstrip()[:-2].rstrip()
            if lead:
                out.append(_inline(lead) + ":")
            out += ["", "```", *body, "```", ""]
            continue
        out.append(_inline(line))
        index += 1
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out))


def _indented(lines: list[str], index: int, margin: int) -> tuple[list[str], int]:
    """The block below a line that is indented more than `margin`, without its indent."""
    start = index
    end = index
    while index < len(lines):
        line = lines[index]
        if line.strip():
            if len(line) - len(line.lstrip()) <= margin:
                break
            end = index + 1
        index += 1
    return textwrap.dedent("\n".join(lines[start:end])).strip("\n").split("\n"), end


def _directive(name: str, argument: str, body: list[str]) -> list[str]:
    options = [line for line in body if re.match(r":[\w\-]+:", line)]
    rest = [line for line in body if line not in options]
    text = "\n".join(rest).strip("\n")
    if name == "math":
        return ["", "$$", "\n".join(filter(None, (argument, text))), "$$", ""]
    if name in ("code-block", "code", "sourcecode", "parsed-literal"):
        return ["", f"```{argument}", text, "```", ""]
    if name in ("image", "figure"):
        return ["", f"![{text.partition(chr(10))[0]}]({argument})", ""]
    if name in ("contents", "currentmodule", "index", "only", "seealso") and not text:
        return []
    if name in ("redirect-from", "tags", "plot", "raw", "rubric", "minigallery"):
        return [f"**{argument}**", ""] if name == "rubric" and argument else []
    title = argument if name in ("admonition", "topic") else name.capitalize()
    inner = _blocks(rest) if text else ""
    if name not in ("admonition", "topic") and argument:
        inner = f"{_inline(argument)}\n{inner}" if inner else _inline(argument)
    quoted = [f"> {line}".rstrip() for line in [f"**{title}**", "", *inner.split("\n")]]
    return ["", *quoted, ""]


def _inline(line: str) -> str:
    if len(line) > _LONGEST_LINE:  # not prose: the expressions below are not linear
        return line
    line = re.sub(r":math:`([^`]+)`", r"$\1$", line)
    # :func:`~pandas.DataFrame.plot` shows `plot`, :ref:`text <label>` shows text
    line = re.sub(r":(?:ref|doc|term):`([^`<]+?)(?:\s*<[^`]*>)?`", r"\1", line)
    line = re.sub(r":[\w:+\-]+:`~(?:[\w.]*\.)?(\w+)`", r"`\1`", line)
    line = re.sub(r":[\w:+\-]+:`([^`<]+?)(?:\s*<[^`]*>)?`", r"`\1`", line)
    line = re.sub(r"(?<!`)`([^`<]+?)\s*<([^`>]+)>`__?", r"[\1](\2)", line)
    return line.replace("``", "`")
