"""The remotes that a project and its user name."""

from __future__ import annotations

import os
from pathlib import Path

from research_jobs.errors import RemoteError, did_you_mean
from research_jobs.manifest import load_manifest
from research_jobs.manifest.manifest import Manifest
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.project import Project

__all__ = ["find_remote", "user_file"]


def user_file() -> Path:
    """The user's own settings: a section ``remotes`` as in the manifest."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "research_jobs" / "remotes.yaml"


def find_remote(project: Project, name: str) -> RemoteSpec:
    """The remote of a name; the user's own settings win over the manifest.

    Raises
    ------
    ManifestError
        When it has a mistake.
    RemoteError
        When there is none of that name.
    """
    own, manifest = Manifest(), load_manifest(project, None)
    if user_file().is_file():
        own = load_manifest(project, (), path=user_file())
    for each in (own, manifest):
        if name in each.remotes:
            return each.remotes[name]
        for problem in each.problems:
            about_it = problem.scope == "remote" and problem.name in (None, name)
            # In the user's file, a section of another name is a misspelt one.
            other = each is own and problem.scope == "manifest"
            if problem is each.unreadable or about_it or other:
                raise problem.error
    hint = did_you_mean(name, {**manifest.remotes, **own.remotes}, label="There are")
    example = f"remotes: {{{name}: {{ssh: user@host, project: /srv/research}}}}"
    raise RemoteError(
        f"no remote is called '{name}'", hint=hint or f"Add it to the manifest: {example}."
    )
