"""What to say where this version of Dagster lacks a private name."""

from __future__ import annotations

import logging

import dagster as dg

__all__ = ["lacking"]

logger = logging.getLogger("research_jobs")
_said: set[str] = set()


def lacking(error: BaseException, consequence: str) -> None:
    """Say once in this process what is slower or missing, and why.

    Parameters
    ----------
    error : ImportError or AttributeError
        Names what is not there.
    consequence : str
        What a person notices, as the end of a sentence.
    """
    if consequence in _said:
        return
    _said.add(consequence)
    logger.warning("With Dagster %s, %s (%s).", dg.__version__, consequence, error)
