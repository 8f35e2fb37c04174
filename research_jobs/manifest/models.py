"""The manifest's schema, as frozen models.

They validate plain data (`document` reads it, `load` turns their errors into messages with line
and column), and the JSON schema that editors use is generated from them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from research_jobs.errors import ParameterError
from research_jobs.manifest.alerts import NotebookAlerts, read_notebook_alerts
from research_jobs.manifest.deliver import Deliver
from research_jobs.manifest.fields import (
    KIND,
    STRING,
    Flag,
    Json,
    Limit,
    Memory,
    NotebookNames,
    Positive,
    Retries,
    Spec,
    Tags,
    Texts,
    Timezone,
    check_group,
    check_owners,
    check_pool,
    json_value,
    one_or_many,
    plain_text,
    read_within,
)
from research_jobs.manifest.outputs import OutputSpec
from research_jobs.manifest.partitions import PartitionsSpec
from research_jobs.manifest.sample import SampleSpec
from research_jobs.manifest.triggers import (
    MOST_CAUGHT_UP,
    AutomationSpec,
    FreshnessSpec,
    read_automation,
    read_catch_up,
    read_crons,
)
from research_jobs.manifest.values import (
    RefusedValueError,
    check_identifier,
    check_key,
    is_variable,
)

__all__ = [
    "AutomationSpec",
    "Defaults",
    "FreshnessSpec",
    "NotebookSpec",
    "ProjectSpec",
    "ReportsSpec",
    "ScheduleSpec",
    "SharedSpec",
]


def _environment(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    variables: dict[str, Any] = {}
    for name, item in value.items():
        if not is_variable(name):
            raise RefusedValueError(
                f"'{name}' is not an environment variable name", "Use A-Z, 0-9, _."
            )
        variables[name] = plain_text(item) if isinstance(item, (int, float)) else item
        if isinstance(item, str) and "\0" in item:
            raise RefusedValueError(
                f"the variable {name} contains the character U+0000", "Remove it."
            )
    return variables


def _outputs(value: Any) -> Any:
    """``[prices]``, ``prices`` and ``{prices: {min_rows: 1}}`` all declare outputs."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        outputs: dict[str, Any] = {}
        for item in value:
            if not isinstance(item, str):
                raise RefusedValueError(
                    f"{item!r} is not an output name",
                    "With settings, write a mapping: {prices: {min_rows: 1}}.",
                )
            if item in outputs:
                raise RefusedValueError(f"duplicate output '{item}'", "Keep one.")
            outputs[item] = {}
        return outputs
    if isinstance(value, dict):
        return {name: {} if spec is None else spec for name, spec in value.items()}
    return value


def _asset_keys(value: Any) -> Any:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list):
        return value
    keys: list[tuple[str, ...]] = []
    for item in value:
        parts = item.split("/") if isinstance(item, str) else item
        if (
            not isinstance(parts, list)
            or not parts
            or not all(isinstance(part, str) and part.strip() for part in parts)
        ):
            raise RefusedValueError(
                f"{item!r} is not an asset key", "Write it as in the UI: raw/prices."
            )
        keys.append(tuple(parts))
    return tuple(keys)


