"""What every section of a manifest is read with: one entry to a model, one mistake to a line."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from research_jobs.errors import ManifestError, SourceLocation, did_you_mean
from research_jobs.manifest.cron import CronCheck
from research_jobs.manifest.document import Document, Node
from research_jobs.manifest.manifest import Problem, Scope
from research_jobs.manifest.messages import (
    SECTION_EXAMPLES,
    as_written,
    describe,
    example_of,
    keys_of,
    model_at,
    unknown_key,
)
from research_jobs.manifest.models import NotebookSpec
from research_jobs.manifest.values import RefusedValueError

__all__ = ["Reader"]

SEARCH_LIMIT = 20


class Reader:
    """A document, and the mistakes found in it so far.

    Parameters
    ----------
    document : Document
    known : frozenset of str or None
        Names of the notebooks that exist.
    cron : callable or None
        The check of cron expressions.
    """

    def __init__(
        self, document: Document, known: frozenset[str] | None, cron: CronCheck | None
    ) -> None:
        self.document = document
        self.known = known
        self.context = {"cron": cron}
        self.problems: list[Problem] = []
        self.searches = 0

    def _no_defects(self, scope: Scope, name: str, path: tuple[str, ...]) -> bool:
        fine = True
        for defect in self.document.defects:
            if defect.path[:2] == path:
                fine = False
                self._problem(
                    scope,
                    name,
                    f"{scope} {name}: {defect.what}",
                    self.document.where(defect.mark),
                    defect.hint,
                )
        return fine

    def _validate(
        self, model: type[Any], scope: Scope, name: str, path: tuple[str, ...], node: Node
    ) -> Any:
        data = {} if node.data is None else node.data
        if not isinstance(data, dict):
            if model is NotebookSpec and isinstance(data, (list, str)):
                what, hint = "is not a mapping", "Write {outputs: [...]}."
            else:
                what, hint = "is not a mapping", f"Its keys are {keys_of(model)}."
            self._problem(
                scope, name, f"{scope} {name} {what}", self.document.where(node.mark), hint
            )
            return None
        try:
            return model.model_validate(data, context=self.context)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain(scope, name, model, path, detail)
            return None

    def _explain(
        self,
        scope: Scope,
        name: str | None,
        model: type[BaseModel],
        path: tuple[str, ...],
        detail: ErrorDetails,
    ) -> None:
        loc = as_written(detail["loc"])
        full = (*path, *loc)
        place = ".".join(part for part in loc if isinstance(part, str))
        above = ".".join(part for part in loc[:-1] if isinstance(part, str))
        inside = f" in {above}" if above else ""
        refusal = detail.get("ctx", {}).get("error")
        if detail["type"] == "extra_forbidden":
            what, hint = unknown_key(model_at(model, loc[:-1]) or model, str(loc[-1]))
            what, place = f"{what}{inside}", ""
            where = self.document.locate(full, key=True)
        elif detail["type"] == "missing":
            what, hint = f"'{loc[-1]}' is missing{inside}", example_of(str(loc[-1]))
            where, place = self.document.locate(full[:-1], key=True), ""
        elif isinstance(refusal, RefusedValueError):
            what, hint = refusal.what, refusal.hint
            # Point at a name in a list rather than at the list.
            where = self.document.locate_quoted(full, what)
        else:
            what, hint = describe(detail)
            where = self.document.locate(full)
        label = f"{scope} {name}" if name is not None else "".join(path[:1])
        prefix = ", ".join(filter(None, (label, place)))
        self._problem(scope, name, f"{prefix}: {what}", where, hint)

    def _close(self, name: str) -> str:
        """Similar names, for the first mistakes of a manifest only: each costs a search."""
        self.searches += 1
        if self.searches > SEARCH_LIMIT:
            return "Correct its name."
        return did_you_mean(name, self.known or (), label="Notebooks")

    def _exists(self, notebook: str) -> bool:
        return self.known is None or notebook in self.known

    # --- problems ------------------------------------------------------------------------------

    def _problem(
        self,
        scope: Scope,
        name: str | None,
        what: str,
        where: SourceLocation,
        hint: str | None,
    ) -> Problem:
        problem = Problem(scope, name, ManifestError(what, where=where, hint=hint or None))
        self.problems.append(problem)
        return problem

    def _wrong_shape(self, scope: Scope, section: str, node: Node) -> None:
        kind = "list of names" if section == "secrets" else "mapping"
        self._problem(
            scope,
            None,
            f"{section} is not a {kind}",
            self.document.where(node.mark),
            f"Write {SECTION_EXAMPLES[section]}",
        )
