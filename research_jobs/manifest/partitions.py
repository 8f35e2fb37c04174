"""A notebook's partitions, as the manifest declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    Strict,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from research_jobs.errors import PartitionError
from research_jobs.manifest.fields import Cron, Duration, Flag, NotebookName, Spec, Timezone
from research_jobs.manifest.values import RefusedValueError, check_identifier, check_key

if TYPE_CHECKING:
    from research_jobs.manifest.models import NotebookSpec

__all__ = [
    "FORMATS",
    "VARIANT",
    "DimensionSpec",
    "DynamicSpec",
    "PartitionsSpec",
    "dimension_specs",
    "key_parts",
]

VARIANT = "variant"  # the dimension that a notebook's variants create


class DynamicSpec(Spec):
    """Partition keys that another notebook's output lists."""

    notebook: NotebookName = Field(description="The notebook whose output lists the keys.")
    output: StrictStr = Field(description="Its output: a list, a series or a table.")
    column: StrictStr | None = Field(default=None, description="The column, where it is a table.")
    prune: Flag = Field(
        default=False, description="Forget keys that the output no longer lists (data stays)."
    )
    _scope: str | None = PrivateAttr(default=None)

    @property
    def definition_name(self) -> str:
        """str: the name of the set of keys, the same for all notebooks with the same source."""
        tail = f".{self.column}" if self.column else ""
        scope = f"{self._scope}/" if self._scope else ""
        return f"{scope}{self.notebook}/{self.output}{tail}"

    def set_scope(self, prefix: str | None) -> None:
        """Separate the set from those of projects with another prefix."""
        self._scope = prefix


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

