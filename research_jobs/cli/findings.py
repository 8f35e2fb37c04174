"""What is wrong with a project, found in its text, its environment and on its disk."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import research_jobs
from research_jobs.environments.making import known_versions
from research_jobs.errors import (
    NotebookSyntaxError,
    OutputNotAssignedError,
    PartitionError,
    ResearchJobsError,
    SourceLocation,
    StoreError,
    did_you_mean,
)
from research_jobs.filesystem import write_atomically
from research_jobs.notebook.cells import NotebookText, read_notebook_text
from research_jobs.project import read_variable
from research_jobs.provenance.environment import describe_environment

# As the name of an interpreter that is asked in vain, and so has every module.
_NOT_MADE = "environment-not-made"

if TYPE_CHECKING:
    from research_jobs.notebook.foreseen import Surroundings
    from research_jobs.notebook.parity import ParityFinding
    from research_jobs.notebook.undefined import UndefinedName
    from research_jobs.orchestration.model.catalog import Catalog, Entry
    from research_jobs.project import Project

__all__ = ["Finding", "find_all"]


@dataclass(frozen=True)
class Finding:
    """One line of the check.

    Parameters
    ----------
    level : {"error", "warning"}
    notebook : str or None
        Which notebook (or schedule) it is about.
    text : str
        Where, what, what to do.
    code : str
        What kind of finding it is.
    path : str or None
        The file, relative to the project.
    line, column : int or None
        1-based.
    """

    level: str
    notebook: str | None
    text: str
    code: str
    path: str | None = None
    line: int | None = None
    column: int | None = None

    @property
    def message(self) -> str:
        """str: the text without the place in front of it and the code behind it."""
        text = self.text.removesuffix(f" [{self.code}]")
        place = SourceLocation(self.path, self.line, self.column) if self.path else None
        return text.removeprefix(f"{place}: ") if place else text


def of_error(level: str, notebook: str | None, error: ResearchJobsError) -> Finding:
    """An error as a finding; its class is the code."""
    words = re.findall(r"[A-Z][a-z]+", type(error).__name__.removesuffix("Error"))
    if isinstance(error, NotebookSyntaxError):
        words = ["syntax"]  # as in a notebook that is checked by itself
    where = error.where or SourceLocation("")
    return Finding(
        level,
        notebook,
        error.headline,
        "-".join(words).lower() or "error",
        where.path or None,
        where.line,
        where.column,
    )


_PLACE = re.compile(r"(?P<path>[^\s:]+\.\w+):(?P<line>\d+)(?::(?P<column>\d+))?: ")


def of_text(notebook: str | None, text: str, code: str) -> Finding:
    """A warning whose text begins with its place."""
    match = _PLACE.match(text)
    if match is None:
        return Finding("warning", notebook, text, code)
    column = match["column"]
    return Finding(
        "warning",
        notebook,
        text,
        code,
        match["path"],
        int(match["line"]),
        int(column) if column else None,
    )


def find_all(catalog: Catalog) -> list[Finding]:
    """All findings of a project, each mistake once."""
    problems = [
        of_error("error", problem.name, problem.error) for problem in catalog.manifest.problems
    ]
    problems += [of_error("error", name, error) for name, error in _of_definitions(catalog)]
    problems += [of_error("error", None, error) for error in catalog.scan.problems]
    for entry in catalog:
        if entry.error is not None:
            problems.append(of_error("error", entry.name, entry.error))
        problems += [of_text(entry.name, text, "manifest") for text in entry.warnings]
        problems += _unassigned_outputs(catalog, entry)
        problems += _unread_dimensions(catalog, entry)
        problems += _in_the_way(catalog, entry)
        problems += _unlocked(entry)
    problems += _of_texts(catalog)
    problems += _unconverted(catalog.project)
    # One mistake is reported once, whatever it is about.
    unique = {finding.text: finding for finding in reversed(problems)}
    return [finding for finding in problems if unique.pop(finding.text, None) is not None]


def _of_definitions(catalog: Catalog) -> list[tuple[str, ResearchJobsError]]:
    """What only Dagster's definitions show.

    That there is nothing is remembered for these notebooks, this manifest and these packages:
    importing Dagster takes a third of the time of a check.
    """
    place = catalog.project.state / "cache" / "definitions_checked"
    parts = [research_jobs.__version__, repr(describe_environment(None))]
    with suppress(OSError):
        parts.append(repr(catalog.project.manifest.read_bytes()))
    parts += [
        repr((entry.name, entry.notebook.code_version, entry.upstream, entry.error))
        for entry in catalog
    ]
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        if place.read_text(encoding="ascii") == digest:
            return []
    from research_jobs.orchestration.definitions.factory import definition_problems

    found = definition_problems(catalog)
    if not found:
        with suppress(OSError):
            write_atomically(place, digest.encode())
    return found


def _of_texts(catalog: Catalog) -> Iterator[Finding]:
    """What the text of each notebook foretells, and what differs from the editor."""
    from research_jobs.notebook.foreseen import foresee, foresee_imports
    from research_jobs.notebook.parity import check_parity
    from research_jobs.notebook.parity_rules import silenced
    from research_jobs.notebook.source import parse_source
    from research_jobs.notebook.undefined import undefined_names

    entries = [entry for entry in catalog if entry.notebook.error is None]
    texts = [read_notebook_text(entry.notebook.path) for entry in entries]
    trees = [parse_source(text) for text in texts]
    undefined: list[tuple[UndefinedName, ...]] = [()] * len(texts)
    try:
        undefined = undefined_names(text.text for text in texts)
    except ResearchJobsError as error:
        yield of_error("warning", None, error)
    helpers = list(_helpers(catalog, entries))
    around = _Around(catalog, entries, trees, helpers)
    read = zip(entries, texts, trees, undefined, around.origins, around.uses, strict=True)
    for entry, text, tree, names, origins, use in read:
        shown = catalog.project.display(text.path)
        found = check_parity(
            text, notebook=entry.name, notebooks=catalog.entries, undefined=names, tree=tree
        )
        yield from _placed(found, entry.name, shown)
        foreseen = foresee(text, tree, origins, use, around.of(entry))
        yield from _placed(foreseen, entry.name, shown)
        lines = text.text.split("\n")
        for load in entry.notebook.hidden_loads:
            if load.path == shown and silenced(lines[load.line - 1], "hidden-load"):
                continue
            place = SourceLocation(load.path, load.line, load.column)
            text_ = f"{place}: {load.message} [hidden-load]"
            yield of_text(entry.name, text_, "hidden-load")
    for helper in helpers:
        shown = catalog.project.display(helper.text.path)
        found = foresee_imports(helper.text, helper.tree, around.of(helper.user, helper.text.path))
        yield from _placed(found, None, shown)
    yield from _hiding_modules(catalog)


def _placed(found: Iterable[ParityFinding], notebook: str | None, shown: str) -> Iterator[Finding]:
    for one in found:
        text = f"{SourceLocation(shown, one.line, one.column)}: {one.message} [{one.code}]"
        yield Finding(one.level, notebook, text, one.code, shown, one.line, one.column)


@dataclass(frozen=True)
class _Helper:
    """A helper module, and a notebook that imports it."""

    text: NotebookText
    tree: ast.Module
    user: Entry


def _helpers(catalog: Catalog, entries: list[Entry]) -> Iterator[_Helper]:
    """The helper modules in notebooks/ that a notebook imports and that parse."""
    from research_jobs.notebook.source import parse_source

    for path in catalog.scan.helpers:
        parts = path.relative_to(catalog.project.notebooks).with_suffix("").parts
        names = {".".join(parts), parts[-1]}
        user = next((one for one in entries if names & {*one.notebook.local_modules}), None)
        if user is None:
            continue
        try:
            text = read_notebook_text(path)
            yield _Helper(text, parse_source(text), user)
        except ResearchJobsError:  # a problem of the scan
            continue


class _Around:
    """The surroundings of all notebooks: each interpreter is asked once."""

    def __init__(
        self,
        catalog: Catalog,
        entries: list[Entry],
        trees: list[ast.Module],
        helpers: list[_Helper],
    ) -> None:
        from research_jobs.notebook.data_files import FileUse
        from research_jobs.notebook.environment import locate, required_imports
        from research_jobs.notebook.interface import names_of
        from research_jobs.notebook.local_modules import Resolver

        self.catalog = catalog
        self.resolver = Resolver()
        wanted: dict[str | None, set[str]] = {}
        pairs = list(zip(entries, trees, strict=True))
        for entry, tree in [*pairs, *((helper.user, helper.tree) for helper in helpers)]:
            tops = {required.top for required in required_imports(tree)}
            wanted.setdefault(self._python(entry), set()).update(tops)
        self.located = {python: locate(modules, python) for python, modules in wanted.items()}
        self.editor = _editor_folders(catalog.project)
        self.origins = [names_of(tree).origins for tree in trees]
        self.uses = [FileUse(tree, one) for tree, one in zip(trees, self.origins, strict=True)]
        self.written = frozenset(
            (self.folder(entry) / path).absolute()
            for entry, use in zip(entries, self.uses, strict=True)
            for path in use.written()
        )

    def folder(self, entry: Entry) -> Path:
        from research_jobs.supervisor.request import working_directory

        setting = self.catalog.manifest.defaults.working_directory
        return Path(working_directory(self.catalog.project, entry.notebook.path.parent, setting))

    def of(self, entry: Entry, path: Path | None = None) -> Surroundings:
        """Those of a notebook, or of a module that it imports."""
        from research_jobs.notebook.foreseen import Surroundings
        from research_jobs.notebook.local_modules import search_path

        project = self.catalog.project
        own = (path or entry.notebook.path).parent
        return Surroundings(
            folder=self.folder(entry),
            search=search_path(own, project.notebooks, project.root, self.catalog.sys_path),
            editor_search=(str(own), *self.editor),
            located=self.located[self._python(entry)],
            written=self.written,
            resolver=self.resolver,
            versions=self._versions(entry),
            declared=entry.environment is not None,
        )

    def _python(self, entry: Entry) -> str | None:
        """The interpreter to ask; no one can say what an environment has that is not made yet."""
        return entry.python or (_NOT_MADE if entry.environment is not None else None)

    def _versions(self, entry: Entry) -> Mapping[str, str] | None:
        if entry.environment is not None:
            return known_versions(entry.environment) or {}
        return None if entry.spec.python is None else {}


def _unlocked(entry: Entry) -> Iterator[Finding]:
    """A notebook whose packages have no versions in the repository."""
    environment = entry.environment
    if environment is None or environment.lock is not None or entry.error is not None:
        return
    where = environment.where
    text = (
        f"{where}: the versions of its packages are not kept, so each machine resolves its own: "
        f"research-jobs lock {entry.name} [no-lock]"
    )
    yield Finding("warning", entry.name, text, "no-lock", where.path, where.line, where.column)


def _editor_folders(project: Project) -> tuple[str, ...]:
    """Folders of the project that an editor's kernel has on its path: those in PYTHONPATH."""
    said = read_variable(project.root / ".env", "PYTHONPATH") or ""
    plain = [re.sub(r"^\$\{\w+\}/?", "", word) for word in re.split(r"[:;]", said) if word]
    return tuple(str((project.root / word).absolute()) for word in plain)


