"""Checks of the history and of the services."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import psutil

from research_jobs.errors import ResearchJobsError, innermost_line
from research_jobs.orchestration.compat.daemon import last_ticks
from research_jobs.orchestration.compat.database import connections, revisions
from research_jobs.orchestration.model.instance import has_history, open_instance, service_home
from research_jobs.orchestration.model.snapshot import Snapshot, compare
from research_jobs.orchestration.operations.backup import find_instance
from research_jobs.orchestration.operations.diagnosis import (
    Answer,
    Site,
    command,
    ill,
    unknown,
    well,
)
from research_jobs.orchestration.operations.health import probe_daemon, probe_services
from research_jobs.orchestration.operations.history import running_schedules
from research_jobs.orchestration.operations.served import served_definitions
from research_jobs.resident.services import registered
from research_jobs.supervisor.run import run_notebook
from research_jobs.upkeep.history import SqliteHistory
from research_jobs.upkeep.proof import BackupBook

__all__ = [
    "check_code",
    "check_daemon",
    "check_history",
    "check_host",
    "check_listeners",
    "check_template",
]

# What a burst of runs may need beside the services: each has two at most.
SPARE = 20


def check_history(site: Site) -> Answer:
    """Whether Dagster's history answers, has today's tables, and connections to spare."""
    if not has_history(site.project):
        return unknown("nothing has run yet")
    damaged = _damaged(site)
    if damaged is not None:
        return damaged
    try:
        with open_instance(site.project) as instance:
            runs = instance.get_runs_count()
            stale = {name for name, (has, head) in revisions(instance).items() if has != head}
            used = connections(instance)
    except Exception as error:  # noqa: BLE001 - whatever a database or its configuration says
        fix = f"Start the database, and check the connection in {_configuration(site)}."
        return ill(f"the history cannot be read: {innermost_line(error)}", fix)
    if stale:
        detail = f"the tables of {', '.join(sorted(stale))} are of another version of Dagster"
        home = service_home(site.project) or site.project.root
        migrate = ("python", "-m", "dagster", "instance", "migrate")
        return ill(detail, command("env", f"DAGSTER_HOME={home}", *migrate))
    if used is not None and used[1] - used[0] < SPARE:
        fix = f"ALTER SYSTEM SET max_connections = {2 * used[1] + SPARE}; then restart Postgres."
        return ill(f"Postgres has {used[0]} of its {used[1]} connections in use", fix)
    spare = "" if used is None else f", {used[1] - used[0]} connections are free"
    return well(f"answers; runs: {runs:,}{spare}")


def _damaged(site: Site) -> Answer | None:
    """Whether a file of a history in SQLite is damaged: Dagster may read past it for months."""
    with suppress(ResearchJobsError):
        history = find_instance(site.project).history
        for path, damage in history.damaged() if isinstance(history, SqliteHistory) else ():
            detail = f"the history is damaged: {path}: {damage}"
            mended = path.with_name(f"{path.name}.mended")
            # A dump of a damaged file takes itself back at its end.
            dump = command("sqlite3", path, ".dump")
            recover = f"{dump} | sed 's/^ROLLBACK;.*/COMMIT;/' | {command('sqlite3', mended)}"
            recover += f" && {command('sqlite3', mended, 'PRAGMA journal_mode = WAL')}"
            keep = command("mv", path, path.with_name(f"{path.name}.damaged"))
            # The journal is of the damaged file.
            journal = command("rm", "-f", f"{path}-wal", f"{path}-shm")
            if "not a database" in damage:  # of which nothing can be recovered
                fix = f"{keep} && {journal}"
            else:
                fix = f"{recover} && {keep} && {journal} && {command('mv', mended, path)}"
            made = BackupBook.read(site.project).made is not None
            spec = site.catalog.manifest.backup
            if made and spec is not None:
                restore = command("research-jobs", "restore", "--from", spec.to, "--project", "DIR")
                return ill(detail, f"{restore} into an empty folder; or stop all and run: {fix}")
            return ill(detail, fix)
    return None


def _configuration(site: Site) -> str:
    home = os.environ.get("DAGSTER_HOME")
    return str(Path(home or site.project.root) / "dagster.yaml")


def check_daemon(site: Site) -> Answer:
    """Whether the daemon beats, and makes the ticks that are due."""
    if not has_history(site.project):
        return unknown("nothing has run yet")
    dead = registered(site.project).get("daemon")
    if dead is not None and not dead.alive:
        return ill("the daemon is not running", site.restart("daemon"))
    with open_instance(site.project) as instance:
        schedules = running_schedules(instance, site.catalog)
        heard = last_ticks(instance)
        finding = probe_daemon(site.project, instance, schedules, heard, site.now)
    if finding is not None:
        return ill(finding.wrong, site.restart("daemon"))
    if dead is None and not schedules:
        return unknown("no daemon runs, and no schedule is on")
    return well(f"beats; schedules that are on: {len(schedules)}")


def check_code(site: Site) -> Answer:
    """Whether the code location loads, and what is shown is what is on disk."""
    for finding in probe_services(site.project, "code server", "webserver"):
        fix = "research-jobs check" if finding.code else site.restart(finding.service)
        return ill(finding.wrong, fix)
    if (problem := site.catalog.manifest.unreadable) is not None:
        return ill(f"the manifest cannot be read: {problem.error.headline}", "research-jobs check")
    webserver = registered(site.project).get("webserver")
    if webserver is None or webserver.address is None:
        return unknown("no webserver runs that shows the notebooks")
    served = served_definitions(webserver.address, site.catalog.names)
    now = Snapshot.of(site.catalog)
    versions = {entry.name: entry.notebook.code_version for entry in site.catalog}
    changes = compare(served, Snapshot(versions, now.schedules))
    if changes:
        detail = f"what {webserver.address} shows is not on disk any more: {changes}"
        return ill(detail, command("research-jobs", "deploy", "--url", webserver.address))
    return well(f"shown as on disk, notebooks: {len(versions)}")


def check_host(site: Site) -> Answer:
    """Whether the host answers."""
    for finding in probe_services(site.project, "host"):
        return ill(finding.wrong, site.restart("host"))
    if "host" not in registered(site.project):
        return unknown("no host runs, so each run starts fresh")
    return well("the host answers")


def check_template(site: Site) -> Answer:
    """Whether a notebook can run in a fresh process."""
    del site
    with tempfile.TemporaryDirectory() as folder:
        notebooks = Path(folder, "notebooks")
        notebooks.mkdir()
        (notebooks / "probe.py").write_text("# %%\nanswer = 6 * 7\n")
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                (answer,) = run_notebook("probe", ["answer"], project=folder, timeout=20)
        except ResearchJobsError as error:
            return ill(f"a notebook cannot run: {error.headline}", "research-jobs run NOTEBOOK")
    if answer != 42:
        return ill(f"a notebook that computes 42 gave {answer}", "research-jobs run NOTEBOOK")
    return well("a notebook runs in a fresh process")


def check_listeners(site: Site) -> Answer:
    """Whether our servers listen on addresses of this machine alone: they ask no password."""
    alive = {name: one for name, one in registered(site.project).items() if one.alive}
    for name, service in alive.items():
        for host, port in _listens(service.pid):
            # gRPC listens on IPv4 by a socket of IPv6: ::ffff:127.0.0.1.
            ip = ipaddress.ip_address(host)
            if not (getattr(ip, "ipv4_mapped", None) or ip).is_loopback:
                fix = (
                    f"Start the {name} with --host 127.0.0.1, and let a proxy with a login "
                    "pass requests to it (docs/deploy.md)."
                )
                return ill(f"the {name} listens on {host}:{port}, without a login", fix)
    if not alive:
        return unknown("no service runs")
    return well("nothing listens on a public address")


def _listens(pid: int) -> Iterator[tuple[str, int]]:
    """The addresses that a process listens on."""
    try:
        process: Any = psutil.Process(pid)
        ask = getattr(process, "net_connections", None) or process.connections
        for one in ask(kind="inet"):
            if one.status == psutil.CONN_LISTEN:
                yield one.laddr.ip, one.laddr.port
    except psutil.NoSuchProcess:
        return
