"""The process that delivers: ``python -m research_jobs.notify.sender``, a job in, answers out.

It is a process of its own so that whatever a server does (hang, send one byte a second, crash a
library), whoever started it goes on: an alarm of the kernel ends it. The job comes through a pipe,
as JSON with the secrets in it; each answer is one line of JSON, written when it is known.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import signal
import smtplib
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from pathlib import Path
from socket import getfqdn
from typing import IO, Any

from research_jobs.failpoints import failpoint
from research_jobs.filesystem import open_private

__all__ = ["Answer", "Receipt", "beat", "deliver"]

TIMEOUT_S = 15.0
ANSWER_LENGTH = 300

Answer = dict[str, Any]
"""``id`` of the letter (None for all that have no answer yet), ``ok``, ``answer`` (one line)."""


def deliver(job: Mapping[str, Any]) -> Iterator[Answer]:
    """Send letters through one channel.

    Parameters
    ----------
    job : mapping
        ``letters`` (a list of ``id``, ``thread``, ``title``, ``body``, ``severity``, ``over``,
        ``at``, ``mail`` and ``once``), ``email`` or ``url``, and ``receipts``, a folder.
    """
    letters: list[tuple[Mapping[str, Any], Receipt]] = []
    with ExitStack() as locked:
        for letter in job["letters"]:
            receipt = Receipt(job["receipts"], letter["id"])
            known = receipt.taken(locked) if letter.get("once") else None
            if known is None:
                letters.append((letter, receipt))
            else:
                yield known
        yield from _by_channel(job, letters)


def _by_channel(
    job: Mapping[str, Any], letters: Sequence[tuple[Mapping[str, Any], Receipt]]
) -> Iterator[Answer]:
    if not letters:
        return
    try:
        if job.get("email"):
            yield from _by_smtp(job["email"], letters)
        else:
            yield from _by_apprise(job["url"], letters)
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


class Receipt:
    """What is written down of a report's letter before anybody is told: it is sent once.

    Two processes never send one letter at once, and none sends what was accepted. If the sender or
    the connection ended just when the server had a letter whole, nobody knows whether it was
    accepted: it is not sent again. Of a letter that was not `taken`, nothing is written.

    Parameters
    ----------
    folder, id_ : str
    """

    def __init__(self, folder: str, id_: str) -> None:
        self._id = id_
        self._path = Path(folder) / f"{id_}.receipt"
        self._file: IO[bytes] | None = None

    def taken(self, locked: ExitStack) -> Answer | None:
        """Take the letter; the answer where there is one already, or where another sends it.

        Parameters
        ----------
        locked : ExitStack
            Lets go of it.
        """
        try:
            file = locked.enter_context(open_private(self._path, "a+b"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.seek(0)
            said = file.read().decode("utf-8", "replace")
        except BlockingIOError:
            return _answer(self._id, False, "another process is sending it")
        except OSError as error:
            return _answer(self._id, False, _said(error))
        if said.startswith("accepted"):
            return _answer(self._id, True, said.removeprefix("accepted "))
        if said:
            why = "nothing came back when the server had it, so it may have arrived or not"
            return _answer(self._id, True, why) | {"doubtful": True}
        self._file = file
        return None

    def hand_over(self) -> None:
        """Before the server has the letter whole."""
        self._write("handed over")
        failpoint("handed over")

    def accepted(self, answer: str) -> None:
        """The server has it."""
        failpoint("accepted")
        self._write(f"accepted {answer[:ANSWER_LENGTH]}")
        failpoint("receipt")

    def refused(self) -> None:
        """The server does not have it."""
        self._write("")

    def _write(self, text: str) -> None:
        if self._file is not None:
            self._file.truncate(0)
            self._file.write(text.encode())
            self._file.flush()
            os.fsync(self._file.fileno())


# --- e-mail -----------------------------------------------------------------------------------


class _Plain(smtplib.SMTP):
    """smtplib's client, which keeps what the server said of a letter, and a receipt of it."""

    said = ""
    receipt: Receipt | None = None

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.putcmd("data")
        code, said = self.getreply()
        if code != 354:
            raise smtplib.SMTPDataError(code, said)
        whole = _quoted(msg if isinstance(msg, bytes) else msg.encode("ascii"))
        self.send(whole)
        if self.receipt is not None:
            self.receipt.hand_over()
        self.send(b".\r\n")  # until then the server has nothing
        code, said = self.getreply()
        self.said = f"{code} {said.decode('utf-8', 'replace')}"
        if self.receipt is not None:
            if code == 250:
                self.receipt.accepted(self.said)
            else:
                self.receipt.refused()
        return code, said


