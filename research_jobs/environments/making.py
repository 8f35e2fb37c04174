"""Environments on the disk: each is made once, used by all notebooks with its lock, and removed.

``.research_jobs/environments/`` holds a folder for each, named by a digest of names, versions and
interpreter, and ``resolved/``: the versions of what has no lock. An environment cannot be moved, so
it is made in place, under a lock, and counts once it has its mark.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from research_jobs.environments.declared import Environment
from research_jobs.environments.installer import Cancel, Installer
from research_jobs.environments.interpreters import Base, find_base
from research_jobs.environments.versions import Lock, read_lock
from research_jobs.errors import InstallError, ResearchJobsError
from research_jobs.filesystem import folder_bytes, make_folder, write_atomically
from research_jobs.project import Project
from research_jobs.store.files import FolderLock

__all__ = [
    "environment_files",
    "existing_python",
    "known_versions",
    "prepare",
    "prune_environments",
    "resolve",
]

MARK, USED = ".complete", ".used"
RESOLVED = "resolved"
UNUSED_S = 30 * 86_400.0
"""How long an environment stays that no notebook asks for."""
_LOOK_S = 0.2


def prepare(environment: Environment, installer: Installer) -> str:
    """The interpreter of a notebook's environment, which is made if it is not there.

    Parameters
    ----------
    environment : Environment
    installer : Installer

    Raises
    ------
    InstallError
        In the installer's words.
    """
    lock = environment.lock
    base = _base(environment)
    if lock is None:
        lock = _remembered(environment, base) or _resolve_once(environment, base, installer)
    folder = _folder(environment.project, lock, base)
    if not (folder / MARK).exists():
        _make(environment.notebook, folder, lock, base, installer)
    with suppress(OSError):
        (folder / USED).touch()
    return _python(folder)


def resolve(environment: Environment, installer: Installer) -> Lock:
    """The newest versions of what a notebook asks for.

    Raises
    ------
    InstallError
    """
    base = find_base(environment.requires_python, named=environment.python)
    return _resolve(environment, base, installer)


def existing_python(environment: Environment) -> str | None:
    """The interpreter of an environment that has been made; None where it has not."""
    with suppress(InstallError):
        folder = _known_folder(environment)
        if folder is not None and (folder / MARK).exists():
            return _python(folder)
    return None


def known_versions(environment: Environment) -> dict[str, str] | None:
    """Distribution to version, as far as they are decided: by its lock, or by its first run."""
    lock = environment.lock
    if lock is None:
        with suppress(InstallError):
            lock = _remembered(environment, _base(environment))
    return lock.versions if lock is not None else None


def environment_files(environment: Environment) -> Iterator[Path]:
    """Files that decide which interpreter runs a notebook; they may not exist yet."""
    yield environment.lock_path
    with suppress(InstallError):
        if environment.lock is None:
            yield _memory(environment, _base(environment))
        folder = _known_folder(environment)
        if folder is not None:
            yield folder / MARK


def prune_environments(
    project: Project, used: Iterable[Environment], now: float, *, dry_run: bool = False
) -> list[tuple[Path, int]]:
    """Remove environments that no notebook asks for, a month after their last run.

    Parameters
    ----------
    project : Project
    used : iterable of Environment
        Of all notebooks.
    now : float
        Unix time, seconds.
    dry_run : bool
        Only say which.

    Returns
    -------
    list of (Path, int)
        What goes, and how many bytes that are.
    """
    top = project.environments
    kept: set[Path] = set()
    for environment in used:
        with suppress(InstallError):
            if environment.lock is None:
                kept.add(_memory(environment, _base(environment)).parent)
            folder = _known_folder(environment)
            kept |= {folder} if folder is not None else set()
    found: list[tuple[Path, int]] = []
    for folder in (*top.glob("*"), *top.glob(f"{RESOLVED}/*")):
        if folder in kept or folder.name == RESOLVED or not folder.is_dir():
            continue
        if now - _last_use(folder) < UNUSED_S:
            continue
        with suppress(FileNotFoundError), FolderLock(folder) as lock:
            if lock.exclusive(wait=False):
                found.append((folder, folder_bytes(folder)))
                if not dry_run:
                    (folder / MARK).unlink(missing_ok=True)
                    shutil.rmtree(folder, ignore_errors=True)
    return found


# -- which one -------------------------------------------------------------------------------


def _base(environment: Environment) -> Base:
    lock = environment.lock
    return find_base(
        environment.requires_python,
        named=environment.python,
        locked=lock.python if lock is not None else None,
    )


def _folder(project: Project, lock: Lock, base: Base) -> Path:
    return project.environments / _digest([lock.pins, base.identity])


def _known_folder(environment: Environment) -> Path | None:
    base = _base(environment)
    lock = environment.lock or _remembered(environment, base)
    return _folder(environment.project, lock, base) if lock is not None else None


def _python(folder: Path) -> str:
    return str(folder / "bin" / "python")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _last_use(folder: Path) -> float:
    try:
        return max(path.stat().st_mtime for path in (folder, folder / USED) if path.exists())
    except (OSError, ValueError):
        return time.time()


# -- without a lock --------------------------------------------------------------------------


def _memory(environment: Environment, base: Base) -> Path:
    """Where the first run of what has no lock leaves what it has resolved."""
    asked = [sorted(environment.wanted), environment.requires_python, base.identity]
    return environment.project.environments / RESOLVED / _digest(asked) / "versions.txt"


def _remembered(environment: Environment, base: Base) -> Lock | None:
    with suppress(ResearchJobsError):
        return read_lock(_memory(environment, base), "versions.txt")
    return None


def _resolve_once(environment: Environment, base: Base, installer: Installer) -> Lock:
    place = _memory(environment, base)
    with _held(place.parent, installer.cancel):
        lock = _remembered(environment, base)
        if lock is None:
            shown = environment.project.display(environment.lock_path)
            installer.say(
                f"{environment.notebook} has no lock, so its dependencies are resolved now; "
                f"`research-jobs lock {environment.notebook}` keeps the versions in {shown}"
            )
            lock = _resolve(environment, base, installer)
            write_atomically(place, lock.dump(environment.notebook).encode(), private=True)
    return lock


def _resolve(environment: Environment, base: Base, installer: Installer) -> Lock:
    with _named(f"the dependencies of {environment.notebook} cannot be resolved"):
        pins = installer.resolve(environment.wanted, base)
    return Lock(pins, environment.dependencies, environment.requires_python, base.minor)


# -- making it -------------------------------------------------------------------------------


def _make(notebook: str, folder: Path, lock: Lock, base: Base, installer: Installer) -> None:
    with _held(folder, installer.cancel) as held:
        if (folder / MARK).exists():
            return
        _empty(folder)
        count = len(lock.pins)
        what = f"{count} package" + ("" if count == 1 else "s")
        installer.say(f"making the environment of {notebook}: Python {base.version}, {what}")
        began = time.monotonic()
        try:
            with _named(f"the environment of {notebook} cannot be made"):
                installer.install(folder, lock.pins, base, held)
        except BaseException:
            _empty(folder)
            raise
        write_atomically(folder / MARK, lock.dump(notebook).encode())
        installer.say(f"made in {time.monotonic() - began:.1f} s: {folder}")


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextmanager
def _named(what: str) -> Generator[None]:
    """Say what an installer's error is about."""
    try:
        yield
    except InstallError as error:
        raise InstallError(
            f"{what}: {error.what}", hint=error.hint, details=error.details
        ) from error


@contextmanager
def _held(folder: Path, cancel: Cancel | None) -> Generator[int]:
    """A folder, locked; the descriptor of its lock."""
    while True:
        make_folder(folder, private=True)
        try:
            lock = FolderLock(folder)
        except FileNotFoundError:  # removed as unused just now
            continue
        with lock:
            while not lock.exclusive(wait=False):
                if cancel is not None and cancel.is_cancelled:
                    raise InstallError("cancelled while another run made its environment")
                time.sleep(_LOOK_S)
            if lock.same_folder():
                yield lock.descriptor
                return
