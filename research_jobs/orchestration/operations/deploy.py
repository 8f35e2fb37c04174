"""Put new code into service on a server, without interrupting what runs.

First everything is checked, then changed: what would take down notebooks is refused while nothing
has moved. A step that fails after that is undone, as far as this command has done it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import research_jobs
from research_jobs.errors import ProjectError, ResearchJobsError
from research_jobs.filesystem import write_atomically
from research_jobs.orchestration.model.catalog import Catalog, load_catalog
from research_jobs.orchestration.model.instance import enter_project, open_instance
from research_jobs.orchestration.model.names import AssetNames
from research_jobs.orchestration.model.snapshot import Changes, Snapshot, compare
from research_jobs.orchestration.operations.deploy_tree import Tree, read_tree
from research_jobs.orchestration.operations.git import Repository
from research_jobs.orchestration.operations.history import read_statuses
from research_jobs.orchestration.operations.served import reload_definitions, served_definitions
from research_jobs.project import Project
from research_jobs.resident.client import NoHostError, ask, connect

__all__ = ["Deployment", "Refusal", "deploy"]

# How long the webserver may take to show new definitions, and the host to load them: seconds.
SERVED_S = 20.0
HOST_S = 120.0
# What says which packages there must be.
_PACKAGES = ("requirements.txt", "pyproject.toml", "constraints.txt")

Result: TypeAlias = Literal["deployed", "nothing new", "refused", "would deploy"]


@dataclass(frozen=True)
class Refusal:
    """One reason not to deploy.

    Parameters
    ----------
    name : str
        The notebook, schedule or file.
    reason : str
        What is wrong with it, in one line.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Deployment:
    """What became of a deployment.

    Parameters
    ----------
    result : {"deployed", "nothing new", "refused", "would deploy"}
    before, after : str or None
        Commits of the working tree; None without Git.
    changes : Changes
        Since the last deployment.
    refusals : tuple of Refusal
        What would be taken down, whether or not that was to be accepted.
    notes : tuple of str
        What else a person should know.
    """

    result: Result
    before: str | None
    after: str | None
    changes: Changes
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Record(Snapshot):
    """What the last deployment put into service."""

    package: str = ""


