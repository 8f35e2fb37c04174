"""Who is named as one to be told or to get reports exists, and conditions can be read.

A mistake here takes nothing from a notebook or schedule but its delivery.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from research_jobs.errors import SourceLocation, did_you_mean
from research_jobs.manifest.alerts import NotebookAlerts
from research_jobs.manifest.deliver import DeliverSpec, is_address
from research_jobs.manifest.document import Node
from research_jobs.manifest.expression import CHANGED, ConditionError, parse_condition
from research_jobs.manifest.models import Defaults, NotebookSpec, ScheduleSpec
from research_jobs.manifest.reading import Reader
from research_jobs.project import notebook_name

__all__ = ["RecipientsReader"]


class RecipientsReader(Reader):
    """Reads what entries say of channels, of addresses and of conditions."""

    def _recipients(
        self,
        root: Node,
        defaults: Defaults,
        notebooks: dict[str, NotebookSpec],
        schedules: dict[str, ScheduleSpec],
    ) -> Defaults:
        """Check all of them; deliveries with a mistake are taken out of the two mappings.

        Returns
        -------
        Defaults
            Without theirs, if there is a mistake in it.
        """
        node = root.children.get("alerts")
        channels = [name for name, _ in node.items()] if node is not None else []
        self._channels_in(("defaults",), defaults.alerts, channels)
        usable = self._usable(("defaults",), defaults.deliver, channels, None)
        for name, spec in notebooks.items():
            if spec.deliver is defaults.deliver is not usable:
                notebooks[name] = spec.model_copy(update={"deliver": usable})
        entries = root.children.get("notebooks")
        for written, _ in entries.items() if entries is not None else ():
            name = notebook_name(written)
            spec = notebooks.get(name)
            if spec is None:
                continue
            path = ("notebooks", written)
            if spec.alerts is not defaults.alerts:
                self._channels_in(path, spec.alerts, channels)
            if spec.deliver is not None and spec.deliver is not usable:
                good = self._usable(path, spec.deliver, channels, spec.outputs)
                notebooks[name] = spec.model_copy(update={"deliver": good})
        for name, schedule in schedules.items():
            outputs = [
                o for n in schedule.notebooks if n in notebooks for o in notebooks[n].outputs
            ]
            good = self._usable(("schedules", name), schedule.deliver, channels, outputs)
            schedules[name] = schedule.model_copy(update={"deliver": good})
        return defaults.model_copy(update={"deliver": usable})

    def _channels_in(
        self, path: tuple[str, ...], said: NotebookAlerts | None, channels: Collection[str]
    ) -> None:
        for name in (said.channels or ()) if said is not None else ():
            if name not in channels:
                self._no_channel(path, ("alerts", "channels"), name, channels)

    def _no_channel(
        self, path: tuple[str, ...], keys: tuple[str, ...], name: str, channels: Collection[str]
    ) -> None:
        what = f"{_label(path)}, {keys[0]}: there is no channel '{name}'"
        where = self.document.locate_quoted((*path, *keys), f"'{name}'")
        hint = did_you_mean(name, channels, label="Channels") or "Add it under alerts."
        self._problem("manifest", None, what, where, hint)

    def _usable(
        self,
        path: tuple[str, ...],
        said: DeliverSpec | None,
        channels: Collection[str],
        outputs: Collection[str] | Mapping[str, object] | None,
    ) -> DeliverSpec | None:
        """What an entry says of deliveries; None if there is a mistake in it."""
        if said is None:
            return None
        before = len(self.problems)
        for name in said.to:
            if not is_address(name) and name not in channels:
                self._no_channel(path, ("deliver", "to"), name, channels)
        if said.when is not None:
            self._condition(path, said.when, outputs)
        return said if len(self.problems) == before else None

    def _condition(self, path: tuple[str, ...], text: str, outputs: Iterable[str] | None) -> None:
        where = self.document.locate((*path, "deliver", "when"))
        try:
            condition = parse_condition(text)
            if outputs is not None:
                _check_names(condition.outputs, list(outputs), changed=CHANGED in text)
        except ConditionError as error:
            place = SourceLocation(where.path, where.line, (where.column or 1) + error.column - 1)
            what = f"{_label(path)}, deliver.when: {error.what}"
            self._problem("manifest", None, what, place, error.hint)


def _check_names(
    named: Iterable[tuple[str, int]], outputs: Collection[str], *, changed: bool
) -> None:
    for name, column in named:
        if name not in outputs:
            hint = did_you_mean(name, [*outputs, CHANGED], label="Outputs")
            raise ConditionError(f"there is no output '{name}'", hint, column)
    if changed and not outputs:
        raise ConditionError("it declares no outputs that could change", "Declare outputs.")


def _label(path: tuple[str, ...]) -> str:
    singular = {"notebooks": "notebook", "schedules": "schedule"}
    return " ".join((singular.get(path[0], path[0]), *path[1:]))
