"""What the watch calls at each look: it decides whom to tell of what is wrong, and tells them.

::

    notifier = Notifier(project)
    while True:
        notifier.look(conditions, time.time(), manifest)  # all that is wrong now
        notifier.heartbeat(time.time(), well=nothing_unaccounted)
        ...
    notifier.close()

`look` returns at once: each delivery is a process of its own, which the kernel ends after a minute
at the latest, and what came back is read at the next look. What was said and what waits is kept
in ``.research_jobs/alerts/book.json``, with the last rules that were good. Where that cannot be
written (a full disk is a reason for alerts) it stays in memory and is written later.

The conditions of the manifest and of the channels are made here. A condition must be passed for as
long as it lasts: a notebook that failed has not recovered while it runs again. Pass as `unknown`
what a look could not see.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from research_jobs.manifest.alerts import ChannelSpec, HeartbeatSpec
from research_jobs.manifest.manifest import Manifest
from research_jobs.notify.condition import Condition, Kind
from research_jobs.notify.deciding import Message, decide
from research_jobs.notify.delivery import Deliveries, secrets_in
from research_jobs.notify.kept import read_kept, write_kept
from research_jobs.notify.outbox import (
    SENT_KEPT,
    TROUBLE_AFTER,
    Letter,
    Outbox,
    Sent,
    Trouble,
    add,
    due,
    settle,
)
from research_jobs.notify.reports import (
    ReadyReport,
    address_channel,
    forget_report,
    ready_reports,
    sweep_letters,
)
from research_jobs.notify.rules import rules_of
from research_jobs.notify.wording import body_of, title_of
from research_jobs.project import REPORTS_VARIABLE, Project
from research_jobs.runtime.masking import Masker

__all__ = ["HEARTBEAT", "Notifier", "heartbeat_due", "masker_of"]

# How many reports are remembered as taken, and what is tried again soon: seconds.
REPORTS_KEPT = 1000
SOON_S = 60.0
HEARTBEAT = "heartbeat"
"""The subject of the condition that a heartbeat is not accepted."""


class Notifier:
    """Tells people what is wrong with a project.

    Parameters
    ----------
    project : Project
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.kept = read_kept(project)
        self._written = self.kept
        self._deliveries = Deliveries(project)
        self._beats = Deliveries(project)
        self._beaten: float | None = None
        self._beat_trouble: Trouble | None = None
        self._masker = Masker(())
        sweep_letters(project)

    def look(
        self,
        conditions: Sequence[Condition],
        now: float,
        manifest: Manifest,
        *,
        unknown: Collection[str] = (),
    ) -> tuple[Message, ...]:
        """Decide what is to be said, start to deliver it, and keep the book.

        Parameters
        ----------
        conditions : sequence of Condition
            All that is wrong now, but for the manifest and the channels.
        now : float
            Unix time, seconds.
        manifest : Manifest
            As it is now, broken or not.
        unknown : collection of str
            Kinds and subjects of which this look could not see whether something is wrong.

        Returns
        -------
        tuple of Message
            What was decided to be said.
        """
        rules = rules_of(manifest, self.kept.rules)
        self._masker = masker = masker_of(manifest, rules.channels)
        outbox = self._settled(now)
        mistakes = {
            problem.error.headline: self.kept.mistakes.get(problem.error.headline, now)
            for problem in manifest.problems
        }
        seen = [
            *(self._shown(one, manifest, masker) for one in conditions),
            *_mistaken(manifest, mistakes, masker),
            *_troubled(outbox, self._beat_trouble, self._masker),
        ]
        book, messages = decide(self.kept.book, seen, rules, now, unknown=unknown)
        letters = [
            Letter(
                message.id,
                message.thread,
                message.channel,
                _text(masker, title_of(message, self.project.root.name)),
                _text(masker, body_of(message, manifest.defaults.timezone)),
                message.incident.severity.value,
                message.event in ("over", "was"),
                now,
            )
            for message in messages
        ]
        self.kept = replace(self.kept, rules=rules, book=book, mistakes=mistakes)
        self._send(outbox, letters, now)
        return messages

    def deliver(self, manifest: Manifest, now: float) -> bool:
        """Deliver what waits, without a look at what is wrong.

        Parameters
        ----------
        manifest : Manifest
        now : float

        Returns
        -------
        bool
            Whether something is under way, or to be tried again within a minute.
        """
        rules = rules_of(manifest, self.kept.rules)
        self._masker = masker_of(manifest, rules.channels)
        self.kept = replace(self.kept, rules=rules)
        self._send(self._settled(now), [], now)
        waiting = self.kept.outbox.waiting
        return bool(self._deliveries) or any(one.next_try < now + SOON_S for one in waiting)

    def _send(self, outbox: Outbox, letters: list[Letter], now: float) -> None:
        """Take new letters and the reports that were left, keep the book, and start to deliver."""
        taken: list[str] = []
        left = ready_reports(self.project)
        for report in left:
            if report.id not in self.kept.reports:
                taken.append(report.id)
                letters += (self._masked(letter) for letter in report.letters())
                outbox = _unsent(outbox, report.title, report.unknown, now)
        channels = dict(self.kept.rules.channels)
        for letter in (*outbox.waiting, *letters):
            if (spec := address_channel(letter.channel, channels)) is not None:
                channels.setdefault(letter.channel, spec)
        for letter in letters:
            if letter.channel not in channels:
                why = {letter.channel: "there is no such channel"}
                outbox = _unsent(outbox, letter.title, why, now)
        before = self.kept.outbox.waiting
        outbox = add(outbox, letters, channels, now)
        reports = (*self.kept.reports, *taken)[-REPORTS_KEPT:]
        self.kept = replace(self.kept, outbox=outbox, reports=reports)
        if self._keep():
            self._tidy(left, before)
        for name, spec in channels.items():
            if name not in self._deliveries and (tried := due(outbox, name, now)):
                self._deliveries.send(name, spec, tried)

    def _tidy(self, left: Sequence[ReadyReport], before: Sequence[Letter]) -> None:
        """Remove the files that the book, which is written, has made superfluous."""
        waiting = {letter.id for letter in self.kept.outbox.waiting}
        self._deliveries.forget(letter for letter in before if letter.id not in waiting)
        needed = {letter.mail for letter in self.kept.outbox.waiting}
        for report in left:
            if report.mail and report.mail not in needed:
                Path(report.mail).unlink(missing_ok=True)
            forget_report(self.project, report)
        for letter in before:
            if letter.mail and letter.mail not in needed:
                Path(letter.mail).unlink(missing_ok=True)

    def _masked(self, letter: Letter) -> Letter:
        title, body = (_text(self._masker, said) for said in (letter.title, letter.body))
        return replace(letter, title=title, body=body)

    def heartbeat(self, now: float, *, well: bool) -> bool:
        """Tell the service outside that all is well, if it is and if it is time to.

        It is not well either if no channel delivers.

        Parameters
        ----------
        now : float
        well : bool
            Whether nothing is unaccounted for.

        Returns
        -------
        bool
            Whether a request was started.
        """
        for _, _, answers in self._beats.ended():
            answer = answers[0] if answers else {"ok": False, "answer": "no answer in time"}
            last = self._beat_trouble
            since, failures = (last.since, last.failures) if last else (now, 0)
            trouble = Trouble(since, str(answer["answer"]), failures + 1)
            self._beat_trouble = None if answer["ok"] else trouble
        spec = self.kept.rules.heartbeat
        if spec is None:
            self._beat_trouble = None
        if self._beats or spec is None or not heartbeat_due(spec, self._beaten, now):
            return False
        if not well or self._mute():
            return False
        self._beaten = now
        self._beats.beat(HEARTBEAT, spec.url)
        return True

    def _mute(self) -> bool:
        """Whether no channel delivers: then only the heartbeat's absence can tell anybody."""
        troubles, channels = self.kept.outbox.troubles, self.kept.rules.channels
        return bool(channels) and all(
            name in troubles and troubles[name].failures >= TROUBLE_AFTER for name in channels
        )

    def wait(self, seconds: float) -> None:
        """Wait for the deliveries that are under way, at most so long."""
        end = time.monotonic() + seconds
        for deliveries in (self._deliveries, self._beats):
            deliveries.wait(max(0.0, end - time.monotonic()))

    def close(self, seconds: float = 5.0) -> None:
        """Give what is under way so long, read what came back, and end the rest."""
        self.wait(seconds)
        outbox = self._settled(time.time())
        self.kept = replace(self.kept, outbox=outbox)
        self._keep()
        self._deliveries.close()
        self._beats.close()

    def _settled(self, now: float) -> Outbox:
        outbox = self.kept.outbox
        for name, tried, answers in self._deliveries.ended():
            outbox = settle(outbox, name, tried, self._masker.value(answers), now)
        return outbox

    def _keep(self) -> bool:
        """Write the book; whether it is written."""
        if self.kept != self._written:
            try:
                write_kept(self.project, self.kept)
            except OSError:  # the disk is full, and just that is being told
                return False
            self._written = self.kept
        return True

    def _shown(self, one: Condition, manifest: Manifest, masker: Masker) -> Condition:
        """A condition as it may be shown, with the public address of its report."""
        base = os.environ.get(REPORTS_VARIABLE) or manifest.reports.url
        report = one.report
        if report and base and (path := Path(report)).is_relative_to(self.project.reports):
            place = quote(path.relative_to(self.project.reports).as_posix())
            report = f"{base.rstrip('/')}/{place}"
        return replace(
            one,
            subject=_text(masker, one.subject),
            reason=_text(masker, one.reason),
            report=masker.text(report) if report else report,
            rerun=masker.text(one.rerun) if one.rerun else one.rerun,
        )


