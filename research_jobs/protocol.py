"""Request and result records between the supervisor and the fresh process.

Records are JSON objects in frames: four bytes of length (big endian), then UTF-8 JSON.
They travel over a private, inherited descriptor, never over stdout and never as pickle.
Every frame is capped in size and every record carries the protocol's version, so a truncated,
huge or foreign frame is an error of its own and not a surprise.

Standard library only, Python 3.10 and later: both sides import it.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from research_jobs.outcome import CheckOutcome, Failure, Outcome, StagedOutput, State

__all__ = [
    "FRAME_LIMIT",
    "PROTOCOL_VERSION",
    "Keep",
    "OutputRequest",
    "PartitionKey",
    "ProtocolError",
    "RunRequest",
    "decode",
    "encode",
]

PROTOCOL_VERSION = 1
FRAME_LIMIT = 16 * 1024 * 1024
HEADER = struct.Struct(">I")


class ProtocolError(Exception):
    """A frame or record that is not one of ours."""


def _empty() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class OutputRequest:
    """One declared output.

    Parameters
    ----------
    name : str
        The notebook's variable.
    options : mapping
        Writing options (``compression``, ``row_group_size``...) as the manifest has them.
    checks : mapping
        The output's checks as the manifest has them, evaluated on the staged file by the child.
    optional : bool
        Whether it is staged only if it is assigned and can be Parquet.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=_empty)
    checks: Mapping[str, Any] = field(default_factory=_empty)
    optional: bool = False


@dataclass(frozen=True)
class PartitionKey:
    """The partition of a run.

    Parameters
    ----------
    key : str
        Dagster's partition key (``a|b`` where there are two dimensions).
    dimensions : mapping of str to str
        Column name to key, as they stand in the hive path: ``{"run_date": "2018-11-01"}``.
    start, end : str or None
        The half-open time window as ISO 8601 with offset, where the partition is one of time.
    by : mapping of str to str
        Column name to how its keys are made (``month, UTC``): partitions that differ in it are not
        kept beside each other.
    """

    key: str
    dimensions: Mapping[str, str] = field(default_factory=_empty)
    start: str | None = None
    end: str | None = None
    by: Mapping[str, str] = field(default_factory=_empty)


@dataclass(frozen=True)
class Keep:
    """That the process stays when the run has failed, to be looked at.

    Parameters
    ----------
    folder : str
        An empty private folder: what is kept says there what it is and how to enter it.
    seconds : float
        It is ended after so long.
    owner : int or None
        Pid of a process that it does not outlive.
    always : bool
        Whether it also stays when the run succeeded.
    source : str
        The notebook's file from which the remaining cells are read: where it is edited.
    """

    folder: str
    seconds: float
    owner: int | None = None
    always: bool = False
    source: str = ""


@dataclass(frozen=True)
class RunRequest:
    """All that the fresh process needs to know of one run.

    Parameters
    ----------
    run_id, step_key : str
        Who asked (Dagster's run id, or one of our own making).
    notebook, module, path : str
        Name (``volatility/garch``), module (``volatility.garch``), absolute path of the file.
    project_root, store : str
        As in `research_jobs.project.Project`.
    working_directory : str
        Where the notebook runs: by default its own folder.
    sys_path : tuple of str
        What ``sys.path`` begins with.
    parameters : mapping
        Values that replace the parameters cell's, JSON only.
    secret_parameters : mapping
        Like `parameters`, and told to nobody else: neither records nor reports name the values.
    parameter_types : mapping of str to str
        The type each is converted to in the notebook's process (``"date"``, ``"list[str]"``).
    partition : PartitionKey or None
    outputs : tuple of OutputRequest
        Declared outputs: staged as Parquet below `staging`.
    staging : str or None
        Folder on the store's file system for staged outputs; the supervisor made it.
    results : tuple of str
        Variables for ``run_notebook()``'s caller, pickled to `results_path`.
    results_path : str or None
    capture_path : str or None
        Where the cells' rich outputs are recorded, one JSON object a line; None records nothing.
    view : str or None
        Folder of the run's view of the store, where what it reads is noted; see `store.view`.
    trying : bool
        Whether nothing of the run counts.
    timeout_s, grace_s : float
        Seconds until the run is ended; seconds between INT, TERM and KILL.
    memory_bytes : int or None
        Limit over the whole process tree.
    log_limit_bytes : int
        How much of stdout, and of stderr, is logged: the beginning and the end of it.
    code_version : str or None
    environment : mapping of str to str
        Set in the fresh process on top of the inherited environment.
    secrets : mapping of str to str
        Variable to value: values masked in everything the run leaves behind.
    metadata : mapping of str to str
        Written into each output's Parquet footer.
    keep : Keep or None
        Whether the process stays when the run has failed.
    """

    run_id: str
    notebook: str
    module: str
    path: str
    project_root: str
    store: str
    working_directory: str
    sys_path: tuple[str, ...]
    step_key: str = ""
    parameters: Mapping[str, Any] = field(default_factory=_empty)
    secret_parameters: Mapping[str, Any] = field(default_factory=_empty)
    parameter_types: Mapping[str, str] = field(default_factory=_empty)
    partition: PartitionKey | None = None
    outputs: tuple[OutputRequest, ...] = ()
    staging: str | None = None
    results: tuple[str, ...] = ()
    results_path: str | None = None
    capture_path: str | None = None
    view: str | None = None
    trying: bool = False
    timeout_s: float | None = None
    grace_s: float = 5.0
    memory_bytes: int | None = None
    log_limit_bytes: int = 10 * 1024 * 1024
    code_version: str | None = None
    environment: Mapping[str, str] = field(default_factory=_empty)
    secrets: Mapping[str, str] = field(default_factory=_empty)
    metadata: Mapping[str, str] = field(default_factory=_empty)
    keep: Keep | None = None


