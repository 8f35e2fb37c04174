"""Run the tests with another version of Dagster, in an environment of its own.

``python other_dagster.py VERSION [pytest arguments]``, where ``newest`` is a version too.
dagster-webserver and dagster-postgres pin Dagster's version, so theirs follow from it. A core
release that is newer than they are is tested with the newest of them, which warn of it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Make the environment where there is none, then run pytest in it."""
    version, *arguments = sys.argv[1:]
    folder = ROOT / ".research_jobs" / f"dagster-{version}"
    python = folder / "bin" / "python"
    if not (folder / ".installed").exists():
        print(f"Making an environment with Dagster {version}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install(python, version)
        (folder / ".installed").touch()
    # An old Dagster uses what newer versions of its own dependencies call deprecated.
    # A core release that is newer than its companions warns of them.
    ignored = (
        "ignore::DeprecationWarning",
        "ignore::PendingDeprecationWarning",
        "ignore:Found version mismatch:UserWarning",
    )
    warnings = [part for one in ignored for part in ("-W", one)]
    command = [python, "-m", "pytest", *warnings, "--numprocesses", "auto", "--dist", "loadfile"]
    return subprocess.run([*command, *(arguments or ["tests"])], cwd=ROOT, check=False).returncode


def install(python: Path, version: str) -> None:
    """Install the project and what its tests need around one version of Dagster."""
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    kept = constraints(version)
    # The pip that comes with Python may be too old for dependency groups.
    subprocess.run([*pip, "--constraint", kept, "--upgrade", "pip"], cwd=ROOT, check=True)
    if version == "newest":
        wanted = ["-e", ".[samples,extras]", "--group", "dev"]
        subprocess.run([*pip, "--constraint", kept, *wanted], cwd=ROOT, check=True)
        return
    major, minor, patch = (int(part) for part in version.split("."))
    library = f"0.{minor + 16}.{patch}"  # dagster 1.12.0 goes with dagster-postgres 0.28.0
    companions = [f"dagster-webserver=={version}", f"dagster-postgres=={library}"]
    wanted = [f"dagster=={major}.{minor}.{patch}", *companions, "-e", ".[samples,extras]"]
    done = subprocess.run([*pip, "--constraint", kept, *wanted], cwd=ROOT, check=False)
    if done.returncode != 0:
        # There are no companions of this version: the core alone, with whatever they leave.
        subprocess.run(
            [*pip, "--constraint", kept, "-e", ".[samples,extras]"], cwd=ROOT, check=True
        )
        subprocess.run(
            [
                *pip,
                "--no-deps",
                wanted[0],
                f"dagster-shared=={version}",
                f"dagster-pipes=={version}",
            ],
            cwd=ROOT,
            check=True,
        )
    subprocess.run([*pip, "--constraint", kept, "--group", "dev"], cwd=ROOT, check=True)


def constraints(version: str) -> Path:
    """The pinned versions without Dagster's own packages."""
    target = ROOT / ".research_jobs" / f"constraints-{version}.txt"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    own = ("dagster", "graphene", "gql", "graphql")
    kept = [line for line in lines if not line.lower().startswith(own)]
    target.write_text("\n".join(kept) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    sys.exit(main())
