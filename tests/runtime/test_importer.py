"""Importing a notebook: what cells see, how they are compiled, how failures are reported."""

import dataclasses
import inspect
import pickle
import sys
import textwrap
from pathlib import Path

import pytest

from research_jobs.errors import ParameterError
from research_jobs.notebook.cells import NotebookText, read_notebook_text
from research_jobs.report.record import Error, Output, read_capture
from research_jobs.run_context import NotebookSkipped
from research_jobs.runtime.importer import describe_failure, import_notebook
from research_jobs.runtime.recording import open_recorder


class Runner:
    """Writes notebooks below a folder and imports them in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.recorded = None
        self.text: NotebookText | None = None
        monkeypatch.syspath_prepend(str(folder))

    def write(self, source: str, name: str = "nb") -> Path:
        path = self.folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source).lstrip("\n"))
        return path

    def run(self, source: str, name: str = "nb", **options):
        self.text = read_notebook_text(self.write(source, name))
        capture = self.folder / "capture.jsonl"
        recorder = open_recorder(str(capture))
        module_name = name.replace("/", ".")
        self.monkeypatch.delitem(sys.modules, module_name, raising=False)
        try:
            return import_notebook(self.text, module_name, recorder=recorder, **options)
        finally:
            recorder.end("done")
            self.recorded = read_capture(capture)
            if module_name in sys.modules:
                self.monkeypatch.setitem(sys.modules, module_name, sys.modules[module_name])

    def shown(self, number: int) -> list:
        return next(cell for cell in self.recorded.cells if cell.number == number).shown

    def fails(self, source: str, **options):
        with pytest.raises(BaseException) as caught:
            self.run(source, **options)
        return describe_failure(caught.value, self.text, self.folder)


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    return Runner(tmp_path, monkeypatch)


def plain(runner: Runner, source: str, name: str):
    """The same source by Python's own import."""
    runner.write(source, name)
    runner.monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)


SAME = '''
"""What it is about.

    Indented.
"""
from __future__ import annotations
import sys
# %% One
x: int = 1
def here():
    return sys._getframe().f_lineno
class Thing:
    """A thing."""
    y: str = "a"
# %% Two
"""A text that is no docstring."""
z: "Thing" = Thing()
names = (__name__, __package__, __file__, __spec__.name, __spec__.origin, __cached__)
line = here()
'''


class TestNamespace:
    """What a cell sees is what a plain import gives."""

    def test_as_a_plain_import(self, notebook):
        """A module has the same names and values as the same file imported by Python."""
        ours, _ = notebook.run(SAME, "same")
        theirs = plain(notebook, SAME, "same")
        assert set(ours.__dict__) == set(theirs.__dict__)
        assert ours.__doc__ == theirs.__doc__
        assert ours.__annotations__ == theirs.__annotations__ == {"x": "int", "z": "'Thing'"}
        assert ours.names == theirs.names
        assert ours.line == theirs.line
        assert ours.Thing.__module__ == "same"
        assert ours.__spec__.has_location
        assert type(ours.__loader__).__mro__[1:] == type(theirs.__loader__).__mro__

    def test_is_in_sys_modules_while_it_runs(self, notebook):
        """A notebook can import itself, and finds the module that is being made."""
        module, _ = notebook.run("# %%\nimport nb\nsame = nb.__dict__ is globals()\n")
        assert module.same
        assert sys.modules["nb"] is module

    def test_is_not_in_sys_modules_after_it_failed(self, notebook):
        """A failed import leaves no half-made module, as Python's does."""
        with pytest.raises(ZeroDivisionError):
            notebook.run("# %%\n1 / 0\n", "broken")
        assert "broken" not in sys.modules

    def test_leaves_the_process_as_it_was(self, notebook):
        """Neither finders nor streams nor builtins of ours outlive the import."""
        import builtins

        before = list(sys.meta_path), sys.stdout, sys.stderr, set(dir(builtins))
        notebook.run("# %%\nprint('x')\n")
        assert (list(sys.meta_path), sys.stdout, sys.stderr, set(dir(builtins))) == before

    def test_in_a_folder(self, notebook):
        """A notebook in a folder is a submodule, bound in its package."""
        module, _ = notebook.run("# %%\nvalue = __name__\n", "pack/inner")
        assert module.value == "pack.inner"
        assert sys.modules["pack"].inner is module

    def test_in_a_folder_named_as_a_module(self, notebook):
        """A folder whose name is the standard library's still holds notebooks that run."""
        module, _ = notebook.run("# %%\nimport random\nvalue = random.random()\n", "random/walk")
        assert module.__name__ == "random.walk"
        assert 0 <= module.value < 1

    def test_classes_pickle(self, notebook):
        """Objects of a notebook's classes go through pickle, dataclasses too."""
        module, _ = notebook.run(
            """
            # %%
            import dataclasses
            @dataclasses.dataclass
            class Point:
                x: int
            point = Point(3)
            """
        )
        assert pickle.loads(pickle.dumps(module.point)) == module.point
        assert dataclasses.is_dataclass(module.Point)

    def test_source_of_a_deleted_file(self, notebook):
        """inspect and tracebacks show the source that ran, though the file is gone."""
        source = "# %%\nimport os\nos.unlink(__file__)\ndef f():\n    return 1 / 0\n# %%\nf()\n"
        failure = notebook.fails(source)
        assert "return 1 / 0" in failure.traceback
        module, _ = notebook.run(source.replace("f()\n", "pass\n", 1).replace("# %%\nf()\n", ""))
        assert inspect.getsource(module.f).startswith("def f")

    def test_future_flags_last(self, notebook):
        """A __future__ import holds for the cells below it."""
        module, _ = notebook.run(
            "from __future__ import annotations\n# %%\ndef f(x: Unknown): ...\n# %%\ny: Nope = 1\n"
        )
        assert module.f.__annotations__ == {"x": "Unknown"}
        assert module.__annotations__ == {"y": "Nope"}

    def test_our_flags_do_not_leak(self, notebook):
        """This program's own __future__ imports do not change what a notebook means."""
        module, _ = notebook.run("# %%\ndef f(x: int): ...\n")
        assert module.f.__annotations__ == {"x": int}

    def test_star_import_and_globals(self, notebook):
        """Star imports, exec and globals() act on the module as anywhere."""
        module, _ = notebook.run(
            "# %%\nfrom math import *\nexec('a = pi')\n# %%\nglobals()['b'] = a\n"
        )
        assert module.b == pytest.approx(3.14159, abs=1e-4)


