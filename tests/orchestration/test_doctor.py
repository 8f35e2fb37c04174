"""Broken installations: each is found, and what the doctor says mends it."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dagster import DagsterRun
from packaging.requirements import Requirement

from research_jobs.cli.main import main
from research_jobs.orchestration.model.instance import (
    open_instance,
    service_home,
    workspace_file,
)
from research_jobs.orchestration.operations import doctor
from research_jobs.orchestration.operations.diagnosis import Answer, Site
from research_jobs.orchestration.operations.diagnosis_environment import judge_dagster
from research_jobs.project import Project, find_project
from research_jobs.resident.services import register
from research_jobs.upkeep.proof import BackupBook

SHIPPED = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with one notebook that has never run."""
    folder = tmp_path / "project"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks" / "one.py").write_text("# %%\nx = 1\n")
    for name in [name for name in os.environ if name.startswith(("DAGSTER_", "RESEARCH_JOBS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    return find_project(folder)


Ask = Callable[[str], Answer]


@pytest.fixture
def ask(project: Project, tmp_path: Path) -> Ask:
    """The answer of one check, made anew."""
    return lambda name: doctor.CHECKS[name](Site(find_project(project.root), tmp_path / "units"))


def mend(fix: str) -> None:
    """Do what the doctor says, in a shell."""
    subprocess.run(["sh", "-c", fix], check=True, capture_output=True)


def test_what_is_well_is_well(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    """A new project has nothing wrong; each check has a line, or an object with four entries."""
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["check"] for one in said] == list(doctor.CHECKS)
    assert all(one.keys() == {"check", "ok", "detail", "fix"} for one in said)
    assert [one for one in said if one["ok"] is False] == []
    assert {one["check"] for one in said if one["ok"]} >= {"python", "template", "store", "disk"}
    assert not (project.state / "dagster").exists()


def test_what_is_wrong_is_the_exit_code(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """One wrong check: exit code 1, its fix on a line of its own, and on the morning page."""
    (project.root / ".env").write_text("TOKEN=x\n")
    (project.root / ".env").chmod(0o644)
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (number,) = [n for n, line in enumerate(lines) if line.startswith("WRONG")]
    assert lines[number].endswith("everybody on this machine can read .env")
    fix = lines[number + 1].strip()
    main(["report"])
    page = project.reports / "index.html"
    assert "everybody on this machine can read .env</p>" in page.read_text()
    assert f"<code>{fix}</code>" in page.read_text()
    assert main(["status"]) == 0
    assert "Wrong with the installation: permissions" in capsys.readouterr().out
    mend(fix)
    assert main(["doctor"]) == 0
    main(["report"])
    assert "found nothing wrong on" in page.read_text()


def test_a_check_that_raises_or_hangs_hides_no_other(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that raises is null, one that gives no answer is wrong, and the last is made."""

    def raises(site: Site) -> Answer:
        raise OSError(5, f"Input/output error of {site.now}")

    def hangs(site: Site) -> Answer:
        time.sleep(60)
        return Answer(ok=True, detail=str(site))

    checks = {"raises": raises, "hangs": hangs, "last": lambda _: Answer(ok=True, detail="made")}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    monkeypatch.setattr(doctor, "ANSWER_S", 0.2)
    assert [one.ok for one in doctor.examine(Site(project))] == [None, False, True]


def test_another_interpreter(project: Project, ask: Ask) -> None:
    """A project with an environment of its own is to be looked at from there."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", project.root / ".venv"], check=True
    )
    answer = ask("python")
    assert answer.ok is False
    assert answer.fix == f"{project.root / '.venv/bin/research-jobs'} doctor"


def test_a_python_that_the_project_does_not_take(project: Project, ask: Ask) -> None:
    """``requires-python`` holds."""
    file = project.root / "pyproject.toml"
    file.write_text('[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.99"\n')
    assert ask("python").ok is False
    file.write_text(file.read_text().replace("3.99", "3.11"))
    assert ask("python").ok is True


def wheel(folder: Path, version: str) -> None:
    """A package without code."""
    info = f"doctors_sample-{version}.dist-info"
    with zipfile.ZipFile(folder / f"doctors_sample-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{info}/METADATA", f"Name: doctors-sample\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml", "constraints.txt"])
def test_packages_that_are_not_as_pinned(
    project: Project, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """A package of another version, and one that is missing; the command installs it."""
    target = tmp_path / "packages"
    for version in ("1.0", "2.0"):
        wheel(tmp_path, version)
    for name, value in {
        "NO_INDEX": "1", "FIND_LINKS": tmp_path, "TARGET": target, "UPGRADE": "1"
    }.items():  # fmt: skip
        monkeypatch.setenv(f"PIP_{name}", str(value))
    text = "# pins\ndoctors-sample==2.0  # for the doctor\n-r other.txt\n"
    if file == "pyproject.toml":
        text = '[project]\nname = "p"\nversion = "1"\ndependencies = ["doctors-sample==2.0"]\n'
    (project.root / file).write_text(text)
    if file == "constraints.txt":
        assert ask("packages").ok is True  # it need not be installed
        mend(f"{shlex.quote(sys.executable)} -m pip install doctors-sample==1.0")
    monkeypatch.syspath_prepend(str(target))
    answer = ask("packages")
    assert answer.ok is False
    assert "doctors-sample is" in answer.detail
    mend(answer.fix)
    assert ask("packages").ok is True


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ({"dagster": "1.99.0", "dagster-webserver": "1.99.0"}, "dagster==1.13.*"),
        ({"dagster": "1.13.4", "dagster-webserver": "1.13.5"}, "dagster-webserver==1.13.4"),
        ({"dagster": "1.13.4", "dagster-postgres": "0.28.4"}, "dagster-postgres==0.29.4"),
        ({"dagster": "1.12.0", "dagster-postgres": "0.28.0"}, None),
    ],
)
def test_versions_of_dagster(versions: dict[str, str], wanted: str | None) -> None:
    """A version that no test ran with, or packages of two releases; the command makes them one."""
    answer = judge_dagster(versions)
    assert answer.ok is (wanted is None)
    fixed = {
        one.name: str(one.specifier).removeprefix("==").replace("*", "0")
        for one in map(Requirement, shlex.split(answer.fix)[4:])
    }
    assert wanted is None or wanted in answer.fix
    assert judge_dagster(versions | fixed).ok is True


def test_a_history_of_an_older_dagster(project: Project, ask: Ask) -> None:
    """Tables that lack a migration are found, and Dagster's own command migrates them."""
    assert ask("history").ok is None
    with open_instance(project):
        pass
    assert ask("history").ok is True
    with sqlite3.connect(project.state / "dagster" / "history" / "runs.db") as database:
        ((head,),) = database.execute("SELECT version_num FROM alembic_version")
        database.execute("UPDATE alembic_version SET version_num = ?", (older(head),))
    database.close()
    answer = ask("history")
    assert (answer.ok, "runs" in answer.detail) == (False, True)
    mend(answer.fix)
    assert ask("history").ok is True


def older(head: str) -> str:
    """The migration before one of Dagster's for SQLite runs."""
    import dagster._core.storage as place

    (text,) = (
        text
        for path in Path(place.__file__).parent.glob("alembic/versions/*.py")
        if f'revision = "{head}"' in (text := path.read_text())
    )
    return text.partition('down_revision = "')[2].partition('"')[0]


def test_a_history_that_is_damaged(project: Project, ask: Ask) -> None:
    """A database that is none is one line that names it, not a traceback."""
    with open_instance(project):
        pass
    file = project.state / "dagster" / "history" / "runs.db"
    file.write_bytes(b"no database" * 1000)
    answer = ask("history")
    assert answer.ok is False
    assert "runs.db: file is not a database" in answer.detail
    mend(answer.fix)
    assert ask("history").ok is True
    assert file.with_name("runs.db.damaged").exists()


def test_a_page_of_a_history_that_is_damaged(project: Project, ask: Ask) -> None:
    """What can be read is recovered; where there is a backup, it comes first."""
    with open_instance(project) as instance:
        for number in range(200):
            instance.add_run(DagsterRun("job", f"run{number}", tags={"number": "x" * 200}))
    file = project.state / "dagster" / "history" / "runs.db"
    with closing(sqlite3.connect(file)) as database:
        (page,) = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'idx_run_status'"
        ).fetchone()
        (size,) = database.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as damaged:
        damaged.seek((page - 1) * size)
        damaged.write(b"\xff" * size)
    answer = ask("history")
    assert answer.ok is False
    assert "the history is damaged" in answer.detail
    BackupBook.change(project, lambda book: replace(book, made=1.0))
    (project.root / "notebooks" / "manifest.yaml").write_text("backup: /mnt/b")
    start = "research-jobs restore --from /mnt/b --project DIR into an empty folder; or"
    assert ask("history").fix.startswith(start)
    mend(answer.fix)
    assert ask("history").ok is True
    with open_instance(project) as instance:
        assert len(instance.get_runs()) == 200


