"""In a Debian that has just booted: a server from nothing, upgraded, broken, rolled back.

`in_install.py` boots the machine that this runs in, as root. What it prints is a transcript: each
command, as a person types it, and its answer. It ends at the first answer that is not as expected.
"""

from __future__ import annotations

import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path("/mnt/checkout")
EXCHANGE = Path("/mnt/exchange")
ORIGIN = "/srv/git/research.git"
ADMIN = Path("/opt/research")
UI, REPORTS = "dagster.example.com", "reports.example.com"
AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"

MINUTE = """
# %%
said = "{said}"
"""
HUMAN = """
# %%
import humanize

said = "new, " + humanize.intcomma(1234567)
"""
MANIFEST = """
defaults: {timezone: UTC}
notebooks:
  minute: {outputs: [said], deterministic: true}
schedules:
  each_minute: {cron: "* * * * *", notebooks: [minute]}
backup:
  to: /backup
  keep: {daily: 14}
heartbeat: {url: "http://127.0.0.1:8099/", every: 30s}
"""


class UnexpectedError(Exception):
    """An answer that is not as expected."""


def shell(command: str, *, user: str = "root", timeout: float = 1800) -> tuple[int, str]:
    """A command's exit code and what it printed."""
    words = ["bash", "-c", command]
    if user != "root":
        words = ["runuser", "-u", user, "--", *words]
    done = subprocess.run(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=timeout,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root"},
    )
    return done.returncode, done.stdout.rstrip()


def remark(text: str) -> None:
    """Begin a part of the transcript, which is Markdown."""
    print(f"```\n\n## {text}\n\n```console", flush=True)


def type_in(command: str, *, code: int = 0, expect: str = "", hidden: bool = False) -> str:
    """Show a command and its answer, which must be as expected."""
    print(f"# {command}", flush=True)
    status, said = shell(command)
    shown = re.sub(r"(assword[^\n]*: )\S+$", r"\1(shown once)", said, flags=re.MULTILINE)
    if shown and not hidden:
        print(shown, flush=True)
    if status != code:
        raise UnexpectedError(f"exit code {status} instead of {code}\n{said}")
    if not re.search(expect, said):
        raise UnexpectedError(f"there is no {expect!r} in it\n{said}")
    return said


def wait_until(what: str, question: Callable[[], Any], limit_s: float = 240) -> Any:
    end = time.monotonic() + limit_s
    while not (answer := question()):
        if time.monotonic() > end:
            raise UnexpectedError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.5)
    return answer


# -- the project, and those who push to it --------------------------------------------------------


def quietly(command: str, user: str = "root") -> str:
    status, said = shell(command, user=user)
    if status:
        raise UnexpectedError(f"{command}: {said}")
    return said


def make_origin() -> None:
    """A repository that belongs to a user of its own, and the administrator's clone of it."""
    quietly("useradd --system --create-home --home-dir /srv/git git")
    project = "/srv/git/work"
    quietly(f"cp -r {CHECKOUT} {project} && rm -r {project}/notebooks && mkdir {project}/notebooks")
    Path(project, "notebooks", "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    Path(project, "notebooks", "minute.py").write_text(MINUTE.format(said="old"), encoding="utf-8")
    Path(project, "requirements.txt").touch()
    quietly("chown -R git: /srv/git && chmod 755 /srv/git")
    quietly(f"git init -q --bare -b main {ORIGIN}", "git")
    quietly(f"cd {project} && git init -q -b main && git remote add origin {ORIGIN}", "git")
    push("first")
    quietly(f"git config --global --add safe.directory {ORIGIN}")
    quietly(f"git clone -q {ORIGIN} {ADMIN}")


def push(message: str, **files: str) -> str:
    """What a colleague pushes; the commit."""
    for name, text in files.items():
        place = {"minute": "notebooks/minute.py", "requirements": "requirements.txt"}.get(
            name, name
        )
        Path("/srv/git/work", place).write_text(text, encoding="utf-8")
    quietly("chown -R git: /srv/git/work")
    identity = "-c user.name=Ana -c user.email=ana@example.com"
    quietly(
        f"cd /srv/git/work && git add -A && git {identity} commit -qm '{message}' && "
        "git push -q origin main",
        "git",
    )
    return quietly("git -C /srv/git/work rev-parse HEAD", "git")


def ticks(value: str) -> None:
    """The schedule fires, and the notebook says this."""

    def said() -> bool:
        return value in shell("research-jobs show minute said")[1]

    wait_until(f"the schedule with {value!r}", said)
    type_in("research-jobs show minute said", expect=value)
    type_in("research-jobs list", expect="minute")


beats: list[str] = []


class Beat(http.server.BaseHTTPRequestHandler):
    """The service that notices silence."""

    def do_GET(self) -> None:
        beats.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve_beats() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 8099), Beat)
    threading.Thread(target=server.serve_forever, daemon=True).start()


