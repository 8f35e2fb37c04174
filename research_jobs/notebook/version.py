"""The code version: one hash over a notebook and every module of the project that it imports.

Comments, prose, docstrings and formatting do not count. The names of modules and parameters do,
because both decide what a run does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

__all__ = ["code_version"]

_FORMAT = "1"
"""Increased when the algorithm changes, so that no old version equals a new one by accident."""


def code_version(
    notebook: str, modules: Mapping[str, str], *, parameters: Iterable[str] = ()
) -> str:
    """Combine digests into a code version.

    Parameters
    ----------
    notebook : str
        Digest of the notebook's tree.
    modules : mapping of str to str
        Import name of each local module to its digest.
    parameters : iterable of str
        Names of the notebook's parameters, in order.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    parts = [_FORMAT, notebook, ",".join(parameters)]
    parts += [f"{name}={modules[name]}" for name in sorted(modules)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
