"""The report of one run: its notebook, its page, its thumbnail, its single file."""

import base64
import json
import re
from html import unescape

import nbformat
import pytest

from research_jobs.outcome import CheckOutcome, Failure, StagedOutput
from research_jobs.report.build import build_report, standalone
from research_jobs.report.gallery import write_page
from research_jobs.report.layout import report_folder
from research_jobs.report.morning import MorningPage
from research_jobs.report.stored import read_report

PNG = base64.b64encode(bytes.fromhex("89504e470d0a1a0a") + b"x").decode()
JPEG = bytes.fromhex("ffd8ffe000040000ffc20011080190") + (800).to_bytes(2) + bytes(9)
WIDE = [
    (
        "image/png",
        base64.b64encode(
            bytes.fromhex("89504e470d0a1a0a0000000d49484452")
            + (1200).to_bytes(4)
            + (500).to_bytes(4)
        ).decode(),
        250,
    ),
    ("image/jpeg", base64.b64encode(JPEG).decode(), 300),
    ("image/svg+xml", "<svg width='900pt' height='450pt'><path stroke-width='5'/></svg>", 300),
]
FIGURE = {"data": [{"type": "scatter", "x": [1, 2], "y": [3, 4]}], "layout": {}}
PLOTLY = "application/vnd.plotly.v1+json"
SOURCE = """
    # %% [markdown]
    # # Title
    # Some *prose* with $x^2$.
    # %% Load
    x = 1
    # %% Fit
    y = x + 1
    # %% Plot
    z = 3
    """


def built(captures, header, tmp_path, source=SOURCE, shows=None, *, end="succeeded", **options):
    status = options.pop("status", None)
    capture = captures.write(source, shows, status=status, end=end)
    run = header(**options)
    reports = tmp_path / "reports"
    return build_report(capture, run, report_folder(reports, run), reports=reports)


def page_of(report) -> str:
    return report.html.read_text()


class TestNotebook:
    """The executed .ipynb."""

    def test_valid_and_whole(self, captures, header, show, tmp_path):
        """nbformat accepts it; cells, outputs, counts and tags are there."""

        def all_kinds(recorder):
            recorder.stream("stdout", "out\n")
            recorder.stream("stderr", "err\n")
            recorder.display({"image/png": PNG, "text/plain": "<Figure>"})
            recorder.display({"text/plain": "3"}, output_type="execute_result")
            recorder.display({PLOTLY: FIGURE}, {"a": 1}, display_id="x")
            recorder.note("something was left out")

        report = built(
            captures,
            header,
            tmp_path,
            '"""About."""\n# %% Load tags=["parameters"]\nx = 1\n# %% [raw]\n# raw\n',
            {2: all_kinds},
        )
        notebook = nbformat.read(report.ipynb, as_version=4)
        nbformat.validate(notebook)
        assert [cell.cell_type for cell in notebook.cells] == ["markdown", "code", "raw"]
        code = notebook.cells[1]
        assert code.metadata == {"title": "Load", "tags": ["parameters"]}
        assert code.execution_count == 1
        assert [output.output_type for output in code.outputs] == [
            "stream",
            "stream",
            "display_data",
            "execute_result",
            "display_data",
            "stream",
        ]
        assert code.outputs[2].data["image/png"] == PNG
        assert notebook.metadata.research_jobs.run_id == "ab12cd34-0000"

    def test_failed(self, captures, header, tmp_path):
        """A failed run's notebook has the error, and cells without a count after it."""
        report = built(
            captures,
            header,
            tmp_path,
            shows={3: lambda r: r.error("KeyError", "'Close'", ["Traceback", "KeyError"], 5)},
            status={3: "error"},
            ending="failed",
        )
        notebook = nbformat.read(report.ipynb, as_version=4)
        nbformat.validate(notebook)
        assert notebook.cells[2].outputs[0].ename == "KeyError"
        assert [cell.get("execution_count") for cell in notebook.cells[1:]] == [1, 2, None]


