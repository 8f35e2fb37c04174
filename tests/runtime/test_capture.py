"""The capture file: what is kept, in which order, how much, and what a kill leaves."""

import json
import logging
import os
import resource
import stat
import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

from research_jobs.notebook.cells import parse_cells
from research_jobs.report.record import Note, Output, Stream, read_capture
from research_jobs.runtime.capture import Limits, NullRecorder
from research_jobs.runtime.recording import FileRecorder, open_recorder
from research_jobs.runtime.streams import capture_streams

CELLS = parse_cells("# %% One\nx = 1\n# %% Two\ny = 2\n")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "capture.jsonl"


def begun(path: Path, secrets=(), **limits) -> FileRecorder:
    recorder = open_recorder(str(path), secrets, limits=Limits(**limits))
    assert isinstance(recorder, FileRecorder)
    recorder.start(CELLS)
    recorder.begin_cell(1)
    return recorder


def finished(recorder, path: Path) -> list:
    """What the first cell showed."""
    recorder.end_cell(1, 0.5, "ok")
    recorder.end("succeeded")
    return read_capture(path).cells[0].shown


class TestOrder:
    """What is shown stays in the order in which it was shown."""

    def test_streams_and_outputs(self, path):
        """Text and outputs interleave as the cell made them."""
        recorder = begun(path)
        recorder.stream("stdout", "a\n")
        recorder.stream("stderr", "b\n")
        recorder.display({"text/plain": "c"})
        recorder.stream("stdout", "d")
        recorder.stream("stdout", "e\n")
        assert finished(recorder, path) == [
            Stream("stdout", ["a\n"]),
            Stream("stderr", ["b\n"]),
            Output("display_data", {"text/plain": "c"}, {}),
            Stream("stdout", ["de\n"]),
        ]

    def test_cells(self, path):
        """Each cell has its own outputs, its status and its time."""
        recorder = begun(path)
        recorder.stream("stdout", "one")
        recorder.end_cell(1, 0.25, "ok")
        recorder.begin_cell(2)
        recorder.stream("stdout", "two")
        recorder.end_cell(2, 0.5, "error")
        recorder.end("failed")
        recorded = read_capture(path)
        assert [cell.shown for cell in recorded.cells] == [
            [Stream("stdout", ["one"])],
            [Stream("stdout", ["two"])],
        ]
        assert [(cell.status, cell.duration_s) for cell in recorded.cells] == [
            ("ok", 0.25),
            ("error", 0.5),
        ]
        assert recorded.ended == "failed"

    def test_tee(self, path, capfd):
        """print, logging, bytes and writelines reach the report, and the log as before."""
        recorder = begun(path)
        with capture_streams(recorder):
            print("print")
            sys.stdout.writelines(["lines", "\n"])
            sys.stdout.buffer.write("bytes é\n".encode())
            logger = logging.getLogger("test_tee")
            handler = logging.StreamHandler()
            logger.addHandler(handler)
            logger.warning("logged")
            kept = sys.stdout
        print("afterwards", file=kept)
        logger.warning("later")
        logger.removeHandler(handler)
        kept.flush()
        shown = finished(recorder, path)
        assert shown == [
            Stream("stdout", ["print\nlines\nbytes é\n"]),
            Stream("stderr", ["logged\n"]),
        ]
        out, err = capfd.readouterr()
        assert "afterwards" in out
        assert "logged\nlater\n" in err

    def test_what_the_notebook_puts_in_place_stays(self, path, monkeypatch):
        """A notebook's own sys.stdout is not taken away from it."""
        import io

        mine = io.StringIO()
        before = sys.stdout
        with capture_streams(begun(path)):
            sys.stdout = mine
        assert sys.stdout is mine
        sys.stdout = before

    def test_stream_has_what_a_stream_has(self, path):
        """Descriptor, encoding, buffer and terminal are those of the real stream."""
        before = sys.__stdout__
        with capture_streams(begun(path)):
            assert sys.stdout.encoding == before.encoding or sys.stdout.encoding
            assert sys.stdout.writable()
            assert not sys.stdout.closed
            sys.stdout.close()
            assert not sys.stdout.closed


