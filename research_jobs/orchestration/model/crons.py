"""What Dagster makes of a cron expression."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

from research_jobs.filesystem import write_atomically

__all__ = ["check_cron", "remembered_crons"]

Verdict = Literal["valid", "invalid", "never fires"]
_VERDICTS = get_args(Verdict)

_SOME_TIME = 1_700_000_000.0


@lru_cache(maxsize=4096)
def check_cron(expression: str) -> Verdict:
    """Whether Dagster makes a schedule of an expression, and finds a time at which it fires.

    Parameters
    ----------
    expression : str
    """
    # A project without schedules is read without Dagster.
    import dagster as dg

    from research_jobs.orchestration.compat.instance import cron_ticks

    try:
        with warnings.catch_warnings():
            # of steps longer than their field; the schedule itself says it again
            warnings.simplefilter("ignore")
            dg.ScheduleDefinition(name="cron", job_name="cron", cron_schedule=expression)
    except dg.DagsterInvalidDefinitionError:
        return "invalid"
    try:
        next(cron_ticks([expression], "UTC", _SOME_TIME))
    except Exception:  # noqa: BLE001 - Dagster's own library raises several
        return "never fires"
    return "valid"


def remembered_crons(cache: Path) -> Callable[[str], Verdict]:
    """As `check_cron`, which imports Dagster only for what it has not judged before.

    Parameters
    ----------
    cache : Path
        The folder for what is remembered; nothing is where it cannot be written.
    """
    place = cache / "crons.json"
    dagster = version("dagster")
    known: dict[str, Verdict] = {}
    with suppress(OSError, ValueError, AttributeError):
        said = json.loads(place.read_bytes()).get(dagster, {}).items()
        known = {expression: verdict for expression, verdict in said if verdict in _VERDICTS}

    def check(expression: str) -> Verdict:
        if expression not in known:
            known[expression] = check_cron(expression)
            with suppress(OSError):
                write_atomically(place, json.dumps({dagster: known}).encode())
        return known[expression]

    return check
