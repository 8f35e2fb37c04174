"""The files of a working tree: which there are here, and the same tree laid out on the far side.

Files are known by the digest of their bytes, so only those that the far side has not are sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from research_jobs.errors import RemoteError
from research_jobs.filesystem import write_atomically
from research_jobs.project import Project
from research_jobs.remote.frames import BLOCK, new_digest

__all__ = [
    "EARLIER",
    "TREE",
    "TreeFile",
    "commit_of",
    "files_of",
    "is_pushed",
    "lay_out",
    "link_the_rest",
    "put_file",
    "read_tree",
]

TREE = "tree"
FILES = "files.json"

OWN = (".git", ".venv", ".research_jobs", ".env", "reports", "data")
"""What a project has of its own on each machine."""

_CACHES = {"__pycache__", ".ipynb_checkpoints", "node_modules"}
EARLIER = 5
"""Trees that are looked through for a file."""


@dataclass(frozen=True)
class TreeFile:
    """One file of a tree.

    Parameters
    ----------
    path : str
        Below the project, with slashes.
    digest : str
        Of its bytes; empty for a link to a folder.
    size : int
    runs : bool
        Whether it is executable.
    link : str
        Where a link to a folder leads.
    """

    path: str
    digest: str
    size: int = 0
    runs: bool = False
    link: str = ""

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or parts[0] in OWN or ".." in parts:
            raise RemoteError(f"'{self.path}' is no file of a working tree")


# -- here ------------------------------------------------------------------------------------


def read_tree(project: Project) -> list[TreeFile]:
    """The working tree as it is: what Git does not ignore, or without Git all that is not hidden.

    Parameters
    ----------
    project : Project

    Raises
    ------
    RemoteError
        When a file cannot be read.
    """
    root = project.root
    own = {root / name for name in OWN} | {Path(project.store)}
    found: dict[str, TreeFile] = {}
    for path in _listed(root):
        below = path.relative_to(root)
        if own.isdisjoint((path, *path.parents)) and _CACHES.isdisjoint(below.parts):
            file = _described(root, path, below.as_posix())
            if file is not None:
                found[file.path] = file
    return list(found.values())


def _described(root: Path, path: Path, name: str) -> TreeFile | None:
    """A file, or a link to a folder of the project; None for what cannot be sent."""
    if path.is_dir():
        target = os.readlink(path)  # noqa: PTH115 - as it is written
        inside = target[0] != "/" and path.resolve().is_relative_to(root.resolve())
        return TreeFile(name, "", link=target) if inside else None
    if not path.is_file():
        return None  # a pipe, or removed without telling Git
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, new_digest).hexdigest()
            status = os.fstat(file.fileno())
    except OSError as error:
        raise RemoteError(f"{path} cannot be read: {error.strerror}") from error
    return TreeFile(name, digest, status.st_size, bool(status.st_mode & 0o100))


def _listed(folder: Path) -> Iterator[Path]:
    """Files, and links to folders."""
    words = ("ls-files", "--cached", "--others", "--exclude-standard", "-z")
    said = _git(folder, *words)
    if said is None:
        for place, folders, names in os.walk(folder):
            inside = Path(place)
            links = [name for name in folders if (inside / name).is_symlink()]
            folders[:] = [n for n in folders if n[0] != "." and n not in {*_CACHES, *links}]
            yield from (inside / name for name in (*names, *links) if name[0] != ".")
        return
    for name in dict.fromkeys(filter(None, said.split("\0"))):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            if (path / ".git").exists():  # else a submodule that was not checked out
                yield from _listed(path)
        else:
            yield path


def _git(folder: Path, *words: str) -> str | None:
    """What Git says; None where there is no Git, or no repository."""
    try:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None


def commit_of(project: Project) -> tuple[str | None, list[str]]:
    """The commit of a project's working tree, and the files that differ from it.

    Returns
    -------
    commit : str or None
        None where there is no repository.
    edited : list of str
        Without what each machine has of its own, whether or not Git ignores it.
    """
    commit = _git(project.root, "rev-parse", "HEAD")
    left_out = [f":(exclude){name}" for name in OWN] + [
        f":(exclude,glob)**/{name}/**" for name in _CACHES
    ]
    words = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    said = _git(project.root, *words, "--", ".", *left_out) or ""
    edited = [line[3:] for line in said.split("\0") if line]
    return (commit.strip() if commit else None), edited


def is_pushed(project: Project) -> bool:
    """Whether a branch of another repository has the commit of the working tree."""
    return bool(_git(project.root, "branch", "--remotes", "--contains", "HEAD"))


# -- there -----------------------------------------------------------------------------------


def lay_out(
    project: Project, folder: Path, files: Sequence[TreeFile], others: Iterable[Path]
) -> list[str]:
    """Make a tree of what is here already.

    Parameters
    ----------
    project : Project
    folder : Path
        Of the run.
    files : sequence of TreeFile
    others : iterable of Path
        Folders of earlier runs, the newest first.

    Returns
    -------
    list of str
        The paths of files that are not here.
    """
    write_atomically(folder / FILES, json.dumps([asdict(file) for file in files]).encode())
    tree = folder / TREE
    places = [tree, project.root, *(earlier / TREE for earlier in islice(others, EARLIER))]
    missing: list[str] = []
    for file in sorted(files, key=lambda file: bool(file.link)):  # nothing is behind a link
        if file.link:
            target = _place(tree, file)
            target.unlink(missing_ok=True)
            target.symlink_to(file.link)
        elif not any(_copied(place / file.path, tree, file) for place in places):
            missing.append(file.path)
    return missing


def _copied(source: Path, tree: Path, file: TreeFile) -> bool:
    """Whether a file is the one that is wanted; it is in the tree then."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        if source.is_file() and source.stat().st_size == file.size:
            with source.open("rb") as stream:
                return put_file(tree, file, iter(lambda: stream.read(BLOCK), b""))
    return False


