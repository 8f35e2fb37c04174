"""Notebooks as tests: `pytest --notebooks`. Collecting reads them as text; none is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from research_jobs.errors import ManifestError, ResearchJobsError
from research_jobs.manifest import Manifest, NotebookSpec, load_manifest
from research_jobs.manifest.sample import SampleSpec
from research_jobs.notebook.scan import Scan, ScannedNotebook, scan
from research_jobs.project import Project
from research_jobs.testing.place import project_of

__all__ = ["NotebookFile", "NotebookItem", "collect_notebook"]

_PROJECT = pytest.StashKey[Project]()
_FOUND = pytest.StashKey[dict[Path, ScannedNotebook]]()
_MANIFEST = pytest.StashKey[Manifest]()


def collect_notebook(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """The collector of a file; None if it is not a notebook of the project."""
    stash = parent.config.stash
    if _FOUND not in stash:
        project = stash[_PROJECT] = project_of(parent.config)
        found = scan(project)
        stash[_FOUND] = {each.path.resolve(): each for each in found.notebooks}
        stash[_MANIFEST] = _manifest(project, found)
    notebook = stash[_FOUND].get(path.resolve())
    if notebook is None:
        return None
    collector: NotebookFile = NotebookFile.from_parent(parent, path=path)
    collector.notebook = notebook
    return collector


def _manifest(project: Project, found: Scan) -> Manifest:
    return load_manifest(project, [notebook.name for notebook in found.notebooks])


class NotebookFile(pytest.File):
    """A notebook."""

    notebook: ScannedNotebook

    def collect(self) -> Iterator[pytest.Item]:
        """The one test of it."""
        item: NotebookItem = NotebookItem.from_parent(self, name="notebook")
        item.notebook = self.notebook
        yield item


class NotebookItem(pytest.Item):
    """A run of a notebook with its sample inputs; what it makes is checked, and not published."""

    notebook: ScannedNotebook

    def runtest(self) -> None:
        """Run it."""
        from research_jobs.testing.run import run_for_test

        manifest, project = self.config.stash[_MANIFEST], self.config.stash[_PROJECT]
        name = self.notebook.name
        if self.notebook.error is not None:
            raise self.notebook.error
        for problem in manifest.problems_of(name):
            raise problem.error
        spec = manifest.spec(name)
        sample = spec.test or SampleSpec()
        if sample.skip is not None:
            pytest.skip(sample.skip)
        _require_partition(name, spec, sample)
        result = run_for_test(
            name,
            project=project,
            inputs=_sample_inputs(name, sample, manifest, project),
            parameters=sample.parameters,
            partition=sample.partition,
            strict=sample.strict or self.config.getini("notebook_strict"),
            checks=sample.checks,
            variables=(),
        )
        if result.skipped is not None:
            pytest.skip(result.skipped)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The location in the notebook first, then its own traceback."""
        if isinstance(excinfo.value, ResearchJobsError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is."""
        return self.path, 0, f"notebook {self.notebook.name}"


def _require_partition(name: str, spec: NotebookSpec, sample: SampleSpec) -> None:
    if sample.partition is None and (spec.partitions is not None or spec.variants):
        pytest.skip(f"{name} has partitions: name one in the manifest, test: {{partition: ...}}")


def _sample_inputs(name: str, sample: SampleSpec, manifest: Manifest, project: Project) -> Any:
    """The values in the sample files."""
    from research_jobs.store.codec import read_output
    from research_jobs.testing.inputs import Input

    inputs: list[Input] = []
    for key, notebook, output, partition, file in sample.files():
        place = ("notebooks", name, "test", "inputs", key)
        try:
            value = read_output(project.root / file)
        except FileNotFoundError:
            raise ManifestError(
                f"notebook {name}, test.inputs: there is no file {file}",
                where=manifest.locate(*place, *(() if partition is None else (partition,))),
                hint=f'Make one: load("{notebook}", "{output}").tail(300).to_parquet("{file}").',
            ) from None
        inputs.append(Input(notebook, output, value, partition))
    return tuple(inputs)
