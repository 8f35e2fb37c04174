"""Every check of an installation: what is wrong, and the command or edit that mends it.

A check is one function of the list below. It takes a `Site` and returns an `Answer`. One that
cannot be made answers ``ok: null``, and one that hangs is given up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from research_jobs.errors import first_line
from research_jobs.orchestration.operations import (
    diagnosis_environment,
    diagnosis_files,
    diagnosis_services,
)
from research_jobs.orchestration.operations.diagnosis import Answer, Site, ill, unknown
from research_jobs.orchestration.operations.rounds import Check

__all__ = ["CHECKS", "examine"]

# Seconds that a check may take.
ANSWER_S = 30.0

CHECKS: Mapping[str, Callable[[Site], Answer]] = {
    "python": diagnosis_environment.check_python,
    "packages": diagnosis_environment.check_packages,
    "dagster": diagnosis_environment.check_dagster,
    "history": diagnosis_services.check_history,
    "daemon": diagnosis_services.check_daemon,
    "code": diagnosis_services.check_code,
    "host": diagnosis_services.check_host,
    "template": diagnosis_services.check_template,
    "store": diagnosis_files.check_store,
    "permissions": diagnosis_files.check_permissions,
    "disk": diagnosis_files.check_disk,
    "clock": diagnosis_environment.check_clock,
    "time zone": diagnosis_environment.check_time_zone,
    "units": diagnosis_files.check_units,
    "listeners": diagnosis_services.check_listeners,
    "alerts": diagnosis_files.check_alerts,
    "backup": diagnosis_files.check_backup,
    "prune": diagnosis_files.check_prune,
}
"""Name to check, in the order of the report."""


def examine(site: Site) -> list[Check]:
    """Make every check, one after the other.

    Parameters
    ----------
    site : Site

    Returns
    -------
    list of Check
    """
    return [_examined(name, check, site) for name, check in CHECKS.items()]


def _examined(name: str, check: Callable[[Site], Answer], site: Site) -> Check:
    answers: list[Answer] = []

    def work() -> None:
        try:
            answers.append(check(site))
        except Exception as error:  # noqa: BLE001 - one check that fails hides no other
            answers.append(unknown(f"cannot be checked: {first_line(error)}"))

    # What hangs does not keep the process: it is a daemon.
    thread = threading.Thread(target=work, name=f"check {name}", daemon=True)
    thread.start()
    thread.join(ANSWER_S)
    hangs = ill(f"no answer within {ANSWER_S:.0f} seconds", "Look at what it waits for.")
    answer = answers[0] if answers else hangs
    return Check(name, answer.ok, answer.detail, answer.fix)
