"""What environment a notebook asks for, read from its text, the manifest and its lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from research_jobs.environments.declared import Environment, declared_environment
from research_jobs.environments.versions import parse_lock
from research_jobs.errors import DependencyError
from research_jobs.manifest import load_manifest
from research_jobs.notebook.scan import find_notebook
from research_jobs.orchestration.model.catalog import Catalog, Entry, load_catalog
from research_jobs.project import Project

BLOCK = '# /// script\n# requires-python = ">=3.10"\n# dependencies = ["Pandas <3"]\n# ///\n'


def project_of(root: Path, **files: str) -> Catalog:
    """A project with these files below ``notebooks/``; ``__`` is a folder, ``_yaml`` an ending."""
    for name, text in files.items():
        path = root / "notebooks" / name.replace("__", "/").replace("_yaml", ".yaml")
        path = path.with_suffix(path.suffix or (".txt" if "locks" in path.parts else ".py"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return load_catalog(Project(root, str(root / "data")))


def asked(entry: Entry) -> Environment:
    """What a notebook asks for."""
    assert entry.environment is not None, entry.error
    return entry.environment


def test_in_the_notebook(tmp_path: Path) -> None:
    """Its block is read, and pyarrow added to what has outputs or reads them."""
    catalog = project_of(
        tmp_path,
        shows=f"{BLOCK}# %%\nx = 1\n",
        writes=f"{BLOCK}# %%\nx = 1\n",
        reads=f"{BLOCK}# %%\nfrom research_jobs import load\nx = load('writes', 'x')\n",
        plain="# %%\nx = 1\n",
        manifest_yaml="notebooks:\n  writes: {outputs: [x]}\n",
    )
    shows = asked(catalog.entries["shows"])
    assert (shows.dependencies, shows.requires_python) == (("Pandas<3",), ">=3.10")
    assert shows.wanted == ("Pandas<3",)
    assert asked(catalog.entries["writes"]).wanted == ("Pandas<3", "pyarrow>=18")
    assert asked(catalog.entries["reads"]).wanted == ("Pandas<3", "pyarrow>=18")
    assert catalog.entries["plain"].environment is None
    # One run outside Dagster reads one file, and asks for the same.
    project = catalog.project
    manifest = load_manifest(project, ["reads"])
    found = find_notebook(project, "reads")
    alone = declared_environment(project, found, manifest.spec("reads"), manifest)
    assert alone == asked(catalog.entries["reads"])


def test_in_the_manifest(tmp_path: Path) -> None:
    """The manifest's list is the same as the block's, and `python` is what it is made from."""
    catalog = project_of(
        tmp_path,
        a="# %%\nx = 1\n",
        manifest_yaml="notebooks:\n  a:\n    python: /opt/py/bin/python\n"
        "    dependencies: [numpy, 'pyarrow == 18.*']\n    outputs: [x]\n",
    )
    found = asked(catalog.entries["a"])
    assert found.wanted == ("numpy", "pyarrow==18.*")
    assert found.python == "/opt/py/bin/python"


@pytest.mark.parametrize(
    ("text", "manifest", "said"),
    [
        (
            BLOCK,
            "dependencies: [numpy]",
            (
                "notebooks/manifest.yaml:2:7: the dependencies of a are also in notebooks/a.py:1. "
                "Keep them in one place."
            ),
        ),
        (
            BLOCK.replace("Pandas <3", "pandas 3"),
            "",
            "notebooks/a.py:3:20: 'pandas 3' is not a dependency: Expected",
        ),
        (
            BLOCK.replace("Pandas <3", "mine @ https://example.com/mine.whl"),
            "",
            "notebooks/a.py:3:20: 'mine' is given by an address, and a lock holds",
        ),
        (BLOCK.replace(">=3.10", "three"), "", "notebooks/a.py:2:22: 'three' does not say"),
        ("", "dependencies: [numpy, raw/prices]", "notebooks/manifest.yaml:2:29: 'raw/prices'"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, manifest: str, said: str) -> None:
    """A mistake is one line with its place, and this notebook's alone."""
    catalog = project_of(
        tmp_path,
        a=f"{text}# %%\nx = 1\n",
        b="# %%\nx = 1\n",
        manifest_yaml=f"notebooks:\n  a: {{{manifest}}}\n",
    )
    error = catalog.entries["a"].error
    assert isinstance(error, DependencyError)
    assert error.headline.startswith(said), error.headline
    assert catalog.entries["b"].error is None


def test_the_lock_is_part_of_the_code_version(tmp_path: Path) -> None:
    """Packages, Python and locked versions change it; what a lock's comments say does not."""
    seen = [project_of(tmp_path, a="# %%\nx = 1\n").entries["a"].notebook.code_version]

    def look(**files: str) -> None:
        entry = project_of(tmp_path, **files).entries["a"]
        assert entry.error is None, entry.error
        seen.append(entry.notebook.code_version)

    look(a=f"{BLOCK}# %%\nx = 1\n")
    look(a=f"{BLOCK.replace('3.10', '3.9')}# %%\nx = 1\n")
    lock = "# for: Pandas<3\n# requires-python: >=3.9\npandas==2.2.3\n"
    look(locks__a=lock)
    look(locks__a=lock.replace("2.2.3", "2.3.0"))
    assert len(set(seen)) == len(seen)
    look(locks__a=f"# Another\n{lock}".replace("2.2.3", "2.3.0"))
    assert seen[-1] == seen[-2]


def test_a_lock_of_something_else(tmp_path: Path) -> None:
    """With a lock of other dependencies, or without what outputs need, it does not run."""
    lock = "# for: Pandas<3\n# requires-python: >=3.10\npandas==2.2.3\n"
    notebook = f"{BLOCK}# %%\nx = 1\n"
    catalog = project_of(tmp_path, a=notebook, locks__a=lock.replace("<3", "<2"))
    error = catalog.entries["a"].error
    assert error is not None
    assert error.headline == (
        "notebooks/a.py:1:1: notebooks/locks/a.txt is of other dependencies than these. "
        "Resolve them: research-jobs lock a."
    )
    manifest = "notebooks:\n  a: {outputs: [x]}\n"
    catalog = project_of(tmp_path, locks__a=lock, manifest_yaml=manifest)
    error = catalog.entries["a"].error
    assert error is not None
    assert "notebooks/locks/a.txt has no pyarrow, which its outputs need" in error.headline
    assert asked(catalog.entries["a"]).lock is not None, "lock can still resolve it"


def test_what_is_in_a_lock() -> None:
    """It is written and read without loss, and a line that is no name with a version is refused."""
    lock = parse_lock("# for: a[x]<3\n# Python 3.11\nFoo_Bar==1.0\na==2!1.0+local.1\n", "a.txt")
    assert lock.pins == ("a==2!1.0+local.1", "foo-bar==1.0")
    assert parse_lock(lock.dump("a"), "a.txt") == lock
    for line in ("a @ https://example.com/a.whl", "a>=1", "-r other.txt", "a==1 --hash=sha256:0"):
        with pytest.raises(DependencyError, match=r"a\.txt:2:1: "):
            parse_lock(f"b==1\n{line}\n", "a.txt")
