"""Markers that tests/conftest.py sets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest


def test_a_fast_test_cannot_listen() -> None:
    """Listening on the network fails a test that is not marked."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        with pytest.raises(pytest.fail.Exception, match="without the marker 'servers'"):
            server.listen()


def test_every_place_is_there(request: pytest.FixtureRequest) -> None:
    """The lists of slow tests and of servers name folders and files that exist."""
    plugin = next(
        module
        for module in request.config.pluginmanager.get_plugins()
        if getattr(module, "__file__", None) == str(Path(__file__).with_name("conftest.py"))
    )
    places = (*plugin.SLOW, *plugin.SERVERS)
    assert len(set(places)) > 20
    assert [place for place in places if not (Path(__file__).parent / place).exists()] == []
