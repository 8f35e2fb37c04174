"""A declared output: its checks, how it is written and how many versions are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    Strict,
    StrictStr,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from research_jobs.manifest.fields import (
    Limit,
    Positive,
    Spec,
    Texts,
    Whole,
    json_value,
    read_within,
)
from research_jobs.manifest.values import RefusedValueError

__all__ = ["Changed", "FreshWithin", "OutputSpec"]

_CHECKS = (
    "min_rows",
    "max_rows",
    "columns",
    "not_null",
    "unique",
    "range",
    "fresh_within",
    "schema",
    "changed",
)

_LEVELS = {"zstd": (1, 22), "gzip": (1, 9), "brotli": (1, 11)}


class FreshWithin(Spec):
    """How old an output's newest row may be when it is written."""

    within: Limit
    column: StrictStr | None = Field(
        default=None, description="The column of time; without it the first one of that type."
    )


_SHARE_HINT = "Write 0.2 or 20%."
_CHANGE_HINT = "Write 10% of what was there, or a size such as 0.5."


def _part(value: Any) -> float | None:
    """``20%`` as 0.2, and a number as it is; None for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,6}(\.\d{1,9})?%", value, re.ASCII):
        return float(value[:-1]) / 100
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e300:
        return float(value)
    return None


def _share(value: Any) -> float:
    part = _part(value)
    if part is None or part > 1:
        raise RefusedValueError(f"{value!r} is not a part from 0 to 1", _SHARE_HINT)
    return part


def _max_change(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    limits: dict[str, dict[str, float]] = {}
    for column, limit in value.items():
        part = _part(limit)
        if part is None:
            raise RefusedValueError(
                f"{limit!r} is not how much '{column}' may change", _CHANGE_HINT
            )
        limits[str(column)] = {"relative" if isinstance(limit, str) else "absolute": part}
    return limits


Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string"}]}),
]


class Changed(Spec):
    """How far an output may differ from its previous version."""

    max_share: Share | None = Field(
        default=None, description="The part of the previous rows that may change or go."
    )
    max_change: Annotated[
        Mapping[str, Mapping[str, float]],
        BeforeValidator(_max_change),
        WithJsonSchema(
            {
                "type": "object",
                "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "string"}]},
            }
        ),
    ] = Field(default_factory=dict, description="Column: how far a number may move, 10% or a size.")
    tolerance: Share = Field(
        default=0.0, description="Floats are the same whose difference is at most this part."
    )

    @model_validator(mode="after")
    def _check_limit(self) -> Self:
        if self.max_share is None and not self.max_change:
            raise RefusedValueError("changed has no limit", "Give max_share or max_change.")
        return self


def _columns(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        for item in value:
            if not isinstance(item, str):
                raise RefusedValueError(f"{item!r} is not a column name", "Write its name.")
        return dict.fromkeys(value)
    return value


def _ranges(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    ranges: dict[str, tuple[Any, Any]] = {}
    for column, bounds in value.items():
        if isinstance(bounds, dict) and bounds and set(bounds) <= {"min", "max"}:
            low, high = bounds.get("min"), bounds.get("max")
        elif isinstance(bounds, list) and len(bounds) == 2:
            low, high = bounds
        else:
            raise RefusedValueError(
                f"the range of '{column}' is not a pair", "Write [0, 1], or {min: 0}."
            )
        low, high = json_value(low), json_value(high)
        if low is None and high is None:
            raise RefusedValueError(f"the range of '{column}' has no bound", "Give one.")
        for bound in (low, high):
            if isinstance(bound, (bool, list, dict)) or (
                isinstance(bound, float) and not isfinite(bound)
            ):
                raise RefusedValueError(
                    f"the range of '{column}' has a bound that is not a number, text or date",
                    "Write [0, 1], or null for no bound.",
                )
        try:
            swapped = low is not None and high is not None and low > high
        except TypeError:
            raise RefusedValueError(
                f"the range of '{column}' mixes types: {low!r} and {high!r}", "Use one type."
            ) from None
        if swapped:
            raise RefusedValueError(
                f"the range of '{column}' goes from {low} to {high}", "Swap them."
            )
        ranges[column] = (low, high)
    return ranges


class OutputSpec(Spec):
    """One declared output: its checks, how it is written and how many versions are kept."""

    synonyms: ClassVar[Mapping[str, str]] = {"notnull": "not_null", "non_null": "not_null"}

    description: StrictStr | None = Field(default=None, description="What Dagster shows.")
    # checks
    min_rows: Whole | None = Field(default=None, description="Fewer rows fail.")
    max_rows: Whole | None = Field(default=None, description="More rows fail.")
    columns: Annotated[
        Mapping[str, StrictStr | None] | None,
        BeforeValidator(_columns, json_schema_input_type=list[str] | dict[str, str | None]),
    ] = Field(default=None, description="Columns that must be there, with their types if given.")
    not_null: Texts = Field(default=(), description="Columns without missing values.")
    unique: Texts = Field(default=(), description="Columns that together tell rows apart.")
    range: Annotated[
        Mapping[str, tuple[Any, Any]],
        BeforeValidator(_ranges),
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
    fresh_within: Annotated[
        FreshWithin | None,
        BeforeValidator(read_within, json_schema_input_type=FreshWithin | str | int | None),
    ] = Field(default=None, description="How old the newest row may be.")
    pandera: StrictStr | None = Field(
        default=None, alias="schema", description="A pandera schema: module:Name."
    )
    changed: Changed | None = Field(
        default=None, description="How far it may differ from its previous version."
    )
    severity: Annotated[
        Literal["warn", "error"] | Mapping[str, Literal["warn", "error"]],
        Field(
            description=(
                "error: a check that fails keeps the previous output. One for all, or by check."
            )
        ),
    ] = "error"
    # looking ahead
    time: StrictStr | None = Field(default=None, description="The column of time, for lookahead.")
    known_after: Limit | None = Field(
        default=None, description="How long after its time a row is published, for lookahead."
    )
    # writing
    compression: Literal["zstd", "snappy", "gzip", "brotli", "lz4", "none"] | None = Field(
        default=None, description="The Parquet file's compression."
    )
    compression_level: Annotated[int, Strict()] | None = Field(
        default=None, description="How hard it compresses."
    )
    row_group_size: Positive | None = Field(default=None, description="Rows in a row group.")
    keep: Whole | None = Field(
        default=None,
        description="Old versions kept besides the current one; by default 7, of at most 2 GiB.",
    )

    @field_validator("pandera")
    @classmethod
    def _check_schema(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
            raise RefusedValueError(f"'{value}' does not name a schema", "Write module:Name.")
        return value

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if None not in (self.min_rows, self.max_rows) and self.min_rows > self.max_rows:  # type: ignore[operator]
            raise RefusedValueError(
                f"min_rows {self.min_rows} is more than max_rows {self.max_rows}", "Swap them."
            )
        self._check_compression()
        if isinstance(self.severity, Mapping):
            unknown = sorted(set(self.severity) - set(_CHECKS))
            if unknown:
                raise RefusedValueError(
                    f"severity names the check '{unknown[0]}'", f"Checks: {', '.join(_CHECKS)}."
                )
        return self

    def _check_compression(self) -> None:
        if self.compression_level is None:
            return
        compression = self.compression or "zstd"
        lowest, highest = _LEVELS.get(compression, (0, 0))
        if not lowest <= self.compression_level <= highest:
            raise RefusedValueError(
                f"compression {compression} has no level {self.compression_level}",
                f"Write one from {lowest} to {highest}." if highest else "Remove the level.",
            )

    def unchecked(self) -> OutputSpec:
        """The same output, without its checks."""
        fields = type(self).model_fields
        names = ["pandera" if name == "schema" else name for name in _CHECKS]
        return self.model_copy(
            update={name: fields[name].get_default(call_default_factory=True) for name in names}
        )

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
            (``"module:Name"``), ``changed`` (``max_share``, ``max_change`` (column to
            ``{"relative": part}`` or ``{"absolute": size}``), ``tolerance``, ``unique``); and
            if there are any, ``severity`` (check to ``"warn"`` or ``"error"``, one for each).
        """
        fresh = self.fresh_within
        known: dict[str, Any] = {
            "min_rows": self.min_rows,
            "max_rows": self.max_rows,
            "columns": None if self.columns is None else dict(self.columns),
            "not_null": list(self.not_null) or None,
            "unique": list(self.unique) or None,
            "range": {name: list(bounds) for name, bounds in self.range.items()} or None,
            "fresh_within": fresh and {"column": fresh.column, "seconds": fresh.within},
            "schema": self.pandera,
            "changed": self._changed(),
        }
        declared = {name: limit for name, limit in known.items() if limit is not None}
        if declared:
            declared["severity"] = {name: self.severity_of(name) for name in declared}
        return declared

    def _changed(self) -> dict[str, Any] | None:
        if self.changed is None:
            return None
        limits = self.changed.model_dump(exclude_defaults=True)
        return limits | ({"unique": list(self.unique)} if self.unique else {})

    def options(self) -> dict[str, Any]:
        """The declared writing options, JSON only.

        Returns
        -------
        dict
            The declared ones of ``compression``, ``compression_level`` and ``row_group_size``.
        """
        names = ("compression", "compression_level", "row_group_size")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}
