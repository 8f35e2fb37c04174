"""Commands and launched runs in processes that the host forks."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from hosted import SLEEPS, Hosted, finish, wait_until

from research_jobs.orchestration.model.workers import worker_of
from research_jobs.resident.client import NoHostError, start_run
from research_jobs.runtime import processes


def test_a_command_is_as_without_a_host(hosted: Hosted) -> None:
    """Output, errors, exit codes and results of `run` are those of a run without the host."""
    hosted.manifest("notebooks: {adds: {outputs: [total]}}")
    hosted.write("adds", "# %%\nimport os\ntotal = 40 + 2\nprint(os.getppid())\n")
    hosted.write("breaks", "# %%\n1 / 0\n")
    for words, status in ((("adds",), 0), (("breaks",), 1), (("addz",), 2), (("adds", "-p"), 2)):
        by_host = hosted.command("run", *words)
        alone = hosted.command("run", *words, "--no-host")
        assert (by_host.returncode, alone.returncode) == (status, status), by_host.stderr
        assert _shape(by_host.stdout) == _shape(alone.stdout)
        assert _shape(by_host.stderr) == _shape(alone.stderr)
    assert hosted.value("adds", "total") == 42


def _shape(text: str) -> list[str]:
    """Lines without their times and run ids."""
    text = re.sub(r"_runs/\S+/", "", text)
    lines = (re.sub(r" *\d+\.\d s", " T s", line.split(" in ")[0]) for line in text.splitlines())
    return [re.sub(" +", " ", line) for line in lines]


def test_a_command_keeps_folder_and_streams(hosted: Hosted) -> None:
    """A hosted command finds its project by the caller's folder, and writes into its pipes."""
    hosted.manifest("{}")
    hosted.write("adds", "# %%\nprint('hello')\n")
    done = hosted.command("run", "adds", "--json", "--project", ".")
    (outcome,) = json.loads(done.stdout)
    assert outcome["ending"] == "succeeded"


def test_processes_of_runs_are_the_hosts(own: Hosted) -> None:
    """Runs from a shell and from a launcher are forked from the host, and share its template."""
    own.write("sleeps", SLEEPS)
    own.start()
    host = own.status()["pid"]
    template = _named(host, "rj-template")
    began = own.root / "notebooks" / "began"
    command = own.begin("run", "sleeps")
    wait_until(began.exists)
    assert _named(host, "rj-command")
    began.unlink()
    run = own.launch()
    wait_until(began.exists)
    (worker,) = _named(host, "rj-run")
    assert worker_of(next(one for one in own.runs() if one.run_id == run.run_id)).pid == worker
    (own.root / "notebooks" / "go").touch()
    assert finish(command) == 0
    assert own.ended(run).is_success
    assert _named(host, "rj-template") == template
    assert any("Started process for run" in line for line in own.events(run))
    assert not any("Launched by the code server" in line for line in own.events(run))


def _named(parent: int, name: str) -> list[int]:
    children = processes.children_of(parent) or []
    return [pid for pid in children if _name_of(pid) == name]


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_interrupted_in_a_terminal(own: Hosted) -> None:
    """Ctrl-C reaches the hosted command: it ends its notebook and exits as it does alone."""
    own.write("sleeps", SLEEPS)
    own.start()
    command = own.begin("run", "sleeps")
    wait_until((own.root / "notebooks" / "began").exists)
    command.send_signal(signal.SIGINT)
    text = command.communicate(timeout=60)[0]
    assert "sleeps cancelled" in text
    assert command.returncode == 130
    wait_until(lambda: not own.status()["runs"])


def test_a_killed_command_takes_its_notebook_along(own: Hosted) -> None:
    """Nothing of a command is left once the terminal's process was killed."""
    own.write("sleeps", SLEEPS)
    own.start()
    host = own.status()["pid"]
    command = own.begin("run", "sleeps")
    wait_until((own.root / "notebooks" / "began").exists)
    (child,) = _named(host, "rj-command")
    command.kill()
    command.communicate()
    wait_until(lambda: not processes.alive(child))
    (run,) = own.runs()
    assert run.status.value == "CANCELED"


