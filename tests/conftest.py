"""Fixtures that more than one room's tests use."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from keeping import free_port

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# xdist says how wide the screen is; what is piped in a test has no width.
os.environ.pop("COLUMNS", None)

# Started in the background by a shell, everything below ignores Ctrl-C; the tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


HERE = Path(__file__).parent
# What takes long or starts processes of its own, by folder or file: `make test-fast` is the rest.
SLOW = (
    "cli", "e2e", "faults", "orchestration", "resident", "samples", "simulator", "supervisor",
    "environments/test_making.py",
    "report/test_limits.py", "report/test_making.py", "report/test_worst.py",
    "runtime/test_browsers.py", "runtime/test_display.py", "runtime/test_guarded_run.py",
    "runtime/test_masking.py", "runtime/test_memory.py", "runtime/test_processes.py",
    "runtime/test_rehearsal.py", "runtime/test_template.py",
    "store/test_commit.py", "store/test_crash.py", "store/test_damage.py", "store/test_matrix.py",
    "store/test_remote.py", "store/test_repartition.py",
    "test_another_user.py", "test_quickstart.py", "test_rooms.py", "testing",
)  # fmt: skip
# What starts a server, by folder, file or fixture.
SERVERS = (
    "e2e", "cli/test_ui.py", "notify/test_command.py", "notify/test_from_event.py",
    "notify/test_notifier.py", "notify/test_reports.py", "orchestration/test_delivering.py",
    "orchestration/test_dagster_contract_webserver.py", "orchestration/test_outages.py",
    "report/test_server.py", "runtime/test_browsers.py",
)  # fmt: skip
# Left to `make test-long`: siblings of what `make test` runs, each with services of its own.
LONG = (
    "cli/test_init.py::test_editor_file_and_batch_agree[  working",
    "cli/test_init.py::test_the_samples_run_in_the_editor",
    "cli/test_projects.py::test_two_projects_with_one_prefix_are_refused",
    "cli/test_projects.py::test_a_copied_project_has_its_own_instance",
    "cli/test_projects.py::test_a_claim_is_handed_over",
    "cli/test_run.py::test_a_message_that_the_terminal_cannot_show[ascii]",
    "e2e/test_deploy.py::test_a_tree_that_was_pulled_is_checked",
    "e2e/test_deploy.py::test_local_files_are_part_of_the_new_tree",
    "e2e/test_deploy.py::test_packages_are_not_installed_but_named",
    "e2e/test_deploy.py::test_where_nobody_serves",
    "e2e/test_deploy.py::test_a_server_of_another_folder",
    "e2e/test_deploy.py::test_a_branch_that_has_diverged",
    "e2e/test_deploy.py::test_a_run_goes_on",
    "e2e/test_deploy.py::test_no_tick_is_lost",
    "e2e/test_monitoring.py::test_again_from_failure",
    "e2e/test_monitoring.py::test_without_a_daemon_the_next_command_notices_it",
    "e2e/test_outages.py::test_a_killed_command_is_not_tried_again",
    "e2e/test_outages.py::test_a_failed_notebook_is_not_tried_again",
    "e2e/test_server.py::test_ten_runs_at_once",
    "e2e/test_soak.py",
    "e2e/test_ui.py::test_two_projects_never_lead_into_each_other",
    "notify/test_from_event.py::test_channel",
    "notify/test_from_event.py::test_refused",
    "notify/test_from_event.py::test_two_notebooks_of_one_cause",
    "notify/test_from_event.py::test_missing_partitions",
    "notify/test_from_event.py::test_slow",
    "notify/test_from_event.py::test_disk",
    "notify/test_from_event.py::test_service",
    "notify/test_from_event.py::test_clock",
    "notify/test_from_event.py::test_history",
    "orchestration/test_clocks.py::test_partitions_are_as_minutes_counted_one_by_one[quarter",
    "orchestration/test_dagster_fallbacks.py::test_a_project_runs_without_the_names_of",
    "orchestration/test_doctor.py::test_code_that_is_not_what_is_on_disk",
    "orchestration/test_schedules_daemon.py::test_three_missed_ticks_leave_no_hole[sqlite]",
    "resident/test_commands.py::test_a_command_is_as_without_a_host",
    "resident/test_commands.py::test_a_killed_program_takes_its_notebook_along",
    "resident/test_server.py::test_stopped_politely",
    "resident/test_freshness.py::test_helper_outside_the_folder",
    "resident/test_freshness.py::test_another_store_is_not_written",
    "resident/test_freshness.py::test_another_environment_is_not_served",
    "store/test_two_machines.py",
)
FIXTURES = {
    "postgres": "servers", "own_postgres": "servers", "s3": "servers", "sftp": "servers",
    "chromium": "browser",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by where they are and what they use, so that nobody has to by hand."""
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue  # a sample notebook: `pytest --notebooks`
        place = item.path.relative_to(HERE).as_posix()
        marks = {FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES}
        marks |= {mark for mark, places in (("slow", SLOW), ("servers", SERVERS))
                  if any(f"{place}/".startswith(f"{one}/") for one in places)}  # fmt: skip
        marks |= {"long" for one in LONG if f"{place}::{item.name}".startswith(one)}
        for mark in sorted(marks):
            item.add_marker(mark)
    # Files that take long begin first, so that no worker is left alone with them at the end.
    items.sort(
        key=lambda item: [item.get_closest_marker(one) is None for one in ("servers", "slow")]
    )


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a command sets in this process (`.env`, the project) is not there for the next test."""
    before = dict(os.environ)
    yield
    if dict(os.environ) != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast test cannot listen on the network: one that does needs its place in `SERVERS`."""
    if any(request.node.get_closest_marker(mark) for mark in ("slow", "servers", "browser")):
        return

    def refuse(of: socket.socket, *backlog: int) -> None:
        if of.family in (socket.AF_INET, socket.AF_INET6):
            pytest.fail("a test without the marker 'servers' listens: see tests/conftest.py")
        super(socket.socket, of).listen(*backlog)

    monkeypatch.setattr(socket.socket, "listen", refuse, raising=False)


