"""`deploy/install`: from a Debian to a server."""

from __future__ import annotations

import argparse
import grp
import os
import secrets
import shutil
import socket
import sys
from pathlib import Path

from server import environment
from server.files import CADDY, LOGINS, file_steps
from server.host import HOME, PROJECT, USER, CommandError, Host, ProblemError, command, say
from server.services import (
    backup_step,
    broken,
    heartbeat_step,
    is_current,
    services_step,
    wait_for_ui,
)
from server.steps import DONE, Look, Step, carry_out, show

__all__ = ["install", "plan"]

HERE = Path(__file__).resolve().parents[2]
PACKAGES = ("git", "make", "python3-venv", "postgresql", "restic", "caddy")
DATABASE = "research_jobs"
CADDYFILE = Path("/etc/caddy/Caddyfile")
IMPORT = f"import {CADDY.name}"


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="deploy/install",
        description="Make this Debian a server for a project. It shows what is to be done, asks, "
        "and does it. Safe to run again: what is there stays, edited files are kept. Options are "
        "remembered.",
    )
    parser.add_argument("--ui-host", metavar="NAME", help="host name of Dagster's UI")
    parser.add_argument("--reports-host", metavar="NAME", help="another host name, of the reports")
    parser.add_argument(
        "--project",
        metavar="GIT_URL",
        help=f"what to clone to {PROJECT} (default: where this clone came from)",
    )
    parser.add_argument("--login", metavar="NAME", help="who may log in (default: research)")
    parser.add_argument(
        "--tls",
        choices=("public", "internal"),
        help="whose certificates: a public authority's, for names of the public DNS (default), or "
        "those of Caddy's own",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what is to be done")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser.parse_args(words)


def install(words: list[str]) -> int:
    """Show the plan, ask, carry it out; exit code 1 if something is wrong in the end."""
    arguments = _arguments(words)
    if os.geteuid() != 0 and not arguments.dry_run:
        raise ProblemError("only root can install; --dry-run shows what is to be done")
    host = Host()
    _take_options(host, arguments)
    problem = _problem_of_machine()
    if problem is not None and not arguments.dry_run:
        raise ProblemError(problem)
    shown: dict[str, str] = {}
    steps = plan(host, shown)
    waiting = show(steps)
    if arguments.dry_run:
        say(f"\nTo do: {waiting}. Nothing was changed.")
        if problem is not None:
            say(f"It cannot be done here: {problem}")
        return 0 if problem is None else 1
    if not waiting:
        say("\nNothing to do.")
    else:
        _ask(arguments)
        with host.alone():
            host.remember()
            say("")
            count = carry_out(steps, planned=True)
            host.remember()
        say(f"\nDone: {count} of {len(steps)}. The others were there.")
    wait_for_ui()
    wrong = broken(host)
    for check, detail in wrong.items():
        say(f"WRONG   {check}: {detail}")
    say(
        "`research-jobs doctor` finds nothing wrong."
        if not wrong
        else "See `research-jobs doctor`."
    )
    for what, secret in shown.items():
        say(f"{what}: {secret}")
    return 1 if wrong else 0


def _take_options(host: Host, arguments: argparse.Namespace) -> None:
    """Options of now, else those of the last time."""
    options = {"login": USER, "tls": "public"} | host.book.options
    for name in ("ui_host", "reports_host", "login", "tls"):
        if getattr(arguments, name):
            options[name] = getattr(arguments, name)
        if name not in options:
            raise ProblemError(
                f"under which host name? Say --{name.replace('_', '-')} NAME\n"
                "  UI and reports each need one: deploy/install --ui-host dagster.example.com "
                "--reports-host reports.example.com"
            )
    if options["ui_host"] == options["reports_host"]:
        raise ProblemError("UI and reports need two host names: reports are notebooks' own pages")
    if arguments.project or "project" not in options:
        options["project"] = arguments.project or _origin()
    host.book.options = options


def _origin() -> str:
    """Where the clone that this command is in came from."""
    owner = HERE.owner()
    try:
        return command("git", "remote", "get-url", "origin", user=owner, cwd=HERE)
    except (CommandError, FileNotFoundError):
        return str(HERE)  # no origin, or no Git yet


def _problem_of_machine() -> str | None:
    """Why this machine cannot become a server."""
    if not Path("/run/systemd/system").is_dir():
        return "systemd does not run, and the services are its units"
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    known = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    system = " ".join(known.get(key, "").strip('"') for key in ("ID", "VERSION_ID"))
    if shutil.which("apt-get") is None:
        return f"this is {system}, not Debian: it has no apt-get"
    if system != "debian 12":
        say(f"note    this is {system}; it was tried on Debian 12")
    if command("systemctl", "show", "caddy", "--property=ActiveState") != "ActiveState=active":
        for port in (80, 443):
            if (reason := _why_not(port)) is not None:
                return (
                    f"port {port}, which Caddy needs, is in use ({reason})\n"
                    f"  This shows by whom: ss -ltnp sport = :{port}"
                )
    return None


def _why_not(port: int) -> str | None:
    """Why nobody could listen on a port now."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("", port))
        except OSError as error:
            return str(error.strerror)
    return None


def _ask(arguments: argparse.Namespace) -> None:
    if arguments.yes:
        return
    if not sys.stdin.isatty():
        raise ProblemError("nobody is there to ask; say --yes to go on without")
    if input("\nDo it? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ProblemError("nothing was changed")


def plan(host: Host, shown: dict[str, str]) -> list[Step]:
    """All steps, in their order.

    Parameters
    ----------
    host : Host
    shown : dict
        Takes what is shown once: label to secret.
    """
    there = host.path(PROJECT) / "deploy"
    return [
        _packages(host),
        _user(host),
        _project(host),
        _environment(host),
        _database(host),
        *file_steps(host, there if there.is_dir() else HERE / "deploy"),
        _login(host, shown),
        _caddy(host),
        services_step(host),
        backup_step(host, shown, secrets.token_urlsafe(24)),
        heartbeat_step(host),
    ]


def _packages(host: Host) -> Step:
    def missing() -> list[str]:
        status = host.path(Path("/var/lib/dpkg/status"))
        blocks = status.read_text(encoding="utf-8").split("\n\n") if status.exists() else []
        names = {
            block.split("\n", 1)[0].removeprefix("Package: ")
            for block in blocks
            if "\nStatus: install ok installed" in block
        }
        return [name for name in PACKAGES if name not in names]

    def look() -> Look:
        return Look("to do", f"apt-get install {' '.join(missing())}") if missing() else DONE

    def do() -> None:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        command("apt-get", "update", "--quiet", environment=quiet)
        command(
            *("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing()),
            environment=quiet,
        )

    return Step("packages", look, do)


def _user(host: Host) -> Step:
    def look() -> Look:
        if not host.has_user():
            return Look("to do", f"useradd {USER}, with {HOME}")
        return DONE if host.path(HOME).is_dir() else Look("to do", f"make {HOME}")

    def do() -> None:
        if not host.has_user():
            command(
                *("useradd", "--system", "--user-group", "--home-dir", str(HOME)),
                *("--shell", "/usr/sbin/nologin", USER),
            )
        command("install", "-d", "-m", "0750", "-o", USER, "-g", USER, str(HOME))

    return Step(f"user {USER}", look, do)


def _project(host: Host) -> Step:
    folder = host.path(PROJECT)
    source = host.book.options["project"]

    def look() -> Look:
        if not (folder / ".git").exists():
            if folder.is_dir() and any(folder.iterdir()):
                raise ProblemError(f"{PROJECT} is there, and is not a Git clone: move it away")
            return Look("to do", f"git clone {source}")
        owners = {one.owner() for one in (folder, folder / ".git", folder / ".git" / "HEAD")}
        return DONE if owners == {USER} else Look("to do", f"chown --recursive {USER}: {PROJECT}")

    def do() -> None:
        if not (folder / ".git").exists():
            command("install", "-d", "-m", "0750", "-o", USER, "-g", USER, str(PROJECT))
            if Path(source).is_dir():
                # Git asks that the user trusts a repository that belongs to somebody else.
                host.as_user("git", "config", "--global", "--replace-all", "safe.directory", source)
            host.git("clone", "--quiet", source, ".")
        command("chown", "--recursive", f"{USER}:{USER}", str(PROJECT))
        folder.chmod(0o750)

    return Step(f"project {PROJECT}", look, do)


def _environment(host: Host) -> Step:
    folder = host.path(PROJECT)

    def look() -> Look:
        if not (folder / ".git").exists() or not host.has_user():
            return Look("to do", "make install-server, without developers' packages")
        if (folder / ".venv").is_dir() and not (folder / ".venv").is_symlink():
            raise ProblemError(
                f"{PROJECT}/.venv is a folder; it must be a link to an environment\n"
                f"  Move it away, and run this again: mv {PROJECT}/.venv {PROJECT}/.venv.before"
            )
        wanted = environment.environment_of(host, "HEAD")
        if environment.current(host) == wanted and environment.is_ready(host, wanted):
            return DONE
        return Look("to do", f"make install-server, in {wanted}")

    def do() -> None:
        environment.switch(host, environment.build(host, "HEAD"))

    return Step("environment", look, do)


def _database(host: Host) -> Step:
    def has(table: str, column: str, name: str) -> bool:
        query = f"SELECT count(*) FROM {table} WHERE {column} = '{name}'"  # noqa: S608 - our names
        words = ("psql", "--no-align", "--tuples-only", "--command", query)
        return command(*words, user="postgres") == "1"

    def has_role() -> bool:
        return has("pg_roles", "rolname", USER)

    def has_database() -> bool:
        return has("pg_database", "datname", DATABASE)

    def look() -> Look:
        todo = f"role {USER}, who logs in as the system's user does; database {DATABASE}"
        if not host.has_user("postgres"):
            return Look("to do", todo)
        try:
            return DONE if has_role() and has_database() else Look("to do", todo)
        except CommandError:
            return Look("to do", f"start it; {todo}")

    def do() -> None:
        command("systemctl", "enable", "--now", "postgresql")
        if not has_role():
            command("createuser", USER, user="postgres")
        if not has_database():
            # A cluster that was made without a locale would have SQL_ASCII.
            how = ("--encoding", "UTF8", "--locale", "C.UTF-8", "--template", "template0")
            command("createdb", "--owner", USER, *how, DATABASE, user="postgres")

    return Step("database", look, do)


def _login(host: Host, shown: dict[str, str]) -> Step:
    name = host.book.options["login"]

    def look() -> Look:
        if host.path(LOGINS).exists():
            return DONE
        return Look("to do", f"make a password for {name}; shown once, kept as a hash")

    def do() -> None:
        password = secrets.token_urlsafe(15)
        hashed = command("caddy", "hash-password", stdin=f"{password}\n").splitlines()[-1]
        host.write(LOGINS, f"{name} {hashed}\n".encode(), mode=0o640, group="caddy")
        shown[f"Password of the login {name!r}"] = password

    return Step(str(LOGINS), look, do)


def _caddy(host: Host) -> Step:
    """Caddy reads our part, and may read the reports."""

    def look() -> Look:
        todo = Look("to do", f"import {CADDY.name} in {CADDYFILE}, start caddy in the group {USER}")
        if not host.has_user("caddy") or not host.path(CADDY).exists():
            return todo
        lines = host.path(CADDYFILE).read_text(encoding="utf-8").splitlines()
        fine = IMPORT in lines and "caddy" in grp.getgrnam(USER).gr_mem
        return DONE if fine and is_current("caddy", (CADDYFILE, CADDY, LOGINS)) else todo

    def do() -> None:
        command("usermod", "--append", "--groups", USER, "caddy")
        text = host.path(CADDYFILE).read_text(encoding="utf-8")
        if IMPORT not in text.splitlines():
            host.write(CADDYFILE, f"{text.rstrip()}\n\n{IMPORT}\n".encode())
        command("caddy", "validate", "--adapter", "caddyfile", "--config", str(CADDYFILE))
        command("systemctl", "enable", "caddy")
        # It has groups from its start: reloading gives it none.
        command("systemctl", "restart", "caddy")

    return Step("caddy", look, do)
