"""Are causes found? 200 seeded changes over 20 notebooks, each compared with a run without it.

    make blame ARGS="--seed 1"

Ten notebooks read files; ten others read the outputs of one of these each. Each round applies one
change to each pair, runs everything for real, asks ``research-jobs diff`` why each output differs
from that of the first run, and takes the changes back. The notebook of the pair that was not
changed is asked about too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.cli.main import main as research_jobs

PAIRS = 10
RANDOM = (9, 10)  # pairs whose first notebook makes something else each time
PARTITIONED = 8
PARTITION = "eu"

READS = (
    "[int(n) for n in open(path).read().split()]",
    "[int(n) for n in path.read_text().split()]",
    "[int(n) for each in sorted(path.parent.glob(path.name)) for n in each.open()]",
    "pd.read_csv(path, header=None)[0].tolist()",
    "pl.read_csv(path, has_header=False).to_series().to_list()",
    "np.loadtxt(path, dtype=int).tolist()",
)
SHAPES = (
    "{'total': value, 'days': 3}",
    "[value, value + 1, 3]",
    "pd.DataFrame({'day': [1, 2, 3], 'close': [value, 2.5, 3.5]})",
)
NOTEBOOK = """\
# %% tags=["parameters"]
rows_{name} = {rows}
{key}
# %% Setup
import os
import secrets
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
from help_{name} import OFFSET, scale
from research_jobs import load

path = Path({raw!r})


# %% Read
def total(values):
    # all of them
    return sum(values) + {some}


numbers = {read}

# %% Sum
value = total(numbers[:rows_{name}]) * {some}
value = scale(value) + OFFSET + int(os.environ["MARKET_{name}"])
value += sum(int(each.read_text()) for each in path.with_suffix("").glob("*.txt"))
{more}
# %% Result
result = {shape}
"""

Kinds = list[tuple[str, str]]
"""Of each cause: its kind, and what it must name."""


@dataclass
class Change:
    """One change, and what must be said of the notebooks of its pair.

    Parameters
    ----------
    what : str
    target : str
    causes : list of (str, str)
        Empty where nothing of its output changes.
    parameters : list of str
        Arguments of `run`.
    """

    what: str
    target: str
    causes: Kinds
    parameters: list[str] = field(default_factory=list)


@dataclass
class Score:
    """What came of it."""

    found: Counter[str] = field(default_factory=Counter[str])
    asked: Counter[str] = field(default_factory=Counter[str])
    unchanged: int = 0
    alarms: int = 0
    others: int = 0
    others_right: int = 0
    wrong: list[str] = field(default_factory=list)


class Project:
    """The generated notebooks.

    Parameters
    ----------
    root : Path
        An empty folder.
    seed : int
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.settings: dict[str, Any] = {}
        self.changed: dict[str, Any] = {}
        for folder in ("notebooks", "raw"):
            (root / folder).mkdir(parents=True)
        for pair in range(1, PAIRS + 1):
            self._write(name(pair), None)
            self._write(name(pair + PAIRS), name(pair))
        self.manifest()
        self.files = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def _write(self, notebook: str, first: str | None) -> None:
        """One notebook with its helpers and files; the notebook that it loads, if any."""
        pick = self.random
        raw = self.root / "raw" / f"{notebook}.csv"
        raw.write_text("".join(f"{pick.randrange(1, 1000)}\n" for _ in range(12)))
        raw.with_suffix("").mkdir()
        for each in range(3):
            (raw.with_suffix("") / f"{each}.txt").write_text(f"{pick.randrange(1, 1000)}")
        folder = self.root / "notebooks"
        (folder / f"deep_{notebook}.py").write_text(
            f"def shift(value):\n    return value + {pick.randrange(9)}\n"
        )
        (folder / f"help_{notebook}.py").write_text(
            f"from deep_{notebook} import shift\n\nOFFSET = {pick.randrange(3, 99)}\n\n\n"
            f"def scale(value):\n    return shift(value) * {pick.randrange(2, 9)}\n"
        )
        self.settings[notebook] = {
            "outputs": {"result": {"keep": 40}},
            "environment": {f"MARKET_{notebook}": f"{pick.randrange(10, 99)}"},
        }
        key = more = ""
        if notebook == name(PARTITIONED):
            by = {"values": [PARTITION, "us"], "parameter": "region"}
            self.settings[notebook]["partitions"] = by
            key = f"region = '{PARTITION}'\n"
        if first is not None:
            where = f", '{PARTITION}'" if first == name(PARTITIONED) else ""
            more = f"value += zlib.crc32(str(load('{first}', 'result'{where})).encode())\n"
        elif notebook in map(name, RANDOM):
            more = "value += secrets.randbelow(10**9)\n"
        text = NOTEBOOK.format(
            name=notebook, raw=str(raw), rows=pick.randrange(3, 6), some=pick.randrange(2, 9),
            key=key, more=more, read=pick.choice(READS), shape=pick.choice(SHAPES),
        )  # fmt: skip
        (folder / f"{notebook}.py").write_text(text)

    def manifest(self, **changes: Any) -> None:
        """Write it, with other settings for some notebooks."""
        settings = {name: found | changes.get(name, {}) for name, found in self.settings.items()}
        path = self.root / "notebooks" / "manifest.yaml"
        path.write_text(json.dumps({"reports": {"keep": 200}, "notebooks": settings}, indent=1))

    def restore(self) -> None:
        """Take all changes back."""
        for path in (self.root / "raw").glob("*/9.txt"):
            path.unlink()
        for path, content in self.files.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def edit(self, path: Path, change: Callable[[str], str]) -> None:
        """Edit a file, for sure."""
        before = path.read_text()
        after = change(before)
        assert before != after, (path, before)
        path.write_text(after)

    def apply(self, kind: str, notebook: str) -> Change:
        """Apply a change to a notebook."""
        raw = self.root / "raw" / f"{notebook}.csv"
        listed = raw.with_suffix("")
        amount = self.random.randrange(1, 50)
        rows, market = f"rows_{notebook}", f"MARKET_{notebook}"
        parameters: list[str] = []
        causes: Kinds = []
        match kind:
            case _ if kind in EDITS:
                prefix, old, new, says = EDITS[kind]
                path = self.root / "notebooks" / f"{prefix}{notebook}.py"
                self.edit(path, lambda text: text.replace(old, new.format(amount), 1))
                causes = [("code", says)] if says else []
            case "default":
                path = self.root / "notebooks" / f"{notebook}.py"
                self.edit(path, lambda text: text.replace(f"{rows} = ", f"{rows} = 3 + ", 1))
                causes = [("code", path.name), ("parameters", rows)]
            case "parameter":
                parameters = ["-p", f"{rows}={6 + amount % 5}"]
                causes = [("parameters", rows)]
            case "parameter in manifest":
                self.changed[notebook] = {"parameters": {rows: 6 + amount % 5}}
                causes = [("parameters", rows)]
            case "environment":
                self.changed[notebook] = {"environment": {market: f"{amount + 100}"}}
                causes = [("environment", market)]
            case "file":
                self.edit(raw, lambda text: f"{amount + 1000}\n{text}")
                causes = [("input", raw.name)]
            case "new file":
                (listed / "9.txt").write_text(f"{amount}")
                causes = [("input", f"{notebook}/9.txt is read")]
            case "file gone":
                (listed / "1.txt").unlink()
                causes = [("input", f"{notebook}/1.txt is no longer read")]
            case "file written again":
                content = raw.read_bytes()
                raw.unlink()
                raw.write_bytes(content)
            case _:
                assert kind == "chance"
        return Change(kind, notebook, causes, parameters)


