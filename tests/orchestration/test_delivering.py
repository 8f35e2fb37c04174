"""Delivery of reports: from a real run to a real server's box, and who gets which."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from mail_server import Mailbox, serve_mail

from research_jobs.cli.main import main
from research_jobs.manifest import load_manifest
from research_jobs.notify.courier import open_watch_lock, take
from research_jobs.notify.kept import read_kept
from research_jobs.notify.notifier import Notifier
from research_jobs.notify.reports import ready_reports

SCHEDULED = {"dagster/schedule_name": "daily"}
REPORT = """# %% [markdown]
# # Drawdowns
#
# How *deep* it went, $x^2$.

# %% Table
import pandas as pd
import matplotlib.pyplot as plt

frame = pd.DataFrame({"close": [3.0, 2.0, 1.0]}, index=["a", "b", "c"])
series = pd.Series([1, 2], index=["a", "b"])
summary = {"worst": -0.4, "day": pd.Timestamp("2026-03-02").date()}
frame

# %% Chart
plt.plot([1, 3, 2])
plt.show()

# %% Interactive
import plotly.graph_objects as go
go.Figure(go.Scatter(y=[1, 2]))

# %% Words
print("All is <b>well</b>.")
"""


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    yield from serve_mail()


def alerts(mailbox: Mailbox) -> str:
    mail = f"{{to: team@b.ch, from: a@b.ch, host: 127.0.0.1, port: {mailbox.port}}}"
    return f"alerts: {{team: {{email: {mail}}}, dead: {{url: 'json://127.0.0.1:9/x'}}}}\n"


def until(true: Callable[[], bool]) -> None:
    """Wait for what a process of its own does."""
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.1)


def parts(mail: EmailMessage) -> dict[str, EmailMessage]:
    return {part.get_content_type(): part for part in mail.walk()}


def test_a_run_sends_its_report(
    lab: Any, mailbox: Mailbox, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Without a watch: one mail each, with table, chart and page; the run waits for nobody."""
    outputs = "outputs: [frame, series, summary], deliver: [team, quant@b.ch]"
    schedule = "schedules: {daily: {cron: '0 6 * * *', notebooks: r, deliver: [team, desk@b.ch]}}"
    lab.write({"r": REPORT}, f"{alerts(mailbox)}notebooks: {{r: {{{outputs}}}}}\n{schedule}\n")
    run = lab.materialize("r", tags=SCHEDULED)
    assert run.success
    until(lambda: len(mailbox.letters) == 3)
    assert sorted(mail["To"] for mail in mailbox.letters) == [
        "desk@b.ch",
        "quant@b.ch",
        "team@b.ch",
    ]
    mail = mailbox.letters[0]
    assert mail["Subject"] == "Drawdowns"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["List-Id"] == "<r.project.research-jobs>"
    assert len({mail["Message-ID"] for mail in mailbox.letters}) == 3
    found = parts(mail)
    html = found["text/html"]
    body = mail.get_body(("html",)).get_content()
    assert "border-collapse" in body
    assert ">2.0</td>" in body
    assert "How <em>deep</em> it went" in body
    assert "x^2" in body
    assert "import pandas" not in body, "code is hidden"
    assert "All is &lt;b&gt;well&lt;/b&gt;." in body
    assert "An interactive chart is in the attached page." in body
    assert 'src="cid:figure-1@research-jobs"' in body
    assert found["image/png"]["Content-ID"] == "<figure-1@research-jobs>"
    assert found["image/png"].get_content().startswith(b"\x89PNG")
    assert "outputs frame (3), series (2), summary (2)" in found["text/plain"].get_content()
    assert html.get_filename() == "r.html"
    assert "plotly" in html.get_content()
    said = [e.user_message for e in lab.instance.all_logs(run.run_id)]
    assert any("delivered to team, quant@b.ch, desk@b.ch by a process" in s for s in said)
    monkeypatch.chdir(lab.root)
    assert main(["deliver", "r", "--preview", str(tmp_path / "mail.html")]) == 0
    assert "data:image/png;base64," in (tmp_path / "mail.html").read_text(encoding="utf-8")
    assert main(["deliver", "r", "--to", "me@b.ch"]) == 0
    assert "me@b.ch: delivered" in capsys.readouterr().out
    assert mailbox.letters[-1]["To"] == "me@b.ch"
    assert main(["deliver", "r", "--to", "tem"]) == 2
    until(lambda: {one.channel for one in read_kept(lab.project).outbox.sent} >= {"team"})


