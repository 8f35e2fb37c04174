"""All notebooks of a project, read as text: the factory builds assets from the result.

Each file is parsed once, and again only when it changes; its facts are kept in
``.research_jobs/cache/``. What follows from several files (code versions, loads through helpers)
is cheap and computed on every scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from research_jobs.errors import NotebookError, NotebookNotFoundError
from research_jobs.notebook.cache import FactsCache, Remembered
from research_jobs.notebook.cells import (
    NotebookText,
    has_marker,
    notebook_cells,
    read_notebook_text,
)
from research_jobs.notebook.decoding import decode_source, read_bytes
from research_jobs.notebook.discovery import (
    SourceFile,
    lone_notebook,
    not_found,
    sort_out,
    walk_folder,
    why_not,
)
from research_jobs.notebook.facts import FileFacts, read_facts
from research_jobs.notebook.interface import Parameter
from research_jobs.notebook.lineage import reached_loads
from research_jobs.notebook.loads import HiddenLoad, LoadCall
from research_jobs.notebook.local_modules import Imported, Resolver, search_path
from research_jobs.notebook.script_metadata import ScriptMetadata
from research_jobs.notebook.source import nested_too_deeply
from research_jobs.notebook.version import code_version
from research_jobs.process import gc_paused
from research_jobs.project import Project, notebook_name

__all__ = ["Scan", "ScannedNotebook", "find_notebook", "scan"]


@dataclass(frozen=True)
class ScannedNotebook:
    """A notebook as its text describes it.

    Parameters
    ----------
    name, module : str
        ``volatility/garch`` and ``volatility.garch``.
    path : Path
    description : str
        Its leading prose as Markdown.
    parameters : tuple of Parameter
    parameters_cell : int or None
        Number of the cell tagged ``parameters``.
    loads : tuple of LoadCall
        Its own calls, then those that its helper modules make for it. Never of itself: reading
        its own earlier outputs is not a dependency.
    hidden_loads : tuple of HiddenLoad
        Uses of `load`, its own and its helpers', that may read more than the text shows.
    assigned : mapping of str to int
        Names bound at module level, with the first line that binds each.
    third_party : tuple of str
        Dotted names of the installed modules that it and its helpers import.
    third_party_members : tuple of str
        Names they import *from* those, dotted: ``scipy.stats`` of ``from scipy import stats``.
        Each may be a module or anything else.
    local_modules : tuple of str
        Import names of the project's own modules that it imports, directly or not.
    code_version : str
        Changes with the code that it runs, not with comments, prose or formatting.
    source_sha256 : str
        Of the file's bytes.
    reads_itself : bool
        Whether it loads its own earlier outputs: its partitions then run one at a time.
    script : ScriptMetadata or None
        The packages and the Python that its ``# /// script`` block asks for.
    reads_outputs : bool
        Whether its own text calls `load`, or may.
    error : NotebookError or None
        Why it cannot run; fields that could not be read are then empty.
    """

    name: str
    module: str
    path: Path
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    parameters_cell: int | None = None
    loads: tuple[LoadCall, ...] = ()
    hidden_loads: tuple[HiddenLoad, ...] = ()
    assigned: Mapping[str, int] = field(default_factory=dict[str, int], repr=False)
    third_party: tuple[str, ...] = ()
    third_party_members: tuple[str, ...] = ()
    local_modules: tuple[str, ...] = ()
    code_version: str = ""
    source_sha256: str = ""
    reads_itself: bool = False
    script: ScriptMetadata | None = None
    reads_outputs: bool = False
    error: NotebookError | None = None


@dataclass(frozen=True)
class Scan:
    """A project's notebooks.

    Parameters
    ----------
    notebooks : tuple of ScannedNotebook
        Sorted by name.
    helpers : tuple of Path
    problems : tuple of NotebookError
        Files that look like notebooks but are not in `notebooks`, and helper modules that do not
        parse.
    files : tuple of str
        All files that were read, helper modules outside the folder included.
    """

    notebooks: tuple[ScannedNotebook, ...]
    helpers: tuple[Path, ...]
    problems: tuple[NotebookError, ...]
    files: tuple[str, ...] = field(default=(), repr=False)

    def get(self, name: str) -> ScannedNotebook:
        """A notebook by any spelling of its name.

        Raises
        ------
        NotebookNotFoundError
            With similar names.
        NotebookError
            When a file of that name exists but cannot be a notebook.
        """
        wanted = notebook_name(name)
        for notebook in self.notebooks:
            if notebook.name == wanted:
                return notebook
        for problem in self.problems:
            if problem.where is not None and problem.where.path == f"notebooks/{wanted}.py":
                raise problem
        raise not_found(name, [notebook.name for notebook in self.notebooks])

    @property
    def third_party(self) -> tuple[str, ...]:
        """The installed modules that any notebook imports, sorted."""
        return tuple(sorted({name for notebook in self.notebooks for name in notebook.third_party}))

    @property
    def third_party_members(self) -> tuple[str, ...]:
        """The names that any notebook imports from them, sorted."""
        return tuple(
            sorted({name for notebook in self.notebooks for name in notebook.third_party_members})
        )


def scan(project: Project, *, use_cache: bool = True, sys_path: Sequence[str] = ()) -> Scan:
    """Read all notebooks of a project; none is imported.

    Parameters
    ----------
    project : Project
    use_cache : bool
        Whether to read and write ``.research_jobs/cache/``.
    sys_path : sequence of str
        More folders on the notebooks' import path, after the usual three.

    Returns
    -------
    Scan
        A notebook that does not parse is in it with its error, and does not affect the others.
    """
    cache = FactsCache(project, enabled=use_cache)
    with gc_paused():  # trees are many small objects, freed by reference counts
        result = _Scanner(project, cache, sys_path).run()
    cache.save()
    return result


def find_notebook(project: Project, name: str) -> ScannedNotebook:
    """Find a notebook by any spelling of its name, for one run of it.

    Parameters
    ----------
    project : Project
    name : str
        ``volatility/garch``, ``volatility.garch``, ``volatility/garch.py``...

    Returns
    -------
    ScannedNotebook
        With its name, parameters, assigned names and what packages it asks for at least: the
        usual case reads one file.

    Raises
    ------
    NotebookNotFoundError
        With similar names.
    NotebookError
        When it exists but cannot run, with the reason.
    """
    file = lone_notebook(project.notebooks, notebook_name(name))
    if file is not None:
        text = read_notebook_text(file.path)
        facts = read_facts(text, notebook=True, shown=project.display(file.path))
        return ScannedNotebook(
            file.name,
            file.module,
            file.path,
            parameters=facts.parameters,
            assigned=facts.assigned or {},
            script=facts.script,
            reads_outputs=facts.reads_outputs,
        )
    try:
        found = scan(project).get(name)
    except NotebookNotFoundError as error:
        raise why_not(project.notebooks, name) or error from None
    if found.error is not None:
        raise found.error
    return found


def _marked(data: bytes, path: Path) -> bool:
    """Whether a file that does not parse looks like a notebook; undecodable bytes may too."""
    try:
        text = decode_source(data, path)
    except NotebookError:
        text = data.decode("latin-1")
    return has_marker(text)


def read_file(path: Path, data: bytes, sha256: str, shown: str) -> Remembered:
    """The facts that a scan keeps about a file.

    Parameters
    ----------
    path : Path
    data : bytes
        Its content, and the content's `sha256`.
    sha256 : str
    shown : str
        The file's name in messages.

    Raises
    ------
    NotebookError
        When it does not decode or parse.
    """
    text = decode_source(data, path)
    cells = notebook_cells(text)
    marked = cells is not None
    notebook = NotebookText(path, text, sha256, cells or ())
    try:
        facts = read_facts(notebook, notebook=marked, shown=shown)
    except (RecursionError, MemoryError):
        raise nested_too_deeply(path) from None
    return Remembered(sha256, marked, facts)


class _Scanner:
    def __init__(self, project: Project, cache: FactsCache, sys_path: Sequence[str]) -> None:
        self.project = project
        self.cache = cache
        self.sys_path = sys_path
        self.resolver = Resolver()
        self.read: dict[str, Remembered] = {}
        self.imported: dict[tuple[tuple[str, ...], str, str], Imported] = {}

    def run(self) -> Scan:
        folder = walk_folder(self.project.notebooks)
        problems = list(folder.problems)
        notebooks: list[tuple[SourceFile, Remembered]] = []
        helpers: list[Path] = []
        for file, problem in sort_out(folder.files):
            source = self.file(str(file.path), file)
            marked = source.marked and not file.is_private
            if problem is not None:
                if marked:
                    problems.append(problem)
            elif marked:
                notebooks.append((file, source))
            else:
                if source.error is not None:
                    problems.append(source.error)
                helpers.append(file.path)
        return Scan(
            tuple(
                sorted(
                    (self.notebook(file, source) for file, source in notebooks),
                    key=lambda nb: nb.name,
                )
            ),
            tuple(helpers),
            tuple(problems),
            tuple(self.read),
        )

    def file(self, name: str, source: SourceFile | None = None) -> Remembered:
        """A file's facts, from this scan, from the cache, or from its text."""
        known = self.read.get(name)
        if known is None:
            path = source.path if source is not None else Path(name)
            known = self.read[name] = self._file(path, source)
        return known

    def _file(self, path: Path, source: SourceFile | None) -> Remembered:
        stat = source.stat if source is not None else None
        data = b""
        try:
            remembered = self.cache.get(path, stat)
            if remembered is None:
                data = read_bytes(path)
                sha256 = hashlib.sha256(data).hexdigest()
                remembered = self.cache.confirm(path, sha256)
                if remembered is None:
                    remembered = read_file(path, data, sha256, self.project.display(path))
                    self.cache.put(path, remembered)
        except NotebookError as error:
            return Remembered(hashlib.sha256(data).hexdigest(), _marked(data, path), None, error)
        return remembered

    def notebook(self, file: SourceFile, source: Remembered) -> ScannedNotebook:
        facts = source.facts
        if facts is None:
            return ScannedNotebook(
                file.name,
                file.module,
                file.path,
                code_version=source.sha256[:16],
                source_sha256=source.sha256,
                error=source.error,
            )
        search = search_path(
            file.path.parent, self.project.notebooks, self.project.root, self.sys_path
        )
        package = file.module.rpartition(".")[0]
        start = self.imports(search, str(file.path), package, facts)
        modules, digests = self.closure(search, start)
        externals = [start, *(imported for _, imported in modules.values())]
        reached = reached_loads((facts, start), modules, self.project.display(file.path))
        loads = reached.calls
        return ScannedNotebook(
            name=file.name,
            module=file.module,
            path=file.path,
            description=facts.description,
            parameters=facts.parameters,
            parameters_cell=facts.parameters_cell,
            loads=tuple(call for call in loads if call.notebook != file.name),
            hidden_loads=reached.hidden,
            assigned=facts.assigned or {},
            third_party=tuple(sorted({name for i in externals for name in i.external})),
            third_party_members=tuple(sorted({name for i in externals for name in i.members})),
            local_modules=tuple(sorted(digests)),
            code_version=code_version(
                facts.digest, digests, parameters=[p.name for p in facts.parameters]
            ),
            source_sha256=source.sha256,
            reads_itself=any(call.notebook == file.name for call in loads),
            script=facts.script,
            reads_outputs=facts.reads_outputs,
        )

    def imports(
        self, search: tuple[str, ...], path: str, package: str, facts: FileFacts
    ) -> Imported:
        key = (search, path, package)
        known = self.imported.get(key)
        if known is None:
            known = self.imported[key] = self.resolver.imports(facts.imports, package, search)
        return known

    def closure(
        self, search: tuple[str, ...], start: Imported
    ) -> tuple[dict[str, tuple[FileFacts, Imported]], dict[str, str]]:
        """Every local module that is imported, directly or not: facts, and digests by name."""
        modules: dict[str, tuple[FileFacts, Imported]] = {}
        digests: dict[str, str] = {}
        todo = list(start.modules)
        while todo:
            name, path = todo.pop()
            if name in digests:
                continue
            source = self.file(path)
            if source.facts is None:
                # It does not parse, so the notebook cannot run; a fix changes the version.
                digests[name] = source.sha256
                continue
            digests[name] = source.facts.digest
            is_package = path.endswith("__init__.py")
            package = name if is_package else name.rpartition(".")[0]
            imported = self.imports(search, path, package, source.facts)
            modules[name] = (source.facts, imported)
            todo += imported.modules
        return modules, digests