def deploy(
    project: Project,
    url: str,
    *,
    pull: bool = False,
    anyway: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Deployment:
    """Put the working tree, or the upstream branch, into service.

    Parameters
    ----------
    project : Project
    url : str
        Where Dagster's webserver listens.
    pull : bool
        Whether the working tree is fast-forwarded to its upstream branch.
    anyway : bool
        Whether notebooks may be taken down.
    dry_run : bool
        Whether to stop after the checks.
    say : callable
        Takes a line about each step.

    Returns
    -------
    Deployment

    Raises
    ------
    ResearchJobsError
        When a step fails. The message says what was restored.
    """
    # The host is found by what it was started with, without the project's .env.
    environment = dict(os.environ)
    enter_project(project)
    with _only_one(project):
        steps = _Steps(project, url, environment, say)
        plan = steps.plan(pull=pull)
        if plan.refusals and not anyway:
            return replace(plan, result="refused")
        if dry_run or plan.result == "nothing new":
            return plan
        return steps.carry_out(plan)


class _Steps:
    """One deployment: what was found out about it, and what it has done so far."""

    def __init__(
        self,
        project: Project,
        url: str,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self._project = project
        self._url = url
        self._environment = environment
        self._say = say
        self._repository = Repository.of(project.root)
        self._record = _read_record(project)
        self._notes: list[str] = []

    # -- before anything changes ----------------------------------------------------------

    def plan(self, *, pull: bool) -> Deployment:
        """Find out what changes, and what speaks against it."""
        catalog = load_catalog(self._project)
        served = served_definitions(self._url, catalog.names)
        head = self._repository.head() if self._repository else None
        new = self._fetch() if pull else head
        self._say(f"Checking {new[:10]}…" if new else "Checking…")
        self._tree = self._look(new if new != head else None)
        tree, record = self._tree, self._record
        # Only a digest of ours tells every change; Dagster shows names, versions and times.
        changes = (
            compare(record, tree)
            if record
            else compare(served, Snapshot(tree.versions, tree.schedules))
        )
        is_new = (
            record is None
            or new != head
            or bool(changes)
            or record.package != _package_digest()
            or not tree.is_served(served)
        )
        return Deployment(
            "would deploy" if is_new else "nothing new",
            before=head,
            after=new,
            changes=changes,
            refusals=tuple(self._refusals(catalog, served)),
        )

    def _fetch(self) -> str:
        if self._repository is None:
            raise ProjectError("--pull needs a Git repository", hint="There is none here.")
        self._say("Fetching…")
        return self._repository.fetch()

    def _look(self, commit: str | None) -> Tree:
        """What a commit, or the working tree, would be served as."""
        root, repository = self._project.root, self._repository
        if commit is None or repository is None:
            return read_tree(root)
        with repository.checkout(commit, self._project.notebooks) as folder:
            return read_tree(root, repository=repository.root, tree=folder)

    def _refusals(self, catalog: Catalog, served: Snapshot) -> Iterator[Refusal]:
        """What ran before, and would not any more."""
        tree = self._tree
        if tree.unreadable is not None:
            yield Refusal(self._project.display(self._project.manifest), tree.unreadable)
            return
        known = [catalog.entries[name] for name in tree.errors if name in catalog.entries]
        with open_instance(self._project) as instance:
            statuses = read_statuses(instance, catalog, known)
        for name, reason in tree.errors.items():
            if name in statuses and statuses[name].last.state.ok:
                yield Refusal(name, reason)
        for name, reason in tree.broken_schedules.items():
            if name in served.schedules:
                yield Refusal(name, reason)

    # -- and then -------------------------------------------------------------------------

    def carry_out(self, plan: Deployment) -> Deployment:
        """Move, reload, wait; move back if one of these fails."""
        moved = self._move(plan)
        try:
            self._renew_host()
            self._reload(plan.changes.removed)
        except BaseException as error:
            restored = self._restore(moved)
            if not isinstance(error, ResearchJobsError | OSError):
                raise
            raise ProjectError(_line(error), hint=restored) from error
        package = _package_digest()
        if self._record is not None and self._record.package != package:
            self._notes.append(
                "research_jobs itself has changed: restart research-jobs-webserver, "
                "research-jobs-daemon and research-jobs-watch"
            )
        tree = self._tree
        _write_record(self._project, _Record(tree.notebooks, tree.schedules, tree.others, package))
        return replace(plan, result="deployed", notes=tuple(self._notes))

    def _move(self, plan: Deployment) -> str | None:
        """Move the working tree; the commit that it was at, if it moved."""
        repository, before, after = self._repository, plan.before, plan.after
        if repository is None or before is None or after is None or before == after:
            return None
        for name in repository.changed(
            before, after, [self._project.root / one for one in _PACKAGES]
        ):
            self._notes.append(f"{name} has changed, and packages with it: nothing was installed")
        repository.fast_forward(after)
        return before

    def _renew_host(self) -> None:
        """Have the host load the new code now, rather than before its next run.

        It does so before it answers any request.
        """
        try:
            connection = connect(self._project, environment=self._environment)
        except NoHostError as error:
            self._notes.append(str(error))
            return
        with connection:
            connection.settimeout(HOST_S)
            ask(connection, "Status")

    def _reload(self, removed: Sequence[str]) -> None:
        self._say("Reloading…")
        reload_definitions(self._url)
        names = AssetNames(self._tree.prefix)
        deadline = time.monotonic() + SERVED_S
        while not self._tree.is_served(served_definitions(self._url, names), without=removed):
            if time.monotonic() > deadline:
                raise ProjectError(
                    f"Dagster's UI at {self._url} serves other notebooks than these",
                    hint="Does its code server read this folder?",
                )
            time.sleep(0.5)

    def _restore(self, moved: str | None) -> str:
        """Move back, and have that served; what was restored."""
        if moved is None or self._repository is None:
            return "The working tree is as it was."
        try:
            self._repository.move_back(moved)
            reload_definitions(self._url)
        except (ResearchJobsError, OSError) as error:
            return f"It could not all be undone: {_line(error)}."
        return f"The working tree is back at {moved[:10]}, and served as before."


def _line(error: ResearchJobsError | OSError) -> str:
    return error.headline if isinstance(error, ResearchJobsError) else str(error)


@contextlib.contextmanager
def _only_one(project: Project) -> Generator[None]:
    """Keep a second deployment out."""
    lock = project.make_state_folder() / "deploy.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ProjectError("another deployment is under way", hint="Wait for its end.") from None
    finally:
        os.close(descriptor)


def _package_digest() -> str:
    """Changes with the code of this package on disk, which long-lived processes have in memory."""
    digest = hashlib.sha256()
    for path in sorted(Path(research_jobs.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _read_record(project: Project) -> _Record | None:
    try:
        return _Record(**json.loads((project.state / "deploy.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None  # none yet, or one of another version


def _write_record(project: Project, record: _Record) -> None:
    text = json.dumps(asdict(record), indent=1)
    write_atomically(project.state / "deploy.json", text.encode(), private=True)
