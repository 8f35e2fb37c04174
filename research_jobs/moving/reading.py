"""An ``.ipynb`` file as cells of the current format, or one line that says why not."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any, cast

from research_jobs.errors import NotebookError

__all__ = ["read_jupyter"]

_SAVE = "Open and save it in a current Jupyter."
_KINDS = ("code", "markdown", "raw")


def read_jupyter(path: Path) -> dict[str, Any]:
    """Read a Jupyter notebook of any format; byte order marks are accepted.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict
        Of format 4, each cell with ``source`` as one text.

    Raises
    ------
    NotebookError
        When it cannot be read, is malformed, or is not for Python 3.
    """
    try:
        notebook = json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise NotebookError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise NotebookError(f"{path} is not a Jupyter notebook: {error}") from error
    return current_format(notebook, where=str(path))


def current_format(notebook: Any, *, where: str) -> dict[str, Any]:
    """A parsed notebook, upgraded to format 4 and with its shape checked.

    Raises
    ------
    NotebookError
    """
    if not isinstance(notebook, dict):
        raise NotebookError(f"{where} is not a Jupyter notebook: it is no JSON object")
    known = cast("dict[str, Any]", notebook)
    if "worksheets" in known or known.get("nbformat") in (1, 2, 3):
        known = _upgraded(known, where)
    cells = known.get("cells")
    if not isinstance(cells, list):
        raise NotebookError(f"{where} has no list of cells", hint=_SAVE)
    metadata = known.get("metadata", {})
    if not isinstance(metadata, dict):
        raise NotebookError(f"{where} has metadata that are no JSON object", hint=_SAVE)
    _refuse_other_languages(cast("dict[str, Any]", metadata), where)
    checked = [
        _checked(cell, f"{where}: cell {number}")
        for number, cell in enumerate(cast("list[Any]", cells), start=1)
    ]
    return {**known, "cells": checked, "metadata": metadata}


def _upgraded(notebook: dict[str, Any], where: str) -> dict[str, Any]:
    import nbformat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            major = int(notebook.get("nbformat", 3))
            old = nbformat.versions[major].to_notebook_json(notebook)
            languages = {
                str(cell.get("language", "python"))
                for sheet in old.get("worksheets", ())
                for cell in sheet.get("cells", ())
            }
            new = cast("dict[str, Any]", json.loads(json.dumps(nbformat.convert(old, 4))))
            for cell in new["cells"]:
                cell.pop("id", None)  # made up by the upgrade, another one each time
    except Exception as error:
        raise NotebookError(
            f"{where} cannot be upgraded from format {notebook.get('nbformat', 3)}: "
            f"{' '.join(str(error).split())[:200] or type(error).__name__}",
            hint=_SAVE,
        ) from error
    if languages - {"python"}:
        raise NotebookError(f"{where}: it has cells in {', '.join(sorted(languages))}, not Python")
    return new


def _checked(cell: Any, where: str) -> dict[str, Any]:
    if not isinstance(cell, dict):
        raise NotebookError(f"{where} is no JSON object", hint=_SAVE)
    known = cast("dict[str, Any]", cell)
    if known.get("cell_type") not in _KINDS:
        raise NotebookError(f"{where} has the type {known.get('cell_type')!r}", hint=_SAVE)
    source: Any = known.get("source", "")
    if isinstance(source, list):
        lines = cast("list[Any]", source)
        source = "".join(lines) if all(isinstance(line, str) for line in lines) else None
    if not isinstance(source, str):
        raise NotebookError(f"{where} has a source that is no text", hint=_SAVE)
    for name in ("metadata", "attachments"):
        if not isinstance(known.get(name, {}), dict):
            raise NotebookError(f"{where} has {name} that are no JSON object", hint=_SAVE)
    if "\0" in source or any("\ud800" <= character <= "\udfff" for character in source):
        raise NotebookError(f"{where} has characters that no text file can hold", hint=_SAVE)
    text = source.replace("\r\n", "\n").replace("\r", "\n")
    return {"metadata": {}, **known, "source": text}


def _refuse_other_languages(metadata: dict[str, Any], where: str) -> None:
    kernel: Any = metadata.get("kernelspec")
    info: Any = metadata.get("language_info")
    kernel = kernel if isinstance(kernel, dict) else {}
    info = info if isinstance(info, dict) else {}
    name = str(kernel.get("name") or "")
    language = str(kernel.get("language") or info.get("name") or "")
    shown = str(kernel.get("display_name") or name or language)
    if not language:
        language = _by_kernel(name, shown)
    if language.lower() not in ("python", "python3", "ipython", "python2"):
        raise NotebookError(
            f"{where}: its kernel is {shown} ({language}); only Python notebooks can run here"
        )
    version = str(info.get("version") or "")
    codemirror: Any = info.get("codemirror_mode")
    old = (
        version.startswith("2.")
        or (not version and (name.lower() == "python2" or shown.lower().startswith("python 2")))
        or (not version and isinstance(codemirror, dict) and codemirror.get("version") == 2)
    )
    if old:
        raise NotebookError(
            f"{where}: it is written for Python 2, where 1/2 is 0; run it in Python 3 and save it"
        )


_OTHERS = re.compile(
    r"(?:ir|xr|ark|bash|zsh|powershell|sos|octave|matlab|maxima|gap|sas|stata|q|javascript|jslab"
    r"|typescript|tslab|deno|java|scala|almond|apache_toree\w*|kotlin|clojure|ruby|iruby|perl|iperl"
    r"|php|lua|rust|evcxr|go|gonb|gophernotes|haskell|ihaskell|ocaml|elixir|sparkr?kernel|sql|xsql)"
    r"|(?:julia|sage|xeus-cling|xcpp|ir[-_]|irkernel|\.net|wolfram|jupyter_matlab|ocaml|root).*"
)


def _by_kernel(name: str, shown: str) -> str:
    """The language of a kernel that does not say it."""
    return shown if _OTHERS.fullmatch(name.lower()) else "python"