class TestShown:
    """What a cell's end shows."""

    def test_last_expression(self, notebook):
        """A bare last expression is shown, others are not, None is not."""
        notebook.run("# %%\n1\n2\n# %%\nx = 3\n# %%\nNone\n# %%\n4\nx = 5\n")
        assert [item.data for item in notebook.shown(1)] == [{"text/plain": "2"}]
        assert not notebook.shown(2)
        assert not notebook.shown(3)
        assert not notebook.shown(4)

    @pytest.mark.parametrize(
        "source",
        ["6;", "6 ;  # a comment", "(\n    6\n);", "'é' * 2;", "f(\n  1,\n)  ;"],
    )
    def test_quiet(self, notebook, source):
        """A semicolon behind the last expression keeps it quiet."""
        notebook.run(f"f = int\n# %%\n{source}\n")
        assert not notebook.shown(2)

    def test_strings_with_semicolons_are_shown(self, notebook):
        """A semicolon inside the expression is part of it."""
        notebook.run("# %%\nx = 1; 'a;'\n# %%\n(1); 'b'\n")
        assert notebook.shown(1)[0].data["text/plain"] == "'a;'"
        assert notebook.shown(2)[0].data["text/plain"] == "'b'"

    def test_docstring_is_a_value_too(self, notebook):
        """A text that is all of a cell is its value, as in the editor, the docstring too."""
        module, _ = notebook.run('# %%\n"""About."""\n# %%\n"shown"\n')
        assert module.__doc__ == "About."
        assert notebook.shown(1)[0].data == {"text/plain": "'About.'"}
        assert notebook.shown(2)[0].data == {"text/plain": "'shown'"}
        module, _ = notebook.run('# %%\n"""About."""\nx = 1\n')
        assert module.__doc__ == "About."
        assert not notebook.shown(1)

    def test_prose_in_a_string(self, notebook):
        """The text of a markdown cell is neither shown as a value nor a docstring."""
        module, _ = notebook.run('# %%\nx = 1\n# %% [markdown]\n"""\n# Prose\n"""\n')
        assert module.__doc__ is None
        assert [cell.kind for cell in notebook.recorded.cells] == ["code", "markdown"]
        assert not any(cell.shown for cell in notebook.recorded.cells)

    def test_decorated_function_belongs_to_its_decorators_cell(self, notebook):
        """A definition runs with the cell in which its decorator stands."""
        order = []
        module, _ = notebook.run(
            "# %%\nx = 1\n# %%\n@staticmethod\ndef f(): return 1\n# %%\ny = f\n",
            on_cell=lambda cell: order.append(cell.number),
        )
        assert order == [1, 2, 3]
        assert module.y is module.f

    def test_cells_without_code_have_run(self, notebook):
        """Empty cells, comments and constants count as run, first, in the middle and last."""
        order = []
        notebook.run(
            "# %% A\n# only this\n# %% B\n\n# %% C\nx = 1\n# %% D\n42\n# %% E\n# no more\n",
            on_cell=lambda cell: order.append(cell.title),
        )
        assert order == ["A", "B", "C", "D", "E"]
        assert {cell.status for cell in notebook.recorded.cells} == {"ok"}


