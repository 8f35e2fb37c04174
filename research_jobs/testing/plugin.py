"""The pytest plugin: the fixture `notebook`, and `pytest --notebooks`.

pytest imports this in every project of an environment that has research_jobs. So it imports
nothing of ours until a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from research_jobs.testing.inputs import InputName
    from research_jobs.testing.result import NotebookResult

__all__ = ["RunNotebook"]

RunNotebook: TypeAlias = "Callable[..., NotebookResult]"
"""The type of the fixture `notebook`."""

STRICT = "notebook_strict"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare our option and setting."""
    group = parser.getgroup("notebooks", "tests of notebooks (research_jobs)")
    group.addoption(
        "--notebooks",
        action="store_true",
        help="run each notebook as a test, with the sample inputs that the manifest names",
    )
    parser.addini(
        STRICT,
        "whether tested notebooks can read nothing but the inputs that they are given",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the folder of notebooks to what is collected, unless the command says what is."""
    if not config.getoption("notebooks", default=False):
        return
    from research_jobs.errors import ProjectError
    from research_jobs.testing.place import project_of

    try:
        folder = project_of(config).notebooks
    except ProjectError as error:
        raise pytest.UsageError(error.headline) from None
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    collected = [(config.invocation_params.dir / argument).resolve() for argument in config.args]
    if not any(folder.is_relative_to(above) for above in collected):
        config.args.append(str(folder))


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Any:
    """Collect a notebook as a test of ours; nobody else may import it."""
    others: Any = yield
    if not parent.config.getoption("notebooks", default=False) or file_path.suffix != ".py":
        return others
    from research_jobs.testing.collecting import collect_notebook

    found = collect_notebook(file_path, parent)
    return others if found is None else [found]


@pytest.fixture(scope="session")
def notebook(pytestconfig: pytest.Config) -> RunNotebook:
    """Run a notebook in a fresh process: ``notebook("performance_report")["perf_df"]``.

    Nothing is published. ``inputs={("market_data", "prices"): frame}`` is what it reads instead of
    published outputs; `parameters` and `partition` are as for `run_notebook`.
    """

    def run(
        name: str,
        *,
        inputs: Mapping[InputName, Any] | None = None,
        parameters: Mapping[str, Any] | None = None,
        partition: str | None = None,
        strict: bool | None = None,
        checks: bool = True,
        variables: Iterable[str] | None = None,
        timeout: float | None = None,
        project: Any = None,
    ) -> NotebookResult:
        __tracebackhide__ = True
        from research_jobs.errors import ResearchJobsError
        from research_jobs.testing.inputs import named_inputs
        from research_jobs.testing.place import project_of
        from research_jobs.testing.run import run_for_test

        try:
            return run_for_test(
                name,
                project=project or project_of(pytestconfig),
                inputs=named_inputs(inputs or {}),
                parameters=parameters,
                partition=partition,
                strict=pytestconfig.getini(STRICT) if strict is None else strict,
                checks=checks,
                variables=variables,
                timeout=timeout,
            )
        except ResearchJobsError as error:
            # Its message has the notebook's traceback; ours would hide it.
            raise error.with_traceback(None) from None

    return run