def test_no_host_no_difference(own: Hosted) -> None:
    """Without a host a run is launched by the code server, and the first one says why."""
    own.manifest("notebooks: {adds: {outputs: [total]}}")
    own.write("adds", "# %%\ntotal = 1\n")
    run = own.ended(own.launch())
    assert run.is_success
    said = [line for line in own.events(run) if "Launched by the code server" in line]
    assert said == ["Launched by the code server: no host runs for this project and environment."]
    assert own.command("run", "adds").returncode == 0


def test_a_worker_that_is_killed(own: Hosted) -> None:
    """A killed worker's notebook dies with it, nobody else's, and its run fails with the reason."""
    own.write("sleeps", SLEEPS)
    own.start()
    host = own.status()["pid"]
    began = own.root / "notebooks" / "began"
    other = own.begin("run", "sleeps")
    wait_until(began.exists)
    began.unlink()
    run = own.launch()
    wait_until(began.exists)
    (worker,) = _named(host, "rj-run")
    guardians = set(_guardians(worker))
    os.kill(worker, signal.SIGKILL)
    failed = own.ended(run)
    assert failed.status.value == "FAILURE"
    assert f"Its process {worker} was ended by SIGKILL." in own.events(run)
    assert not any(map(processes.alive, guardians))
    (own.root / "notebooks" / "go").touch()
    assert finish(other) == 0


def _guardians(worker: int) -> list[int]:
    """Processes with a descriptor of the worker: those that guard its notebooks."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*/fdinfo"):
        try:
            infos = [entry.read_text() for entry in folder.iterdir()]
        except OSError:
            continue
        if any(f"\nPid:\t{worker}\n" in info for info in infos):
            found.append(int(folder.parent.name))
    return [pid for pid in found if pid != worker]


def test_a_run_that_does_not_exist(hosted: Hosted) -> None:
    """A request for a run that nobody stored ends its process, and the host goes on."""
    pid = start_run_of(hosted, "no-such-run")
    wait_until(lambda: not processes.alive(pid))
    assert hosted.answers()


def start_run_of(hosted: Hosted, run_id: str) -> int:
    """Ask the host in the name of a launcher with its environment."""
    from research_jobs.orchestration.compat.instance import open_instance
    from research_jobs.orchestration.compat.run_worker import instance_text

    with open_instance(hosted.root / "home") as instance:
        text = instance_text(instance)
    before = dict(os.environ)
    os.environ.update(hosted.environment)
    try:
        return start_run(hosted.project, run_id, text)
    except NoHostError as error:  # pragma: no cover - shows why
        raise AssertionError(error.headline) from error
    finally:
        os.environ.clear()
        os.environ.update(before)


CALLER = """
import os, sys
from research_jobs import run_notebook

print(run_notebook("says_who", results=["parents"])[0], os.getpid(), flush=True)
"""


def test_a_program_borrows_the_template(hosted: Hosted) -> None:
    """`run_notebook` forks from the host's template, and its runs end with the program."""
    hosted.manifest("{}")
    hosted.write(
        "says_who",
        """
        # %%
        import os
        from pathlib import Path


        def parent(pid):
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


        guardian = os.getppid()
        parents = [guardian, parent(guardian), parent(parent(guardian))]
        """,
    )
    host = hosted.status()["pid"]
    done = hosted.python(CALLER)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("]")[0].endswith(f" {host}")
    _guardian, template, _host = map(int, done.stdout.split("[")[1].split("]")[0].split(","))
    assert hosted.python(CALLER).stdout.count(f" {template}, {host}]") == 1


def test_a_killed_program_takes_its_notebook_along(own: Hosted) -> None:
    """The guardian of a borrowed template watches the program that called."""
    says_who = """write_text(str(__import__('os').getpid()))"""
    own.write("sleeps", SLEEPS.replace('write_text("")', says_who))
    own.start()
    caller = own.begin_python("import research_jobs\nresearch_jobs.run_notebook('sleeps', [])\n")
    began = own.root / "notebooks" / "began"
    wait_until(lambda: began.exists() and began.read_text())
    notebook = int(began.read_text())
    caller.kill()
    caller.communicate()
    wait_until(lambda: not processes.alive(notebook), limit_s=5)
    assert own.answers()
