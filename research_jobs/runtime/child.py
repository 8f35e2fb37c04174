"""One run, inside the notebook's process: import, collect, stage the outputs, send the record.

The order at the end is deliberate. The record is sent once every output is staged and every thread
and non-daemon process of the notebook has ended. Only then do `atexit` handlers run: one that
crashes or hangs costs a line in the run's notes, not the result.

Standard library only at the top, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from research_jobs.errors import (
    OutputError,
    OutputNotAssignedError,
    ResearchJobsError,
    SourceLocation,
    did_you_mean,
)
from research_jobs.failpoints import failpoint
from research_jobs.notebook.cells import Cell, NotebookText, read_notebook_text
from research_jobs.outcome import CheckOutcome, Failure, Outcome, StagedOutput, State, failed
from research_jobs.protocol import OutputRequest, ProtocolError, RunRequest, encode
from research_jobs.run_context import NotebookSkipped, RunContext, set_context
from research_jobs.runtime.capture import Recorder
from research_jobs.runtime.channel import message
from research_jobs.runtime.ending import shown_path
from research_jobs.runtime.failure import safe_str
from research_jobs.runtime.handover import hand_over
from research_jobs.runtime.importer import describe_failure, import_notebook
from research_jobs.runtime.kept import offer, wait_for_visits
from research_jobs.runtime.measuring import measure_coverage
from research_jobs.runtime.ownership import as_owner, claim_run, leave, owns_run
from research_jobs.runtime.recording import open_recorder
from research_jobs.runtime.remaining import Position
from research_jobs.runtime.workers import become_main
from research_jobs.store.view import VIEW_VARIABLE

__all__ = ["run_child"]

_LINE_LIMIT = 8192
_SOURCE_LIMIT = 64 * 1024
_TRACEBACK_LIMIT = 512 * 1024


class _Channel:
    """The private channel to the guardian; a forked copy of the notebook cannot use it.

    Parameters
    ----------
    descriptor : int
        A connected stream socket.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._identity = self._identify()

    def send(self, frame: bytes) -> None:
        """Send a frame; nothing from a forked copy of the notebook's process.

        Raises
        ------
        OSError
            When the notebook has closed the descriptor, which may by now be one of its own files.
        """
        if not owns_run():
            return
        if self._identify() != self._identity:
            raise OSError("the notebook closed a descriptor of the run, so there is no result")
        view = memoryview(frame)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.fstat(self._descriptor)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def run_child(request: RunRequest, descriptor: int, refusals: int) -> NoReturn:
    """Run the notebook in this fresh process, and exit.

    Parameters
    ----------
    request : RunRequest
    descriptor : int
        A connected stream socket to the guardian.
    refusals : int
        A pipe to the guardian, for workers that are not allowed to import the notebook.
    """
    claim_run()
    channel = _Channel(descriptor)
    status = 1
    try:
        position = Position()
        result = _run(request, channel, partial(become_main, refusals=refusals), position)
        failpoint("child-before-record")
        offered = offer(request.keep, position, result) if request.keep is not None else None
        if offered is not None:
            channel.send(offered[1])
        channel.send(_frame(result))
        failpoint("child-after-record")
        if offered is not None:
            wait_for_visits(offered[0], descriptor, request, position)
        status = 0 if result.state.ok else 1
    except BaseException:  # noqa: BLE001 - nothing could handle it any more
        with contextlib.suppress(Exception):
            traceback.print_exc()
    finally:
        leave(status)


def _run(
    request: RunRequest,
    channel: _Channel,
    on_module: Callable[[ModuleType], None],
    position: Position,
) -> Outcome:
    recorder = open_recorder(request.capture_path, tuple(request.secrets.values()))
    measure_coverage(request.project_root)
    try:
        result = _import_and_stage(request, channel, recorder, on_module, position)
    except BaseException:
        recorder.end(str(failed(Failure("")).state))
        raise
    recorder.end(str(result.state))
    return result