class TestPage:
    """The HTML page."""

    def test_header(self, captures, header, tmp_path):
        """The header says which run it is and how it went."""
        page = page_of(
            built(
                captures,
                header,
                tmp_path,
                partition="2024-01-02",
                parameters={"lookback": "60", "name": "<b>"},
                peak_memory_bytes=300 * 2**20,
                code_version="3f9ab21c",
                git_commit="9c1f33e",
                run_url="http://127.0.0.1:3000/runs/ab12",
                path="notebooks/volatility/garch.py",
                outputs=(StagedOutput("forecast", "", "", 2340, 1000),),
                notes=("cut short",),
                used_by=("book",),
                checks=(
                    CheckOutcome("forecast", "not_null", True),
                    CheckOutcome("forecast", "unique", False, description="2 rows"),
                ),
            )
        )
        for part in (
            "Succeeded",
            "Mon 3 Jun 2024, 09:33 CEST",
            "4.20 s",
            "300 MiB peak memory",
            "2024-01-02",
            "<i>lookback</i> 60",
            "&lt;b&gt;",
            "3f9ab21c",
            "9c1f33e",
            'href="http://127.0.0.1:3000/runs/ab12"',
            "notebooks/volatility/garch.py",
            "2,340 rows",
            "cut short",
            'book/index.html">book</a>',
            "1 of 2 failed",
            "failed: forecast unique <i>2 rows</i>",
            "<code>research-jobs run volatility/garch --partition 2024-01-02</code>",
        ):
            assert part in page

    def test_code_is_folded(self, captures, header, tmp_path):
        """Code is there, folded, under its cell's title."""
        page = page_of(built(captures, header, tmp_path))
        assert '<details class="rj-code"><summary><span class="t">Load</span>' in page
        assert "<details open" not in page
        assert '<details class="rj-code" open' not in page

    def test_prose_and_contents(self, captures, header, tmp_path):
        """Prose is rendered, formulas are MathML, and headings are listed."""
        page = page_of(
            built(
                captures,
                header,
                tmp_path,
                "# %% [markdown]\n# # A $x^2$\n# ## B <i>c</i>\n# ## D\n# *e*\n# ## F\n",
            )
        )
        assert "<em>e</em>" in page
        assert "<math" in page
        assert '<a href="#cell-1-2">B c</a>' in page
        assert '<h2 id="cell-1-2">' in page
        # The notebook's own title is the page's: it is there once.
        assert page.count("<h1") == 1
        assert re.search(r'<h1 class="rj-name">A <math.*</h1>', page, re.DOTALL)
        assert "<span>volatility/garch</span>" in page

    def test_failed(self, captures, header, tmp_path):
        """A failed run's page leads to its cell, which is open; cells after it are marked."""

        def fails(recorder):
            recorder.stream("stdout", "before\n")
            recorder.error("KeyError", "'Close'", ["Traceback:", "KeyError: 'Close'"], 7)

        report = built(
            captures,
            header,
            tmp_path,
            shows={3: fails},
            status={3: "error"},
            ending="failed",
            failure=Failure(headline="garch.py:7, cell 3 \"Fit\": KeyError: 'Close'", line=7),
        )
        page = page_of(report)
        assert report.anchor == "cell-3"
        assert 'class="rj-cell rj-failed" id="cell-3"><details class="rj-code" open>' in page
        assert "<mark>y = x + " in page
        assert "1 cell was not run" in page
        assert 'rj-skipped" id="cell-4"' in page
        assert 'href="#cell-3"' in page
        assert page.index("before") < page.index("Traceback:")

    def test_killed(self, captures, header, tmp_path):
        """Of a process that was killed the page has everything up to then, and why it ended."""
        report = built(
            captures,
            header,
            tmp_path,
            shows={3: lambda recorder: recorder.stream("stdout", "last words\n")},
            status={3: "running"},
            ending="crashed",
            failure=Failure(
                headline='garch.py, cell 3 "Fit": SIGSEGV', traceback="Fatal Python error", line=6
            ),
        )
        page = page_of(report)
        assert report.anchor == "cell-3"
        assert "last words" in page
        assert "did not finish" in page
        assert "Fatal Python error" in page
        nbformat.validate(nbformat.read(report.ipynb, as_version=4))

    def test_nothing_captured(self, header, tmp_path):
        """A run that ended before its notebook was read has a report that says why."""
        report = build_report(
            tmp_path / "missing.jsonl",
            header(ending="exited", failure=Failure(headline="it left", traceback="the trace")),
            tmp_path / "report",
        )
        page = page_of(report)
        assert "it left" in page
        assert "the trace" in page
        assert report.thumbnail is None
        assert json.loads(report.ipynb.read_text())["cells"] == []

    def test_skipped(self, captures, header, tmp_path):
        """A skipped run says its reason, and which cells it did not reach."""
        page = page_of(
            built(
                captures,
                header,
                tmp_path,
                status={2: "skipped"},
                ending="skipped",
                skip_reason="market closed",
            )
        )
        assert "market closed" in page
        assert "2 cells were not run" in page

    def test_failed_after_the_last_cell(self, captures, header, tmp_path):
        """A failure outside the cells (an output that cannot be kept) stands above them."""
        report = built(
            captures,
            header,
            tmp_path,
            ending="failed",
            failure=Failure(headline="output x: no Parquet"),
        )
        assert report.anchor is None
        assert "output x: no Parquet" in page_of(report)
        assert "not run" not in page_of(report).split("</style>")[1]

    def test_no_network(self, captures, header, show, tmp_path):
        """Nothing in a page is fetched from elsewhere, pictures of the notebook included."""
        report = built(
            captures,
            header,
            tmp_path,
            shows={
                2: show("text/html", '<img src="https://example.com/x.png"><p>text</p>'),
                3: show(PLOTLY, FIGURE),
                4: show("image/png", PNG),
            },
        )
        page = page_of(report)
        sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
        assert all(not source.startswith("http") for source in sources)
        assert "A picture on the network is not loaded." in page

    def test_plotly_script_is_shared(self, captures, header, show, tmp_path):
        """Two reports share one copy of plotly's script, which no page holds."""
        shows = {2: show(PLOTLY, FIGURE)}
        first = built(captures, header, tmp_path, shows=shows)
        second = built(captures, header, tmp_path, shows=shows, run_id="other")
        assert first.html != second.html
        scripts = list((tmp_path / "reports" / "assets").glob("plotly-*.min.js"))
        assert len(scripts) == 1
        assert first.html.stat().st_size < 100_000
        (path,) = re.findall(r'src="([^"]*plotly-[^"]*)"', page_of(first))
        assert (first.folder / path).resolve() == scripts[0].resolve()

    def test_text_of_progress_bars(self, captures, header, tmp_path):
        """Of a progress bar the last state is shown, and colours are colours."""
        page = page_of(
            built(
                captures,
                header,
                tmp_path,
                shows={
                    2: lambda r: r.stream("stderr", "  0%\r 50%\r100%\n\x1b[31mred\x1b[0m <x>\n")
                },
            )
        )
        assert "100%\n" in page
        assert " 50%" not in page.split("<main>")[1]
        assert '<span class="a-f1">red</span> &lt;x&gt;' in page

    def test_large_text_is_cut(self, captures, header, tmp_path):
        """A text that is too long for a page is cut in the middle, with a note."""
        report = built(
            captures,
            header,
            tmp_path,
            shows={2: lambda r: r.display({"text/plain": "a" * 300_000 + "end"})},
        )
        page = page_of(report)
        assert "characters in the middle are left out here" in page
        assert "end" in page
        assert len(page) < 200_000

    def test_many_large_tables_have_frames(self, captures, header, show, tmp_path):
        """Once a page is heavy, further large tables get frames of their own."""
        rows = "<tr><td>1</td></tr>" * 30_000
        table = {"text/html": f"<table>{rows}</table>"}
        report = built(
            captures,
            header,
            tmp_path,
            shows={2: lambda recorder: [recorder.display(table) for _ in range(10)]},
        )
        page = page_of(report)
        frames = list((report.folder / "frames").iterdir())
        assert page.count('class="rj-frame"') == len(frames) == 2
        assert len(page) < 6_000_000

    def test_pictures_beside_the_notebook(self, captures, header, tmp_path):
        """A picture that the prose shows is put into the page; one outside its folder is not."""
        folder = tmp_path / "notebooks"
        folder.mkdir()
        (folder / "logo.png").write_bytes(b"picture")
        (tmp_path / "secret.png").write_bytes(b"secret")
        capture = captures.write(
            "# %% [markdown]\n# ![logo](logo.png) ![no](../secret.png) ![no](/etc/passwd)\n"
        )
        report = build_report(capture, header(), tmp_path / "out", notebook_path=folder / "nb.py")
        page = page_of(report)
        assert base64.b64encode(b"picture").decode() in page
        assert base64.b64encode(b"secret").decode() not in page

    @pytest.mark.parametrize("source", ["# %%\n", "", "# %% [markdown]\n", "# %%\n# comment\n"])
    def test_empty(self, captures, header, tmp_path, source):
        """A notebook with nothing in it has a page that says so."""
        report = built(captures, header, tmp_path, source)
        nbformat.validate(nbformat.read(report.ipynb, as_version=4))
        assert "<main>" in page_of(report)


