"""What a tested notebook reads instead of published outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from research_jobs.errors import OutputError, PartitionError, did_you_mean
from research_jobs.manifest.partitions import dimension_specs, key_parts
from research_jobs.manifest.sample import input_name
from research_jobs.notebook.discovery import not_found, walk_folder
from research_jobs.project import notebook_name
from research_jobs.protocol import PartitionKey
from research_jobs.store.codec import write_output
from research_jobs.store.commit import open_staging, publish
from research_jobs.supervisor.run import Call

__all__ = ["Input", "InputName", "named_inputs", "store_inputs"]

InputName: TypeAlias = str | tuple[str, str] | tuple[str, str, str]


@dataclass(frozen=True)
class Input:
    """A value that the notebook reads as an output of another.

    Parameters
    ----------
    notebook, output : str
    value : object
    partition : str or None
        Its key, where the other notebook has partitions.
    """

    notebook: str
    output: str
    value: Any
    partition: str | None = None


def named_inputs(inputs: Mapping[InputName, Any]) -> tuple[Input, ...]:
    """Inputs by ``("market_data", "prices")`` or ``"market_data.prices"``.

    Raises
    ------
    OutputError
        For a name that is neither.
    """
    found: list[Input] = []
    for name, value in inputs.items():
        parts = input_name(name) if isinstance(name, str) else tuple(name)
        if len(parts) not in (2, 3) or not all(parts):
            raise OutputError(
                f"inputs: {name!r} does not name an output of a notebook",
                hint='Write ("market_data", "prices").',
            )
        partition = str(parts[2]) if len(parts) == 3 else None
        found.append(Input(notebook_name(parts[0]), parts[1], value, partition))
    return tuple(found)


def store_inputs(inputs: Iterable[Input], store: str, call: Call) -> None:
    """Publish inputs to a store of their own.

    Parameters
    ----------
    inputs : iterable of Input
    store : str
        A folder.
    call : Call
        The run that reads them.

    Raises
    ------
    NotebookNotFoundError, OutputError, PartitionError
        When nobody could publish such an output.
    OutputNotParquetError
    """
    published: dict[tuple[str, str | None], list[Input]] = {}
    for each in inputs:
        published.setdefault((each.notebook, _partition_of(each, call)), []).append(each)
    for (notebook, key), values in published.items():
        _publish(notebook, key, values, store, call)


def _publish(
    notebook: str, key: str | None, values: Sequence[Input], store: str, call: Call
) -> None:
    partition = None
    if key is not None:
        parts = key_parts(call.manifest.spec(notebook), key)
        partition = PartitionKey(key=key, dimensions=parts)
    with open_staging(store, "test") as staging:
        staged = [
            write_output(
                each.output,
                each.value,
                staging.path / f"{each.output}.parquet",
                options={},
                metadata={},
            )
            for each in values
        ]
        publish(store, notebook, staged, staging=staging, partition=partition, run_id="test")


def _partition_of(given: Input, call: Call) -> str | None:
    """The partition that an input is published as, once it is known to be an output."""
    manifest, name = call.manifest, given.notebook
    if name not in manifest.notebooks:
        names = [file.name for file in walk_folder(call.project.notebooks).files]
        if name not in names:
            raise not_found(name, names)
        for problem in manifest.problems_of(name):
            raise problem.error
    spec = manifest.spec(name)
    if given.output not in spec.outputs:
        raise OutputError(
            f"inputs: {name} declares no output '{given.output}'",
            hint=did_you_mean(given.output, spec.outputs, label="Its outputs")
            or "Declare it in notebooks/manifest.yaml.",
        )
    columns = dimension_specs(spec)
    run = call.partition
    if given.partition is not None or not columns:
        if not columns and given.partition is not None:
            raise PartitionError(
                f"inputs: {name} has no partitions", hint=f'Write ("{name}", "{given.output}").'
            )
        return given.partition
    if run is not None and set(columns) == set(run.dimensions):
        return run.key
    raise PartitionError(
        f"inputs: {name} has partitions, and the run does not tell which one is meant",
        hint=f'Write ("{name}", "{given.output}", PARTITION).',
    )
