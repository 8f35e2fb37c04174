"""A notebook's parameters as the config of its op: what the launchpad shows and checks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import dagster as dg

from research_jobs.errors import ParameterError
from research_jobs.manifest.partitions import dimension_specs
from research_jobs.manifest.values import RefusedValueError, parse_duration
from research_jobs.notebook.interface import Parameter
from research_jobs.orchestration.compat.assets import lazy_config_schema
from research_jobs.orchestration.model.catalog import Entry

__all__ = [
    "KEEP_TAG",
    "PARTITIONS_FIELD",
    "RESULT",
    "config_schema",
    "keep_seconds",
    "partition_parameters",
    "settable_parameters",
]

PARTITIONS_FIELD = "research_jobs_partitions"
"""Config of a partitioned notebook: which partitions of the run's range are meant.

Keys, or spans of keys written ``first...last``; without it, all of the range.
"""

KEEP_TAG = "research_jobs/keep_on_failure"
"""Tag of a run whose failed notebooks' processes stay for so long: ``2h``."""

RESULT = "result"
"""The op output that represents all of a notebook's outputs."""

_SCALARS: Mapping[str, Any] = {
    "int": dg.Int,
    "float": dg.Float,
    "bool": dg.Bool,
    "str": dg.String,
    "date": dg.String,
    "datetime": dg.String,
    "timestamp": dg.String,
}
_HINTS = {
    "date": "A date such as 2018-11-01.",
    "datetime": "A date and time such as 2018-11-01T16:30.",
    "timestamp": "A date and time such as 2018-11-01T16:30.",
}


def keep_seconds(text: str) -> float:
    """How long the process of a failed run stays.

    Raises
    ------
    ParameterError
    """
    try:
        return parse_duration(text)
    except RefusedValueError as error:
        raise ParameterError(f"how long to keep a failed process: {error}") from None


def config_schema(entry: Entry, op_name: str) -> Any:
    """The config of a notebook's op; None when there is nothing to set.

    Parameters
    ----------
    entry : Entry
    op_name : str
        Put in front of the names of types, which have to be unique in a code location.
    """
    if not entry.notebook.parameters and not entry.partitioned:
        return None
    return lazy_config_schema(partial(config_fields, entry, op_name))


def config_fields(entry: Entry, op_name: str) -> dict[str, dg.Field]:
    """The fields of the config of a notebook's op, by parameter."""
    taken = {*partition_parameters(entry), *entry.spec.secret_parameters}
    fields = {
        parameter.name: _field(entry, parameter, op_name)
        for parameter in entry.notebook.parameters
        if parameter.name not in taken
    }
    if entry.partitioned:
        fields[PARTITIONS_FIELD] = _PARTITIONS
    return fields


_PARTITIONS = dg.Field(
    [str],
    is_required=False,
    description=(
        "Set by `research-jobs backfill`: which partitions of the run's range to make. Keys, or "
        "spans of keys written first...last. All of the range without it."
    ),
)


def partition_parameters(entry: Entry) -> frozenset[str]:
    """Parameters that the partition sets, so that nobody else can."""
    names: set[str] = set()
    for name, dimension in dimension_specs(entry.spec).items():
        names.add(dimension.parameter or name)
    for values in entry.spec.variants.values():
        names.update(values)
    return frozenset(names)


def settable_parameters(entry: Entry) -> tuple[str, ...]:
    """The names of the parameters that a launch may set: not the partition's, and no secret."""
    taken = {*partition_parameters(entry), *entry.spec.secret_parameters}
    return tuple(p.name for p in entry.notebook.parameters if p.name not in taken)


def _field(entry: Entry, parameter: Parameter, op_name: str) -> dg.Field:
    description = " ".join(filter(None, [parameter.description, _HINTS.get(parameter.type)]))
    if parameter.name in entry.parameters:
        default, has_default = entry.parameters[parameter.name], True
    else:
        default, has_default = parameter.default, parameter.has_default
        if not has_default and parameter.default_source:
            description = f"{description} Default: {parameter.default_source}".strip()
    type_ = _type(parameter, op_name)
    if parameter.optional or (has_default and default is None):
        type_ = dg.Noneable(type_)
    # Never required: one notebook without a value must not keep the others of a run from running.
    options: dict[str, Any] = {"is_required": False, "description": description or None}
    if has_default:
        options["default_value"] = default
    try:
        return dg.Field(type_, **options)
    except dg.DagsterInvalidConfigError:
        # A default that its own annotation would refuse (`x: int = 1.5`) is the notebook's matter.
        return dg.Field(dg.Any, **options)


def _type(parameter: Parameter, op_name: str) -> Any:
    type_ = parameter.type
    if type_ in _SCALARS:
        return _SCALARS[type_]
    if type_ in ("literal", "enum") and parameter.choices:
        if all(isinstance(choice, str) and choice.isidentifier() for choice in parameter.choices):
            return dg.Enum(
                f"{op_name}__{parameter.name}",
                [dg.EnumValue(str(choice)) for choice in parameter.choices],
            )
        return dg.Any
    if type_.startswith("list[") and type_[5:-1] in _SCALARS:
        return dg.Array(_SCALARS[type_[5:-1]])
    if type_ == "list":
        return dg.Array(dg.Any)
    if type_ == "dict":
        return dg.Permissive({})
    return dg.Any