class TestLibraries:
    """Charts whose libraries would fetch their scripts from the network."""

    def test_bokeh(self, captures, header, tmp_path):
        """A bokeh plot has bokeh's own script with it; what only loads it is dropped."""
        script = tmp_path / "bokeh.min.js"
        script.write_text("window.Bokeh = '</script>'")

        def shows(recorder):
            recorder.asset("bokeh", str(script))
            recorder.display({"text/html": "<div class='bk-notebook-logo'>Loading</div>"})
            recorder.display({"application/vnd.bokehjs_load.v0+json": "x", "text/plain": "x"})
            recorder.display({"text/html": '<div id="a-1" data-root-id="p1"></div>'})
            recorder.display(
                {"application/vnd.bokehjs_exec.v0+json": "", "application/javascript": "draw()"},
                {"application/vnd.bokehjs_exec.v0+json": {"id": "p1"}},
            )

        report = built(captures, header, tmp_path, shows={2: shows})
        (frame,) = (report.folder / "frames").iterdir()
        document = frame.read_text()
        assert "window.Bokeh = '\\u003c\\\\/script>'" in document
        assert (
            document.index("window.Bokeh")
            < document.index("data-root-id")
            < document.index("draw()")
        )
        assert "Loading" not in page_of(report)

    def test_bokeh_without_its_script(self, captures, header, tmp_path):
        """Where bokeh's script is not found, the page says so."""

        def shows(recorder):
            recorder.display({"text/html": '<div id="a-1" data-root-id="p1"></div>'})
            recorder.display(
                {"application/vnd.bokehjs_exec.v0+json": "", "application/javascript": "draw()"},
                {"application/vnd.bokehjs_exec.v0+json": {"id": "p1"}},
            )

        assert "was not found" in page_of(built(captures, header, tmp_path, shows={2: shows}))

    def test_altair(self, captures, header, tmp_path):
        """Of an altair chart that nothing could draw the page says how to have it drawn."""
        import altair as alt
        import pandas as pd

        chart = alt.Chart(pd.DataFrame({"x": ["a", "b"], "y": [1, 2]})).mark_bar()
        data = chart.encode(x="x", y="y")._repr_mimebundle_()
        report = built(captures, header, tmp_path, shows={2: lambda r: r.display(data)})
        assert "vl-convert-python" in page_of(report)
        assert "rj-frame" not in page_of(report).split("<main>")[1]
        assert report.thumbnail is None

    def test_altair_drawn(self, captures, header, tmp_path):
        """An altair chart that was drawn in the notebook's process is that drawing."""
        data = {"text/html": "<div>vegaEmbed</div>", "image/svg+xml": "<svg/>"}
        report = built(captures, header, tmp_path, shows={2: lambda r: r.display(data)})
        assert "data:image/svg+xml" in page_of(report)
        assert "rj-frame" not in page_of(report).split("<main>")[1]


