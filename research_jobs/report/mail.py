"""A stored report as a mail: what its cells showed, as mail programs show it, with a text beside.

Everything that a cell showed is untrusted: it is parsed here, in the process that makes reports.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from html import escape
from pathlib import Path
from typing import Any, cast

from markupsafe import Markup

from research_jobs.filesystem import write_atomically
from research_jobs.outcome import Outcome, from_json
from research_jobs.report.ansi import settle_lines
from research_jobs.report.build import standalone
from research_jobs.report.header import local_time, readable_duration
from research_jobs.report.layout import Report
from research_jobs.report.mail_html import Rewriter, id_styles
from research_jobs.report.mail_order import MailOrder
from research_jobs.report.markup import look_at
from research_jobs.report.outputs import guarded
from research_jobs.report.prose import render_markdown
from research_jobs.report.published import PublishedValues, holds
from research_jobs.report.sanitize import clean_html
from research_jobs.report.templates import render
from research_jobs.report.thumbnail import PLOTLY, joined, picture_size
from research_jobs.units import readable_size

__all__ = ["mail_html", "make_mail"]

# Gmail shows the first 102 KB of a mail, so that is what the results may take (bytes).
BODY_LIMIT = 85_000
BLOCK_LIMIT = 40_000
WHOLE_LIMIT = 10_000_000
ATTACHED_LIMIT = 8_000_000
TEXT_LIMIT = 20_000
SHORT_LIMIT = 1_500
MOST_LINES = 40
PRINTED_WIDTH = 100
WIDTH = 582  # pixels between the card's edges
CLEAN_LIMIT = 400_000
_PICTURES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif"}
_BOX = (
    "margin:0 0 14px;padding:10px 12px;background:#f5f7f9;border:1px solid #e6e9ed;"
    "border-radius:6px;"
)
_MONO = "font:12px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;"
_TITLE = re.compile(r"\A\s*#[ \t]+(.+)\n?")


def make_mail(folder: Path, order: MailOrder) -> dict[str, Any]:
    """Decide who gets a report, and write the mail if somebody does.

    Parameters
    ----------
    folder : Path
        The report's.
    order : MailOrder

    Returns
    -------
    dict
        As `Mailed.of` reads it.
    """
    values = PublishedValues(order.store, order.notebook, order.partition, order.changed)
    held = [holds(condition, values) for condition in order.conditions]
    if True not in held:
        return {"held": held}
    try:
        draft = _Draft(Report(folder), order)
        write_atomically(Path(order.target), draft.mail().as_bytes(), private=True)
    except Exception as error:  # noqa: BLE001 - who is to get it gets a link
        return {"held": held, "error": f"{type(error).__name__}: {error}"[:500]}
    return {"held": held, "title": draft.title, "text": draft.short()}


def mail_html(content: bytes) -> str:
    """The HTML of a mail as one page, its pictures within: for a look at it in a browser.

    Parameters
    ----------
    content : bytes
        As `make_mail` wrote it.
    """
    from email import message_from_bytes, policy

    mail = message_from_bytes(content, policy=policy.default)
    body = mail.get_body(("html",))
    assert body is not None, "our own mail has one"
    html = str(body.get_content())
    for part in mail.walk():
        name = str(part.get("Content-ID", "")).strip("<>")
        if name:
            encoded = base64.b64encode(cast("bytes", part.get_content())).decode()
            html = html.replace(f"cid:{name}", f"data:{part.get_content_type()};base64,{encoded}")
    return html


@dataclass
class _Block:
    html: str
    text: str


@dataclass
class _Draft:
    """A mail that is being made."""

    report: Report
    order: MailOrder
    title: str = ""
    pictures: list[tuple[str, str, bytes]] = field(default_factory=list[tuple[str, str, bytes]])

    def __post_init__(self) -> None:
        notebook = json.loads(self.report.ipynb.read_text(encoding="utf-8"))
        self.cells: list[dict[str, Any]] = notebook["cells"]
        outcome = from_json(notebook["metadata"]["research_jobs"])
        assert outcome is not None, "our own version made it"
        self.outcome: Outcome = outcome
        self.label = outcome.notebook + (f" · {outcome.partition}" if outcome.partition else "")
        self.page = self._attachment()
        self.blocks, self.left_out = self._blocks()
        if not self.title:
            self.title = outcome.notebook.rpartition("/")[2].replace("_", " ").capitalize()
        if outcome.partition:
            self.title += f" · {outcome.partition}"

    # --- the parts -----------------------------------------------------------------------------

    def mail(self) -> EmailMessage:
        """All of it, without what its sender knows: to whom it goes, when, its identity."""
        mail = EmailMessage(SMTP.clone(max_line_length=990))
        names = [re.sub(r"[^A-Za-z0-9-]+", "-", name) for name in (self.outcome.notebook,
                                                                   self.order.project)]  # fmt: skip
        mail["List-Id"] = f"<{'.'.join(name.strip('-') or 'x' for name in names)}.research-jobs>"
        mail.set_content(self.text())
        mail.add_alternative(self.html(), subtype="html")
        related = cast("list[EmailMessage]", mail.get_payload())[1]
        for name, kind, content in self.pictures:
            related.add_related(content, "image", _PICTURES[kind], cid=f"<{name}>")
        if self.page is not None:
            name = self.outcome.notebook.replace("/", "-")
            name += f"-{self.outcome.partition}" if self.outcome.partition else ""
            plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100]
            mail.add_attachment(self.page, "text", "html", filename=f"{plain}.html")
        return mail

    def html(self) -> str:
        return render(
            "mail.html",
            title=self.title,
            project=self.order.project,
            label=self.label,
            preview=self.facts,
            facts=self.facts,
            warnings=self.warnings,
            link=self.order.link,
            body=Markup("\n".join(block.html for block in self.blocks)),  # noqa: S704 - cleaned, or our own
            footer=f"{self.footer} {self.where}",
        )

    def text(self) -> str:
        parts = [self.title, self.facts, *self.warnings, self.where]
        parts += [block.text for block in self.blocks]
        text = "\n\n".join(part for part in parts if part)
        return f"{text[:TEXT_LIMIT]}\n\n-- \n{self.footer}\n"

    def short(self) -> str:
        """For a channel that shows no HTML: what there is to say, and where the report is."""
        prose = "\n\n".join(block.text for block in self.blocks if block.text)
        if len(prose) > SHORT_LIMIT:
            prose = prose[:SHORT_LIMIT].rsplit("\n", 1)[0] + " …"
        where = self.order.link or str(self.report.html)
        return "\n\n".join(part for part in (self.facts, *self.warnings, prose, where) if part)

    @property
    def facts(self) -> str:
        """str: when, how long, outputs, checks, in one line."""
        outcome = self.outcome
        parts: list[str] = []
        if outcome.started_at:
            moment = local_time(outcome.started_at, self.order.timezone)
            parts.append(f"{moment:%a} {moment.day} {moment:%b %Y, %H:%M %Z}")
        if outcome.duration_s:
            parts.append(f"took {readable_duration(outcome.duration_s)}")
        if outcome.outputs:
            sizes = [
                item.name + (f" ({item.rows:,})" if item.rows is not None else "")
                for item in outcome.outputs[:4]
            ]
            more = len(outcome.outputs) - len(sizes)
            parts.append("outputs " + ", ".join(sizes) + (f" and {more} more" if more else ""))
        passed = sum(check.passed for check in outcome.checks)
        if outcome.checks:
            parts.append(f"{passed} of {len(outcome.checks)} checks passed")
        return " · ".join(parts)

    @property
    def warnings(self) -> list[str]:
        """List of str: the checks that failed without refusing the outputs."""
        return [
            f"{check.output}, check {check.check}: {check.description}"[:300]
            for check in self.outcome.checks[:50]
            if not check.passed
        ][:5]

    @property
    def where(self) -> str:
        if self.page is not None:
            return "The whole report is attached."
        if self.order.link:
            return f"The whole report: {self.order.link}"
        return f"The whole report is on the server: {self.report.html}"

    @property
    def footer(self) -> str:
        run = f", run {self.outcome.run_id[:8]}" if self.outcome.run_id else ""
        return f"Sent by research-jobs: {self.label} ran in {self.order.project}{run}."

    def _attachment(self) -> bytes | None:
        """The page as one file, if it is to come along and is small enough."""
        if not self.order.attach:
            return None
        try:
            page = standalone(self.report.html).encode("utf-8", "replace")
        except OSError:
            return None
        return page if _as_mailed(page) <= ATTACHED_LIMIT else None

    # --- the results ---------------------------------------------------------------------------

    def _blocks(self) -> tuple[list[_Block], int]:
        blocks: list[_Block] = []
        used = left_out = 0
        for cell in self.cells:
            for block in self._cell(cell):
                size = len(block.html.encode("utf-8", "replace"))
                if left_out or used + size > BODY_LIMIT:
                    left_out += 1
                    continue
                used += size
                blocks.append(block)
        if left_out:
            more = "result is" if left_out == 1 else "results are"
            blocks.append(_note(f"{left_out} more {more} {self._elsewhere}."))
        return blocks, left_out

    def _cell(self, cell: Mapping[str, Any]) -> Iterator[_Block]:
        if cell["cell_type"] == "markdown":
            source = joined(cell["source"])
            heading = _TITLE.match(source)
            if heading is not None and not self.title:
                self.title = " ".join(re.sub(r"[*_`]", "", heading[1]).rstrip(" \t#").split())[:150]
                source = source[heading.end() :]
            if source.strip():
                yield guarded(lambda: self._prose(source), lambda _: _printed(source))
            return
        for output in cell.get("outputs", ()):
            block = guarded(lambda: self._output(output), _note)  # noqa: B023 - called at once
            if block is not None:
                yield block

    def _prose(self, source: str) -> _Block:
        def formula(tex: str, *, display: bool) -> str:
            tag = "div" if display else "span"
            return f"<{tag}><code>{escape(tex.strip().strip('$'), quote=False)}</code></{tag}>"

        html = render_markdown(source, anchor="m", math=formula).html
        return _Block(self._rewritten(html, {})[0], source.strip())

    def _output(self, output: Mapping[str, Any]) -> _Block | None:
        kind = output["output_type"]
        if kind == "stream":
            text = settle_lines(joined(output["text"])).strip("\n")
            # What a library warns of, and progress, concerns who wrote the notebook.
            return _printed(text) if output["name"] == "stdout" and text.strip() else None
        if kind == "error":
            return _printed(f"{output['ename']}: {output['evalue']}"[:500])
        data: Mapping[str, Any] = output["data"]
        return self._shown(data)

    def _shown(self, data: Mapping[str, Any]) -> _Block | None:
        for kind in _PICTURES:
            if kind in data:
                return self._picture(kind, joined(data[kind]))
        if any("bokehjs_load" in kind for kind in data):
            return None
        if PLOTLY in data or any("bokeh" in kind or "vega" in kind for kind in data):
            return self._linked("An interactive chart")
        if "image/svg+xml" in data:
            return self._linked("A drawing")
        if "text/html" in data:
            return self._html(joined(data["text/html"]), joined(data.get("text/plain", "")))
        if "text/markdown" in data:
            return self._prose(joined(data["text/markdown"]))
        if "text/latex" in data:
            return _printed(joined(data["text/latex"]))
        text = joined(data.get("text/plain", "")).strip("\n")
        return _printed(text) if text.strip() else None

    def _html(self, markup: str, text: str) -> _Block:
        if len(markup) > CLEAN_LIMIT:
            return self._linked(f"A result of {readable_size(len(markup))}")
        cleaned = clean_html(markup)
        if not cleaned.complete:
            return self._linked("An interactive result")
        html, left_out = self._rewritten(cleaned.html, id_styles("\n".join(look_at(markup).styles)))
        if len(html) > BLOCK_LIMIT:
            return self._linked("A large table" if "<table" in html else "A large result")
        if left_out:
            html += _note(f"{left_out:,} more rows are {self._elsewhere}.").html
        return _Block(html, text or "[table]")

    def _rewritten(self, html: str, styles: Mapping[str, str]) -> tuple[str, int]:
        rewriter = Rewriter(self._add_picture, styles)
        return rewriter.rewritten(html), rewriter.left_out

    def _picture(self, kind: str, encoded: str) -> _Block:
        try:
            content = base64.b64decode("".join(encoded.split()), validate=True)
        except (binascii.Error, ValueError):
            return _note("A picture cannot be shown.")
        address = self._add_picture(kind, content)
        if address is None:
            return self._linked("A large chart")
        size = picture_size(content)
        width = min(size[0], WIDTH) if size is not None else WIDTH
        style = (
            f"display:block;width:100%;max-width:{width}px;height:auto;margin:0 0 14px;"
            "background:#ffffff;border-radius:4px;"
        )
        return _Block(
            f'<img src="{address}" alt="Chart" width="{width}" style="{style}">', "[chart]"
        )

    def _add_picture(self, kind: str, content: bytes) -> str | None:
        kind = "image/jpeg" if kind == "image/jpg" else kind
        others = [picture for _, _, picture in self.pictures]
        if (
            sum(map(_as_mailed, (content, self.page or b"", *others)))
            > WHOLE_LIMIT - BODY_LIMIT * 2
        ):
            return None
        name = f"figure-{len(self.pictures) + 1}@research-jobs"
        self.pictures.append((name, kind, content))
        return f"cid:{name}"

    @property
    def _elsewhere(self) -> str:
        return "in the attached page" if self.page is not None else "in the report"

    def _linked(self, what: str) -> _Block:
        """A result that a mail cannot show."""
        where = self._elsewhere
        shown = where
        if self.page is None and self.order.link:
            link = escape(self.order.link)
            shown = f'<a class="rj-link" href="{link}" style="color:#0b5cad;">{where}</a>'
        html = f'<p class="rj-box" style="{_BOX}font-size:13px;">{what} is {shown}.</p>'
        return _Block(html, f"[{what} is {where}]")


def _as_mailed(content: bytes) -> float:
    return len(content) * 1.37  # as base64, in lines


def _printed(text: str) -> _Block:
    """Printed text, bounded, its colours left out."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    lines = [line[:300] for line in plain.split("\n")]
    if len(lines) > MOST_LINES:
        half = MOST_LINES // 2
        left = len(lines) - 2 * half
        lines = [*lines[:half], f"… {left:,} more lines …", *lines[-half:]]
    shown = "\n".join(lines)
    # A printed table keeps its columns, and scrolls where the screen is narrow.
    table = len(lines) > 1 and max(map(len, lines)) <= PRINTED_WIDTH
    wrap = "white-space:pre;overflow-x:auto;" if table else "white-space:pre-wrap;"
    style = f"{_BOX}{_MONO}{wrap}overflow-wrap:anywhere;"
    html = f'<pre class="rj-box" style="{style}">{escape(shown, quote=False)}</pre>'
    return _Block(html, shown)


def _note(text: str) -> _Block:
    style = "margin:-6px 0 14px;font-size:12px;color:#66707c;"
    return _Block(f'<p class="rj-muted" style="{style}">{escape(text)}</p>', f"[{text}]")
