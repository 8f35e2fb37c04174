"""Does a past run make the same again? 50 generated notebooks and the samples, each run again.

    make rerun-check ARGS="--seed 1"

Two notebooks of each kind below run. Then code, helper modules, manifest and upstream outputs are
changed or removed, and what is left runs again. Each of the first runs must make the same by
``research-jobs rerun``. At last the files that notebooks read are changed too: a run of which the
outputs differ then must name its file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research_jobs.cli.main import main as research_jobs

COUNT = 50
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Kind:
    """A kind of notebook: ``{name}``, ``{n}`` and ``{before}`` are filled in.

    Parameters
    ----------
    source : str
        Assigns `result`.
    files : mapping of str to str
        Paths in the project; Python files among them are helper modules.
    settings : mapping
        What the manifest says beside its output.
    words : tuple of str
        Arguments of `run` for the first run.
    """

    source: str
    files: Mapping[str, str] = field(default_factory=dict[str, str])
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    words: tuple[str, ...] = ()


TABLE = {"raw/{name}.csv": "day,ticker,close\n2024-01-02,A,{n}\n2024-01-03,B,2.5\n2024-01-04,A,7\n"}
KINDS = {
    "frame": Kind(
        "import pandas as pd\nresult = pd.DataFrame({{'close': range({n})}}).rolling(3).mean()\n"
    ),
    "helper": Kind(
        "from help_{name} import scale\nresult = {{'value': scale({n}), 'half': 0.5}}\n",
        {"notebooks/help_{name}.py": "def scale(value):\n    return value * {n}\n"},
    ),
    "package of helpers": Kind(
        "from pack_{name}.deep.inner import shift\nimport pack_{name}\n"
        "result = [shift({n}), pack_{name}.BASE]\n",
        {
            "notebooks/pack_{name}/__init__.py": "BASE = {n}\n",
            "notebooks/pack_{name}/deep/__init__.py": "",
            "notebooks/pack_{name}/deep/inner.py": "from .. import BASE\n\n\n"
            "def shift(value):\n    return BASE + value\n",
        },
    ),
    "helper in the root": Kind(
        "import root_{name} as helper\nresult = helper.table({n})\n",
        {
            "root_{name}.py": "import pandas as pd\n\n\ndef table(rows):\n"
            "    return pd.DataFrame({{'row': range(rows)}})\n"
        },
    ),
    "helper that loads": Kind(
        "from read_{name} import before\nresult = {{'n': {n}, 'before': str(before())}}\n",
        {
            "notebooks/read_{name}.py": "from research_jobs import load\n\n\n"
            "def before():\n    return load('{before}', 'result')\n"
        },
    ),
    "load": Kind(
        "from research_jobs import load\nresult = str(load('{before}', 'result')) + '{n}'\n"
    ),
    "load all": Kind(
        "from research_jobs import load\n"
        "result = [str(value) for _, value in sorted(load('{before}').items())]\n"
    ),
    "load by path": Kind(
        "import pyarrow.parquet as pq\nfrom research_jobs import load\n"
        "table = pq.read_table(load('{before}', 'result', as_='path'))\n"
        "result = {{'rows': table.num_rows, 'n': {n}, 'text': str(table.to_pylist())}}\n"
    ),
    "partition by value": Kind(
        "# %% tags=['parameters']\nregion = 'eu'\n# %%\nresult = {{region: {n}}}\n",
        settings={"partitions": {"values": ["eu", "us"], "parameter": "region"}},
    ),
    "partition by day": Kind(
        "# %% tags=['parameters']\nimport datetime as dt\nday = dt.date(2024, 1, 1)\n# %%\n"
        "import pandas as pd\n"
        "result = pd.DataFrame({{'at': pd.date_range(day, periods={n}, freq='h', tz='UTC')}})\n",
        settings={
            "partitions": {
                "by": "day",
                "start": "2024-01-01",
                "end": "2024-01-05",
                "parameter": "day",
            }
        },
    ),
    "partitions of another": Kind(
        "# %% tags=['parameters']\nregion = 'eu'\n# %%\nfrom research_jobs import load\n"
        "result = [region, load('partition_by_value_{turn}', 'result'), {n}]\n",
        settings={"partitions": {"values": ["eu", "us"], "parameter": "region"}},
    ),
    "parameters in the manifest": Kind(
        "# %% tags=['parameters']\nrows_{name} = 1\nshare: float = 0.5\n# %%\n"
        "result = {{'rows': rows_{name}, 'share': share}}\n",
        settings={"parameters": {"rows_{name}": 7, "share": 0.25}},
    ),
    "parameters of the run": Kind(
        "# %% tags=['parameters']\ngiven_{name} = 1\n# %%\nresult = given_{name} * {n}\n",
        words=("-p", "given_{name}={n}"),
    ),
    "environment": Kind(
        "import os\nresult = os.environ['MARKET_{name}']\n",
        settings={"environment": {"MARKET_{name}": "value {n}"}},
    ),
    "files by pandas": Kind(
        "import pandas as pd\n"
        "result = pd.read_csv('../raw/{name}.csv', parse_dates=['day'], "
        "dtype={{'ticker': 'category'}})\n",
        TABLE,
    ),
    "files by polars": Kind(
        "import polars as pl\nfrom pathlib import Path\n"
        "found = Path(__file__).parent.parent / 'raw' / '{name}.csv'\n"
        "result = pl.read_csv(found).group_by('ticker', maintain_order=True)"
        ".agg(pl.col('close').sum())\n",
        TABLE,
    ),
    "files by open": Kind(
        "import json\nfrom pathlib import Path\n"
        "found = sorted(Path('{root}/raw/{name}').glob('*.json'))\n"
        "result = {{path.stem: json.loads(path.read_text()) for path in found}}\n",
        {"raw/{name}/a.json": '{{"a": {n}}}', "raw/{name}/b.json": "[1, 2, {n}]"},
    ),
    "files beside it": Kind(
        "result = open('{name}.txt').read().split()\n", {"notebooks/{name}.txt": "some {n} words"}
    ),
    "seeds": Kind(
        "import random\nimport numpy as np\nrandom.seed({n})\nnp.random.seed({n})\n"
        "drawn = np.random.default_rng({n}).normal(size=5)\n"
        "result = [random.random(), *np.random.rand(3).tolist(), *drawn.tolist()]\n"
    ),
    "array": Kind("import numpy as np\nresult = np.arange({n} * 6.0).reshape(2, 3, {n}) / 7\n"),
    "categoricals": Kind(
        "import pandas as pd\nfrom pandas.api.types import CategoricalDtype\n"
        "grade = CategoricalDtype(['low', 'mid', 'high'], ordered=True)\n"
        "result = pd.DataFrame({{'grade': ['high', 'low', None] * {n}}}).astype(grade)\n"
        "result['other'] = pd.Categorical(['b', 'a', 'c'] * {n})\n"
        "result = result.set_index(pd.MultiIndex.from_product([['x'], range(3 * {n})]))\n"
    ),
    "polars": Kind(
        "import polars as pl\n"
        "result = pl.DataFrame({{'a': range({n}), 'b': [[1]] * ({n} - 1) + [None]}})\n"
        "result = result.with_columns(pl.lit('x').cast(pl.Categorical).alias('c'))\n"
    ),
    "dicts": Kind(
        "result = {{'b': {{'x': (1, 2.5, None), 'y': {{'q', 'p', '{n}'}}}}, 'a': [True, b'{n}'], "
        "{n}: 'key'}}\n"
    ),
    "dates": Kind(
        "import datetime as dt\nfrom decimal import Decimal\nfrom zoneinfo import ZoneInfo\n"
        "begun = dt.datetime(2024, 3, 31, 1, tzinfo=ZoneInfo('Europe/Zagreb'))\n"
        "result = {{'day': dt.date(2024, 1, {n}), 'at': begun, 'price': Decimal('1.{n}0'),\n"
        "    'took': dt.timedelta(days={n}, microseconds=1)}}\n"
    ),
    "plots": Kind(
        "import matplotlib.pyplot as plt\nimport pandas as pd\nimport plotly.express as px\n"
        "result = pd.DataFrame({{'x': range({n}), 'y': range({n})}})\n# %% Chart\n"
        "result.plot(x='x', y='y')\nplt.show()\n# %% Other chart\npx.line(result, x='x', y='y')\n"
    ),
}
assert len(KINDS) * 2 == COUNT


class Project:
    """The generated project.

    Parameters
    ----------
    root : Path
    seed : int
    """

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        self.kinds: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self.words: list[str] = []
        self.code: list[Path] = []
        self.data: list[Path] = []
        for turn in range(COUNT // len(KINDS)):
            for place, kind in enumerate(KINDS):
                self._write(kind, turn, before=f"{self._name('frame', turn)}" if place else "")
        self.write_manifest(self.settings)

    @staticmethod
    def _name(kind: str, turn: int) -> str:
        folder = "inner/" if turn and kind in ("array", "seeds", "dates") else ""
        return f"{folder}{kind.replace(' ', '_')}_{turn}"

    def _write(self, kind: str, turn: int, before: str) -> None:
        told = KINDS[kind]
        name = self._name(kind, turn)
        filled = {
            "name": name.rpartition("/")[2],
            "n": self.random.randrange(4, 10),
            "before": before,
            "turn": turn,
            "root": self.root,
        }

        def fill(value: Any) -> Any:
            if isinstance(value, str):
                return value.format(**filled)
            if isinstance(value, dict):
                return {fill(key): fill(item) for key, item in value.items()}
            return value

        source = told.source if told.source.startswith("# %%") else f"# %%\n{told.source}"
        texts = {f"notebooks/{name}.py": source, **told.files}
        for place, text in texts.items():
            path = self.root / place.format(**filled)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(**filled))
            (self.code if path.suffix == ".py" else self.data).append(path)
        self.kinds[name] = kind
        self.settings[name] = {"outputs": {"result": {"keep": 20}}, **fill(dict(told.settings))}
        self.words += map(fill, told.words)

    def write_manifest(self, settings: Mapping[str, Any]) -> None:
        """Write it."""
        path = self.root / "notebooks" / "manifest.yaml"
        path.write_text(json.dumps({"reports": {"keep": 200}, "notebooks": settings}, indent=1))

    def change_code(self) -> None:
        """Change or remove every notebook, helper module and setting."""
        settings: dict[str, Any] = {}
        for name, told in self.settings.items():
            settings[name] = {
                **told,
                "parameters": dict.fromkeys(told.get("parameters", ()), 999),
                "environment": dict.fromkeys(told.get("environment", ()), "other"),
            }
        kept = {"frame_0", "frame_1", "partition_by_value_0", "partition_by_value_1"}
        for number, path in enumerate(self.code):
            name = path.relative_to(self.root / "notebooks").with_suffix("").as_posix() if (
                path.is_relative_to(self.root / "notebooks")
            ) else ""  # fmt: skip
            if number % 5 == 1 and name not in kept:
                path.unlink()
                if name in settings:
                    del settings[name]
                else:  # a package takes the helper's place
                    path.with_suffix("").mkdir(exist_ok=True)
                    (path.with_suffix("") / "__init__.py").write_text("scale = table = None\n")
            elif number % 5 == 2 and name not in kept:
                path.write_text("# %%\nresult = None\n")
            elif name in settings:
                path.write_text(f"{path.read_text()}\n# %%\nresult = [str(result), 'more']\n")
            else:
                path.write_text(f"raise ValueError('changed')\n{path.read_text()}")
        # Modules that are found before those that notebooks mean.
        (self.root / "notebooks" / "decimal.py").write_text("raise ValueError('another')\n")
        self.write_manifest(settings)

    def change_files(self) -> None:
        """Change every file that a notebook reads."""
        for path in self.data:
            path.write_text(path.read_text().replace("2", "3") + "\n" * (path.suffix == ".txt"))


def said(*words: str) -> Any:
    """What a command prints as JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        research_jobs([*words, "--json"])
    return json.loads(out.getvalue())


