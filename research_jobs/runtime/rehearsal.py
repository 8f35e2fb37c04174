"""The template does once what nearly every run does, with the libraries that it has imported.

The first use of a library fills caches all over its memory. In a fork each of these writes copies
a page, and every run repeats the work: a small frame takes three times as long, and a chart a fifth
longer. Nothing of a project is involved, and nothing stays that a fresh process would not have: no
settings, no figures, no threads (`preload` checks).

Standard library only at the top, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["rehearse"]

_NOTEBOOK = """\
# %% A title
import math

number = math.pi

# %%
number
"""


def rehearse() -> None:
    """Read a notebook, create and write a frame, draw a chart; failures are ignored."""
    with tempfile.TemporaryDirectory(prefix="research_jobs-") as name:
        folder = Path(name)
        for part in (_read, _write, _draw):
            with contextlib.suppress(Exception):
                part(folder)


def _read(folder: Path) -> None:
    from research_jobs.notebook.cells import read_notebook_text
    from research_jobs.runtime.compiling import compile_notebook

    path = folder / "notebook.py"
    path.write_text(_NOTEBOOK, encoding="utf-8")
    compile_notebook(read_notebook_text(path))


def _write(folder: Path) -> None:
    pandas: Any = sys.modules.get("pandas")
    if pandas is None:
        return
    from research_jobs.store.codec import parquet
    from research_jobs.store.codec.api import encode_value

    days = pandas.date_range("2020-01-01", periods=3, freq="D")
    frame = pandas.DataFrame(
        {"number": [1.0, 2.0, 3.0], "count": range(3), "name": list("abc")}, index=days
    )
    # The file is not read again, as a run does: that would start a thread.
    path, options = folder / "frame.parquet", parquet.WriteOptions.of({})
    parquet.write_encoded(encode_value("frame", frame), path, options, {})


def _draw(folder: Path) -> None:
    del folder
    # Only where a notebook's own import has brought it; without pyplot, whose figures would stay.
    figure_module: Any = sys.modules.get("matplotlib.figure")
    if figure_module is None:
        return
    figure = figure_module.Figure()
    axes = figure.add_subplot()
    axes.plot([1, 2, 3])
    # Without text: a used font keeps its file open.
    axes.set_axis_off()
    figure.savefig(io.BytesIO(), format="png")