@pytest.fixture
def gone(project: Project) -> Callable[[str], None]:
    """Registers a service whose process has ended."""

    def begin(name: str) -> None:
        program = (
            "import sys; from research_jobs.project import find_project\n"
            "from research_jobs.resident.services import register\n"
            "register(find_project(sys.argv[1]), sys.argv[2], 'http://127.0.0.1:9')"
        )
        subprocess.run([sys.executable, "-c", program, project.root, name], check=True)

    return begin


@pytest.mark.parametrize(
    ("service", "check"),
    [("daemon", "daemon"), ("host", "host"), ("webserver", "code"), ("code server", "code")],
)
def test_a_service_that_is_gone(
    project: Project,
    ask: Ask,
    gone: Callable[[str], None],
    tmp_path: Path,
    service: str,
    check: str,
) -> None:
    """The command is the unit's where it is installed, else the one that starts all services."""
    with open_instance(project):
        pass
    gone(service)
    assert ask(check) == Answer(False, f"the {service} is not running", "research-jobs ui")
    unit = f"research-jobs-{service.removesuffix(' server')}"
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / f"{unit}.service").touch()
    assert ask(check).fix == f"systemctl restart {unit}"


def test_a_manifest_that_cannot_be_read(project: Project, ask: Ask) -> None:
    """Without its settings no notebook runs; the command shows where the mistake is."""
    project.manifest.write_text("notebooks: [")
    answer = ask("code")
    assert answer.ok is False
    assert answer.fix == "research-jobs check"
    assert main(shlex.split(answer.fix)[1:]) == 1
    project.manifest.unlink()
    assert ask("code").ok is None