# -- the acts -------------------------------------------------------------------------------------

OPTIONS = f"--ui-host {UI} --reports-host {REPORTS} --tls internal"


def install() -> str:
    """From nothing; the password of the login."""
    remark("Install")
    type_in("cd /opt/research && deploy/install --dry-run", code=2, expect="--ui-host")
    command = f"cd /opt/research && deploy/install {OPTIONS}"
    type_in(f"{command} --dry-run", expect="Nothing was changed")
    said = type_in(f"{command} --yes", code=1, expect="WRONG   backup")
    found = re.search(r"login 'research': (\S+)", said)
    if found is None:
        raise UnexpectedError("no password was shown")
    remark("Once more. (A machine without a network has no clock that is synchronised.)")
    type_in("/srv/research-jobs/deploy/install", code=1, expect="Nothing to do")
    type_in("systemctl is-active research-jobs-{host,code,webserver,daemon,watch} caddy")
    type_in("du -sh /var/lib/research-jobs/environments/*")
    return found[1]


def look(password: str) -> None:
    remark("A schedule fires each minute")
    ticks("old")
    type_in("research-jobs account")
    remark("The host forked its process")
    type_in(
        "journalctl -u research-jobs-host --output=cat | grep -o 'RUN_START .*' | head -1",
        expect="RUN_START",
    )
    remark("Logins, and a host name each")
    lines = [
        f'cacert = "{AUTHORITY}"',
        *(f'resolve = "{name}:443:127.0.0.1"' for name in (UI, REPORTS)),
        'silent\noutput = "/dev/null"\nwrite-out = "%{http_code}\\n"',
    ]
    Path("~/.curlrc").write_text("\n".join(lines), encoding="utf-8")
    type_in("cat ~/.curlrc")
    curl = "curl"
    for name, path in ((UI, "/"), (REPORTS, "/index.html")):
        address = f"https://{name}{path}"
        answer(f"{curl} {address}", "401")
        answer(f"{curl} --user research:wrong {address}", "401")
        answer(f"{curl} --user research:{password} {address}", "200", password)
    json = "--header 'Content-Type: application/json' --data '{\"query\": \"{ version }\"}'"
    answer(f"{curl} --user research:{password} {json} https://{UI}/graphql", "200", password)
    evil = f"--header 'Origin: https://{REPORTS}'"
    answer(f"{curl} --user research:{password} {evil} {json} https://{UI}/graphql", "403", password)
    remark("The heartbeat arrives")
    print(f"{len(wait_until('a heartbeat', lambda: beats))} by now", flush=True)


def answer(command: str, expect: str, password: str = "") -> None:
    """A command with a password that is not shown."""
    print(f"# {command.replace(password, '...') if password else command}", flush=True)
    status, said = shell(command)
    print(said, flush=True)
    if status or said != expect:
        raise UnexpectedError(f"exit code {status}, {said} instead of {expect}")


def backups() -> None:
    remark("Backups: the folder is outside of what the units may write, so it is added")
    type_in("install -d -m 0700 -o research -g research /backup")
    type_in(
        "printf '[Service]\\nReadWritePaths=/backup\\n' "
        "> /etc/systemd/system/research-jobs-.service.d/local.conf"
    )
    type_in("/srv/research-jobs/deploy/install --yes | grep -v ^done", expect="Done")
    type_in("systemctl start research-jobs-backup.service")
    type_in("systemctl start research-jobs-verify.service")
    type_in("journalctl --no-pager --output=cat -u research-jobs-backup -u research-jobs-verify")
    type_in("systemctl list-timers --no-pager 'research-jobs-*'", expect="research-jobs-backup")


UNIT = "deploy/research-jobs-daemon.service"


