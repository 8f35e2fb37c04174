"""Who is told of what: the channels under `alerts`, what a notebook says of them, the heartbeat.

A secret is never written here. ``${NAME}`` stands for an environment variable, which is read when
something is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, time
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, StrictStr, field_validator, model_validator

from research_jobs.errors import did_you_mean
from research_jobs.manifest.fields import (
    Duration,
    NotebookNames,
    Positive,
    Spec,
    Tags,
    Texts,
    Timezone,
    listed,
)
from research_jobs.manifest.kinds import Kind, Severity
from research_jobs.manifest.values import RefusedValueError, parse_duration

__all__ = [
    "Audience",
    "ChannelSpec",
    "EmailSpec",
    "HeartbeatSpec",
    "NotebookAlerts",
    "QuietSpec",
    "read_heartbeat",
    "read_notebook_alerts",
    "variables_in",
]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ADDRESS = re.compile(r"[^@\s,]+@[^@\s,]+\Z")
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>\S+)\Z", re.IGNORECASE)
_LOCAL = ("localhost", "127.0.0.1", "::1")
# Services whose address alone is no secret; that of the others holds a token.
_OPEN = ("json", "jsons", "xml", "xmls", "form", "forms", "ntfy", "ntfys")
_HOURS = re.compile(r"(\d\d?:\d\d)\s*-\s*(\d\d?:\d\d)(?:\s+(\S+))?\Z")


def variables_in(value: Any) -> Iterator[str]:
    """The environment variables that a text, or the texts within a value, stand for."""
    if isinstance(value, str):
        yield from _VARIABLE.findall(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from variables_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from variables_in(item)


def _check_reference(value: str) -> str:
    rest = _VARIABLE.sub("", value)
    if "$" in rest:
        raise RefusedValueError(
            f"'{value}' has a $ that begins no variable", "Write ${NAME} for a variable's value."
        )
    return value


Text = Annotated[StrictStr, BeforeValidator(lambda v: _check_reference(v) if _is(v) else v)]


def _is(value: Any) -> bool:
    return isinstance(value, str)


def _kinds(value: Any) -> Any:
    """Kinds by name; ``missed-tick`` and ``Missed tick`` are ``missed_tick``."""
    if value is None:  # as our own record of the rules has it
        return None
    value = listed(value)
    if not isinstance(value, (list, tuple)):
        return value
    names = [kind.value for kind in Kind]
    kinds: list[Kind] = []
    for item in value:
        name = str(item).strip().lower().replace(" ", "_").replace("-", "_")
        if name not in names:
            raise RefusedValueError(
                f"'{item}' is not a kind of alert", did_you_mean(name, names, label="Kinds")
            )
        kinds.append(Kind(name))
    return tuple(kinds)


_KIND_NAMES = Literal[
    "failed", "refused", "blocked", "late", "missing", "missed_tick", "slow", "large", "disk",
    "store", "clock", "code", "service", "tick_failed", "channel", "backup", "manifest",
]  # fmt: skip
Kinds = Annotated[
    tuple[Kind, ...],
    BeforeValidator(_kinds, json_schema_input_type=list[_KIND_NAMES] | _KIND_NAMES),
]


def _severity(value: Any) -> Any:
    if isinstance(value, Severity):
        return value
    names = [severity.value for severity in Severity]
    if value not in names:
        hint = did_you_mean(str(value), names, label="Choose from")
        raise RefusedValueError(f"'{value}' is not one of {', '.join(names)}", hint)
    return Severity(value)


Level = Annotated[
    Severity,
    BeforeValidator(_severity, json_schema_input_type=Literal["info", "warning", "critical"]),
]


class EmailSpec(Spec):
    """Where e-mail goes, and through which server."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "sender": "from",
        "recipients": "to",
        "server": "host",
        "username": "user",
        "login": "user",
        "tls": "encryption",
        "starttls": "encryption",
        "ssl": "encryption",
    }

    to: Annotated[Texts, Field(description="Who gets it.")]
    from_: Text | None = Field(default=None, alias="from", description="Whom it is from.")
    host: Text = Field(default="localhost", description="The SMTP server.")
    port: Positive | None = Field(default=None, description="By default 587, 465 or 25.")
    user: Text | None = Field(default=None, description="Who logs in, where one must.")
    password: Text | None = Field(default=None, description="A variable: ${SMTP_PASSWORD}.")
    encryption: Literal["starttls", "tls", "none"] | None = Field(
        default=None, description="By default starttls; for a server on this machine none."
    )

    @field_validator("to")
    @classmethod
    def _check_to(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise RefusedValueError("nobody is named", "Write to: [ops@example.com].")
        for address in value:
            _check_address(_check_reference(address))
        return value

    @field_validator("from_")
    @classmethod
    def _check_sender(cls, value: str | None) -> str | None:
        return value if value is None else _check_address(value)

    @field_validator("password")
    @classmethod
    def _check_password(cls, value: str | None) -> str | None:
        if value is not None and not _VARIABLE.fullmatch(value):
            raise RefusedValueError(
                "the password is written out",
                "Write ${SMTP_PASSWORD}: the environment variable, never the value.",
            )
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise RefusedValueError("user and password belong together", "Set both or neither.")
        if self.password and self.encryption == "none" and self.host not in _LOCAL:
            raise RefusedValueError(
                "a password would travel unencrypted", "Write encryption: starttls or tls."
            )
        return self

    @property
    def security(self) -> str:
        """str: the encryption, with its default."""
        return self.encryption or ("none" if self.host in _LOCAL else "starttls")

    @property
    def port_number(self) -> int:
        """int: the port, with its default."""
        return self.port or {"starttls": 587, "tls": 465, "none": 25}[self.security]


def _check_address(value: str) -> str:
    if "${" not in value and not _ADDRESS.match(value):
        raise RefusedValueError(f"'{value}' is not an address", "Write ops@example.com.")
    return value


class QuietSpec(Spec):
    """The hours in which only what is critical is told."""

    synonyms: ClassVar[Mapping[str, str]] = {"start": "from", "end": "to", "tz": "timezone"}

    from_: StrictStr = Field(alias="from", description="When they begin: 22:00.")
    to: StrictStr = Field(description="When they end: 07:00.")
    timezone: Timezone | None = Field(default=None, description="By default that of defaults.")

    @field_validator("from_", "to")
    @classmethod
    def _check_time(cls, value: str) -> str:
        try:
            time.fromisoformat(value.zfill(5))
        except ValueError:
            raise RefusedValueError(
                f"'{value}' is not a time of day", 'Write "22:00-07:00".'
            ) from None
        return value.zfill(5)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.from_ == self.to:
            raise RefusedValueError("the quiet hours begin when they end", "Write 22:00-07:00.")
        return self

    def covers(self, now: float) -> bool:
        """Whether a moment, in Unix seconds, lies in them."""
        clock = datetime.fromtimestamp(now, ZoneInfo(self.timezone or "UTC")).time()
        begin, end = time.fromisoformat(self.from_), time.fromisoformat(self.to)
        return begin <= clock < end if begin < end else clock >= begin or clock < end


def _quiet(value: Any) -> Any:
    """``22:00-07:00`` and ``22:00-07:00 Europe/Zagreb`` are short."""
    if not isinstance(value, str):
        return value
    hours = _HOURS.match(value.strip())
    if hours is None:
        raise RefusedValueError(f"'{value}' are not hours", 'Write "22:00-07:00 Europe/Zagreb".')
    return {"from": hours[1], "to": hours[2], "timezone": hours[3]}


class Audience(Spec):
    """Whose notebooks a channel is for: those that one of these names."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "notebook": "notebooks",
        "tag": "tags",
        "group": "groups",
        "owner": "owners",
    }

    notebooks: NotebookNames = Field(default=(), description="Names, or patterns: rates/*.")
    tags: Tags = Field(default_factory=dict, description="Notebooks with one of these tags.")
    groups: Texts = Field(default=(), description="Notebooks in one of these groups.")
    owners: Texts = Field(default=(), description="Notebooks that one of these owns.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (self.notebooks or self.tags or self.groups or self.owners):
            raise RefusedValueError(
                "for names nothing", "Name notebooks, tags, groups or owners, or leave it out."
            )
        return self

    def has(
        self, notebook: str, tags: Mapping[str, str], group: str | None, owners: Iterable[str]
    ) -> bool:
        """Whether a notebook is one of them."""
        return (
            any(fnmatchcase(notebook, pattern) for pattern in self.notebooks)
            or any(tags.get(tag) == value if value else tag in tags for tag, value in self._tags)
            or group in self.groups
            or any(owner in self.owners for owner in owners)
        )

    @property
    def _tags(self) -> Iterable[tuple[str, str]]:
        return self.tags.items()


def _remind(value: Any) -> Any:
    if value is None or value in ("none", "off", "never", False):
        return None
    if (seconds := parse_duration(value)) < 3600:
        raise RefusedValueError(f"'{value}' is too often", "Write 1h or more, or none.")
    return seconds


class ChannelSpec(Spec):
    """One way to tell somebody, what it is for, and when."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "on": "kinds",
        "when": "kinds",
        "kind": "kinds",
        "events": "kinds",
        "mail": "email",
        "smtp": "email",
        "apprise": "url",
        "webhook": "url",
        "quiet_hours": "quiet",
        "reminder": "remind",
        "level": "severity",
        "only": "for",
    }
    elsewhere: ClassVar[Mapping[str, str]] = {
        "notebooks": "Write for: {notebooks: [...]}.",
        "tags": "Write for: {tags: [...]}.",
        "groups": "Write for: {groups: [...]}.",
        "owners": "Write for: {owners: [...]}.",
        "to": "Write email: {to: [...]}.",
    }

    email: Annotated[
        EmailSpec | None,
        BeforeValidator(
            lambda value: {"to": value} if isinstance(value, (str, list)) else value,
            json_schema_input_type=EmailSpec | str | list[str],
        ),
    ] = Field(default=None, description="Addresses, or more.")
    url: Text | None = Field(default=None, description="A service, as apprise writes it.")
    kinds: Kinds | None = Field(default=None, description="Of what it tells; by default of all.")
    severity: Annotated[Level, Field(description="It tells what is at least so bad.")] = (
        Severity.INFO
    )
    audience: Audience | None = Field(
        default=None, alias="for", description="Whose notebooks it is for; by default all."
    )
    quiet: Annotated[
        QuietSpec | None, BeforeValidator(_quiet, json_schema_input_type=QuietSpec | str)
    ] = Field(default=None, description="Hours in which it tells only what is critical.")
    remind: Annotated[
        Duration | None, BeforeValidator(_remind, json_schema_input_type=Duration | Literal["none"])
    ] = Field(default=86400.0, description="How often it repeats what lasts.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is None or _VARIABLE.match(value):
            return value
        url = _URL.match(value)
        if url is None:
            raise RefusedValueError("this is not a URL", "Write ${SLACK_URL} or json://host/path.")
        scheme, rest = url["scheme"].lower(), url["rest"]
        if "${" not in rest and (
            scheme not in _OPEN or re.search(r":[^/@]+@", rest.partition("?")[0])
        ):
            hint = "Keep it in an environment variable and write ${ALERTS_URL}."
            if scheme in ("http", "https"):
                hint += f" A plain webhook is {scheme.replace('http', 'json')}://..."
            raise RefusedValueError(f"the address of {scheme} is written out", hint)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.email is None) == (self.url is None):
            both = self.email is not None
            raise RefusedValueError(
                "it has email and url" if both else "it has neither email nor url",
                "Keep one." if both else "Write email: ops@example.com, or url: ${SLACK_URL}.",
            )
        return self

    def in_timezone(self, timezone: str) -> ChannelSpec:
        """The same with a time zone for quiet hours that name none."""
        if self.quiet is None or self.quiet.timezone is not None:
            return self
        quiet = self.quiet.model_copy(update={"timezone": timezone})
        return self.model_copy(update={"quiet": quiet})


