"""A whole Jupyter notebook as the text of a percent script."""

from __future__ import annotations

import base64
import binascii
import copy
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from research_jobs.errors import NotebookError
from research_jobs.moving.reading import current_format
from research_jobs.moving.rewriting import Rewritten, UnexplainedError, assigned_by, rewrite
from research_jobs.notebook.cells import CellKind, parse_cells

__all__ = ["Script", "percent_script"]


@dataclass
class Script:
    """What a Jupyter notebook becomes.

    Parameters
    ----------
    text : str
    done : mapping of str to int
        What was changed, and how often.
    look : list of str
        What a person must do, each with its cell.
    files : mapping of str to bytes
        Pictures pasted into prose, by their path below the script's folder.
    """

    text: str
    done: dict[str, int] = field(default_factory=dict[str, int])
    look: list[str] = field(default_factory=list[str])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])


def percent_script(notebook: Any, *, name: str = "notebook", where: str = "notebook") -> Script:
    """Write a Jupyter notebook as a percent script that means the same.

    Parameters
    ----------
    notebook : object
        The parsed ``.ipynb``.
    name : str
        The script's name without ``.py``, for the folder of its pictures.
    where : str
        Its name, for errors.

    Raises
    ------
    NotebookError
        When it is malformed, not Python, or would not mean the same as a script.
    """
    known = copy.deepcopy(current_format(notebook, where=where))
    cells: list[dict[str, Any]] = known["cells"]
    names: set[str] = set()
    for cell in cells:
        if cell["cell_type"] == "code":
            names |= assigned_by(cell["source"])
    script = Script("")
    for number, cell in enumerate(cells, start=1):
        if cell["cell_type"] == "code":
            try:
                rewritten = _rewritten(cell, names)
            except (UnexplainedError, SyntaxError) as error:
                raise NotebookError(
                    f"{where}: cell {number} would not mean the same as a script",
                    hint="Write its magics in Python, and convert it again.",
                ) from error
            cell["source"] = rewritten.source.strip("\n")
            for did in rewritten.done:
                script.done[did] = script.done.get(did, 0) + 1
            script.look += [f"cell {number}: {look}" for look in rewritten.look]
        elif cell.get("attachments"):
            _put_beside(cell, number, name, script)
    try:
        script.text = _written(known)
    except Exception as error:
        raise NotebookError(
            f"{where} has metadata that cannot be written: {type(error).__name__}: {error}"
        ) from error
    _compare(cells, script.text, where)
    return script


def _rewritten(cell: Mapping[str, Any], names: Collection[str]) -> Rewritten:
    editor: Any = cell["metadata"].get("vscode")
    language = editor.get("languageId") if isinstance(editor, dict) else None
    if language in (None, "python"):
        return rewrite(cell["source"], names)
    return rewrite(f"%%{language}\n{cell['source']}")


def _put_beside(cell: dict[str, Any], number: int, name: str, script: Script) -> None:
    """A cell's attachments as files, and its links to them."""
    for title, bundle in cell.pop("attachments").items():
        content = next(iter(bundle.values()), "") if isinstance(bundle, dict) else ""
        try:
            data = base64.b64decode("".join(content))
        except (binascii.Error, TypeError, ValueError):
            script.look.append(f"cell {number}: the attachment {title} is damaged")
            continue
        plain = re.sub(r"[^\w.-]+", "_", title)
        file = f"{name}_files/cell{number}_{plain}"
        script.files[file] = data
        for spelling in {title, quote(title), unquote(title)}:
            cell["source"] = cell["source"].replace(f"attachment:{spelling}", quote(file))
    script.done["pictures written beside it"] = len(script.files)


def _written(notebook: Mapping[str, Any]) -> str:
    """The percent format. Markers, prose and the header of a pairing are written by jupytext."""
    import jupytext
    import nbformat
    from jupytext.cell_to_text import DoublePercentCellExporter

    form = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    blocks: list[str] = []
    if "jupytext" in notebook["metadata"]:
        node = nbformat.from_dict({**_FORMAT, "metadata": notebook["metadata"], "cells": []})
        blocks.append(str(jupytext.writes(node, fmt=form)).strip("\n"))
    for cell in notebook["cells"]:
        metadata = {**cell["metadata"], **({"id": cell["id"]} if cell.get("id") else {})}
        code = cell["cell_type"] == "code"
        node = nbformat.from_dict(
            {
                "cell_type": cell["cell_type"],
                "metadata": metadata,
                "source": "" if code else cell["source"],
            }
        )
        # Of code only the marker: jupytext comments out what extensions of Jupyter freeze.
        exporter = DoublePercentCellExporter(node, "python", fmt=form)
        lines: list[str] = exporter.cell_to_text()
        block = [*lines[:1], cell["source"]] if code else lines
        blocks.append("\n".join(block).rstrip("\n"))
    return "\n\n".join(blocks) + "\n"


_FORMAT = {"nbformat": 4, "nbformat_minor": 4}


def _compare(cells: list[dict[str, Any]], text: str, where: str) -> None:
    """Read the script as it will be read: each cell must be there, of its kind and text."""
    written = parse_cells(text)
    kinds = {"code": CellKind.CODE, "markdown": CellKind.MARKDOWN, "raw": CellKind.RAW}
    for number, old in enumerate(cells, start=1):
        new = written[number - 1] if number <= len(written) else None
        kind, source = kinds[old["cell_type"]], old["source"].strip("\n")
        if new is None or new.kind is not kind or new.source.strip("\n") != source:
            raise NotebookError(
                f"{where}: cell {number} would be read as another cell in a script",
                hint="Change how it begins, and convert it again.",
            )
    if len(written) != len(cells):
        raise NotebookError(f"{where} would have other cells as a script")
