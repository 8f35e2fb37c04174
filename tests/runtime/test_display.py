"""What notebooks show, and what libraries find that look for the editor.

Each notebook runs in a process of its own, as in batch: libraries keep what they once found.
"""

import base64
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from research_jobs.report.record import Output, Recorded, Stream, read_capture

RUN = """
import sys
from pathlib import Path
BLOCKED = tuple(sys.argv[3:])
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block()) if BLOCKED else None
from research_jobs.notebook.cells import read_notebook_text
from research_jobs.runtime.recording import open_recorder
from research_jobs.runtime.importer import import_notebook
recorder = open_recorder(sys.argv[2] or None)
import_notebook(read_notebook_text(Path(sys.argv[1])), "nb", recorder=recorder)
recorder.end("succeeded")
"""


class Fresh:
    """Runs a notebook in a fresh process and reads what it showed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, source: str, *, blocked: tuple[str, ...] = (), record: bool = True, **environment: str
    ) -> Recorded:
        path = self.folder / "nb.py"
        path.write_text(textwrap.dedent(source).lstrip("\n"))
        capture = self.folder / "capture.jsonl"
        clean = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "PLOTLY_RENDERER")}
        done = subprocess.run(
            [
                sys.executable,
                *("-W", "ignore::DeprecationWarning"),
                *("-c", RUN, str(path), str(capture) if record else "", *blocked),
            ],
            env=clean | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return read_capture(capture)


@pytest.fixture
def fresh(tmp_path):
    return Fresh(tmp_path)


def outputs(recorded: Recorded, number: int) -> list[Output]:
    (cell,) = (cell for cell in recorded.cells if cell.number == number)
    return [item for item in cell.shown if isinstance(item, Output)]


def text(recorded: Recorded, number: int, name: str) -> str:
    (cell,) = (cell for cell in recorded.cells if cell.number == number)
    return "".join(i.text for i in cell.shown if isinstance(i, Stream) and i.name == name)


def test_tables_and_numbers_need_no_ipython(fresh):
    """A notebook that shows a table and a number does not import IPython."""
    recorded = fresh.run(
        """
        # %%
        import pandas as pd
        frame = pd.DataFrame({"a": [1, 2]})
        display(frame)
        frame
        # %%
        frame["a"]
        # %%
        frame["a"].sum()
        # %%
        assert type(get_ipython()).__name__ == "ZMQInteractiveShell"
        import sys
        assert "IPython" not in sys.modules
        """
    )
    first, second = outputs(recorded, 1)
    assert (first.output_type, second.output_type) == ("display_data", "execute_result")
    assert first.data == second.data
    assert "<table" in first.data["text/html"]
    assert first.data["text/plain"].split() == ["a", "0", "1", "1", "2"]
    assert recorded.ended == "succeeded"


def test_pandas_finds_a_kernel(fresh):
    """pandas shows as many columns as in the editor, not as in a terminal."""
    recorded = fresh.run("# %%\nimport pandas as pd\npd.get_option('display.max_columns')\n")
    assert outputs(recorded, 1)[0].data == {"text/plain": "20"}


def test_matplotlib(fresh):
    """Figures are shown by plt.show() and at the cell's end, in order, and closed after."""
    recorded = fresh.run(
        """
        # %% At the end
        import matplotlib.pyplot as plt
        plt.plot([1, 2])
        plt.figure(); plt.plot([1, 3]);
        # %% Closed
        assert not plt.get_fignums()
        # %% In order
        plt.plot([1]); plt.show()
        print("between")
        plt.plot([2]); plt.show()
        # %% Saved too
        figure, axes = plt.subplots()
        axes.set_title("Kept\\n too")
        figure.savefig("kept.png")
        # %% Vector
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("svg")
        plt.plot([1, 2]);
        # %% Shown by name
        figure, axes = plt.subplots(); plt.close(); figure
        # %%
        import matplotlib
        matplotlib.get_backend(), matplotlib.is_interactive()
        """
    )
    first = outputs(recorded, 1)
    assert [list(item.data) for item in first] == [["text/plain", "image/png"]] * 2
    assert base64.b64decode(first[0].data["image/png"]).startswith(b"\x89PNG")
    kinds = [type(item).__name__ for item in recorded.cells[2].shown]
    assert kinds == ["Output", "Stream", "Output"]
    assert len(outputs(recorded, 4)) == 1
    assert outputs(recorded, 4)[0].metadata["image/png"]["alt"] == "Kept too"
    assert (fresh.folder / "kept.png").exists()
    assert outputs(recorded, 5)[0].data["image/svg+xml"].startswith("<?xml")
    assert "image/svg+xml" in outputs(recorded, 6)[0].data
    assert "inline" in outputs(recorded, 7)[0].data["text/plain"]
    assert "True" in outputs(recorded, 7)[0].data["text/plain"]


