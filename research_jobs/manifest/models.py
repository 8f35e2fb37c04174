"""What the manifest may say, as frozen models.

They validate plain data (`document` reads it, `load` turns their complaints into messages with
line and column) and they make the JSON schema that editors use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from research_jobs.manifest.values import (
    check_cron,
    check_identifier,
    check_key,
    check_timezone,
    parse_duration,
    parse_size,
)
from research_jobs.project import notebook_name

__all__ = [
    "AutomationSpec",
    "Defaults",
    "DynamicSpec",
    "FreshnessSpec",
    "NotebookSpec",
    "OutputSpec",
    "PartitionsSpec",
    "ReportsSpec",
    "RetrySpec",
    "ScheduleSpec",
    "Spec",
]

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}],
            "description": "A duration: 90 (seconds), 30s, 10m, 1h30m, 2d.",
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}],
            "description": "A size: 512MB, 2GiB, or a number of bytes.",
        }
    ),
]
Timezone = Annotated[StrictStr, BeforeValidator(lambda v: check_timezone(v) if _text(v) else v)]
Cron = Annotated[StrictStr, BeforeValidator(lambda v: check_cron(v) if _text(v) else v)]
Whole = Annotated[int, Strict(), Field(ge=0)]
Positive = Annotated[int, Strict(), Field(ge=1)]
Flag = Annotated[bool, Strict()]
NotebookName = Annotated[
    StrictStr, BeforeValidator(lambda v: notebook_name(v) if isinstance(v, str) else v)
]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _listed(value: Any) -> Any:
    """One value where a list may stand: ``cron: "0 6 * * *"`` for ``cron: ["0 6 * * *"]``."""
    return (
        [value] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else value
    )


def _one_or_many(item: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item}]})


_STRING = {"type": "string"}
Texts = Annotated[tuple[StrictStr, ...], BeforeValidator(_listed), _one_or_many(_STRING)]
NotebookNames = Annotated[tuple[NotebookName, ...], BeforeValidator(_listed), _one_or_many(_STRING)]

# Dagster's own rules, stated here so that a mistake has a line of the manifest to its name.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_POOL = re.compile(r"[A-Za-z0-9_\-/]+\Z")
_TAG_PART = r"[A-Za-z0-9_.-]{1,63}"
_TAG_KEY = re.compile(rf"({_TAG_PART}/)?{_TAG_PART}\Z")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_.-]{0,63}\Z")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+\Z")
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,50}\Z")


def json_value(value: Any) -> Any:
    """Plain data as JSON has it: dates become ISO 8601 texts."""
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(item) for item in value]
    return value


def _json_mapping(value: Any) -> Any:
    return json_value(value) if isinstance(value, dict) else value


Json = Annotated[Mapping[str, Any], BeforeValidator(_json_mapping)]


def _tags(value: Any) -> Any:
    """``[nightly, eu]`` and ``{nightly: "", region: eu}`` are both tags."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        value = {item if isinstance(item, str) else str(item): "" for item in value}
    if not isinstance(value, dict):
        return value
    tags: dict[str, str] = {}
    for key, item in value.items():
        text = "" if item is None else str(json_value(item)) if not isinstance(item, str) else item
        if not _TAG_KEY.match(str(key)):
            raise ValueError(
                f"'{key}' is not a tag's name | Use letters, digits, _ . - and at most one /."
            )
        if not _TAG_VALUE.match(text):
            raise ValueError(
                f"'{text}' is not a tag's value | Use up to 63 letters, digits and _ . - only."
            )
        tags[str(key)] = text
    return tags


Tags = Annotated[
    Mapping[str, str],
    BeforeValidator(_tags),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _STRING},
                {"type": "object", "additionalProperties": {"type": ["string", "number", "null"]}},
            ]
        }
    ),
]