class _Secure(smtplib.SMTP_SSL, _Plain):
    pass


def _quoted(message: bytes) -> bytes:
    """A letter as SMTP carries it: lines end with CR LF, and none is a dot alone."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", message)
    return re.sub(rb"(?m)^\.", b"..", lines if lines.endswith(b"\r\n") else lines + b"\r\n")


def _by_smtp(
    email: Mapping[str, Any], letters: Sequence[tuple[Mapping[str, Any], Receipt]]
) -> Iterator[Answer]:
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
        for letter, server.receipt in letters:
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
    policy = SMTP.clone(max_line_length=990)
    made = _made(letter)
    mail = EmailMessage(policy) if made is None else message_from_bytes(made, policy=policy)
    domain = email["from"].rpartition("@")[2] or "localhost"
    mail["Subject"] = re.sub(r"[\r\n\0]+", " ", letter["title"])
    mail["From"], mail["To"] = email["from"], ", ".join(email["to"])
    mail["Date"] = formatdate(letter["at"])
    # The same at each attempt, so that a mail program shows a letter once that came twice.
    mail["Message-ID"] = f"<{letter['id']}@{domain}>"
    if letter["thread"] != letter["id"]:
        mail["References"] = f"<{letter['thread']}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if made is None:
        mail.set_content(letter["body"].replace("\0", ""))
    return mail


def _made(letter: Mapping[str, Any]) -> bytes | None:
    """A report's mail as it was made with the report; None for what is text alone."""
    try:
        return Path(letter["mail"]).read_bytes() if letter.get("mail") else None
    except OSError:
        return None


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


def _by_apprise(url: str, letters: Sequence[tuple[Mapping[str, Any], Receipt]]) -> Iterator[Answer]:
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
    for letter, receipt in letters:
        heard.lines.clear()
        receipt.hand_over()
        ok = service.notify(
            title=letter["title"],
            body=letter["body"],
            notify_type=apprise.NotifyType.SUCCESS if letter["over"] else types[letter["severity"]],
            body_format=apprise.NotifyFormat.TEXT,
        )
        said = "; ".join(heard.lines) or ("accepted" if ok else "not accepted")
        if ok:
            receipt.accepted(said)
        else:
            receipt.refused()
        yield _answer(letter["id"], bool(ok), said)


def _keep_methods() -> None:
    """Follow no redirection that makes a GET of a letter: its page answers, and nobody is told."""
    import requests

    follow = requests.Session.get_redirect_target

    def target(self: requests.Session, resp: requests.Response) -> str | None:
        kept = resp.request.method != "POST" or resp.status_code in (307, 308)
        return follow(self, resp) if kept else None

    requests.Session.get_redirect_target = target


def sender_address(project: str) -> str:
    """Whom e-mail is from if the manifest does not say."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", project).strip("-.") or "research-jobs"
    return f"{name}@{getfqdn() or 'localhost'}"


def main() -> None:
    """Read the job, do it, write each answer as it comes."""
    job = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, job["seconds"])
    if "url" in job:
        _keep_methods()
    answers = [beat(job["beat"])] if "beat" in job else deliver(job)
    for answer in answers:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
