"""Reports are made in another process: whatever becomes of it, a page exists and nothing hangs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from research_jobs.outcome import Failure, StagedOutput
from research_jobs.report import making
from research_jobs.report.gallery import NotebookCard
from research_jobs.report.layout import report_folder
from research_jobs.report.limits import Limits
from research_jobs.report.making import ReportOrder, make_report
from research_jobs.supervisor.run import CancelToken


@pytest.fixture
def order(captures, header, tmp_path):
    """Orders the report of a capture file: `order(capture, **fields of the header)`."""

    def make(capture: Path | None, **changes) -> ReportOrder:
        run = header(**changes)
        reports = tmp_path / "reports"
        return ReportOrder(
            header=run,
            folder=report_folder(reports, run),
            reports=reports,
            capture=capture,
            notebook=tmp_path / "garch.py",
            card=asdict(NotebookCard(run.outcome.notebook, "about it")),
            keep=100,
        )

    return make


@pytest.fixture
def hanging(tmp_path):
    """A capture file that is never read to its end: a pipe that nobody writes."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.fixture(autouse=True)
def _no_copy_waits() -> None:
    """Each test begins without a copy that waits for its next report."""
    making._maker._forget_copies()


def report_processes() -> list[tuple[str, psutil.Process]]:
    """The processes that make reports for this one, and their copies, by name."""
    found: list[tuple[str, psutil.Process]] = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name() in ("rj-reports", "rj-report"):
                found.append((process.name(), process))
    return found


def copies_end() -> bool:
    """Whether only the one that waits is left, within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if [name for name, _ in report_processes()] in ([], ["rj-reports"]):
            return True
        time.sleep(0.02)
    return False


def test_made_elsewhere(captures, order, show):
    """A report has what the notebook showed, the whole header, and its place in the gallery."""
    capture = captures.write(
        "# %%\nx = 1\n# %%\ny = 1\n",
        {1: show("text/html", "<b>what it showed</b>"), 2: lambda r: r.error("E", "m", ["t"], 4)},
        status={2: "error"},
    )
    made = order(
        capture,
        ending="failed",
        failure=Failure(headline="it failed here", cell=2),
        outputs=(StagedOutput("prices", "", "", 3, 100),),
        notes=("cut short",),
    )
    report = make_report(made)
    page = report.html.read_text()
    for part in ("what it showed", "it failed here", "cut short", "3 rows"):
        assert part in page
    assert report.anchor == "cell-2"
    assert json.loads(report.ipynb.read_text())["metadata"]["research_jobs"]["ending"] == "failed"
    assert '"headline":"it failed here"' in (made.reports / "gallery.js").read_text()
    assert "about it" in (made.reports / "volatility" / "garch" / "index.html").read_text()


def test_many_at_once(captures, order):
    """Eight threads get their reports from one process."""
    capture = captures.write("# %%\nx = 1\n")
    orders = [order(capture, run_id=f"{number}run") for number in range(24)]
    made: list[bool] = []

    def work() -> None:
        while orders:
            report = make_report(orders.pop())
            made.append("rj-head" in report.html.read_text())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True] * 24
    names = [name for name, _ in report_processes()]
    assert names.count("rj-reports") == 1
    assert 1 <= names.count("rj-report") <= 8
    making._maker._forget_copies()
    assert copies_end()


class TestLost:
    """A page exists all the same, and says what it lacks."""

    def assert_plain(self, report, made, *reasons: str) -> None:
        page = report.html.read_text()
        for reason in reasons:
            assert reason in page
        assert "What the notebook showed is not here" in page
        assert "&lt;b&gt;" in page
        assert json.loads(report.ipynb.read_text())["cells"] == []
        assert (
            report.folder.name
            in (made.reports / made.header.outcome.notebook / "runs.js").read_text()
        )
        assert copies_end()

    def test_too_slow(self, order, hanging):
        """One that takes longer than it may is killed; what was recorded is kept."""
        made = order(hanging, ending="failed", failure=Failure(headline="<b>", traceback="<i>"))
        report = make_report(made, limits=Limits(seconds=0.3))
        self.assert_plain(report, made, "it may take 0.3 s", "shown.jsonl")
        assert (report.folder / "shown.jsonl").exists()

    def test_too_large(self, captures, order, show):
        """One that takes more memory than it may ends, and the run worker takes none for it."""
        capture = captures.write("# %%\nx = 1\n", {1: show("text/html", "<p>x" * 5_000_000)})
        made = order(capture, partition="<b>")
        report = make_report(made, limits=Limits(memory_bytes=8 << 20))
        self.assert_plain(report, made, "MemoryError")

    def test_killed(self, order, hanging):
        """One that is killed from outside is noticed at once, and the next one is made."""
        made = order(hanging, partition="<b>")

        def kill() -> None:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                for name, process in report_processes():
                    if name == "rj-report":
                        process.kill()
                        return
                time.sleep(0.01)

        thread = threading.Thread(target=kill)
        thread.start()
        report = make_report(made)
        thread.join()
        self.assert_plain(report, made, "its process was killed")

    def test_cannot_start(self, captures, order, monkeypatch):
        """Without an interpreter there is a plain page."""
        making.close_maker()
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        made = order(captures.write("# %%\nx = 1\n"), partition="<b>")
        self.assert_plain(make_report(made), made, "no process could be started")

    def test_starts_again(self, captures, order):
        """When the waiting process was killed, the next report has another one."""
        capture = captures.write("# %%\nx = 1\n")
        assert "rj-head" in make_report(order(capture)).html.read_text()
        for _, process in report_processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
                process.wait(10)
        assert "rj-head" in make_report(order(capture, run_id="2")).html.read_text()

    @pytest.mark.parametrize("before", [True, False])
    def test_cancelled(self, order, hanging, before, monkeypatch):
        """A cancelled run waits for its report a few seconds at most."""
        monkeypatch.setattr(making, "AFTER_CANCEL", 0.2)
        token = CancelToken()
        made = order(hanging, partition="<b>")
        if before:
            token.cancel()
        else:
            timer = threading.Timer(0.3, token.cancel)
            timer.start()
        self.assert_plain(make_report(made, stop=token.listening), made, "the run was cancelled")

    def test_exception_lets_go(self, order, hanging):
        """An interrupt that is raised out of the wait ends the copy too."""
        made = order(hanging)

        def interrupt() -> None:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if any(name == "rj-report" for name, _ in report_processes()):
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                time.sleep(0.01)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            make_report(made)
        thread.join()
        assert copies_end()


def test_nobody_is_left(captures, order, hanging, tmp_path):
    """When the run worker is killed, the process that makes reports and its copy end."""
    code = """
