"""Reports as mails: what mail programs show, within bounds, whatever a cell showed."""

from __future__ import annotations

import base64
import json
import re
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from research_jobs.outcome import CheckOutcome
from research_jobs.report.build import build_report
from research_jobs.report.layout import report_folder
from research_jobs.report.limits import Limits
from research_jobs.report.mail import WHOLE_LIMIT, make_mail
from research_jobs.report.mail_html import id_styles
from research_jobs.report.mail_order import Mailed, MailOrder
from research_jobs.report.making import ReportOrder, make_report
from research_jobs.report.published import holds

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


@pytest.fixture
def mailed(captures, header, tmp_path):
    """The mail of a notebook whose cells showed something: its answer, message and HTML."""

    def make(source: str, shows: dict[int, Any], *, link: str | None = None, **more: Any):
        folder = tmp_path / "report"
        build_report(captures.write(source, shows), header(**more), folder)
        target = tmp_path / "mail.eml"
        order = MailOrder("research", (None,), link is None, str(target), link, "Europe/Zagreb")
        answer = make_mail(folder, order)
        assert answer.get("error") is None
        mail = message_from_bytes(target.read_bytes(), policy=policy.default)
        return answer, mail, mail.get_body(("html",)).get_content()

    return make


def table(rows: int) -> str:
    body = "".join(f"<tr><th>{n}</th><td>{n * 2}</td></tr>" for n in range(rows))
    head = '<thead><tr style="text-align: right;"><th></th><th>close</th></tr></thead>'
    return f'<table border="1" class="dataframe">{head}<tbody>{body}</tbody></table>'


def test_the_facts_stand_above(mailed, show):
    """Title, when, how long, checks and a check that warns; the link as a button."""
    checks = (
        CheckOutcome("x", "min_rows", True),
        CheckOutcome("x", "range", False, "warn", "<low>"),
    )
    answer, mail, html = mailed(
        "# %% [markdown]\n# # Risk *today*\n# \n# Words.\n\n# %%\n1\n",
        {2: show("text/plain", "42")},
        link="https://r.example.com/a?b&c",
        checks=checks,
        partition="2026-03-02",
    )
    assert answer["title"] == "Risk today · 2026-03-02"
    assert "Mon 3 Jun 2024, 09:33 CEST · took 4.20 s · 1 of 2 checks passed" in html
    assert "x, check range: &lt;low&gt;" in html
    assert 'href="https://r.example.com/a?b&amp;c"' in html
    assert html.count("Risk today") == 2, "the title, and the document's"
    assert mail.get_content_type() == "multipart/alternative", "no page is attached"
    assert "https://r.example.com/a?b&c" in mail.get_body(("plain",)).get_content()
    assert answer["text"].endswith("https://r.example.com/a?b&c")


def test_tables_are_tables_and_end(mailed, show):
    """Every cell has its style; what is beyond the bound is counted; colours of pandas stay."""
    styled = (
        "<style>#T_a_row0_col0, #T_a_row1_col0 {background-color: #fde725; color: #000; position: "
        'fixed}</style><table id="T_a"><tr><td id="T_a_row0_col0">7</td></tr></table>'
    )
    shows = {1: show("text/html", table(700)), 2: show("text/html", styled)}
    _, _, html = mailed("# %%\n1\n# %%\n2\n", shows)
    assert "675 more rows are in the attached page." in html
    assert "<th class" in html
    assert re.search(r'<td [^>]*style="[^"]*text-align:right;[^"]*">48</td>', html)
    assert ">50</td>" not in html
    assert re.search(r"background-color: ?#fde725;color: ?#000;\">7</td>", html)
    assert "position" not in html.split("</head>")[1]


def test_charts_are_in_the_mail(mailed):
    """Pictures come along, once; what no mail program draws leads to the report."""
    plotly = {"application/vnd.plotly.v1+json": {"data": []}, "text/plain": "Figure()"}
    both = plotly | {"image/png": base64.b64encode(DOT).decode()}
    svg = {"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>", "text/plain": "x"}
    _, mail, html = mailed(
        "# %%\n1\n# %%\n2\n# %%\n3\n# %%\n4\n",
        {n: lambda r, d=data: r.display(d) for n, data in enumerate((both, plotly, svg, both), 1)},
        link="https://r.example.com/x",
    )
    found = [part for part in mail.walk() if part.get_content_maintype() == "image"]
    assert [part.get_content() for part in found] == [DOT, DOT]
    assert [part["Content-ID"] for part in found] == [
        f"<{name}>" for name in re.findall(r'src="cid:([^"]+)"', html)
    ]
    link = '<a class="rj-link" href="https://r.example.com/x"'
    assert html.count(link) == 2
    assert "An interactive chart is" in html
    assert "A drawing is" in html


