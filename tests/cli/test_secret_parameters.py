"""A secret parameter: the notebook gets its value, and no file of the project has it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from research_jobs import load, run_notebook
from research_jobs.errors import ParameterError

CANARY = "kanarienvogel-8f3a1c"

NOTEBOOK = """
# %% tags=["parameters"]
token: str = "none"  # of the data service
limit: int = 0

# %%
print(f"token {token}")
length = [len(token), limit]
if limit == 13:
    raise ValueError(f"refused {token}")
"""

MANIFEST = """
notebooks:
  client:
    outputs: [length]
    parameters: {token: {secret: API_TOKEN}, limit: {secret: API_LIMIT}}
schedules:
  nightly: {cron: "@daily", notebooks: [client]}
"""


@pytest.fixture
def client(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a notebook that takes two secrets."""
    (project / "notebooks" / "client.py").write_text(NOTEBOOK, encoding="utf-8")
    (project / "notebooks" / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    monkeypatch.setenv("API_TOKEN", CANARY)
    monkeypatch.setenv("API_LIMIT", "7")
    return project


def holders(folder: Path) -> list[str]:
    """The files in which the canary is, in the clear or in base64."""
    forms = (CANARY.encode(), base64.b64encode(CANARY.encode()))
    return [
        str(path)
        for path in folder.rglob("*")
        if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]


@pytest.mark.parametrize("limit", ["7", "13"])
def test_the_value_reaches_the_notebook_and_no_file(
    say: Any, client: Path, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Event log, reports, state and output of a run, a failed one too, are without it."""
    monkeypatch.setenv("API_LIMIT", limit)
    said = say("run", "client")
    assert said.code == (0 if limit == "7" else 1), said.err
    if limit == "7":
        assert load("client", "length") == [len(CANARY), 7]
    assert CANARY not in said.out + said.err
    assert (client / ".research_jobs").is_dir()
    assert list((client / "reports").rglob("*.html"))
    assert holders(client) == []
    shown = next(p for p in (client / "reports").rglob("*.ipynb")).read_text(encoding="utf-8")
    assert '"token": "(secret)"' in shown or limit == "13"


@pytest.mark.parametrize("value", ["13", CANARY])
def test_a_value_typed_on_the_command_line_is_refused(say: Any, client: Path, value: str) -> None:
    """It would stand in the history; the line names the variable to set."""
    said = say("run", "client", "-p", f"token={value}")
    assert said.code != 0
    assert "the parameter 'token' is secret, so its value cannot be given." in said.err
    assert "Set the environment variable API_TOKEN where the run is started." in said.err
    assert holders(client) == []


def test_a_schedule_cannot_give_it_either(say: Any, client: Path) -> None:
    """The schedule alone is lost, with the place of the value."""
    manifest = client / "notebooks" / "manifest.yaml"
    text = MANIFEST.replace("[client]}", "[client], parameters: {token: abc}}")
    manifest.write_text(text, encoding="utf-8")
    said = say("check")
    assert said.code == 1
    assert "schedule nightly: the parameter 'token' is secret" in said.out
    assert "1 error" in said.out


def test_a_variable_that_is_not_set_fails_the_run_by_name(
    say: Any, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process starts, and the line says which variable."""
    assert client.is_dir()
    monkeypatch.delenv("API_TOKEN")
    said = say("run", "client")
    assert said.code == 1
    assert (
        "client takes its parameter 'token' from the environment variable API_TOKEN, which is not"
        " set. Set it where the run starts"
    ) in said.out + said.err


def test_a_value_of_another_type_is_not_shown(
    say: Any, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names variable, parameter and type; the value stays out of it."""
    monkeypatch.setenv("API_LIMIT", CANARY)
    said = say("run", "client")
    assert said.code == 1
    assert "client: the value of API_LIMIT, for the parameter 'limit', is not of type int" in (
        said.out + said.err
    )
    assert holders(client) == []


def test_run_notebook_takes_it_from_the_environment_too(client: Path) -> None:
    """In Python as in a run; a value that is passed is refused."""
    assert run_notebook("client", "length", project=client) == [[len(CANARY), 7]]
    with pytest.raises(ParameterError, match="'token' is secret"):
        run_notebook("client", "length", parameters={"token": "x"}, project=client)