def _import_and_stage(
    request: RunRequest,
    channel: _Channel,
    recorder: Recorder,
    on_module: Callable[[ModuleType], None],
    position: Position,
) -> Outcome:
    try:
        text = position.text = read_notebook_text(Path(request.path))
    except ResearchJobsError as error:
        return _failed(request, error)
    set_context(_context(request))
    if request.view is not None:
        os.environ[VIEW_VARIABLE] = request.view

    def started(module: ModuleType) -> None:
        position.module = module
        on_module(module)

    def on_cell(cell: Cell) -> None:
        position.begun.append(cell)
        with contextlib.suppress(OSError):  # reported at the end, not as the notebook's error
            channel.send(_cell_message(cell))

    root = Path(request.project_root)

    def describe(error: BaseException) -> Failure:
        return describe_failure(error, text, root)

    outcome = Outcome(state=State.SUCCEEDED, source_sha256=text.sha256)
    try:
        namespace, used, note = as_owner(
            lambda: _import(request, text, recorder, started, on_cell),
            lambda error: describe(error).traceback,
        )
        outcome = replace(outcome, parameters=used, notes=(note,) if note else ())
    except NotebookSkipped as skipped:
        position.error = skipped
        return replace(
            outcome, state=State.SKIPPED, skip_reason=safe_str(skipped.reason)[:_LINE_LIMIT]
        )
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures
        position.error = error
        failure = describe(error)
        if isinstance(error, SystemExit):
            failure = _tell_exit(failure, error)
        return failed(_bounded(failure), outcome)
    return _staged(request, channel, namespace, outcome, describe)


def _staged(
    request: RunRequest,
    channel: _Channel,
    namespace: Mapping[str, Any],
    outcome: Outcome,
    describe: Callable[[BaseException], Failure],
) -> Outcome:
    """The outcome of a notebook all of whose cells have run, with its outputs."""

    def as_text(error: BaseException) -> str:
        return describe(error).traceback

    try:
        with contextlib.suppress(OSError):
            channel.send(message("Stage"))
        outputs, checks, left_out = as_owner(lambda: _stage(request, namespace), as_text)
        results = as_owner(lambda: hand_over(request, namespace), as_text)
        as_owner(_finish_threads, as_text)
    except ResearchJobsError as error:
        return replace(_failed(request, error), source_sha256=outcome.source_sha256)
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt while staging included
        return failed(_bounded(describe(error)), outcome)
    notes = (*outcome.notes, *left_out)
    return replace(outcome, outputs=outputs, checks=checks, results=results, notes=notes)


def _import(
    request: RunRequest,
    text: NotebookText,
    recorder: Recorder,
    on_module: Callable[[ModuleType], None],
    on_cell: Callable[[Cell], None],
) -> tuple[Mapping[str, Any], dict[str, str], str | None]:
    """The notebook's names, the parameters used, and a note if it ended itself early."""
    try:
        module, used = import_notebook(
            text,
            request.module,
            recorder=recorder,
            parameters={**request.parameters, **request.secret_parameters},
            parameter_types=request.parameter_types,
            on_module=on_module,
            on_cell=on_cell,
            keep_loop=request.keep is not None,
        )
    except SystemExit as left:
        # exit() and exit(0) mean "done", as in a script: assigned outputs count, and outputs that
        # are not assigned yet are missing.
        namespace = _namespace_of(left, request)
        if left.code not in (None, 0) or namespace is None:
            raise
        used = {name: str(value) for name, value in request.parameters.items()}
        note = f"the notebook ended itself early with SystemExit({left.code!r})"
        return namespace, _shown(request, used), note
    return vars(module), _shown(request, used), None


def _shown(request: RunRequest, used: Mapping[str, str]) -> dict[str, str]:
    """The parameters as records and reports show them: secret ones by name only."""
    return {**used, **dict.fromkeys(request.secret_parameters, "(secret)")}


def _namespace_of(error: BaseException, request: RunRequest) -> Mapping[str, Any] | None:
    """The notebook's names, from the frames of an exception (importlib drops the module)."""
    step = error.__traceback__
    while step is not None:
        names = step.tb_frame.f_globals
        if names.get("__name__") == request.module and names.get("__file__") == request.path:
            return names
        step = step.tb_next
    return None


def _context(request: RunRequest) -> RunContext:
    partition = request.partition
    return RunContext(
        notebook=request.notebook,
        run_id=request.run_id,
        partition_key=partition.key if partition else None,
        partition=dict(partition.dimensions) if partition else {},
        start=_moment(partition.start if partition else None),
        end=_moment(partition.end if partition else None),
        in_batch=True,
        trying=request.trying,
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    # Python 3.10 cannot parse the short form of UTC.
    return datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text))


def _cell_message(cell: Cell) -> bytes:
    return message(
        "Cell",
        number=cell.number,
        title=cell.title[:200] if cell.title else None,
        line=cell.first_line,
        source=cell.source[:_SOURCE_LIMIT],
    )


def _finish_threads() -> None:
    """Wait for what the notebook left running, as an interpreter does before it exits."""
    # This joins non-daemon threads and ends idle pools of threads and processes: joining alone
    # would wait for an idle pool forever.
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    multiprocessing: Any = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        for process in multiprocessing.active_children():
            if not process.daemon:
                process.join()


# -- outputs --------------------------------------------------------------------------------