class PostgresServer:
    """A PostgreSQL of this test session alone, in a folder of its own.

    Parameters
    ----------
    programs : Path
        The folder of the server's programs.
    """

    host = "127.0.0.1"
    username = "tester"

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not below pytest's own folder: that is closed to the user the server must run as. The
        # path also has to be short, for the sake of the socket in it.
        self.socket_folder = Path(tempfile.mkdtemp(prefix="rj-pg-"))
        self.password = secrets.token_hex(16)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        password_file = self.socket_folder / "password"
        password_file.write_text(self.password)
        as_user: list[str] = []
        # setpriv also ends the server when this process is killed.
        guarded = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        if os.geteuid() == 0:  # the server refuses to run as root
            as_user = ["runuser", "-u", "postgres", "--"]
            if guarded:
                guarded += ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
            account = pwd.getpwnam("postgres")
            for path in (self.socket_folder, password_file):
                os.chown(path, account.pw_uid, account.pw_gid)
        data = initialise(programs, self.socket_folder, password_file, as_user)
        settings = {
            "listen_addresses": self.host,
            "unix_socket_directories": self.socket_folder,
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": 200,
            "shared_buffers": "32MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = [programs / "postgres", "-D", data, "-p", str(self.port), *options]
        self._command = [*(guarded or as_user), *server]

    def start(self) -> None:
        """Start it; it answers when this returns."""
        log = self.socket_folder / "log"
        with log.open("ab") as log_file:
            self._process = subprocess.Popen(
                self._command,
                stdout=log_file,
                stderr=subprocess.STDOUT,
                cwd=self.socket_folder,
                start_new_session=True,  # Ctrl-C is for pytest alone
            )
        ready = [self._programs / "pg_isready", "-q", "-h", self.host, "-p", str(self.port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"PostgreSQL did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as ``systemctl restart`` does: open connections are ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)

    def close(self) -> None:
        """End it for good; the data are thrown away."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)
        shutil.rmtree(self.socket_folder, ignore_errors=True)

    def create_database(self) -> str:
        """Make an empty database and give its name."""
        import psycopg2

        name = f"test_{secrets.token_hex(6)}"
        with closing(psycopg2.connect(self.dsn("postgres"))) as connection:
            connection.autocommit = True
            connection.cursor().execute(f'CREATE DATABASE "{name}"')
        return name

    def dsn(self, database: str) -> str:
        """A libpq connection string."""
        return (
            f"host={self.host} port={self.port} user={self.username} "
            f"password={self.password} dbname={database}"
        )

    def url(self, database: str) -> str:
        """What deploy/dagster.yaml takes from the environment."""
        return (
            f"postgresql+psycopg2://{self.username}:{self.password}@{self.host}:{self.port}"
            f"/{database}"
        )

    def storage(self, database: str | None = None) -> dict[str, Any]:
        """What ``storage:`` of a dagster.yaml is to be, over a database of its own."""
        return {
            "postgres": {
                "postgres_db": {
                    # named in full: SQLAlchemy 2.1 takes plain `postgresql` for psycopg 3
                    "scheme": "postgresql+psycopg2",
                    "hostname": self.host,
                    "port": self.port,
                    "username": self.username,
                    "password": self.password,
                    "db_name": database or self.create_database(),
                }
            }
        }


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs, newest version first."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdigit()],
    )
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def initialise(programs: Path, folder: Path, password_file: Path, as_user: list[str]) -> Path:
    """Make the server's data folder."""
    data = folder / "data"
    command = [*as_user, programs / "initdb", "-D", data, "-U", "tester", "-E", "UTF8"]
    options = ["--locale=C", "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync"]
    subprocess.run([*command, *options], check=True, capture_output=True, cwd=folder)
    return data


def start_postgres() -> Iterator[PostgresServer]:
    """A running server, ended at last.

    Missing server programs fail the test where ``CI=true`` and skip it elsewhere.
    """
    programs = postgres_programs()
    if programs is None:
        message = "PostgreSQL's server programs (initdb, postgres) are not installed"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    server = PostgresServer(programs)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server; ``postgres.storage()`` is ``storage:`` over a new database."""
    yield from start_postgres()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, which it may stop and start."""
    yield from start_postgres()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of Chromium. Missing, it fails the test where ``CI=true`` and skips it elsewhere."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail("Chromium is not installed")
    pytest.skip("Chromium is not installed")


@pytest.fixture(scope="session")
def restic() -> str:
    """Path of restic. Missing, it fails the test where ``CI=true`` and skips it elsewhere."""
    return _program("restic")


@pytest.fixture(scope="session")
def sftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real SSH server of this test session alone."""
    from sftp_server import sftp_server

    with sftp_server(_program("sshd"), tmp_path_factory.mktemp("sftp")) as server:
        yield server


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """A real S3 server of this test session alone."""
    from s3_server import s3_server

    with s3_server() as server:
        yield server
