"""Commands that run on another machine, seen from this side.

`RemoteRun.carry_on` does what is left to do, however far an earlier connection came: files that
the other side has not, the start, the log from the byte on that was seen last, the reports.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.errors import RemoteError
from research_jobs.filesystem import write_atomically
from research_jobs.project import Project
from research_jobs.remote.connection import Connection
from research_jobs.remote.detached import RUNS, folder_of, tidy
from research_jobs.remote.frames import BLOCK, new_digest
from research_jobs.remote.worktree import TreeFile, commit_of, is_pushed, read_tree
from research_jobs.units import readable_size

__all__ = ["Ended", "RemoteRun", "new_run", "refuse_other_code"]

_NEEDED = ("tree", "put", "start", "find", "follow", "fetch")


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Parameters
    ----------
    code : int
        The command's exit code.
    pages : tuple of Path
        Its reports, each one file, here.
    result : str or None
        What it printed with ``--json``.
    """

    code: int
    pages: tuple[Path, ...]
    result: str | None


@dataclass
class RemoteRun:
    """One run, and how far this side has come with it.

    Parameters
    ----------
    project : Project
        Here.
    run : str
        The id.
    shown : tuple of str
        The command, as it was typed.
    words : tuple of str or None
        The command that is to be started; None where it was.
    tree : list of TreeFile or None
        The working tree to run it in; None for the project there.
    asked : bool
        Whether the other side may have started it.
    seen : int
        Bytes of the log that were shown.
    """

    project: Project
    run: str
    shown: tuple[str, ...]
    words: tuple[str, ...] | None = None
    tree: list[TreeFile] | None = None
    asked: bool = False
    seen: int = 0
    _started: bool = field(default=False, init=False)

    @classmethod
    def of(cls, project: Project, said: Mapping[str, Any]) -> RemoteRun:
        """A run that the other side describes, from where it was seen last."""
        run = cls(project, str(said["run"]), tuple(map(str, said["words"])), asked=True)
        run._started = True
        with suppress(OSError, ValueError):
            run.seen = int((run.folder / "seen").read_text())
        return run

    @property
    def folder(self) -> Path:
        """Path: what stays of it here."""
        return folder_of(self.project, self.run)

    def carry_on(
        self, connection: Connection, out: Callable[[bytes], None], tell: Callable[[str], None]
    ) -> Ended:
        """Do what is left, up to its end.

        Parameters
        ----------
        connection : Connection
        out : callable
            Takes the log.
        tell : callable
            Takes a line about what is done.

        Raises
        ------
        RemoteError
        """
        for what in _NEEDED:
            connection.require(what)
        if not self._started:
            self._start(connection, tell)
        connection.send({"ask": "follow", "run": self.run, "offset": self.seen})

        def show(block: bytes) -> None:
            out(block)
            self.seen += len(block)

        try:
            said = connection.receive(show)
        finally:
            self.project.make_state_folder(RUNS, self.run)
            write_atomically(self.folder / "seen", str(self.seen).encode(), private=True)
        if said.get("code") is None:
            raise RemoteError(f"{connection.name} stopped to say what run {self.run} does")
        pages = [Path(str(page)).name for page in said["pages"]]
        if not all(page.endswith(".html") for page in pages):  # nor any file of ours
            raise RemoteError(f"{connection.name} names a report that is not one: {pages}")
        paths = tuple(self._fetch(connection, page) for page in pages)
        result = None
        if "--json" in self.shown:
            result = self._fetch(connection, None).read_text(encoding="utf-8")
        return Ended(int(said["code"]), paths, result)

    def _start(self, connection: Connection, tell: Callable[[str], None]) -> None:
        commit = None
        if self.tree is not None:
            commit = commit_of(self.project)[0]
            self._send(connection, self.tree, tell)
        self.asked = True
        connection.ask(
            {
                "ask": "start",
                "run": self.run,
                "words": list(self.words or ()),
                "shown": list(self.shown),
                "tree": self.tree is not None,
                "commit": commit,
            }
        )
        self._started = True
        tell(f"Run {self.run} on {connection.name}: it goes on without this machine.")

    def _send(
        self, connection: Connection, tree: Sequence[TreeFile], tell: Callable[[str], None]
    ) -> None:
        files = [asdict(file) for file in tree]
        missing = connection.ask({"ask": "tree", "run": self.run, "files": files})["missing"]
        if not missing:
            return
        by_path = {file.path: file for file in tree}
        size = sum(by_path[path].size for path in missing)
        tell(f"Sends {len(missing)} of {len(tree)} files, {readable_size(size)}.")
        connection.send({"ask": "put", "run": self.run, "paths": missing})
        for path in missing:
            try:
                with (self.project.root / by_path[path].path).open("rb") as source:
                    while block := source.read(BLOCK):
                        connection.send({"more": True}, block)
            except OSError as error:
                raise RemoteError(f"{path} cannot be read: {error.strerror}") from error
            connection.send({"more": False})
        damaged = connection.answer()["damaged"]
        if damaged:
            raise RemoteError(
                f"{damaged[0]} changed while it was sent", hint="Give the same command again."
            )

    def _fetch(self, connection: Connection, page: str | None) -> Path:
        """A file of the run; complete, or not at all."""
        connection.ask({"ask": "fetch", "run": self.run, "page": page})
        target = self.folder / (page or "result")
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as sink:
            sound = connection.receive_file(sink, new_digest())
        if not sound:
            raise RemoteError(f"{target.name} came damaged", hint="Attach again.")
        part.replace(target)
        return target


def new_run(
    project: Project, words: Sequence[str], shown: Sequence[str], *, send: bool
) -> RemoteRun:
    """A run that is still to be started.

    Parameters
    ----------
    project : Project
    words, shown : sequence of str
        As of `RemoteRun`.
    send : bool
        Whether it runs in the working tree of this machine.
    """
    tidy(project)
    # This side chooses the id, so that asking twice starts it once.
    run = secrets.token_hex(4)
    tree = read_tree(project) if send else None
    return RemoteRun(project, run, tuple(shown), tuple(words), tree)


def refuse_other_code(project: Project, connection: Connection) -> None:
    """Refuse where the project there is not at the commit of the working tree here.

    Raises
    ------
    RemoteError
        With what to do.
    """
    connection.require("commit")
    commit, edited = commit_of(project)
    if commit is None:
        raise RemoteError(
            "this project is no Git repository, so what is published could not be found again",
            hint="Run it without --publish.",
        )
    if edited:
        raise RemoteError(
            f"{edited[0]} is not committed" + (f", and {len(edited) - 1} more" * (len(edited) > 1)),
            hint="Commit and push, or run it without --publish.",
        )
    theirs = connection.ask({"ask": "commit"})
    there_at = str(theirs["commit"])[:10]
    if theirs["commit"] != commit:
        spec = connection.spec
        push = "" if is_pushed(project) else "Push it: git push. "
        raise RemoteError(
            f"{connection.name} is at commit {there_at}, and here is {commit[:10]}",
            hint=f"{push}Put it into service there: ssh {spec.ssh} {spec.command} deploy --pull "
            f"--project {spec.project} (or, without services: ssh {spec.ssh} git -C {spec.project} "
            "pull)",
        )
    if theirs["edited"]:
        raise RemoteError(
            f"{connection.name} has edits of its own: {theirs['edited'][0]}",
            hint="Commit or drop them there.",
        )