def test_numbers_that_are_not_json_are_null(captures, header, show, tmp_path):
    """A display with NaN in it leaves a notebook that every program opens."""
    shown = {"a": float("nan"), "b": [float("-inf"), 1.5]}
    report = built(captures, header, tmp_path, shows={3: show("application/json", shown)})
    text = report.ipynb.read_text()
    assert '{"a": null, "b": [null, 1.5]}' in text
    nbformat.validate(nbformat.reads(text, 4))


def test_a_report_that_nests_too_deep_is_a_damaged_one(captures, header, tmp_path):
    """It is passed over where reports are listed, and stops nothing."""
    report = built(captures, header, tmp_path)
    assert read_report(report.folder) is not None
    report.ipynb.write_text("[" * 100_000)
    assert read_report(report.folder) is None


class TestThumbnail:
    """The first chart."""

    def test_first_picture(self, captures, header, show, tmp_path):
        """The first figure of the notebook is its thumbnail."""
        report = built(captures, header, tmp_path, shows={3: show("image/png", PNG)})
        assert report.thumbnail.name == "thumbnail.png"
        assert report.thumbnail.read_bytes() == base64.b64decode(PNG)

    def test_plotly(self, captures, header, show, tmp_path):
        """A plotly figure is handed to the gallery, with the script that draws it."""
        report = built(captures, header, tmp_path, shows={3: show(PLOTLY, FIGURE)})
        assert report.thumbnail.name == "thumbnail.js"
        call = re.fullmatch(r"researchJobsFigure\((.*)\);\n", report.thumbnail.read_text())
        figure = json.loads(call[1])
        assert figure["data"] == FIGURE["data"]
        assert figure["notebook"] == "volatility/garch"
        assert (tmp_path / "reports" / figure["plotly"]).is_file()

    @pytest.mark.parametrize("figure", [{"data": [{"y": [0.5] * 300_000}]}, [], "x"])
    def test_no_figure(self, captures, header, show, tmp_path, figure):
        """A figure that is too large for a gallery, or is none, is no thumbnail."""
        report = built(captures, header, tmp_path, shows={3: show(PLOTLY, figure)})
        assert report.thumbnail is None
        assert "rj-cell" in page_of(report)

    def test_a_drawing_without_a_size_is_shown(self, captures, header, show, tmp_path):
        """Digits without end are no size, and cost the page nothing."""
        drawing = f"<svg width='700' height='{'9' * 400}'><path/></svg>"
        report = built(captures, header, tmp_path, shows={3: show("image/svg+xml", drawing)})
        assert report.thumbnail.name == "thumbnail.svg"
        assert "rj-figure" in page_of(report).partition("<main")[2]

    def test_forged_figure(self, captures, header, show, tmp_path):
        """A figure cannot say which script draws it, or whose it is."""
        figure = FIGURE | {"plotly": "https://example.com/x.js", "notebook": "another"}
        report = built(captures, header, tmp_path, shows={3: show(PLOTLY, figure)})
        assert "example.com" not in report.thumbnail.read_text()
        assert "another" not in report.thumbnail.read_text()

    def test_wide_picture_is_scaled(self, captures, header, show, tmp_path):
        """No thumbnail is wider than Dagster's column, whatever the figure's size and format."""
        for mime, picture, height in WIDE:
            report = built(captures, header, tmp_path, shows={3: show(mime, picture)})
            assert report.thumbnail.name == "thumbnail.svg"
            drawing = report.thumbnail.read_text()
            assert f'width="600" height="{height}"' in drawing
            assert f"data:{mime};base64," in drawing

    def test_broken_picture_stays(self, captures, header, show, tmp_path):
        """A picture whose header says no size is kept as it is."""
        cut = base64.b64encode(b"\xff\xd8\xff\xe0\x00\x10").decode()
        report = built(captures, header, tmp_path, shows={3: show("image/jpeg", cut)})
        assert report.thumbnail.name == "thumbnail.jpg"

    def test_active_drawing_is_none(self, captures, header, show, tmp_path):
        """An SVG that could act when opened by itself is no thumbnail."""
        drawing = "<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"
        report = built(captures, header, tmp_path, shows={3: show("image/svg+xml", drawing)})
        assert report.thumbnail is None
        assert "<script>1" not in page_of(report)

    def test_none(self, captures, header, tmp_path):
        """A notebook without charts has no thumbnail."""
        assert built(captures, header, tmp_path).thumbnail is None