@pytest.mark.parametrize("backend", ["", "Agg", "agg"])
def test_matplotlib_on_a_server(fresh, backend):
    """A variable that only says there is no screen does not cost the figures."""
    recorded = fresh.run(
        "# %%\nimport matplotlib.pyplot as plt\nplt.plot([1]);\n", MPLBACKEND=backend
    )
    assert "image/png" in outputs(recorded, 1)[0].data


def test_matplotlib_backend_of_the_notebook(fresh):
    """A backend that the notebook chooses itself is its business, as in the editor."""
    recorded = fresh.run(
        """
        # %%
        import matplotlib
        matplotlib.use("agg")
        import matplotlib.pyplot as plt
        plt.plot([1]); plt.savefig("kept.png")
        """
    )
    assert not outputs(recorded, 1)
    assert (fresh.folder / "kept.png").exists()


def test_figures_before_an_error(fresh):
    """Figures that a cell drew before it failed are shown."""
    with pytest.raises(AssertionError):
        fresh.run("# %%\nimport matplotlib.pyplot as plt\nplt.plot([1]);\n1 / 0\n")
    recorded = read_capture(fresh.folder / "capture.jsonl")
    assert "image/png" in outputs(recorded, 1)[0].data
    assert recorded.cells[0].status == "error"


def test_plotly(fresh):
    """A plotly figure is JSON, however it is shown; its script is named and never copied."""
    recorded = fresh.run(
        """
        # %%
        import plotly.graph_objects as go, plotly.io as pio
        figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
        figure.show()
        # %%
        figure
        # %%
        pio.show(figure)
        # %%
        pio.renderers.default
        """
    )
    for number in (1, 2, 3):
        (shown,) = outputs(recorded, number)
        figure = shown.data["application/vnd.plotly.v1+json"]
        assert figure["data"][0]["y"] == [3, 4]
        assert "text/html" not in shown.data
    assert recorded.assets["plotly"].endswith("plotly.min.js")
    assert Path(recorded.assets["plotly"]).is_file()
    assert (fresh.folder / "capture.jsonl").stat().st_size < 200_000


def test_ipython_display(fresh):
    """IPython's display functions work without a kernel, updates and clearing included."""
    recorded = fresh.run(
        """
        # %%
        from IPython.display import (
            HTML, Image, JSON, Latex, Markdown, SVG, Math, clear_output, display, update_display
        )
        display(HTML("<b>x</b>"), Markdown("*y*"))
        # %%
        handle = display("first", display_id=True)
        display("other", display_id="named");
        # %%
        handle.update("second")
        update_display(HTML("<i>z</i>"), display_id="named")
        # %%
        print("gone")
        clear_output(wait=True)
        print("stays")
        # %%
        display({"text/plain": "raw", "text/html": "<p>raw</p>"}, raw=True)
        # %%
        display(Math("x^2"), Latex("$y$"), SVG("<svg xmlns='http://www.w3.org/2000/svg'/>"))
        # %%
        Image(data=bytes.fromhex("89504e470d0a1a0a"), format="png", width=30)
        """
    )
    html, markdown = outputs(recorded, 1)
    assert html.data["text/html"] == "<b>x</b>"
    assert markdown.data["text/markdown"] == "*y*"
    first, other = outputs(recorded, 2)
    assert first.data == {"text/plain": "'second'"}
    assert other.data["text/html"] == "<i>z</i>"
    assert not outputs(recorded, 3)
    assert text(recorded, 4, "stdout") == "stays\n"
    assert outputs(recorded, 5)[0].data == {"text/plain": "raw", "text/html": "<p>raw</p>"}
    assert [next(m for m in item.data if m != "text/plain") for item in outputs(recorded, 6)] == [
        "text/latex",
        "text/latex",
        "image/svg+xml",
    ]
    (image,) = outputs(recorded, 7)
    assert image.data["image/png"].strip() == "iVBORw0KGgo="
    assert image.metadata["image/png"] == {"width": 30}


