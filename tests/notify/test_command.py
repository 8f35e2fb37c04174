"""``research-jobs alerts``: the list, and the test of each channel."""

from __future__ import annotations

import json

import pytest

from research_jobs.cli.main import main
from research_jobs.notify.condition import Condition, Kind
from research_jobs.notify.notifier import Notifier

NOW = 1_764_072_000.0


@pytest.fixture
def say(project, monkeypatch, capfd):
    """The command in this process, over the project: its exit code and what it prints."""
    for name in ("DAGSTER_HOME", "HOOK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RESEARCH_JOBS_PROJECT", str(project.root))
    monkeypatch.chdir(project.root)

    def call(*words: str):
        capfd.readouterr()
        code = main(["alerts", *words])
        return code, capfd.readouterr()

    return call


def test_a_test_shows_what_each_channel_answered(say, write, mailbox, hooks, monkeypatch):
    """One letter through each; exit code 1 while one fails, 0 when all deliver."""
    hook = hooks(500)
    monkeypatch.setenv("HOOK", f"json://127.0.0.1:{hook.port}/very-secret-path")
    write(f"""
alerts:
  ops: {{email: {{to: ops@example.com, host: 127.0.0.1, port: {mailbox.port}}}}}
  chat: {{url: "${{HOOK}}"}}
""")
    code, printed = say("--test")
    assert code == 1
    assert printed.out.splitlines()[0] == (
        f"ops: delivered (e-mail to ops@example.com by 127.0.0.1:{mailbox.port}):"
        " 250 Message accepted for delivery"
    )
    assert "chat: not delivered (${HOOK}): " in printed.out
    assert "500" in printed.out
    assert "very-secret" not in printed.out + printed.err
    assert "a test of the alert channel ops" in mailbox.letters[0]["Subject"]
    hook.status = 200
    code, printed = say("--test", "--json")
    assert code == 0
    assert [(one["channel"], one["ok"]) for one in json.loads(printed.out)] == [
        ("ops", True), ("chat", True)
    ]  # fmt: skip


def test_a_test_tells_what_cannot_be_tried(say, write):
    """A channel with a mistake, a variable that is not set, or no channel: one line, code 1."""
    write("alerts: {ops: {uri: x}, chat: {url: '${HOOK}'}}")
    code, printed = say("--test")
    assert code == 1
    assert "ops: not tried: notebooks/manifest.yaml:1:16: channel ops: unknown key" in printed.out
    assert "the environment variable HOOK is not set" in printed.out
    write("notebooks: {}")
    code, printed = say("--test")
    assert (code, printed.out) == (1, "")
    assert printed.err.startswith("The manifest has no channel.")


def test_the_list_has_what_is_open_waits_and_was_sent(say, write, hooks, project):
    """With one channel that delivers and one that does not."""
    good, bad = hooks(), hooks(500)
    manifest = write(
        "defaults: {timezone: Europe/Zagreb}\n"
        f"alerts: {{ops: {{url: '{good.url}'}}, desk: {{url: '{bad.url}'}}}}"
    )
    assert say()[1].out.splitlines()[0] == "Nothing is open."
    notifier = Notifier(project)
    wrong = [
        Condition(Kind.FAILED, name, f"{name}.py:3: KeyError: 'x'", NOW, notebook=name)
        for name in ("garch", "risk/var")
    ]
    for step in range(4):
        notifier.look(wrong, NOW + 10 * step, manifest)
        notifier.wait(60)
    notifier.close()
    code, printed = say()
    assert code == 0
    assert printed.out.startswith(
        "2 notebooks failed: KeyError: 'x'\n    since Tue 25 Nov 13:00, told ops, desk\n"
    )
    assert "desk has not delivered since Tue 25 Nov 13:00, 1 waiting: " in printed.out
    assert "Tue 25 Nov 13:00  ops: research: 2 notebooks failed: KeyError: 'x'" in printed.out
    assert printed.out.endswith("Times are of Europe/Zagreb.\n")
    said = json.loads(say("--json")[1].out)
    assert said["open"][0]["subjects"] == ["garch", "risk/var"]
    assert said["open"][0]["channels"] == ["ops", "desk"]
    assert [one["channel"] for one in said["waiting"]] == ["desk"]
    assert [one["channel"] for one in said["troubles"]] == ["desk"]
    assert [one["delivered"] for one in said["sent"]] == [True]
