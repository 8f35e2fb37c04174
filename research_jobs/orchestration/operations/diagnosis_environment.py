"""Checks of the interpreter, its packages and the machine's clock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import tomllib
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from research_jobs.orchestration.operations.diagnosis import Answer, Site, command, ill, well

__all__ = ["check_clock", "check_dagster", "check_packages", "check_python", "check_time_zone"]

# The minor versions of Dagster that the tests run with.
KNOWN_DAGSTER = ("1.12", "1.13")
# Dagster's packages that must be of the same release.
COMPANIONS = ("dagster-webserver", "dagster-graphql", "dagster-postgres")
# Dagster's libraries are versioned apart: dagster-postgres 0.29.4 is of Dagster 1.13.4.
_LIBRARIES_BEHIND = 16
# This package exists since then: no right clock is behind. Unix time, seconds.
EARLIEST = 1_760_000_000.0
# A file of the project may be newer than the clock by so much: seconds.
AHEAD_S = 120.0


def check_python(site: Site) -> Answer:
    """Whether this interpreter is the project's, and of a version that it takes."""
    version = ".".join(map(str, sys.version_info[:3]))
    for name, wanted in _python_versions(site.project.root):
        if not SpecifierSet(wanted).contains(version, prereleases=True):
            fix = f"Make the environment anew with Python {wanted}: pythonX.Y -m venv .venv"
            return ill(f"Python {version} runs, and {name} requires {wanted}", fix)
    own = site.project.root / ".venv"
    if (own / "pyvenv.cfg").is_file() and not own.samefile(sys.prefix):
        detail = f"this runs in {sys.prefix}, and the project has an environment of its own, {own}"
        return ill(detail, command(own / "bin" / "research-jobs", "doctor"))
    return well(f"Python {version} in {sys.prefix}")


def _python_versions(root: Path) -> Iterator[tuple[str, str]]:
    file = root / "pyproject.toml"
    project = tomllib.loads(file.read_text("utf-8")).get("project", {}) if file.is_file() else {}
    if wanted := project.get("requires-python"):
        yield "pyproject.toml", str(wanted)
    said = metadata.metadata("research_jobs")
    if "Requires-Python" in said:
        yield "research_jobs", said["Requires-Python"]


def check_packages(site: Site) -> Answer:
    """Whether what is installed is what research_jobs and the project require."""
    wrong: dict[str, str] = {}
    wanted: list[str] = []
    seen: set[str] = set()
    for requirement, needed in _requirements(site.project.root):
        seen.add(requirement.name.lower())
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if not needed:
                continue
            said = f"{requirement.name} is not installed"
        else:
            if requirement.specifier.contains(version, prereleases=True):
                continue
            said = f"{requirement.name} is {version}, not {requirement.specifier}"
        wrong[requirement.name.lower()] = said
        wanted.append(f"{requirement.name}{requirement.specifier}")
    if wrong:
        fix = command("python", "-m", "pip", "install", *dict.fromkeys(wanted))
        return ill("; ".join(wrong.values()), fix)
    return well(f"{len(seen)} packages are as required")


def _requirements(root: Path) -> Iterator[tuple[Requirement, bool]]:
    """What is required, and whether it must be installed (a constraint need not)."""
    for line in metadata.requires("research_jobs") or ():
        yield from ((one, True) for one in _parsed(line))
    listed, project = root / "requirements.txt", root / "pyproject.toml"
    if listed.is_file():
        for line in listed.read_text("utf-8").splitlines():
            yield from ((one, True) for one in _parsed(line))
    elif project.is_file():
        said = tomllib.loads(project.read_text("utf-8")).get("project", {})
        for line in said.get("dependencies", ()):
            yield from ((one, True) for one in _parsed(line))
    constraints = root / "constraints.txt"
    if constraints.is_file():
        for line in constraints.read_text("utf-8").splitlines():
            yield from ((one, False) for one in _parsed(line))


def _parsed(line: str) -> Iterator[Requirement]:
    """A line's requirement, where it is one that applies here; pip's options are not."""
    text = line.partition(" #")[0].strip()
    if not text or text.startswith(("#", "-")):
        return
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return  # a path or an address, which pip alone can judge
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        yield requirement


def check_dagster(site: Site) -> Answer:
    """Whether Dagster is of a version that the tests run with, and all of its packages are."""
    del site
    installed = {one.name.lower(): one.version for one in metadata.distributions()}
    names = ("dagster", *COMPANIONS)
    return judge_dagster({name: installed[name] for name in names if name in installed})


def judge_dagster(versions: Mapping[str, str]) -> Answer:
    """What these versions of Dagster's packages mean.

    Parameters
    ----------
    versions : mapping of str to str
        Package to version.
    """
    core = Version(versions["dagster"])
    minor = f"{core.major}.{core.minor}"
    if minor not in KNOWN_DAGSTER:
        known = " and ".join(KNOWN_DAGSTER)
        fix = command(
            *("python", "-m", "pip", "install"),
            *(f"{name}=={_release(name, KNOWN_DAGSTER[-1])}.*" for name in versions),
        )
        return ill(f"Dagster {core} is none of the known versions {known}", fix)
    for name, version in versions.items():
        right = _release(name, str(core))
        if version != right:
            fix = command("python", "-m", "pip", "install", f"{name}=={right}")
            return ill(f"{name} is {version}, and Dagster {core} needs {right}", fix)
    return well(f"Dagster {core}")


def _release(name: str, core: str) -> str:
    """The version of one of Dagster's packages that belongs to a version of Dagster."""
    if name != "dagster-postgres":
        return core
    major, minor, *rest = core.split(".")
    return ".".join([str(int(major) - 1), str(int(minor) + _LIBRARIES_BEHIND), *rest])


def check_clock(site: Site) -> Answer:
    """Whether the clock is synchronised, where systemd says so, and not behind the project's."""
    fix = "timedatectl set-ntp true"
    if site.now < EARLIEST:
        return ill("the clock is years behind", fix)
    for name in (".", "watch.json", "dagster", "services"):
        path = site.project.state / name
        if path.exists() and (ahead := path.stat().st_mtime - site.now) > AHEAD_S:
            detail = f"the clock is {ahead:,.0f} seconds behind the time of {path}"
            return ill(detail, fix)
    if Path("/run/systemd/system").is_dir():
        asked = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=10)
        if done.stdout.strip() == "no":
            return ill("the clock is not synchronised", fix)
        if done.stdout.strip() == "yes":
            return well("the clock is synchronised")
    return well("the clock is not behind what was written before")


def check_time_zone(site: Site) -> Answer:
    """Whether the machine knows its own zone and the schedules'."""
    manifest = site.catalog.manifest
    zones = {manifest.defaults.timezone, *(s.timezone for s in manifest.schedules.values())}
    named = os.environ.get("TZ", "").removeprefix(":")
    if named and not named.startswith("/") and not _known(named):
        # The C library takes it for UTC without a word.
        fix = "Write TZ as a name such as Europe/Berlin, or remove it from the environment."
        return ill(f"TZ={named} is no time zone, so times are of UTC", fix)
    missing = sorted(zone for zone in zones if zone and not _known(zone))
    if missing:
        fix = command("python", "-m", "pip", "install", "tzdata")
        return ill(f"this machine does not know {', '.join(missing)}", fix)
    return well(f"{manifest.defaults.timezone} is known")


def _known(zone: str) -> bool:
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
