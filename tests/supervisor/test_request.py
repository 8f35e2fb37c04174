"""Project, manifest and caller put together into one request."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from research_jobs.errors import ParameterError
from research_jobs.manifest import load_manifest
from research_jobs.notebook.scan import scan
from research_jobs.project import Project, find_project
from research_jobs.protocol import PartitionKey
from research_jobs.supervisor.request import build_request, preload_modules, working_directory

MANIFEST = """
defaults:
  timeout: 30m
  sys_path: [lib]
secrets: [API_KEY, NOT_SET]
notebooks:
  volatility/garch:
    outputs:
      forecast: {min_rows: 1, not_null: [variance], compression: gzip}
      aside: {}
    memory: 2GiB
    environment: {MODE: fast}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with one notebook and a manifest."""
    folder = tmp_path / "notebooks" / "volatility"
    folder.mkdir(parents=True)
    (folder / "garch.py").write_text(
        "# %% tags=['parameters']\n"
        "from datetime import date\n"
        "since = date(2018, 1, 2)\n"
        "other = 1\n"
        "# %% Work\n"
        "import numpy as np\n"
        "from pandas import DataFrame\n"
    )
    (tmp_path / "notebooks" / "manifest.yaml").write_text(MANIFEST)
    return find_project(tmp_path)


def test_request(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that the fresh process needs is in the request."""
    monkeypatch.setenv("API_KEY", "hunter22")
    monkeypatch.delenv("NOT_SET", raising=False)
    manifest = load_manifest(project, ["volatility/garch"])
    assert manifest.problems == ()
    seen = scan(project)
    notebook = seen.get("volatility/garch")
    partition = PartitionKey("2018-11-01", {"since": "2018-11-01"})
    request = build_request(
        project,
        notebook,
        manifest.spec("volatility/garch"),
        manifest,
        run_id="run",
        step_key="volatility__garch",
        parameters={"since": "2018-11-01"},
        partition=partition,
        staging=project.root / "data" / ".staging" / "x",
    )
    root = str(project.root)
    assert (request.notebook, request.module) == ("volatility/garch", "volatility.garch")
    assert request.path == f"{root}/notebooks/volatility/garch.py"
    assert request.working_directory == f"{root}/notebooks/volatility"
    assert request.sys_path == (
        f"{root}/notebooks/volatility",
        f"{root}/notebooks",
        root,
        f"{root}/lib",
    )
    assert request.parameters == {"since": "2018-11-01"}
    assert request.parameter_types == {"since": "date"}
    assert [output.name for output in request.outputs] == ["forecast", "aside"]
    assert request.outputs[0].checks["min_rows"] == 1
    assert request.outputs[0].options["compression"] == "gzip"
    assert (request.timeout_s, request.memory_bytes) == (1800.0, 2 << 30)
    assert request.environment == {"MODE": "fast"}
    assert request.staging == f"{root}/data/.staging/x"
    assert request.secrets == {"API_KEY": "hunter22"}
    assert request.partition == partition
    assert request.metadata["notebook"] == "volatility/garch"
    assert "run_id" not in request.metadata
    assert request.metadata["partition"] == "2018-11-01"
    assert request.code_version == request.metadata["code_version"] == notebook.code_version
    assert notebook.code_version


@pytest.mark.parametrize(
    ("own", "inherited", "masked"),
    [
        ("own-value", None, {"API_KEY": "own-value"}),
        (None, "inherited", {"API_KEY": "inherited"}),
        ("own-value", "inherited", {"API_KEY": "own-value"}),
        (None, None, {}),
    ],
)
def test_secrets(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    inherited: str | None,
    masked: dict[str, str],
) -> None:
    """The value that the notebook will see is masked: its own before that of the worker."""
    monkeypatch.delenv("API_KEY", raising=False)
    if inherited is not None:
        monkeypatch.setenv("API_KEY", inherited)
    setting = f"{{API_KEY: {own}}}" if own else "{}"
    text = MANIFEST.replace("{MODE: fast}", setting)
    (project.notebooks / "manifest.yaml").write_text(text)
    manifest = load_manifest(project, ["volatility/garch"])
    spec = manifest.spec("volatility/garch")
    notebook = scan(project).get("volatility/garch")
    assert build_request(project, notebook, spec, manifest, run_id="run").secrets == masked


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2018-11-05", None),
        ("hunter22", r"value of SINCE, for the parameter 'since', is not of type date$"),
        ("", "environment variable SINCE, which is not set"),
        (None, "environment variable SINCE, which is not set"),
    ],
)
def test_secret_parameters(
    project: Project, monkeypatch: pytest.MonkeyPatch, value: str | None, says: str | None
) -> None:
    """A secret parameter is typed and masked as others are; no error of it shows the value."""
    monkeypatch.delenv("SINCE", raising=False)
    if value is not None:
        monkeypatch.setenv("SINCE", value)
    text = MANIFEST + "    parameters: {since: {secret: SINCE}}\n"
    (project.notebooks / "manifest.yaml").write_text(text)
    manifest = load_manifest(project, ["volatility/garch"])
    spec = manifest.spec("volatility/garch")
    notebook = scan(project).get("volatility/garch")
    if says is None:
        request = build_request(project, notebook, spec, manifest, run_id="run")
        assert request.secret_parameters == {"since": value}
        assert request.parameters == {}
        assert request.parameter_types == {"since": "date"}
        assert request.secrets["SINCE"] == value
        return
    with pytest.raises(ParameterError, match=says) as caught:
        build_request(project, notebook, spec, manifest, run_id="run")
    traceback_text = "".join(traceback.format_exception(caught.value))
    assert "hunter22" not in traceback_text


def test_secrets_are_text(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the type is left open, a variable means what it would on a command line."""
    (project.notebooks / "volatility" / "garch.py").write_text(
        "# %% tags=['parameters']\nfrom typing import Any\nsince: Any = None\n"
    )
    monkeypatch.setenv("SINCE", "2018")
    text = MANIFEST + "    parameters: {since: {secret: SINCE}}\n"
    (project.notebooks / "manifest.yaml").write_text(text)
    manifest = load_manifest(project, ["volatility/garch"])
    spec = manifest.spec("volatility/garch")
    notebook = scan(project).get("volatility/garch")
    request = build_request(project, notebook, spec, manifest, run_id="run")
    assert request.secret_parameters == {"since": 2018}


def test_no_outputs_without_staging(project: Project) -> None:
    """A caller that publishes nothing asks for no outputs."""
    manifest = load_manifest(project, ["volatility/garch"])
    request = build_request(
        project,
        scan(project).get("volatility/garch"),
        manifest.spec("volatility/garch"),
        manifest,
        run_id="run",
    )
    assert request.outputs == ()
    assert request.staging is None


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, "notebooks/volatility"),
        ("notebook", "notebooks/volatility"),
        ("project", "."),
        ("work/here", "work/here"),
        ("~/here", "home/here"),
    ],
)
def test_working_directory(
    project: Project, monkeypatch: pytest.MonkeyPatch, setting: str | None, expected: str
) -> None:
    """A notebook runs in its own folder unless the project says otherwise, once for all."""
    monkeypatch.setenv("HOME", str(project.root / "home"))
    folder = project.notebooks / "volatility"
    found = Path(working_directory(project, folder, setting))
    assert found == (project.root / expected).resolve()


def test_preload_modules(project: Project) -> None:
    """What notebooks import is preloaded, with what they import from it."""
    modules = preload_modules(scan(project))
    assert modules[:2] == ("numpy", "pandas")
    assert "pandas.DataFrame" in modules
