"""Records between supervisor and fresh process: what goes in comes out, all else is refused."""

from __future__ import annotations

import json

import pytest

from research_jobs.outcome import CheckOutcome, Failure, Outcome, StagedOutput, State
from research_jobs.protocol import (
    FRAME_LIMIT,
    HEADER,
    OutputRequest,
    PartitionKey,
    ProtocolError,
    RunRequest,
    decode,
    encode,
)

REQUEST = RunRequest(
    run_id="r",
    notebook="volatility/garch",
    module="volatility.garch",
    path="/p/notebooks/volatility/garch.py",
    project_root="/p",
    store="/p/data",
    working_directory="/p/notebooks/volatility",
    sys_path=("/p/notebooks/volatility", "/p/notebooks", "/p"),
    parameters={"lookback": 60},
    partition=PartitionKey("2018-11-01", {"run_date": "2018-11-01"}),
    outputs=(OutputRequest("forecast", {"compression": "zstd"}, {"min_rows": 1}),),
)
RESULT = Outcome(
    state=State.FAILED,
    failure=Failure("a.py:1: KeyError: 'x'", cell=1),
    outputs=(StagedOutput("a", "/s/a.parquet", "dict", 1, 2, (("k", "string"),)),),
    checks=(CheckOutcome("a", "min_rows", passed=False),),
    notes=("one",),
)


@pytest.mark.parametrize("record", [REQUEST, RESULT], ids=["request", "result"])
def test_a_record_comes_back_equal(record: RunRequest | Outcome) -> None:
    """Encoding and decoding give an equal record, nested ones included."""
    frame = encode(record)
    (length,) = HEADER.unpack(frame[: HEADER.size])
    assert length == len(frame) - HEADER.size
    assert decode(frame[HEADER.size :]) == record


def _changed(**changes: object) -> bytes:
    return json.dumps(json.loads(encode(RESULT)[HEADER.size :]) | changes).encode()


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "not an object"),
        (b"{}", "protocol None"),
        (_changed(version=99), "protocol 99"),
        (_changed(record="Other"), "unknown record"),
        (_changed(state="triumphed"), "shape"),
        (_changed(state="waiting"), "shape"),
        (_changed(surprise=1), "shape"),
        (_changed(failure=None).replace(b'"outputs"', b'"inputs"'), "shape.*'outputs'"),
        (_changed(outputs=None), "shape"),
        (_changed(failure={"headline": 5}), "shape.*'headline'"),
        (_changed(notes=[1]), "shape.*'notes'"),
        (_changed(parameters={"a": ["b"]}), "shape.*'parameters'"),
        (_changed(duration_s="long"), "shape.*'duration_s'"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (FRAME_LIMIT + 1), "at most"),
    ],
    ids=[
        "cut",
        "bytes",
        "list",
        "empty",
        "version",
        "kind",
        "state",
        "no ending",
        "field",
        "lacks",
        "none",
        "headline",
        "notes",
        "parameters",
        "duration",
        "deep",
        "huge",
    ],
)
def test_what_is_no_record_is_refused(payload: bytes, says: str) -> None:
    """A forged, cut, foreign or huge frame is a ProtocolError and never a record."""
    with pytest.raises(ProtocolError, match=says):
        decode(payload)


def test_a_record_too_large_is_not_sent() -> None:
    """The sender refuses what the receiver would refuse."""
    with pytest.raises(ProtocolError, match="at most"):
        encode(Outcome(State.SUCCEEDED, notes=("x" * FRAME_LIMIT,)))


def test_only_success_and_skip_are_good_endings() -> None:
    """Every other ending is a failure of the step."""
    assert [ending.value for ending in State if ending.ok] == ["succeeded", "skipped"]
