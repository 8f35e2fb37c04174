"""Records of real runs: what a run read, of what it was made, and what that keeps in the store."""

from __future__ import annotations

import bz2
import hashlib
import json
import shutil
import sqlite3
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from research_jobs.cli.main import main
from research_jobs.notebook.scan import scan
from research_jobs.provenance.causes import causes
from research_jobs.provenance.following import Two, explain
from research_jobs.provenance.record import NAME, Record, find_record, records
from research_jobs.provenance.shelf import kept
from research_jobs.store.load import Outputs

MANIFEST = """
secrets: [TOKEN]
notebooks:
  prices: {outputs: [table, factor], environment: {MARKET: Zagreb}}
  report: {outputs: [result]}
  reader: {outputs: [seen]}
"""
NOTEBOOKS = {
    "prices": (
        '# %% tags=["parameters"]\nrows = 3\n'
        "# %%\nimport pandas as pd\nfrom shared import double\n"
        "table = pd.DataFrame({'close': [double(n) for n in range(rows)]})\nfactor = 2\n"
    ),
    "report": (
        "# %%\nimport helper_loads\nfrom research_jobs import load\n"
        "# %% Result\nname = 'fac' + 'tor'\n"
        "result = helper_loads.table()['close'].sum() * load('prices', name)\n"
    ),
}
HELPERS = {
    "shared": "def double(n):\n    return 2 * n\n",
    "helper_loads": (
        "from research_jobs import load\n\ndef table():\n    return load('prices', 'table')\n"
    ),
}


def record_of(lab: Any, run: Any, notebook: str) -> Record:
    found = find_record(lab.project.reports, notebook, run.run_id)
    assert found is not None, run.errors
    return found[1]


@pytest.fixture
def project(lab: Any) -> Any:
    return lab.write({**NOTEBOOKS, **HELPERS}, MANIFEST)


def test_a_run_says_what_it_was_made_of(project: Any) -> None:
    """Code with its helpers, parameters, environment and each output read, helpers' included."""
    first = project.materialize("prices", config={"prices": {"rows": 4}})
    second = project.materialize("report")
    made, read = record_of(project, first, "prices"), record_of(project, second, "report")
    reports = project.project.reports
    assert set(made.files) == {"notebooks/prices.py", "notebooks/shared.py"}
    for name, digest in made.files.items():
        assert kept(reports, digest) == (project.root / name).read_bytes()
    assert (dict(made.parameters), dict(made.variables)) == ({"rows": "4"}, {"MARKET": "Zagreb"})
    assert made.code_version == scan(project.project).get("prices").code_version
    packages = kept(reports, made.environment)
    assert packages is not None
    assert f"pandas=={pd.__version__}" in packages.decode().splitlines()
    assert {load.name for load in read.loads} == {"prices.table", "prices.factor"}
    held = Outputs(project.project.store, "prices")
    assert {(load.version, load.run_id) for load in read.loads} == {
        (held.versions[0], first.run_id)
    }
    assert all(load.data_version for load in read.loads)
    path = Path(first.metadata("prices")["provenance"])
    assert path.name == NAME
    assert json.loads(path.read_bytes())["notebook"] == "prices"


READERS = {
    "text": "open(root / 'text').read()",
    "bytes": "(root / 'bytes').read_bytes()",
    "csv": "pd.read_csv(root / 'csv')",
    "arrow_csv": "pd.read_csv(root / 'arrow_csv', engine='pyarrow')",
    "frame.parquet": "pd.read_parquet(root / 'frame.parquet')",
    "table.parquet": "pq.read_table(root / 'table.parquet')",
    "file.parquet": "pq.ParquetFile(str(root / 'file.parquet')).read()",
    "set.parquet": "ds.dataset(str(root / 'set.parquet')).to_table()",
    "polars.parquet": "pl.scan_parquet(root / 'polars.parquet').collect()",
    "polars.csv": "pl.read_csv(root / 'polars.csv')",
    "array.npy": "np.load(root / 'array.npy')",
    "lines.txt": "np.loadtxt(root / 'lines.txt', dtype=str)",
    "lines.txt.bz2": "__import__('bz2').open(root / 'lines.txt.bz2').read()",
    "some.tar": "__import__('tarfile').open(root / 'some.tar').getnames()",
    "some.db": "sqlite3.connect(root / 'some.db').execute('select 1')",
}


