"""The commands that look and change nothing: list, show, check, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from damage import damage


def write(project: Path, notebooks: dict[str, str]) -> None:
    """Write notebooks into a project."""
    for name, text in notebooks.items():
        (project / "notebooks" / name).write_text(text, encoding="utf-8")


def test_list_before_and_after(say: Any, project: Path) -> None:
    """`list` tells each notebook's outputs, schedule, next tick, and how it last ended."""
    before = {line["notebook"]: line for line in say("list", "--json").json}
    assert sorted(before) == ["broken", "daily", "numbers_table", "reports/total"]
    assert {line["last"]["ending"] for line in before.values()} == {"never_run"}
    numbers = before["numbers_table"]
    assert numbers["outputs"] == ["table", "total"]
    assert numbers["schedules"] == ["mornings"]
    assert "T06:00:00+0" in numbers["next_tick"]
    assert before["daily"]["next_tick"] is None
    assert before["daily"]["partitions"] == {"materialized": 0, "total": 7}

    say("run", "broken", "numbers_table", "reports/total", "daily")
    after = {line["notebook"]: line["last"] for line in say("list", "--json").json}
    endings = {name: last["ending"] for name, last in after.items()}
    assert endings == {
        "broken": "failed",
        "daily": "succeeded",
        "numbers_table": "succeeded",
        "reports/total": "succeeded",
    }
    assert "KeyError: 'Close'" in after["broken"]["error"]
    table = say("list")
    assert table.code == 0
    row = next(line for line in table.out.splitlines() if line.startswith("daily"))
    assert "succeeded" in row
    assert "1/7" in row


def test_a_skip_is_shown_as_such(say: Any) -> None:
    """After a skipped run the last ending is `skipped`, not `succeeded`."""
    say("run", "daily", "--partition", "2024-01-06")
    line = next(line for line in say("list", "--json").json if line["notebook"] == "daily")
    assert line["last"]["ending"] == "skipped"
    assert line["partitions"]["materialized"] == 0
    (run,) = say("show", "daily", "--json").json["runs"]
    assert (run["ending"], run["partition"]) == ("skipped", "2024-01-06")


def test_show_tells_the_notebook_and_its_values(say: Any) -> None:
    """`show` tells parameters, outputs and runs; with an output, its first rows."""
    say("run", "numbers_table", "daily")
    shown = say("show", "numbers_table", "--json").json
    assert shown["parameters"] == [
        {"name": "count", "type": "int", "default": 10, "description": "how many"}
    ]
    table = next(output for output in shown["outputs"] if output["name"] == "table")
    assert table["rows"] == 10
    assert [column["name"] for column in table["columns"]] == ["n", "square"]
    assert [run["ending"] for run in shown["runs"]] == ["succeeded"]
    text = say("show", "numbers_table").out
    assert "Ten numbers and their squares." in text
    assert "data/numbers_table/table.parquet" in text

    head = say("show", "numbers_table", "table", "--rows", "2", "--json").json
    assert head["head"] == [{"n": 0, "square": 0}, {"n": 1, "square": 1}]
    assert head["rows"] == 10
    assert "… 8 more rows" in say("show", "numbers_table", "table", "--rows", "2").out
    assert say("show", "numbers_table", "total").out.strip() == "{'sum': 285}"
    assert say("show", "daily", "value").out.strip() == "7"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["numbers_tabel"], "Did you mean 'numbers_table'?"),
        (["numbers_table", "tabel"], "Did you mean 'table'"),
        (["numbers_table", "table"], "numbers_table"),
        (["daily", "value"], "research-jobs run daily"),
    ],
)
def test_show_of_what_is_not_there(say: Any, words: list[str], message: str) -> None:
    """No such notebook, no such output, nothing stored yet: one line, exit code 2."""
    said = say("show", *words)
    assert said.code == 2
    assert message in said.err
    assert said.err.count("\n") == 1