def _text(masker: Masker, text: str) -> str:
    """A text without secrets, and with what is not UTF-8 in it (names of files) escaped."""
    return masker.text(text).encode("utf-8", "backslashreplace").decode()


def _unsent(outbox: Outbox, title: str, why: Mapping[str, str], now: float) -> Outbox:
    """The outbox with what somebody does not get."""
    sent = [Sent(name, title, now, delivered=False, answer=one) for name, one in why.items()]
    return replace(outbox, sent=(*outbox.sent, *sent)[-SENT_KEPT:])


def _mistaken(
    manifest: Manifest, mistakes: Mapping[str, float], masker: Masker
) -> Iterator[Condition]:
    for problem in manifest.problems:
        error = problem.error
        said = error.headline.removeprefix(f"{error.where}: ")
        yield Condition(
            Kind.MANIFEST,
            str(error.where),
            masker.text(said),
            mistakes[error.headline],
            rerun="research-jobs check",
        )


def _troubled(outbox: Outbox, beat: Trouble | None, masker: Masker) -> Iterator[Condition]:
    troubles = dict(outbox.troubles) | ({HEARTBEAT: beat} if beat is not None else {})
    for name, trouble in troubles.items():
        if trouble.failures >= TROUBLE_AFTER:
            yield Condition(
                Kind.CHANNEL,
                name,
                masker.text(trouble.answer),
                trouble.since,
                rerun="research-jobs alerts --test",
            )


def heartbeat_due(spec: HeartbeatSpec, last: float | None, now: float) -> bool:
    """Whether it is time for a heartbeat.

    Parameters
    ----------
    spec : HeartbeatSpec
    last : float or None
        When the last one was sent.
    now : float
    """
    return last is None or now - last >= spec.every or now < last


def masker_of(manifest: Manifest, channels: Mapping[str, ChannelSpec]) -> Masker:
    """A masker of all that is secret to the project and to these channels."""
    named = [*manifest.masked]
    for spec in manifest.notebooks.values():
        named += spec.secret_parameters.values()
    values = [os.environ.get(name, "") for name in named]
    return Masker([*values, *(value for spec in channels.values() for value in secrets_in(spec))])