@pytest.mark.parametrize(
    "markup",
    [
        "<script>alert(1)</script><p>x</p>",
        '<p onclick="alert(1)">x</p>',
        '<img src="https://tracker.example.com/pixel.png">',
        '<a href="javascript:alert(1)">x</a>',
        "<iframe src='https://x.example.com'></iframe>",
        "<style>@import url(https://x.example.com/a.css)</style><p>x</p>",
        '<p style="background:url(https://x.example.com/a)">x</p>',
        "</td></tr></table></body><h1>x</h1>",
        "<form action='https://x.example.com'><input></form>",
        "<table><tr><td>" * 200,
    ],
)
def test_nothing_hostile_is_in_a_mail(mailed, show, markup):
    """No script, no form, nothing that is fetched, and our layout stays balanced."""
    _, mail, html = mailed("# %%\n1\n", {1: show("text/html", markup)})
    body = html.split("</style>", 1)[1]
    assert not re.search(r"<script|<iframe|<form|<input|javascript:|onclick|@import|url\(", body)
    assert "example.com" not in body
    for tag in ("table", "tr", "td", "div"):
        assert len(re.findall(rf"<{tag}[ >]", body)) == body.count(f"</{tag}>"), tag
    assert mail["Subject"] is None


def test_a_title_carries_no_header(mailed):
    """Line breaks, control characters and non-ASCII of a heading end in one line of the subject."""
    answer, _, _ = mailed("# %% [markdown]\n# # Rîsk\r\x0bBcc: x@y.ch\n", {})
    assert "\n" not in answer["title"]
    assert "\r" not in answer["title"]


def test_a_mail_is_bounded(mailed, show):
    """Much text and many pictures make a mail below the bounds, which says what is not in it."""
    noise = base64.b64encode(DOT + bytes(range(256)) * 8000).decode()
    shows = {n: show("image/png", noise) for n in range(1, 8)}
    text = {"text/plain": ("word " * 50 + "\n") * 60}
    shows |= {n: lambda recorder: recorder.display(text) for n in range(8, 60)}
    cells = "".join(f"# %%\n{n}\n" for n in range(1, 60))
    _, mail, html = mailed(cells, shows, link="https://r.example.com/x")
    assert len(mail.as_bytes()) < WHOLE_LIMIT
    assert len(html.encode()) < 102_000, "where Gmail cuts a mail off"
    assert "A large chart is" in html
    assert re.search(r"\d+ more results are in the report\.", html)


def test_a_mail_of_a_report_that_could_not_be_made(captures, header, tmp_path):
    """Killed by its limits, it says nothing of conditions; who always gets it gets a link."""
    order = MailOrder("research", (None, "x > 1"), False, str(tmp_path / "mail.eml"))
    folder = report_folder(tmp_path / "reports", header())
    made = ReportOrder(
        header(), folder, tmp_path / "reports", captures.write("# %%\n1\n", {}), None,
        {"name": "volatility/garch"}, None, mail=order,
    )  # fmt: skip
    report = make_report(made, limits=Limits(seconds=0.000001))
    assert report.mail is not None
    always, asked = report.mail.held
    assert always is True
    assert "its report could not be made" in str(asked)
    assert report.mail.title == ""
    assert not Path(order.target).exists()


def test_an_answer_is_not_believed():
    """Of what the process that parsed hostile data answers, only texts of a length are taken."""
    order = MailOrder("p", (None, "x"), False, "t")
    lost = Mailed((True, "lost"), "", "")
    assert Mailed.of("nonsense", order, "lost") == lost
    assert Mailed.of({"held": [True]}, order, "lost") == lost
    said = Mailed.of(json.loads(json.dumps({"held": [1, False], "title": "x" * 9999})), order, "")
    assert said.held == ("1", False)
    assert len(said.title) == 300


def test_values_that_cannot_be_read_are_one_line():
    """Whatever a store does, the answer is a line and no exception."""

    class Broken:
        changed = None

        def value(self, *_: Any) -> Any:
            raise OSError("no route\nto host")

    assert holds("x.y > 1", Broken()) == "its values cannot be read: OSError: no route"
    assert holds(None, Broken()) is True


def test_what_is_read_takes_time_as_its_length(mailed):
    """A long heading and a long sheet without a rule are read once: the square would take hours."""
    answer, _, _ = mailed(f"# %% [markdown]\n# # a{'#' * 400_000}b\n", {})
    assert answer["title"] == "a" + "#" * 149
    assert id_styles("a" * 400_000) == {}
    assert id_styles("@media x { #y { color: red } } #z{color:blue}") == {
        "u-y": "color:red;",
        "u-z": "color:blue;",
    }
