"""What the guarded webserver rests on: where Dagster's own programs must pass."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import sys
from research_jobs.orchestration.compat import webserver

{body}
"""


def run(body: str) -> list[str]:
    """Run a program in a process of its own: what it changes holds for the whole process."""
    program = PROGRAM.format(body=textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_dagsters_webserver_is_wrapped(tmp_path) -> None:
    """What dagster-webserver serves goes through uvicorn's configuration, and so through ours."""
    said = run(
        f"""
        import os, runpy, uvicorn
        os.environ["DAGSTER_HOME"] = {str(tmp_path)!r}
        def wrap(app, host):
            print("wrapped", type(app).__name__, host)
            return app
        webserver.wrap_applications(wrap)
        def serve(*_, **__):
            print("served")
            raise SystemExit(0)
        uvicorn.Server.run = serve
        sys.argv = ["dagster-webserver", "--empty-workspace", "--host", "localhost"]
        runpy.run_module("dagster_webserver", run_name="__main__", alter_sys=True)
        """
    )
    assert said[-4:] == ["wrapped", "Starlette", "localhost", "served"]


def test_dagster_dev_starts_our_programs(tmp_path) -> None:
    """Webserver, daemon and code server of ``dagster dev`` are modules; ours take their place."""
    (tmp_path / "one.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    said = run(
        f"""
        import os, runpy, subprocess
        os.environ["DAGSTER_HOME"] = {str(tmp_path)!r}
        start = subprocess.Popen.__init__
        def record(self, args, *rest, **options):
            ours = args[2:3]
            if ours in (["ours.web"], ["ours.daemon"]):
                args = [sys.executable, "-c", "pass"]
            elif ours == ["ours.code"]:
                args = [*args[:2], "dagster", "code-server", "start", *args[3:]]
            print(*ours)
            start(self, args, *rest, **options)
        subprocess.Popen.__init__ = record
        webserver.replace_programs({{
            webserver.WEBSERVER: "ours.web",
            webserver.DAEMON: "ours.daemon",
            webserver.CODE_SERVER: "ours.code",
        }})
        sys.argv = ["dagster", "dev", "-f", "one.py", "--log-level", "critical"]
        os.chdir({str(tmp_path)!r})
        runpy.run_module("dagster", run_name="__main__", alter_sys=True)
        """
    )
    assert [word for word in said if "ours." in word] == ["ours.code", "ours.web", "ours.daemon"]


@pytest.mark.parametrize(
    "words",
    [["a", "dagster_webserver"], ["python", "-m", "dagster_webserver"], "true", ("a", "b")],
)
def test_other_programs_are_started_as_they_are(words) -> None:
    """Only a module that this very interpreter runs is replaced."""
    said = run(
        f"""
        import subprocess
        def start(self, args, *rest, **options):
            print(args)
        subprocess.Popen.__init__ = start
        subprocess.Popen.__del__ = lambda self: None
        webserver.replace_programs({{webserver.WEBSERVER: "ours"}})
        subprocess.Popen({words!r})
        """
    )
    assert "".join(said) == str(words).replace(" ", "")
