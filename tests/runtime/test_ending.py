"""One ending for each run, out of what is known at its end."""

# ruff: noqa: PTH100 - what is tested takes plain strings

from __future__ import annotations

import os
import signal
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from research_jobs.outcome import Failure, Outcome, State
from research_jobs.protocol import RunRequest, decode, encode
from research_jobs.runtime.ending import Facts, mask_result, tell_ending, user_stack
from research_jobs.runtime.masking import Masker

REQUEST = RunRequest(
    run_id="run",
    notebook="vol/garch",
    module="vol.garch",
    path="/project/notebooks/vol/garch.py",
    project_root="/project",
    store="/project/data",
    working_directory="/project/notebooks/vol",
    sys_path=(),
    timeout_s=30.0,
    memory_bytes=2 << 30,
)
CELL = {"number": 3, "title": "Fit", "source": "fit()"}
PLACE = 'notebooks/vol/garch.py, cell 3 "Fit"'
DONE = Outcome(State.SUCCEEDED, source_sha256="abc")


def killed_by(number: int) -> int:
    """The wait status of a process that a signal ended."""
    status = int(number)
    assert os.WIFSIGNALED(status)
    return status


def exited_with(code: int) -> int:
    """The wait status of a process that left with a code."""
    return code << 8


@pytest.mark.parametrize(
    ("known", "ending", "headline"),
    [
        ({"status": exited_with(0)}, State.EXITED, "exited without result (code 0)"),
        ({"status": None}, State.EXITED, "exited without result (code None)"),
        ({"status": killed_by(signal.SIGSEGV)}, State.CRASHED, "crashed with SIGSEGV"),
        ({"status": killed_by(34)}, State.CRASHED, "crashed with "),
        ({"status": killed_by(signal.SIGKILL)}, State.CRASHED, "killed by SIGKILL from outside"),
        (
            {
                "status": killed_by(signal.SIGKILL),
                "killed_for_memory": True,
                "memory_used": 3 << 30,
            },
            State.OUT_OF_MEMORY,
            "out of memory: 3 GiB used, the limit is 2 GiB; the kernel's",
        ),
        (
            {"reason": State.OUT_OF_MEMORY, "memory_used": 2100 << 20},
            State.OUT_OF_MEMORY,
            "out of memory: 2.051 GiB used, the limit is 2 GiB",
        ),
        ({"reason": State.TIMED_OUT}, State.TIMED_OUT, "timed out after 30 s"),
        ({"reason": State.CANCELLED}, State.CANCELLED, "cancelled"),
        ({"reason": State.CANCELLED, "record": DONE}, State.CANCELLED, "cancelled"),
        ({"record": DONE, "broken": "cut short"}, State.EXITED, "an invalid record: cut"),
    ],
)
def test_endings(known: dict[str, Any], ending: State, headline: str) -> None:
    """Each way to end has its name and its line; none of these is a success."""
    result = tell_ending(Facts(request=REQUEST, cell=CELL, **known))
    assert result.state is ending
    assert result.failure is not None
    assert result.failure.headline.startswith(f"{PLACE}: ")
    assert headline in result.failure.headline
    assert (result.failure.cell, result.failure.cell_source) == (3, "fit()")
    assert result.outputs == ()


@pytest.mark.parametrize("number", sorted(signal.valid_signals() - {signal.SIGKILL}))
def test_every_signal_but_kill_is_a_crash_of_its_name(number: int) -> None:
    """What ends a process from outside names its signal, which is no matter of memory."""
    facts = Facts(
        request=REQUEST, cell=CELL, status=killed_by(number), killed_for_memory=True, stack="x"
    )
    result = tell_ending(facts)
    assert result.state is State.CRASHED
    assert result.failure is not None
    assert f"crashed with {result.failure.signal} (" in result.failure.headline
    assert result.failure.traceback == "x"
    assert result.failure.signal == (
        signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (2**20 - 1024, "1023 KiB"),
        (2**20, "1 MiB"),
        (2**30, "1 GiB"),
        (3 * 2**40, "3072 GiB"),
    ],
)
def test_sizes_change_their_unit_at_1024(count: int, shown: str) -> None:
    """An amount of memory is given in the largest unit in which it is at least one."""
    facts = Facts(request=REQUEST, reason=State.OUT_OF_MEMORY, memory_used=count)
    failure = tell_ending(facts).failure
    assert failure is not None
    assert f"out of memory: {shown} used, the limit is 2 GiB" in failure.headline


@pytest.mark.parametrize("status", [exited_with(0), exited_with(1), None])
def test_success_is_a_record(status: int | None) -> None:
    """A record is what counts, whatever the exit code."""
    assert tell_ending(Facts(request=REQUEST, record=DONE, status=status)) == DONE


def test_crash_after_the_record() -> None:
    """A signal after the record is a note."""
    result = tell_ending(Facts(request=REQUEST, record=DONE, status=killed_by(signal.SIGSEGV)))
    assert result.state is State.SUCCEEDED
    assert result.notes == ("SIGSEGV ended the process after its result",)