def test_files_are_noted_whichever_way_they_are_read(lab: Any, tmp_path: Path) -> None:
    """Each reader's file is in the record with its hash; programs and hosts are said not seen."""
    data = tmp_path / "raw"
    data.mkdir()
    frame = pd.DataFrame({"a": [1, 2]})
    for name in READERS:
        if name.endswith("parquet"):
            frame.to_parquet(data / name)
        elif name.endswith("npy"):
            (data / name).write_bytes(b"")
        elif name.endswith("bz2"):
            (data / name).write_bytes(bz2.compress(b"1\n"))
        elif name.endswith("tar"):
            tarfile.open(data / name, "w").close()
        else:
            (data / name).write_text("a,b\n1,2\n")
    (data / "some.db").unlink()
    sqlite3.connect(data / "some.db").close()
    code = (
        "# %%\nimport sqlite3, socket, subprocess\nfrom pathlib import Path\nimport numpy as np\n"
        "import pandas as pd, polars as pl, pyarrow.parquet as pq, pyarrow.dataset as ds\n"
        f"root = Path({str(data)!r})\nnp.save(root / 'array.npy', np.arange(3))\n"
        + "".join(f"{line}\n" for line in READERS.values())
        + "subprocess.run(['true'])\n"
        "try:\n    socket.getaddrinfo('prices.invalid', 443)\nexcept OSError:\n    pass\n"
        "seen = open is __import__('io').open\n"
    )
    lab.write({"reader": code}, MANIFEST)
    run = lab.materialize("reader")
    record = record_of(lab, run, "reader")
    named = {Path(read.path).name: read for read in record.reads}
    assert set(named) == set(READERS)
    assert all(read.sha256 for read in record.reads)
    assert "program true" in record.not_seen
    assert "host prices.invalid" not in record.not_seen  # nothing came of it
    assert Outputs(lab.project.store, "reader")["seen"] is True


def test_a_version_that_a_kept_run_has_read_stays(project: Any) -> None:
    """It is not pruned although `keep` says so, until the report of that run is gone."""
    project.write(
        manifest=MANIFEST.replace("[table, factor]", "{table: {keep: 0}, factor: {keep: 0}}")
    )
    project.materialize("prices", config={"prices": {"rows": 1}})
    reading = project.materialize("report")
    (load, *_) = record_of(project, reading, "report").loads
    folder = Path(project.project.store, "prices", ".versions")
    for rows in (2, 3):
        project.materialize("prices", config={"prices": {"rows": rows}})
    versions = {path.name for path in folder.iterdir() if path.name != "current"}
    assert len(versions) == 2
    assert load.version in versions
    found = find_record(project.project.reports, "report", reading.run_id)
    assert found is not None
    (found[0] / NAME).unlink()
    project.materialize("prices", config={"prices": {"rows": 5}})
    assert load.version not in {path.name for path in folder.iterdir()}


def test_equal_runs_make_equal_files(project: Any) -> None:
    """Nothing in an output's file tells one run from another."""
    files: list[list[bytes]] = []
    for _ in range(2):
        project.materialize("prices")
        store = Path(project.project.store, "prices")
        files.append([(store / f"{name}.parquet").read_bytes() for name in ("table", "factor")])
    assert files[0] == files[1]


def test_seven_versions_are_kept(project: Any) -> None:
    """Without `keep`, the last eight published versions can be loaded."""
    for rows in range(1, 11):
        project.materialize("prices", config={"prices": {"rows": rows}})
    lengths = [
        len(Outputs(project.project.store, "prices", version=-back)["table"]) for back in range(8)
    ]
    assert lengths == [10, 9, 8, 7, 6, 5, 4, 3]


def test_what_the_notebook_forges_is_left_out(lab: Any) -> None:
    """Lines that are not ours, endless ones and paths out of the store cost nothing."""
    outside = {"load": "../..", "output": "x", "store": "/", "versions": [[[".."], "000001-a"]]}
    lines = ["[" * 5_000_000, '{"load": 3}', "null", '{"file": null, "by": 1}', json.dumps(outside)]
    forged = lab.root / "forged"
    forged.write_text("\n".join(lines) + "\n")
    code = (
        "# %%\nimport os, pathlib\n"
        "path = pathlib.Path(os.environ['RESEARCH_JOBS_VIEW'], 'reads.jsonl')\n"
        f"seen = path.write_bytes(pathlib.Path({str(forged)!r}).read_bytes())\n"
    )
    run = lab.write({"reader": code}, MANIFEST).materialize("reader")
    record = record_of(lab, run, "reader")
    assert [load.notebook for load in record.loads] == ["../.."]
    assert record.loads[0].run_id == ""


