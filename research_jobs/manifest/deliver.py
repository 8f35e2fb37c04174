"""Who gets a notebook's report when it ran: `deliver` of a notebook, a schedule, the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, StrictStr, field_validator

from research_jobs.manifest.fields import Flag, Spec, Texts
from research_jobs.manifest.values import RefusedValueError

__all__ = ["Deliver", "DeliverSpec", "is_address"]


class DeliverSpec(Spec):
    """Who gets the report, and of which runs."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "channels": "to",
        "channel": "to",
        "email": "to",
        "recipients": "to",
        "if": "when",
        "condition": "when",
        "on": "runs",
        "attachment": "attach",
    }

    to: Annotated[Texts, Field(description="Channels of alerts, and e-mail addresses.")]
    when: StrictStr | None = Field(
        default=None, description="A condition: changed, or summary.worst_drawdown < -0.3."
    )
    runs: Literal["scheduled", "all"] = Field(
        default="scheduled", description="Of all runs, or of those that nobody started by hand."
    )
    attach: Flag | None = Field(
        default=None, description="Attach the page; by default if reports have no url."
    )

    @field_validator("to")
    @classmethod
    def _check_to(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not name.strip() or any(character in name for character in " \r\n\t,<>"):
                raise RefusedValueError(
                    f"'{name}' is neither a channel nor an address", "Write quant@example.com."
                )
        return tuple(dict.fromkeys(value))


def _read(value: Any) -> Any:
    """``none``, a channel, an address and a list of them are short."""
    if value is False or value in ("none", "off"):
        return {"to": []}
    return {"to": value} if isinstance(value, (str, list)) else value


Deliver = Annotated[
    DeliverSpec | None,
    BeforeValidator(_read, json_schema_input_type=DeliverSpec | str | list[str] | None),
]


def is_address(name: str) -> bool:
    """Whether a recipient is an e-mail address, and not a channel's name."""
    return "@" in name
