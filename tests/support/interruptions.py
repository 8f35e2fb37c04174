"""Under a systemd that runs: interrupt all services in every order, and account for every run.

`in_systemd.py` boots the machine that this runs in, as root. Notebooks of a minute run, six at a
time, and a schedule ticks each minute. Meanwhile the services are killed in each of their 120
orders and restarted in each of their 24, and new code is deployed twice. At the end nothing may
be missing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from proof_notebooks import HARD, LINES, MINUTES, write_project

PROJECT = Path("/srv/research-jobs")
HOME = Path("/var/lib/research-jobs")
EXCHANGE = Path("/mnt/exchange")
URL = "http://127.0.0.1:3000/graphql"
UNITS = ("host", "code", "webserver", "daemon")
# The watch serves nobody: it is there, and interrupted by nothing.
ALL_UNITS = (*UNITS, "watch")
# The code server's child, which holds the definitions.
GRPC = "grpc"
MOST_EXPOSED = 4.0
DEPLOYMENTS = 2

LAUNCH = """
mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
RUNS = """
query ($filter: RunsFilter!) { runsOrError(filter: $filter) { ... on Runs {
  results { runId status startTime tags { key value } } } } }
"""
TICKS = """
query { scheduleOrError(scheduleSelector: {repositoryLocationName: "research_jobs",
    repositoryName: "__repository__", scheduleName: "minutes"}) { ... on Schedule {
  scheduleState { ticks(limit: 500) { timestamp status runIds skipReason error { message } } } } } }
"""
TERMINATE = """
mutation ($id: String!) { terminateRun(runId: $id) { __typename } }
"""
LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"