def put_file(tree: Path, file: TreeFile, blocks: Iterable[bytes]) -> bool:
    """Write a file; False, and there is none, where its bytes are not those that it should have."""
    target = _place(tree, file)
    part = tree.with_name("part")  # any name in the tree may be a file's
    digest = new_digest()
    with part.open("wb") as sink:
        for block in blocks:
            digest.update(block)
            sink.write(block)
    if digest.hexdigest() != file.digest:
        part.unlink()
        return False
    part.chmod(0o700 if file.runs else 0o600)
    part.replace(target)
    return True


def _place(tree: Path, file: TreeFile) -> Path:
    """Where a file of a tree is; its folder is made."""
    target = tree / file.path
    if not target.parent.resolve().is_relative_to(tree.resolve()):
        raise RemoteError(f"'{file.path}' is behind a link that leads out of the tree")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def link_the_rest(project: Project, folder: Path, commit: str | None) -> None:
    """Links to what only this machine has: its reports, its ``.env``, and what Git ignores here.

    Parameters
    ----------
    project : Project
    folder : Path
        Of the run.
    commit : str or None
        Which the tree was changed from.
    """
    tree = folder / TREE
    ours = Project(tree, project.store)
    ours.make_state_folder()
    _link(ours.environments, project.environments)
    words = ("ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z")
    said = _git(project.root, *words)
    names = said.split("\0") if said is not None else [p.name for p in project.root.iterdir()]
    left_out = {*OWN, *_CACHES} - {".env", "reports"}
    for name in (".env", "reports", *names):
        parts = PurePosixPath(name).parts
        if parts and left_out.isdisjoint(parts) and not name.endswith(".pyc"):
            _link(tree / name, project.root / name)
    if commit is not None:
        (tree / ".git").mkdir(exist_ok=True)
        (tree / ".git" / "HEAD").write_text(f"{commit}\n")


def _link(link: Path, target: Path) -> None:
    if target.exists() and not os.path.lexists(link):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)


def files_of(folder: Path) -> Mapping[str, TreeFile]:
    """The files that a tree is to have."""
    said = json.loads((folder / FILES).read_bytes())
    return {file["path"]: TreeFile(**file) for file in said}