def test_show_takes_the_newest_partition_by_its_time(say: Any, project: Path) -> None:
    """Also where keys are written with the day first."""
    text = '# %% tags=["parameters"]\nday: str = ""\n# %%\nvalue = [day, 1, 2]\n'
    text += "import pandas as pd\ntable = pd.DataFrame({'n': [1]}, index=pd.Index([7], name='k'))\n"
    write(project, {"latest.py": text})
    (project / "notebooks" / "manifest.yaml").write_text(
        "notebooks: {latest: {outputs: [value, table], partitions: {by: day, parameter: day,"
        " format: '%d.%m.%Y', start: 2024-01-31, end: 2024-02-02}}}\n",
        encoding="utf-8",
    )
    say("backfill", "latest", "--all")
    shown = say("show", "latest", "value", "--rows", "2", "--json").json
    assert shown["partition"] == "01.02.2024"
    assert (shown["rows"], shown["head"]) == (3, ["01.02.2024", 1])
    # an index with a name is a column as any other
    assert say("show", "latest", "table", "--json").json["head"] == [{"k": 7, "n": 1}]


def test_check_of_a_sound_project(say: Any) -> None:
    """Nothing wrong: exit code 0 and a line that says what was looked at."""
    said = say("check")
    assert said.code == 0
    assert said.out == "4 notebooks, 0 errors, 0 warnings\n"


def test_check_finds_errors_and_differences(say: Any, project: Path) -> None:
    """Mistakes in manifest and notebooks are errors with their place; parity is a warning."""
    manifest = project / "notebooks" / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8").replace("outputs: [double]", "ouputs: [double]")
    manifest.write_text(text, encoding="utf-8")
    (project / "notebooks" / "half.py").write_text("# %%\nx = (1\n", encoding="utf-8")
    (project / "notebooks" / "asks.py").write_text(
        "# %%\nname = input('who? ')\n", encoding="utf-8"
    )
    said = say("check")
    assert said.code == 1
    lines = said.out.splitlines()
    assert any(
        line.startswith("error: notebooks/manifest.yaml:4:") and "'outputs'" in line
        for line in lines
    )
    assert any(line.startswith("error: notebooks/half.py:2") for line in lines)
    assert any(line.startswith("warning: notebooks/asks.py:2:8") for line in lines)
    assert lines[-1] == "6 notebooks, 2 errors, 1 warning"
    found = say("check", "--json").json
    assert {(f["level"], f["notebook"]) for f in found} == {
        ("error", "reports/total"),
        ("error", "half"),
        ("warning", "asks"),
    }


def test_check_finds_outputs_that_are_never_assigned(say: Any, project: Path) -> None:
    """With the manifest's line and column; a notebook that can bind any name is left alone."""
    write(
        project,
        {
            "typo.py": "# %%\nstats = 1\n",
            "star.py": "# %%\nfrom math import *\n",
            "dynamic.py": "# %%\nglobals()['out'] = 1\n",
            "declared.py": "# %%\nout: int\n",
            "either.py": "# %%\nif input:\n    out = 1\n",
        },
    )
    manifest = project / "notebooks" / "manifest.yaml"
    lines = "".join(
        f"  {name}: {{outputs: [out]}}\n" for name in ("star", "dynamic", "declared", "either")
    )
    text = manifest.read_text(encoding="utf-8")
    text = text.replace("schedules:\n", f"  typo: {{outputs: [stat]}}\n{lines}schedules:\n", 1)
    manifest.write_text(text, encoding="utf-8")
    said = say("check")
    errors = [line for line in said.out.splitlines() if "never assigns" in line]
    assert errors == [
        "error: notebooks/manifest.yaml:11:24: declared never assigns its output 'out'",
        (
            "error: notebooks/manifest.yaml:8:20: typo never assigns its output 'stat'. "
            "Did you mean 'stats'?"
        ),
    ]
    assert said.code == 1


WAY_OUT = "Move it, or set RESEARCH_JOBS_STORE to keep the store in another folder."


