"""Reports in the outbox: sent once, whoever is killed when, and never at the cost of others."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from research_jobs import failpoints
from research_jobs.notify import courier, sender
from research_jobs.notify.delivery import Deliveries
from research_jobs.notify.kept import kept_path, read_kept, write_kept
from research_jobs.notify.notifier import Notifier
from research_jobs.notify.reports import ReadyReport, leave_report, mail_path, ready_reports

MADE = (
    b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    b"<p>Hello</p>\r\n.\r\n..two dots\r\n"
)


@pytest.fixture
def report(project):
    """A report that a run has left."""
    path = mail_path(project, "0" * 24)
    path.write_bytes(MADE)
    title = "Drawdowns\r\nBcc: x@y.ch"
    left = ReadyReport("0" * 24, title, "text", str(path), ("q@b.ch",), time.time())
    leave_report(project, left)
    return left


@pytest.fixture
def manifest(write, mailbox):
    mail = f"{{to: team@b.ch, from: a@b.ch, host: 127.0.0.1, port: {mailbox.port}}}"
    return write(f"alerts: {{team: {{email: {mail}}}}}")


def deliver(project, manifest, looks: int = 4) -> None:
    """Look as a watch does, with a minute between two looks."""
    notifier = Notifier(project)
    for step in range(looks):
        notifier.deliver(manifest, time.time() + 60 * step)
        notifier.wait(60)
    notifier.close()


def test_a_report_is_taken_once(project, report, manifest, mailbox):
    """It goes as it was made; left again, or with its file still there, it is not sent again."""
    deliver(project, manifest)
    [mail] = mailbox.letters
    assert mail["Subject"] == "Drawdowns Bcc: x@y.ch"
    assert mail["Bcc"] is None
    assert mail["To"] == "q@b.ch"
    assert mail["References"] is None
    assert mail.get_content().replace("\r\n", "\n") == "<p>Hello</p>\n.\n..two dots\n"
    leave_report(project, report)
    deliver(project, manifest)
    assert len(mailbox.letters) == 1
    assert ready_reports(project) == []
    assert [one.delivered for one in read_kept(project).outbox.sent] == [True]


@pytest.mark.parametrize(
    ("point", "letters", "delivered"),
    [("handed over", 0, False), ("accepted", 1, False), ("receipt", 1, True), (None, 1, True)],
)
def test_a_killed_sender_sends_nothing_twice(
    project, report, manifest, mailbox, point, letters, delivered
):
    """Killed before, at and after the acceptance, it is one mail at most, and that is told."""
    [letter] = report.letters()
    notifier = Notifier(project)
    spec = replace_to(manifest.alerts["team"], "q@b.ch")
    job = Deliveries(project)._job(spec, [letter])

    def kill(name: str) -> None:
        if name == point:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        failpoints.install(kill)
        list(sender.deliver(job))
        os._exit(0)
    os.waitpid(child, 0)
    notifier.close()
    deliver(project, manifest)
    assert len(mailbox.letters) == letters
    [sent] = read_kept(project).outbox.sent
    assert sent.delivered is delivered
    assert delivered or "may have arrived or not" in sent.answer
    assert read_kept(project).outbox.waiting == ()


def test_a_killed_watch_sends_nothing_twice(project, report, manifest, mailbox):
    """With the book as it was before the server's answer was read, the receipt says that it was."""
    notifier = Notifier(project)
    notifier.deliver(manifest, time.time())
    before = read_kept(project)
    notifier.wait(60)
    assert len(mailbox.letters) == 1
    notifier._deliveries.close()  # killed: what came back is not read
    write_kept(project, before)
    deliver(project, manifest)
    assert len(mailbox.letters) == 1
    assert [one.delivered for one in read_kept(project).outbox.sent] == [True]


@pytest.mark.timeout(60)
def test_a_courier_that_can_keep_nothing_ends(project, report, manifest, mailbox):
    """Where the book cannot be written, as on a full disk, it delivers once and tries no more."""
    kept_path(project).mkdir(parents=True)
    leave_report(project, report)
    courier.deliver(project)
    assert len(mailbox.letters) == 1
    assert ready_reports(project) == [report]


def test_a_dead_channel_delays_nobody(project, report, write, mailbox, hooks):
    """One recipient fails and is tried again; the others get theirs, on each kind of channel."""
    hook, bad = hooks(), hooks(500)
    mail = f"{{to: team@b.ch, from: a@b.ch, host: 127.0.0.1, port: {mailbox.port}}}"
    chats = f"chat: {{url: '{hook.url}'}}, bad: {{url: '{bad.url}'}}"
    manifest = write(f"alerts: {{team: {{email: {mail}}}, {chats}}}")
    everybody = replace(report, id="1" * 24, to=("team", "chat", "bad", "gone"))
    leave_report(project, everybody)
    deliver(project, manifest, looks=2)
    assert sorted(mail["To"] for mail in mailbox.letters) == ["q@b.ch", "team@b.ch"]
    assert [one["message"] for one in hook.got] == ["text"]
    kept = read_kept(project).outbox
    assert [letter.channel for letter in kept.waiting] == ["bad"]
    assert {one.channel for one in kept.sent if not one.delivered} == {"gone"}
    bad.status = 200
    deliver(project, manifest, looks=3)
    assert bad.got[-1]["title"].startswith("Drawdowns")
    assert read_kept(project).outbox.waiting == ()


def replace_to(spec, address):
    """A channel with another recipient."""
    return spec.model_copy(update={"email": spec.email.model_copy(update={"to": (address,)})})
