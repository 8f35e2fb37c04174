"""Generated notebooks: IPython runs the cells, Python runs the script, the values are the same."""

from __future__ import annotations

import atexit
import contextlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from research_jobs.moving.script import percent_script

NAMES = ("a", "b", "c")

names = st.sampled_from(NAMES)
plain = st.one_of(
    st.builds("{} = {}".format, names, st.integers(0, 9)),
    st.builds("{0} = {1} + {2} % 7".format, names, names, names),
    st.builds("{0} = ({1} +\n    {2})".format, names, names, names),
    st.builds("{0} = {1} \\\n    - {2}".format, names, names, names),
    st.builds("{} = len('''\n%d rows\n!x\nwhy?\n''')".format, names),
    st.builds("{0} += 1; {1} -= {0}".format, names, names),
)
magic = st.one_of(
    st.builds("%time {} = {} * 3".format, names, names),
    st.builds("%time {} = {} \\\n     + 2".format, names, names),
    st.builds("%prun -q -l 5 {} = {} + 11".format, names, names),
    st.builds("%timeit -n1 -r1 -q {} + 1".format, names),
    st.builds("%timeit -n1 -r1 -q {}_ = 5".format, names),
    st.builds("{} = %time {} + 5".format, names, names),
    st.just("%xmode Plain"),
    st.builds("lines = !echo {{{}}}\n{} = int(lines[0])".format, names, names),
    st.just("%env MOVED=5\nimport os\na = int(os.environ['MOVED'])"),
)


def indented(statements: list[str], head: str) -> str:
    """A block of the statements that fit on one line."""
    short = [one for one in statements if "\n" not in one]
    return "\n".join([head, *(f"    {line}" for line in short or ["%xmode Plain"])])


body = st.lists(st.one_of(plain, magic), min_size=1, max_size=4)
block = st.builds(
    indented, body, st.sampled_from(["if True:", "for i in range(2):", "with open('/dev/null'):"])
)
code = st.lists(st.one_of(plain, magic, block), min_size=1, max_size=4).map("\n".join)
cell = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "%%time\n", "%%capture\n", "%%capture out\n", "%%prun -q\n", "\n\n"]),
    code,
)


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    """IPython's shell, without a history file."""
    config = Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShell(config=config)
    yield shell
    atexit.unregister(shell.atexit_operations)


@given(cells=st.lists(cell, min_size=1, max_size=4))
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_values_are_those_of_ipython(shell: InteractiveShell, cells: list[str]) -> None:
    """Whatever IPython runs, the script runs to the same values; or it fails where IPython does."""
    start = dict.fromkeys(NAMES, 2)
    shell.user_ns.update(start)
    failed = False
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for source in cells:
            failed = failed or not shell.run_cell(source).success
    made = [{"cell_type": "code", "metadata": {}, "source": source} for source in cells]
    setup = {"cell_type": "code", "metadata": {}, "source": "a = b = c = 2"}
    script = percent_script({"cells": [setup, *made], "metadata": {}})
    space: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            exec(script.text, space)
        except Exception:  # noqa: BLE001 - whatever the notebook raises
            assert failed, script.text
            return
    if not failed:
        assert {name: space[name] for name in NAMES} == {
            name: shell.user_ns[name] for name in NAMES
        }, script.text