class Spec(BaseModel):
    """Base of all models: frozen, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    # What people write for a key that is called otherwise here.
    synonyms: ClassVar[Mapping[str, str]] = {}


def _owners(owners: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for owner in owners or ():
        team = owner.removeprefix("team:")
        if not _EMAIL.match(owner) and not (owner.startswith("team:") and team):
            raise ValueError(
                f"'{owner}' is not an owner"
                f" | Write an address, or 'team:{re.sub(r'[^A-Za-z0-9_-]+', '-', owner)}'."
            )
    return owners


def _group(group: str | None) -> str | None:
    if group is not None and not _PLAIN_NAME.match(group):
        better = re.sub(r"\W+", "_", group)
        raise ValueError(
            f"the group '{group}' has characters other than letters, digits and _"
            f" | Did you mean '{better}'?"
        )
    return group


def _pool(pool: str | None) -> str | None:
    if pool is not None and not _POOL.match(pool):
        raise ValueError(
            f"the pool '{pool}' has characters other than letters, digits, _ - and /"
            f" | Did you mean '{re.sub(r'[^A-Za-z0-9_/-]+', '_', pool)}'?"
        )
    return pool


class RetrySpec(Spec):
    """How often a failed notebook is tried again within its run."""

    max: Whole = Field(default=0, description="Tries after the first.")
    delay: Duration = Field(default=0.0, description="Before each further try.")
    backoff: Literal["linear", "exponential"] | None = Field(
        default=None, description="How the delay grows from try to try."
    )
    jitter: Literal["full", "plus_minus"] | None = Field(
        default=None, description="How the delay is varied."
    )


def _retries(value: Any) -> Any:
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


Retries = Annotated[
    RetrySpec,
    BeforeValidator(_retries, json_schema_input_type=RetrySpec | int),
]


class OutputSpec(Spec):
    """One declared output: its checks, how it is written and how much of it is kept."""

    synonyms: ClassVar[Mapping[str, str]] = {"notnull": "not_null", "non_null": "not_null"}

    description: StrictStr | None = None
    # checks
    min_rows: Whole | None = Field(default=None, description="Fewer rows fail.")
    max_rows: Whole | None = Field(default=None, description="More rows fail.")
    columns: Annotated[
        Mapping[str, StrictStr | None] | None,
        BeforeValidator(lambda v: _columns(v)),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "array", "items": _STRING},
                    {"type": "object", "additionalProperties": {"type": ["string", "null"]}},
                ]
            }
        ),
    ] = Field(default=None, description="Columns that must be there, with their types if given.")
    not_null: Texts = Field(default=(), description="Columns without missing values.")
    unique: Texts = Field(default=(), description="Columns that together tell rows apart.")
    range: Annotated[
        Mapping[str, tuple[Any, Any]],
        BeforeValidator(lambda v: _ranges(v)),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {
                    "anyOf": [
                        {"type": "array", "minItems": 2, "maxItems": 2},
                        {
                            "type": "object",
                            "properties": {"min": {}, "max": {}},
                            "additionalProperties": False,
                        },
                    ]
                },
            }
        ),
    ] = Field(default_factory=dict, description="Column: [smallest, largest], null for no bound.")
    fresh_within: Annotated[FreshWithin | None, BeforeValidator(lambda v: _fresh_within(v))] = (
        Field(default=None, description="How old the newest row may be.")
    )
    pandera: StrictStr | None = Field(
        default=None, alias="schema", description="A pandera schema: module:Name."
    )
    severity: Annotated[
        Literal["warn", "error"] | Mapping[str, Literal["warn", "error"]],
        Field(
            description=(
                "error: a check that fails keeps the previous output. One for all, or by check."
            )
        ),
    ] = "error"
    # writing
    compression: Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"] | None = Field(
        default=None, description="The Parquet file's compression."
    )
    compression_level: Annotated[int, Strict()] | None = None
    row_group_size: Positive | None = Field(default=None, description="Rows in a row group.")
    keep: Whole = Field(default=0, description="Old versions kept beside the current one.")

    @field_validator("pandera")
    @classmethod
    def _check_schema(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise ValueError(f"'{value}' does not name a schema | Write module:Name.")
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if None not in (self.min_rows, self.max_rows) and self.min_rows > self.max_rows:  # type: ignore[operator]
            raise ValueError(
                f"min_rows {self.min_rows} is more than max_rows {self.max_rows} | Swap them."
            )
        if isinstance(self.severity, Mapping):
            unknown = sorted(set(self.severity) - set(_CHECKS))
            if unknown:
                raise ValueError(
                    f"severity names the check '{unknown[0]}' | Checks: {', '.join(_CHECKS)}."
                )
        return self

    def severity_of(self, check: str) -> str:
        """The severity of one check, ``"warn"`` or ``"error"``."""
        if isinstance(self.severity, str):
            return self.severity
        return self.severity.get(check, "error")

    def checks(self) -> dict[str, Any]:
        """The declared checks, JSON only.

        Returns
        -------
        dict
            Only what was declared, of: ``min_rows``, ``max_rows`` (int), ``columns`` (name to
            type or None), ``not_null``, ``unique`` (lists of names; the columns of ``unique``
            together), ``range`` (column to ``[low, high]``, None for no bound),
            ``fresh_within`` (``{"column": name or None, "seconds": float}``), ``schema``
            (``"module:Name"``); and if there are any, ``severity`` (check to ``"warn"`` or
            ``"error"``, one for each).
        """
        found: dict[str, Any] = {}
        for name in ("min_rows", "max_rows"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        if self.columns is not None:
            found["columns"] = dict(self.columns)
        for name in ("not_null", "unique"):
            if getattr(self, name):
                found[name] = list(getattr(self, name))
        if self.range:
            found["range"] = {column: list(bounds) for column, bounds in self.range.items()}
        if self.fresh_within is not None:
            found["fresh_within"] = {
                "column": self.fresh_within.column,
                "seconds": self.fresh_within.within,
            }
        if self.pandera is not None:
            found["schema"] = self.pandera
        if found:
            found["severity"] = {name: self.severity_of(name) for name in found}
        return found

    def options(self) -> dict[str, Any]:
        """The declared writing options, JSON only: ``compression``, ``compression_level``,
        ``row_group_size``.
        """
        names = ("compression", "compression_level", "row_group_size")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


_CHECKS = (
    "min_rows",
    "max_rows",
    "columns",
    "not_null",
    "unique",
    "range",
    "fresh_within",
    "schema",
)


class FreshWithin(Spec):
    """How old an output's newest row may be when it is made."""

    within: Duration
    column: StrictStr | None = Field(
        default=None, description="The column of time; without it the first one of that type."
    )


