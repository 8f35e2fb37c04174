"""A plan: what is there, what is to be done, what a person changed and is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from server.host import ProblemError, say

__all__ = ["DONE", "Look", "Step", "carry_out", "show"]


@dataclass(frozen=True)
class Look:
    """How a step stands.

    Parameters
    ----------
    mark : {"done", "to do", "kept", "note"}
        ``kept`` is a file that a person changed; ``note`` is something that only a person can do.
    detail : str
        What would be done, what differs, or what to do.
    """

    mark: Literal["done", "to do", "kept", "note"]
    detail: str = ""


DONE = Look("done")


@dataclass(frozen=True)
class Step:
    """One thing that must be true of a server.

    Parameters
    ----------
    title : str
    look : callable
        How it stands. It changes nothing, and can be asked before earlier steps are done.
    do : callable
        Makes it true. It can be interrupted, and done again.
    """

    title: str
    look: Callable[[], Look]
    do: Callable[[], None]


def _line(step: Step, look: Look) -> str:
    detail = look.detail.replace("\n", f"\n{'':8}")
    return f"{look.mark:6}  {step.title}{f': {detail}' if detail else ''}"


def show(steps: Sequence[Step]) -> int:
    """Print the plan; how many steps are to be done."""
    looks = [(step, step.look()) for step in steps]
    for step, look in looks:
        say(_line(step, look))
    return sum(look.mark == "to do" for _, look in looks)


def carry_out(steps: Sequence[Step], *, planned: bool = False) -> int:
    """Do what is to be done, in order; how many steps that were.

    Parameters
    ----------
    steps : sequence of Step
    planned : bool
        Whether the plan was shown, with what each step does.

    Raises
    ------
    ProblemError
        When a step fails, or is not true after it was done.
    """
    count = 0
    for step in steps:
        look = step.look()
        if look.mark != "to do":
            if look.mark == "note" or (look.mark == "kept" and not planned):
                say(_line(step, look))
            continue
        say(f"doing   {step.title}{'' if planned else f': {look.detail}'}")
        step.do()
        after = step.look()
        if after.mark == "to do":
            raise ProblemError(f"{step.title}: not there after it was done: {after.detail}")
        count += 1
    return count
