"""Checks of files: store, secrets, disks, units, alert channels, backups, what was pruned."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import yaml

from research_jobs.errors import ResearchJobsError
from research_jobs.manifest.alerts import ChannelSpec, variables_in
from research_jobs.manifest.backup import OLDEST
from research_jobs.manifest.values import parse_duration
from research_jobs.notify.kept import read_kept
from research_jobs.orchestration.compat.instance import cron_ticks
from research_jobs.orchestration.model.instance import has_history, open_instance
from research_jobs.orchestration.operations.conditions import of_disks
from research_jobs.orchestration.operations.diagnosis import (
    Answer,
    Site,
    command,
    ill,
    unknown,
    well,
)
from research_jobs.orchestration.operations.restore import compare_with_history
from research_jobs.store.backends import backend_of
from research_jobs.store.presence import find_absence, has_outputs
from research_jobs.store.staging import open_staging
from research_jobs.upkeep.proof import BackupBook, age

__all__ = [
    "check_alerts",
    "check_backup",
    "check_disk",
    "check_permissions",
    "check_prune",
    "check_store",
    "check_units",
]

DAY_S = 86_400.0
# The last backup may be so old, seconds.
MADE_S = 2 * DAY_S
_ENVIRONMENT_FILE = re.compile(r"^EnvironmentFile=-?(.+)$", re.MULTILINE)
_TEST = "research-jobs alerts --test"
_PRUNE = "research-jobs prune"


def check_store(site: Site) -> Answer:
    """Whether outputs can be staged and published: one file system, with links and locks."""
    project = site.project
    absence = find_absence(project)
    if absence is not None:
        return ill(absence.why, absence.fix)
    if (lost := _lost(site)) is not None:
        return lost
    try:
        with open_staging(project.store, "doctor") as staging:
            if not project.store_is_local:
                return well(backend_of(project.store).caveat() or f"{project.store} answers")
            return _try_store(Path(project.store), staging.path)
    except ResearchJobsError as error:
        folder = Path(project.store)
        while not folder.exists() and folder != folder.parent:
            folder = folder.parent
        fix = "Check the address and its credentials."
        if project.store_is_local:
            fix = command("chmod", "u+rwx", folder)
            if os.access(folder, os.W_OK):
                fix = error.hint or "Make its file system writable."
        return ill(error.headline, fix)


def _lost(site: Site) -> Answer | None:
    """Whether a local store has nothing, and the history knows of outputs in it."""
    project = site.project
    with suppress(OSError):  # a file in its place: the next check says so
        if project.store_is_local and not has_outputs(project.store) and has_history(project):
            with open_instance(project) as instance:
                lost, _ = compare_with_history(instance, site.catalog)
            if lost:
                detail = f"{project.store} has nothing of what the history knows: {lost[0]}"
                fix = "Mount its disk, restore a backup, or make it again: research-jobs run --all"
                return ill(f"{detail}{', ...' if lost[1:] else ''}", fix)
    return None


def _try_store(store: Path, staged: Path) -> Answer:
    if store.stat().st_dev != staged.stat().st_dev:
        detail = f"{staged.parent} is on another file system than {store}"
        return ill(detail, f"Remove the mount or link {staged.parent}.")
    elsewhere = "Move the store to a local file system: RESEARCH_JOBS_STORE=/path in .env."
    file, link = staged / "file", staged / "link"
    try:
        file.write_bytes(b"doctor")
        link.symlink_to(file.name)
        replaced = staged / "link.new"
        replaced.symlink_to("file")
        replaced.replace(link)
        if link.read_bytes() != b"doctor":
            return ill(f"{store} does not keep symbolic links", elsewhere)
    except OSError as error:
        return ill(f"{store} does not keep symbolic links: {error.strerror}", elsewhere)
    try:
        with file.open("rb") as one, file.open("rb") as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return well(f"{store} keeps links and locks")
    except OSError as error:
        return ill(f"{store} does not keep locks: {error.strerror}", elsewhere)
    return ill(f"{store} does not keep locks", elsewhere)


def check_permissions(site: Site) -> Answer:
    """Whether what may hold a secret is for this user and group alone."""
    opened = [path for path in _private(site) if path.stat().st_mode & (stat.S_IRWXO)]
    if opened:
        shown = ", ".join(site.project.display(path) for path in opened)
        return ill(f"everybody on this machine can read {shown}", command("chmod", "o=", *opened))
    return well("no secret is readable by others")


def _private(site: Site) -> Iterator[Path]:
    """What others must not read, as far as it exists."""
    project = site.project
    paths = [project.root / ".env", project.state]
    for unit in site.installed_units:
        paths += [Path(name.strip()) for name in _ENVIRONMENT_FILE.findall(_text(unit))]
    home = Path(os.environ.get("DAGSTER_HOME") or project.root)
    if _has_password(home / "dagster.yaml"):
        paths.append(home / "dagster.yaml")
    yield from (path for path in dict.fromkeys(paths) if path.exists())


def _has_password(file: Path) -> bool:
    """Whether a dagster.yaml spells a password out, or an address that may contain one."""
    try:
        said = yaml.safe_load(file.read_text("utf-8"))["storage"]["postgres"]["postgres_db"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return False
    return any(isinstance(said.get(name), str) for name in ("password", "postgres_url"))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def check_disk(site: Site) -> Answer:
    """Whether the project's file systems have room, for bytes and for files."""
    full = [*of_disks(site.project, site.now)]
    if full:
        detail = "; ".join(f"{one.subject}: {one.reason}" for one in full)
        folder = full[0].subject.removeprefix("the disk of ")
        return ill(detail, f"Delete what is not needed: du -xh {folder} | sort -h | tail")
    return well("there is room for data and files")


