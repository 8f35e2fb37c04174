"""From what is wrong to what arrives, through real servers: up, down, slow and lying ones."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from research_jobs.notify import delivery, sender
from research_jobs.notify.condition import Condition, Kind
from research_jobs.notify.kept import kept_path, read_kept
from research_jobs.notify.notifier import Notifier

START = 1_764_000_000.0


def failed(name: str, reason: str = "KeyError: 'Close'", **more) -> Condition:
    """A notebook that failed."""
    rerun = f"research-jobs run {name}"
    condition = Condition(
        Kind.FAILED, name, f"{name}.py:3, cell 2: {reason}", START - 60, notebook=name, rerun=rerun
    )
    return replace(condition, **more)


@pytest.fixture
def looks(project):
    """Look at conditions every ten seconds of a clock that only this test moves."""

    class Looks:
        def __init__(self) -> None:
            self.notifier = Notifier(project)
            self.now = START

        def look(self, manifest, *conditions, after=10.0, unknown=()):
            self.now += after
            said = self.notifier.look(conditions, self.now, manifest, unknown=unknown)
            self.notifier.wait(90)
            return [message.event for message in said]

        def restart(self) -> None:
            self.notifier.close()
            self.notifier = Notifier(project)

    looks = Looks()
    yield looks
    looks.notifier.close()


def mail_manifest(mailbox, more: str = "") -> str:
    email = f"to: ops@example.com, from: a@example.com, host: 127.0.0.1, port: {mailbox.port}"
    return f"alerts:\n  ops: {{email: {{{email}}}}}\n{more}\n"


def test_a_failure_is_one_mail_with_everything_in_it(looks, write, mailbox, project):
    """The subject says it all; the body has the line, the public report and the command."""
    manifest = write(mail_manifest(mailbox) + "reports: {url: 'https://r.example.com'}")
    page = project.reports / "garch" / "1.html"
    assert looks.look(manifest, failed("garch", report=str(page))) == []
    assert looks.look(manifest, failed("garch", report=str(page))) == ["new"]
    assert looks.look(manifest, failed("garch", report=str(page))) == []
    [mail] = mailbox.letters
    assert mail["Subject"] == "research: garch failed: garch.py:3, cell 2: KeyError: 'Close'"
    assert (mail["To"], mail["From"]) == ("ops@example.com", "a@example.com")
    assert mail["Auto-Submitted"] == "auto-generated"
    body = mail.get_content()
    for part in (
        "garch: garch.py:3, cell 2: KeyError: 'Close'",
        "https://r.example.com/garch/1.html",
        "research-jobs run garch",
        "Times are of UTC.",
    ):
        assert part in body


def test_one_cause_is_one_message_and_one_when_it_is_over(looks, write, hooks):
    """Three notebooks that fail alike are counted in one message; another says that it is over."""
    hook = hooks()
    manifest = write(f"alerts: {{ops: {{url: '{hook.url}'}}}}")
    three = [failed("garch"), failed("risk/var"), failed("risk/limits")]
    for conditions in (three[:1], three[:2], three, three, three, [], [], []):
        looks.look(manifest, *conditions)
    assert [one["title"] for one in hook.got] == [
        "research: 3 notebooks failed: KeyError: 'Close'",
        "research: 3 notebooks run again (after 2 min)",
    ]
    assert [one["type"] for one in hook.got] == ["warning", "success"]
    assert "research-jobs run risk/limits" in hook.got[0]["message"]


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_password_logs_in_and_appears_nowhere(looks, write, locked_mailbox, project, monkeypatch):
    """The variable's value is used, and is in no message and no file, even if a reason has it."""
    monkeypatch.setenv("SMTP_PASSWORD", "sesame-open-9")
    manifest = write(f"""
alerts:
  ops:
    email: {{to: ops@example.com, host: 127.0.0.1, port: {locked_mailbox.port},
            encryption: {locked_mailbox.encryption}, user: ops, password: "${{SMTP_PASSWORD}}"}}
""")
    for _ in range(3):
        looks.look(manifest, failed("garch", reason="cannot log in with sesame-open-9"))
    [mail] = locked_mailbox.letters
    assert "cannot log in with ***" in mail["Subject"]
    assert "sesame" not in mail.as_string()
    assert "sesame" not in kept_path(project).read_text(encoding="utf-8")


