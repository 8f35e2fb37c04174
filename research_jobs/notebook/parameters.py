"""A notebook's parameters: names and values, checked before any process starts.

A value that passes is a JSON value: dates as ISO text, Enum members by name. The fresh process
converts it to the notebook's own type (`research_jobs.notebook.restoring`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from research_jobs.errors import ParameterError, SourceLocation, did_you_mean
from research_jobs.notebook.converting import EXPECTED, convert, short
from research_jobs.notebook.interface import Parameter
from research_jobs.project import notebook_name

__all__ = ["convert_parameters", "missing_parameters"]


def convert_parameters(
    parameters: Sequence[Parameter],
    values: Mapping[str, Any],
    *,
    notebook: str,
    where: str | None = None,
    text: bool = False,
) -> dict[str, Any]:
    """Check values and convert them to their parameters' types.

    Parameters
    ----------
    parameters : sequence of Parameter
        What the notebook declares.
    values : mapping
        By name: text (from a command line), YAML or JSON values, or Python objects
        (``dt.date``, Enum members, numpy scalars).
    notebook : str
        Its name, for messages.
    where : str, optional
        The origin of the values, put in front of the message:
        ``"notebooks/manifest.yaml:12:18"``.
    text : bool
        Whether the values come from a command line, where ``5`` for a parameter of unknown type
        is a number. In YAML and Python ``"5"`` is text.

    Returns
    -------
    dict
        JSON values of exactly the names given.

    Raises
    ------
    ParameterError
        For the first undeclared name (with a suggestion) or value that does not convert (with a
        valid example).
    """
    declared = {parameter.name: parameter for parameter in parameters}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        parameter = declared.get(name)
        if parameter is None:
            raise _unknown(name, declared, notebook, where)
        try:
            converted[name] = convert(parameter, value, text=text)
        except (ValueError, TypeError) as error:  # an `Unfit`, or what NaT and NA raise
            raise _unfit(parameter, value, notebook, where, str(error)) from None
    return converted


def missing_parameters(
    parameters: Sequence[Parameter], given: Mapping[str, Any]
) -> tuple[str, ...]:
    """Parameters without any default (``lookback: int``) that were given no value."""
    return tuple(p.name for p in parameters if not p.default_source and p.name not in given)


def _unknown(
    name: str, declared: Mapping[str, Parameter], notebook: str, where: str | None
) -> ParameterError:
    path = f"notebooks/{notebook_name(notebook)}.py"
    if not declared:
        return ParameterError(
            f"{notebook} has no parameters, so '{name}' cannot be set",
            where=_source(where) or SourceLocation(path),
            hint='Tag the cell that assigns it: # %% tags=["parameters"]',
        )
    return ParameterError(
        f"{notebook} has no parameter '{name}'",
        where=_source(where) or SourceLocation(path, min(p.line for p in declared.values())),
        hint=did_you_mean(name, declared, label="Parameters"),
    )


def _source(where: str | None) -> SourceLocation | None:
    return SourceLocation(where) if where else None


def _unfit(
    parameter: Parameter, value: Any, notebook: str, where: str | None, hint: str
) -> ParameterError:
    declared = SourceLocation(
        f"notebooks/{notebook_name(notebook)}.py", parameter.line, parameter.column
    )
    behind = f" (declared in {declared})" if where else ""
    return ParameterError(
        f"{notebook}: {parameter.name} = {short(value)} is not {_expected(parameter)}{behind}",
        where=_source(where) or declared,
        hint=hint or _example(parameter),
    )


_EXAMPLES = {
    "int": "60",
    "float": "0.5",
    "bool": "true",
    "date": "2018-11-01",
    "datetime": "2018-11-01T09:30:00",
    "timestamp": "2018-11-01 09:30",
    "list": "[1, 2]",
    "dict": '{"SPY": 0.5}',
}


def _expected(parameter: Parameter) -> str:
    kind = parameter.type
    if kind in ("literal", "enum"):
        shown = ", ".join(str(choice) for choice in parameter.choices[:12])
        text = f"one of {shown}" if shown else "a member of its Enum"
    elif kind.startswith("list["):
        element = EXPECTED[kind[5:-1]].removeprefix("a ")
        text = f"a list where each item is {EXPECTED[kind[5:-1]]}" if element else "a list"
    else:
        text = EXPECTED.get(kind, EXPECTED["any"])
    return f"{text} or null" if parameter.optional else text


def _example(parameter: Parameter) -> str | None:
    """A valid value: the default as written, else an example of the type."""
    if parameter.has_default and parameter.default is not None:
        return f"The default is {parameter.default_source}."
    kind = parameter.type
    example = _EXAMPLES.get(kind)
    if kind.startswith("list["):
        example = f"[{_EXAMPLES.get(kind[5:-1], 'a, b')}]"
    return f"Example: {example}." if example else None
