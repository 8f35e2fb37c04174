"""A minute of ``make soak``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from soak import soak


@pytest.mark.postgres
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")
def test_nothing_is_lost_when_everything_is_disturbed(
    own_postgres: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Services of all kinds are killed and frozen, PostgreSQL restarts, the store fills.

    Afterwards every tick is accounted for, the next tick of each schedule came, and no process,
    slot or temporary file is left.
    """
    wrong = soak(tmp_path, own_postgres, minutes=1, count=12, seed=3, quiet_s=65)
    assert not wrong, capsys.readouterr().out