class NotebookAlerts(Spec):
    """What a notebook says of its alerts."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "channel": "channels",
        "to": "channels",
        "on": "kinds",
        "kind": "kinds",
        "level": "severity",
    }

    channels: Annotated[
        Texts | None, Field(description="The channels that tell of it; by default by their for.")
    ] = None
    kinds: Kinds | None = Field(default=None, description="Of what they tell.")
    severity: Level | None = Field(default=None, description="How bad everything of it is.")


def read_notebook_alerts(value: Any) -> Any:
    """``none``, a channel's name and a list of names are short."""
    if value is False or value in ("none", "off"):
        return {"channels": []}
    return {"channels": value} if isinstance(value, (str, list)) else value


class HeartbeatSpec(Spec):
    """A service outside that is told regularly that all is well."""

    synonyms: ClassVar[Mapping[str, str]] = {"interval": "every"}

    url: Text = Field(description="What is requested; ${NAME} stands for a variable.")
    every: Annotated[Duration, Field(description="How often.")] = 300.0

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if not _VARIABLE.match(value) and not re.match(r"https?://[^\s/]+", value):
            raise RefusedValueError("this is not a URL", "Write https://... or ${HEARTBEAT_URL}.")
        return value

    @field_validator("every")
    @classmethod
    def _check_every(cls, value: float) -> float:
        if value < 30:
            raise RefusedValueError("a heartbeat is not that often", "Write 30s or more.")
        return value


def read_heartbeat(value: Any) -> Any:
    """A URL is short for ``{url: ...}``."""
    return {"url": value} if isinstance(value, str) else value
