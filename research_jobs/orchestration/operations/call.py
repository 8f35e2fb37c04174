"""One call of ``research-jobs run``: the runs that a selection takes, one after another.

Most are one Dagster run. It takes several where notebooks have different partitions, and where
one of them lists the partitions of another, which are known only when it ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import dagster as dg

from research_jobs.errors import PartitionError
from research_jobs.orchestration.model.config import KEEP_TAG, keep_seconds
from research_jobs.orchestration.model.dynamic_keys import dynamic_sources
from research_jobs.orchestration.model.selection import none_yet
from research_jobs.orchestration.operations.backfill_plan import (
    BackfillSummary,
    PlannedNotebook,
    foresee,
)
from research_jobs.orchestration.operations.launch import Seen, blocked
from research_jobs.orchestration.operations.plan import Batch, choose_partitions, plan_batches
from research_jobs.orchestration.operations.session import Session
from research_jobs.outcome import Failure, Outcome, State

__all__ = ["RunCommand"]


class RunCommand:
    """Runs notebooks, dependencies first.

    Parameters
    ----------
    session : Session
    keys : sequence of AssetKey
    partition : str, optional
        For all that have one.
    values : mapping, optional
        Parameters from the command line.
    named : bool
        Whether a person named these notebooks. Of others (``--all``), one that has no partition
        yet is skipped and does not stop the rest.
    keep : str, optional
        How long the processes of notebooks that fail stay, ``2h``.
    """

    def __init__(
        self,
        session: Session,
        keys: Sequence[dg.AssetKey],
        *,
        partition: str | None = None,
        values: Mapping[str, str] | None = None,
        named: bool = True,
        keep: str | None = None,
    ) -> None:
        self.expected = 0
        self._session = session
        self._names = session.catalog.names
        self._graph = session.launcher.graph
        if partition is not None and named:
            self._check_partitioned(keys)
        self._partition = partition
        if keep is not None:
            keep_seconds(keep)
        self._tags = {KEEP_TAG: keep} if keep is not None else {}
        self._named = named
        self._config = session.run_config(keys, values or {})
        self._waves = self._cut(keys)
        # What did not succeed in this call; None for all partitions of a notebook.
        self._unavailable: set[tuple[dg.AssetKey, str | None]] = set()
        self._interrupted = False

    def run(self) -> Iterator[Seen]:
        """Run them; `expected` says how many outcomes are known to come.

        Raises
        ------
        PartitionError
            For a wrong call, before anything runs.
        """
        for number, wave in enumerate(self._waves):
            chosen: dict[dg.AssetKey, list[str | None]] = {}
            # what was known of listed keys is old, now that others have run
            self._session.forget_keys()
            for key in wave:
                choice = self._choose(key)
                if isinstance(choice, list):
                    chosen[key] = choice
                    continue
                error, outcome = choice
                if self._named and number == 0:
                    raise error
                self.expected += 1
                yield self._unrun(key, None, outcome)
            batches = plan_batches(self._graph, chosen)
            self.expected += sum(len(batch.keys) for batch in batches)
            for batch in batches:
                yield from self._run(batch)

    def plan(self) -> BackfillSummary:
        """What `run` would do, dependencies first; nothing is run.

        Partitions that a notebook of the selection lists are those that are known now.

        Raises
        ------
        PartitionError
            For a wrong call.
        """
        keys: dict[str, list[str]] = {}
        partitioned: dict[str, bool] = {}
        foreseen: list[str] = []
        for number, wave in enumerate(self._waves):
            chosen: dict[dg.AssetKey, list[str | None]] = {}
            for key in wave:
                choice = self._choose(key)
                if isinstance(choice, list):
                    chosen[key] = choice
                elif self._named and number == 0:
                    raise choice[0]
                elif number == 0 and choice[1].state is not State.SKIPPED:
                    foreseen.append(choice[0].headline)
            for batch in plan_batches(self._graph, chosen):
                for key in batch.keys:
                    name = self._names.notebook(key)
                    part = self._session.launcher.partition_for(key, batch)
                    partitioned[name] = part is not None
                    keys.setdefault(name, []).extend([part] if part is not None else [])
        plan = tuple(
            PlannedNotebook(name, tuple(parts), max(len(parts), 1), partitioned=partitioned[name])
            for name, parts in keys.items()
        )
        foreseen += foresee(self._session.catalog, plan)
        return BackfillSummary(id="", plan=plan, foreseen=tuple(foreseen))

    def _cut(self, keys: Sequence[dg.AssetKey]) -> list[list[dg.AssetKey]]:
        """The selection, cut where one has to end before another's partitions are known."""
        wave = dict.fromkeys(keys, 0)
        for _ in keys:  # at the latest then nothing moves any more
            before = dict(wave)
            for key in (key for key in self._graph.toposorted_asset_keys if key in wave):
                behind = [wave.get(parent, 0) for parent in self._graph.get(key).parent_keys]
                listed = [wave[source] + 1 for source in self._listed_by(key) if source in wave]
                wave[key] = min(max([0, *behind, *listed]), len(keys))
            if wave == before:
                break
        numbers = sorted(set(wave.values()))
        return [[key for key in keys if wave[key] == number] for number in numbers]

    def _listed_by(self, key: dg.AssetKey) -> set[dg.AssetKey]:
        entry = self._session.catalog.entries.get(self._names.notebook(key))
        sources = dynamic_sources(entry.spec) if entry else ()
        return {self._names.key(source.notebook) for source in sources}

    def _choose(self, key: dg.AssetKey) -> list[str | None] | tuple[PartitionError, Outcome]:
        """The partitions to run; or why there are none, and the outcome that this is."""
        name = self._names.notebook(key)
        definition = self._graph.get(key).partitions_def
        try:
            self._session.refresh_keys([name])
            keys = choose_partitions(name, definition, self._partition, self._session.instance)
        except PartitionError as error:
            return error, Outcome(State.BLOCKED, failure=Failure(error.headline))
        if keys:
            return keys
        assert definition is not None, "what has no partitions runs without one"
        none = PartitionError(f"'{name}' has no partition yet", hint=none_yet(definition))
        return none, Outcome(State.SKIPPED, skip_reason=none.headline)

    def _run(self, batch: Batch) -> Iterator[Seen]:
        held = dict.fromkeys(batch.keys, "") if self._interrupted else self._held_back(batch)
        for key in (key for key in batch.keys if key in held):
            part = self._session.launcher.partition_for(key, batch)
            if self._interrupted:
                outcome = Outcome(State.CANCELLED, failure=Failure("interrupted"))
            else:
                outcome = blocked([held[key]])
            yield self._unrun(key, part, outcome)
        left = tuple(key for key in batch.keys if key not in held)
        if not left:
            return
        for seen in self._session.launcher.run(
            replace(batch, keys=left), config=self._config, tags=self._tags
        ):
            if isinstance(seen, Outcome) and not seen.state.ok:
                self._interrupted = self._interrupted or seen.state is State.CANCELLED
                self._unavailable.add((self._names.key(seen.notebook), seen.partition))
            yield seen

    def _held_back(self, batch: Batch) -> dict[dg.AssetKey, str]:
        """Those that would read what an earlier run of this call did not make, and of whom."""
        held: dict[dg.AssetKey, str] = {}
        for key in batch.keys:  # dependencies first
            node = self._graph.get(key)
            for parent, part in self._unavailable:
                if parent not in node.parent_keys:
                    continue
                own = node.partitions_def
                alike = own is not None and own == self._graph.get(parent).partitions_def
                if not alike or part in (None, batch.partition):
                    held.setdefault(key, self._names.notebook(parent))
            for parent in node.parent_keys & held.keys():
                held.setdefault(key, held[parent])
        return held

    def _unrun(self, key: dg.AssetKey, partition: str | None, outcome: Outcome) -> Outcome:
        self._unavailable.add((key, partition))
        return replace(outcome, notebook=self._names.notebook(key), partition=partition)

    def _check_partitioned(self, keys: Sequence[dg.AssetKey]) -> None:
        """Refuse a partition for notebooks none of which has any."""
        if keys and all(self._graph.get(key).partitions_def is None for key in keys):
            names = ", ".join(self._names.notebook(key) for key in keys)
            raise PartitionError(
                f"--partition: {names} has no partitions", hint="Run it without --partition."
            )