class TestStandalone:
    """One file to mail."""

    def test_has_everything(self, captures, header, show, tmp_path):
        """The file needs no other: scripts and frames are in it, links to neighbours are not."""
        report = built(
            captures,
            header,
            tmp_path,
            shows={
                2: show(PLOTLY, FIGURE),
                3: show("text/html", "<button onclick='1'>x</button>"),
            },
        )
        text = standalone(report.html)
        assert 'src="' not in re.sub(r'src="data:[^"]*"', "", text.split("<script>")[0])
        assert "Plotly" in text
        assert "srcdoc=" in text
        assert "index.html" not in text.split("<main>")[0]

    def test_a_page_says_its_policy_itself(self, captures, header, show, tmp_path):
        """From a disk no server says it: the page holds every directive, the gallery's too."""
        expected = {
            "default-src": "'none'",
            "script-src": "'self' file:",
            "style-src": "'unsafe-inline'",
            "base-uri": "'none'",
            "form-action": "'none'",
        }
        report = built(captures, header, tmp_path, shows={2: show("text/html", "<b>x</b>")})
        for page, more in (
            (report.html, {"img-src": "data: blob:", "frame-src": "'self' file:"}),
            (write_page(tmp_path / "reports", MorningPage()), {"img-src": "'self' file: data:"}),
        ):
            [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', page.read_text())
            parts = [part.strip().partition(" ") for part in unescape(policy).split(";")]
            assert {name: value for name, _, value in parts} == expected | more

    def test_scripts_are_named_by_hash(self, captures, header, show, tmp_path):
        """Without frames, no script but the known ones may run in the file."""
        report = built(captures, header, tmp_path, shows={2: show(PLOTLY, FIGURE)})
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', standalone(report.html))
        scripts = policy[1].split("script-src ")[1].split(";")[0]
        assert "sha256-" in scripts
        assert "unsafe-inline" not in scripts


def test_folders(header, tmp_path):
    """Runs, partitions and attempts have folders of their own, sorted by time."""
    headers = [
        header(),
        header(run_id="other"),
        header(partition="a"),
        header(partition="b"),
        header(started_at=1717400001.0),
        header(run_id="../../etc"),
    ]
    folders = [report_folder(tmp_path, item) for item in headers]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == tmp_path / "volatility/garch/_runs" for folder in folders)
    assert folders[0].name.startswith("20240603T073320-ab12cd34-")