def check_units(site: Site) -> Answer:
    """Whether the units that systemd has are those of this version."""
    shipped = site.project.root / "deploy"
    units = sorted(
        path for path in shipped.glob("research-jobs-*") if path.suffix in (".service", ".timer")
    )
    if not site.installed_units:
        return unknown(f"no units are installed in {site.units}")
    if not units:
        return unknown(f"the project has no units in {shipped} to compare with")
    drop_in = site.units / "research-jobs-.service.d"
    pairs = [(unit, site.units) for unit in units]
    pairs += [(shipped / "hardening.conf", drop_in)]
    other = [
        (source, folder)
        for source, folder in pairs
        if source.is_file() and _text(source) != _text(folder / source.name)
    ]
    if other:
        names = ", ".join(source.name for source, _ in other)
        installs = [
            command("install", "-D", "-m", "0644", "-t", folder, source) for source, folder in other
        ]
        return ill(f"not as shipped: {names}", " && ".join([*installs, "systemctl daemon-reload"]))
    return well(f"{len(units)} units are as shipped")


def check_alerts(site: Site) -> Answer:
    """Whether each channel has what it needs, and its last delivery succeeded."""
    manifest = site.catalog.manifest
    for problem in manifest.problems:
        if problem.scope == "channel":
            fix = problem.error.hint or "research-jobs check"
            return ill(f"{problem.name or 'alerts'}: {problem.error.headline}", fix)
    unset = sorted({name for spec in manifest.alerts.values() for name in _unset(spec)})
    if manifest.heartbeat is not None:
        unset += [name for name in variables_in(manifest.heartbeat.url) if not os.getenv(name)]
    if unset:
        lines = " and ".join(f"{name}=..." for name in dict.fromkeys(unset))
        detail = f"not set: {', '.join(dict.fromkeys(unset))}"
        return ill(detail, f"Write {lines} in .env, then: {_TEST}")
    if not manifest.alerts:
        fix = "Write alerts: {ops: {email: ops@example.com}} in the manifest."
        return unknown("the manifest has no channel, so nobody is told", fix)
    for name, trouble in read_kept(site.project).outbox.troubles.items():
        if name in manifest.alerts:
            return ill(f"{name} does not deliver: {trouble.answer}", _TEST)
    return well(f"configured: {', '.join(manifest.alerts)}")


def _unset(spec: ChannelSpec) -> Iterator[str]:
    for name in variables_in(spec.model_dump()):
        if not os.environ.get(name):
            yield name


def check_backup(site: Site) -> Answer:
    """Whether the last backup, and the last one that was proven, are recent."""
    spec, book = site.catalog.manifest.backup, BackupBook.read(site.project)
    target = () if spec is not None else ("--to", "TARGET")
    make = command("research-jobs", "backup", *target)
    prove = f"{make} --verify"
    for what, (_, why) in book.failing.items():
        return ill(f"its {what} fails: {why}", prove if what == "proof" else make)
    if spec is None and book.made is None:
        return unknown("no backup is on record", make)
    said = book.describe(site.now)
    if book.made is None or site.now - book.made > MADE_S:
        return ill(said, make)
    oldest = parse_duration(OLDEST) if spec is None else spec.verify
    if book.proven is None or site.now - book.proven > oldest:
        return ill(said, prove)
    return well(said)


def check_prune(site: Site) -> Answer:
    """Whether the nightly job has removed what nobody reads any more, all of it, and lately."""
    try:
        said = json.loads((site.project.state / "prune.json").read_bytes())
        at = float(said["at"])
        wrong = [f"{one['kind']}: {one['error']}" for one in said["parts"] if one["error"]]
    except (OSError, ValueError, TypeError, KeyError):
        return unknown("nothing was pruned yet", _PRUNE)
    if wrong:
        return ill(f"what could not be pruned: {'; '.join(wrong)}", _PRUNE)
    spec, zone = site.catalog.manifest.retention, site.catalog.manifest.defaults.timezone
    last = f"pruned {age(site.now - at)} ago"
    if spec.enabled and site.now - next(cron_ticks([spec.cron], zone, at)).timestamp() > DAY_S:
        return ill(f"{last}, although the job is due by {spec.cron}", _PRUNE)
    return well(last)