class Account:
    """What was seen, and what is missing."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def check(self, fine: object, text: str) -> None:
        self.say(f"{'ok     ' if fine else 'MISSING'} {text}")
        if not fine:
            self.missing.append(text)


def shell(command: str, *, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """What a command of root's answers."""
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def ask(query: str, **variables: Any) -> Any:
    """What Dagster's GraphQL answers."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    if "errors" in answer:
        raise OSError(str(answer["errors"]))
    return answer["data"]


def wait_until(what: str, question: Callable[[], Any], limit_s: float = 120) -> Any:
    """The first true answer; the UI may be away meanwhile."""
    end = time.monotonic() + limit_s
    while True:
        answer = None
        with suppress(OSError, ValueError, KeyError):
            answer = question()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {limit_s:g} s")
        time.sleep(0.3)


def loaded() -> bool:
    """Whether the UI is there and has the definitions."""
    return bool(ask(LOADED)["repositoriesOrError"].get("nodes"))


def launch(*notebooks: str) -> str:
    """Launch a run as the UI's button does; its id."""
    wait_until("the UI", loaded)
    params = {
        "selector": {
            "repositoryLocationName": "research_jobs",
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": [name]} for name in notebooks],
        },
        "runConfigData": {},
        "mode": "default",
    }
    answer = ask(LAUNCH, params=params)["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise RuntimeError(str(answer))
    return str(answer["run"]["runId"])


def statuses(runs: Sequence[str]) -> dict[str, str]:
    """The status of each run."""
    found = ask(RUNS, filter={"runIds": list(runs)})["runsOrError"]["results"]
    return {run["runId"]: run["status"] for run in found}


def ended(runs: Sequence[str], limit_s: float = 240) -> dict[str, str]:
    """The statuses of runs, once all have ended."""
    last = {"SUCCESS", "FAILURE", "CANCELED"}

    def over() -> dict[str, str] | None:
        found = statuses(runs)
        return found if set(found.values()) <= last else None

    return wait_until("the end of the runs", over, limit_s)


# -- processes ------------------------------------------------------------------------------------


def main_process(unit: str) -> int:
    """The pid of a unit's main process; 0 while it has none."""
    shown = shell(f"systemctl show --property MainPID --value research-jobs-{unit}")
    return int(shown.stdout.strip() or 0)


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command line of each process of the service's user."""
    listed = shell("ps -u research -o pid=,ppid=,stat=,args= --width 200").stdout
    found: dict[int, tuple[int, str]] = {}
    for line in listed.splitlines():
        pid, parent, state, command = line.split(None, 3)
        if not state.startswith("Z"):
            found[int(pid)] = int(parent), command
    return found


def target_process(target: str) -> int:
    """The process to kill."""
    if target != GRPC:
        return main_process(target)
    server = main_process("code")
    children = (pid for pid, (parent, _) in processes().items() if server and parent == server)
    return next(children, 0)


def worker(run: str) -> int:
    """The process that works on a run."""
    return next((pid for pid, (_, command) in processes().items() if f"run {run}" in command), 0)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


# -- parts of the proof ---------------------------------------------------------------------------


def install(account: Account) -> None:
    """What deploy/install makes; its packages and its environment are there."""
    write_project(PROJECT / "notebooks")
    shell(f"chown -R research: {PROJECT}/notebooks")
    hosts = "--ui-host dagster.example.com --reports-host reports.example.com --tls internal"
    done = shell(f"{PROJECT}/deploy/install {hosts} --yes", timeout=600)
    # The machine has no network, so no clock that is synchronised.
    wrong = re.findall("^WRONG +([^:]+):", done.stdout, re.MULTILINE)
    account.check("\nDone: " in done.stdout and wrong in ([], ["clock"]), "deploy/install")
    if done.returncode:
        account.say(done.stdout + done.stderr)
    wait_until("the UI", loaded, 180)
    for unit in ALL_UNITS:
        shown = shell(f"systemd-analyze security --no-pager research-jobs-{unit}").stdout
        level = re.search(r"exposure level.*?: ([\d.]+)", shown)
        exposed = float(level[1]) if level else 10.0
        account.check(exposed < MOST_EXPOSED, f"research-jobs-{unit}: exposure level {exposed}")


def hard_notebooks(account: Account) -> None:
    """Compiled code, pools and a browser's sandbox, within what the units permit."""
    runs = {launch(name): name for name in HARD}
    for run, status in ended(list(runs)).items():
        account.check(status == "SUCCESS", f"notebook {runs[run]}: {status}")
        if status != "SUCCESS":
            account.say(failure_of(run)[-4000:])


def one_worker(account: Account) -> None:
    """Kill one worker, terminate another run; a third goes on."""
    killed, stopped, left = (launch(name) for name in MINUTES[:3])
    wait_until("their processes", lambda: all(seen_lines(run) for run in (killed, stopped, left)))
    pid = worker(killed)
    theirs = {one for one, (_, command) in processes().items() if MINUTES[0] in command}
    account.check(theirs, f"the notebook's processes of the run to kill: {sorted(theirs)}")
    kill(pid)
    began = time.monotonic()
    gone = False
    while time.monotonic() - began < 10 and not gone:
        gone = not theirs & set(processes())
        time.sleep(0.05)
    took = time.monotonic() - began
    account.check(
        gone and took < 2, f"kill -9 of a worker: its notebook is gone after {took:.1f} s"
    )
    ask(TERMINATE, id=stopped)
    account.check(ended([stopped])[stopped] == "CANCELED", "Terminate in the UI")
    account.check(ended([killed])[killed] == "FAILURE", "the killed worker's run is failed")
    account.check(ended([left])[left] == "SUCCESS", "its neighbour goes on")


def _descends(pid: int, ancestors: set[int], table: dict[int, tuple[int, str]]) -> bool:
    while pid in table and pid not in ancestors:
        pid = table[pid][0]
    return pid in ancestors


def memory(account: Account) -> None:
    """A notebook over its limit: held by the kernel where the machine has the controller."""
    held = "memory" in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
    run = launch("grabs")
    status = ended([run])[run]
    text = failure_of(run)
    account.say(f"the memory controller is {'here' if held else 'not here: limits are polled'}")
    account.check(status == "FAILURE" and "out of memory" in text, "a notebook over its limit")
    if held:
        account.check("the kernel's out-of-memory killer" in text, "the kernel holds the limit")


def failure_of(run: str) -> str:
    """What a run's events say of its failure."""
    query = """
    query ($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events {
      ... on ErrorEvent { error { message causes { message } } } } } } }"""
    return json.dumps(ask(query, id=run)["logsForRun"]["events"])


def log_of(run: str) -> str:
    """All that a run has written to its logs."""
    folder = HOME / "storage" / run / "compute_logs"
    return "\n".join(file.read_text(errors="replace") for file in sorted(folder.glob("*")))


def seen_lines(run: str) -> int:
    """How many of its lines a run's live log has."""
    return len(set(re.findall(r"second \d+", log_of(run))))


def interrupt(target: str, how: str, account: Account) -> None:
    """Kill or restart one service."""
    if how == "restart":
        done = shell(f"systemctl restart research-jobs-{target}", timeout=100)
        if done.returncode:
            account.check(False, f"systemctl restart research-jobs-{target}: {done.stderr}")
        return
    try:
        kill(wait_until(target, lambda: target_process(target), 60))
    except TimeoutError as error:
        account.check(False, f"nothing to kill: {error}")


def deploy(account: Account, number: int) -> None:
    """Bring a new notebook into service: by `research-jobs deploy`."""
    name = f"arrives_{number}"
    (PROJECT / "notebooks" / f"{name}.py").write_text("# %%\nx = 1\n", encoding="utf-8")
    wait_until("the UI", loaded)
    done = shell("research-jobs deploy", timeout=300)
    if done.returncode:
        account.check(False, f"research-jobs deploy: {done.stdout}{done.stderr}")

    def served() -> bool:
        found = ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
        return {"path": [name]} in [one["assetKey"] for one in found]

    wait_until(name, served)
    account.say(f"ok      a deployment: the UI shows {name}")


def storm(account: Account, most: int, seed: int) -> list[str]:
    """Interrupt in every order while notebooks run; the runs."""
    orders = [("kill", order) for order in itertools.permutations((*UNITS, GRPC))]
    orders += [("restart", order) for order in itertools.permutations(UNITS)]
    random.Random(seed).shuffle(orders)
    orders = orders[:most]
    deployments = {(number + 1) * len(orders) // (DEPLOYMENTS + 1) for number in range(DEPLOYMENTS)}
    runs: list[str] = []
    wave: list[str] = []
    launched = 0.0
    for number, (how, order) in enumerate(orders):
        if not running(wave) or time.monotonic() - launched > 3 * LINES:
            wave = [launch(name) for name in MINUTES]
            runs += wave
            launched = time.monotonic()
            wait_until("the first line of each", partial(all_began, wave))
        before, began = {run: seen_lines(run) for run in wave}, time.monotonic()
        for target in order:
            interrupt(target, how, account)
        wait_until("all services", lambda: all(map(main_process, ALL_UNITS)))
        if number in deployments:
            deploy(account, number)
        took = time.monotonic() - began
        grown = [run for run in wave if before[run] < seen_lines(run) or before[run] == LINES]
        text = f"{number + 1:3}/{len(orders)} {how:7} {' '.join(order)}: {took:.0f} s"
        account.say(text)
        if len(grown) < len(wave) and took > 5:
            account.check(False, f"{text}: {len(wave) - len(grown)} live logs stood still")
    return runs


def all_began(runs: Sequence[str]) -> bool:
    """Whether each of the runs has written a line."""
    return all(map(seen_lines, runs))


def running(runs: Sequence[str]) -> bool:
    """Whether one of the runs still runs, from their logs alone."""
    return any(seen_lines(run) < LINES for run in runs)


def settle(account: Account, runs: Sequence[str]) -> None:
    """Every run of the storm."""
    found = ended(runs, 300)
    names = [MINUTES[number % len(MINUTES)] for number in range(len(runs))]
    for run, name in zip(runs, names, strict=True):
        status, lines = found[run], seen_lines(run)
        report = list((PROJECT / "reports" / name / "_runs").glob(f"*-{run[:8]}*/report.html"))
        stored = outputs_of(run)
        fine = status == "SUCCESS" and lines == LINES and report and stored == [name]
        account.check(
            fine,
            f"{run[:8]} {name}: {status}, {lines} lines live, "
            f"{len(report)} report, published {', '.join(stored) or 'nothing'}",
        )


def outputs_of(run: str) -> list[str]:
    """The notebooks whose outputs a run has published."""
    query = """
    query ($id: ID!) { runOrError(runId: $id) { ... on Run { assetMaterializations {
      assetKey { path } } } } }"""
    found = ask(query, id=run)["runOrError"]["assetMaterializations"]
    return ["/".join(one["assetKey"]["path"]) for one in found]


def ticks(account: Account, began: float) -> None:
    """Each minute since then has its tick, and each tick its run, which may be a retry."""
    now = time.time()
    due = range((int(began) // 60 + 1) * 60, int(now) - 30, 60)

    def seen() -> dict[int, Any] | None:
        found = ask(TICKS)["scheduleOrError"]["scheduleState"]["ticks"]
        at = {int(one["timestamp"]): one for one in found}
        return at if any(at[one]["runIds"] for one in at if one > due[-1]) else None

    at = wait_until("the ticks", seen, 200)
    fine = 0
    for minute in due:
        when = time.strftime("tick %H:%M", time.gmtime(minute))
        tick = at.get(minute)
        if tick is None or not tick["runIds"]:
            # At that moment there was no daemon, or no code server. Without partitions, the
            # schedule's next tick makes up for those before it.
            why = ((tick or {}).get("error") or {}).get("message") or "nobody was there"
            later = [one for one in at if one > minute and at[one]["runIds"]]
            made_up = time.strftime("%H:%M", time.gmtime(min(later))) if later else "none"
            account.check(later, f"{when}: {why[:200]}; made up for by the tick of {made_up}")
            continue
        (run,) = tick["runIds"]
        status = ended([run], 300)[run]
        if status == "SUCCESS":
            fine += 1
        else:
            why = failure_of(run)[:300]
            account.check(retried(run), f"{when}: run {run[:8]} {status}, tried again. {why}")
    account.say(f"{fine} of {len(due)} ticks had a run that succeeded at once")


def retried(run: str) -> bool:
    """Whether a run that failed was tried again, and that run succeeded."""
    tags = [{"key": "dagster/root_run_id", "value": run}]

    def succeeded() -> bool:
        found = ask(RUNS, filter={"tags": tags})["runsOrError"]["results"]
        return any(one["status"] == "SUCCESS" for one in found)

    try:
        return wait_until("a retry", succeeded, 120)
    except TimeoutError:
        return False


def any_tick() -> bool:
    """Whether the schedule has ticked."""
    return bool(ask(TICKS)["scheduleOrError"]["scheduleState"]["ticks"])


def leftovers(account: Account) -> None:
    """No process is there but the units' own."""

    def strange() -> list[str]:
        own, table = {main_process(unit) for unit in ALL_UNITS}, processes()
        return [f"{pid} {table[pid][1]}" for pid in table if not _descends(pid, own, table)]

    end = time.monotonic() + 120
    while (found := strange()) and time.monotonic() < end:
        time.sleep(1)
    account.check(not found, "no process is left over")
    for line in found:
        account.say(f"        {line}")


def main() -> int:
    """Do all of it, and print the account."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=1000, help="at most so many (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    account = Account()
    try:
        install(account)
        # A daemon that sees a schedule for the first time begins with the next tick.
        wait_until("the first tick", any_tick, 200)
        began = time.time()
        hard_notebooks(account)
        memory(account)
        one_worker(account)
        runs = storm(account, options.orders, options.seed)
        wait_until("the UI", loaded)
        settle(account, runs)
        ticks(account, began)
        leftovers(account)
    except Exception as error:  # noqa: BLE001 - the account must end
        account.check(False, f"{type(error).__name__}: {error}")
    print(f"\n{len(account.missing)} missing" if account.missing else "\nNothing is missing.")
    for text in account.missing:
        print(f"- {text}")
    status = 1 if account.missing else 0
    (EXCHANGE / "status").write_text(str(status))
    return status


if __name__ == "__main__":
    sys.exit(main())