def _variants(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    for name, parameters in value.items():
        check_key(name, "variant")
        if parameters is not None and not isinstance(parameters, dict):
            raise RefusedValueError(
                f"variant '{name}' is not a mapping of parameters", "Write {a: 1}."
            )
    return {name: json_value(parameters or {}) for name, parameters in value.items()}


class SharedSpec(Spec):
    """What a notebook's entry and the defaults of all notebooks may both say."""

    timeout: Limit | None = Field(default=None, description="The run is stopped after this long.")
    memory: Memory | None = Field(
        default=None, description="Memory limit for all of the notebook's processes together."
    )
    retries: Retries | None = Field(
        default=None, description="How often it is tried again: a number, or more."
    )
    pool: StrictStr | None = Field(default=None, description="Runs in one pool share its limit.")
    isolation: Literal["fork", "spawn"] | None = Field(
        default=None, description="spawn: each run starts a cold interpreter."
    )
    python: StrictStr | None = Field(
        default=None, description="Path of another Python interpreter."
    )
    io_manager: StrictStr | None = Field(
        default=None, description="A Dagster resource that stores outputs instead of the store."
    )
    owners: Annotated[Texts, Field(description="Email addresses, or team:name.")] = ()
    tags: Tags = Field(default_factory=dict, description="Names, or names with values.")
    group: StrictStr | None = Field(
        default=None, description="Its group in Dagster; by default its folder."
    )
    kinds: Texts = Field(default=(), description="Its kinds in Dagster, at most 10.")
    environment: Annotated[
        Mapping[str, StrictStr],
        BeforeValidator(_environment, json_schema_input_type=dict[str, str | float | bool]),
    ] = Field(default_factory=dict, description="Variables set for the notebook's process.")
    alerts: Annotated[
        NotebookAlerts | None,
        BeforeValidator(
            read_notebook_alerts, json_schema_input_type=NotebookAlerts | str | list[str] | None
        ),
    ] = Field(default=None, description="Who is told of it: none, channels, or more.")
    deliver: Deliver = Field(default=None, description="Who gets the report of a run.")

    _check_owners = field_validator("owners")(check_owners)
    _check_group = field_validator("group")(check_group)
    _check_pool = field_validator("pool")(check_pool)

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > 10:
            raise RefusedValueError(f"{len(value)} kinds are listed", "Keep at most 10.")
        for kind in value:
            if not KIND.match(kind):
                raise RefusedValueError(
                    f"'{kind}' is not a kind", "Use letters, digits and _ . - only."
                )
        return value

    @field_validator("io_manager")
    @classmethod
    def _check_io_manager(cls, value: str | None) -> str | None:
        return value if value is None else check_identifier(value, "the io_manager")


class NotebookSpec(SharedSpec):
    """The settings of one notebook, defaults merged in."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "output": "outputs",
        "owner": "owners",
        "tag": "tags",
        "retry": "retries",
        "params": "parameters",
        "depends_on": "deps",
        "env": "environment",
        "partition": "partitions",
        "interpreter": "python",
        "requirements": "dependencies",
        "packages": "dependencies",
        "mem": "memory",
        "tz": "timezone",
        "tests": "test",
        "sample": "test",
    }
    elsewhere: ClassVar[Mapping[str, str]] = {
        "cron": "A cron expression belongs to an entry under schedules.",
        "schedule": "Schedules have a section of their own and name their notebooks.",
        "keep": "keep belongs to an output.",
        "checks": "Checks belong under an output.",
        "concurrency": "concurrency belongs to defaults.",
        "secrets": "secrets is a section of its own.",
        "heartbeat": "heartbeat is a section of its own.",
        "backup": "backup is a section of its own.",
    }

    outputs: Annotated[
        Mapping[str, OutputSpec],
        BeforeValidator(_outputs, json_schema_input_type=dict[str, OutputSpec | None] | list[str]),
    ] = Field(default_factory=dict, description="Variables kept as Parquet after each run.")
    description: StrictStr | None = Field(
        default=None, description="What Dagster shows; by default the first prose."
    )
    dependencies: Annotated[
        Texts | None,
        Field(description="Packages of an environment of its own: pandas<3."),
    ] = None
    parameters: Json = Field(
        default_factory=dict,
        description="Values that replace the parameters cell's; {secret: VARIABLE} for a secret.",
    )
    variants: Annotated[
        Mapping[str, Mapping[str, Any]],
        BeforeValidator(_variants, json_schema_input_type=dict[str, dict[str, Any] | None]),
    ] = Field(default_factory=dict, description="Parameter sets by name; each is a partition.")
    partitions: PartitionsSpec | None = Field(
        default=None, description="One run, and one stored table, for each period or value."
    )
    timezone: Timezone | None = Field(
        default=None, description="For partitions, automation and freshness."
    )
    deps: Annotated[
        tuple[tuple[str, ...], ...],
        BeforeValidator(_asset_keys),
        one_or_many({"anyOf": [STRING, {"type": "array", "items": STRING}]}),
    ] = Field(
        default=(), description="Other assets that this one depends on, written as in the UI."
    )
    after: NotebookNames = Field(default=(), description="Run when one of these has new data.")
    automation: Annotated[
        AutomationSpec | None,
        BeforeValidator(read_automation),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": ["eager", "on_missing"]},
                    {
                        "type": "object",
                        "properties": {
                            "on_cron": {
                                "anyOf": [
                                    STRING,
                                    {
                                        "type": "object",
                                        "properties": {"cron": STRING, "timezone": STRING},
                                        "additionalProperties": False,
                                    },
                                ]
                            }
                        },
                        "additionalProperties": False,
                    },
                ]
            }
        ),
    ] = Field(default=None, description="Run when data it loads are new, missing, or by cron.")
    watch: Texts = Field(default=(), description="Run when files that match this pattern arrive.")
    deterministic: Flag | None = Field(
        default=None,
        description="Whether equal inputs give equal outputs: a proof of a backup runs it again.",
    )
    test: SampleSpec | None = Field(
        default=None, description="What `pytest --notebooks` runs it with."
    )
    freshness: Annotated[
        FreshnessSpec | None,
        BeforeValidator(read_within, json_schema_input_type=FreshnessSpec | str | int | None),
    ] = Field(default=None, description="How old its last run may be.")

    @field_validator("outputs")
    @classmethod
    def _check_outputs(cls, value: Mapping[str, OutputSpec]) -> Mapping[str, OutputSpec]:
        for name in value:
            check_identifier(name, "the output")
        return value

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name, item in value.items():
            check_identifier(name, "the parameter")
            if not isinstance(item, dict) or "secret" not in item:
                continue
            if len(item) > 1 or not is_variable(item["secret"]):
                raise RefusedValueError(
                    f"the parameter '{name}' does not name a secret",
                    "Write {secret: API_TOKEN}: the environment variable, never the value.",
                )
        return value

    @property
    def takes_timezone(self) -> bool:
        """bool: whether it says local times, and their zone only by the defaults."""
        columns = self.partitions.columns.values() if self.partitions is not None else ()
        timed = [column.timezone for column in columns if column.is_time]
        timed += [
            each.timezone
            for each in (self.automation, self.freshness)
            if each is not None and each.cron is not None
        ]
        return self.timezone is None and None in timed

    @property
    def secret_parameters(self) -> Mapping[str, str]:
        """Mapping: secret parameters, each with the environment variable that holds its value."""
        return {
            name: item["secret"]
            for name, item in self.parameters.items()
            if isinstance(item, dict) and "secret" in item
        }

    @property
    def plain_parameters(self) -> Mapping[str, Any]:
        """Mapping: the parameters whose values the manifest has."""
        secret = self.secret_parameters
        return {name: item for name, item in self.parameters.items() if name not in secret}

    def refuse_secrets(self, names: Iterable[str]) -> None:
        """Raise a `ParameterError` if one of these is secret: the run history would show it."""
        for name in names:
            variable = self.secret_parameters.get(name)
            if variable is not None:
                raise ParameterError(
                    f"the parameter '{name}' is secret, so its value cannot be given",
                    hint=f"Set the environment variable {variable} where the run is started.",
                )

    @field_validator("watch")
    @classmethod
    def _check_watch(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern.strip():
                raise RefusedValueError("a watched pattern is empty", "Write incoming/*.csv.")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.after and self.automation is not None:
            raise RefusedValueError(
                "after and automation cannot be combined",
                "Keep one: after runs the notebook when"
                " one of those has new data, automation: eager when any it loads has.",
            )
        for name in self.secret_parameters:
            if any(name in values for values in self.variants.values()) or (
                self.partitions is not None
                and name in {d.parameter or c for c, d in self.partitions.columns.items()}
            ):
                raise RefusedValueError(
                    f"the secret parameter '{name}' is also set by the partition", "Keep one."
                )
        if self.variants and self.partitions is not None and self.partitions.dimensions is not None:
            raise RefusedValueError(
                "variants and two dimensions cannot be combined", "Keep one of them."
            )
        return self


class ScheduleSpec(Spec):
    """Which notebooks run when."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "notebook": "notebooks",
        "tz": "timezone",
        "time_zone": "timezone",
        "schedule": "cron",
        "catchup": "catch_up",
        "active": "enabled",
        "params": "parameters",
    }

    cron: Annotated[str | tuple[str, ...], BeforeValidator(read_crons), one_or_many(STRING)] = (
        Field(description="Five fields: minute, hour, day of month, month, day of week.")
    )
    timezone: Timezone | None = Field(default=None, description="In which cron is read.")
    notebooks: NotebookNames = Field(description="What runs, in a single run where possible.")
    enabled: Flag = Field(
        default=True, description="Whether it is on until someone switches it off or on."
    )
    catch_up: Annotated[
        int | Literal["none"] | None,
        BeforeValidator(
            read_catch_up,
            json_schema_input_type=Annotated[int, Field(ge=0, le=MOST_CAUGHT_UP)] | Literal["none"],
        ),
    ] = Field(
        default=None,
        description="How many older partitions are checked; none: what is missed stays missed.",
    )
    parameters: Json = Field(default_factory=dict, description="Values for its notebooks.")
    description: StrictStr | None = Field(default=None, description="What Dagster shows.")
    tags: Annotated[Tags, Field(description="Tags of its runs.")] = Field(default_factory=dict)
    deliver: Deliver = Field(default=None, description="Who gets the reports of its runs too.")

    @field_validator("notebooks")
    @classmethod
    def _check_notebooks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise RefusedValueError("no notebook is named", "Name at least one.")
        seen: set[str] = set()
        for name in value:
            if name in seen:
                raise RefusedValueError(f"the notebook '{name}' is listed twice", "Keep one.")
            seen.add(name)
        return value