def test_get_ipython(fresh):
    """Libraries that ask which shell they are in get the answer: a kernel's."""
    fresh.run(
        """
        # %%
        import builtins, sys
        assert builtins.__IPYTHON__
        stand_in = get_ipython()
        assert type(stand_in).__name__ == "ZMQInteractiveShell"
        assert hasattr(stand_in, "kernel")
        assert "IPython" not in sys.modules
        # %%
        import IPython
        from IPython.core.interactiveshell import InteractiveShell
        shell = get_ipython()
        assert IPython.get_ipython() is shell
        assert InteractiveShell.initialized() and InteractiveShell.instance() is shell
        assert isinstance(shell, InteractiveShell)
        assert type(shell).__name__ == "ZMQInteractiveShell"
        assert type(shell).__module__.startswith("ipykernel.")
        assert "IPKernelApp" in shell.config
        assert stand_in.display_formatter is shell.display_formatter
        # %% Magics
        shell.run_line_magic("matplotlib", "inline")
        shell.run_line_magic("load_ext", "autoreload")
        shell.run_line_magic("autoreload", "2")
        shell.run_line_magic("config", "InlineBackend.figure_format = 'retina'")
        assert shell.run_line_magic("timeit", "-n1 -r1 -o pass") is not None
        # %% Formatters
        class Money(float): ...
        shell.display_formatter.formatters["text/html"].for_type(Money, lambda m: f"<b>{m} EUR</b>")
        Money(3)
        # %% Events
        ran = []
        shell.events.register("post_execute", lambda: ran.append(1))
        # %%
        assert ran == [1]
        assert shell.user_ns is globals()
        assert not {"In", "Out", "_", "_ih"} & set(globals())
        """
    )
    assert (fresh.folder / "capture.jsonl").exists()


def test_no_trace_in_the_home_folder(fresh, tmp_path):
    """The shell makes no profile and no history."""
    home = tmp_path / "home"
    home.mkdir()
    fresh.run("# %%\nimport IPython\nget_ipython().history_manager\n", HOME=str(home))
    assert not list(home.iterdir())


def test_libraries(fresh):
    """Tables, pictures, progress bars and consoles show what they show in the editor."""
    recorded = fresh.run(
        """
        # %% polars
        import polars as pl
        pl.DataFrame({"a": [1]})
        # %% styler
        import pandas as pd
        pd.DataFrame({"a": [1, 2]}).style.highlight_max()
        # %% PIL
        from PIL import Image
        Image.new("RGB", (4, 4))
        # %% tqdm
        from tqdm.auto import tqdm
        for _ in tqdm(range(50)):
            pass
        # %% rich
        from rich.console import Console
        Console().print("[bold]hello[/bold]")
        # %% sklearn
        from sklearn.linear_model import LinearRegression
        LinearRegression()
        # %% warnings
        import warnings
        warnings.warn("careful")
        # %% altair
        import altair as alt
        alt.Chart(pd.DataFrame({"x": [1], "y": [2]})).mark_bar().encode(x="x", y="y")
        # %% seaborn
        import seaborn as sns
        sns.lineplot(x=[1, 2], y=[3, 4]);
        # %% containers
        {"a": list(range(40))}
        """
    )
    assert "shape: (1, 1)" in outputs(recorded, 1)[0].data["text/html"]
    assert "#T_" in outputs(recorded, 2)[0].data["text/html"]
    assert "image/png" in outputs(recorded, 3)[0].data
    assert "100%" in text(recorded, 4, "stderr")
    assert "hello" in outputs(recorded, 5)[0].data["text/html"]
    assert "LinearRegression" in outputs(recorded, 6)[0].data["text/html"]
    assert "nb.py:22: UserWarning: careful" in text(recorded, 7, "stderr")
    assert any("vega" in mime or mime == "text/html" for mime in outputs(recorded, 8)[0].data)
    assert "image/png" in outputs(recorded, 9)[0].data
    assert outputs(recorded, 10)[0].data["text/plain"].count("\n") == 39


