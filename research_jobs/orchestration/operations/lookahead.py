"""Find signals that knew the future, on a sample.

A notebook runs twice as it would run, and once as of the moment at which its window ends. What
differs between the first two is chance. What else differs in the third, it can only have from what
was not known yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from research_jobs.comparison.known import Difference, Rules, differences
from research_jobs.comparison.timeline import NoTimeError
from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.catalog import Entry
from research_jobs.orchestration.model.partitions import partition_key_of, segments_of
from research_jobs.orchestration.operations.cutting import (
    Bench,
    Plan,
    World,
    lay,
    zone_of,
)
from research_jobs.orchestration.operations.sampling import spread
from research_jobs.store.backends import backend_of
from research_jobs.store.stored import published_files

__all__ = ["Finding", "look_ahead", "look_ahead_at"]

WARM_UP = 0.3  # of a history: earlier cuts leave too little of it


@dataclass(frozen=True)
class Finding:
    """What one cut has shown.

    Parameters
    ----------
    notebook : str
    partition : str or None
    cut : datetime or None
        What was not known before it was not there; None if it came to no cut.
    difference : Difference or None
        The leak.
    inputs : tuple of str
        The inputs that it comes from, ``market_data.prices``.
    error : str or None
        What the run said that failed only without the future.
    chance : tuple of str
        What differs between equal runs, and is left out.
    not_covered : tuple of str
    """

    notebook: str
    partition: str | None
    cut: datetime | None = None
    difference: Difference | None = None
    inputs: tuple[str, ...] = ()
    error: str | None = None
    chance: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()

    @property
    def leak(self) -> bool:
        """Bool: whether it knew the future."""
        return self.difference is not None or self.error is not None

    def to_json(self) -> dict[str, Any]:
        """As ``lookahead --json`` prints it."""
        found = self.difference or Difference("")
        return {
            "notebook": self.notebook,
            "partition": self.partition,
            "cut": self.cut.isoformat() if self.cut is not None else None,
            "leak": self.leak,
            "input": ", ".join(self.inputs) or None,
            "output": found.output or None,
            "column": found.column,
            "columns": list(found.columns),
            "row": found.row,
            "before": found.before,
            "after": found.after,
            "error": self.error,
            "chance": list(self.chance),
            "not_covered": list(self.not_covered),
        }


@dataclass
class _Baseline:
    """A notebook as it would run, twice."""

    plan: Plan
    world: World
    without: dict[str, set[str]] = field(default_factory=dict[str, set[str]])

    @property
    def chance(self) -> tuple[str, ...]:
        return tuple(
            output if column == "*" else f"{output}.{column}"
            for output, columns in self.without.items()
            for column in sorted(columns)
        )


def look_ahead(bench: Bench, name: str, key: str | None, count: int) -> Iterator[Finding]:
    """Try one partition, or the history of a notebook that has no partitions of time.

    Parameters
    ----------
    bench : Bench
    name : str
    key : str or None
        The partition.
    count : int
        How many cuts of a history.

    Yields
    ------
    Finding
    """
    base = _baseline(bench, name, key)
    if isinstance(base, Finding):
        yield base
        return
    end = _end(base.plan.entry, key)
    if end is not None:
        yield _judge(bench, base, end)
        return
    moments = _moments(bench, base.plan, base.world, count)
    if not moments:
        why = "its history: no input and output with times in common, so there is no date to cut at"
        yield Finding(name, key, not_covered=(why, *base.plan.not_covered))
    for moment in moments:
        yield _judge(bench, base, moment, history=True)


def look_ahead_at(bench: Bench, name: str, moments: Sequence[datetime]) -> Iterator[Finding]:
    """Cut the history of a notebook at these moments; otherwise as `look_ahead`."""
    base = _baseline(bench, name, None)
    if isinstance(base, Finding):
        yield base
        return
    for moment in moments:
        yield _judge(bench, base, moment, history=True)


def _end(entry: Entry, key: str | None) -> datetime | None:
    if key is None:
        return None
    end = partition_key_of(entry.spec, key).end
    return datetime.fromisoformat(end) if end is not None else None


def _baseline(bench: Bench, name: str, key: str | None) -> _Baseline | Finding:
    plan = bench.plan(name, key)
    first = bench.run(plan) if plan.rerun else World(plan.trial, plan.tried)
    if not first.tried.outcome.state.ok:
        outcome = first.tried.outcome
        why = f"{first.tried.entry.name} {outcome.state.words}: {outcome.reason or ''}".rstrip(": ")
        return Finding(name, key, not_covered=(why,))
    again = bench.run(plan)
    base = _Baseline(plan, first)
    if not again.tried.outcome.state.ok:
        return Finding(name, key, not_covered=("it succeeded once, and not the second time",))
    found = differences(first.tried.files, again.tried.files, _rules(bench, plan))
    for each in found.differences:
        whole = each.rows or not each.columns
        base.without[each.output] = {"*"} if whole else set(each.columns)
    return base


def _rules(bench: Bench, plan: Plan, without: Mapping[str, Collection[str]] | None = None) -> Rules:
    outputs = plan.entry.spec.outputs
    declared = bench.declared[plan.entry.name].spec.outputs
    return Rules(
        bench.scratch,
        zone_of(plan.entry),
        {name: output.time for name, output in outputs.items()},
        {name: tuple(output.unique) for name, output in declared.items()},
        without or {},
    )


def _judge(bench: Bench, base: _Baseline, moment: datetime, *, history: bool = False) -> Finding:
    plan = base.plan
    until = moment if history else None
    world = bench.run(plan, moment)
    finding = Finding(plan.entry.name, plan.key, moment, chance=base.chance)
    notes: list[str] = []
    failed = _failure(base, world)
    if failed is not None and (history or world.tried.entry.name != plan.entry.name):
        notes.append(f"the run on what was known by then: {failed}")
    elif failed is not None:
        inputs = _inputs(bench, base, world, until)
        return _with(finding, plan, notes, error=failed, inputs=inputs)
    else:
        rules = _rules(bench, plan, base.without)
        found = differences(base.world.tried.files, world.tried.files, rules, until)
        notes += found.not_covered
        if found.differences:
            inputs = _inputs(bench, base, world, until)
            return _with(finding, plan, notes, difference=found.differences[0], inputs=inputs)
        if not world.cut:
            notes.append("later data: no input has any that can be cut")
    return _with(finding, plan, [*notes, *_uncut(bench, plan, world)])


def _with(finding: Finding, plan: Plan, notes: Sequence[str], **said: Any) -> Finding:
    return replace(finding, not_covered=(*notes, *plan.not_covered), **said)


def _failure(base: _Baseline, world: World) -> str | None:
    """Why the run in a cut view did not end as the others."""
    was, now = base.world.tried.outcome, world.tried.outcome
    if now.state is was.state:
        return None
    return f"{now.state.words}: {now.reason or ''}".rstrip(": ")


def _uncut(bench: Bench, plan: Plan, world: World) -> Iterator[str]:
    """What the run read past the cut: files of the store by their path, other versions."""
    record = world.tried.record
    laid = {
        (name, unit.segments)
        for name in backend_of(world.trial.store).notebooks()
        for unit in backend_of(world.trial.store).units(name)
    }
    for load in record.loads if record is not None else ():
        unit = (load.notebook, load.partition)
        if load.notebook == plan.entry.name or not (unit in laid or unit in world.hidden):
            continue
        with published_files(bench.store, *unit, load.version) as published:
            if published is not None:
                yield f"{load.name}, which is read by its path or as an earlier version"


def _inputs(bench: Bench, base: _Baseline, world: World, until: datetime | None) -> tuple[str, ...]:
    """The direct inputs without whose later part the run comes to something else."""
    plan = base.plan
    names = list(dict.fromkeys((load.notebook, load.output) for load in plan.loads))
    if len(names) <= 1:
        return tuple(f"{notebook}.{output}" for notebook, output in names)
    found = [
        f"{notebook}.{output}"
        for notebook, output in names
        if _differs_by(bench, base, world, (notebook, output), until)
    ]
    # Each alone may be harmless: then it takes all of them.
    return tuple(found or [f"{notebook}.{output}" for notebook, output in names])


def _differs_by(
    bench: Bench,
    base: _Baseline,
    world: World,
    wanted: tuple[str, str],
    until: datetime | None,
) -> bool:
    """Whether the run differs that has only this input from the cut view."""
    plan, trial = base.plan, bench.trial()
    notebook, output = wanted
    for name in {load.notebook for load in plan.loads}:
        entry = bench.catalog.entries.get(name)
        for unit in backend_of(world.trial.store).units(name) if entry is not None else ():
            with (
                published_files(world.trial.store, name, unit.segments) as cut,
                published_files(base.world.trial.store, name, unit.segments) as rerun,
                published_files(bench.store, name, unit.segments) as stored,
            ):
                files = dict((rerun or stored or cut or ("", {}))[1])
                if cut is not None and name == notebook and output in cut[1]:
                    files[output] = cut[1][output]
                assert entry is not None
                if name != plan.entry.name or unit.segments != segments_of(entry.spec, plan.key):
                    lay(trial, entry, unit.segments, files)
    hidden = {unit for unit in world.hidden if unit[0] == notebook}
    tried = trial.run(plan.entry, plan.key, hidden=hidden)
    if tried.outcome.state is not base.world.tried.outcome.state:
        return True
    rules = _rules(bench, plan, base.without)
    return bool(differences(base.world.tried.files, tried.files, rules, until).differences)


def _moments(bench: Bench, plan: Plan, world: World, count: int) -> list[datetime]:
    """Moments to cut a history at: each just after a time that inputs have, spread."""
    made = _times(bench, plan.entry, world.tried.files, None)
    if not made:
        return []
    times: set[datetime] = set()
    for name, outputs in plan.sources.items():
        entry = bench.catalog.entries.get(name)
        if entry is None or name == plan.entry.name:
            continue
        for unit in backend_of(bench.store).units(name):
            with published_files(bench.store, name, unit.segments) as published:
                if published is not None:
                    times |= _times(bench, entry, published[1], outputs)
    ordered = sorted(moment for moment in times if min(made) <= moment <= max(made))
    usable = ordered[int(len(ordered) * WARM_UP) : -1]
    return spread(usable, count) if usable else []


def _times(
    bench: Bench, entry: Entry, files: Mapping[str, Path], outputs: Collection[str] | None
) -> set[datetime]:
    found: set[datetime] = set()
    for output, path in files.items():
        if outputs is None or output in outputs:
            try:
                found |= set(bench.timeline(entry, output, path).moments())
            except (NoTimeError, ResearchJobsError, OSError):
                continue
    return found
