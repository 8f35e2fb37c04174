"""Which channel tells of what: the manifest's `alerts` as one value that can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from research_jobs.manifest.alerts import (
    ChannelSpec,
    HeartbeatSpec,
    NotebookAlerts,
    variables_in,
)
from research_jobs.manifest.fields import Spec
from research_jobs.manifest.manifest import Manifest
from research_jobs.notify.condition import Condition, Kind, Severity

__all__ = ["Rules", "rules_of"]

# What concerns telling itself is told, whatever a channel's `kinds` and `severity` are.
_OWN = (Kind.CHANNEL, Kind.MANIFEST)


class Rules(Spec):
    """The channels, what notebooks say of them, and the heartbeat.

    Parameters
    ----------
    channels : mapping of str to ChannelSpec
    notebooks : mapping of str to NotebookAlerts
        What the entries of notebooks say, defaults merged in.
    default : NotebookAlerts or None
        For notebooks that the manifest does not have.
    heartbeat : HeartbeatSpec or None
    """

    channels: Mapping[str, ChannelSpec] = Field(default_factory=dict)
    notebooks: Mapping[str, NotebookAlerts] = Field(default_factory=dict)
    default: NotebookAlerts | None = None
    heartbeat: HeartbeatSpec | None = None

    def recipients(self, condition: Condition) -> dict[str, Severity]:
        """The channels that tell of a condition, and how bad it is."""
        own = self.notebooks.get(condition.notebook or "", self.default)
        if condition.notebook is None or own is None:
            own = NotebookAlerts()
        kind, severity = condition.kind, own.severity or condition.kind.severity
        if own.kinds is not None and kind not in own.kinds:
            return {}
        able = {
            name: spec
            for name, spec in self.channels.items()
            if not (kind is Kind.CHANNEL and condition.subject == name)
        }
        asked = {
            name: spec
            for name, spec in able.items()
            if (spec.kinds is None or kind in spec.kinds) and severity.order >= spec.severity.order
        }
        if condition.notebook is None:
            # What is the project's is for those who have the whole of it in view.
            chosen = [name for name, spec in asked.items() if spec.audience is None] or list(asked)
            if kind in _OWN:
                chosen = chosen or list(able)
        elif own.channels is not None and (
            not own.channels or any(name in self.channels for name in own.channels)
        ):
            chosen = [name for name in asked if name in own.channels]
        else:
            chosen = [name for name, spec in asked.items() if _is_for(spec, condition)]
        return dict.fromkeys(chosen, severity)

    def variables(self) -> tuple[str, ...]:
        """The environment variables that hold what is secret in them."""
        said: Any = self.model_dump(by_alias=True, mode="json")
        return tuple(dict.fromkeys(variables_in(said)))


def _is_for(spec: ChannelSpec, condition: Condition) -> bool:
    return spec.audience is None or spec.audience.has(
        condition.notebook or "", condition.tags, condition.group, condition.owners
    )


def rules_of(manifest: Manifest, last: Rules) -> Rules:
    """The rules of a manifest; of what cannot be read in it, the last that were good.

    Parameters
    ----------
    manifest : Manifest
    last : Rules
        Those of the look before.
    """
    document = manifest.document
    if manifest.unreadable is not None and (
        document is None or document.root is None or not isinstance(document.root.data, dict)
    ):
        return last
    broken = {problem.name for problem in manifest.problems if problem.scope == "channel"}
    kept = {name: spec for name, spec in last.channels.items() if None in broken or name in broken}
    notebooks = {
        name: spec.alerts for name, spec in manifest.notebooks.items() if spec.alerts is not None
    }
    mistaken = {p.name for p in manifest.problems if p.scope == "notebook" and p.name}
    if manifest.unreadable is not None:
        mistaken = set(last.notebooks)
    return Rules(
        channels=kept | dict(manifest.alerts),
        notebooks={n: a for n, a in last.notebooks.items() if n in mistaken} | notebooks,
        default=manifest.defaults.alerts,
        heartbeat=manifest.heartbeat,
    )
