"""Records of a store: one published set of outputs, and a notebook's partitioning.

Both kinds of store write them. Standard library only: the run worker reads them too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from research_jobs.errors import CorruptOutputError, OutputNotFoundError, StoreError
from research_jobs.outcome import StagedOutput
from research_jobs.protocol import PartitionKey
from research_jobs.store.layout import PARTITIONS, SUFFIX, VERSIONS, partition_dimensions
from research_jobs.store.origin import Origin

__all__ = [
    "FORMAT",
    "KEEP",
    "KEEP_SPACE",
    "NO_PARTITIONING",
    "Partitioning",
    "Version",
    "check_format",
    "choose_version",
    "describe_version",
    "next_version",
    "partitioning_of",
    "retained",
    "rows_of",
    "sequence",
    "short_id",
    "sizes_of",
    "version_of",
]

FORMAT = 1
KEEP = 7
"""Older versions that are kept of an output whose ``keep`` is not set..."""
KEEP_SPACE = 2 * 2**30
"""...as long as they take up no more bytes than this together."""
_ROOT = re.compile(rf"\{VERSIONS}|\{PARTITIONS}(-\d+)?")
NO_PARTITIONING = "Remove it, then run the notebook again."
VERSION_ID = re.compile(r"(\d{6,})-[\w\-]+\Z")


@dataclass(frozen=True)
class Version:
    """One published set of outputs.

    Parameters
    ----------
    id : str
        ``000007-1f0c9a2e``: a running number and the start of the run's id.
    folder : Path
    outputs : mapping of str to mapping
        Output to ``{"kind", "rows", "bytes"}``.
    run_id, published_at : str
        The run that published it, and when (ISO 8601, UTC).
    window : tuple of (str, str), optional
        The half-open time window of its partition, ISO 8601.
    by : mapping of str to str
        Dimension to how its keys are made; empty without a partition.
    data_version : str
        The hash of what its outputs hold (`content_version`); empty if none was recorded.
    origin : Origin or None
        Where it was pulled from; None if it was published here.
    """

    id: str
    folder: Path
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run_id: str = ""
    published_at: str = ""
    window: tuple[str, str] | None = None
    by: Mapping[str, str] = field(default_factory=dict)
    data_version: str = ""
    origin: Origin | None = None

    def file(self, output: str) -> Path:
        """The file of an output in this version, even if a newer one is published."""
        return self.folder / f"{output}{SUFFIX}"


def sequence(version: str) -> int:
    """The running number of a version; -1 for any other name."""
    match = VERSION_ID.match(version)
    return int(match[1]) if match else -1


def next_version(ids: Iterable[str], suffix: str) -> str:
    """The id of the version after `ids`."""
    return f"{max(map(sequence, ids), default=0) + 1:06d}-{suffix}"


def short_id(run_id: str, length: int) -> str:
    """A run's id, shortened for use in a name."""
    return re.sub(r"[^A-Za-z0-9]", "", run_id)[:length] or "run"


def describe_version(
    version: str,
    notebook: str,
    staged: Iterable[StagedOutput],
    partition: PartitionKey | None,
    run_id: str,
    data_version: str | None = None,
    origin: Origin | None = None,
) -> dict[str, Any]:
    """A version's record as JSON; `version_of` reads it."""
    window = (partition.start, partition.end) if partition else (None, None)
    record: dict[str, Any] = {
        "format": FORMAT,
        "version": version,
        "notebook": notebook,
        "run_id": run_id,
        "published_at": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "partition": partition_dimensions(partition) if partition else None,
        "window": list(window) if all(window) else None,
        "by": dict(partitioning_of(partition)),
        "data_version": data_version,
        "outputs": {
            item.name: {"kind": item.kind, "rows": item.rows, "bytes": item.bytes}
            for item in staged
        },
    }
    return record if origin is None else record | {"origin": origin.as_json()}


def version_of(record: Mapping[str, Any], version: str, folder: Path) -> Version:
    """A version from its record; a malformed record raises whatever it raises."""
    window = record.get("window")
    partition: Mapping[str, Any] = record.get("partition") or {}
    by: Mapping[str, Any] = record.get("by") or dict.fromkeys(partition, "")
    outputs = {str(name): dict(item) for name, item in record["outputs"].items()}
    for name, item in outputs.items():
        if not name.isidentifier():  # it becomes a file's name
            raise ValueError(f"{name!r} is not the name of an output")
        if not all(isinstance(item.get(key), int | None) for key in ("rows", "bytes")):
            raise ValueError(f"{name} has no size")
    datetime.fromisoformat(record["published_at"])
    return Version(
        id=version,
        folder=folder,
        outputs=outputs,
        run_id=str(record["run_id"]),
        published_at=str(record["published_at"]),
        window=(str(window[0]), str(window[1])) if window else None,
        by={str(name): str(kind) for name, kind in by.items()},
        data_version=str(record.get("data_version") or ""),
        origin=Origin.of(record["origin"]) if record.get("origin") else None,
    )