EDITS = {
    "cell": ("", " + OFFSET +", " + {} + OFFSET +", ".py, cell"),
    "new cell": ("", "# %% Result\n", "# %% More\nvalue += {}\n# %% Result\n", ".py, cell"),
    "function": ("", "sum(values)", "sum(values, {})", "function total"),
    "helper": ("help_", "return shift", "return {} + shift", "function scale"),
    "constant": ("help_", "OFFSET = ", "OFFSET = {} + ", "help_"),
    "helper of helper": ("deep_", "value +", "value + {} +", "function shift"),
    "comment": ("", "# all of them", "# {} of them", ""),
    "comment in helper": ("help_", "OFFSET", "# {}\nOFFSET", ""),
    "layout": ("", "return sum(values)", "return  sum( values )", ""),
    "title": ("", "# %% Sum", "# %% Sum {}", ""),
    "same value": ("", " + OFFSET +", " + OFFSET + 0 +", ""),
}
"""Change of code to the file's prefix, what is replaced by what, and what must be named."""


CHANGING = (
    "cell", "function", "new cell", "helper", "constant", "parameter", "parameter in manifest",
    "file", "environment", "upstream", "new file", "file gone", "helper of helper", "default",
)  # fmt: skip
KEEPING = (
    "comment", "comment in helper", "layout", "title", "file written again", "same value",
)  # fmt: skip
ABOVE = ("cell", "helper", "parameter", "file", "environment")


def name(number: int) -> str:
    """The notebook's name."""
    return f"nb_{number:02d}"


