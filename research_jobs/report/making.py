"""Reports from a run worker's side: it asks another process, waits, and never parses an output.

Whatever becomes of that process, a page exists: when it fails, is killed or takes too long, a
plain page is written here that says so and touches nothing that the notebook showed.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any, cast

from research_jobs.errors import ResearchJobsError
from research_jobs.outcome import to_json
from research_jobs.process import hands_down
from research_jobs.project import Project
from research_jobs.protocol import ProtocolError
from research_jobs.provenance.assembling import RunFacts
from research_jobs.report.header import ReportHeader
from research_jobs.report.layout import Report
from research_jobs.report.limits import Limits
from research_jobs.report.mail_order import Mailed, MailOrder
from research_jobs.report.whole import Published
from research_jobs.runtime.channel import FrameReader, send_frame
from research_jobs.runtime.processes import wait_or_kill

__all__ = [
    "Listening",
    "ReportOrder",
    "close_maker",
    "make_changes",
    "make_mail",
    "make_report",
    "start_maker",
]

Listening = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""Has a function called once the run is to stop; see `CancelToken.listening`."""

# How long a report may still take once its run was cancelled, and how long after its own limit
# its process counts as lost: seconds.
AFTER_CANCEL = 3.0
SLACK = 5.0
# Arrow reserves more than it uses.
COMPARING = Limits(memory_bytes=8 << 30)
ANSWER_LIMIT = 64 * 1024
_THUMBNAILS = ("thumbnail.png", "thumbnail.jpg", "thumbnail.svg", "thumbnail.js")
_ROOT = str(Path(__file__).parents[2])
_START = (
    f"import sys; sys.path.append({_ROOT!r}); "
    "from research_jobs.report.maker import serve; serve(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class ReportOrder:
    """One report to make.

    Parameters
    ----------
    header : ReportHeader
    folder : Path
        See `research_jobs.report.layout.report_folder`.
    reports : Path
        The folder that all reports share.
    capture : Path or None
        What the notebook's cells showed.
    notebook : Path or None
        The notebook's file.
    card : dict
        Fields of the gallery's `NotebookCard`.
    keep : int or None
        How many reports of the notebook are kept.
    unique : mapping of str to sequence of str
        Output to the columns that the manifest declares ``unique``.
    mail : MailOrder, optional
        The mail to make of it.
    facts : RunFacts or None
        What the run's record says beside; without them none is written.
    published : Published or None
        Where its outputs are, if they are in the store.
    """

    header: ReportHeader
    folder: Path
    reports: Path
    capture: Path | None
    notebook: Path | None
    card: dict[str, Any]
    keep: int | None
    unique: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    mail: MailOrder | None = None
    facts: RunFacts | None = None
    published: Published | None = None


class _LostError(Exception):
    """Why a report was not made."""


def make_report(
    order: ReportOrder, *, stop: Listening | None = None, limits: Limits | None = None
) -> Report:
    """Make a report in another process, or a plain page where that fails.

    Parameters
    ----------
    order : ReportOrder
    stop : callable, optional
        Says when the run is to stop: the report then has a few seconds left.
    limits : Limits, optional

    Returns
    -------
    Report
        Its page exists.

    Raises
    ------
    OSError
        When not even a plain page can be written.
    """
    message = {
        "header": vars(order.header) | {"outcome": to_json(order.header.outcome)},
        "folder": str(order.folder),
        "reports": str(order.reports),
        "capture": str(order.capture) if order.capture is not None else None,
        "notebook": str(order.notebook) if order.notebook is not None else None,
        "card": order.card,
        "keep": order.keep,
        "unique": {name: list(columns) for name, columns in order.unique.items()},
        "mail": order.mail.to_json() if order.mail is not None else None,
        "published": asdict(order.published) if order.published is not None else None,
        "facts": order.facts.to_json() if order.facts is not None else None,
    }
    lost = ""
    try:
        answer = _ask(message, limits or Limits(), stop or (lambda _: contextlib.nullcontext()))
        lost = str(answer.get("error") or "")
    except _LostError as error:
        answer, lost = {}, str(error)
    report = _write_plain_report(order, lost) if lost else _report_of(order, answer)
    if order.mail is None:
        return report
    why = f"its report could not be made: {lost}"
    return replace(report, mail=Mailed.of(answer.get("mail"), order.mail, why))


def make_mail(folder: Path, order: MailOrder) -> Mailed:
    """Make a mail of a report that is stored, in another process.

    Parameters
    ----------
    folder : Path
        The report's.
    order : MailOrder

    Raises
    ------
    ResearchJobsError
        When it could not be made.
    """
    message = {"folder": str(folder), "mail": order.to_json()}
    try:
        answer = _ask(message, Limits(), lambda _: contextlib.nullcontext())
    except _LostError as error:
        raise ResearchJobsError(f"the mail could not be made: {error}") from None
    mailed = Mailed.of(answer.get("mail"), order, "")
    why = answer.get("error") or mailed.error
    if why:
        raise ResearchJobsError(f"the mail could not be made: {why}")
    return mailed


def make_changes(project: Project, folder: Path, *, limits: Limits | None = None) -> None:
    """Make the page of what changed since the success before, in another process.

    Parameters
    ----------
    project : Project
    folder : Path
        Of the later run's report, in which it is not made yet.
    limits : Limits, optional

    Raises
    ------
    ResearchJobsError
        When it cannot be made. The page that is there says why.
    """
    message = {
        "folder": str(folder),
        "changes": {"root": str(project.root), "store": project.store},
    }
    try:
        answer = _ask(message, limits or COMPARING, lambda _: contextlib.nullcontext())
        why = str(answer.get("error") or "")
    except _LostError as error:
        why = str(error)
    if not why:
        return
    from research_jobs.report.pending import write_why

    with contextlib.suppress(OSError):
        write_why(folder, why)
    raise ResearchJobsError(f"the comparison could not be made: {why}")


def _ask(order: dict[str, Any], limits: Limits, stop: Listening) -> dict[str, Any]:
    message = json.dumps({**order, "limits": asdict(limits)}).encode()
    waker, woken = socket.socketpair()
    with waker, woken:
        waker.setblocking(False)

        def wake() -> None:
            with contextlib.suppress(OSError):
                waker.send(b"x")

        with stop(wake):
            answer = _answer(message, woken, limits)
    if answer is None:
        raise _LostError(
            f"its process was killed, for it may take {limits.seconds:g} s and "
            f"{limits.memory_bytes / 2**30:.3g} GiB"
        )
    return answer


def _answer(message: bytes, woken: socket.socket, limits: Limits) -> dict[str, Any] | None:
    """What a copy of the process says to an order; None when it ended without a word."""
    while True:
        copy, used = _maker.take()
        answer: Any = None
        try:
            send_frame(copy, message)
            answer = json.loads(_receive(copy, woken, limits.seconds + SLACK))
        except ValueError:
            pass
        except OSError as error:
            if not used:
                raise _LostError(f"its process ended ({error.strerror or error})") from None
        finally:
            if isinstance(answer, dict) and cast("dict[str, Any]", answer).get("again") is True:
                _maker.give_back(copy)
            else:
                copy.close()
        if isinstance(answer, dict):
            return cast("dict[str, Any]", answer)
        # One that waited for its next order may have been killed before it came.
        if not used:
            return None


def _receive(reply: socket.socket, woken: socket.socket, seconds: float) -> bytes:
    """One answer, or nothing where the other side ends first, within a limit.

    Raises
    ------
    _LostError
        When it takes too long or is too large.
    """
    poller = select.poll()
    poller.register(reply, select.POLLIN)
    poller.register(woken, select.POLLIN)
    deadline = time.monotonic() + seconds
    reader = FrameReader(reply, ANSWER_LIMIT)
    stopped = False
    while True:
        left = max(0.0, deadline - time.monotonic())
        ready = {descriptor for descriptor, _ in poller.poll(left * 1000)}
        if not ready:
            reason = "the run was cancelled" if stopped else f"it took longer than {seconds:g} s"
            raise _LostError(reason)
        if woken.fileno() in ready:
            poller.unregister(woken)
            stopped = True
            deadline = min(deadline, time.monotonic() + AFTER_CANCEL)
        if reply.fileno() in ready:
            try:
                for payload in reader.read():
                    return payload
            except ProtocolError as error:
                if not reader.closed:
                    raise _LostError(f"its process answered with a {error}") from None
            if reader.closed:
                return b""


def _report_of(order: ReportOrder, answer: dict[str, Any]) -> Report:
    """The report that an answer describes. Only names that we know are taken from it."""
    anchor, thumbnail = answer.get("anchor"), answer.get("thumbnail")
    return Report(
        order.folder,
        thumbnail=order.folder / thumbnail if thumbnail in _THUMBNAILS else None,
        anchor=anchor if isinstance(anchor, str) and re.fullmatch(r"cell-\d+", anchor) else None,
        changes=answer.get("changes") is True,
    )


def _write_plain_report(order: ReportOrder, reason: str) -> Report:
    from research_jobs.report.assets import write_atomically
    from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery
    from research_jobs.report.ipynb import notebook_json
    from research_jobs.report.record import Recorded

    header, outcome = order.header, order.header.outcome
    order.folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"The run {outcome.run_id} ended: {outcome.state.words}.",
        outcome.failure.headline if outcome.failure is not None else outcome.skip_reason,
        outcome.failure.traceback if outcome.failure is not None else None,
        f"What the notebook showed is not here: {reason}.",
    ]
    kept = order.folder / "shown.jsonl"
    if order.capture is not None:
        with contextlib.suppress(OSError):
            order.capture.replace(kept)
            lines.append(f"It is kept as recorded in {kept.name}, beside this page.")
    title = outcome.notebook + (f" · {outcome.partition}" if outcome.partition else "")
    body = "".join(f"<pre>{escape(line)}</pre>\n" for line in lines if line)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>"
        "<style>body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;"
        "padding:0 1rem}pre{font:inherit;white-space:pre-wrap;overflow-wrap:anywhere}</style>"
        f"</head>\n<body><h1>{escape(title)}</h1>\n<main>{body}</main></body></html>\n"
    )
    report = Report(order.folder)
    write_atomically(report.ipynb, notebook_json(Recorded(), header).encode("utf-8", "replace"))
    write_atomically(report.html, page.encode("utf-8", "replace"))
    entry = GalleryEntry(NotebookCard(**order.card), header, report)
    update_gallery(order.reports, entry, keep=order.keep)
    return report


