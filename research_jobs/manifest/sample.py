"""What `pytest --notebooks` runs a notebook with: `test` of a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, StrictStr

from research_jobs.manifest.fields import Flag, Json, Spec, json_value, plain_text
from research_jobs.manifest.values import RefusedValueError
from research_jobs.project import notebook_name

__all__ = ["SampleSpec", "input_name"]


def input_name(written: str) -> tuple[str, str]:
    """The notebook and the output of ``volatility.garch.forecast`` or ``market_data/prices``.

    Returns
    -------
    (str, str)
        The notebook is empty where only one name is written.
    """
    notebook, _, output = notebook_name(written).rpartition("/")
    return notebook, output


def _inputs(value: Any) -> Any:
    """A file for each input, or for each of its partitions, whose keys may be dates."""
    if not isinstance(value, dict):
        return value
    inputs: dict[str, Any] = {}
    for written, files in value.items():
        if not input_name(str(written))[0]:
            raise RefusedValueError(
                f"'{written}' does not name an output of a notebook",
                "Write market_data.prices: the notebook, then the output.",
            )
        of_partitions = isinstance(files, dict)
        for path in files.values() if of_partitions else (files,):
            if not isinstance(path, str) or not path.endswith((".parquet", ".pq")):
                raise RefusedValueError(
                    f"'{path}' is not a Parquet file", "Write tests/samples/prices.parquet."
                )
        inputs[written] = (
            {plain_text(key): path for key, path in files.items()} if of_partitions else files
        )
    return inputs


def _partition(value: Any) -> Any:
    return plain_text(json_value(value)) if value is not None else None


class SampleSpec(Spec):
    """What a notebook is tested with."""

    synonyms: ClassVar[Mapping[str, str]] = {
        "input": "inputs",
        "data": "inputs",
        "samples": "inputs",
        "params": "parameters",
    }

    inputs: Annotated[
        Mapping[str, StrictStr | Mapping[str, StrictStr]],
        BeforeValidator(_inputs, json_schema_input_type=dict[str, str | dict[str, str]]),
    ] = Field(
        default_factory=dict,
        description="What it loads, and the Parquet file read instead: {market_data.prices: FILE}.",
    )
    parameters: Json = Field(default_factory=dict, description="Values for its parameters.")
    partition: Annotated[
        StrictStr | None, BeforeValidator(_partition, json_schema_input_type=str | int | None)
    ] = Field(default=None, description="The partition that it runs for.")
    strict: Flag = Field(default=False, description="Whether it can read nothing but these inputs.")
    checks: Flag = Field(
        default=True, description="Whether a failed check of an output fails the test."
    )
    skip: StrictStr | None = Field(default=None, description="Why it is not tested.")

    def files(self) -> Iterator[tuple[str, str, str, str | None, str]]:
        """The key as written, notebook, output, partition and file of each input."""
        for written, files in self.inputs.items():
            notebook, output = input_name(written)
            if isinstance(files, str):
                yield written, notebook, output, None, files
            else:
                for partition, path in files.items():
                    yield written, notebook, output, partition, path
