"""Which services the watch ends, decided from times alone, and what its probes ask."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from research_jobs.orchestration.compat.code_server import NoAnswerError, load_error
from research_jobs.orchestration.model.names import AssetNames
from research_jobs.orchestration.operations.health import (
    GRACE_S,
    MOST_ENDED,
    PATIENCE_S,
    PERIOD_S,
    Finding,
    Nursing,
)
from research_jobs.orchestration.operations.served import (
    NotServedError,
    reload_definitions,
    served_definitions,
    unloaded_locations,
)

FAILS = Finding("daemon", "it makes no tick")


def ended(nursing: Nursing, moments: list[float], *, up: float = 0.0) -> list[float]:
    """When the daemon is ended, if it fails at each of some moments."""
    return [
        moment
        for moment in moments
        if nursing.look({"daemon": FAILS}, {"daemon": up}, moment) == ["daemon"]
    ]


def test_a_service_that_fails_for_a_while_is_ended() -> None:
    """One failure is not enough, and one look in between at which it is well begins again."""
    nursing = Nursing()
    assert ended(nursing, [1000.0]) == []
    nursing.look({}, {"daemon": 0.0}, 1005.0)
    assert ended(nursing, [1010.0, 1010.0 + PATIENCE_S]) == [1010.0 + PATIENCE_S]


def test_a_service_that_starts_is_let_start() -> None:
    """Nothing is ended within its grace, however long it has failed."""
    moments = [1000.0 + step for step in range(0, 200, 10)]
    assert min(ended(Nursing(), moments, up=1000.0)) >= 1000.0 + GRACE_S


def test_a_clock_that_was_set_back_lets_nothing_fail_for_longer() -> None:
    """A service that was started, began to fail or was ended later than now is as any other."""
    nursing = Nursing()
    assert len(ended(nursing, [9e6 + step for step in range(0, 200, 10)])) == MOST_ENDED
    assert ended(nursing, [1000.0, 1000.0 + PATIENCE_S], up=9e6) == [1000.0 + PATIENCE_S]


def test_a_service_that_does_not_recover_is_left_to_a_person() -> None:
    """It is ended so many times in each period, and again in the next one."""
    moments = [10.0 * step for step in range(100, 2000)]
    times = ended(Nursing(), moments)
    for start in times:
        assert sum(start <= moment < start + PERIOD_S for moment in times) <= MOST_ENDED
    assert len(times) > MOST_ENDED


def test_what_starting_again_does_not_cure_is_not_ended() -> None:
    """Code that does not load would not load in a new process either."""
    nursing, broken = Nursing(), Finding("code server", "cannot load", curable=False, code=True)
    for moment in range(0, 10_000, 10):
        assert not nursing.look({"code server": broken}, {"code server": 0.0}, float(moment))


@pytest.mark.parametrize("seed", range(50))
def test_nothing_well_is_ever_ended(seed: int) -> None:
    """Whatever fails when: only what fails at that look, and long enough, is ended."""
    chance = random.Random(seed)
    nursing, since, now = Nursing(), dict[str, float](), 0.0
    for _ in range(300):
        now += chance.uniform(1, 60)
        failing = {name for name in ("daemon", "host") if chance.random() < 0.6}
        since = {name: since.get(name, now) for name in failing}
        chosen = nursing.look(
            {n: Finding(n, "fails") for n in failing}, dict.fromkeys(failing, -99.0), now
        )
        assert set(chosen) <= failing
        assert all(now - since[name] >= PATIENCE_S for name in chosen)


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket) -> None:
    kept: list[socket.socket] = []
    with suppress(OSError):
        while True:
            kept.append(server.accept()[0])


def test_a_server_that_only_listens_does_not_answer(silent: int) -> None:
    """A port that is open is no answer, of neither server."""
    with pytest.raises(NoAnswerError):
        load_error(f"127.0.0.1:{silent}", 1)
    with pytest.raises(NotServedError):
        unloaded_locations(f"http://127.0.0.1:{silent}", 1)


def test_a_server_that_is_gone_does_not_answer() -> None:
    """Neither does a port that nobody listens on, nor a socket that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address in (f"127.0.0.1:{port}", "unix:/nonexistent/socket"):
        with pytest.raises(NoAnswerError):
            load_error(address, 5)


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": {}}',
        b'{"data": null}',
        b'{"data": {"workspaceOrError": null, "repositoriesOrError": {"nodes": [{}]}}}',
        b'{"errors": [1]}',
        b"It works!",
    ],
)
def test_a_server_of_something_else_does_not_answer(body: bytes) -> None:
    """Whatever it says: a port that was taken since, a wrong address."""

    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in (f"http://127.0.0.1:{server.server_port}", "http://a b/", "http://[a"):
            with pytest.raises(NotServedError):
                unloaded_locations(address, 5)
            with pytest.raises(NotServedError):
                reload_definitions(address)
            with pytest.raises(NotServedError):
                served_definitions(address, AssetNames())
        server.shutdown()