def moves() -> None:
    remark("A colleague pushes: a notebook that needs a new package, and another unit")
    unit = Path("/srv/git/work", UNIT).read_text(encoding="utf-8")
    fine = unit.replace("Description=research_jobs: ", "Description=research_jobs (2): ")
    push("Says it with humanize", minute=HUMAN, requirements="humanize\n", **{UNIT: fine})
    type_in("/srv/research-jobs/deploy/upgrade --dry-run", expect="humanize")
    ticks("old")
    type_in("/srv/research-jobs/deploy/upgrade", expect="is in service")
    ticks("new, 1,234,567")
    type_in("systemctl show --property=Description research-jobs-daemon", expect=r"\(2\)")
    type_in("/srv/research-jobs/deploy/upgrade", expect="Nothing new")
    type_in("/srv/research-jobs/deploy/install | tail -4", expect="Nothing to do")

    remark("Back")
    type_in("/srv/research-jobs/deploy/rollback", expect="is in service")
    ticks("old")
    type_in("systemctl show --property=Description research-jobs-daemon", expect="research_jobs:")
    type_in("/srv/research-jobs/deploy/rollback", code=2, expect="no upgrade to roll back")


def failures() -> None:
    """What is refused, what is rolled back by itself, what is killed."""
    unit = Path("/srv/git/work", UNIT).read_text(encoding="utf-8")
    fine = unit.replace("Description=research_jobs:", "Description=research_jobs (3):")
    remark("What would take a notebook down is refused before anything moves")
    push("Forgets a bracket", minute="# %%\nsaid = (\n")
    type_in("/srv/research-jobs/deploy/upgrade", code=2, expect="refused")

    remark("What breaks a service is rolled back")
    push(
        "A unit that cannot start",
        minute=MINUTE.format(said="third"),
        **{UNIT: unit.replace("daemon run", "daemon walk")},
    )
    type_in("/srv/research-jobs/deploy/upgrade", code=1, expect="Rolled back")
    ticks("old")

    remark("An upgrade that is killed, and run again")
    push("A unit that can", **{UNIT: fine})
    kill_at("doing ")
    type_in("runuser -u research -- git -C /srv/research-jobs log --oneline -1")
    type_in("/srv/research-jobs/deploy/upgrade", expect="is in service")
    ticks("third")
    type_in("/srv/research-jobs/deploy/rollback", expect="is in service")
    ticks("old")


def edits() -> None:
    remark("A file that a person edited is kept")
    type_in(
        "sed -i 's/^ProtectHome=yes/ProtectHome=no/' "
        "/etc/systemd/system/research-jobs-.service.d/hardening.conf"
    )
    type_in(
        "/srv/research-jobs/deploy/install --yes | grep -v ^done", expect="kept .*hardening.conf"
    )
    type_in(
        "grep ProtectHome= /etc/systemd/system/research-jobs-.service.d/hardening.conf", expect="no"
    )


def restore() -> None:
    remark("Restored: what README.md says for a new server")
    type_in("systemctl stop 'research-jobs-*'")
    text = (CHECKOUT / "deploy" / "README.md").read_text(encoding="utf-8")
    block = text.partition("systemctl stop 'research-jobs-*'\n")[2].partition("```")[0]
    for line in block.replace("TARGET", "/backup").splitlines():
        quiet = " --yes | grep -v ^done"
        type_in(f"{line}{quiet}" if line.endswith("install") else line)
    ticks("old")
    type_in("research-jobs doctor", code=1, expect="ok     backup")


def kill_at(line: str) -> None:
    """Kill an upgrade once it has said something."""
    print("# /srv/research-jobs/deploy/upgrade   # killed by SIGKILL", flush=True)
    process = subprocess.Popen(
        ["/srv/research-jobs/deploy/upgrade"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for said in process.stdout:
        print(said, end="", flush=True)
        if said.startswith(line):
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    if process.wait() != -signal.SIGKILL:
        raise UnexpectedError("it ended before it was killed")


def main() -> int:
    """All of it; the exit code."""
    status = 0
    try:
        print("# A server, from nothing\n\nWhat `make test-install` printed.\n\n```console")
        type_in("cat /etc/debian_version; systemctl --version | head -1; ls /srv", expect="^12")
        make_origin()
        serve_beats()
        acts = {"backups": backups, "moves": moves, "failures": failures}
        acts |= {"edits": edits, "restore": restore}
        look(install())
        for name in sys.argv[1:] or acts:
            acts[name]()
        print("```\n\nEverything is as expected.")
    except Exception as error:  # noqa: BLE001 - the account must end
        print(f"\nUNEXPECTED: {type(error).__name__}: {error}")
        status = 1
    (EXCHANGE / "status").write_text(str(status))
    return status


if __name__ == "__main__":
    sys.exit(main())
