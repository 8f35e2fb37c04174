"""restic, which stores backups: encrypted, deduplicated, in a folder, over sftp, in S3 and more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from research_jobs.errors import BackupError

__all__ = ["KEEP", "Repository", "Snapshot", "Stored"]

TAG = "research_jobs"
KEEP = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
"""How snapshots are thinned out: restic's ``--keep-...``."""

_NO_REPOSITORY = ("Is there a repository at the following location", "repository does not exist")
_PASSWORDS = ("RESTIC_PASSWORD", "RESTIC_PASSWORD_FILE", "RESTIC_PASSWORD_COMMAND")


@dataclass(frozen=True)
class Snapshot:
    """One backup in a repository.

    Parameters
    ----------
    id : str
    at : float
        When it was made, Unix time.
    host : str
    path : str
        The folder that it was made of.
    """

    id: str
    at: float
    host: str
    path: str


@dataclass(frozen=True)
class Stored:
    """What a backup has stored.

    Parameters
    ----------
    snapshot : str
    files, bytes : int
        Of the project.
    added : int
        Bytes that the repository did not have.
    """

    snapshot: str
    files: int
    bytes: int
    added: int


class Repository:
    """A restic repository.

    Parameters
    ----------
    target : str
        As restic takes it: a folder, ``sftp:user@host:/path``, ``s3:https://host/bucket``...
    password_file : Path, optional
        By default the environment has the password, as restic reads it.

    Raises
    ------
    BackupError
        When restic is not installed, or there is no password.
    """

    def __init__(self, target: str, password_file: Path | None = None) -> None:
        program = shutil.which("restic")
        if program is None:
            raise BackupError(
                "restic is not installed, which stores backups",
                hint="Install it: apt-get install restic, or see https://restic.net.",
            )
        # Progress once a minute: it is only read at the end.
        self._environment = {**os.environ, "RESTIC_PROGRESS_FPS": "0.016"}
        if password_file is not None:
            if not password_file.is_file():
                raise BackupError(
                    f"the password file {password_file} does not exist",
                    hint="Write the repository's password into it, with mode 0600.",
                )
            for name in _PASSWORDS:
                self._environment.pop(name, None)
            self._environment["RESTIC_PASSWORD_FILE"] = str(password_file)
        elif not any(self._environment.get(name) for name in _PASSWORDS):
            raise BackupError(
                "there is no password for the repository",
                hint="Set RESTIC_PASSWORD, or name a file: --password-file, "
                "or password_file under backup in the manifest.",
            )
        self.target = target
        self._command = (program, "--repo", target)

    @property
    def place(self) -> str:
        """str: the target, the same wherever the command was typed."""
        return self.target if ":" in self.target else str(Path(self.target).absolute())

    def prepare(self) -> str:
        """Create the repository if there is none; its id."""
        found = self._find()
        if found is None:
            said = _records(self._run("cannot be created", "init", "--json"))
            # An earlier restic says it in words.
            found = next((str(one["id"]) for one in said if "id" in one), None) or self._find()
        return found or ""

    def expect(self, known: str) -> None:
        """Refuse any repository but the one of this id.

        Raises
        ------
        BackupError
        """
        found = self._find()
        if found != known:
            what = "is not the repository" if found else "no longer has the repository"
            raise BackupError(
                f"{self.place} {what} that earlier backups went to: mount its disk, or begin a "
                "new one with research-jobs backup --new-repository"
            )

    def _find(self) -> str | None:
        """The repository's id; None where there is none."""
        done = self._try("cat", "config")
        if done.returncode == 0:
            return str(json.loads(done.stdout)["id"])
        if any(said in done.stderr for said in _NO_REPOSITORY):
            return None
        raise self._error("cannot be opened", done)

    def store(self, folder: Path, host: str) -> Stored:
        """Store a folder as a snapshot.

        Parameters
        ----------
        folder : Path
        host : str
            The machine's name in the repository.
        """
        # A file that was linked has a new ctime: size and time of its content tell a change.
        words = ("--ignore-inode", "--ignore-ctime", "--host", host, "--tag", TAG, "--json", ".")
        said = self._run("cannot be written", "backup", *words, cwd=folder)
        summary = next(line for line in _records(said) if line.get("message_type") == "summary")
        return Stored(
            str(summary["snapshot_id"]),
            int(summary["total_files_processed"]),
            int(summary["total_bytes_processed"]),
            int(summary["data_added"]),
        )

    def prune(self, folder: Path, host: str, keep: Mapping[str, int]) -> int:
        """Remove older snapshots of a folder, and what only they needed.

        Parameters
        ----------
        folder : Path
        host : str
        keep : mapping of str to int
            How many to keep, by `KEEP`.

        Returns
        -------
        int
            How many were removed.
        """
        rules = [word for name, count in keep.items() for word in (f"--keep-{name}", str(count))]
        which = ("--host", host, "--path", str(folder.resolve()), "--tag", TAG)
        said = self._run("cannot be pruned", "forget", *which, *rules, "--prune", "--json")
        first = next(iter(_values(said)), [])
        return sum(len(group.get("remove") or ()) for group in first)

    def snapshots(self) -> list[Snapshot]:
        """Our snapshots, the newest last."""
        said = self._run("cannot be read", "snapshots", "--tag", TAG, "--json")
        found = [
            Snapshot(
                str(record["short_id"]),
                _moment(record["time"]),
                str(record["hostname"]),
                str(record["paths"][0]),
            )
            for record in json.loads(said or "[]") or ()
        ]
        return sorted(found, key=lambda one: one.at)

    def choose(self, wanted: str | None = None, of: tuple[str, str] | None = None) -> Snapshot:
        """The latest snapshot, or a certain one.

        Parameters
        ----------
        wanted : str, optional
            The start of its id.
        of : tuple of (str, str), optional
            The machine and the folder that it was made of.

        Raises
        ------
        BackupError
            When there is none, or when the latest could be of several projects.
        """
        found = [one for one in self.snapshots() if of is None or (one.host, one.path) == of]
        if wanted is not None and wanted != "latest":
            found = [one for one in found if wanted.startswith(one.id) or one.id.startswith(wanted)]
        if not found:
            which = f" {wanted}" if wanted else ""
            raise BackupError(f"{self.target} has no snapshot{which} of a project")
        if wanted is None and len({(one.host, one.path) for one in found}) > 1:
            latest = {(one.host, one.path): one for one in found}
            raise BackupError(
                f"{self.target} has snapshots of {len(latest)} projects",
                hint="Name one by --snapshot: "
                + ", ".join(f"{one.id} ({one.host}:{one.path})" for one in latest.values()),
            )
        return found[-1]

    def restore(self, snapshot: str, folder: Path) -> None:
        """Write a snapshot's files into a folder; restic compares what it has written."""
        self._run("cannot be restored", "restore", snapshot, "--target", str(folder), "--verify")

    def check(self) -> None:
        """Check that the repository is whole, as far as that shows without reading all data."""
        self._run("is damaged", "check")

    # -- the program ------------------------------------------------------------------------

    def _try(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        done = self._once(*words, cwd=cwd)
        if done.returncode != 0 and "already locked" in done.stderr:
            self._once("unlock")  # only of what a killed process left behind
            done = self._once(*words, cwd=cwd)
        return done

    def _once(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words],
            cwd=cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def _run(self, failing: str, *words: str, cwd: Path | None = None) -> str:
        done = self._try(*words, cwd=cwd)
        if done.returncode != 0:
            raise self._error(failing, done)
        return done.stdout

    def _error(self, failing: str, done: subprocess.CompletedProcess[str]) -> BackupError:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        # The cause is what restic calls fatal; warnings come before it.
        fatal = [line for line in lines if line.startswith(("Fatal:", "error"))]
        said = (fatal or lines or [f"restic ended with {done.returncode}"])[0]
        return BackupError(
            f"the backups in {self.target} {failing}: {said.removeprefix('Fatal: ')}",
            details=done.stderr.strip(),
        )


def _moment(text: str) -> float:
    """A moment as Go writes it: with nanoseconds, which Python's parser may not take."""
    return datetime.fromisoformat(re.sub(r"\.\d+", "", text)).timestamp()


def _records(said: str) -> list[Mapping[str, Any]]:
    return [one for one in _values(said) if isinstance(one, dict)]


def _values(said: str) -> Sequence[Any]:
    """The lines of an output that are JSON."""
    values: list[Any] = []
    for line in said.splitlines():
        with suppress(ValueError):
            values.append(json.loads(line))
    return values
