"""What root cannot prove, or proves too easily, is tried as another user as well."""

from __future__ import annotations

import re

from users import run_as_another_user

TESTS = (
    "tests/store/test_commit.py::test_a_read_only_store_is_one_clear_error",
    "tests/store/test_sharing.py::test_group_of_others",
    "tests/supervisor/test_run.py::test_values_in_order",
    "tests/supervisor/test_guardians.py::test_names_in_ps",
    "tests/supervisor/test_supervise.py::test_outputs_are_staged",
    "tests/supervisor/test_connection.py::test_what_is_left_may_clean_up",
    "tests/faults/test_supervision.py::test_row_3_no_process_alone_is_over_the_limit",
    "tests/faults/test_supervision.py::test_row_5_daemon",
    "tests/faults/test_workers.py::test_whatever_the_notebook_is_called",
)


def test_as_another_user() -> None:
    """These tests pass for a user without root's rights, and none of them is skipped."""
    done = run_as_another_user(TESTS)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"\d+ passed in", done.stdout)
    assert "skipped" not in done.stdout.splitlines()[-1]