def _fresh_within(value: Any) -> Any:
    return {"within": value} if isinstance(value, (str, int, float)) else value


def _columns(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"{item!r} is not a column's name | Write its name.")
        return dict.fromkeys(value)
    return value


def _ranges(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found: dict[str, tuple[Any, Any]] = {}
    for column, bounds in value.items():
        if isinstance(bounds, dict) and bounds and set(bounds) <= {"min", "max"}:
            low, high = bounds.get("min"), bounds.get("max")
        elif isinstance(bounds, list) and len(bounds) == 2:  # noqa: PLR2004 - a pair
            low, high = bounds
        else:
            raise ValueError(
                f"the range of '{column}' is not a pair | Write [0, 1], or {{min: 0}}."
            )
        low, high = json_value(low), json_value(high)
        if low is None and high is None:
            raise ValueError(f"the range of '{column}' has no bound | Give one.")
        for bound in (low, high):
            if isinstance(bound, (bool, list, dict)):
                raise ValueError(
                    f"the range of '{column}' has a bound that is no number, text or date"
                    " | Write [0, 1]."
                )
        try:
            swapped = low is not None and high is not None and low > high
        except TypeError:
            raise ValueError(
                f"the range of '{column}' mixes types: {low!r} and {high!r} | Use one type."
            ) from None
        if swapped:
            raise ValueError(f"the range of '{column}' goes from {low} to {high} | Swap them.")
        found[column] = (low, high)
    return found


OutputSpec.model_rebuild()


class DynamicSpec(Spec):
    """Partition keys that another notebook's output lists."""

    notebook: NotebookName = Field(description="The notebook whose output lists the keys.")
    output: StrictStr = Field(description="Its output: a list, a series or a table.")
    column: StrictStr | None = Field(default=None, description="The column, where it is a table.")
    prune: Flag = Field(
        default=False, description="Forget keys that the output no longer lists (data stays)."
    )

    @property
    def definition_name(self) -> str:
        """str: the name of the set of keys, the same for all who take it from one place."""
        tail = f".{self.column}" if self.column else ""
        return f"{self.notebook}/{self.output}{tail}"


By = Literal["hour", "day", "week", "month", "quarter", "year", "cron"]

# How a key is written unless `format` says otherwise.
FORMATS: Mapping[str, str] = {
    "hour": "%Y-%m-%d-%H:%M",
    "day": "%Y-%m-%d",
    "week": "%Y-%m-%d",
    "month": "%Y-%m",
    "quarter": "%Y-%m",
    "year": "%Y",
}


def _moment(value: Any) -> Any:
    """``2018-01-02``, ``2018-01-02 06:00``, ``2018-01`` or ``2018``, in the partitions' zone."""
    if isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - zone comes later
    elif isinstance(value, (int, str)) and not isinstance(value, bool):
        text = str(value).strip()
        if re.fullmatch(r"\d{4}", text):
            text = f"{text}-01-01"
        elif re.fullmatch(r"\d{4}-\d{2}", text):
            text = f"{text}-01"
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError(
                f"'{value}' is not a date | Write 2018-01-02 or 2018-01-02 06:00."
            ) from None
    else:
        raise ValueError(f"{value!r} is not a date | Write 2018-01-02 or 2018-01-02 06:00.")
    if moment.tzinfo is not None:
        raise ValueError(
            f"'{value}' carries its own offset | Write local time and name the zone in timezone."
        )
    return moment


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema(
        {"type": ["string", "integer"], "description": "2018-01-02 or 2018-01-02 06:00"}
    ),
]


