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
from functools import lru_cache
from types import UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from research_jobs.outcome import CheckOutcome, Failure, Outcome, StagedOutput, State

__all__ = [
    "FRAME_LIMIT",
    "PROTOCOL_VERSION",
    "Keep",
    "OutputRequest",
    "PartitionKey",
    "ProtocolError",
    "RunRequest",
    "as_record",
    "decode",
    "encode",
    "parse_message",
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
    return as_record(parse_message(payload))


def parse_message(payload: bytes) -> dict[str, Any]:
    """A frame's payload as a message.

    Raises
    ------
    ProtocolError
        When it is not an object of this protocol's version.
    """
    try:
        value: object = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"frame is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ProtocolError("frame is not an object")
    message = cast("dict[str, Any]", value)
    version = message.get("version")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(f"record of protocol {version!r}, this side speaks {PROTOCOL_VERSION}")
    return message


def as_record(message: Mapping[str, Any]) -> RunRequest | Outcome:
    """A message as the record that it is.

    Raises
    ------
    ProtocolError
        When it has not a record's shape.
    """
    kind = message.get("record")
    value = {name: item for name, item in message.items() if name not in ("version", "record")}
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
        "failure": _checked(Failure(**failure)) if failure else None,
        "outputs": tuple(
            _checked(StagedOutput(**item | {"columns": tuple((n, t) for n, t in item["columns"])}))
            for item in value["outputs"]
        ),
        "checks": tuple(_checked(CheckOutcome(**item)) for item in value["checks"]),
        "blocked_by": tuple(value["blocked_by"]),
        "results": tuple(value["results"]),
        "notes": tuple(value["notes"]),
    }
    return _checked(Outcome(**fields))


_Record = TypeVar("_Record", Failure, StagedOutput, CheckOutcome, Outcome)


def _checked(record: _Record) -> _Record:
    """A record that a notebook may have forged, if its fields have the types that it declares.

    Raises
    ------
    TypeError
    """
    for name, hint in _hints(type(record)).items():
        if not _fits(getattr(record, name), hint):
            raise TypeError(f"'{name}' is not {hint}")
    return record


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, one) for one in args)
    if origin is tuple:
        items = cast("tuple[object, ...]", value) if isinstance(value, tuple) else None
        kinds = args[:1] * len(items or ()) if args[-1] is Ellipsis else args
        return items is not None and len(items) == len(kinds) and all(map(_fits, items, kinds))
    if origin is Mapping:
        return isinstance(value, dict) and all(
            _fits(item, args[1]) for item in cast("dict[str, object]", value).values()
        )
    return hint is Any or isinstance(value, (int, float) if hint is float else hint)
