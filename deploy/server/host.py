"""The machine that becomes a server: where things go, and commands as one of its users."""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = [
    "BOOK",
    "HOME",
    "PROJECT",
    "SETTINGS",
    "USER",
    "Book",
    "CommandError",
    "Host",
    "ProblemError",
    "command",
    "main",
    "say",
]

USER = "research"
PROJECT = Path("/srv/research-jobs")
HOME = Path("/var/lib/research-jobs")
SETTINGS = Path("/etc/research-jobs.env")
BOOK = Path("/etc/research-jobs.installed")
LOCK = Path("/run/lock/research-jobs.lock")


class ProblemError(Exception):
    """What stops a command, in one line; further lines say what to do."""


@dataclass
class Book:
    """What root remembers between two commands.

    Parameters
    ----------
    options : dict of str to str
        How `install` was called.
    files : dict of str to str
        Path of an installed file to the SHA-256 of what was written: another one was edited.
    previous : str or None
        The commit that `rollback` returns to.
    leaving : str or None
        The commit that worked, while another one is being put into service.
    """

    options: dict[str, str] = field(default_factory=dict[str, str])
    files: dict[str, str] = field(default_factory=dict[str, str])
    previous: str | None = None
    leaving: str | None = None


class Host:
    """A machine.

    Parameters
    ----------
    root : Path
        Where its file system is: another folder than ``/`` is for tests.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        try:
            written = json.loads(self.path(BOOK).read_bytes())
            # A later version may have written more, before it was rolled back.
            known = {one.name for one in fields(Book)} & written.keys()
            self.book = Book(**{name: written[name] for name in known})
        except FileNotFoundError:
            self.book = Book()
        except PermissionError:
            raise ProblemError(f"only root may read {BOOK}") from None

    def path(self, place: Path) -> Path:
        """Where a file of the machine is."""
        return self.root / place.relative_to("/")

    def remember(self) -> None:
        """Write the book down."""
        self.write(BOOK, json.dumps(asdict(self.book), indent=1).encode() + b"\n", mode=0o600)

    def write(self, place: Path, content: bytes, *, mode: int = 0o644, group: str = "root") -> None:
        """Replace a file of root's at once, or leave it as it is."""
        target = self.path(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f"{target.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:
                os.fchown(file.fileno(), 0, grp.getgrnam(group).gr_gid)
            os.fsync(file.fileno())
        new.replace(target)

    def has_user(self, name: str = USER) -> bool:
        """Whether a user exists."""
        users = self.path(Path("/etc/passwd"))
        return users.is_file() and any(
            line.startswith(f"{name}:") for line in users.read_text().splitlines()
        )

    def settings(self) -> dict[str, str]:
        """The variables of the units' environment file."""
        lines = self.path(SETTINGS).read_text(encoding="utf-8").splitlines()
        pairs = [line.partition("=") for line in lines if "=" in line and line[0] != "#"]
        return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}

    def as_user(self, *words: str, **more: str) -> str:
        """What a command of the units' user answers, in the project's folder."""
        return command(*words, user=USER, cwd=self.path(PROJECT), environment=more)

    def git(self, *words: str) -> str:
        """What Git answers. It is the owner of the repository that asks, never root."""
        return self.as_user("git", *words)

    def tool(self, *words: str, environment: Path | None = None, **more: str) -> str:
        """What a program of the environment answers to one who asks as the units do."""
        folder = environment or self.path(PROJECT) / ".venv"
        name, *rest = words
        return self.as_user(str(folder / "bin" / name), *rest, **self.settings(), **more)

    @contextmanager
    def alone(self) -> Generator[None]:
        """A context that keeps a second install, upgrade or rollback out."""
        with LOCK.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ProblemError("another install, upgrade or rollback is under way") from None
            yield


class CommandError(ProblemError):
    """A command that failed.

    Parameters
    ----------
    line : str
    code : int
    output : str
        What it printed to its standard output.
    """

    def __init__(self, line: str, code: int, output: str) -> None:
        super().__init__(line)
        self.code = code
        self.output = output


def command(
    *words: str,
    user: str = "root",
    cwd: Path = Path("/"),
    stdin: str = "",
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a command answers on its standard output.

    Raises
    ------
    CommandError
        When it fails, with what it said.
    """
    known = pwd.getpwnam(user)
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        who = {
            "user": user,
            "group": known.pw_gid,
            "extra_groups": os.getgrouplist(user, known.pw_gid),
        }
    whose = {"HOME": known.pw_dir, "USER": user, "LOGNAME": user, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        words,
        cwd=cwd,
        env={**os.environ, **whose, **(environment or {})},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        umask=0o027 if user == USER else 0o022,
        **who,
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-12:]
        shown = " ".join(words)
        lines = [f"{shown[:160]} failed with exit code {done.returncode}", *said]
        raise CommandError("\n  ".join(lines), done.returncode, done.stdout)
    return done.stdout.strip()


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def main(name: str, work: Callable[[list[str]], int]) -> int:
    """Run a command's function; its problem is one message and exit code 2."""
    try:
        return work(sys.argv[1:])
    except ProblemError as error:
        sys.stderr.write(f"deploy/{name}: {error}\n")
    except KeyboardInterrupt:
        sys.stderr.write(f"deploy/{name}: interrupted; run it again to go on\n")
    return 2
