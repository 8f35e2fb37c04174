"""The cells that remain of a failed notebook, after its file was edited."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from research_jobs.notebook.cells import read_notebook_text
from research_jobs.runtime.remaining import Position, Remaining, place_of


@pytest.mark.parametrize(
    ("index", "now", "place"),
    [
        (2, "abcd", 2),
        (2, "abXd", 2),
        (2, "aXcd", 2),
        (2, "aXYd", 2),
        (2, "abXYd", 2),
        (2, "nabcd", 3),
        (2, "nabXd", 3),
        (2, "bcd", 1),
        (2, "ab", 2),
        (4, "abcd", 4),
        (4, "abcde", 4),
        (0, "", 0),
        (2, "", 0),
    ],
)
def test_where_a_cell_is_after_an_edit(index: int, now: str, place: int) -> None:
    """A cell is found again where it, or a neighbour, was edited, added or removed."""
    assert place_of(index, "abcd", now) == place


SOURCE = '# %% tags=["parameters"]\nk = 1\n# %%\nfirst = 1 / k\n# %%\nsecond = first + k\n'


def started(tmp_path: Path, source: str, failed: int) -> tuple[Remaining, ModuleType, Path]:
    """A notebook whose cell with this index failed, after nothing."""
    path = tmp_path / "notebook.py"
    path.write_text(source)
    module = ModuleType("notebook")
    position = Position(read_notebook_text(path), module)
    position.begun = position.cells[: failed + 1]
    position.error = ZeroDivisionError()
    return Remaining(position, path, {"k": 2}, {"k": "int"}), module, path


def test_a_parameters_cell_gets_the_values_of_the_run(tmp_path: Path) -> None:
    """Where the cell with the parameters runs again, it has the run's and not its defaults."""
    remaining, module, _ = started(tmp_path, SOURCE, 0)
    remaining.run("failed")
    assert vars(module)["k"] == 2
    remaining.run("remaining")
    assert vars(module)["second"] == 2.5


def test_it_stops_where_one_fails_and_goes_on_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A remaining cell that fails is the failed one from then on, as the file has it by then."""
    remaining, module, path = started(tmp_path, SOURCE, 0)
    vars(module)["k"] = 0
    with pytest.raises(ZeroDivisionError):
        remaining.run("remaining")
    path.write_text(SOURCE.replace("1 / k", "1"))
    remaining.run("failed")
    remaining.run("remaining")
    assert vars(module)["second"] == 1
    capsys.readouterr()
    remaining.run("failed")
    remaining.run("remaining")
    assert capsys.readouterr().out == "No cell failed.\nNo cell remains.\n"


def test_cells_that_await_are_told_apart(tmp_path: Path) -> None:
    """Only cells that await need an event loop."""
    remaining, _, _ = started(tmp_path, SOURCE + "# %%\nawait later\n", 1)
    assert remaining.awaits("remaining")
    assert not remaining.awaits("failed")