@pytest.fixture
def listening(project: Project) -> Iterator[Callable[[str], None]]:
    """Registers this process as a webserver that listens on an address."""
    opened: list[socket.socket] = []

    def begin(host: str) -> None:
        while opened:
            opened.pop().close()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        both = family == socket.AF_INET6
        opened.append(socket.create_server((host, 0), family=family, dualstack_ipv6=both))
        register(project, "webserver", "http://localhost:9")

    yield begin
    for one in opened:
        one.close()


@pytest.mark.servers
def test_a_server_that_everybody_reaches(ask: Ask, listening: Callable[[str], None]) -> None:
    """What it really listens on counts; on the loopback, as IPv6 writes it too, it is well."""
    listening("0.0.0.0")
    answer = ask("listeners")
    assert answer.ok is False
    assert "--host 127.0.0.1" in answer.fix
    for loopback in ("127.0.0.1", *(["::ffff:127.0.0.1"] if socket.has_dualstack_ipv6() else [])):
        listening(loopback)
        assert ask("listeners").ok is True


def test_a_store_that_is_a_file(project: Project, ask: Ask) -> None:
    """Nothing can be published there; moving the file away mends it."""
    store = Path(project.store)
    store.write_text("a file")
    answer = ask("store")
    assert answer.ok is False
    assert str(store) in answer.detail
    store.unlink()
    assert ask("store").ok is True


def test_a_staging_folder_on_another_disk(project: Project, ask: Ask, tmp_path: Path) -> None:
    """A link that leads the staging folder elsewhere is named, and removing it mends it."""
    (tmp_path / "elsewhere").mkdir()
    staging = Path(project.store) / ".staging"
    staging.parent.mkdir()
    staging.symlink_to(tmp_path / "elsewhere")
    answer = ask("store")
    assert answer.ok is False
    assert str(staging) in answer.detail + answer.fix
    staging.unlink()
    assert ask("store").ok is True


@pytest.mark.parametrize("place", [".env", ".research_jobs", "dagster.yaml", "environment"])
def test_secrets_that_everybody_can_read(
    project: Project, ask: Ask, tmp_path: Path, place: str
) -> None:
    """Each file that may hold one is named, and the command closes it."""
    path = project.root / place
    if place == ".research_jobs":
        path.mkdir()
    elif place == "dagster.yaml":
        path.write_text("storage: {postgres: {postgres_db: {password: secret}}}\n")
    else:
        path.write_text("TOKEN=secret\n")
    if place == "environment":
        (tmp_path / "units").mkdir()
        unit = tmp_path / "units" / "research-jobs-host.service"
        unit.write_text(f"[Service]\nEnvironmentFile=-{path}\n")
    path.chmod(0o755)
    answer = ask("permissions")
    assert answer.ok is False
    assert place in answer.detail
    mend(answer.fix)
    assert ask("permissions").ok is True


