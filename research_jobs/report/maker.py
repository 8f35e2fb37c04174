"""The process that makes reports: warm, with one thread, and forked for each that asks.

It imports what a page needs and waits. It forks for each socket that it gets. The copy reads an
order from the socket, limits itself, writes the report, answers with a few names and waits for
the next order, unless the report took long. It ends when the other end of its socket is closed,
and this process ends when the one that started it does.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from research_jobs.errors import ResearchJobsError
from research_jobs.filesystem import make_folder
from research_jobs.outcome import Outcome, State, from_json
from research_jobs.project import Project
from research_jobs.provenance.assembling import RunFacts, assemble
from research_jobs.report.build import build_report
from research_jobs.report.gallery import GalleryEntry, NotebookCard, update_gallery
from research_jobs.report.header import ReportHeader
from research_jobs.report.limits import Limits, limited
from research_jobs.report.mail_order import MailOrder
from research_jobs.report.outputs import warm_up
from research_jobs.report.templates import compile_templates
from research_jobs.report.whole import Published
from research_jobs.runtime.channel import receive_frame, send_frame
from research_jobs.runtime.processes import name_process

__all__ = ["serve"]

# A copy that took less than this for a report, seconds of CPU time, may make another.
MODEST = 0.5


def serve(descriptor: int) -> None:
    """Make reports until the other end of the socket is closed.

    Parameters
    ----------
    descriptor : int
        A Unix socket over which a descriptor comes for each report.
    """
    control = socket.socket(fileno=descriptor)
    name_process("rj-reports")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects the copies
    _warm_up()
    gc.collect()
    gc.freeze()
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        for received in descriptors:
            if os.fork() == 0:
                control.close()
                _make_reports(socket.socket(fileno=received))
            os.close(received)


def _warm_up() -> None:
    """Do once what each copy would do for the first time: imports, templates, a whole report."""
    warm_up()
    compile_templates()
    outcome = Outcome(State.SUCCEEDED, notebook="warm", started_at=1.0, duration_s=1.0)
    header = ReportHeader(outcome)
    with tempfile.TemporaryDirectory() as folder:
        reports = Path(folder)
        report = build_report(None, header, reports / "warm" / "_runs" / "1", reports=reports)
        update_gallery(reports, GalleryEntry(NotebookCard("warm"), header, report))


def _make_reports(orders: socket.socket) -> NoReturn:
    try:
        gc.disable()
        name_process("rj-report")
        # A parser that aborts says so on stderr, which belongs to the run.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        # An exception that a library swallows may be a judgement that was not made.
        sys.unraisablehook = lambda _: os._exit(1)
        while _make_one(orders):
            gc.collect()
    finally:
        os._exit(0)


def _make_one(orders: socket.socket) -> bool:
    """Make one report; whether this process may make another."""
    payload = receive_frame(orders)
    if payload is None:
        return False
    order = json.loads(payload)
    again = False
    with _ends_with(orders), limited(Limits(**order["limits"])) as spent:
        try:
            answer = _make(order)
            again = spent() < MODEST
        except BaseException as error:  # noqa: BLE001 - whatever it is, the run worker writes a page
            kind = "" if isinstance(error, ResearchJobsError) else f"{type(error).__name__}: "
            answer = {"error": f"{kind}{error}"[:500]}
    send_frame(orders, json.dumps({**answer, "again": again}).encode())
    return again


@contextmanager
def _ends_with(other: socket.socket) -> Generator[None]:
    """Within this context, have the kernel end this process when the socket's other end closes.

    Nothing is sent to us meanwhile, so the only thing that can happen on the socket is its end,
    and SIGIO ends a process by default.
    """
    flags = fcntl.fcntl(other, fcntl.F_GETFL)
    fcntl.fcntl(other, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(other, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        with suppress(BlockingIOError):
            if other.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                os._exit(0)
        yield
    finally:
        fcntl.fcntl(other, fcntl.F_SETFL, flags)


def _make(order: dict[str, Any]) -> dict[str, Any]:
    answer = _make_report(order) if "header" in order else {}
    if order.get("changes") is not None:
        from research_jobs.report.changes import write_changes

        project = Project(Path(order["changes"]["root"]), order["changes"]["store"])
        write_changes(project, Path(order["folder"]))
    if order.get("mail") is not None:
        from research_jobs.report.mail import make_mail

        answer["mail"] = make_mail(Path(order["folder"]), MailOrder(**order["mail"]))
    return answer


def _make_report(order: dict[str, Any]) -> dict[str, Any]:
    header = _header(order["header"])
    reports = Path(order["reports"])
    folder, inputs = Path(order["folder"]), ()
    published = None
    if order["facts"] is not None and order["capture"] is not None:
        facts, shown = RunFacts(**order["facts"]), Path(order["capture"])
        make_folder(folder)
        inputs = assemble(facts, header.outcome, shown.parent, folder, reports).loads
    if order["published"] is not None:
        published = Published(**order["published"])
    report = build_report(
        _path(order["capture"]),
        header,
        folder,
        reports=reports,
        notebook_path=_path(order["notebook"]),
        unique=order["unique"],
        published=published,
        inputs=inputs,
    )
    card = NotebookCard(**order["card"])
    update_gallery(reports, GalleryEntry(card, header, report), keep=order["keep"])
    thumbnail = report.thumbnail.name if report.thumbnail is not None else None
    return {"anchor": report.anchor, "thumbnail": thumbnail, "changes": report.changes}


def _path(text: str | None) -> Path | None:
    return Path(text) if text is not None else None


def _header(fields: dict[str, Any]) -> ReportHeader:
    outcome = from_json(fields.pop("outcome"))
    assert outcome is not None, "our own version made it"
    return ReportHeader(outcome, **fields)