CHANGES = {
    "code": ("notebooks/report.py", "* load", "* 3 * load", "report.py, cell 2"),
    "helper": ("notebooks/helper_loads.py", "'table')", "'table') * 2", "function table"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_code_is_named(project: Any, change: str) -> None:
    """The cell or function that changed is the one cause, with its diff."""
    name, old, new, said = CHANGES[change]
    project.materialize("prices")
    before = record_of(project, project.materialize("report"), "report")
    path = project.root / name
    path.write_text(path.read_text().replace(old, new))
    after = record_of(project, project.materialize("report"), "report")
    (cause,) = causes(project.project.reports, before, after, differ=True)
    assert cause.kind == "code"
    assert said in cause.what
    assert new in cause.detail


def test_an_input_that_moved_is_named_and_an_equal_one_is_not(project: Any) -> None:
    """A new version with the same data is no cause; one with other data is."""
    project.materialize("prices")
    first = record_of(project, project.materialize("report"), "report")
    project.materialize("prices")
    second = record_of(project, project.materialize("report"), "report")
    project.materialize("prices", config={"prices": {"rows": 9}})
    third = record_of(project, project.materialize("report"), "report")
    reports = project.project.reports
    assert causes(reports, first, second, differ=False) == ()
    found = causes(reports, second, third, differ=True)
    assert {cause.kind for cause in found} == {"input"}
    assert [record.run_id for _, record in records(reports, "report")] == [
        third.run_id,
        second.run_id,
        first.run_id,
    ]


def test_an_input_is_followed_to_its_own_cause(project: Any) -> None:
    """A report that moved names the rows that its input got, and the parameter behind them."""
    project.materialize("prices")
    before = project.materialize("report")
    project.materialize("prices", config={"prices": {"rows": 4}})
    after = project.materialize("report")
    two = Two("report", before.run_id, after.run_id)
    found = explain(two, reports=project.project.reports, store=project.project.store)
    assert [cause.to_json() for cause in found] == [
        {
            "kind": "input",
            "what": "prices.table got 1 row",
            "because": [{"kind": "parameters", "what": "rows: 3 → 4"}],
        }
    ]
    shutil.rmtree(project.project.reports / "report" / "_runs")
    (cause,) = explain(two, reports=project.project.reports, store=project.project.store)
    assert cause.kind == "unknown"


def test_an_output_is_followed_back_and_forward(
    project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show --lineage` names runs, files and inputs, readers downstream, and what is lost."""
    raw = tmp_path / "raw.csv"
    raw.write_text("a\n1\n")
    code = NOTEBOOKS["prices"] + f"assert open({str(raw)!r}).read()\n"
    unread = "# %%\nfrom research_jobs import load\nseen = load('report', 'result')\n"
    project.write({"prices": code, "reader": unread})
    made = project.materialize("prices")
    ran = project.materialize("report")

    def show(*words: str) -> str:
        assert main(["show", *words, "--lineage", "--project", str(project.root)]) == 0
        return capsys.readouterr().out

    said = json.loads(show("report", "result", "--json"))
    assert said["readers"] == [
        {"notebook": "reader", "run": None, "note": "no kept run has read it"}
    ]
    origin = said["origin"]
    assert (origin["output"], origin["run"]) == ("report.result", ran.run_id)
    assert set(origin["code"]) == {"notebooks/report.py", "notebooks/helper_loads.py"}
    table, factor = sorted(origin["inputs"], key=lambda each: "note" in each)
    assert {table["output"], factor["output"]} == {"prices.table", "prices.factor"}
    assert (table["run"], factor["run"], factor["note"]) == (made.run_id, made.run_id, "above")
    assert table["parameters"] == {"rows": "3"}
    digest = hashlib.sha256(raw.read_bytes()).hexdigest()
    assert table["files"] == [{"path": str(raw), "sha256": digest, "bytes": raw.stat().st_size}]
    text = show("report", "result")
    assert f"\n        file {raw}  {digest[:12]}" in text
    assert "Read by\n  reader: no kept run has read it" in text

    forward = show("prices", "table")
    assert f"Read by\n  report: this version, in run {ran.run_id[:8]}" in forward
    project.materialize("prices")
    older = next(Path(project.project.store, "prices", ".versions").glob("000001-*")).name
    assert f"  report: {older}, in run" in show("prices", "table")
    shutil.rmtree(project.project.reports / "prices" / "_runs")
    assert f"run {made.run_id[:8]}: its record is not kept" in show("report", "result")
    assert main(["show", "report", "--lineage", "--project", str(project.root)]) == 2
    assert "name one" in capsys.readouterr().err


def test_a_table_read_past_us_is_an_input_too(lab: Any, tmp_path: Path) -> None:
    """A notebook that reads another's Parquet by path has read that version of it."""
    store = Path(lab.project.store)
    code = (
        "# %%\nimport pandas as pd\n"
        f"seen = pd.read_parquet({str(store / 'prices' / 'table.parquet')!r})\n"
    )
    lab.write({**NOTEBOOKS, **HELPERS, "reader": code}, MANIFEST)
    made = lab.materialize("prices")
    record = record_of(lab, lab.materialize("reader"), "reader")
    assert [(load.name, load.run_id) for load in record.loads] == [("prices.table", made.run_id)]
    assert record.reads == ()


def test_a_commit_is_in_the_record(project: Any) -> None:
    """In a repository the record names the commit."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=project.root, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=project.root, check=True, capture_output=True, text=True
    ).stdout.strip()
    assert record_of(project, project.materialize("prices"), "prices").git_commit == head