def run(words: list[str], *, check: bool = True) -> list[dict[str, Any]]:
    """Run everything."""
    done = said("run", "--all", *words)
    bad = [one for one in done if one["ending"] != "succeeded"]
    assert not (check and bad), bad
    return done


def again(done: list[dict[str, Any]]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Each of those runs, run again."""
    found: dict[tuple[str, str | None], dict[str, Any]] = {}
    for run_id in sorted({one["run_id"] for one in done}):
        answer = said("rerun", run_id)
        for one in answer.get("runs", [answer]):
            found[one["notebook"], one["partition"]] = one
    wanted = {(one["notebook"], one["partition"]) for one in done}
    assert found.keys() == wanted, found.keys() ^ wanted
    return found


def show(title: str, found: Mapping[tuple[str, str | None], Mapping[str, Any]]) -> int:
    """Print how many are equal, and what differs; how many are not."""
    different = [one for one in found.values() if not one["equal"]]
    print(f"{title}: {len(found) - len(different)} of {len(found)} equal", flush=True)
    for one in different:
        print(f"  {one['notebook']} {one['partition'] or ''}: {one['ending']}; "
              f"{one['error'] or one['differs']}; {one['not_restored']}")  # fmt: skip
    return len(different)


@contextlib.contextmanager
def inside(root: Path):
    """Work in a project."""
    os.environ["RESEARCH_JOBS_PROJECT"] = str(root)
    with contextlib.chdir(root):
        yield


def generated(folder: Path, seed: int) -> int:
    """The generated notebooks."""
    project = Project(folder, seed)
    with inside(project.root):
        base = run(project.words)
        wrong = show("nothing changed", again(base)) if seed < 0 else 0
        project.change_code()
        run([], check=False)
        found = again(base)
        notebooks = {one["notebook"] for one in found.values()}
        wrong += show(f"code, manifest and inputs changed, {len(notebooks)} notebooks", found)
        project.change_files()
        found = again(base)
        readers = [one for one in found.values() if not one["equal"]]
        named = [one for one in readers if any("raw/" in line or ".txt" in line
                                               for line in one["not_restored"])]  # fmt: skip
        others = [one for one in readers if not project.kinds[one["notebook"]].startswith("files")]
        print(f"files changed too: {len(readers)} runs differ, {len(named)} name their file")
        for one in (*others, *(one for one in readers if one not in named)):
            print(f"  {one['notebook']}: {one['differs']}; {one['not_restored']}")
        wrong += len(readers) - len(named) + len(others)
    return wrong


def samples(folder: Path) -> int:
    """The sample notebooks, as they are and after their code has changed."""
    shutil.copytree(REPOSITORY / "notebooks", folder / "notebooks")
    with inside(folder):
        base = run([])
        for path in (folder / "notebooks").rglob("*.py"):
            path.write_text(f"{path.read_text()}\n# %%\nprint('changed')\n")
        return show("samples, code changed", again(base))


def main() -> int:
    """Run it, print the figures; 1 if any run is not the same."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrong = samples(Path(folder, "samples"))
        wrong += generated(Path(folder, "generated"), arguments.seed)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
