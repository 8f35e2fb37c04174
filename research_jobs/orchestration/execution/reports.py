"""The report of a run, and the metadata that leads to it. Nothing here ever fails a run."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg

from research_jobs.errors import PartitionError, ResearchJobsError
from research_jobs.notebook.local_modules import search_path
from research_jobs.orchestration.execution.delivering import Delivering
from research_jobs.orchestration.execution.gallery import notebook_card, send_report, share_pages
from research_jobs.orchestration.model.addresses import report_link, run_page
from research_jobs.orchestration.model.catalog import Catalog, Entry
from research_jobs.orchestration.model.metadata import Metadata
from research_jobs.orchestration.model.partitions import partition_key_of
from research_jobs.outcome import Outcome
from research_jobs.project import Project
from research_jobs.provenance.assembling import RunFacts
from research_jobs.provenance.record import NAME
from research_jobs.report.header import ReportHeader
from research_jobs.report.layout import CHANGES, Report, report_folder
from research_jobs.report.making import ReportOrder, make_report
from research_jobs.report.whole import Published
from research_jobs.supervisor.request import secret_values
from research_jobs.supervisor.run import CancelToken

__all__ = ["Made", "expected_report", "git_commit", "make_run_report", "run_folder"]

logger = logging.getLogger("research_jobs")


@dataclass(frozen=True)
class Made:
    """What a run's record says beside its outcome.

    Parameters
    ----------
    data_version : str or None
        The hash of what its outputs hold.
    given : mapping of str to object
        The parameters that it set.
    counts : bool
        False for a trial.
    """

    data_version: str | None = None
    given: Mapping[str, Any] = field(default_factory=dict[str, Any])
    counts: bool = True


def run_folder(project: Project, run_id: str, step_key: str, partition: str | None) -> Path:
    """Make the folder for what a run needs while it lasts.

    The folder is the run's alone and shares no parent that another run removes.
    """
    name = f"{run_id}-{step_key}" if partition is None else f"{run_id}-{step_key}-{partition}"
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if plain != name or len(name) > 150:
        plain = f"{plain[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return project.make_state_folder("runs", plain)


def make_run_report(
    catalog: Catalog,
    entry: Entry,
    outcome: Outcome,
    *,
    capture: Path,
    step_key: str,
    cancel: CancelToken,
    made: Made,
    delivering: Delivering | None = None,
) -> tuple[str | None, Metadata]:
    """Make the report of a run whose outputs are published, or will not be.

    Parameters
    ----------
    catalog : Catalog
    entry : Entry
    outcome : Outcome
    capture : Path
        What the notebook's cells showed. Its folder is removed once the report is there.
    step_key : str
    cancel : CancelToken
        The run's: once it is cancelled, the report has a few seconds left.
    made : Made
    delivering : Delivering, optional
        Who gets it.

    Returns
    -------
    page : str or None
    metadata : dict
        What leads to the report; of a report that could not be written, why.
    """
    header = _header(catalog, entry, outcome, step_key)
    mail = None
    if delivering is not None:
        with _not_failing(entry):
            mail = delivering.order(header, made.data_version)
    order = replace(_order(catalog, entry, header, capture, made), mail=mail)
    try:
        report = make_report(order, stop=cancel.listening)
    except Exception as error:
        logger.exception("%s: the report could not be written", entry.name)
        why = f"{type(error).__name__}: {error}"[:1000]
        return None, {"report_error": dg.MetadataValue.text(why)}
    shutil.rmtree(capture.parent, ignore_errors=True)
    if delivering is not None and mail is not None:
        with _not_failing(entry):
            delivering.leave(outcome, mail, report)
    links = _links(catalog, report)
    refused = share_pages(catalog, report.folder)
    if refused is not None:
        links["report_error"] = dg.MetadataValue.text(refused)
    try:
        send_report(catalog, report.folder)
    except (ResearchJobsError, OSError) as error:
        logger.warning("%s: other machines do not have the report: %s", entry.name, error)
    return str(report.html), links


@contextmanager
def _not_failing(entry: Entry) -> Generator[None]:
    try:
        yield
    except Exception:
        logger.exception("%s: the report is not delivered", entry.name)


def expected_report(
    catalog: Catalog, entry: Entry, outcome: Outcome, step_key: str
) -> tuple[str, Metadata]:
    """As `make_run_report` of a run that succeeded, before the report is made.

    An IO manager that is not ours records its materialisation first.
    """
    header = _header(catalog, entry, outcome, step_key)
    report = Report(report_folder(catalog.project.reports, header))
    return str(report.html), _links(catalog, report)


def _header(catalog: Catalog, entry: Entry, outcome: Outcome, step_key: str) -> ReportHeader:
    return ReportHeader(
        outcome,
        run_url=run_page(catalog, outcome.run_id, step_key),
        path=catalog.project.display(entry.notebook.path),
        code_version=entry.notebook.code_version or None,
        git_commit=git_commit(catalog.project.root),
        timezone=entry.spec.timezone or catalog.manifest.defaults.timezone,
        used_by=tuple(sorted(one.name for one in catalog if entry.name in one.upstream)),
    )


def _order(
    catalog: Catalog, entry: Entry, header: ReportHeader, capture: Path, made: Made
) -> ReportOrder:
    reports = catalog.project.reports
    return ReportOrder(
        header=header,
        folder=report_folder(reports, header),
        reports=reports,
        capture=capture if capture.exists() else None,
        notebook=entry.notebook.path,
        card=asdict(notebook_card(catalog, entry)),
        keep=catalog.manifest.reports.keep,
        unique={name: output.unique for name, output in entry.spec.outputs.items()},
        facts=_facts(catalog, entry, header, made),
        published=_published(catalog, entry, header.outcome) if made.counts else None,
    )


def _published(catalog: Catalog, entry: Entry, outcome: Outcome) -> Published | None:
    """Where the report finds the run's outputs; None for those of several partitions."""
    partition = None
    if outcome.partition is not None:
        try:
            partition = partition_key_of(entry.spec, outcome.partition).dimensions
        except PartitionError:
            return None
    secrets = secret_values(entry.spec, catalog.manifest)
    return Published(catalog.project.store, partition, tuple(secrets.values()))