def encode(record: RunRequest | Outcome) -> bytes:
    """A record as one frame."""
    payload = json.dumps(
        {"version": PROTOCOL_VERSION, "record": type(record).__name__} | dataclasses.asdict(record),
        allow_nan=True,
    ).encode()
    if len(payload) > FRAME_LIMIT:
        raise ProtocolError(f"record of {len(payload)} bytes, at most {FRAME_LIMIT} are allowed")
    return HEADER.pack(len(payload)) + payload


def decode(payload: bytes) -> RunRequest | Outcome:
    """A frame's payload (without its length) as a record.

    Raises
    ------
    ProtocolError
        When it is too large, no JSON, of another version, or not of a record's shape.
    """
    if len(payload) > FRAME_LIMIT:
        raise ProtocolError(f"frame of {len(payload)} bytes, at most {FRAME_LIMIT} are allowed")
    try:
        decoded: object = json.loads(payload)
    except ValueError as error:
        raise ProtocolError(f"frame is not JSON: {error}") from error
    if not isinstance(decoded, dict):
        raise ProtocolError("frame is not an object")
    value = cast("dict[str, Any]", decoded)
    version = value.pop("version", None)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"record of protocol {version!r}, this side speaks {PROTOCOL_VERSION}")
    kind = value.pop("record", None)
    try:
        if kind == "RunRequest":
            return _request(value)
        if kind == "Outcome":
            return _outcome(value)
    except (TypeError, ValueError, KeyError) as error:
        raise ProtocolError(f"{kind} has not the shape it should have: {error}") from error
    raise ProtocolError(f"unknown record {kind!r}")


def _request(value: dict[str, Any]) -> RunRequest:
    partition, keep = value.get("partition"), value.get("keep")
    fields: dict[str, Any] = value | {
        "sys_path": tuple(value["sys_path"]),
        "partition": PartitionKey(**partition) if partition else None,
        "outputs": tuple(OutputRequest(**item) for item in value["outputs"]),
        "results": tuple(value["results"]),
        "keep": Keep(**keep) if keep else None,
    }
    return RunRequest(**fields)


def _outcome(value: dict[str, Any]) -> Outcome:
    failure = value.get("failure")
    state = State(value["state"])
    if not state.ended:
        raise ValueError(f"no run ends as {state.words}")
    fields: dict[str, Any] = value | {
        "state": state,
        "failure": Failure(**failure) if failure else None,
        "outputs": tuple(
            StagedOutput(**item | {"columns": tuple((n, t) for n, t in item["columns"])})
            for item in value["outputs"]
        ),
        "checks": tuple(CheckOutcome(**item) for item in value["checks"]),
        "blocked_by": tuple(value["blocked_by"]),
        "results": tuple(value["results"]),
        "notes": tuple(value["notes"]),
    }
    return Outcome(**fields)