def _keys(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    keys: list[str] = []
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (str, int, float, date)):
            raise ValueError(f"{item!r} is not a partition key | Put it in quotes.")
        key = check_key(str(item))
        if key in keys:
            raise ValueError(f"the partition key '{key}' stands here twice | Keep one.")
        keys.append(key)
    if not keys:
        raise ValueError("values has no partition key | Write at least one.")
    return tuple(keys)


Keys = Annotated[
    tuple[str, ...],
    BeforeValidator(_keys),
    WithJsonSchema({"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1}),
]


class DimensionSpec(Spec):
    """One way to cut a notebook's work into partitions: by time, by values, or dynamic."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "from": "start",
        "to": "end",
        "until": "end",
        "tz": "timezone",
        "fmt": "format",
        "schedule": "cron",
        "keys": "values",
    }

    by: By | None = Field(default=None, description="The length of a partition of time.")
    start: Moment | None = Field(default=None, description="The first partition.")
    end: Moment | None = Field(default=None, description="Where they end (exclusive).")
    timezone: Timezone | None = None
    offset: Annotated[int, Strict()] = Field(
        default=0,
        description=(
            "How many partitions exist beyond the last finished one: 1 makes today's exist today."
        ),
    )
    shift: Duration = Field(
        default=0.0, description="How long after midnight (or the hour) a partition begins."
    )
    format: StrictStr | None = Field(default=None, description="The key's strftime format.")
    cron: Cron | None = Field(default=None, description="Where partitions begin, for by: cron.")
    calendar: StrictStr | None = Field(
        default=None, description="An exchange whose closed days have no partition: XNYS."
    )
    values: Keys | None = Field(default=None, description="The keys themselves.")
    dynamic: DynamicSpec | None = Field(
        default=None, description="The output of another notebook that lists the keys."
    )
    parameter: StrictStr | None = Field(
        default=None, description="The notebook's parameter that takes the partition."
    )

    @property
    def is_time(self) -> bool:
        """bool: whether partitions are windows of time."""
        return self.by is not None

    @property
    def key_format(self) -> str:
        """str: the strftime format of a time partition's key."""
        if self.format is not None:
            return self.format
        if self.by == "cron" and self.cron is not None:
            minute, hour, *_ = (*self.cron.split(" "), "*", "*")
            once_a_day = self.cron in ("@daily", "@midnight", "@weekly", "@monthly", "@yearly") or (
                minute.isdigit() and hour.isdigit()
            )
            return FORMATS["day"] if once_a_day else FORMATS["hour"]
        return FORMATS[self.by or "day"]

    @field_validator("parameter")
    @classmethod
    def _check_parameter(cls, value: str | None) -> str | None:
        return value if value is None else check_identifier(value, "the parameter")

    @field_validator("calendar")
    @classmethod
    def _check_calendar(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_/]{2,20}", value):
            raise ValueError(
                f"'{value}' is not a calendar's name | Write an exchange's code, as XNYS or XLON."
            )
        return value

    def complaint(self) -> str | None:
        """What is wrong between the keys, as ``"what | hint"``."""
        kinds = [n for n in ("by", "values", "dynamic") if getattr(self, n) is not None]
        if len(kinds) > 1:
            return f"partitions have {' and '.join(kinds)} | Keep one of them."
        if not kinds:
            return "partitions have neither by, values nor dynamic | Write by: day and a start."
        timed = ("start", "end", "format", "cron", "calendar", "timezone")
        if self.by is None:
            extra = [n for n in timed if getattr(self, n) is not None]
            extra += [n for n in ("offset", "shift") if getattr(self, n)]
            if extra:
                return f"{extra[0]} belongs to partitions of time | Remove it, or say by: day."
            return None
        return self._time_complaint()

    def _time_complaint(self) -> str | None:
        if self.start is None:
            return f"partitions by {self.by} have no start | Write start: 2018-01-02."
        if self.end is not None and self.end <= self.start:
            return f"partitions end ({self.end}) before they start ({self.start}) | Swap them."
        if (self.by == "cron") != (self.cron is not None):
            return (
                'by: cron needs its cron expression | Write cron: "0 17 * * 1-5".'
                if self.by == "cron"
                else f"cron belongs to by: cron, not to by: {self.by} | Keep one of them."
            )
        longest = {"hour": 3600.0, "cron": 0.0}.get(str(self.by), 86400.0)
        if self.shift and (self.shift >= longest or self.shift % 60):
            return "shift is whole minutes, less than a day (by: hour: an hour) | Write 17h."
        if self.calendar is not None and self.by != "day":
            return f"calendar works by: day, not by: {self.by} | Remove it."
        return self._format_complaint()

    def _format_complaint(self) -> str | None:
        sample = {
            "hour": datetime(2019, 11, 23, 17),  # noqa: DTZ001 - only its text matters
            "month": datetime(2019, 11, 1),  # noqa: DTZ001
            "quarter": datetime(2019, 10, 1),  # noqa: DTZ001
            "year": datetime(2019, 1, 1),  # noqa: DTZ001
        }.get(str(self.by), datetime(2019, 11, 23))  # noqa: DTZ001
        form = self.key_format
        try:
            key = sample.strftime(form)
            read = datetime.strptime(key, form).replace(tzinfo=None)  # noqa: DTZ007
        except ValueError:
            return f"the format '{form}' does not read back what it writes | Use {FORMATS['day']}."
        if read != sample:
            advice = FORMATS.get(str(self.by), FORMATS["hour"])
            return f"the format '{form}' does not tell partitions apart | Use {advice}."
        try:
            check_key(key)
        except ValueError as error:
            return str(error)
        return None


class PartitionsSpec(DimensionSpec):
    """A notebook's partitions: one dimension in place, or two under ``dimensions``."""

    dimensions: Mapping[str, DimensionSpec] | None = Field(
        default=None, description="Two dimensions, by name."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dimensions is None:
            complaint = self.complaint()
            if complaint:
                raise ValueError(complaint)
            return self
        extra = [n for n in self.model_fields_set if n != "dimensions"]
        if extra:
            raise ValueError(f"{sorted(extra)[0]} stands beside dimensions | Move it into one.")
        if len(self.dimensions) != 2:  # noqa: PLR2004 - what Dagster has
            raise ValueError(
                f"dimensions has {len(self.dimensions)} entries, not two"
                " | One dimension stands directly under partitions."
            )
        for name, dimension in self.dimensions.items():
            check_identifier(name, "the dimension")
            complaint = dimension.complaint()
            if complaint:
                raise ValueError(f"dimension {name}: {complaint}")
        if sum(d.is_time for d in self.dimensions.values()) > 1:
            raise ValueError("both dimensions are of time | Make one of them values.")
        return self

    @property
    def columns(self) -> Mapping[str, DimensionSpec]:
        """Mapping: column name (as in the hive path) to dimension, in Dagster's order (by name).

        The column of a single dimension is called as its parameter, else ``partition``.
        """
        if self.dimensions is None:
            return {self.parameter or "partition": self}
        return {name: self.dimensions[name] for name in sorted(self.dimensions)}

    def in_timezone(self, timezone: str) -> PartitionsSpec:
        """The same with `timezone` where a dimension of time names none."""
        if self.dimensions is not None:
            dimensions = {
                name: (
                    d.model_copy(update={"timezone": timezone})
                    if d.is_time and d.timezone is None
                    else d
                )
                for name, d in self.dimensions.items()
            }
            return self.model_copy(update={"dimensions": dimensions})
        if self.is_time and self.timezone is None:
            return self.model_copy(update={"timezone": timezone})
        return self


class AutomationSpec(Spec):
    """When Dagster itself asks for a notebook."""

    kind: Literal["eager", "on_cron", "on_missing"]
    cron: Cron | None = None
    timezone: Timezone | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "on_cron") != (self.cron is not None):
            raise ValueError(
                'on_cron needs a cron expression | Write automation: {on_cron: "0 6 * * *"}.'
                if self.kind == "on_cron"
                else f"{self.kind} takes no cron expression | Remove it."
            )
        return self


def _automation(value: Any) -> Any:
    """``eager``, ``{on_cron: "0 6 * * *"}`` or ``{on_cron: {cron: ..., timezone: ...}}``."""
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and "on_cron" in value:
        inner = value["on_cron"]
        rest = {key: item for key, item in value.items() if key != "on_cron"}
        inner = inner if isinstance(inner, dict) else {"cron": inner}
        return {"kind": "on_cron"} | inner | rest
    return value


class FreshnessSpec(Spec):
    """How old a notebook's last materialisation may be: Dagster's freshness policy."""

    within: Duration = Field(description="Older than this is a failure.")
    warn_within: Duration | None = Field(default=None, description="Older than this is a warning.")
    cron: Cron | None = Field(
        default=None, description="The deadlines; `within` is then how long before one counts."
    )
    timezone: Timezone | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warn_within is not None and self.warn_within >= self.within:
            raise ValueError("warn_within is not shorter than within | Swap them.")
        if self.warn_within is not None and self.cron is not None:
            raise ValueError("warn_within and cron exclude each other | Keep one of them.")
        if self.within < 60 or (self.warn_within is not None and self.warn_within < 60):  # noqa: PLR2004
            raise ValueError("freshness is told by the minute | Write 1m or more.")
        return self


def _freshness(value: Any) -> Any:
    return {"within": value} if isinstance(value, (str, int, float)) else value


def _outputs(value: Any) -> Any:
    """``[prices]``, ``prices`` and ``{prices: {min_rows: 1}}`` all declare outputs."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        found: dict[str, Any] = {}
        for item in value:
            if not isinstance(item, str):
                raise ValueError(
                    f"{item!r} is not an output's name"
                    " | With settings, write a mapping: {prices: {min_rows: 1}}."
                )
            if item in found:
                raise ValueError(f"the output '{item}' stands here twice | Keep one.")
            found[item] = {}
        return found
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
            raise ValueError(f"{item!r} is not an asset key | Write it as in the UI: raw/prices.")
        keys.append(tuple(parts))
    return tuple(keys)


def _variants(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    for name, parameters in value.items():
        check_key(name, "variant")
        if parameters is not None and not isinstance(parameters, dict):
            raise ValueError(f"variant '{name}' is not a mapping of parameters | Write {{a: 1}}.")
    return {name: json_value(parameters or {}) for name, parameters in value.items()}


class NotebookSpec(Spec):
    """What the manifest says of one notebook, defaults merged in."""

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
        "mem": "memory",
        "tz": "timezone",
    }
    elsewhere: ClassVar[Mapping[str, str]] = {
        "cron": "A cron expression belongs to an entry under schedules.",
        "schedule": "Schedules stand in their own section and name their notebooks.",
        "keep": "keep belongs to an output.",
        "checks": "Checks stand under an output.",
        "concurrency": "concurrency belongs to defaults.",
        "secrets": "secrets is a section of its own.",
    }

    outputs: Annotated[
        Mapping[str, OutputSpec],
        BeforeValidator(_outputs, json_schema_input_type=dict[str, OutputSpec | None] | list[str]),
    ] = Field(default_factory=dict, description="Variables kept as Parquet after each run.")
    description: StrictStr | None = None
    owners: Annotated[Texts, Field(description="Addresses, or team:name.")] = ()
    tags: Tags = Field(default_factory=dict)
    group: StrictStr | None = None
    kinds: Texts = ()
    timeout: Duration | None = Field(default=None, description="The run is ended after this long.")
    memory: Size | None = Field(default=None, description="Limit over the notebook's processes.")
    retries: Retries | None = None
    parameters: Json = Field(
        default_factory=dict, description="Values that replace the parameters cell's."
    )
    variants: Annotated[
        Mapping[str, Mapping[str, Any]],
        BeforeValidator(_variants),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": ["object", "null"]}}),
    ] = Field(default_factory=dict, description="Parameter sets by name, a partition each.")
    partitions: PartitionsSpec | None = None
    pool: StrictStr | None = Field(default=None, description="Runs in one pool share its limit.")
    isolation: Literal["fork", "spawn"] | None = None
    python: StrictStr | None = Field(default=None, description="Another interpreter's path.")
    io_manager: StrictStr | None = None
    deps: Annotated[
        tuple[tuple[str, ...], ...],
        BeforeValidator(_asset_keys),
        _one_or_many({"anyOf": [_STRING, {"type": "array", "items": _STRING}]}),
    ] = Field(default=(), description="Other assets that this one needs, as in the UI.")
    after: NotebookNames = Field(default=(), description="Run when one of these has new data.")
    automation: Annotated[
        AutomationSpec | None,
        BeforeValidator(_automation),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": ["eager", "on_missing"]},
                    {
                        "type": "object",
                        "properties": {
                            "on_cron": {
                                "anyOf": [
                                    _STRING,
                                    {
                                        "type": "object",
                                        "properties": {"cron": _STRING, "timezone": _STRING},
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
    ] = None
    watch: Texts = Field(default=(), description="Run when files of this pattern arrive.")
    freshness: Annotated[
        FreshnessSpec | None,
        BeforeValidator(_freshness, json_schema_input_type=FreshnessSpec | str | int | None),
    ] = None
    timezone: Timezone | None = None
    environment: Annotated[
        Mapping[str, StrictStr],
        BeforeValidator(lambda v: _environment(v)),
        WithJsonSchema(
            {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
        ),
    ] = Field(default_factory=dict, description="Variables set for the notebook's process.")

    _check_owners = field_validator("owners")(_owners)
    _check_group = field_validator("group")(_group)
    _check_pool = field_validator("pool")(_pool)

    @field_validator("outputs")
    @classmethod
    def _check_outputs(cls, value: Mapping[str, OutputSpec]) -> Mapping[str, OutputSpec]:
        for name in value:
            check_identifier(name, "the output")
        return value

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in value:
            check_identifier(name, "the parameter")
        return value

    @field_validator("kinds")
    @classmethod
    def _check_kinds(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > 10:  # noqa: PLR2004 - Dagster's limit
            raise ValueError(f"{len(value)} kinds are listed | Keep at most 10.")
        for kind in value:
            if not _KIND.match(kind):
                raise ValueError(f"'{kind}' is not a kind | Use letters, digits and _ . - only.")
        return value

    @field_validator("io_manager")
    @classmethod
    def _check_io_manager(cls, value: str | None) -> str | None:
        return value if value is None else check_identifier(value, "the io_manager")

    @field_validator("watch")
    @classmethod
    def _check_watch(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            if not pattern.strip():
                raise ValueError("a watched pattern is empty | Write incoming/*.csv.")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.after and self.automation is not None:
            raise ValueError(
                "after and automation exclude each other | Keep one: after runs the notebook when"
                " one of those has new data, automation: eager when any it loads has."
            )
        if self.variants and self.partitions is not None and self.partitions.dimensions is not None:
            raise ValueError("variants and two dimensions exclude each other | Keep one of them.")
        return self


def _environment(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for name, item in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"'{name}' is not an environment variable's name | Use A-Z, 0-9, _.")
        found[name] = str(item) if isinstance(item, (int, float)) else item
        if isinstance(item, bool):
            found[name] = "true" if item else "false"
    return found


def _catch_up(value: Any) -> Any:
    if value == "none" or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(
        f"catch_up is {value!r} | Write none, or how many older partitions to look at."
    )


def _crons(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError('cron is empty | Write cron: "0 6 * * *".')
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"{item!r} is not a cron expression | Put it in quotes.")
        return tuple(check_cron(item) for item in value)
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a cron expression | Put it in quotes.")
    return check_cron(value)


class ScheduleSpec(Spec):
    """When which notebooks run."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "notebook": "notebooks",
        "tz": "timezone",
        "time_zone": "timezone",
        "schedule": "cron",
        "catchup": "catch_up",
        "active": "enabled",
        "params": "parameters",
    }

    cron: Annotated[str | tuple[str, ...], BeforeValidator(_crons), _one_or_many(_STRING)] = Field(
        description="Five fields: minute, hour, day of month, month, day of week."
    )
    timezone: Timezone | None = None
    notebooks: NotebookNames = Field(description="What runs, in one run where it can.")
    enabled: Flag = Field(default=True, description="Whether it is on until someone switches it.")
    catch_up: Annotated[
        int | Literal["none"] | None,
        BeforeValidator(_catch_up),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "none"}]}),
    ] = Field(
        default=None, description="How many older partitions are looked at; none: miss is missed."
    )
    parameters: Json = Field(default_factory=dict, description="Values for its notebooks.")
    description: StrictStr | None = None
    tags: Annotated[Tags, Field(description="Tags of its runs.")] = Field(default_factory=dict)

    @field_validator("notebooks")
    @classmethod
    def _check_notebooks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("no notebook is named | Name at least one.")
        seen: set[str] = set()
        for name in value:
            if name in seen:
                raise ValueError(f"the notebook '{name}' is named twice | Keep one.")
            seen.add(name)
        return value