def check_format(record: Any, place: object) -> None:
    """Refuse a record of a newer research_jobs.

    Raises
    ------
    StoreError
    ValueError, KeyError, TypeError, AttributeError
        When it is not a record at all.
    """
    written = record["format"]
    if written > FORMAT:
        raise StoreError(
            f"{place} has format {written}; this research_jobs reads formats up to {FORMAT}",
            hint="Upgrade research_jobs.",
        )


def choose_version(unit: object, ids: Sequence[str], back: int) -> str:
    """The version `back` steps (0, -1, -2...) from the last of `ids`.

    Raises
    ------
    OutputNotFoundError
    """
    if not ids:
        raise OutputNotFoundError(f"{unit} has no outputs yet", hint="Run the notebook first.")
    if back > 0 or -back >= len(ids):
        raise OutputNotFoundError(
            f"{unit} has no version {back}",
            hint=f"{len(ids) - 1} older version(s) are kept, -1 is the latest; "
            "'keep' in the manifest sets how many.",
        )
    return ids[back - 1]


def retained(
    newest: Collection[str],
    older: Iterable[tuple[str, Mapping[str, int]]],
    keep: Mapping[str, int | None],
) -> list[str]:
    """Choose the older versions to keep.

    A version is kept as long as the ``keep`` of any of its outputs asks for it. The last version
    with an output that is no longer made is kept too, because it has the only copy.

    Parameters
    ----------
    newest : collection of str
        The outputs of the new version.
    older : iterable of (str, mapping of str to int)
        Ids of the others, newest first, and their outputs with their sizes in bytes.
    keep : mapping of str to int or None
        Output to the number of older versions kept; None for `KEEP` of them, as far as they fit
        in `KEEP_SPACE`.
    """
    seen: dict[str, int] = dict.fromkeys(newest, 0)
    spent: dict[str, int] = {}
    kept: list[str] = []

    def asks(output: str, size: int) -> bool:
        if output not in seen:
            return True
        number = keep.get(output, 0)
        if number is not None:
            return seen[output] < number
        return seen[output] < KEEP and spent.get(output, 0) + size <= KEEP_SPACE

    for version, outputs in older:
        if any(asks(output, size) for output, size in outputs.items()):
            kept.append(version)
        for output, size in outputs.items():
            seen[output] = seen.get(output, 0) + 1
            spent[output] = spent.get(output, 0) + size
    return kept


def sizes_of(version: Version) -> dict[str, int]:
    """Output to the bytes of its file, as a version's record says."""
    return {name: int(item.get("bytes") or 0) for name, item in version.outputs.items()}


def rows_of(version: Version | None) -> dict[str, int | None]:
    """Output to rows of a version; empty without a version."""
    if version is None:
        return {}
    return {name: item.get("rows") for name, item in version.outputs.items()}


# -- partitioning ----------------------------------------------------------------------------


def partitioning_of(partition: PartitionKey | None) -> Mapping[str, str]:
    """Dimension to how its keys are made; empty without a partition."""
    if partition is None:
        return {}
    return {name: partition.by.get(name, "") for name in partition_dimensions(partition)}


@dataclass(frozen=True)
class Partitioning:
    """A notebook's partitioning, and the hidden folder of its outputs.

    Outputs of an earlier partitioning stay in their own hidden folder. Readers follow the folder
    named here.

    Parameters
    ----------
    root : str
        ``.versions``, ``.partitions``, ``.partitions-2``...
    by : mapping of str to str
        Dimension to how its keys are made (``month``); an empty string if that is not known.
    left : tuple of str
        Behind a URL: the folders that readers no longer follow, whose copies for other tools are
        still to be replaced.
    """

    root: str
    by: Mapping[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()

    def is_like(self, by: Mapping[str, str]) -> bool:
        """Whether partitions made `by` belong to the same partitioning."""
        if set(self.by) != set(by):
            return False
        return all(
            made == self.by[name] or not made or not self.by[name] for name, made in by.items()
        )

    def dump(self) -> bytes:
        """As JSON; `parse` reads it."""
        record = {"format": FORMAT, "root": self.root, "by": dict(self.by)}
        return json.dumps(record | ({"left": list(self.left)} if self.left else {})).encode()

    @classmethod
    def parse(cls, text: str | bytes, place: object) -> Partitioning:
        """Parse what `dump` wrote.

        Raises
        ------
        CorruptOutputError
        """
        try:
            record = json.loads(text)
            check_format(record, place)
            root = str(record["root"])
            by = {str(name): str(made) for name, made in record["by"].items()}
            left = tuple(map(str, record.get("left", ())))
            for name in (root, *left):
                if _ROOT.fullmatch(name) is None:
                    raise ValueError(f"{name!r} is not a folder of versions")  # noqa: TRY301
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptOutputError(
                f"{place} does not describe how the outputs are partitioned: {error}",
                hint=NO_PARTITIONING,
            ) from error
        return cls(root, by, left)

    def __str__(self) -> str:
        if not self.by:
            return "no partitions"
        parts = [f"{name} ({made})" if made else name for name, made in self.by.items()]
        return f"partitions by {' and '.join(parts)}"


def free_root(taken: Collection[str]) -> str:
    """The name of a new hidden folder for partitions, not in `taken`."""
    number = 1
    while (name := PARTITIONS if number == 1 else f"{PARTITIONS}-{number}") in taken:
        number += 1
    return name
