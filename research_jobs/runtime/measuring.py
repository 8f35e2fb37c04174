"""Line coverage of the notebook's process, where coverage.py's variables ask for it.

An interpreter that starts with these variables is measured by coverage.py itself. A notebook's
process is forked from one that started earlier, so it starts its own measurement. What it
measured is saved by an exit handler, in a file of its own.

Standard library only at the top, Python 3.10 and later.
"""

from __future__ import annotations

import contextlib
import os
import sys

__all__ = ["CONFIG_VARIABLE", "measure_coverage"]

CONFIG_VARIABLE = "COVERAGE_PROCESS_CONFIG"
_VARIABLES = (CONFIG_VARIABLE, "COVERAGE_PROCESS_START")


def measure_coverage(folder: str) -> None:
    """Start to measure this process, if its environment asks for it.

    Parameters
    ----------
    folder : str
        What relative names in coverage.py's settings are relative to.
    """
    if not any(os.environ.get(name) for name in _VARIABLES):
        return
    try:
        import coverage
    except ModuleNotFoundError:
        sys.stderr.write(f"coverage.py is not installed for {sys.executable}\n")
        return
    inherited = coverage.Coverage.current()
    if inherited is not None:
        inherited.stop()
    # It notes on itself that it has started, which is true of the process we were forked from.
    coverage.process_startup.__dict__.pop("coverage", None)
    here = os.getcwd()  # noqa: PTH109 - pathlib is not needed for this
    try:
        os.chdir(folder)
        coverage.process_startup()
    except Exception as error:  # noqa: BLE001 - the notebook runs all the same
        sys.stderr.write(f"coverage.py does not measure this notebook: {error}\n")
    finally:
        with contextlib.suppress(OSError):
            os.chdir(here)