class Defaults(Spec):
    """What holds for every notebook that does not say otherwise, and for the project."""

    synonyms: ClassVar[Mapping[str, str]] = NotebookSpec.synonyms
    elsewhere: ClassVar[Mapping[str, str]] = {
        "outputs": "Outputs belong to a notebook.",
        "cron": "A cron expression belongs to an entry under schedules.",
    }

    timezone: Timezone = "UTC"
    timeout: Duration | None = None
    memory: Size | None = None
    retries: Retries | None = None
    pool: StrictStr | None = None
    isolation: Literal["fork", "spawn"] | None = None
    concurrency: Positive | None = Field(
        default=None, description="How many notebooks of one run go at a time."
    )
    python: StrictStr | None = None
    io_manager: StrictStr | None = None
    owners: Annotated[Texts, Field(description="Addresses, or team:name.")] = ()
    tags: Tags = Field(default_factory=dict)
    group: StrictStr | None = None
    kinds: Texts = ()
    environment: Annotated[
        Mapping[str, StrictStr],
        BeforeValidator(_environment),
        WithJsonSchema(
            {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
        ),
    ] = Field(default_factory=dict)
    working_directory: StrictStr | None = Field(
        default=None,
        description="Where notebooks run: notebook (their folder, the default), project, or a path.",
    )
    sys_path: Texts = Field(
        default=(), description="Further folders on the import path, relative to the project."
    )

    _check_owners = field_validator("owners")(_owners)
    _check_group = field_validator("group")(_group)
    _check_pool = field_validator("pool")(_pool)


class ReportsSpec(Spec):
    """The pages that runs leave behind."""

    url: StrictStr | None = Field(default=None, description="Their public address.")
    keep: Whole = Field(default=30, description="Reports kept of each notebook or partition.")

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^\s/]+", value):
            raise ValueError(f"'{value}' is no address | Write https://reports.example.com.")
        return value.rstrip("/") if value is not None else None
