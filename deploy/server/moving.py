"""`deploy/upgrade` and `deploy/rollback`: from one commit to another, with its packages and units.

The commit that works is noted before anything moves and until everything works. So whatever
interrupts a command, the next one knows where it came from.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from server import environment
from server.files import file_steps
from server.host import HOME, PROJECT, CommandError, Host, ProblemError, say
from server.services import broken, start, to_start, wait_for_ui
from server.steps import carry_out

__all__ = ["rollback", "upgrade"]

STALE = """
import dagster
from research_jobs.orchestration.compat.database import revisions
with dagster.DagsterInstance.get() as instance:
    print(any(has != head for has, head in revisions(instance).values()))
"""


def upgrade(words: list[str]) -> int:
    """Move on to the upstream branch; back again if something does not work then."""
    parser = argparse.ArgumentParser(
        prog="deploy/upgrade",
        description="Fetch the upstream branch and put it into service: packages, units, tables of "
        "the history, notebooks. If that fails, everything is as before. Safe to run again.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only check and say what is new")
    parser.add_argument(
        "--anyway", action="store_true", help="even if notebooks that ran before cannot run"
    )
    arguments = parser.parse_args(words)
    host = _host()
    with host.alone():
        before = host.book.leaving or host.git("rev-parse", "HEAD")
        target = _checked(host, anyway=arguments.anyway)
        say(f"{before[:10]} -> {target[:10]}")
        _show_news(host, before, target)
        if arguments.dry_run:
            return 0
        if before == target and host.book.leaving is None and not to_start():
            say("Nothing new.")
            return 0
        known = frozenset(broken(host, wait=False))
        host.book.leaving = before
        host.remember()
        try:
            _switch(host, target, "--anyway" if arguments.anyway else "")
            _expect_health(host, known)
        except ProblemError as error:
            say(f"FAILED  {error}\nRolling back to {before[:10]}")
            _switch(host, before, "--anyway")
            _arrived(host, host.book.previous)
            say(f"Rolled back: {before[:10]} is in service, as before.")
            return 1
        _arrived(host, before if before != target else host.book.previous)
    say(f"Upgraded: {target[:10]} is in service. To go back: deploy/rollback")
    return 0


def rollback(words: list[str]) -> int:
    """Move back to where the last upgrade started."""
    parser = argparse.ArgumentParser(
        prog="deploy/rollback",
        description="Put the commit before the last upgrade into service again, with the packages "
        "and units that it had. Also ends an upgrade that was interrupted. Safe to run again.",
    )
    parser.parse_args(words)
    host = _host()
    with host.alone():
        target = host.book.leaving or host.book.previous
        if target is None:
            raise ProblemError("there is no upgrade to roll back")
        say(f"{host.git('rev-parse', 'HEAD')[:10]} -> {target[:10]}")
        host.book.leaving = target
        host.remember()
        environment.build(host, target)
        _switch(host, target, "--anyway")
        _arrived(host, None)
        wrong = broken(host)
    for check, detail in wrong.items():
        say(f"WRONG   {check}: {detail}")
    say(f"Rolled back: {target[:10]} is in service. The next deploy/upgrade moves on again.")
    return 0


def _host() -> Host:
    if os.geteuid() != 0:
        raise ProblemError("only root can do this: it installs units and starts services")
    host = Host()
    if not host.book.options:
        raise ProblemError("this server was not made by deploy/install")
    return host


def _checked(host: Host, *, anyway: bool) -> str:
    """The upstream commit, with its environment made and its notebooks checked in it."""
    while True:
        host.git("fetch", "--quiet")
        target = host.git("rev-parse", "@{upstream}")
        folder = environment.build(host, target)
        words = ("deploy", "--pull", "--dry-run", "--json")
        try:
            answer = json.loads(host.tool("research-jobs", *words, environment=folder))
        except CommandError as error:
            if error.code != 1 or not error.output:
                raise
            answer = json.loads(error.output)
        if answer["result"] == "refused" and not anyway:
            lines = [f"{one['name']}: {one['reason']}" for one in answer["refusals"]]
            raise ProblemError(
                "\n  ".join(
                    ["refused, nothing was changed", *lines, "Mend these, or add --anyway."]
                )
            )
        if answer["after"] == target:  # else somebody pushed meanwhile
            return target


def _show_news(host: Host, before: str, target: str) -> None:
    for line in host.git("log", "--oneline", "--no-decorate", f"{before}..{target}").splitlines():
        say(f"        {line}")
    units = host.git("diff", "--stat", before, target, "--", "deploy")
    if units:
        say(units)


def _switch(host: Host, commit: str, anyway: str) -> None:
    """Have everything be as a commit says: files, packages, units, tables, what is served."""
    folder = environment.build(host, commit)
    host.git("reset", "--quiet", "--keep", commit)
    carry_out(file_steps(host, host.path(PROJECT) / "deploy"))
    _migrate(host, commit, folder)
    environment.switch(host, folder)
    for name in to_start():
        say(f"restart {name}")
    expect_steady = start()
    wait_for_ui()
    say("serve   the notebooks")
    host.tool("research-jobs", "deploy", *filter(None, [anyway]))
    expect_steady()


def _migrate(host: Host, commit: str, folder: Path) -> None:
    """Bring the history's tables to what this Dagster needs, once they are saved."""
    if not _is_stale(host, folder):
        return
    saved = HOME / f"before-{commit[:10]}.dump"
    if not host.path(saved).exists():
        url = host.settings()["RESEARCH_JOBS_PG_URL"].replace("+psycopg2", "")
        say(f"save    the history to {saved}")
        host.as_user("pg_dump", "--format=custom", f"--file={saved}.new", f"--dbname={url}")
        host.path(Path(f"{saved}.new")).replace(host.path(saved))
    say("migrate the history's tables")
    host.tool("dagster", "instance", "migrate", environment=folder)


def _is_stale(host: Host, folder: Path) -> bool:
    """Whether the history's tables are of another version of Dagster."""
    return host.tool("python", "-c", STALE, environment=folder) == "True"


def _expect_health(host: Host, known: frozenset[str]) -> None:
    wrong = broken(host, known)
    if wrong:
        lines = [f"{check}: {detail}" for check, detail in wrong.items()]
        raise ProblemError(
            "\n  ".join(["research-jobs doctor finds what was not wrong before", *lines])
        )


def _arrived(host: Host, previous: str | None) -> None:
    host.book.leaving = None
    host.book.previous = previous
    host.remember()
    environment.remove_others(host, "HEAD", previous)
