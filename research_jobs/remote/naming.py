"""What a person names, as notebooks, outputs and partitions. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase

from research_jobs.errors import OutputNotFoundError, PartitionError, did_you_mean
from research_jobs.project import notebook_name

__all__ = ["chosen_notebooks", "chosen_partitions"]


def chosen_notebooks(
    notebooks: Collection[str],
    names: Sequence[str],
    outputs: Callable[[str], Collection[str]],
) -> dict[str, set[str] | None]:
    """Each notebook that is named, with the outputs that are wanted of it, or None for all.

    Parameters
    ----------
    notebooks : collection of str
        Those that have outputs.
    names : sequence of str
        ``market_data``, ``market_data.prices``, ``volatility/*``; none of them means all.
    outputs : callable
        The outputs of a notebook.

    Raises
    ------
    OutputNotFoundError
    """
    wanted: dict[str, set[str] | None] = {}
    for text in names or ["*"]:
        for notebook, output in _found(notebooks, notebook_name(text), outputs):
            several = wanted.setdefault(notebook, set())
            if output is None:
                wanted[notebook] = None
            elif several is not None:
                several.add(output)
    return wanted


def _found(
    notebooks: Collection[str], name: str, outputs: Callable[[str], Collection[str]]
) -> list[tuple[str, str | None]]:
    if any(letter in name for letter in "*?["):
        alike = [each for each in sorted(notebooks) if fnmatchcase(each, name)]
        if not alike and name != "*":
            raise OutputNotFoundError(f"no notebook with outputs is called '{name}'")
        return [(each, None) for each in alike]
    if name in notebooks:
        return [(name, None)]
    notebook, _, output = name.rpartition("/")
    if notebook in notebooks:
        known = outputs(notebook)
        if output not in known:
            raise OutputNotFoundError(
                f"'{notebook}' has published no output '{output}'",
                hint=did_you_mean(output, known, label="It has") or None,
            )
        return [(notebook, output)]
    near = did_you_mean(name, notebooks) if not notebook else did_you_mean(notebook, notebooks)
    raise OutputNotFoundError(f"no notebook '{name}' has published outputs", hint=near or None)


def chosen_partitions(notebook: str, keys: Collection[str], text: str | None) -> Collection[str]:
    """The keys that ``A..B`` or ``A,B`` or a pattern names; all without a text.

    Both ends are included; an end that is left out is open. ``2018-11`` as the second end
    includes all that begin with it.

    Raises
    ------
    PartitionError
    """
    if text is None or not keys:
        return keys
    first, dots, last = text.partition("..")
    if dots:
        inside = {
            key
            for key in keys
            if key >= first and (not last or key <= last or key.startswith(last))
        }
    else:
        patterns = [part.strip() for part in text.split(",")]
        inside = {key for key in keys if any(fnmatchcase(key, each) for each in patterns)}
    if not inside:
        raise PartitionError(
            f"{notebook} has no partition {text}",
            hint=f"It has {len(keys)}, from {min(keys)} to {max(keys)}.",
        )
    return inside