def test_who_gets_a_report(lab: Any, mailbox: Mailbox) -> None:
    """Conditions over real values, who started the run, and the newest partition decide."""
    conditions = {
        "holds": "frame.close[-1] < 2 and series.b == 2 and rows(frame) == 3",
        "fails": "summary.worst > 0",
        "lacks": "summary.best > 0 or summary.worst < 0",
        "dates": "summary.day >= '2026-03-02' and frame.close[0] == 3",
        "table": "frame > 1",
        "same": "changed",
        "hand": None,
        "all": None,
    }
    text = alerts(mailbox) + "notebooks:\n"
    for name, when in conditions.items():
        said = f"to: [team, {name}@b.ch]" + (f', when: "{when}"' if when else "")
        said += ", runs: all" if name in ("all", "same") else ""
        text += f"  {name}: {{outputs: [frame, series, summary], deliver: {{{said}}}}}\n"
    days = "{by: day, start: 2026-03-01, end: 2026-03-04}"
    said = "{to: [team, dead], runs: all}"
    text += f"  days: {{outputs: [frame], partitions: {days}, deliver: {said}}}\n"
    light = "\n\n".join(REPORT.split("\n\n")[:3]).replace("import matplotlib.pyplot as plt\n", "")
    lab.write(dict.fromkeys([*conditions, "days"], light), text)
    project = lab.project
    with open_watch_lock(project) as lock:
        assert take(lock), "as a watch does that runs"
        scheduled = [name for name in conditions if name != "hand"]
        assert lab.materialize(*scheduled, tags=SCHEDULED).success
        run = lab.materialize("hand", "all", "same")
        assert run.success
        assert lab.materialize("all", tags=SCHEDULED | {"dagster/backfill": "x"}).success
        assert lab.materialize("days", span=("2026-03-01", "2026-03-03")).success
        left = ready_reports(project)
    got = [to for report in left for to in report.to if "@" in to]
    assert sorted(got) == ["all@b.ch"] * 3 + ["dates@b.ch", "holds@b.ch", "same@b.ch"]
    assert [report.title for report in left if report.to == ("team", "dead")] == [
        "Drawdowns · 2026-03-03"
    ]
    unknown = {who: why for report in left for who, why in report.unknown.items() if "@" in who}
    assert unknown == {
        "lacks@b.ch": "not delivered: summary has no 'best'. It has: day, worst",
        "table@b.ch": "not delivered: frame is a table. Write rows(frame) or frame.column[0]",
    }
    said = [e.user_message for e in lab.instance.all_logs(run.run_id)]
    assert any("not delivered to team, same@b.ch: 'changed' does not hold" in line for line in said)
    notifier = Notifier(project)
    manifest = load_manifest(project, [*conditions, "days"])
    for step in range(3):
        notifier.look((), time.time() + step, manifest)
        notifier.wait(60)
    notifier.close()
    assert ready_reports(project) == []
    assert len(mailbox.letters) == len(got) * 2 + 1
    answers = [one.answer for one in read_kept(project).outbox.sent if not one.delivered]
    assert set(answers) == set(unknown.values())
    [waiting] = read_kept(project).outbox.waiting
    assert waiting.channel == "dead", "it holds up nobody, and no run failed for it"
    left_over = list((project.state / "alerts" / "letters").glob("*.eml"))
    assert left_over == [Path(waiting.mail)]