import sys, json
from pathlib import Path
from research_jobs.outcome import Outcome, State
from research_jobs.report.header import ReportHeader
from research_jobs.report.making import ReportOrder, make_report
folder = Path(sys.argv[1])
header = ReportHeader(Outcome(State.FAILED, notebook="nb"))
order = ReportOrder(header, folder / "r/nb/_runs/1", folder / "r",
                    folder / "pipe", None, {"name": "nb"}, None)
make_report(order)
"""
    worker = subprocess.Popen([sys.executable, "-c", code, tmp_path])
    found: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while len(found) < 2 and time.monotonic() < deadline:
        found = psutil.Process(worker.pid).children(recursive=True)
        time.sleep(0.02)
    assert len(found) == 2
    worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(found, timeout=10)
    assert alive == []


@pytest.mark.parametrize(
    "answer",
    [
        {"anchor": 'cell-1" onclick=', "thumbnail": "thumbnail.png/../../index.html"},
        {"anchor": "cell-1\n", "thumbnail": "thumbnail.html"},
        {"anchor": "cell-", "thumbnail": "thumbnail.png\n"},
        {"anchor": 'x" onclick=', "thumbnail": "../../index.html"},
        {"anchor": ["cell-1"], "thumbnail": {}},
        {"anchor": None},
        {},
    ],
)
def test_forged_answer(order, answer):
    """Of an answer only names that can be right are taken."""
    report = making._report_of(order(None), answer)
    assert (report.anchor, report.thumbnail) == (None, None)


@pytest.mark.parametrize("lost", [False, True], ids=["made", "plain"])
def test_old_reports_go(captures, order, lost):
    """However a report was made, no more of them stay than the notebook keeps."""
    made = []
    for number in range(3):
        capture = captures.write("# %%\nx = 1\n")
        changed = order(capture, run_id=f"{number}run", started_at=float(number + 1))
        limits = Limits(memory_bytes=1) if lost else None
        made.append(make_report(replace(changed, keep=2), limits=limits))
    assert [report.html.exists() for report in made] == [False, True, True]


def test_cancelling_gives_no_more_time(monkeypatch):
    """A report that is due soon is due then, also after its run was cancelled."""
    monkeypatch.setattr(making, "AFTER_CANCEL", 1000.0)
    ours, theirs = socket.socketpair()
    waker, woken = socket.socketpair()
    with ours, theirs, waker, woken:
        waker.send(b"x")
        with pytest.raises(making._LostError, match="the run was cancelled"):
            making._receive(ours, woken, 0.05)


def test_an_answer_that_is_too_large():
    """What announces more than an answer may hold is not waited for, nor kept."""
    ours, theirs = socket.socketpair()
    waker, woken = socket.socketpair()
    with ours, theirs, waker, woken:
        theirs.sendall((making.ANSWER_LIMIT + 1).to_bytes(4))
        with pytest.raises(making._LostError, match="65537 bytes"):
            making._receive(ours, woken, 20)


def waiting() -> set[int]:
    """The copies that wait for their next report."""
    return {process.pid for name, process in report_processes() if name == "rj-report"}


def test_a_copy_makes_report_after_report(order):
    """A copy that took little makes the next report too, and its limits are gone meanwhile."""
    make_report(order(None, run_id="1run"))
    (copy,) = waiting()
    make_report(order(None, run_id="2run"))
    assert waiting() == {copy}
    assert psutil.Process(copy).rlimit(psutil.RLIMIT_AS)[0] == psutil.RLIM_INFINITY


def test_a_copy_that_was_killed_while_it_waited(order):
    """Another makes the report that a killed copy should have made."""
    make_report(order(None, run_id="1run"))
    (copy,) = waiting()
    process = psutil.Process(copy)
    process.kill()
    psutil.wait_procs([process], timeout=10)
    report = make_report(order(None, run_id="2run"))
    assert "rj-head" in report.html.read_text()
    assert copy not in waiting()


def test_a_copy_that_took_long_is_not_used_again(captures, order, show):
    """A copy ends after a report that took more than most, whatever that left behind."""
    shown = show("text/html", "<b>slow</b>" * 50_000)
    capture = captures.write("# %%\nx = 1\n" * 10, dict.fromkeys(range(1, 11), shown))
    make_report(order(capture))
    assert copies_end()
    assert waiting() == set()