def test_a_password_in_the_manifest(
    project: Project, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is written out is found and not repeated; the edit that is proposed mends it."""
    channel = "alerts: {ops: {email: {to: ops@example.com, user: ops, encryption: starttls, %s}}}\n"
    project.manifest.write_text(channel % "password: correct-horse")
    answer = ask("alerts")
    assert answer.ok is False
    assert "correct-horse" not in answer.detail + answer.fix
    assert answer.fix.startswith("Write ${SMTP_PASSWORD}")
    project.manifest.write_text(channel % 'password: "${SMTP_PASSWORD}"')
    monkeypatch.setenv("SMTP_PASSWORD", "correct-horse")
    assert ask("alerts").ok is True


def test_a_clock_that_is_behind(project: Project, ask: Ask, tmp_path: Path) -> None:
    """State that was written later than now shows it."""
    assert ask("clock").ok is True
    project.make_state_folder("services")
    behind = Site(project, tmp_path / "units", time.time() - 7200)
    answer = doctor.CHECKS["clock"](behind)
    assert answer.ok is False
    assert answer.fix == "timedatectl set-ntp true"
    assert doctor.CHECKS["clock"](Site(project, now=0.0)).ok is False


def test_a_time_zone_that_is_none(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library would take it for UTC."""
    monkeypatch.setenv("TZ", "Europe/Berln")
    answer = ask("time zone")
    assert answer.ok is False
    assert "Europe/Berlin" in answer.fix
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert ask("time zone").ok is True


@pytest.mark.parametrize("broken", ["edited", "missing", "soft"])
def test_units_that_are_not_as_shipped(
    project: Project, ask: Ask, tmp_path: Path, broken: str
) -> None:
    """One that was edited or is missing, and the restrictions of all; the command mends it."""
    assert ask("units").ok is None
    (project.root / "deploy").symlink_to(SHIPPED)
    units = tmp_path / "units"
    drop_in = units / "research-jobs-.service.d"
    drop_in.mkdir(parents=True)
    for source in SHIPPED.glob("research-jobs-*.*"):
        (units / source.name).write_text(source.read_text())
    (drop_in / "hardening.conf").write_text((SHIPPED / "hardening.conf").read_text())
    assert ask("units").ok is True
    if broken == "edited":
        with (units / "research-jobs-host.service").open("a") as file:
            file.write("User=root\n")
    else:
        place = drop_in / "hardening.conf" if broken == "soft" else None
        (place or units / "research-jobs-watch.service").unlink()
    answer = ask("units")
    assert answer.ok is False
    fix, _, reload = answer.fix.rpartition(" && ")
    assert reload == "systemctl daemon-reload"
    mend(fix)
    assert ask("units").ok is True


def test_alerts_that_nobody_would_get(
    project: Project, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A channel with a mistake, then one whose variable is not set."""
    assert ask("alerts").ok is None
    project.manifest.write_text("alerts: {ops: {email: 7}}\n")
    assert ask("alerts").ok is False
    project.manifest.write_text('alerts: {ops: {url: "${DOCTORS_HOOK}"}}\n')
    answer = ask("alerts")
    assert answer.ok is False
    assert "DOCTORS_HOOK=... in .env" in answer.fix
    assert answer.fix.endswith("research-jobs alerts --test")
    monkeypatch.setenv("DOCTORS_HOOK", "json://127.0.0.1")
    assert ask("alerts").ok is True


@pytest.mark.parametrize(
    ("days_made", "days_proven", "failing", "ok"),
    [
        (1, 7, {}, True),
        (3, 7, {}, False),
        (1, 20, {}, False),
        (1, None, {}, False),
        (1, 7, {"making": [1.0, "the disk is full"]}, False),
    ],
)
def test_backups_that_are_old_or_fail(
    project: Project,
    ask: Ask,
    days_made: int | None,
    days_proven: int | None,
    failing: dict[str, object],
    ok: bool,
) -> None:
    """The last one is recent, the last proven one too, and none has failed since."""
    assert ask("backup").ok is None
    days = {"made": days_made, "proven": days_proven}
    moments = {
        name: None if value is None else time.time() - value * 86_400
        for name, value in days.items()
    }
    (project.make_state_folder() / "backup.json").write_text(
        json.dumps(moments | {"failing": failing})
    )
    answer = ask("backup")
    assert answer.ok is ok
    assert ok or answer.fix.startswith("research-jobs backup")


@pytest.mark.parametrize(
    ("days", "error", "ok"),
    [(0.1, None, True), (0.1, "a: it is damaged", False), (3, None, False), (None, None, None)],
)
def test_a_nightly_job_that_fails_or_does_not_run(
    project: Project, ask: Ask, days: float | None, error: str | None, ok: bool | None
) -> None:
    """Of whatever part, or for longer than a day after it was due."""
    if days is not None:
        parts = [{"kind": "versions", "error": error}, {"kind": "reports", "error": None}]
        text = json.dumps({"at": time.time() - days * 86400, "parts": parts})
        (project.make_state_folder() / "prune.json").write_text(text)
    answer = ask("prune")
    assert answer.ok is ok
    assert answer.fix == ("" if ok else "research-jobs prune")
    assert not error or error in answer.detail


def test_a_backup_that_was_never_made(project: Project, ask: Ask) -> None:
    """It is wrong where the manifest wants one, and unknown where it does not."""
    assert ask("backup").ok is None
    project.manifest.write_text("backup: /mnt/backup\n")
    answer = ask("backup")
    assert (answer.ok, answer.fix) == (False, "research-jobs backup")


@pytest.fixture
def on_postgres(project: Project, own_postgres: Any) -> Any:
    """The project's history is on a Postgres of the test's own."""
    file = project.root / "dagster.yaml"
    file.write_text(json.dumps({"storage": own_postgres.storage()}))
    file.chmod(0o600)
    with open_instance(project):
        pass
    return own_postgres


def test_a_database_that_is_gone(on_postgres: Any, ask: Ask) -> None:
    """What the connection says is one line, and the fix names the file with the address."""
    assert ask("history").ok is True
    on_postgres.stop()
    answer = ask("history")
    assert answer.ok is False
    assert "onnection" in answer.detail
    assert "dagster.yaml" in answer.fix
    on_postgres.start()
    assert ask("history").ok is True


def test_a_database_that_is_short_of_connections(on_postgres: Any, ask: Ask) -> None:
    """It is found while runs still get one; the statement and a restart mend it."""
    import psycopg2

    held = [psycopg2.connect(on_postgres.dsn("postgres")) for _ in range(180)]
    answer = ask("history")
    assert answer.ok is False
    assert "of its 197 connections in use" in answer.detail
    statement, _, then = answer.fix.partition("; ")
    assert then == "then restart Postgres."
    held[0].autocommit = True
    held[0].cursor().execute(statement)
    cursor = held[0].cursor()
    cursor.execute("SELECT setting FROM pg_file_settings WHERE name = 'max_connections'")
    assert cursor.fetchall()[-1] == (str(2 * 197 + 20),)
    for one in held:
        one.close()
    assert ask("history").ok is True


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("options", "files"), [("size=1m", 0), ("size=64m,nr_inodes=40", 39)])
def test_a_disk_that_is_full(project: Project, ask: Ask, options: str, files: int) -> None:
    """A store without room for bytes or files is named; deleting what the fix lists mends it."""
    store = Path(project.store)
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", store], check=True)
    try:
        for number in range(files):
            (store / f"{number}").touch()
        if not files:
            (store / "large").write_bytes(bytes(2**20 - 4096))
        answer = ask("disk")
        assert answer.ok is False
        assert f"the disk of {store}" in answer.detail
        mend(answer.fix.partition(": ")[2])
        for path in store.iterdir():
            path.unlink()
        assert ask("disk").ok is True
    finally:
        subprocess.run(["umount", store], check=True)


@pytest.mark.servers
def test_code_that_is_not_what_is_on_disk(project: Project, ask: Ask) -> None:
    """A notebook that was edited after the UI loaded it; the command puts it into service."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    program = "research_jobs.orchestration.operations.webserver"
    listen = ["--host", "127.0.0.1", "--port", str(port), "--workspace", workspace_file(project)]
    environment = os.environ | {
        "RESEARCH_JOBS_PROJECT": str(project.root),
        "DAGSTER_HOME": str(service_home(project)),
    }
    command = [sys.executable, "-m", program, *listen]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 90
            while ask("code").ok is not True and time.monotonic() < until:
                time.sleep(0.5)
            assert ask("code") == Answer(True, "shown as on disk, notebooks: 1")
            (project.notebooks / "one.py").write_text("# %%\nx = 2\n")
            answer = ask("code")
            assert answer.ok is False
            assert "1 notebook changed" in answer.detail
            mend(f"{Path(sys.executable).parent}/{answer.fix}")
            assert ask("code").ok is True
        finally:
            server.terminate()