def _facts(catalog: Catalog, entry: Entry, header: ReportHeader, made: Made) -> RunFacts:
    project, notebook = catalog.project, entry.notebook
    folder = Path(notebook.path).parent
    secrets = secret_values(entry.spec, catalog.manifest)
    environment = entry.environment

    def told(values: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in values.items()
            if not any(secret in str(value) for secret in secrets.values())
        }

    return RunFacts(
        project_root=str(project.root),
        store=project.store,
        state=str(project.state),
        notebook=str(notebook.path),
        search=search_path(folder, project.notebooks, project.root, catalog.sys_path),
        helpers=notebook.local_modules,
        third_party=notebook.third_party,
        code_version=header.code_version,
        git_commit=header.git_commit,
        python=entry.python,
        lock=str(environment.lock_path) if environment is not None else None,
        data_version=made.data_version,
        given=told(made.given),
        counts=made.counts,
        manifest=str(project.manifest),
        variables=told(entry.spec.environment),
    )


def _links(catalog: Catalog, report: Report) -> Metadata:
    """A link for the UI, the file for everybody else, and the first chart, shown inline."""
    links: Metadata = {
        "report": dg.MetadataValue.url(report_link(catalog, report.html, report.anchor)),
        "report_file": dg.MetadataValue.path(str(report.html)),
        "provenance": dg.MetadataValue.path(str(report.folder / NAME)),
    }
    if report.changes:
        changes = report_link(catalog, report.html.with_name(CHANGES))
        links["changes"] = dg.MetadataValue.url(changes)
    if report.thumbnail is not None and report.thumbnail.suffix != ".js":
        chart = report_link(catalog, report.thumbnail)
        links["chart"] = dg.MetadataValue.md(f"![first chart]({chart})")
    return links


@lru_cache(maxsize=8)
def git_commit(root: Path) -> str | None:
    """The commit that a folder is at, read from its ``.git``; None where there is none."""
    with suppress(OSError, ValueError):  # it is damaged, or not for us to read
        for folder in (root, *root.parents):
            git = folder / ".git"
            if git.is_file():  # a worktree or submodule: "gitdir: <path>"
                git = (folder / os.fsdecode(git.read_bytes().partition(b":")[2].strip())).resolve()
            if git.is_dir():
                return _commit_of(git)
    return None


def _commit_of(git: Path) -> str | None:
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head or None
    name = head.partition(":")[2].strip()
    common = git / "commondir"
    shared = (git / common.read_text().strip()).resolve() if common.is_file() else git
    for place in (git, shared):
        if (place / name).is_file():
            return (place / name).read_text().strip()
    packed = shared / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else ():
        commit, _, ref = line.partition(" ")
        if ref == name:
            return commit
    return None
