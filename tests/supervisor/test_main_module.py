"""What looks for the running program in ``__main__`` finds the notebook, as in the editor."""

from __future__ import annotations

import textwrap

import pytest
from lab import Lab, Ran

from research_jobs.outcome import State

BOTH = pytest.mark.parametrize("isolation", ["fork", "spawn"])

DEFINITIONS = '''
# %% Definitions
"""A notebook.

>>> 1 + 1
3
"""
import dataclasses, typing, unittest

@dataclasses.dataclass
class Point:
    """A point.

    >>> Point(1).x
    2
    """
    x: "Alias"

Alias = int

def double(x: "Alias") -> "Point":
    """Twice.

    >>> double(2)
    5
    """
    return x * 2

class TestIt(unittest.TestCase):
    def test_it(self):
        self.assertEqual(double(1), 3)
'''
LOOKS = {
    "import __main__": "import __main__, sys; assert vars(__main__) is globals()",
    "from __main__ import": "from __main__ import double as found; assert found is double",
    "the name": "import __main__; assert __name__ == __main__.__name__ == 'looks'",
    "doctest": "import doctest; assert doctest.testmod()[:2] == (3, 3)",
    "doctest of a name": """
import doctest
doctest.run_docstring_examples(double, globals())
""",
    "unittest": """
result = unittest.main(argv=["x"], exit=False).result
assert (result.testsRun, len(result.failures)) == (1, 1)
""",
    "unittest, one test by name": """
result = unittest.main(argv=["x", "TestIt.test_it"], exit=False).result
assert result.testsRun == 1
""",
    "cProfile": "import cProfile; cProfile.run('double(2)')",
    "profile": "import profile; profile.run('double(2)')",
    "timeit": """
import timeit
assert timeit.timeit("double(2)", setup="from __main__ import double", number=10) > 0
assert timeit.timeit("double(2)", globals=globals(), number=10) > 0
""",
    "pickle": """
import pickle
assert pickle.loads(pickle.dumps(Point(3))) == Point(3)
assert pickle.loads(pickle.dumps(double)) is double
""",
    "pickles made where it was __main__": """
import pickle
assert pickle.loads(b"c__main__\\nPoint\\n.") is Point
""",
    "typing.get_type_hints": """
assert typing.get_type_hints(double) == {"x": int, "return": Point}
assert typing.get_type_hints(Point) == {"x": int}
""",
    "inspect": """
import inspect
assert "return x * 2" in inspect.getsource(double)
assert "class Point" in inspect.getsource(Point)
assert inspect.getmodule(double).__dict__ is globals()
""",
    "trace": "import trace; trace.Trace(count=1, trace=0).run('double(2)')",
    "runpy leaves it": """
import runpy, sys
open("other.py", "w").write("value = __name__")
assert runpy.run_path("other.py", run_name="__main__")["value"] == "__main__"
from __main__ import double as found; assert found is double
""",
    "%run leaves it": """
open("other.py", "w").write("value = __name__")
from IPython import get_ipython
get_ipython().run_line_magic("run", "other.py")
assert value == "__main__"
from __main__ import double as found; assert found is double
""",
}


def look(lab: Lab, code: str, isolation: str | None = None) -> Ran:
    """Run the definitions, then some code in a cell of its own."""
    lab.write("looks", f"{DEFINITIONS}# %% Look\n{code}\n")
    return lab.run("looks", isolation=isolation)


@BOTH
@pytest.mark.parametrize("kind", LOOKS)
def test_main_is_the_notebook(lab: Lab, kind: str, isolation: str) -> None:
    """Tools of the standard library find what the notebook defines."""
    outcome = look(lab, LOOKS[kind], isolation)
    assert outcome.result.state is State.SUCCEEDED, (outcome.headline, outcome.stderr)


def test_failing_tests_fail_the_run(lab: Lab) -> None:
    """unittest.main() leaves by sys.exit: a failing test fails the run, a passing one does not."""
    outcome = look(lab, "unittest.main(argv=['x'])")
    assert outcome.result.state is State.FAILED
    assert "exited with code" in outcome.headline
    assert b"FAILED (failures=1)" in outcome.stderr
    outcome = look(lab, "del TestIt.test_it\nTestIt.test_ok = print\nunittest.main(argv=['x'])")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline


def test_main_in_a_helper(lab: Lab) -> None:
    """A helper module that looks into ``__main__`` finds the notebook that imports it."""
    lab.write("asks", "def ask():\n    import __main__\n    return __main__.answer\n")
    lab.write("imports", "# %%\nimport asks\nanswer = 42\nassert asks.ask() == 42\n")
    outcome = lab.run("imports")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline


def test_frames_print_as_in_the_editor(lab: Lab) -> None:
    """pandas asks ``__main__`` whether a person is there: a wide frame prints as in the editor."""
    lab.write(
        "prints",
        textwrap.dedent(
            """
            # %%
            import pandas as pd
            print(pd.DataFrame({f"a long name {i}": [i] * 3 for i in range(40)}))
            """
        ),
    )
    outcome = lab.run("prints")
    assert outcome.result.state is State.SUCCEEDED, outcome.headline
    assert max(map(len, outcome.stdout.splitlines())) <= 80
