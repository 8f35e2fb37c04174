"""The process that delivers: ``python -m research_jobs.notify.sender``, a job in, answers out.

It is a process of its own so that whatever a server does (hang, send one byte a second, crash a
library), whoever started it goes on: an alarm of the kernel ends it. The job comes through a pipe,
as JSON with the secrets in it; each answer is one line of JSON, written when it is known.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import smtplib
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from socket import getfqdn
from typing import Any

__all__ = ["Answer", "beat", "deliver"]

TIMEOUT_S = 15.0
ANSWER_LENGTH = 300

Answer = dict[str, Any]
"""``id`` of the letter (None for all that have no answer yet), ``ok``, ``answer`` (one line)."""


def deliver(job: Mapping[str, Any]) -> Iterator[Answer]:
    """Send letters through one channel.

    Parameters
    ----------
    job : mapping
        ``letters`` (a list of ``id``, ``thread``, ``title``, ``body``, ``severity``, ``over`` and
        ``at``), and ``email`` or ``url``.
    """
    try:
        if job.get("email"):
            yield from _by_smtp(job["email"], job["letters"])
        else:
            yield from _by_apprise(job["url"], job["letters"])
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
        yield _answer(None, False, _said(error))


def beat(url: str, timeout: float = TIMEOUT_S) -> Answer:
    """Request the address of a heartbeat.

    Parameters
    ----------
    url : str
    timeout : float
        Seconds for each wait on the network.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "research-jobs"})  # noqa: S310 - the manifest allows http and https only
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:  # noqa: S310
            return _answer(None, True, f"{response.status} {response.reason}")
    except urllib.error.HTTPError as error:
        with error:
            return _answer(None, False, f"{error.code} {error.reason}")
    except Exception as error:  # noqa: BLE001
        return _answer(None, False, _said(getattr(error, "reason", error)))


def _answer(id_: str | None, ok: bool, answer: str) -> Answer:
    line = " ".join(answer.split())
    return {"id": id_, "ok": ok, "answer": line[:ANSWER_LENGTH]}


# --- e-mail -----------------------------------------------------------------------------------


class _Plain(smtplib.SMTP):
    """smtplib's client, which also keeps what the server said of the letter."""

    said = ""

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, said = super().data(msg)
        self.said = f"{code} {said.decode('utf-8', 'replace')}"
        return code, said


class _Secure(smtplib.SMTP_SSL, _Plain):
    pass


def _by_smtp(email: Mapping[str, Any], letters: Sequence[Mapping[str, Any]]) -> Iterator[Answer]:
    secured = ssl.create_default_context()
    where = email["host"], email["port"]
    client = (
        _Secure(*where, timeout=TIMEOUT_S, context=secured)
        if email["security"] == "tls"
        else _Plain(*where, timeout=TIMEOUT_S)
    )
    with client as server:
        if email["security"] == "starttls":
            server.starttls(context=secured)
        if email.get("user"):
            server.login(email["user"], email["password"])
        for letter in letters:
            try:
                refused = server.send_message(
                    _mail(email, letter), email["from"], list(email["to"])
                )
            except smtplib.SMTPServerDisconnected:
                raise
            except (smtplib.SMTPException, ValueError) as error:
                yield _answer(letter["id"], False, _said(error))
                continue
            said = server.said
            for address, (code, why) in refused.items():
                said += f"; not to {address}: {code} {why.decode('utf-8', 'replace')}"
            yield _answer(letter["id"], True, said) | {"partly": bool(refused)}


def _mail(email: Mapping[str, Any], letter: Mapping[str, Any]) -> EmailMessage:
    # Lines are not folded: some programs show a folded subject with a gap in it.
    mail = EmailMessage(SMTP.clone(max_line_length=990))
    domain = email["from"].rpartition("@")[2] or "localhost"
    mail["Subject"] = re.sub(r"[\r\n\0]+", " ", letter["title"])
    mail["From"], mail["To"] = email["from"], ", ".join(email["to"])
    mail["Date"] = formatdate(letter["at"])
    # The same at each attempt, so that a mail program shows a letter once that came twice.
    mail["Message-ID"] = f"<{letter['id']}@{domain}>"
    mail["References"] = f"<{letter['thread']}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(letter["body"].replace("\0", ""))
    return mail


def _said(error: BaseException | str) -> str:
    """What came back, in one line."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        refused = error.recipients.items()
        return "; ".join(f"not to {who}: {code} {_text(why)}" for who, (code, why) in refused)
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_text(error.smtp_error)}"
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:.0f} s"
    name = "" if isinstance(error, str) else f"{type(error).__name__}: "
    text = str(error)
    return text if text and isinstance(error, (OSError, str)) else f"{name}{text}"


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


# --- everything else ----------------------------------------------------------------------------


class _Heard(logging.Handler):
    """What apprise logs: why something was not delivered."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _by_apprise(url: str, letters: Sequence[Mapping[str, Any]]) -> Iterator[Answer]:
    import apprise

    heard = _Heard()
    logger = logging.getLogger("apprise")
    logger.addHandler(heard)
    logger.propagate = False
    service = apprise.Apprise()
    if not service.add(url):
        yield _answer(None, False, heard.lines[-1] if heard.lines else "apprise knows no such URL")
        return
    types = {
        "critical": apprise.NotifyType.FAILURE,
        "warning": apprise.NotifyType.WARNING,
        "info": apprise.NotifyType.INFO,
    }
    for letter in letters:
        heard.lines.clear()
        ok = service.notify(
            title=letter["title"],
            body=letter["body"],
            notify_type=apprise.NotifyType.SUCCESS if letter["over"] else types[letter["severity"]],
            body_format=apprise.NotifyFormat.TEXT,
        )
        said = "; ".join(heard.lines) or ("accepted" if ok else "not accepted")
        yield _answer(letter["id"], bool(ok), said)


def sender_address(project: str) -> str:
    """Whom e-mail is from if the manifest does not say."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", project).strip("-.") or "research-jobs"
    return f"{name}@{getfqdn() or 'localhost'}"


def main() -> None:
    """Read the job, do it, write each answer as it comes."""
    job = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    answers = [beat(job["beat"])] if "beat" in job else deliver(job)
    for answer in answers:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