@pytest.mark.parametrize(
    ("theirs", "notebook", "output"),
    [
        ("data/numbers_table/table.parquet", "numbers_table", "table"),
        ("data/numbers_table/table.parquet/", "numbers_table", "table"),
        ("data/numbers_table", "numbers_table", "table"),
        ("data/numbers_table/.versions", "numbers_table", "table"),
        ("data/reports", "reports/total", "double"),
        ("data", "numbers_table", "table"),
        ("data/daily", "daily", "value"),
        ("data/daily/value", "daily", "value"),
        ("data/daily/value/day=2024-01-02", "daily", "value"),
        ("data/daily/value/day=2024-01-02/part-0.parquet", "daily", "value"),
    ],
)
def test_a_file_of_the_users_in_the_store(
    say: Any, project: Path, theirs: str, notebook: str, output: str
) -> None:
    """`check`, `run` and `show` name it with the way out, and `show` never lists it as ours."""
    place = project / theirs
    place.parent.mkdir(parents=True, exist_ok=True)
    if theirs.endswith("/"):
        place.mkdir()
    else:
        place.write_bytes(b"mine")
    said = say("check")
    assert said.code == 1
    errors = [line for line in said.out.splitlines() if line.startswith("error: ")]
    line = f"{place} is in the way: research_jobs did not create it. {WAY_OUT}"
    assert f"error: {line}" in errors
    about = {finding["notebook"] for finding in say("check", "--json").json}
    assert notebook in about or theirs == "data"  # in the way of all, and reported once
    partition = ["--partition", "2024-01-02"] if notebook == "daily" else []
    ran = say("run", notebook, *partition)
    assert ran.code != 0
    assert line in ran.out + ran.err
    shown = say("show", notebook, "--json")
    (listed,) = (each for each in shown.json["outputs"] if each["name"] == output)
    assert (listed["kind"], listed["path"], listed["rows"]) == (None, None, None)
    assert line in shown.err
    assert say("show", notebook, output).code == 2
    assert place.is_dir() or place.read_bytes() == b"mine"


def test_a_file_of_the_users_beside_our_outputs(say: Any, project: Path) -> None:
    """It is no finding, and in the place of one partition it hides no other partition."""
    say("run", "numbers_table")
    say("run", "daily", "--partition", "2024-01-02")
    (project / "data/numbers_table/other.parquet").write_bytes(b"mine")
    (project / "data/daily/value.parquet").write_bytes(b"mine")
    assert say("check").out.endswith("4 notebooks, 0 errors, 0 warnings\n")
    (project / "data/daily/value/day=2024-01-03").write_bytes(b"mine")
    (finding,) = say("check", "--json").json
    assert "day=2024-01-03 is in the way" in finding["text"]
    shown = say("show", "daily", "--json")
    assert "day=2024-01-03 is in the way" in shown.err
    assert shown.json["outputs"][0]["kind"] == "partitions"
    assert shown.json["outputs"][0]["path"] == str(project / "data/daily/value")


