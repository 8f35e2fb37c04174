"""The whole of a table that a cell showed in part, where it is an output that the run published.

Whether it is that output is decided by its size and its values: what is shown of the first and the
last row must be what is stored. The rows go into a script beside the page, which a page from the
disk can load too.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import unescape
from itertools import accumulate
from pathlib import Path
from typing import Any

from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import Outcome, StagedOutput, State
from research_jobs.runtime.masking import Masker
from research_jobs.store.load import Outputs

__all__ = ["Published", "Whole", "WholeTables"]

ROWS, VALUES, LARGEST = 100_000, 1_000_000, 8_000_000
"""How much of an output a page can load: rows, values, characters."""
FILE = 100_000_000
"""Of a larger file (bytes) nothing is read."""

# pandas says the size of a table that it cut below it, polars above.
_SIZES = (
    re.compile(r"<p>(\d+) rows \xd7 (\d+) columns</p>\s*</div>\s*\Z"),
    re.compile(r"<small>shape: \(([\d_,]+), ([\d_,]+)\)</small>"),
)
_END = 200  # characters
_CELL = re.compile(r"<t[hd][^<>]*>([^<>]*)</t[hd]>")
_MISSING = frozenset({"", "nan", "nat", "none", "null", "<na>"})


@dataclass(frozen=True)
class Published:
    """Where the outputs of the run are.

    Parameters
    ----------
    store : str
    partition : mapping of str to str or None
        Dimension to key.
    secrets : sequence of str
        What no report shows.
    """

    store: str
    partition: Mapping[str, str] | None = None
    secrets: Sequence[str] = ()


@dataclass(frozen=True)
class Whole:
    """An output that the page can load.

    Parameters
    ----------
    output, script : str
        Its name, and the script that has it, beside the page.
    rows, of : int
        How many rows the script has, and the output.
    """

    output: str
    script: str
    rows: int
    of: int


@dataclass
class WholeTables:
    """Finds the outputs that were shown in part.

    Parameters
    ----------
    outcome : Outcome
    published : Published or None
        None where there is nothing to load.
    """

    outcome: Outcome
    published: Published | None = None
    scripts: dict[str, str] = field(default_factory=dict[str, str])
    _known: dict[str, Whole] = field(default_factory=dict[str, Whole])

    def find(self, markup: str) -> Whole | None:
        """The output that a table shows a part of; None where it shows none, or all of it."""
        if self.published is None or self.outcome.state is not State.SUCCEEDED:
            return None
        size = _SIZES[0].search(markup[-_END:]) or _SIZES[1].search(markup[:2000])
        if size is None:
            return None
        rows, columns = (int(re.sub("[_,]", "", number)) for number in size.groups())
        if markup.count("<tr") >= rows:
            return None
        for item in self.outcome.outputs:
            if item.rows == rows and item.bytes <= FILE:
                # A file that is gone, remote or another's: the table stays as it is shown.
                with suppress(ResearchJobsError, OSError, ValueError):
                    if (whole := self._whole(item, columns, markup)) is not None:
                        return whole
        return None

    def _whole(self, item: StagedOutput, columns: int, markup: str) -> Whole | None:
        assert self.published is not None
        published = self.published
        outputs = Outputs(published.store, self.outcome.notebook, published.partition)
        path = Path(outputs.paths(item.name)[0])
        if path.stat().st_size != item.bytes:
            return None  # another run has published since
        table, last = _read(path)
        if len(table.schema.names) < columns:
            return None
        names = [*table.schema.names[columns:], *table.schema.names[:columns]]
        shown = _shown_rows(markup)
        if not shown:
            return None
        # A running index is not stored.
        running = len(names) == columns and "<th>" in markup.rpartition("<tbody>")[2]
        total = item.rows or 0
        for part, row, cells in ((table, 0, shown[0]), (last, -1, shown[-1])):
            stored = [_text(part.column(name)[row].as_py()) for name in names]
            if not _agree(cells, [str(row % total), *stored] if running else stored):
                return None
        if item.name not in self._known:
            levels = len(names) - columns
            labels = [""] * levels + [*names[levels:]]
            kept = max(1, min(total, ROWS, VALUES // max(1, len(names))))
            text, kept = self._pack(table.select(names), labels, levels, kept, running=running)
            script = f"tables/{len(self._known) + 1}.js"
            packed = base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()
            self.scripts[script] = f'researchJobsTable("{script}","{packed}");\n'
            self._known[item.name] = Whole(item.name, script, kept, total)
        return self._known[item.name]

    def _pack(
        self, table: Any, labels: list[str], levels: int, kept: int, *, running: bool
    ) -> tuple[str, int]:
        """The first rows as JSON, as many as fit."""
        assert self.published is not None
        while True:
            columns = [_texts(column) for column in table.slice(0, kept).columns]
            if running:
                columns.insert(0, [str(number) for number in range(kept)])
            said = {
                "labels": ["", *labels] if running else labels,
                "index": levels + running,
                "columns": columns,
            }
            text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
            if len(text) <= LARGEST or kept == 1:
                return Masker(self.published.secrets).text(text), kept
            kept = max(1, min(kept // 2, kept * LARGEST // len(text)))


def _read(path: Path) -> tuple[Any, Any]:
    """The row groups with the first `ROWS` rows, and the last one: all may not fit in memory."""
    from research_jobs.store.codec.parquet import open_parquet

    with open_parquet(path) as file:
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        few = next((n for n, end in enumerate(accumulate(sizes), 1) if end >= ROWS), len(sizes))
        return file.read_row_groups(range(few)), file.read_row_group(len(sizes) - 1)


def _shown_rows(markup: str) -> list[list[str]]:
    """The texts of the rows of a table's body."""
    body = markup.rpartition("<tbody>")[2].partition("</tbody>")[0]
    rows = (_CELL.findall(row) for row in body.split("</tr>"))
    return [[unescape(text).strip() for text in row] for row in rows if row]


def _texts(column: Any) -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts = pc.cast(column, pa.string()).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return [_text(value) for value in column.to_pylist()]
    if pa.types.is_timestamp(column.type):
        texts = [text and re.sub(r"\.0+(?=Z?\Z)", "", text) for text in texts]
        if all(text is None or text.endswith(" 00:00:00") for text in texts):
            texts = [text and text.partition(" ")[0] for text in texts]
    return ["" if text is None else text for text in texts]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _agree(shown: list[str], stored: list[str]) -> bool:
    """Whether the texts of a row are its values, as far as they are shown."""
    cut = next((text for text in shown if text in ("...", "…")), None)
    if cut is not None:  # columns are left out as well
        place = shown.index(cut)
        behind = len(shown) - place - 1
        stored = stored[:place] + stored[len(stored) - behind :]
        shown = shown[:place] + shown[place + 1 :]
    # In a row, levels that are those of the row above are left out.
    return 0 < len(shown) <= len(stored) and all(map(_same, shown, stored[-len(shown) :]))


def _same(shown: str, stored: str) -> bool:
    shown = shown.strip('"')
    if shown.lower() in _MISSING or stored.lower() in _MISSING:
        return shown.lower() in _MISSING and stored.lower() in _MISSING
    if stored in (shown, f"{shown} 00:00:00"):
        return True
    if shown.endswith(("...", "…")):
        return stored.startswith(shown.rstrip(".…"))
    with suppress(ValueError, OverflowError):
        decimals = len(shown.partition(".")[2].partition("e")[0])
        exponent = int(shown.partition("e")[2] or 0)
        return abs(float(shown) - float(stored)) <= 0.51 * 10.0 ** (exponent - decimals)
    return False