def test_place_of_an_interrupt() -> None:
    """The line that our interrupt hit is reported, unless it was in another cell."""
    met = Failure("x", traceback="Traceback...", line=42, cell=3)
    record = Outcome(State.FAILED, failure=met, source_sha256="abc")
    facts = Facts(request=REQUEST, record=record, reason=State.TIMED_OUT, cell=CELL)
    result = tell_ending(facts)
    assert result.failure is not None
    assert result.failure.headline == (
        'notebooks/vol/garch.py:42, cell 3 "Fit": timed out after 30 s'
    )
    assert (result.failure.line, result.failure.traceback) == (42, "Traceback...")
    assert result.source_sha256 == "abc"
    later = replace(facts, cell={"number": 2, "title": None, "source": ""})
    failure = tell_ending(later).failure
    assert failure is not None
    assert failure.headline == "notebooks/vol/garch.py, cell 2: timed out after 30 s"


@pytest.mark.parametrize(
    ("cell", "staging", "place"),
    [
        (None, False, "notebooks/vol/garch.py, before its first cell: "),
        (CELL, True, "notebooks/vol/garch.py, while its outputs were staged: "),
    ],
)
def test_places(cell: dict[str, Any] | None, staging: bool, place: str) -> None:
    """A run that has not begun, or is past its last cell, says so."""
    facts = Facts(request=REQUEST, cell=cell, staging=staging, status=exited_with(1))
    failure = tell_ending(facts).failure
    assert failure is not None
    assert failure.headline.startswith(place)


def test_notebook_outside_its_project() -> None:
    """A notebook elsewhere is shown by its whole path."""
    facts = Facts(request=replace(REQUEST, project_root="/other"), status=exited_with(1))
    failure = tell_ending(facts).failure
    assert failure is not None
    assert failure.headline.startswith("/project/notebooks/vol/garch.py, ")


def test_stack_at_a_fault() -> None:
    """The stack has the user's frames, and the innermost line of the notebook is the place."""
    here = os.path.abspath(tell_ending.__code__.co_filename)
    stack = user_stack(
        "Fatal Python error: Segmentation fault\n\n"
        "Current thread 0x01 (most recent call first):\n"
        '  File "/project/notebooks/vol/helper.py", line 3 in f\n'
        '  File "/project/notebooks/vol/garch.py", line 7 in g\n'
        '  File "/project/notebooks/vol/garch.py", line 9 in <module>\n'
        f'  File "{here}", line 1 in x\n\n'
        "Extension modules: a, b (total: 2)\n"
    )
    assert here not in stack
    assert "Extension" not in stack
    facts = Facts(request=REQUEST, cell=CELL, stack=stack, status=killed_by(signal.SIGSEGV))
    failure = tell_ending(facts).failure
    assert failure is not None
    assert (failure.line, failure.signal, failure.traceback) == (7, "SIGSEGV", stack)
    assert failure.headline.startswith('notebooks/vol/garch.py:7, cell 3 "Fit": crashed')


SECRET = "s3cr3t-value"
# Names by which files, outputs and checks are found again, and words of our own.
PLAIN = {
    "state", "failure.signal", "outputs.name", "outputs.path", "checks.output", "checks.check",
    "checks.severity", "isolation", "results",
}  # fmt: skip


def filled(hint: Any, said: str = SECRET) -> Any:
    """A value of a type that holds a text, by default the secret, wherever it can hold one."""
    arguments = typing.get_args(hint)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        return hint(**{field.name: filled(hints[field.name], said) for field in fields(hint)})
    if isinstance(hint, type) and issubclass(hint, State):
        return State.FAILED
    if hint in (int, float, bool):
        return hint(1)
    if typing.get_origin(hint) is tuple:
        return tuple(filled(item, said) for item in arguments if item is not ...)
    if type(None) in arguments:
        return filled(arguments[0], said)
    if hint is str:
        return f"before {said} after"
    if typing.get_origin(hint) is Mapping and arguments[1] is not Any:
        return {f"key {said}": filled(arguments[1], said)}
    return {f"key {said}": [f"item {said}", {"deep": (said, {said: 1})}]}


def texts(value: Any, place: str = "") -> typing.Iterator[tuple[str, str]]:
    """Every text in a decoded record, with the dotted names of the fields that lead to it."""
    if is_dataclass(value):
        for field in fields(value):
            yield from texts(getattr(value, field.name), f"{place}.{field.name}".lstrip("."))
    elif isinstance(value, dict):
        for key, item in value.items():
            yield place, key
            yield from texts(item, place)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from texts(item, place)
    elif isinstance(value, str):
        yield place, value


def test_no_field_of_a_result_shows_a_secret() -> None:
    """Every text of a result is masked, fields of later versions included, or listed here."""
    result = filled(Outcome)
    full = dict.fromkeys(place for place, text in texts(result) if SECRET in text)
    assert {"skip_reason", "failure.headline", "checks.description", "outputs.columns"} <= {*full}
    masked = mask_result(result, Masker([SECRET]))
    assert {place for place, text in texts(masked) if SECRET in text} == PLAIN - {"state"}
    assert decode(encode(masked)[4:]) is not None
    assert sorted(dict.fromkeys(place for place, _ in texts(masked))) == sorted(
        dict.fromkeys(place for place, _ in texts(result))
    )


def test_every_text_of_a_result_can_be_encoded() -> None:
    """A lone surrogate in any text of a result leaves the run escaped, with secrets or without."""
    result = filled(Outcome, "name\udcff and \ud83d")
    for masker in (Masker([]), Masker([SECRET])):
        left = list(texts(mask_result(result, masker)))
        broken = {place for place, text in left if not text.isprintable()}
        assert broken == PLAIN - {"state"}
        assert ("failure.headline", r"before name\udcff and \ud83d after") in left