@pytest.mark.parametrize("way", ["down", "lying", "break", "hang", "drip", "unset", "unknown"])
def test_a_channel_that_fails_is_told_through_the_others(
    looks, write, mailbox, hooks, silent, monkeypatch, way
):
    """Whatever one channel does, the other delivers, and says what came back from the first."""
    monkeypatch.setattr(delivery, "SECONDS", 4.0)
    monkeypatch.delenv("HOOK", raising=False)
    url, said = {
        "down": ("json://127.0.0.1:9/x", "onnection"),
        "lying": (hooks(500).url, "500"),
        "break": (f"json://127.0.0.1:{silent('break')}/x", "onnection"),
        "hang": (f"json://127.0.0.1:{silent('hang')}/x?rto=60", "did not end in time"),
        "drip": (f"json://127.0.0.1:{silent('drip')}/x?rto=60", "did not end in time"),
        "unset": ("${HOOK}", "HOOK is not set"),
        "unknown": ("ntfys://?", "URL"),
    }[way]
    manifest = write(mail_manifest(mailbox, f"  chat: {{url: '{url}'}}"))
    for after in (10, 10, 10, 20, 20, 20):
        looks.look(manifest, failed("garch"), after=after)
    subjects = [mail["Subject"] for mail in mailbox.letters]
    assert len(subjects) == 2
    assert "garch failed" in subjects[0]
    assert subjects[1].startswith("research: the alert channel chat does not deliver: ")
    assert said in mailbox.letters[1].get_content()
    assert "research-jobs alerts --test" in mailbox.letters[1].get_content()


@pytest.mark.parametrize("way", ["down", "lying", "break", "hang"])
def test_a_mail_server_that_fails_is_told_through_the_others(
    looks, write, mailbox, hooks, silent, monkeypatch, way
):
    """The same for e-mail: gone, refusing each letter, breaking off, never greeting."""
    monkeypatch.setattr(delivery, "SECONDS", 4.0)
    mailbox.answer = "554 No thanks"
    port = {"down": 9, "lying": mailbox.port}.get(way) or silent(way)
    said = {"down": "refused", "lying": "554 No thanks", "hang": "did not end in time"}
    hook = hooks()
    manifest = write(f"""
alerts:
  chat: {{url: "{hook.url}"}}
  ops: {{email: {{to: ops@example.com, host: 127.0.0.1, port: {port}}}}}
""")
    for after in (10, 10, 10, 20, 20, 20):
        looks.look(manifest, failed("garch"), after=after)
    assert [one["title"].partition(": ")[2][:12] for one in hook.got] == [
        "garch failed", "the alert ch"
    ]  # fmt: skip
    assert said.get(way, "ops does not deliver: ") in hook.got[1]["message"] + hook.got[1]["title"]


def test_a_look_does_not_wait_and_a_killed_watch_loses_nothing(
    looks, write, hooks, silent, project
):
    """Looks go on beside a delivery that hangs; whoever looks after a kill delivers the letter."""
    hook = hooks()
    manifest = write(f"alerts: {{chat: {{url: 'json://127.0.0.1:{silent('hang')}/x?rto=60'}}}}")
    killed = Notifier(project)
    for step in range(4):
        killed.look([failed("garch")], START + 10 * step, manifest)
    assert "chat" in killed._deliveries
    manifest = write(f"alerts: {{chat: {{url: '{hook.url}'}}}}")
    looks.restart()
    looks.look(manifest, failed("garch"), after=60)
    looks.look(manifest, failed("garch"))
    assert [one["title"].partition(":")[0] for one in hook.got] == ["research"]
    killed._deliveries.close()


