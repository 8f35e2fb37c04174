"""``research-jobs backfill``: run notebooks over many partitions, in one run."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, Self

from research_jobs.cli.output import complain, duration, print_json, print_table
from research_jobs.cli.run import add_parameters, read_parameters
from research_jobs.outcome import Outcome, State, to_json
from research_jobs.project import find_project

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from research_jobs.orchestration.operations.backfill import (
        BackfillSummary,
        Only,
        PlannedNotebook,
    )

__all__ = ["add_arguments", "run", "show_plan", "summary_json"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebooks", nargs="+", metavar="NOTEBOOK", help="as in: momentum_signals")
    which = parser.add_argument_group("which partitions")
    which.add_argument(
        "--from", dest="first", metavar="KEY", help="the first partition: a key, day, month or year"
    )
    which.add_argument("--to", dest="last", metavar="KEY", help="the last partition, inclusive")
    which.add_argument(
        "--partitions", nargs="+", metavar="KEY", help="partition keys or patterns: '2018-11-*'"
    )
    which.add_argument("--all", action="store_true", help="all partitions up to now")
    among = parser.add_argument_group("only some of them").add_mutually_exclusive_group()
    among.add_argument("--missing", action="store_true", help="partitions without data")
    among.add_argument("--failed", action="store_true", help="partitions whose last run failed")
    among.add_argument(
        "--stale",
        action="store_true",
        help="partitions whose code or inputs changed since their last run",
    )
    parser.add_argument(
        "--concurrency", type=int, metavar="N", help="how many partitions run at once"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would run, and run nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_parameters(parser)
    parser.epilog = (
        "Ctrl-C keeps finished partitions: the same command with --missing continues.\n"
        "Exit code: 0 when every partition succeeded or was skipped, 1 when one did not, "
        "2 for a usage error."
    )


def run(arguments: argparse.Namespace) -> int:
    """Plan, run, sum up."""
    chosen = arguments.first or arguments.last or arguments.partitions
    only = _only(arguments)
    if bool(chosen) + bool(arguments.all) == 0 and only == "all":
        complain(
            "research-jobs backfill: say which partitions: --from and --to, --partitions, --all, "
            "or --missing, --failed, --stale."
        )
        return 2
    if arguments.all and chosen:
        complain("research-jobs backfill: give --all or a range, not both.")
        return 2
    if arguments.partitions and (arguments.first or arguments.last):
        complain("research-jobs backfill: give --partitions or --from and --to, not both.")
        return 2
    if arguments.concurrency is not None and arguments.concurrency < 1:
        complain("research-jobs backfill: --concurrency is at least 1.")
        return 2
    project = find_project(arguments.project)

    if not arguments.dry_run:
        from research_jobs.supervisor.shared import warm_up

        warm_up(project)

    from research_jobs.orchestration.operations.backfill import backfill
    from research_jobs.orchestration.operations.entries import find_entries, given_parameters
    from research_jobs.orchestration.operations.launch import interruptible
    from research_jobs.orchestration.operations.session import open_session

    with (
        open_session(project) as session,
        _Bar(quiet=arguments.json) as bar,
        interruptible(),
    ):
        session.catalog.remember_preload()
        names = [entry.name for entry in find_entries(session.catalog, arguments.notebooks)]
        session.refresh_keys(names)
        summary = backfill(
            session.instance,
            session.catalog,
            names,
            definitions=session.definitions,
            first=arguments.first,
            last=arguments.last,
            keys=arguments.partitions or (),
            only=only,
            parameters=given_parameters(
                session.catalog, names, read_parameters(arguments.parameter)
            ),
            concurrency=arguments.concurrency,
            dry_run=arguments.dry_run,
            on_plan=bar.planned,
            on_progress=bar.outcome,
        )
    if arguments.json:
        print_json(summary_json(summary))
    elif arguments.dry_run:
        show_plan("backfill", summary)
    else:
        _show_summary(summary, arguments)
    if summary.interrupted:
        return 130
    return 0 if summary.ok else 1


def _only(arguments: argparse.Namespace) -> Only:
    if arguments.missing:
        return "missing"
    if arguments.failed:
        return "failed"
    return "stale" if arguments.stale else "all"


class _Bar:
    """A bar with rate and time left on a terminal; where piped, a line now and then."""

    INTERVAL_S = 5.0

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._stream = sys.stderr if quiet else sys.stdout
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._total = self._done = self._bad = 0
        self._causes: set[tuple[str, State, str]] = set()
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def planned(self, plan: tuple[PlannedNotebook, ...]) -> None:
        """What there is to do is known."""
        self._total = sum(len(planned.keys) for planned in plan)
        self._started = self._printed = time.monotonic()
        if self._total and self._stream.isatty():
            self._progress = _rich_progress(self._stream)
            self._progress.start()
            self._task = self._progress.add_task("backfill", total=self._total, bad="")

    def outcome(self, outcome: Outcome) -> None:
        """A partition is done with."""
        if outcome.state is State.CANCELLED:
            return  # the summary counts them
        self._done += 1
        bad = not outcome.state.ok
        self._bad += bad
        # Of equal causes the first is shown as it happens; the summary counts them.
        shown = bad and _cause(outcome) not in self._causes
        self._causes.add(_cause(outcome))
        label = f"{outcome.label} {outcome.state.words}"
        if self._progress is not None and self._task is not None:
            if shown:
                self._progress.console.print(
                    f"{label}: {outcome.reason}", style="red", highlight=False, markup=False
                )
            said = f"{self._bad} did not succeed" if self._bad else ""
            self._progress.update(self._task, advance=1, bad=said)
            return
        if self._quiet:
            return
        if shown:
            print(f"{label}: {outcome.reason}", file=self._stream, flush=True)
        now = time.monotonic()
        if now - self._printed >= self.INTERVAL_S or self._done == self._total:
            self._printed = now
            print(f"{self._done} of {self._total}, {self._rate(now)}", flush=True)

    def _rate(self, now: float) -> str:
        passed = max(now - self._started, 1e-9)
        left = (self._total - self._done) * passed / max(self._done, 1)
        text = f"{self._done / passed:.1f} a second"
        return f"{text}, {duration(left)} left" if self._done < self._total else text


def _rich_progress(stream: Any) -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")

    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[bad]}"),
        console=Console(file=stream),
    )


def show_plan(command: str, summary: BackfillSummary) -> None:
    """What a dry run of a command found."""
    rows = [
        [
            planned.notebook,
            str(planned.to_run),
            str(planned.selected),
            str(planned.skipped_before or ""),
            _ends(planned.keys),
        ]
        for planned in summary.plan
    ]
    columns = ["notebook", "to run", "selected", "skipped before", "partitions"]
    print_table(columns, rows, right=["to run", "selected", "skipped before"])
    for line in summary.foreseen:
        complain(f"research-jobs {command}: {line}")


def _ends(keys: tuple[str, ...]) -> str:
    if len(keys) <= 3:
        return ", ".join(keys)
    return f"{keys[0]} … {keys[-1]}"


def _show_summary(summary: BackfillSummary, arguments: argparse.Namespace) -> None:
    total = sum(len(planned.keys) for planned in summary.plan)
    if total == 0:
        print("Nothing to run.")
        return
    states = sorted(summary.counts, key=lambda state: state.order)
    counts = [f"{summary.counts[state]} {state.words}" for state in states]
    done = sum(count for state, count in summary.counts.items() if state.ended)
    rate = f", {done / summary.duration_s:.1f} a second" if summary.duration_s and done else ""
    stopped = "Interrupted: " if summary.interrupted else ""
    print(f"{stopped}{', '.join(counts)} in {duration(summary.duration_s)}{rate}")
    for line in grouped_problems(summary):
        print(line)
    runs = ", ".join(run_id[:8] for run_id in summary.run_ids)
    print(f"{'Run' if len(summary.run_ids) == 1 else 'Runs'} {runs}")
    if not summary.ok:
        words = " ".join(arguments.notebooks)
        print(
            f"Go on with what is left:  research-jobs backfill {words} --missing{_range(arguments)}"
        )


def _cause(outcome: Outcome) -> tuple[str, State, str]:
    """What is equal for partitions that did not succeed for the same reason."""
    reason = (outcome.reason or "").replace(outcome.partition or "", "<partition>")
    return outcome.notebook, outcome.state, reason


def grouped_problems(summary: BackfillSummary) -> list[str]:
    """A line for each cause that several partitions share: how many, which, and why."""
    groups: dict[tuple[str, State, str], list[str]] = {}
    for outcome in summary.problems:
        groups.setdefault(_cause(outcome), []).append(outcome.partition or "")
    planned = {part.notebook: part.keys for part in summary.plan}
    return [
        f"{notebook} {state.words} for {len(keys)} partitions "
        f"({_spans(planned[notebook], keys)}): {reason}"
        for (notebook, state, reason), keys in groups.items()
        if len(keys) > 1 and state is not State.CANCELLED
    ]


def _spans(ordered: tuple[str, ...], keys: list[str]) -> str:
    """Partitions as spans of those that follow one another in the plan; three spans at most."""
    wanted = set(keys)
    spans: list[list[str]] = []
    last = -2
    for number, key in enumerate(ordered):
        if key in wanted:
            if number == last + 1:
                spans[-1].append(key)
            else:
                spans.append([key])
            last = number
    shown = [span[0] if len(span) == 1 else f"{span[0]}…{span[-1]}" for span in spans[:3]]
    more = f" and {len(spans) - 3} more spans" if len(spans) > 3 else ""
    return ", ".join(shown) + more


def _range(arguments: argparse.Namespace) -> str:
    text = ""
    if arguments.first:
        text += f" --from {arguments.first}"
    if arguments.last:
        text += f" --to {arguments.last}"
    if arguments.partitions:
        text += f" --partitions {' '.join(arguments.partitions)}"
    return text


def summary_json(summary: BackfillSummary) -> dict[str, Any]:
    """A backfill, or the plan of one, as JSON."""
    return {
        "id": summary.id,
        "plan": [
            {
                "notebook": planned.notebook,
                "partitions": list(planned.keys),
                "to_run": planned.to_run,
                "selected": planned.selected,
                "skipped_before": planned.skipped_before,
            }
            for planned in summary.plan
        ],
        "run_ids": list(summary.run_ids),
        "counts": dict(summary.counts),
        "problems": [to_json(outcome) for outcome in summary.problems],
        "foreseen": list(summary.foreseen),
        "interrupted": summary.interrupted,
        "duration_s": round(summary.duration_s, 3),
    }