MOST_PARTITIONS = 1_000_000


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
            raise RefusedValueError(
                f"'{value}' is not a date", "Write 2018-01-02 or 2018-01-02 06:00."
            ) from None
    else:
        raise RefusedValueError(f"{value!r} is not a date", "Write 2018-01-02 or 2018-01-02 06:00.")
    if moment.tzinfo is not None:
        raise RefusedValueError(
            f"'{value}' carries its own offset", "Write local time and name the zone in timezone."
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
            raise RefusedValueError(f"{item!r} is not a partition key", "Put it in quotes.")
        key = check_key(str(item))
        if key in keys:
            raise RefusedValueError(f"duplicate partition key '{key}'", "Keep one.")
        keys.append(key)
    if not keys:
        raise RefusedValueError("values has no partition key", "Write at least one.")
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
    timezone: Timezone | None = Field(default=None, description="By default the notebook's.")
    offset: Annotated[int, Strict()] = Field(
        default=0,
        ge=-10_000,
        le=10_000,
        description=(
            "How many partitions exist beyond the last finished one: with 1, today's exists today."
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
            raise RefusedValueError(
                f"'{value}' is not a calendar name", "Write an exchange code such as XNYS or XLON."
            )
        return value

    def check(self) -> None:
        """Refuse keys that cannot be combined."""
        kinds = [n for n in ("by", "values", "dynamic") if getattr(self, n) is not None]
        if len(kinds) > 1:
            raise RefusedValueError(f"partitions have {' and '.join(kinds)}", "Keep one of them.")
        if not kinds:
            raise RefusedValueError(
                "partitions need one of by, values and dynamic", "Write by: day and a start."
            )
        if self.by is not None:
            self._check_time()
            return
        timed = ("start", "end", "format", "cron", "calendar", "timezone")
        extra = [n for n in timed if getattr(self, n) is not None]
        extra += [n for n in ("offset", "shift") if getattr(self, n)]
        if extra:
            raise RefusedValueError(
                f"'{extra[0]}' is for time partitions only", "Remove it, or write by: day."
            )

    def _check_time(self) -> None:
        if self.start is None:
            raise RefusedValueError(
                f"partitions by {self.by} have no start", "Write start: 2018-01-02."
            )
        if self.end is not None and self.end <= self.start:
            raise RefusedValueError(
                f"the end ({self.end}) is not after the start ({self.start})",
                "Write a later end: it is exclusive.",
            )
        if self.by == "cron" and self.cron is None:
            raise RefusedValueError("by: cron needs its expression", 'Write cron: "0 17 * * 1-5".')
        if self.by != "cron" and self.cron is not None:
            raise RefusedValueError(
                f"'cron' belongs to by: cron, not to by: {self.by}", "Keep one of them."
            )
        self._check_number()
        longest = {"hour": 3600.0, "cron": 0.0}.get(str(self.by), 86400.0)
        if self.shift and (self.shift >= longest or self.shift % 60):
            raise RefusedValueError(
                "'shift' is whole minutes, less than a day (by: hour: than an hour)", "Write 17h."
            )
        if self.calendar is not None and self.by != "day":
            raise RefusedValueError(f"'calendar' needs by: day, not by: {self.by}", "Remove it.")
        self._check_format()

    def _check_number(self) -> None:
        """Refuse more partitions than can be listed: usually a year is missing a digit."""
        assert self.start is not None
        end = self.end or datetime.now()  # noqa: DTZ005 - only years matter here
        # Longer ones never reach the limit, and few expressions fire more than hourly.
        hourly = self.by == "hour" or (self.by == "cron" and "%H" in self.key_format)
        length = 3600.0 if hourly else 86400.0
        number = (end - self.start).total_seconds() / length
        if number > MOST_PARTITIONS:
            raise RefusedValueError(
                f"{number:,.0f} partitions by {self.by} since {self.start:%Y-%m-%d};"
                f" the limit is {MOST_PARTITIONS:,}",
                "Start later, or make them longer.",
            )

    def _check_format(self) -> None:
        sample = {
            "hour": datetime(2019, 11, 23, 17, tzinfo=UTC),
            "month": datetime(2019, 11, 1, tzinfo=UTC),
            "quarter": datetime(2019, 10, 1, tzinfo=UTC),
            "year": datetime(2019, 1, 1, tzinfo=UTC),
        }.get(str(self.by), datetime(2019, 11, 23, tzinfo=UTC))
        form = self.key_format
        advice = f"Use {FORMATS.get(str(self.by), FORMATS['hour'])}."
        try:
            key = sample.strftime(form)
            read = datetime.strptime(key, form).replace(tzinfo=UTC)
        except ValueError:
            raise RefusedValueError(
                f"the format '{form}' does not read back what it writes", advice
            ) from None
        if read != sample:
            raise RefusedValueError(
                f"the format '{form}' gives several partitions the same key", advice
            )
        check_key(key)


class PartitionsSpec(DimensionSpec):
    """A notebook's partitions: one dimension inline, or two under ``dimensions``."""

    dimensions: Mapping[str, DimensionSpec] | None = Field(
        default=None, description="Two dimensions, by name."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dimensions is None:
            self.check()
            return self
        extra = [n for n in self.model_fields_set if n != "dimensions"]
        if extra:
            raise RefusedValueError(
                f"{min(extra)} cannot be combined with dimensions", "Move it into one of them."
            )
        if len(self.dimensions) != 2:
            raise RefusedValueError(
                f"dimensions has {len(self.dimensions)} entries, not two",
                "A single dimension goes directly under partitions.",
            )
        for name, dimension in self.dimensions.items():
            check_identifier(name, "the dimension")
            try:
                dimension.check()
            except RefusedValueError as refusal:
                raise RefusedValueError(f"dimension {name}: {refusal.what}", refusal.hint) from None
        if sum(d.is_time for d in self.dimensions.values()) > 1:
            raise RefusedValueError(
                "both dimensions are time dimensions", "Make one of them values."
            )
        return self

    @property
    def columns(self) -> Mapping[str, DimensionSpec]:
        """Mapping: column name (as in the hive path) to dimension, in Dagster's order (by name).

        The column of a single dimension has the name of its parameter, else ``partition``.
        """
        if self.dimensions is None:
            return {self.parameter or "partition": self}
        return {name: self.dimensions[name] for name in sorted(self.dimensions)}

    def in_timezone(self, timezone: str) -> PartitionsSpec:
        """The same with `timezone` where a time dimension names none."""
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


def dimension_specs(spec: NotebookSpec) -> Mapping[str, DimensionSpec]:
    """A notebook's dimensions by column name, in Dagster's order; empty when it has none.

    Variants are a dimension of values of their own, called ``variant``.
    """
    columns = dict(spec.partitions.columns) if spec.partitions is not None else {}
    if spec.variants:
        if VARIANT in columns:
            raise PartitionError(
                f"a dimension is called '{VARIANT}', like the one that variants create",
                hint="Rename its parameter.",
            )
        columns[VARIANT] = DimensionSpec(values=tuple(spec.variants))
    return {name: columns[name] for name in sorted(columns)}


def key_parts(spec: NotebookSpec, key: str) -> dict[str, str]:
    """The parts of a notebook's partition key by column name: ``a|b`` for two dimensions."""
    names = list(dimension_specs(spec))
    parts = str(key).split("|") if len(names) > 1 else [str(key)]
    if len(parts) != len(names):
        form = "|".join(f"<{name}>" for name in names)
        raise PartitionError(
            f"'{key}' is not a partition of the notebook",
            hint=f"Write it as {form}." if names else "It has no partitions.",
        )
    return dict(zip(names, parts, strict=True))