class _Maker:
    """The process that makes reports, started when it is first needed and again when it ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._idle: list[socket.socket] = []

    def start(self) -> None:
        """Start it unless it runs; returns at once."""
        # Whatever is wrong with it, the report that needs it will say so.
        with self._lock, contextlib.suppress(OSError):
            self._started()

    def _started(self) -> socket.socket:
        if self._control is not None:
            # Without a process: it is the one of the process that forked this one.
            if self._process is None or self._process.poll() is None:
                return self._control
            self._control.close()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._control = ours
        return ours

    def take(self) -> tuple[socket.socket, bool]:
        """A socket to a copy of the process that waits for an order, and whether it made one."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        for attempt in range(2):
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    with self._lock:
                        socket.send_fds(self._started(), [b"r"], [theirs.fileno()])
                except OSError as error:
                    ours.close()
                    self._lose_inherited()
                    if attempt:
                        raise _LostError(
                            f"no process could be started for it ({error.strerror or error})"
                        ) from None
                    continue
                return ours, False
        raise AssertionError

    def give_back(self, copy: socket.socket) -> None:
        """Have the next report made by this copy."""
        with self._lock:
            self._idle.append(copy)

    def close(self) -> None:
        """End it."""
        with self._lock:
            control, process = self._control, self._process
            self._control = self._process = None
            self._forget_copies()
        if control is not None:
            control.close()
        if process is not None and not hands_down():
            wait_or_kill(process, 1)

    def after_fork(self) -> None:
        """In a forked copy: the process belongs to the one that started it."""
        self._lock = threading.Lock()
        self._forget_copies()
        if self._process is not None:
            self._process.returncode = 0
        self._process = None
        if self._control is not None and not hands_down():
            self._control.close()
            self._control = None

    def _lose_inherited(self) -> None:
        """The process that this one was forked with has ended: the next try starts another."""
        with self._lock:
            if self._process is None and self._control is not None:
                self._control.close()
                self._control = None

    def _forget_copies(self) -> None:
        while self._idle:
            self._idle.pop().close()


_maker = _Maker()
start_maker = _maker.start
close_maker = _maker.close

atexit.register(close_maker)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_maker.after_fork)
