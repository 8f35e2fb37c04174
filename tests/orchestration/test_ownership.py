"""Whose the names on an instance are, without a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from research_jobs.errors import ProjectError
from research_jobs.orchestration.model.ownership import claim_names
from research_jobs.project import Project

Make = Callable[..., Project]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A project in a folder of its own, with a store of its own unless said otherwise."""

    def project(name: str, store: str | None = None) -> Project:
        root = tmp_path / name
        (root / "notebooks").mkdir(parents=True, exist_ok=True)
        return Project(root=root, store=store or str(root / "data"))

    return project


def test_another_project_is_refused(make: Make, instance: dg.DagsterInstance) -> None:
    """Under the same prefix, or under none; whoever came first goes on."""
    for prefix in (None, "desk"):
        claim_names(instance, make("one"), prefix)
        with pytest.raises(ProjectError, match="on the same Dagster instance"):
            claim_names(instance, make("two"), prefix)
        claim_names(instance, make("one"), prefix)
    claim_names(instance, make("two"), "other")


def test_releases_with_one_store_are_one_project(make: Make, instance: dg.DagsterInstance) -> None:
    """Each release is a folder of its own, over the data of the one before."""
    claim_names(instance, make("v1", "s3://prices"), None)
    claim_names(instance, make("v2", "s3://prices"), None)
    with pytest.raises(ProjectError, match="v2 on the same"):
        claim_names(instance, make("other"), None)


def test_a_store_that_moves_is_the_same_project(make: Make, instance: dg.DagsterInstance) -> None:
    """It is then recognised by its folder."""
    claim_names(instance, make("one"), None)
    claim_names(instance, make("one", "s3://prices"), None)
    claim_names(instance, make("two", "s3://prices"), None)


def test_a_project_that_is_gone_has_no_claim(make: Make, instance: dg.DagsterInstance) -> None:
    """Its names go to whoever comes next."""
    (make("one").root / "notebooks").rmdir()
    claim_names(instance, Project(root=make("two").root.with_name("one"), store="a"), None)
    claim_names(instance, make("two"), None)


def test_a_copied_project_owns_its_copy_of_the_instance(make: Make) -> None:
    """The instance inside the copy is nobody else's."""
    original, copy = make("one"), make("two")
    folder = copy.state / "dagster"
    folder.mkdir(parents=True)
    with dg.DagsterInstance.local_temp(str(folder)) as inside:
        claim_names(inside, original, None)
        claim_names(inside, copy, None)
        with pytest.raises(ProjectError, match="two on the same"):
            claim_names(inside, original, None)
