"""The manifest's checks as Dagster's asset checks.

They are evaluated in the notebook's process, on the staged file. Here they only get Dagster's
names and shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from research_jobs.manifest import OutputSpec
from research_jobs.orchestration.model.metadata import fit
from research_jobs.outcome import CheckOutcome

__all__ = ["CheckTally", "check_name", "check_specs"]

_SEVERITY = {"warn": dg.AssetCheckSeverity.WARN, "error": dg.AssetCheckSeverity.ERROR}
_SHOWN = 20


def check_name(output: str, check: str) -> str:
    """The check's name in Dagster: ``prices_not_null``.

    Two pairs never share one: an output's name is an identifier, and no check's name is the end
    of another's.
    """
    return f"{output}_{check}"


def check_specs(key: dg.AssetKey, outputs: Mapping[str, OutputSpec]) -> list[dg.AssetCheckSpec]:
    """One spec for each check that the manifest has under an output."""
    specs: list[dg.AssetCheckSpec] = []
    for output, declared in outputs.items():
        for check, value in declared.checks().items():
            if check == "severity":
                continue
            specs.append(
                dg.AssetCheckSpec(
                    check_name(output, check),
                    asset=key,
                    description=_describe(output, check, value),
                    blocking=declared.severity_of(check) == "error",
                )
            )
    return specs


def _describe(output: str, check: str, value: Any) -> str:
    text = f"{output}: {check.replace('_', ' ')}"
    return text if value is True else f"{text} {value}"


class CheckTally:
    """What the checks of a notebook found, over one partition or many.

    Parameters
    ----------
    key : AssetKey
    names : iterable of str
        The checks that Dagster selected; others are left out.
    """

    def __init__(self, key: dg.AssetKey, names: Iterable[str]) -> None:
        self._key = key
        self._names = frozenset(names)
        self._found: dict[str, _Found] = {}

    def add(self, partition: str | None, outcomes: Iterable[CheckOutcome]) -> None:
        """Count what the run of a partition found (``None`` where there are none)."""
        for outcome in outcomes:
            name = check_name(outcome.output, outcome.check)
            if name in self._names:
                self._found.setdefault(name, _Found(outcome)).add(partition, outcome)

    def results(self, extra: Mapping[str, Any] | None = None) -> Iterator[dg.AssetCheckResult]:
        """One result for each check.

        Parameters
        ----------
        extra : mapping, optional
            Metadata for those that did not pass (the path of what was kept aside).

        Yields
        ------
        AssetCheckResult
            Passed when it passed for every partition; else the failing ones are in its metadata.
        """
        for name, tally in self._found.items():
            shown = tally.shown
            metadata: dict[str, Any] = dict(shown.metadata)
            description = shown.description
            if tally.failed:
                metadata |= dict(extra or {})
            if tally.partitions:
                metadata["partitions"] = tally.partitions
                description = (
                    f"{tally.failed} of {tally.count} partitions: "
                    f"{tally.partitions[0]}: {description}"
                )
            yield dg.AssetCheckResult(
                asset_key=self._key,
                check_name=name,
                passed=not tally.failed,
                severity=_SEVERITY.get(shown.severity, dg.AssetCheckSeverity.ERROR),
                description=description or None,
                metadata=fit({str(k): _value(v) for k, v in metadata.items()}, limit=20_000),
            )


class _Found:
    """The outcomes of one check: counted, and the first that did not pass."""

    def __init__(self, outcome: CheckOutcome) -> None:
        self.shown = outcome
        self.count = 0
        self.failed = 0
        self.partitions: list[str] = []

    def add(self, partition: str | None, outcome: CheckOutcome) -> None:
        self.count += 1
        if outcome.passed:
            return
        if not self.failed:
            self.shown = outcome
        self.failed += 1
        if partition is not None and len(self.partitions) < _SHOWN:
            self.partitions.append(partition)


def _value(value: Any) -> dg.MetadataValue[Any]:
    if isinstance(value, dg.MetadataValue):
        return value
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    if isinstance(value, (list, dict)):
        return dg.MetadataValue.json(value)
    return dg.MetadataValue.text(str(value))
