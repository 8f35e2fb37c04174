"""Word from one run to another that a slot has come."""

from __future__ import annotations

import sys
import threading
import uuid

import pytest

from research_jobs.orchestration.execution.turns import Turns

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the names are Linux's")


def test_a_run_hears_of_its_turn() -> None:
    """What was said before it listened is heard, and after; of others' turns it hears nothing."""
    one, other = str(uuid.uuid4()), str(uuid.uuid4())
    heard = threading.Semaphore(0)
    with Turns(one) as mine, Turns(other) as theirs:
        theirs.tell([one, other, "nobody"])
        mine.listen(heard.release)
        mine.listen(heard.release)
        assert heard.acquire(timeout=30)
        theirs.tell({one})
        assert heard.acquire(timeout=30)
        mine.tell([one])
        assert not heard.acquire(blocking=False)


def test_a_run_that_has_ended_leaves_no_thread_and_no_name() -> None:
    """The next process that works on the run can listen."""
    one = str(uuid.uuid4())
    for _ in range(2):
        heard = threading.Semaphore(0)
        with Turns(one) as mine, Turns("other") as theirs:
            mine.listen(heard.release)
            theirs.tell([one])
            assert heard.acquire(timeout=30)
        for thread in threading.enumerate():
            if thread.name == "turns":
                thread.join(30)
                assert not thread.is_alive()


def test_a_name_that_is_taken() -> None:
    """Where somebody else has the name a run hears nothing, and goes on asking."""
    one = str(uuid.uuid4())
    with Turns(one), Turns(one) as late, Turns("other") as theirs:
        late.listen(lambda: None)
        late.tell(["other"])
        theirs.tell([one])