class TestBounds:
    """Nothing grows without bound."""

    def test_head_and_tail(self, path):
        """Of a flood the beginning and the end are kept, and it is said how much is not."""
        recorder = begun(path, stream_head=100, stream_tail=50)
        for number in range(1000):
            recorder.stream("stdout", f"{number:04d}\n")
        shown = finished(recorder, path)
        assert shown[0] == Stream("stdout", ["".join(f"{n:04d}\n" for n in range(20))])
        assert shown[1] == Note("4,850 characters of stdout left out here")
        assert shown[2] == Stream("stdout", ["".join(f"{n:04d}\n" for n in range(990, 1000))])
        assert path.stat().st_size < 2000

    def test_one_huge_write(self, path):
        """A single write without a line's end is bounded like any other."""
        recorder = begun(path, stream_head=10, stream_tail=10)
        recorder.stream("stdout", "x" * 100_000 + "end")
        shown = finished(recorder, path)
        assert [type(item) for item in shown] == [Stream, Note, Stream]
        assert shown[-1].text == "xxxxxxxend"

    def test_large_output(self, path):
        """A representation that is too large is left out with a note; the others stay."""
        recorder = begun(path, output=1000)
        recorder.display({"text/html": "x" * 2000, "text/plain": "short"})
        note, output = finished(recorder, path)
        assert "text/html" in note.text
        assert output.data == {"text/plain": "short"}

    def test_large_json(self, path):
        """A representation that is JSON counts by what it takes as text."""
        recorder = begun(path, output=1000)
        recorder.display({"application/json": list(range(1000)), "text/plain": "short"})
        note, output = finished(recorder, path)
        assert "application/json" in note.text
        assert output.data == {"text/plain": "short"}

    def test_whole_file(self, path):
        """Beyond the file's limit only text is kept, and one note says so."""
        recorder = begun(path, total=5000)
        for _ in range(20):
            recorder.display({"image/png": "A" * 1000, "text/plain": "<Figure>"})
        shown = finished(recorder, path)
        assert sum("image/png" in item.data for item in shown if isinstance(item, Output)) < 6
        assert sum(isinstance(item, Note) for item in shown) == 1
        assert path.stat().st_size < 10_000

    def test_progress_takes_one_record(self, path):
        """A bar that redraws its line thousands of times is kept in its last state only."""
        recorder = begun(path)
        recorder.stream("stderr", "begin\n")
        for number in range(10_000):
            recorder.stream("stderr", f"\r{number:5d}/10000")
        recorder.stream("stderr", "\n")
        shown = finished(recorder, path)
        assert shown == [Stream("stderr", ["begin\n\r 9999/10000\n"])]
        assert path.stat().st_size < 1500

    def test_progress_leaves_what_came_between(self, path):
        """A bar that goes on after a note takes its own former state away, and not the note."""
        recorder = begun(path)
        recorder.stream("stderr", "\r1/3")
        recorder.note("between")
        recorder.stream("stderr", "\r3/3")
        assert Note("between") in finished(recorder, path)

    def test_progress_seen_after_a_kill(self, path):
        """While it runs, the file holds a state of the bar, though not each."""
        recorder = begun(path)
        for number in range(100):
            recorder.stream("stderr", f"\r{number:5d}/10000")
        assert read_capture(path).cells[0].shown == [Stream("stderr", ["\r    0/10000"])]
        recorder.end("cancelled")

    def test_many_updates(self, path):
        """Of an animation the last state is kept, at the place where it was first shown."""
        recorder = begun(path)
        recorder.display({"text/plain": "0"}, display_id="a")
        recorder.stream("stdout", "behind")
        for number in range(1000):
            recorder.display({"text/plain": str(number)}, display_id="a", update=True)
        assert finished(recorder, path) == [
            Output("display_data", {"text/plain": "999"}, {}, "a"),
            Stream("stdout", ["behind"]),
        ]
        assert path.stat().st_size < 2000

    def test_an_update_of_what_was_shown_twice(self, path):
        """Every place at which a display was shown gets its update."""
        recorder = begun(path)
        recorder.display({"text/plain": "0"}, display_id="a")
        recorder.display({"text/plain": "1"}, display_id="a")
        recorder.display({"text/plain": "2"}, display_id="a", update=True)
        shown = finished(recorder, path)
        assert shown == [Output("display_data", {"text/plain": "2"}, {}, "a")] * 2

    def test_full_disk(self, path):
        """A disk that fills up in the middle of a line ends the recording, and nothing else."""
        recorder = open_recorder(str(path))
        recorder.start(CELLS)
        recorder.begin_cell(1)
        recorder.display({"text/plain": "before"})
        full = path.stat().st_size + 100
        own, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))
        try:
            recorder.display({"text/plain": "x" * 1000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (own, hard))
        assert path.stat().st_size == full  # it was met: a part of the line is there
        recorder.stream("stdout", "x")
        recorder.display({"text/plain": "behind"})
        assert finished(recorder, path) == [Output("display_data", {"text/plain": "before"}, {})]
        recorder.clear()
        assert path.stat().st_size == full


class TestClear:
    """clear_output()."""

    def test_at_once(self, path):
        """Everything that the cell has shown is gone, from the disk too."""
        recorder = begun(path)
        recorder.stream("stdout", "gone")
        recorder.display({"text/plain": "gone"})
        recorder.clear()
        recorder.stream("stdout", "stays")
        assert finished(recorder, path) == [Stream("stdout", ["stays"])]
        assert b"gone" not in path.read_bytes()

    def test_when_more_comes(self, path):
        """With wait, the old output stays until there is a new one."""
        recorder = begun(path)
        recorder.stream("stdout", "old")
        recorder.clear(wait=True)
        assert read_capture(path).cells[0].shown == [Stream("stdout", ["old"])]
        recorder.display({"text/plain": "new"})
        assert finished(recorder, path) == [Output("display_data", {"text/plain": "new"}, {})]

    def test_earlier_cells_stay(self, path):
        """Only the running cell is cleared, and its updates of earlier cells stay."""
        recorder = begun(path)
        recorder.display({"text/plain": "a"}, display_id="a")
        recorder.end_cell(1, 0.1, "ok")
        recorder.begin_cell(2)
        recorder.display({"text/plain": "b"}, display_id="a", update=True)
        recorder.stream("stdout", "gone")
        recorder.clear()
        recorder.end_cell(2, 0.1, "ok")
        recorder.end("succeeded")
        first, second = read_capture(path).cells
        assert first.shown == [Output("display_data", {"text/plain": "b"}, {}, "a")]
        assert second.shown == []


class TestSecrets:
    """Values that must not be left behind."""

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
    def test_split_across_writes(self, path, size):
        """However a text is cut, no secret in it is written."""
        recorder = begun(path, ["hunter2secret", 'other<&>"value'])
        text = 'user hunter2secret and other<&>"value, hunter2 hunter2secre\n'
        for start in range(0, len(text), size):
            recorder.stream("stdout", text[start : start + size])
        shown = finished(recorder, path)
        assert shown == [Stream("stdout", ["user *** and ***, hunter2 hunter2secre\n"])]
        assert b"hunter2secret" not in path.read_bytes()

    def test_in_outputs_and_errors(self, path):
        """Escaped, encoded and nested forms are masked too."""
        recorder = begun(path, ['p&ss"w<rd'])
        recorder.display(
            {
                "text/html": "<td>p&amp;ss&quot;w&lt;rd</td>",
                "application/json": {'p&ss"w<rd': ['x p&ss"w<rd y']},
                "text/plain": "p%26ss%22w%3Crd cCZzcyJ3PHJk",
            },
            {"title": 'p&ss"w<rd'},
        )
        recorder.error("E", 'p&ss"w<rd', ['line p&ss"w<rd'], 1)
        output, error = finished(recorder, path)
        assert output.data["text/html"] == "<td>***</td>"
        assert output.data["application/json"] == {"***": ["x *** y"]}
        assert output.data["text/plain"] == "*** ***"
        assert output.metadata == {"title": "***"}
        assert (error.evalue, error.traceback) == ("***", ["line ***"])

    def test_in_what_is_said_of_cells(self, path):
        """A cell's title, tags and text are masked, and nobody else may read the file."""
        recorder = open_recorder(str(path), ["hunter2secret"])
        cells = parse_cells('# %% hunter2secret tags=["hunter2secret"]\nx = "hunter2secret"\n')
        recorder.start(cells)
        recorder.note("hunter2secret")
        recorder.end("succeeded")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        text = path.read_text()
        assert "hunter2" not in text
        assert text.count("***") == 4

    def test_short_values_are_no_secrets(self, path):
        """A value of one character masks nothing."""
        recorder = begun(path, ["1", ""])
        recorder.stream("stdout", "111")
        assert finished(recorder, path) == [Stream("stdout", ["111"])]


class TestProcesses:
    """More than one process and thread."""

    def test_killed(self, path):
        """What was shown before a SIGKILL is in the file; the end is not."""
        script = (
            "import os, signal, sys\n"
            "from research_jobs.notebook.cells import parse_cells\n"
            "from research_jobs.runtime.recording import open_recorder\n"
            "from research_jobs.runtime.streams import capture_streams\n"
            "recorder = open_recorder(sys.argv[1])\n"
            "recorder.start(parse_cells('# %%\\nx = 1\\n'))\n"
            "recorder.begin_cell(1)\n"
            "with capture_streams(recorder):\n"
            "    print('before')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", script, str(path)], check=False, timeout=60)
        recorded = read_capture(path)
        assert recorded.cells[0].shown == [Stream("stdout", ["before\n"])]
        assert recorded.cells[0].status == "running"
        assert recorded.ended is None

    def test_cut_off_line(self, path):
        """A last line that is not whole is left out."""
        recorder = begun(path)
        recorder.stream("stdout", "whole")
        with path.open("a") as file:
            file.write('{"type": "stream", "cell": 1, "na')
        assert read_capture(path).cells[0].shown == [Stream("stdout", ["whole"])]
        recorder.end("cancelled")

    def test_forked(self, path):
        """A forked process's prints are in the report once, and it cannot end the recording."""
        script = (
            "import os, sys\n"
            "from research_jobs.notebook.cells import parse_cells\n"
            "from research_jobs.runtime.capture import Limits\n"
            "from research_jobs.runtime.recording import open_recorder\n"
            "from research_jobs.runtime.streams import capture_streams\n"
            "recorder = open_recorder(sys.argv[1], limits=Limits(stream_head=7))\n"
            "recorder.start(parse_cells('# %%\\nx = 1\\n'))\n"
            "recorder.begin_cell(1)\n"
            "with capture_streams(recorder):\n"
            "    print('parent and a tail')\n"
            "    pid = os.fork()\n"
            "    if not pid:\n"
            "        print('child')\n"
            "        recorder.display({'text/plain': 'copy'}); recorder.note('copy')\n"
            "        recorder.end_cell(1, 0, 'ok'); recorder.end('failed')\n"
            "        os._exit(0)\n"
            "    os.waitpid(pid, 0)\n"
            "recorder.end_cell(1, 0.1, 'ok')\n"
            "recorder.end('succeeded')\n"
        )
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, str(path)],
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )
        recorded = read_capture(path)
        text = "".join(item.text for item in recorded.cells[0].shown if isinstance(item, Stream))
        assert text.count("child") == 1
        assert all(isinstance(item, Stream | Note) for item in recorded.cells[0].shown)
        assert b"copy" not in path.read_bytes()
        assert text.count("tail") == 1
        assert recorded.ended == "succeeded"

    def test_threads(self, path):
        """Threads that print at once lose nothing and break no line of the file."""
        import threading

        recorder = begun(path)
        threads = [
            threading.Thread(
                target=lambda n=n: [recorder.stream("stdout", f"{n}\n") for _ in range(200)]
            )
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (shown,) = finished(recorder, path)
        assert sorted(shown.text.split()) == sorted(str(n) for n in range(4) for _ in range(200))


def test_null_recorder():
    """Without a path nothing is kept and every call is fine."""
    recorder = open_recorder(None)
    assert isinstance(recorder, NullRecorder)
    assert not recorder.active
    recorder.start(CELLS)
    recorder.begin_cell(1)
    recorder.stream("stdout", "x")
    recorder.display({"text/plain": "x"})
    recorder.clear()
    recorder.note("x")
    recorder.asset("plotly", "x")
    recorder.error("E", "x", [], 1)
    recorder.end_cell(1, 0.1, "ok")
    recorder.end("succeeded")


def test_values_json_does_not_know(path):
    """numpy numbers, bytes and other objects in a representation are written all the same."""
    import numpy as np

    recorder = begun(path)
    recorder.display(
        {"application/json": {"a": np.float64(1.5), "b": np.arange(3), "c": b"hi", "d": {1, 2}}}
    )
    first, *_ = finished(recorder, path)
    assert first.data["application/json"] == {"a": 1.5, "b": [0, 1, 2], "c": "aGk=", "d": "{1, 2}"}


class Raises:
    """A library's value that cannot say what it is."""

    def tolist(self):
        raise RuntimeError("no list")


@pytest.mark.parametrize(
    "value", [{("tuple",): 1}, Raises(), reduce(lambda inner, _: [inner], range(50_000), [])]
)
def test_values_that_cannot_be_json(path, value):
    """Such a representation, or such metadata, is left out with a note, and the rest is kept."""
    recorder = begun(path)
    recorder.display({"application/json": value, "text/plain": "kept"}, {"text/plain": value})
    one, other, output = finished(recorder, path)
    assert isinstance(one, Note)
    assert isinstance(other, Note)
    assert output == Output("display_data", {"text/plain": "kept"}, {})


def test_a_file_that_cannot_be_opened(tmp_path, capsys):
    """Nothing is recorded then, which stderr says, and the notebook runs."""
    assert isinstance(open_recorder(str(tmp_path / "none" / "capture.jsonl")), NullRecorder)
    assert "is not recorded" in capsys.readouterr().err


def test_a_character_that_is_split_between_writes(path):
    """Bytes of one character that come in two writes are that character in the report."""
    recorder = begun(path)
    with capture_streams(recorder):
        for piece in (b"caf\xc3", b"\xa9 \xff"):
            sys.stdout.buffer.write(piece)
    assert finished(recorder, path) == [Stream("stdout", ["caf\xe9 \ufffd"])]


def test_lines_are_json(path):
    """Every line is one object with a type, lone surrogates included."""
    recorder = begun(path)
    recorder.stream("stdout", "bad \ud800 text\u2028")
    finished(recorder, path)
    lines = path.read_text().split("\n")
    assert all(json.loads(line)["type"] for line in lines if line)
    assert os.linesep == "\n"


class TestAreas:
    """What an output widget has caught is its own."""

    def test_clearing_an_area(self, path):
        """Only what was shown in the area goes, and what comes next in it stays in its place."""
        recorder = begun(path)
        recorder.stream("stdout", "an hour of work\n")
        for number in range(3):
            recorder.enter("a")
            recorder.clear(wait=number % 2 == 1)
            recorder.stream("stdout", f"x is {number}\n")
            recorder.display({"text/plain": str(number)})
            recorder.leave()
            recorder.display({"text/plain": f"beside {number}"})
        shown = finished(recorder, path)
        assert [getattr(item, "text", None) or item.data["text/plain"] for item in shown] == [
            "an hour of work\n",
            "beside 0",
            "beside 1",
            "x is 2\n",
            "2",
            "beside 2",
        ]

    def test_waiting_for_more(self, path):
        """An area that is cleared when more comes keeps what it has until then."""
        recorder = begun(path)
        recorder.enter("a")
        recorder.display({"text/plain": "old"})
        recorder.clear(wait=True)
        recorder.leave()
        recorder.display({"text/plain": "elsewhere"})
        assert [item.data["text/plain"] for item in finished(recorder, path)] == [
            "old",
            "elsewhere",
        ]

    def test_clearing_the_cell(self, path):
        """Clearing the cell leaves what an area of its own shows."""
        recorder = begun(path)
        recorder.display({"text/plain": "cell"})
        recorder.enter("a")
        recorder.enter("b")
        recorder.display({"text/plain": "inner"})
        recorder.leave()
        recorder.display({"text/plain": "outer"})
        recorder.leave()
        recorder.clear()
        assert [item.data["text/plain"] for item in finished(recorder, path)] == ["inner", "outer"]

    def test_an_area_ends_with_its_cell(self, path):
        """What a cell left open, or was about to clear, is no matter of the next one."""
        recorder = begun(path)
        recorder.enter("a")
        recorder.clear(wait=True)
        recorder.end_cell(1, 0.1, "error")
        recorder.begin_cell(2)
        recorder.stream("stdout", "stays")
        recorder.enter("a")
        recorder.stream("stdout", "shown")
        recorder.leave()
        recorder.clear()
        recorder.end("failed")
        assert read_capture(path).cells[1].shown == [Stream("stdout", ["shown"])]