def test_check_leaves_a_store_behind_a_url_alone(say: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of a server that may be away."""
    monkeypatch.setenv("RESEARCH_JOBS_STORE", "s3://no-such-bucket-here/data")
    assert say("check").code == 0


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        (("day", "ticker"), {}),
        (("dya", "ticker"), {"dya": "Did you mean 'day'?"}),
        (("exchange", "ticker"), {"exchange": "Parameters: day, ticker."}),
        (("region", "venue"), dict.fromkeys(("region", "venue"), "Parameters: day, ticker.")),
    ],
)
def test_check_warns_of_a_dimension_that_sets_no_parameter(
    say: Any, project: Path, names: tuple[str, str], warned: dict[str, str]
) -> None:
    """A dimension that no parameter is called after is a warning with its place; runs go on."""
    write(project, {"keyed.py": "# %% tags=['parameters']\nday = 'x'\nticker = 'y'\n"})
    manifest = project / "notebooks" / "manifest.yaml"
    dimensions = ", ".join(f"{name}: {{values: [a]}}" for name in names)
    text = manifest.read_text(encoding="utf-8")
    entry = f"  keyed: {{partitions: {{dimensions: {{{dimensions}}}}}}}\n"
    manifest.write_text(text.replace("schedules:\n", f"{entry}schedules:\n", 1), encoding="utf-8")
    said = say("check")
    found = [line for line in said.out.splitlines() if "sets no parameter" in line]
    assert len(found) == len(warned)
    for line, (name, hint) in zip(found, warned.items(), strict=True):
        column = entry.index(f"{name}:") + 1
        assert f"manifest.yaml:8:{column}: the dimension '{name}' sets no parameter" in line
        assert hint in line


@pytest.mark.parametrize(
    ("partitions", "place"),
    [
        ("{values: [a], parameter: dya}", "8:48"),
        ("{dimensions: {x: {values: [a], parameter: dya}, z: {values: [b]}}}", "8:65"),
    ],
)
def test_check_finds_parameters_that_a_partition_cannot_set(
    say: Any, project: Path, partitions: str, place: str
) -> None:
    """Every run would fail: it is an error of that notebook, with its place and a suggestion."""
    write(project, {"keyed.py": "# %% tags=['parameters']\nday = 'x'\n"})
    manifest = project / "notebooks" / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(
        text.replace("schedules:\n", f"  keyed: {{partitions: {partitions}}}\nschedules:\n", 1),
        encoding="utf-8",
    )
    said = say("check")
    assert (
        f"error: notebooks/manifest.yaml:{place}: the partition's parameter 'dya' is not one of "
        "keyed's. Did you mean 'day'?"
    ) in said.out
    assert said.code == 1


def test_check_finds_loads_that_nobody_sees(say: Any, project: Path) -> None:
    """Of the notebook and its helpers, each once; a comment silences the notebook's own."""
    write(
        project,
        {
            "reads.py": "# %%\nimport tools\ntools.get('a')\n",
            "own.py": "# %%\nfrom research_jobs import load\nload(str.join)\n",
            "quiet.py": "# %%\nfrom research_jobs import load\nload(str.join)  # parity: ignore\n",
            "tools.py": "from research_jobs import load\ndef get(name):\n    return load(name)\n",
        },
    )
    said = say("check")
    found = [line for line in said.out.splitlines() if "[hidden-load]" in line]
    assert [line.split(": this load()")[0] for line in found] == [
        "warning: notebooks/own.py:3:1",
        "warning: notebooks/tools.py:3:12",
    ]
    assert "files" not in said.err
    assert "no notebook imports it: helper.py" in said.err


def test_commands_say_why_a_file_is_not_a_notebook(say: Any, project: Path) -> None:
    """By name, in the check and in the list; Jupyter's files are to be converted."""
    said = say("run", "helper")
    assert said.code == 2
    assert "notebooks/helper.py is a helper module, not a notebook" in said.err
    assert "helper.py" in say("list").err
    for path in (project / "notebooks").rglob("*.py"):
        path.rename(path.with_suffix(".ipynb"))
    (project / "notebooks" / "manifest.yaml").unlink()
    for words in (["check"], ["list"], ["run", "--all"]):
        assert (
            "5 .ipynb here are not notebooks yet: research-jobs convert notebooks/"
            in say(*words).err
        )


def test_check_finds_what_only_definitions_show(say: Any, project: Path) -> None:
    """Parameters of schedules, calendars, watched fields, partitions: each with its place."""
    manifest = project / "notebooks" / "manifest.yaml"
    text = manifest.read_text(encoding="utf-8")
    text = text.replace("group: numbers}", "group: numbers, watch: 'in/{dy}.csv'}")
    text = text.replace("[double]}", "[double], partitions: {values: [a]}, deps: [daily]}")
    text = text.replace("end: 2024-01-08,", "end: 2024-01-08, calendar: XNYSE,")
    text = text.replace(
        "schedules:\n",
        "  broken: {partitions: {by: day, start: 2024-01-01}, deps: [late]}\n"
        "  late: {partitions: {values: [a]}}\nschedules:\n",
    )
    text += "    parameters: {cuont: 3}\n"
    text += "  unfit: {cron: '0 6 * * *', notebooks: [numbers_table], parameters: {count: many}}\n"
    text += "  taken: {cron: '0 6 * * *', notebooks: [daily], parameters: {day: 2024-01-01}}\n"
    manifest.write_text(text, encoding="utf-8")
    (project / "notebooks/late.py").write_text("# %%\n")
    said = say("check")
    assert said.code == 1
    lines = said.out.splitlines()
    for place, message in (
        ("notebooks/manifest.yaml:3:", "watch: {dy} is not a partition of it"),
        ("notebooks/manifest.yaml:7:", "unknown calendar 'XNYSE'. Did you mean 'XNYS'"),
        ("notebooks/manifest.yaml:8:", "broken reads late, but nothing says which partitions"),
        ("notebooks/manifest.yaml:15:", "none of its notebooks has the parameter 'cuont'"),
        ("notebooks/manifest.yaml:16:", "count = 'many' is not a whole number"),
        ("notebooks/manifest.yaml:17:", "'day' is set by daily's partitions"),
    ):
        assert any(line.startswith(f"error: {place}") and message in line for line in lines), (
            message,
            said.out,
        )


def test_reports_are_found_and_made_one_file(say: Any, project: Path, tmp_path: Path) -> None:
    """`report` gives the last run's page, of a partition too, and one file to mail."""
    assert say("report", "numbers_table").code == 2
    say("run", "numbers_table")
    say("run", "daily", "--partition", "2024-01-02")
    say("run", "daily", "--partition", "2024-01-03")
    page = Path(say("report", "numbers_table").out.strip())
    assert page.is_relative_to(project / "reports" / "numbers_table")
    assert page.is_file()
    first = say("report", "daily", "--partition", "2024-01-02", "--json").json
    assert first["partition"] == "2024-01-02"
    assert len(say("report", "daily", "--list", "--json").json) == 2
    mail = tmp_path / "mail.html"
    assert say("report", "numbers_table", "--standalone", str(mail)).code == 0
    assert "Ten numbers and their squares." in mail.read_text(encoding="utf-8")


def test_nothing_of_the_notebooks_is_imported(say: Any) -> None:
    """Looking at a project leaves none of its modules in the process."""
    # Tests of the runtime, which may have come before in this process, import such names.
    names = {"numbers_table", "daily", "broken", "helper"}
    before = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
    for words in (["list"], ["check"], ["show", "numbers_table"]):
        assert say(*words).code == 0
    found = names & set(sys.modules)
    sys.modules.update(before)
    assert not found


@pytest.mark.parametrize("how", ["half", "null", "folder", "circle"])
def test_small_files_that_are_damaged(say: Any, project: Path, how: str) -> None:
    """Caches and lists that are damaged are made again; commands and pages work as before."""
    assert say("run", "numbers_table").code == 0
    state = [*(project / ".research_jobs" / "cache").rglob("*.json")]
    pages = [path for path in (project / "reports").rglob("*") if path.is_file()]
    assert {"scan.json", "preload.json"} <= {path.name for path in state}
    assert {"gallery.js", "runs.js", "notebook.ipynb"} <= {path.name for path in pages}
    for path in (*state, *pages):
        if path.name != ".lock":
            damage(path, how)
    for words in (("report", "numbers_table", "--list"), ("list",), ("check",)):
        said = say(*words)
        assert "Traceback" not in said.err
    assert say("run", "numbers_table").code == 0
    listed = say("report", "numbers_table", "--list", "--json")
    assert [each["ending"] for each in listed.json] == ["succeeded"]
    gallery = project / "reports" / "gallery.js"
    assert b'"numbers_table"' in gallery.read_bytes()
    assert len((project / "reports" / "numbers_table" / "runs.js").read_bytes().splitlines()) >= 1
    assert say("report").code == 0
    assert b"numbers_table" in (project / "reports" / "index.html").read_bytes()