def _stage(
    request: RunRequest, namespace: Mapping[str, Any]
) -> tuple[tuple[StagedOutput, ...], tuple[CheckOutcome, ...], list[str]]:
    """The outputs, their checks, and why optional ones are not there."""
    _require_assigned(request, namespace)
    outputs: list[StagedOutput] = []
    checks: list[CheckOutcome] = []
    left_out: list[str] = []
    for output in request.outputs:
        if output.name not in namespace:
            continue
        failpoint("child-before-output")
        try:
            staged = as_owner(partial(_write, request, output, namespace[output.name]))
        except ResearchJobsError as error:
            if not output.optional:
                raise
            left_out.append(error.what)
            continue
        outputs.append(staged)
        if output.checks:
            checks += _check(request, output, staged, namespace[output.name])
    return tuple(outputs), tuple(checks), left_out


def _require_assigned(request: RunRequest, namespace: Mapping[str, Any]) -> None:
    required = (output.name for output in request.outputs if not output.optional)
    missing = [name for name in required if name not in namespace]
    if not missing:
        return
    names = [
        name
        for name, value in namespace.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    hint = did_you_mean(missing[0], names, label="It assigned")
    what = (
        f"output '{missing[0]}' was never assigned"
        if len(missing) == 1
        else "outputs " + ", ".join(f"'{name}'" for name in missing) + " were never assigned"
    )
    raise OutputNotAssignedError(what, where=_where(request), hint=hint or None)


def _write(request: RunRequest, output: OutputRequest, value: Any) -> StagedOutput:
    if request.staging is None:
        raise OutputError(f"output '{output.name}' has no staging folder", where=_where(request))
    try:
        from research_jobs.store.codec import write_output

        return write_output(
            output.name,
            value,
            Path(request.staging) / f"{output.name}.parquet",
            options=output.options,
            metadata=request.metadata,
        )
    except ModuleNotFoundError as error:
        raise OutputError(
            f"output '{output.name}' requires the package '{error.name}', which is not "
            f"installed for {sys.executable}",
            where=_where(request),
            hint=f"Install it: {sys.executable} -m pip install {error.name}",
        ) from error
    except ResearchJobsError as error:
        if error.where is None:
            error.where = _where(request)
        raise
    except OSError as error:
        raise OutputError(
            f"output '{output.name}' could not be written: {error.strerror or error}",
            where=_where(request),
        ) from error


def _check(
    request: RunRequest, output: OutputRequest, staged: StagedOutput, value: Any
) -> Sequence[CheckOutcome]:
    from research_jobs.store.checks import evaluate_checks
    from research_jobs.store.layout import output_path

    path = output_path(request.store, request.notebook, output.name, request.partition)
    previous = Path(path) if "://" not in request.store and Path(path).exists() else None
    if "changed" not in output.checks:
        return evaluate_checks(staged, output.checks, previous=previous, value=value)
    from research_jobs.comparison.check import changed

    others = {"changed": changed}
    return evaluate_checks(staged, output.checks, previous=previous, value=value, others=others)


# -- the record and the end -------------------------------------------------------------------


def _where(request: RunRequest) -> SourceLocation:
    return SourceLocation(shown_path(request))


def _failed(request: RunRequest, error: ResearchJobsError) -> Outcome:
    if error.where is None:
        error.where = _where(request)
    failure = Failure(
        headline=error.headline,
        traceback=error.details or "",
        exception=f"{type(error).__module__}.{type(error).__qualname__}",
        line=error.where.line,
    )
    return failed(_bounded(failure))


def _tell_exit(failure: Failure, left: SystemExit) -> Failure:
    place = failure.headline.rpartition(": SystemExit")[0] or failure.headline
    said = "exited with code " if isinstance(left.code, int) else "exited: "
    return replace(failure, headline=f"{place}: {said}{safe_str(left.code)} (SystemExit)")


def _bounded(failure: Failure) -> Failure:
    """A failure cut to fit into a record, whatever the notebook put into its message."""
    return replace(
        failure,
        headline=failure.headline[:_LINE_LIMIT],
        exception=failure.exception and failure.exception[:_LINE_LIMIT],
        traceback=_middle_cut(failure.traceback, _TRACEBACK_LIMIT),
        cell_source=_middle_cut(failure.cell_source, _SOURCE_LIMIT),
    )


def _middle_cut(text: Any, limit: int) -> Any:
    if not isinstance(text, str) or len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - limit} characters left out ...]\n{text[-half:]}"


def _frame(result: Outcome) -> bytes:
    try:
        return encode(result)
    except ProtocolError:
        # Only previews and statistics can be large, with a wide table.
        lean = tuple(replace(item, preview={}, statistics={}) for item in result.outputs)
        note = "previews and statistics were left out: the run's record was too large"
        return encode(replace(result, outputs=lean, notes=(*result.notes, note)))
