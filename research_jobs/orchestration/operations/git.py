"""What a deployment asks of Git."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from research_jobs.errors import ProjectError

__all__ = ["Repository"]


@dataclass(frozen=True)
class Repository:
    """The Git repository that a project is in.

    Parameters
    ----------
    root : Path
        Its working tree.
    """

    root: Path

    @classmethod
    def of(cls, folder: Path) -> Self | None:
        """The repository of a folder; None where there is none, or no Git.

        Raises
        ------
        ProjectError
            When Git refuses to use it, as it does where it belongs to another user.
        """
        if shutil.which("git") is None:
            return None
        try:
            return cls(Path(_git(folder, "rev-parse", "--show-toplevel")))
        except ProjectError as error:
            if "not a git repository" in error.what:
                return None
            raise

    def head(self) -> str:
        """The commit of the working tree."""
        return self._git("rev-parse", "HEAD")

    def fetch(self) -> str:
        """Fetch the upstream branch; its commit.

        Raises
        ------
        ProjectError
            When there is none, or the working tree cannot be fast-forwarded to it.
        """
        try:
            self._git("rev-parse", "--abbrev-ref", "@{upstream}")
        except ProjectError:
            raise ProjectError(
                "this branch follows no upstream branch",
                hint="Set one: git branch --set-upstream-to=origin/main",
            ) from None
        self._git("fetch", "--quiet")
        upstream = self._git("rev-parse", "@{upstream}")
        if self._git("merge-base", "HEAD", upstream) != self.head():
            raise ProjectError(
                "this branch has commits that its upstream branch lacks",
                hint="Push or drop them: a deployment only fast-forwards.",
            )
        return upstream

    def fast_forward(self, commit: str) -> None:
        """Move branch and working tree on to a commit."""
        self._git("merge", "--quiet", "--ff-only", commit)

    def move_back(self, commit: str) -> None:
        """Move branch and working tree back to a commit; local edits stay."""
        self._git("reset", "--quiet", "--keep", commit)

    def changed(self, before: str, after: str, files: Iterable[Path]) -> list[str]:
        """Which of these files differ between two commits."""
        names = map(str, files)
        return self._git("diff", "--name-only", before, after, "--", *names).splitlines()

    @contextlib.contextmanager
    def checkout(self, commit: str, notebooks: Path) -> Generator[Path]:
        """A folder that looks as the working tree will once it is at a commit.

        Local edits, and files that Git does not track, are copied from the working tree where they
        can matter to notebooks.

        Parameters
        ----------
        commit : str
        notebooks : Path
            The project's notebooks: there, what Git ignores is copied too.

        Yields
        ------
        Path
            It corresponds to `root`, and is removed afterwards.
        """
        with tempfile.TemporaryDirectory(prefix="research-jobs-deploy-") as folder:
            tree = Path(folder, "tree")
            self._git(
                "-c", "core.hooksPath=", "worktree", "add", "--quiet", "--detach", str(tree), commit
            )
            try:
                for name in self._local_files(notebooks):
                    target = tree / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(self.root / name, target)
                yield tree
            finally:
                self._git("worktree", "remove", "--force", str(tree))

    def _local_files(self, notebooks: Path) -> set[str]:
        """Edited and untracked files that a notebook, a helper or the manifest could be."""
        found = (
            self._git("diff", "--name-only", "--diff-filter=AM", "-z", "HEAD"),
            self._git("ls-files", "--others", "--exclude-standard", "-z"),
            self._git("ls-files", "--others", "-z", "--", str(notebooks)),
        )
        names = {name for names in found for name in names.split("\0")}
        return {
            name
            for name in names
            if name.endswith((".py", ".yaml", ".yml")) and (self.root / name).is_file()
        }

    def _git(self, *words: str) -> str:
        return _git(self.root, *words)


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        errors="surrogateescape",  # names of files are bytes
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # Advice follows after the line that counts.
        line = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
        command = next(word for word in words if word[0] != "-" and "=" not in word)
        raise ProjectError(f"git {command}: {line.partition(': ')[2] or line}")
    return done.stdout.strip()
