"""Fixtures of the host's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hosted import Hosted


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """A host that the tests of a module share."""
    hosted = Hosted(tmp_path_factory.mktemp("hosted"))
    hosted.start()
    try:
        yield hosted
    finally:
        hosted.stop()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Hosted]:
    """A project of one test, whose host is not started yet."""
    hosted = Hosted(tmp_path / "project")
    try:
        yield hosted
    finally:
        hosted.stop()
