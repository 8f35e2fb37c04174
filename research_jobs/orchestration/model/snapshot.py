"""What a project's definitions say, small enough to keep and compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from research_jobs.orchestration.model.catalog import Catalog, Entry

__all__ = ["Changes", "Snapshot", "compare", "cron_text"]


@dataclass(frozen=True)
class Snapshot:
    """Definitions, each as a text that changes with it.

    Parameters
    ----------
    notebooks : mapping of str to str
        Name to digest.
    schedules : mapping of str to str
        Name to cron expression and time zone.
    others : str
        Whatever else the definitions depend on.
    """

    notebooks: Mapping[str, str]
    schedules: Mapping[str, str]
    others: str = ""

    @classmethod
    def of(cls, catalog: Catalog) -> Snapshot:
        """Of what a project's files say."""
        manifest = catalog.manifest
        others = (
            *(manifest.defaults, manifest.project, manifest.schedules, manifest.retention),
            manifest.problems,
        )
        return cls(
            {entry.name: _digest(*_parts(entry)) for entry in catalog},
            {
                name: cron_text(spec.cron, spec.timezone)
                for name, spec in manifest.schedules.items()
            },
            _digest(*others),
        )


@dataclass(frozen=True)
class Changes:
    """How one snapshot differs from another.

    Parameters
    ----------
    added, removed, changed : tuple of str
        Notebooks.
    schedules : mapping of str to pair
        Cron expression before and after; None where the schedule did not, or does not, exist.
    others : bool
        Whether anything else differs.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    schedules: Mapping[str, tuple[str | None, str | None]] = field(
        default_factory=dict[str, tuple[str | None, str | None]]
    )
    others: bool = False

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.schedules or self.others)

    def __str__(self) -> str:
        return "; ".join(self._kinds()) or ("settings changed" if self.others else "nothing new")

    def _kinds(self) -> Iterator[str]:
        notebooks = (len(self.added), len(self.removed), len(self.changed))
        if any(notebooks):
            yield _counted("notebook", *notebooks)
        if self.schedules:
            crons = self.schedules.values()
            added = sum(before is None for before, _ in crons)
            removed = sum(after is None for _, after in crons)
            yield _counted("schedule", added, removed, len(crons) - added - removed)


def compare(before: Snapshot, after: Snapshot) -> Changes:
    """What changed from one snapshot to the other.

    Parameters
    ----------
    before, after : Snapshot
        Made the same way.

    Returns
    -------
    Changes
    """
    old, new = before.notebooks, after.notebooks
    crons = {
        name: (before.schedules.get(name), after.schedules.get(name))
        for name in sorted({*before.schedules, *after.schedules})
    }
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if old[name] != new[name])),
        schedules={name: pair for name, pair in crons.items() if pair[0] != pair[1]},
        others=before.others != after.others,
    )


def cron_text(cron: str | Sequence[str], timezone: str | None) -> str:
    """A schedule's times in one line: ``0 8 * * 1-5 (Europe/Zagreb)``."""
    crons = cron if isinstance(cron, str) else " and ".join(cron)
    return f"{crons} ({timezone or 'UTC'})"


def _parts(entry: Entry) -> tuple[object, ...]:
    """All of an entry that its definitions are made from."""
    notebook = entry.notebook
    return (
        notebook.code_version,
        notebook.description,
        notebook.parameters,
        entry.spec,
        entry.error.headline if entry.error else None,
        entry.warnings,
        entry.upstream,
        entry.assets,
        entry.reads_itself,
        sorted(entry.parameters.items()),
    )


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _counted(kind: str, added: int, removed: int, changed: int) -> str:
    """``1 notebook added, 2 changed``."""
    words: list[str] = []
    for count, what in ((added, "added"), (removed, "removed"), (changed, "changed")):
        if count:
            noun = "" if words else f" {kind}{'s' * (count != 1)}"
            words.append(f"{count}{noun} {what}")
    return ", ".join(words)
