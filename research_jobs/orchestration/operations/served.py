"""Ask Dagster's webserver, over GraphQL, to load code anew."""

from __future__ import annotations

import ast
import http.client
import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from research_jobs.errors import ResearchJobsError
from research_jobs.orchestration.model.instance import LOCATION
from research_jobs.orchestration.model.names import PRUNE_SCHEDULE, AssetNames
from research_jobs.orchestration.model.snapshot import Snapshot, cron_text

__all__ = [
    "NotServedError",
    "ask",
    "reload_definitions",
    "served_definitions",
    "unloaded_locations",
]

# A new code server imports Dagster and builds all definitions, possibly on a busy machine.
RELOAD_S = 300.0
# One of the kinds of each notebook's asset.
NOTEBOOK_KIND = "notebook"

_LOCATIONS = """
{
  workspaceOrError {
    ... on Workspace {
      locationEntries { name locationOrLoadError { __typename ... on PythonError { message } } }
    }
    ... on PythonError { message }
  }
}
"""
_DEFINITIONS = """
{
  repositoriesOrError {
    ... on RepositoryConnection {
      nodes {
        location { name }
        assetNodes { assetKey { path } opVersion kinds }
        schedules { name cronSchedule executionTimezone }
      }
    }
    ... on PythonError { message }
  }
}
"""
_RELOAD = """
mutation Reload($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename
    ... on WorkspaceLocationEntry {
      locationOrLoadError { __typename ... on PythonError { message } }
    }
    ... on ReloadNotSupported { message }
    ... on RepositoryLocationNotFound { message }
    ... on UnauthorizedError { message }
    ... on PythonError { message }
  }
}
"""


class NotServedError(ResearchJobsError):
    """Dagster's webserver does not answer, or cannot load the code."""


def ask(url: str, query: str, *, timeout_s: float = RELOAD_S, **variables: Any) -> Any:
    """What the webserver answers to a GraphQL document.

    Parameters
    ----------
    url : str
        Where the webserver listens: ``http://127.0.0.1:3000``, with its path prefix if it has one.
    query : str
    timeout_s : float
    **variables
        Of the document.

    Returns
    -------
    dict
        The answer's ``data``.

    Raises
    ------
    NotServedError
        When there is no answer, or an error.
    """
    place = urlsplit(url)
    # Not urllib: it would send this through a proxy that the environment names.
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    connection = kind(place.hostname or "localhost", place.port, timeout=timeout_s)
    try:
        connection.request(
            "POST",
            f"{place.path.rstrip('/')}/graphql",
            json.dumps({"query": query, "variables": variables}),
            {"Content-Type": "application/json"},
        )
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise NotServedError(
            f"Dagster's UI does not answer at {url}: {error}", hint="Is it running?"
        ) from error
    finally:
        connection.close()
    try:
        answer = json.loads(text)
        if not answer.get("errors"):
            return answer["data"]
        said = str(answer["errors"][0]["message"])
    except (ValueError, KeyError, AttributeError):
        said = f"{response.status} {' '.join(text.split())[:200]}"
    raise NotServedError(f"Dagster's UI at {url} answers: {said}")


@contextmanager
def _understood(url: str) -> Generator[None]:
    """Take what is not an answer of Dagster's for none."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, http.client.InvalidURL) as error:
        raise NotServedError(
            f"what answers at {url} is not Dagster's UI", hint="Name its address: --url."
        ) from error


def reload_definitions(url: str) -> None:
    """Have the code server load the project's files anew. Active runs go on.

    Parameters
    ----------
    url : str
        Where the webserver listens.

    Raises
    ------
    NotServedError
        When that fails. What was served before is then served still, if it can be.
    """
    with _understood(url):
        workspace = ask(url, _LOCATIONS)["workspaceOrError"]
        names = [str(entry["name"]) for entry in workspace.get("locationEntries", [])]
        # A workspace of the user's own may call it otherwise.
        for name in [LOCATION] if LOCATION in names else names:
            answer = ask(url, _RELOAD, name=name)["reloadRepositoryLocation"]
            result = answer.get("locationOrLoadError") or answer
            if result["__typename"] != "RepositoryLocation":
                lines = str(result.get("message") or result["__typename"]).strip().splitlines()
                raise NotServedError(f"Dagster cannot load the code location '{name}': {lines[0]}")


def unloaded_locations(url: str, timeout_s: float) -> dict[str, str]:
    """The code locations that the webserver cannot show, and the first line of why.

    Parameters
    ----------
    url : str
        Where the webserver listens.
    timeout_s : float

    Raises
    ------
    NotServedError
        When there is no answer in time.
    """
    with _understood(url):
        workspace = ask(url, _LOCATIONS, timeout_s=timeout_s)["workspaceOrError"]
        return {
            str(entry["name"]): str(error.get("message", "")).strip().partition("\n")[0]
            for entry in workspace.get("locationEntries", [])
            if (error := entry["locationOrLoadError"]) and error["__typename"] == "PythonError"
        }


def served_definitions(url: str, names: AssetNames) -> Snapshot:
    """The notebooks and schedules that the webserver shows.

    Parameters
    ----------
    url : str
        Where the webserver listens.
    names : AssetNames
        Of the project.

    Returns
    -------
    Snapshot
        Notebook to code version, and schedule of the manifest to its times. Empty where the code
        location does not load.

    Raises
    ------
    NotServedError
        When there is no answer.
    """
    with _understood(url):
        nodes = ask(url, _DEFINITIONS)["repositoriesOrError"].get("nodes", [])
        ours = [node for node in nodes if node["location"]["name"] == LOCATION] or nodes
        return Snapshot(
            {
                names.notebook_at(asset["assetKey"]["path"]): str(asset["opVersion"] or "")
                for node in ours
                for asset in node["assetNodes"]
                if NOTEBOOK_KIND in asset["kinds"]
            },
            {
                schedule["name"]: cron_text(
                    _crons(schedule["cronSchedule"]), schedule["executionTimezone"]
                )
                for node in ours
                for schedule in node["schedules"]
                if schedule["name"] != PRUNE_SCHEDULE
            },
        )


def _crons(text: str) -> str | list[str]:
    """Dagster writes several cron expressions as Python writes a list."""
    return list(ast.literal_eval(text)) if text.startswith("[") else text
