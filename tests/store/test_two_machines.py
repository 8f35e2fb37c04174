"""Two machines: two users with a project folder each, and one bucket."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from s3_server import S3Server
from users import ROOT, as_user

from research_jobs.protocol import PartitionKey
from research_jobs.report.mirror import Mirror
from research_jobs.report.stored import stored_reports
from research_jobs.store.load import load
from research_jobs.store.stored import stored_versions

TIMES = int(os.environ.get("PUBLISHES", "200")) // 2
USERS = (61001, 61002, 61003)
MACHINE = ROOT / "tests" / "support" / "machine.py"


@pytest.mark.timeout(1800)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
def test_two_hundred_publishes_of_one_partition(
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Runs of two users lose no version and no report; a third never reads a mixture of two."""
    folder = Path(tempfile.mkdtemp(prefix="machines-"))  # pytest closes its own to other users
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    folder.chmod(0o711)
    bucket = s3.make_bucket()
    url, shared = f"s3://{bucket}/data", f"s3://{bucket}/reports"
    environment = s3.environment | {
        "RESEARCH_JOBS_STORE": url,
        "RESEARCH_JOBS_SHARED_REPORTS": shared,
        "PATH": os.environ["PATH"],
    }
    ended = folder / "ended"

    def start(user: int, *arguments: object) -> subprocess.Popen[str]:
        """A process of the user's, in a folder that nobody else enters."""
        home = folder / str(user)
        home.mkdir(mode=0o700)
        os.chown(home, user, user)
        process = subprocess.Popen(
            [*as_user(user), sys.executable, str(MACHINE), *map(str, arguments)],
            cwd=home,
            env=environment | {"HOME": str(home), "TMPDIR": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        request.addfinalizer(process.kill)
        return process

    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    publishers = [start(user, "publish", folder / str(user), TIMES) for user in USERS[:2]]
    reader = start(USERS[2], "read", ended)
    said = [each.communicate()[0] for each in publishers]
    ended.touch()
    read, _ = reader.communicate()
    assert [each.returncode for each in (*publishers, reader)] == [0, 0, 0], "\n".join(
        [*said, read]
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\n{time.monotonic() - began:.0f} s, {cpu:.0f} s of CPU, read {read.split()[-1]} times")

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    day = PartitionKey("2024-01-01", {"day": "2024-01-01"})
    versions = stored_versions(url, "shared", day)
    assert len({version.id for version in versions}) == 2 * TIMES
    assert len({version.run_id for version in versions}) == 2 * TIMES
    values = set()
    for version in versions:
        x, y = (load("shared", name, day.key, version=version.id) for name in "xy")
        assert x == y
        values.add(x)
    assert len(values) == 2 * TIMES
    assert {int(value.split()[0]) for value in values} == set(USERS[:2])

    reports = Mirror(folder / "reports", shared, keep=30)
    came = reports.sync()
    assert len(came) == 30
    assert {report.outcome.run_id for report in stored_reports(reports.reports, "shared")} <= {
        version.run_id for version in versions
    }
    assert len(list(reports.prune())) == 2 * TIMES - 30