def test_without_ipython(fresh):
    """Where there is no IPython, tables and figures are shown all the same."""
    recorded = fresh.run(
        """
        # %%
        import pandas as pd
        pd.DataFrame({"a": [1]})
        # %%
        import matplotlib.pyplot as plt
        plt.plot([1, 2])
        # %%
        display({"a": 1}, display_id="x")
        display("b", display_id="x", update=True)
        # %%
        plt.plot([1]); plt.show(); print("behind")
        # %%
        try:
            get_ipython()
        except NameError:
            "none"
        # %%
        plt.plot([1]); plt.title(r"$\\no_such_symbol$"); "drawn at the end"
        # %%
        plt.plot([1]); None
        """,
        blocked=("IPython", "matplotlib_inline"),
    )
    assert "text/html" in outputs(recorded, 1)[0].data
    assert [next(iter(item.data)) for item in outputs(recorded, 2)] == ["text/plain", "image/png"]
    assert outputs(recorded, 3)[0].data == {"text/plain": "'b'"}
    assert [type(item).__name__ for item in recorded.cells[3].shown] == ["Output", "Stream"]
    assert "no_such_symbol" in text(recorded, 6, "stderr"), "and the notebook goes on"
    assert ["image/png" in item.data for item in outputs(recorded, 7)] == [True]


def test_libraries_imported_before(tmp_path):
    """A module that a template imported ahead learns where it runs, as if it were imported now."""
    (tmp_path / "nb.py").write_text(
        "# %%\nimport matplotlib.pyplot as plt, plotly.graph_objects as go, pandas as pd\n"
        "go.Figure().show()\nplt.plot([1]);\n# %%\npd.get_option('display.max_columns')\n"
    )
    before = (
        "import matplotlib.pyplot, plotly.io, plotly.graph_objects, pandas, IPython\n"
        "import matplotlib_inline.backend_inline\n"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "PLOTLY_RENDERER")}
    capture = tmp_path / "capture.jsonl"
    subprocess.run(
        [sys.executable, "-c", before + RUN, str(tmp_path / "nb.py"), str(capture)],
        env=clean,
        cwd=tmp_path,
        check=True,
        timeout=100,
    )
    recorded = read_capture(capture)
    assert [next(iter(item.data)) for item in outputs(recorded, 1)] == [
        "application/vnd.plotly.v1+json",
        "text/plain",
    ]
    assert "image/png" in outputs(recorded, 1)[1].data
    assert outputs(recorded, 2)[0].data == {"text/plain": "20"}


def test_nothing_recorded(fresh):
    """Where nobody keeps what is shown, showing it costs nothing and fails nothing."""
    recorded = fresh.run(
        """
        # %%
        class Loud:
            def __repr__(self):
                raise RuntimeError
        Loud()
        # %%
        display(Loud())
        import matplotlib.pyplot as plt
        plt.plot([1]); plt.show()
        assert not plt.get_fignums()
        display(Loud(), display_id="a")
        # %%
        drawn = []
        figure, axes = plt.subplots()
        figure.canvas.print_figure = lambda *args, **options: drawn.append(1)
        # %%
        assert not drawn and not plt.get_fignums()
        """,
        record=False,
    )
    assert not recorded.cells


