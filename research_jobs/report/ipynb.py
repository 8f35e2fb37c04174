"""The executed notebook as ``.ipynb``, written without nbformat (the tests validate with it)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from research_jobs.outcome import to_json
from research_jobs.report.header import ReportHeader
from research_jobs.report.record import Error, Note, Output, Recorded, RecordedCell, Shown, Stream

__all__ = ["cell_json", "notebook_json"]


def notebook_json(recorded: Recorded, header: ReportHeader) -> str:
    """A run as an nbformat 4.5 notebook.

    Parameters
    ----------
    recorded : Recorded
    header : ReportHeader
        Kept in the notebook's metadata under ``research_jobs``.

    Returns
    -------
    str
        JSON.
    """
    notebook = {
        "cells": [cell_json(cell) for cell in recorded.cells],
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {
                "file_extension": ".py",
                "mimetype": "text/x-python",
                "name": "python",
                "version": f"{sys.version_info.major}.{sys.version_info.minor}",
            },
            "research_jobs": _metadata(header),
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    # Not indented: that is written by Python code instead of C, at ten times the cost.
    return json.dumps(notebook, ensure_ascii=False) + "\n"


def _metadata(header: ReportHeader) -> Mapping[str, Any]:
    failure = header.outcome.failure
    return {
        **to_json(header.outcome),
        "code_version": header.code_version,
        "git_commit": header.git_commit,
        "failure": failure.headline if failure is not None else None,
    }


def cell_json(cell: RecordedCell) -> dict[str, Any]:
    """A cell and what it showed, as in an ``.ipynb``."""
    metadata: dict[str, Any] = {}
    if cell.title:
        metadata["title"] = cell.title
    if cell.tags:
        metadata["tags"] = list(dict.fromkeys(tag for tag in cell.tags if tag and "," not in tag))
    made: dict[str, Any] = {
        "cell_type": cell.kind,
        "id": f"cell-{cell.number}",
        "metadata": metadata,
        "source": cell.source.strip("\n"),
    }
    if cell.kind == "code":
        if cell.status in ("not run", "running"):
            metadata["research_jobs"] = {"status": cell.status}
        made["execution_count"] = cell.count
        made["outputs"] = [_output(shown, cell) for shown in cell.shown]
    return made


def _output(shown: Shown, cell: RecordedCell) -> dict[str, Any]:
    match shown:
        case Stream():
            return {"output_type": "stream", "name": shown.name, "text": shown.text}
        case Note(text):
            return {"output_type": "stream", "name": "stderr", "text": f"[{text}]\n"}
        case Error(ename, evalue, traceback, _):
            return {
                "output_type": "error",
                "ename": ename,
                "evalue": evalue,
                "traceback": traceback,
            }
        case Output():
            made: dict[str, Any] = {
                "output_type": shown.output_type,
                "data": shown.data,
                "metadata": shown.metadata,
            }
            if shown.output_type == "execute_result":
                made["execution_count"] = cell.count
            return made