def _hiding_modules(catalog: Catalog) -> Iterator[Finding]:
    """Notebooks and helpers that hide an installed module of their name."""
    paths = [(entry.notebook.path, entry.name) for entry in catalog]
    paths += [(path, None) for path in catalog.scan.helpers]
    for path, notebook in paths:
        name = path.stem
        standard = name in sys.stdlib_module_names
        if notebook is not None and standard and "/" not in notebook:
            continue  # check_parity says it
        if not standard and not _is_installed(name, catalog.project):
            continue
        what = "a standard library" if standard else "an installed"
        text = (
            f"{catalog.project.display(path)}:1:1: '{name}' is the name of {what} module, which "
            "notebooks in this folder can then not import; rename the file [hides-module]"
        )
        yield of_text(notebook, text, "hides-module")


def _is_installed(name: str, project: Project) -> bool:
    """Whether a module of this name lies outside the project's own folders."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None:
        return False
    places = list(spec.submodule_search_locations or ()) or [spec.origin]
    parents = {Path(place).resolve().parent for place in places}
    notebooks = project.notebooks.resolve()
    own = (project.root.resolve(), notebooks)
    return not any(parent in own or notebooks in parent.parents for parent in parents)


def _unconverted(project: Project) -> Iterator[Finding]:
    """Jupyter notebooks that nobody has converted."""
    from research_jobs.notebook.discovery import jupyter_notebooks

    left = [
        path
        for path in jupyter_notebooks(project.notebooks)
        if not any(part.startswith("_") for part in path.relative_to(project.notebooks).parts)
        and not _is_converted(path)
    ]
    if not left:
        return
    what = "is not a notebook" if len(left) == 1 else "are not notebooks"
    folder = project.display(project.notebooks)
    text = f"{len(left)} .ipynb here {what} yet: research-jobs convert {folder}/"
    yield Finding("warning", None, text, "unconverted", project.display(left[0]))


def _is_converted(path: Path) -> bool:
    from research_jobs.notebook.discovery import importable

    name = importable(path.stem)
    return any(path.with_name(f"{one}.py").exists() for one in (path.stem, name, f"nb_{name}"))


def _unread_dimensions(catalog: Catalog, entry: Entry) -> Iterator[Finding]:
    """Dimensions of partitions that set no parameter of the notebook."""
    declared = {parameter.name for parameter in entry.notebook.parameters}
    partitions = entry.spec.partitions
    if entry.error is not None or partitions is None or partitions.dimensions is None:
        return
    for name, dimension in partitions.dimensions.items():
        if dimension.parameter is not None or name in declared:
            continue
        where = catalog.manifest.locate(
            "notebooks", entry.name, "partitions", "dimensions", name, key=True
        )
        error = PartitionError(
            f"the dimension '{name}' sets no parameter of {entry.name}",
            where=where,
            hint=f"{did_you_mean(name, declared, label='Parameters')} "
            "'parameter' names one; research_jobs.context() knows the partition too.".lstrip(),
        )
        yield of_error("warning", entry.name, error)


def _in_the_way(catalog: Catalog, entry: Entry) -> Iterator[Finding]:
    """Files in the store that are not ours, where a run would refuse to publish."""
    from research_jobs.store.commit import refuse_any_foreign

    if entry.error is not None or entry.spec.io_manager is not None:
        return
    for name in entry.spec.outputs:
        try:
            refuse_any_foreign(
                catalog.project.store, entry.name, [name], partitioned=entry.partitioned
            )
        except StoreError as error:  # noqa: PERF203 - each output has its own finding
            yield of_error("error", entry.name, error)


def _unassigned_outputs(catalog: Catalog, entry: Entry) -> Iterator[Finding]:
    """Declared outputs that the notebook assigns nowhere, so that no run can succeed."""
    from research_jobs.notebook.assigned import may_assign_any_name

    if entry.error is not None:
        return
    missing = [name for name in entry.spec.outputs if name not in entry.notebook.assigned]
    if not missing or may_assign_any_name(entry.notebook.path):
        return
    for name in missing:
        where = catalog.manifest.locate("notebooks", entry.name, "outputs", name, key=True)
        hint = did_you_mean(name, entry.notebook.assigned, label="It assigns")
        error = OutputNotAssignedError(
            f"{entry.name} never assigns its output '{name}'", where=where, hint=hint or None
        )
        yield of_error("error", entry.name, error)