class Defaults(SharedSpec):
    """Settings of every notebook that does not set its own, and of the project."""

    synonyms: ClassVar[Mapping[str, str]] = NotebookSpec.synonyms
    elsewhere: ClassVar[Mapping[str, str]] = {
        "outputs": "Outputs belong to a notebook.",
        "cron": "A cron expression belongs to an entry under schedules.",
    }

    timezone: Timezone = Field(default="UTC", description="A zone, such as Europe/Zagreb.")
    concurrency: Positive | None = Field(
        default=None, description="How many notebooks run at once, in all runs together."
    )
    working_directory: StrictStr | None = Field(
        default=None,
        description="Working directory: notebook (its folder, the default), project or a path.",
    )
    sys_path: Texts = Field(
        default=(), description="More folders on the import path, relative to the project."
    )


class ReportsSpec(Spec):
    """The report pages of runs."""

    url: StrictStr | None = Field(default=None, description="Their public URL.")
    dagster: StrictStr | None = Field(
        default=None, description="The public URL of Dagster's UI, which they link to."
    )
    keep: Positive = Field(default=30, description="Reports kept of each notebook or partition.")

    @field_validator("url", "dagster")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^\s/]+", value):
            raise RefusedValueError(
                f"'{value}' is not a URL", "Write it as https://reports.example.com."
            )
        return value.rstrip("/") if value is not None else None


class ProjectSpec(Spec):
    """Settings of the whole project, at the top of the manifest."""

    prefix: StrictStr | None = Field(
        default=None,
        description="Prefix of asset keys and pools, so that projects can share an instance.",
    )
    group: StrictStr | None = Field(
        default=None, description="The Unix group that may read the store and the reports."
    )

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,50}", value):
            raise RefusedValueError(
                f"'{value}' is not a prefix", "Use up to 50 letters, digits, _ and -: research."
            )
        return value

    @field_validator("group")
    @classmethod
    def _check_unix_group(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", value):
            raise RefusedValueError(
                f"'{value}' is not the name of a Unix group",
                "Write a name that `getent group` has.",
            )
        return value