def test_what_was_not_delivered_is_delivered_later_once(looks, write, hooks, project):
    """A letter outlives the endpoint's outage and ours, and arrives once; a retry backs off."""
    hook = hooks(503)
    manifest = write(f"alerts: {{ops: {{url: '{hook.url}'}}}}")
    for _ in range(4):
        looks.look(manifest, failed("garch"))
    tried = len(hook.got)
    assert 1 <= tried <= 3
    looks.restart()
    [waiting] = read_kept(project).outbox.waiting
    assert waiting.title.startswith("research: garch failed")
    hook.status = 200
    hook.got.clear()
    looks.look(manifest, failed("garch"), after=900)
    looks.look(manifest, failed("garch"))
    looks.restart()
    looks.look(manifest, failed("garch"), after=900)
    assert len(hook.got) == 1
    assert "and not delivered before." in hook.got[0]["message"]
    assert read_kept(project).outbox.waiting == ()
    assert [sent.delivered for sent in read_kept(project).outbox.sent] == [True]


def test_a_mail_server_that_puts_off_gets_the_letter_later(looks, write, mailbox):
    """A 451 is tried again, with the same Message-ID; it is no trouble to tell others of."""
    mailbox.answer = "451 Try again later"
    manifest = write(mail_manifest(mailbox))
    for _ in range(3):
        looks.look(manifest, failed("garch"))
    assert mailbox.letters == []
    mailbox.answer = "250 OK"
    looks.look(manifest, failed("garch"), after=60)
    looks.look(manifest, failed("garch"), after=60)
    assert len(mailbox.letters) == 1


def test_a_recipient_who_is_refused_is_told_to_the_others(looks, write, mailbox, hooks):
    """Who can get the letter gets it once; that somebody cannot is told elsewhere."""
    hook = hooks()
    mailbox.refused = ("gone@example.com",)
    text = mail_manifest(mailbox, f"  chat: {{url: '{hook.url}'}}")
    manifest = write(text.replace("to: ops@example.com", "to: [ops@example.com, gone@example.com]"))
    for _ in range(3):
        looks.look(manifest, failed("garch"))
    for _ in range(4):
        looks.look(manifest, failed("garch"), failed("risk/var", reason="another"))
    assert len(mailbox.letters) == 2
    assert any("gone@example.com: 550" in one["message"] for one in hook.got)


def test_a_broken_manifest_is_told_through_the_last_good_channels(looks, write, hooks):
    """Not YAML, or a mistake in the channel itself: the channel of before says so, and later that
    it is right again.
    """
    hook = hooks()
    good = f"alerts: {{ops: {{url: '{hook.url}', quiet: 02:00-03:00}}}}"
    looks.look(write(good))
    for text in ("alerts: {ops: {url: [", f"alerts: {{ops: {{uri: '{hook.url}'}}}}"):
        looks.restart()
        hook.got.clear()
        for _ in range(3):
            looks.look(write(text))
        [told] = hook.got
        assert told["title"].startswith("research: the manifest has ")
        assert "notebooks/manifest.yaml:" in told["message"]
        assert "research-jobs check" in told["message"]
        for _ in range(3):
            looks.look(write(good))
        assert hook.got[-1]["title"].startswith("research: the manifest is right again")
        looks.look(write(good), after=2 * 86400)


def test_names_that_are_not_utf_8_are_told(looks, write, mailbox):
    """A failure that names such a file or folder is delivered, and told once after a restart."""
    manifest = write(mail_manifest(mailbox))
    disk = Condition(Kind.DISK, "the disk of /caf\udce9", "of '/caf\udce9'", START)
    for _ in range(3):
        looks.look(manifest, disk)
    looks.restart()
    assert looks.look(manifest, disk) == []
    [mail] = mailbox.letters
    assert "/caf\\udce9 is nearly full" in mail["Subject"]


def test_a_redirection_to_a_page_delivers_nothing(looks, write, hooks, project):
    """An endpoint that has moved behind a login answers with its page: the letter waits."""
    hook = hooks(302)
    hook.location = "/login"
    manifest = write(f"alerts: {{ops: {{url: '{hook.url}'}}}}")
    for _ in range(4):
        looks.look(manifest, failed("a"))
    outbox = read_kept(project).outbox
    assert (len(outbox.waiting), outbox.sent) == (1, ())
    assert "302" in outbox.troubles["ops"].answer


