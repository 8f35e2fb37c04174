"""Build wheel and sdist, then install and use each in an empty environment: ``make test-wheel``.

``python in_wheel.py [INTERPRETER...]``. Without interpreters, every Python from 3.11 on that is
installed here gets an environment; an older one from 3.10 on is the `python:` of a notebook there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST = (3, 11)
OLDEST_OF_A_NOTEBOOK = (3, 10)
BUILD = "from setuptools import build_meta as b; import sys; print(getattr(b, sys.argv[1])('..'))"
MANIFEST = """\
notebooks:
  hello: {{outputs: [result]}}
  elsewhere: {{python: {python}}}
schedules:
  mornings: {{cron: "0 6 * * *", notebooks: [hello]}}
"""
ELSEWHERE = "# %%\nimport sys\nprint('ran in', *sys.version_info[:2])\n"


def main() -> int:
    """Build once, try each Python, and say what worked."""
    found = dict(sorted(set(interpreters(sys.argv[1:]))))
    hosts = [(version, path) for version, path in found.items() if version >= OLDEST]
    if not hosts:
        sys.exit("No Python 3.11 or later is here.")
    guests = [path for version, path in found.items() if version >= OLDEST_OF_A_NOTEBOOK]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        wheel, sdist = build(Path(folder), hosts[0][1])
        print(f"built {wheel.name} and {sdist.name}", flush=True)
        for number, (version, path) in enumerate(hosts):
            begun = time.monotonic()
            package = sdist if number and number == len(hosts) - 1 else wheel
            name = ".".join(map(str, version))
            try:
                use(Path(folder) / name, path, package, guests[0])
            except subprocess.CalledProcessError as error:
                failed = True
                print(f"Python {name}, {package.name}: failed\n{error.stdout}{error.stderr}")
            else:
                seconds = time.monotonic() - begun
                print(f"Python {name}, {package.name}: works ({seconds:.0f} s)", flush=True)
    return int(failed)


def interpreters(named: Sequence[str]) -> Iterator[tuple[tuple[int, int], str]]:
    """Version and path of each Python: the named ones, or all on PATH and of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [
        *(f"python3.{minor}" for minor in range(OLDEST_OF_A_NOTEBOOK[1], 20)),
        *map(str, pyenv.glob("versions/*/bin/python")),
    ]
    for place in [*named, *(() if named else places)]:
        path = shutil.which(place)
        if path is None:
            continue
        words = [path, "-c", "import sys; print(*sys.version_info[:2], sys.executable)"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        said = re.fullmatch(r"(\d+) (\d+) (.+)\n", done.stdout)
        if done.returncode == 0 and said and int(said[1]) == 3:
            yield (int(said[1]), int(said[2])), said[3]


def build(folder: Path, python: str) -> tuple[Path, Path]:
    """The wheel and the sdist of what Git knows, and the proof that nothing is missing."""
    source = folder / "source"
    known = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], ROOT).split("\n")
    for name in filter(None, known):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    tool = environment(folder / "build", python)
    run([tool, "-m", "pip", "install", "--quiet", "setuptools>=77"], folder)
    sdist = folder / run([tool, "-c", BUILD, "build_sdist"], source).split("\n")[-2]
    wheel = folder / run([tool, "-c", BUILD, "build_wheel"], source).split("\n")[-2]
    unpacked = folder / "unpacked"
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    again = folder / "again" / wheel.name
    again.parent.mkdir()
    run(
        [tool, "-c", BUILD.replace("'..'", "'../../again'"), "build_wheel"],
        next(unpacked.iterdir()),
    )
    package = {name for name in known if name.startswith("research_jobs/")}
    for each in (wheel, again):
        missing = package - set(zipfile.ZipFile(each).namelist())
        if missing:
            sys.exit(f"{each.name} lacks {', '.join(sorted(missing))}")
    return wheel, sdist


def use(folder: Path, python: str, package: Path, guest: str) -> None:
    """Install the package, then make a project and run notebooks in it."""
    mine = environment(folder / "env", python)
    pip = [mine, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(package)], folder)
    command = str(Path(mine).with_name("research-jobs"))
    project = folder / "project"
    project.mkdir()
    run([command, "--help"], project)
    run([command, "init", "--yes"], project)
    run([command, "new", "hello"], project)
    (project / "notebooks/elsewhere.py").write_text(ELSEWHERE, encoding="utf-8")
    text = MANIFEST.format(python=guest)
    (project / "notebooks/manifest.yaml").write_text(text, encoding="utf-8")
    run([command, "check"], project)
    run([command, "check", "--explain", "chdir"], project)
    run([command, "run", "hello", "elsewhere"], project)
    run([command, "show", "hello", "result"], project)
    run([mine, "-m", "pip", "check"], project)


def environment(folder: Path, python: str) -> str:
    """Python of a new environment."""
    run([python, "-m", "venv", str(folder)], folder.parent.parent)
    return str(folder / "bin" / "python")


def run(words: Sequence[str], folder: Path) -> str:
    """Call a program in a folder, with nothing of this environment; what it printed."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RESEARCH_JOBS_", "DAGSTER_", "PYTHON", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        words, cwd=folder, env=environ, capture_output=True, text=True, check=True
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