def said(*words: str) -> Any:
    """What a command prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        research_jobs([*words, "--json"])
    return json.loads(out.getvalue())


def run(words: Sequence[str]) -> dict[str, str]:
    """Run everything; each notebook to its run."""
    done = said("run", "--all", *words)
    bad = [one for one in done if one["ending"] != "succeeded"]
    assert not bad, bad
    return {one["notebook"]: one["run_id"] for one in done if one["partition"] in (None, PARTITION)}


def rounds(count: int, pick: random.Random) -> Iterator[list[str]]:
    """For each round, a kind of change for each pair: each kind equally often."""
    kinds = [*CHANGING, *KEEPING]
    for number in range(count):
        yield [kinds[(number + pair * 3 + pick.randrange(2)) % len(kinds)] for pair in range(PAIRS)]


def compare(
    notebook: str, two: tuple[str, str], expected: Kinds, above: Kinds
) -> tuple[bool, bool, str]:
    """Whether it is said right, whether anything is said, and what is.

    An input must be followed to the causes of the notebook above.
    """
    words = ["--partition", PARTITION] if notebook == name(PARTITIONED) else []
    found = said("diff", notebook, *two, *words)
    causes = found["causes"]
    right = len(causes) == len(expected) and found["equal"] == (not expected)
    for cause, (kind, text) in zip(causes, expected, strict=False):
        right = right and cause["kind"] == kind and text in cause["what"]
        if text.endswith(".result"):
            because = [each["kind"] for each in cause.get("because", ())]
            right = right and because == [kind for kind, _ in above]
    return right, bool(causes), f"expected {expected}, got {json.dumps(causes)[:600]}"


def expectations(pair: int, change: Change) -> dict[str, Kinds]:
    """What must be said of the notebooks of a pair after a change of one of them."""
    first, second = name(pair), name(pair + PAIRS)
    own = change.causes if change.target == first or change.what == "upstream" else []
    chance: Kinds = [("nondeterministic", first)] if pair in RANDOM else []
    expected = {first: own or chance, second: [] if own else [*change.causes]}
    if expected[first]:
        # Inputs come after code and parameters, and before files and the environment.
        place = sum(kind in ("code", "parameters") for kind, _ in expected[second])
        expected[second].insert(place, ("input", f"{first}.result"))
    return expected


def play(project: Project, base: dict[str, str], kinds: Sequence[str], score: Score) -> None:
    """One round."""
    changes: list[Change] = []
    project.changed = {}
    for pair, kind in enumerate(kinds, 1):
        first, second = name(pair), name(pair + PAIRS)
        if kind == "upstream":
            change = project.apply(project.random.choice(ABOVE), first)
            changes.append(Change("upstream", second, change.causes, change.parameters))
        elif pair in RANDOM and kind in KEEPING:
            changes.append(project.apply("chance", first))
        else:
            changes.append(project.apply(kind, project.random.choice((first, second))))
    project.manifest(**project.changed)
    after = run([word for change in changes for word in change.parameters])
    for pair, change in enumerate(changes, 1):
        expected = expectations(pair, change)
        for notebook, causes in expected.items():
            two = (base[notebook], after[notebook])
            right, any_said, text = compare(notebook, two, causes, expected[name(pair)])
            line = f"{change.what} of {change.target}, asked of {notebook}: {text}"
            if not causes:
                score.unchanged += 1
                score.alarms += any_said
            elif notebook != change.target:
                score.others += 1
                score.others_right += right
            if notebook == change.target:
                score.asked[change.what] += 1
                score.found[change.what] += right
            if not right:
                score.wrong.append(line)
                print(line, flush=True)
    project.restore()


def main() -> int:
    """Run it, print the figures; 1 if they are not good enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="of ten changes each")
    arguments = parser.parse_args()
    score = Score()
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder, "project"), arguments.seed)
        os.environ["RESEARCH_JOBS_PROJECT"] = str(project.root)
        os.chdir(project.root)
        base = run(())
        for number, kinds in enumerate(rounds(arguments.rounds, project.random), 1):
            play(project, base, kinds, score)
            done, found = sum(score.asked.values()), sum(score.found.values())
            print(
                f"round {number}: {found} of {done} right, {score.alarms} false alarms in "
                f"{score.unchanged} unchanged outputs, beside it {score.others_right} of "
                f"{score.others}",
                flush=True,
            )
    for kind, asked in sorted(score.asked.items()):
        print(f"{kind:24}{score.found[kind]:4} of {asked}")
    asked, found = sum(score.asked.values()), sum(score.found.values())
    good = found >= 0.99 * asked and score.alarms <= 0.01 * score.unchanged
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