def test_what_a_library_prints_is_no_answer():
    """A line of another's among a sender's answers is passed over."""
    answer = '{"id": "1", "ok": true, "answer": "accepted"}'
    said = subprocess.Popen(["printf", "%s\\n", "5", "[1]", "{}", answer], stdout=subprocess.PIPE)
    assert [one["id"] for one in delivery._Delivery((), said, 0.0).answers()] == ["1"]


def test_a_full_disk_keeps_nobody_from_being_told(looks, write, hooks, project):
    """Where the book cannot be written the message is sent all the same, once."""
    hook = hooks()
    manifest = write(f"alerts: {{ops: {{url: '{hook.url}'}}}}")
    folder = project.make_state_folder()
    (folder / "alerts").write_text("no folder can be here")
    full = Condition(Kind.DISK, "/data", "97% full", START)
    for _ in range(4):
        looks.look(manifest, full)
    assert [one["title"] for one in hook.got] == [
        "research: the disk /data is nearly full: 97% full"
    ]


def test_a_heartbeat_is_sent_while_all_is_well(looks, write, hooks):
    """It is requested as often as the manifest says, not while something is unaccounted for."""
    hook = hooks()
    url = f"http://127.0.0.1:{hook.port}/ping"
    manifest = write(f"heartbeat: {{url: '{url}', every: 1m}}")
    sent = []
    for seconds, well in ((0, True), (30, True), (30, True), (60, False), (1, True)):
        looks.look(manifest, after=seconds)
        sent.append(looks.notifier.heartbeat(looks.now, well=well))
        looks.notifier.wait(60)
    assert sent == [True, False, True, False, True]
    assert hook.paths == ["/ping"] * 3


def test_a_heartbeat_stops_when_nobody_can_be_told(looks, write, hooks):
    """While no channel delivers it is not sent, so that somebody outside notices."""
    hook, beats = hooks(500), hooks()
    manifest = write(
        f"alerts: {{ops: {{url: '{hook.url}'}}}}\nheartbeat: http://127.0.0.1:{beats.port}/ping"
    )
    sent = []
    for status in (500, 500, 500, 500, 500, 500, 200, 200, 200, 200):
        hook.status = status
        looks.look(manifest, failed("garch"), after=400)
        sent.append(looks.notifier.heartbeat(looks.now, well=True))
        looks.notifier.wait(60)
    assert sent[:2] == [True, True]
    assert sent[5:7] == [False, False]
    assert sent[-1]


def test_a_heartbeat_that_is_not_accepted_is_told(looks, write, hooks, mailbox):
    """Two refusals in a row are a message through the channels."""
    hook = hooks(404)
    text = f"heartbeat: 'http://127.0.0.1:{hook.port}/ping'\n"
    manifest = write(mail_manifest(mailbox) + text)
    for _ in range(5):
        looks.look(manifest, after=300)
        looks.notifier.heartbeat(looks.now, well=True)
        looks.notifier.wait(60)
    assert mailbox.letters[0]["Subject"] == (
        "research: the alert channel heartbeat does not deliver: 404 Not Found"
    )


def test_the_senders_process_takes_no_module_of_the_project(write, hooks, project, monkeypatch):
    """A `json.py` beside the notebooks does not take the place of Python's."""
    (project.root / "json.py").write_text("raise SystemExit('mine')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "research_jobs.notify.sender"],
        input=b'{"seconds": 30, "beat": "http://127.0.0.1:9/"}',
        capture_output=True,
        check=True,
        cwd=project.root,
        env=os.environ,
    )
    assert b"refused" in done.stdout


def test_a_beat_says_what_came_back(hooks):
    """The answer's line, or why there is none."""
    hook = hooks(503)
    assert sender.beat(f"http://127.0.0.1:{hook.port}/")["answer"] == "503 Service Unavailable"
    hook.status = 200
    assert sender.beat(f"http://127.0.0.1:{hook.port}/")["ok"]
    assert not sender.beat("http://127.0.0.1:9/")["ok"]
