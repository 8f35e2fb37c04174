"""The days on which an exchange is closed, as ``exchange_calendars`` knows them.

That package imports pandas, which a code location must not do while it loads. So another process
asks it, once for each calendar and span of years, and the answer is kept as a small JSON file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from datetime import date, timedelta
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from research_jobs.errors import PartitionError, did_you_mean
from research_jobs.filesystem import write_atomically
from research_jobs.orchestration.model.answers import ask_python

__all__ = ["closed_days"]

# Runs in the other process. Prints {"sessions": [...]} or {"error": ..., "names": [...]}.
_ASK = """
import json, sys, warnings
warnings.simplefilter("ignore")
name, first, last = sys.argv[1:4]
try:
    import exchange_calendars as xc
    if name not in xc.get_calendar_names():
        answer = {"unknown": True, "names": xc.get_calendar_names()}
    else:
        import pandas as pd
        calendar = xc.get_calendar(name)
        low, high = calendar.bound_min(), calendar.bound_max()
        start = max(pd.Timestamp(first), low) if low is not None else pd.Timestamp(first)
        end = min(pd.Timestamp(last), high) if high is not None else pd.Timestamp(last)
        sessions = xc.get_calendar(name, start=start, end=end).sessions
        answer = {
            "first": start.strftime("%Y-%m-%d"),
            "last": end.strftime("%Y-%m-%d"),
            "sessions": [day.strftime("%Y-%m-%d") for day in sessions],
        }
except Exception as error:
    answer = {"error": f"{type(error).__name__}: {error}"[:200]}
json.dump(answer, sys.stdout)
"""


def closed_days(
    calendar: str, first: date, last: date, *, cache: Path | None = None
) -> tuple[date, ...]:
    """Days from `first` to `last` on which a market is closed.

    Parameters
    ----------
    calendar : str
        An exchange's code (``"XNYS"``) or an alias that the package knows (``"NYSE"``).
    first, last : date
        Both inclusive.
    cache : Path, optional
        Folder in which answers are kept.

    Returns
    -------
    tuple of date
        In order. A span that the calendar does not know counts as closed, as nothing says that
        the market was open.

    Raises
    ------
    PartitionError
        Without the package, for an unknown calendar (close names are suggested), or when the
        package cannot create the calendar.
    """
    try:
        package = version("exchange_calendars")
    except PackageNotFoundError:
        raise PartitionError(
            f"calendar {calendar} needs the package exchange_calendars, which is not installed",
            hint="pip install exchange_calendars",
        ) from None
    open_days = set(_sessions(calendar, first, last, package, cache))
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return tuple(day for day in days if day not in open_days)


@lru_cache(maxsize=64)
def _sessions(
    calendar: str, first: date, last: date, package: str, cache: Path | None
) -> Sequence[date]:
    safe = "".join(c if c.isalnum() else "_" for c in calendar)
    kept = (
        cache / "calendars" / f"{safe}-{first}-{last}-{package}.json" if cache is not None else None
    )
    if kept is not None:
        try:
            return tuple(date.fromisoformat(day) for day in json.loads(kept.read_text()))
        except (OSError, ValueError, TypeError):
            pass  # not there yet, or half written by something that died: ask again
    # As whole texts they are compared and kept; the process gets nothing but these arguments.
    answer = ask_python(["-c", _ASK, calendar, first.isoformat(), last.isoformat()], 120)
    if answer.get("unknown"):
        raise PartitionError(
            f"unknown calendar '{calendar}'",
            hint=did_you_mean(calendar, answer["names"], label="Calendars"),
        )
    if "error" in answer:
        raise PartitionError(
            f"exchange_calendars cannot create the calendar {calendar}: {answer['error']}",
            hint="Try a newer version of that package, or leave calendar out.",
        )
    days: list[str] = answer["sessions"]
    if kept is not None:
        _keep(kept, days)
    return tuple(date.fromisoformat(day) for day in days)


def _keep(path: Path, days: list[str]) -> None:
    """Write beside and rename, so that a reader sees a whole answer or none."""
    with contextlib.suppress(OSError):  # a cache that cannot be kept costs time, nothing else
        write_atomically(path, json.dumps(days).encode(), private=True)