class TestAwait:
    """Top-level await."""

    def test_values_and_statements(self, notebook):
        """await, async for and async with work at the top level, in any cell."""
        module, _ = notebook.run(
            """
            import asyncio
            async def f(x):
                await asyncio.sleep(0)
                return x
            async def numbers():
                for i in range(3):
                    yield i
            # %%
            a = await f(1)
            # %%
            await f(2)
            # %%
            found = [i async for i in numbers()]
            async for last in numbers():
                pass
            """
        )
        assert (module.a, module.found, module.last) == (1, [0, 1, 2], 2)
        assert notebook.shown(3)[0].data == {"text/plain": "2"}

    def test_a_task_outlives_its_cell(self, notebook):
        """A task that one cell starts, another awaits, as in the editor."""
        module, _ = notebook.run(
            """
            # %%
            import asyncio
            async def work():
                await asyncio.sleep(0)
                return 7
            task = asyncio.create_task(work())
            # %%
            result = await task
            """
        )
        assert module.result == 7

    def test_without_await_asyncio_run_works(self, notebook):
        """A notebook that awaits nowhere may run loops of its own."""
        module, _ = notebook.run(
            "# %%\nimport asyncio\nasync def f(): return 3\n# %%\nx = asyncio.run(f())\n"
        )
        assert module.x == 3

    def test_failure_in_a_coroutine(self, notebook):
        """The failing line of an awaited function is reported with the user's frames only."""
        failure = notebook.fails("async def f():\n    raise KeyError('x')\n# %% Wait\nawait f()\n")
        assert failure.headline == "nb.py:4, cell 2 \"Wait\": KeyError: 'x'"
        assert "asyncio" not in failure.traceback
        assert "importer.py" not in failure.traceback


class TestParameters:
    """Values that replace those of the parameters cell."""

    SOURCE = """
        # %% tags=["parameters"]
        import datetime as dt
        lookback = 60
        day: dt.date = dt.date(2024, 1, 2)
        # %%
        doubled = lookback * 2
        """

    def test_replace(self, notebook):
        """Values come right after the cell and are of the default's type."""
        module, used = notebook.run(
            self.SOURCE,
            parameters={"lookback": 5, "day": "2024-03-01"},
            parameter_types={"lookback": "int", "day": "date"},
        )
        assert module.doubled == 10
        assert module.day.isoformat() == "2024-03-01"
        assert used == {"lookback": "5", "day": "datetime.date(2024, 3, 1)"}

    def test_defaults_are_reported(self, notebook):
        """Without values the defaults are reported as used."""
        _, used = notebook.run(self.SOURCE)
        assert used["lookback"] == "60"

    def test_no_cell_takes_them(self, notebook):
        """Values without a parameters cell are an error before anything runs."""
        with pytest.raises(ParameterError, match="no cell takes them"):
            notebook.run("# %%\nraise SystemExit\n", parameters={"a": 1})


