"""Files that reports share, written by many at once."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from research_jobs.report.assets import install_asset, install_plotly, write_atomically


def in_threads(work, count: int = 8) -> list[BaseException]:
    """Run `work` in `count` threads at the same moment; the exceptions that came out."""
    failed: list[BaseException] = []
    barrier = threading.Barrier(count)

    def go() -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failed.append(error)

    threads = [threading.Thread(target=go) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_threads_install_the_same_script(tmp_path):
    """Eight threads that install one script at once all find it, whole, and leave nothing else."""
    for number in range(30):
        reports = tmp_path / str(number)
        assert in_threads(lambda reports=reports: install_asset(reports, "page.js")) == []
        assert len(list((reports / "assets").iterdir())) == 1


def test_threads_install_plotly(tmp_path):
    """Eight threads that install plotly's script at once leave one copy, and no half of one."""
    source = tmp_path / "plotly.min.js"
    source.write_bytes(b"x" * 300_000)
    for number in range(20):
        reports = tmp_path / str(number)
        assert in_threads(lambda reports=reports: install_plotly(reports, str(source))) == []
        (script,) = (reports / "assets").glob("*.js")
        assert script.stat().st_size == 300_000
        assert not list((reports / "assets").glob("*.part"))


def test_processes_and_threads_write_one_file(tmp_path):
    """Four processes of eight threads write one file: a reader sees one of the contents, whole."""
    code = """
import sys, threading
from pathlib import Path
from research_jobs.report.assets import write_atomically
path, letter = Path(sys.argv[1]), sys.argv[2].encode()
def go():
    for _ in range(8):
        write_atomically(path, letter * 100_000)
threads = [threading.Thread(target=go) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
    path = tmp_path / "folder" / "file"
    running = [
        subprocess.Popen([sys.executable, "-c", code, path, letter], stderr=subprocess.PIPE)
        for letter in "abcd"
    ]
    while any(process.poll() is None for process in running):
        if path.exists():
            content = path.read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
    assert [process.communicate()[1] for process in running] == [b""] * 4
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_failed_write_leaves_nothing(tmp_path):
    """A write that cannot replace its target leaves no temporary file behind."""
    target = tmp_path / "file"
    target.mkdir()
    (target / "inside").touch()
    failed = in_threads(lambda: write_atomically(target, b"x"), 1)
    assert isinstance(failed[0], OSError)
    assert [item.name for item in Path(tmp_path).iterdir()] == ["file"]
