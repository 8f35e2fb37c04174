"""``research-jobs ui`` with what it cannot do: one line each, exit code 2, nothing left running."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from research_jobs.cli.ui import choose_port
from research_jobs.errors import ProjectError


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No process of ours is started by a call that is refused."""
    before = psutil.Process().children(recursive=True)
    yield
    assert psutil.Process().children(recursive=True) == before


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def assert_one_line(said: Any, *parts: str) -> None:
    assert said.code == 2, said.err
    assert said.err.count("\n") == 1, said.err
    assert said.err.startswith("research-jobs ui: ")
    for part in parts:
        assert part in said.err


@pytest.mark.parametrize("option", ["--port", "--reports-port"])
@pytest.mark.parametrize("port", ["99999", "65536", "0", "-1", "abc", "", "3.5", "٣", "1" * 5000])
def test_what_is_not_a_port(say: Any, option: str, port: str) -> None:
    """A port that is none is named with the range of those that are."""
    assert_one_line(say("ui", f"{option}={port}"), f"'{port}' is not a port (1 to 65535)")


@pytest.mark.parametrize("port", ["1", "65535"])
def test_the_first_and_the_last_port_are_ports(say: Any, port: str) -> None:
    """What is refused then is the host."""
    assert_one_line(say("ui", "--host", "no such host", "--port", port), f"port {port}")


@pytest.mark.parametrize("option", ["--port", "--reports-port"])
def test_a_port_in_use(say: Any, taken: int, option: str) -> None:
    """A port that somebody else has is named, with why."""
    assert_one_line(say("ui", option, str(taken)), f"port {taken}", "in use")


def test_one_port_for_both(say: Any, taken: int) -> None:
    """The UI and the reports cannot share a port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = str(probe.getsockname()[1])
    assert_one_line(say("ui", "--port", free, "--reports-port", free), f"port {free}", "twice")


@pytest.mark.parametrize("host", ["256.1.1.1", "no such host", "192.0.2.1", "a" * 300, "::zz", ""])
def test_what_is_not_a_host(say: Any, host: str) -> None:
    """A host that nobody can listen on is named, whether or not a port is."""
    assert_one_line(say("ui", f"--host={host}"), f"'{host}'")
    assert_one_line(say("ui", f"--host={host}", "--port", "3999"), f"'{host}'")


@pytest.mark.parametrize("name", [".research_jobs", "reports"])
def test_a_project_that_cannot_be_written(say: Any, project: Path, name: str) -> None:
    """A folder that cannot be made is named, with why."""
    folder = project / name
    if folder.exists():
        folder.rename(project / "aside")
    folder.write_text("in the way")
    try:
        assert_one_line(say("ui"), name)
    finally:
        folder.unlink()
        if (project / "aside").exists():
            (project / "aside").rename(folder)


def test_the_next_free_port(taken: int) -> None:
    """Without a port of one's own, the first is taken that is free and not the other server's."""
    port = choose_port("127.0.0.1", None, taken)
    assert taken < port < taken + 100
    assert choose_port("127.0.0.1", None, port) == port
    assert choose_port("127.0.0.1", None, port, taken=port) > port
    with pytest.raises(ProjectError, match="in use"):
        choose_port("127.0.0.1", taken, 3000)