class TestFailure:
    """How a failure is reported."""

    def test_first_line_and_cell(self, notebook):
        """The first line names file, line, cell and error; the cell's source has an arrow."""
        failure = notebook.fails("# %% Load prices\nx = {}\nx['Close']\n# %%\ny = 1\n")
        assert failure.headline == "nb.py:3, cell 1 \"Load prices\": KeyError: 'Close'"
        assert (failure.line, failure.cell, failure.cell_title) == (3, 1, "Load prices")
        assert failure.cell_source.splitlines()[1] == "-> 3 x['Close']"
        assert failure.exception == "KeyError"

    def test_the_running_cell_counts(self, notebook):
        """An error in a function of an earlier cell is the calling cell's."""
        failure = notebook.fails("# %% A\ndef f():\n    raise ValueError('no')\n# %% B\nf()\n")
        assert failure.headline == 'nb.py:5, cell 2 "B": ValueError: no'
        assert "line 3, in f" in failure.traceback

    def test_helpers_are_the_users(self, notebook):
        """Frames of helper modules are shown, those of libraries are summed up."""
        notebook.write("import json\ndef read(text):\n    return json.loads(text)\n", "helper")
        notebook.monkeypatch.delitem(sys.modules, "helper", raising=False)
        failure = notebook.fails("# %%\nimport helper\nhelper.read('{')\n")
        assert 'File "helper.py", line 3, in read' in failure.traceback
        assert "(raised inside json/decoder.py" in failure.traceback
        assert failure.traceback.count('File "') == 2
        assert failure.headline.startswith("nb.py:3, cell 1: JSONDecodeError: ")

    def test_causes_are_reported(self, notebook):
        """Causes and contexts are part of the story, cut down the same way."""
        failure = notebook.fails(
            "# %%\ntry:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('b') from e\n"
        )
        assert "KeyError: 'a'" in failure.traceback
        assert "direct cause" in failure.traceback
        assert failure.line == 5

    def test_syntax_error(self, notebook):
        """A syntax error is reported with its line, and no cell runs."""
        failure = notebook.fails("# %% A\nprint('never')\n# %% B\nx = = 1\n")
        assert failure.headline == 'nb.py:4, cell 2 "B": SyntaxError: invalid syntax'
        assert not notebook.recorded.cells or not notebook.shown(1)

    def test_errors_that_only_the_compiler_sees(self, notebook):
        """What does not compile is reported before any cell runs."""
        failure = notebook.fails("# %%\nopen('ran', 'w').close()\n# %%\nreturn 1\n")
        assert "'return' outside function" in failure.headline
        assert not Path("ran").exists()

    @pytest.mark.parametrize("magic", ["%matplotlib inline", "!ls", "%%time"])
    def test_magics(self, notebook, magic):
        """A line for IPython is explained, with a way out."""
        failure = notebook.fails(f"# %%\nx = 1\n{magic}\n")
        assert failure.line == 3
        assert "comment it out" in failure.headline

    def test_exception_whose_str_fails(self, notebook):
        """An exception that cannot be shown is still reported."""
        failure = notebook.fails(
            "# %%\nclass E(Exception):\n    def __str__(self): raise RuntimeError\nraise E\n"
        )
        assert failure.headline == "nb.py:4, cell 1: E: (its message cannot be shown)"

    def test_recorded(self, notebook):
        """The report has the error in its cell, and what the cell showed before it."""
        notebook.fails("# %%\nprint('a')\n1 / 0\n# %%\nprint('never')\n")
        first, second = notebook.recorded.cells
        assert (first.status, second.status) == ("error", "not run")
        error = first.shown[-1]
        assert isinstance(error, Error)
        assert (error.ename, error.evalue, error.line) == (
            "ZeroDivisionError",
            "division by zero",
            3,
        )

    def test_group(self, notebook):
        """The members of an exception group are reported without library frames."""
        failure = notebook.fails(
            "# %%\nraise ExceptionGroup('both', [ValueError('a'), KeyError('b')])\n"
        )
        assert "ValueError: a" in failure.traceback
        assert "KeyError: 'b'" in failure.traceback


class TestEndings:
    """Ways to leave a notebook."""

    def test_skip(self, notebook):
        """skip() ends the cell as skipped and propagates."""
        with pytest.raises(NotebookSkipped):
            notebook.run("# %%\nfrom research_jobs import skip\nskip('closed')\n# %%\nx = 1\n")
        assert [cell.status for cell in notebook.recorded.cells] == ["skipped", "not run"]

    @pytest.mark.parametrize(("code", "status"), [("", "ok"), ("0", "ok"), ("2", "error")])
    def test_exit(self, notebook, code, status):
        """SystemExit propagates; only one with a code marks its cell as failed."""
        with pytest.raises(SystemExit):
            notebook.run(f"# %%\nimport sys\nsys.exit({code})\n")
        assert notebook.recorded.cells[0].status == status

    def test_keyboard_interrupt(self, notebook):
        """An interrupt propagates as what it is."""
        with pytest.raises(KeyboardInterrupt):
            notebook.run("# %%\nraise KeyboardInterrupt\n")

    def test_no_cells(self, notebook):
        """A file with markers only is a module all the same."""
        module, _ = notebook.run("# %%\n# %% [markdown]\n# Hello\n")
        assert module.__name__ == "nb"
        assert not any(isinstance(s, Output) for c in notebook.recorded.cells for s in c.shown)