def test_values_that_fail_to_show(fresh):
    """A value whose representation fails is reported on stderr and fails nothing."""
    recorded = fresh.run(
        """
        # %%
        class Broken:
            def _repr_html_(self):
                raise ValueError("no html")
            def __repr__(self):
                return "<broken>"
        Broken()
        # %%
        import IPython
        Broken()
        # %%
        class Worse:
            def __repr__(self):
                raise ValueError("no text")
        Worse()
        # %%
        2 ** 20_000
        # %%
        class Itself:
            def _ipython_display_(self):
                raise ValueError("not me")
            def _repr_mimebundle_(self, include=None, exclude=None):
                return 1, 2, 3
            @property
            def _repr_html_(self):
                raise ValueError("no such property")
            def __repr__(self):
                return "<itself>"
        Itself()
        # %%
        class Asks:
            def __getattr__(self, name):
                return {}[name]
            def __repr__(self):
                return "<asks>"
        display(Asks())
        Asks()
        # %%
        display({5: "five", "text/plain": "text"}, raw=True)
        """
    )
    assert outputs(recorded, 4)[0].data == {"text/plain": "<int: its repr() raised ValueError>"}
    assert "not me" in text(recorded, 5, "stderr")
    assert outputs(recorded, 5)[0].data == {"text/plain": "<itself>"}
    assert [output.data for output in outputs(recorded, 6)] == [{"text/plain": "<asks>"}] * 2
    assert outputs(recorded, 7)[0].data == {"5": "five", "text/plain": "text"}
    assert "no html" in text(recorded, 1, "stderr")
    assert outputs(recorded, 1)[0].data == {"text/plain": "<broken>"}
    assert "no html" in text(recorded, 2, "stderr")
    assert outputs(recorded, 2)[0].data == {"text/plain": "<broken>"}
    assert "no text" in text(recorded, 3, "stderr")


def test_objects_that_display_themselves(fresh):
    """_ipython_display_ and _repr_mimebundle_ are asked, with and without IPython."""
    source = """
        # %%
        class Itself:
            def _ipython_display_(self):
                print("itself")
        Itself()
        # %%
        class Bundle:
            def _repr_mimebundle_(self, include=None, exclude=None):
                return {"text/html": "<p>bundle</p>"}, {"text/html": {"a": 1}}
        Bundle()
        """
    for begin in ("", "import IPython\n"):
        recorded = fresh.run(begin + textwrap.dedent(source).lstrip("\n"))
        number = len(recorded.cells) - 1
        assert text(recorded, number, "stdout") == "itself\n"
        assert not outputs(recorded, number)
        (bundle,) = outputs(recorded, number + 1)
        assert bundle.data["text/html"] == "<p>bundle</p>"
        assert bundle.metadata == {"text/html": {"a": 1}}


def test_imported_before_and_not_used(tmp_path):
    """Where IPython was imported ahead, a notebook that shows a table makes no shell of it."""
    (tmp_path / "nb.py").write_text(
        "# %%\nimport pandas as pd\npd.DataFrame({'a': [1]})\n"
        "# %%\nimport sys\nassert 'research_jobs.runtime.shell' not in sys.modules\n"
        "assert type(get_ipython()).__name__ == 'ZMQInteractiveShell'\n"
        "# %%\nimport IPython\n"
        "assert IPython.get_ipython() is get_ipython()\n"
        "assert IPython.get_ipython().user_ns is globals()\n"
    )
    subprocess.run(
        [sys.executable, "-c", "import IPython\n" + RUN, str(tmp_path / "nb.py"), ""],
        cwd=tmp_path,
        check=True,
        timeout=100,
    )


def test_handlers_at_exit_see_the_namespace(fresh):
    """What a notebook registers with atexit finds its names, though there was a shell."""
    fresh.run(
        """
        # %%
        import atexit, pathlib
        from IPython.display import display, HTML
        display(HTML("<b>x</b>"))
        atexit.register(lambda: pathlib.Path("left").write_text(word))
        word = "still here"
        """
    )
    assert (fresh.folder / "left").read_text() == "still here"
