"""Names as paths: safe, readable, and no two keys in one place (fault 21)."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from research_jobs.errors import PartitionError, ResearchJobsError, StoreError
from research_jobs.protocol import PartitionKey
from research_jobs.store.layout import (
    check_output_name,
    output_path,
    partition_segments,
    read_segments,
)

NASTY = st.lists(
    st.sampled_from(["..", "/", "\\", ".", "%2e", "%2F", "=", "\0", "a", "é", "e\u0301", " ", "|"])
    | st.text(max_size=3),
    max_size=8,
).map("".join) | st.text(min_size=240, max_size=310)


@given(NASTY)
@example("../../etc/passwd")
@example("%2e%2e/x")
def test_a_key_never_leaves_its_folder(key: str) -> None:
    """Any key becomes one folder's name that decodes to the key, or is refused in one line."""
    root = "/store"
    try:
        path = output_path(root, "nb", "out", PartitionKey(key, {"day": key}))
    except PartitionError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - refusing is one of two right answers
        return
    folder, segment, part = path.rsplit("/", 2)
    assert (folder, part) == ("/store/nb/out", "part-0.parquet")
    assert os.path.normpath(path) == path
    assert len(segment) <= 255
    assert segment.isascii()
    assert unquote(segment.split("=", 1)[1]) == key


@given(NASTY, NASTY)
@example("é", unicodedata.normalize("NFD", "é"))
@example("a%2eb", "a.b")
def test_two_keys_never_share_a_path(one: str, other: str) -> None:
    """Different keys have different folders, also on file systems that normalise Unicode."""
    try:
        paths = [partition_segments({"k": key})[0] for key in (one, other)]
    except PartitionError:
        return
    normal = {unicodedata.normalize("NFC", path) for path in paths}
    assert len(normal) == len({one, other})


@given(NASTY)
@example("../a")
@example("a/../../b")
@example(".hidden")
def test_names_of_notebooks_and_outputs_stay_inside(name: str) -> None:
    """A notebook's or output's name is safe as a path, or is refused in one line."""
    for notebook, output in ((name, "out"), ("nb", name)):
        try:
            path = output_path("/store", notebook, output)
        except ResearchJobsError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - refusing is one of two right answers
            continue
        assert os.path.normpath(path) == path
        assert Path(path).is_relative_to("/store")
        assert not any(part.startswith(".") for part in Path(path).parts)


@pytest.mark.parametrize(
    ("key", "segment"),
    [
        ("2018-11-01", "day=2018-11-01"),
        ("BRK.B", "day=BRK.B"),
        ("EUR/USD", "day=EUR%2FUSD"),
        ("../../etc", "day=..%2F..%2Fetc"),
        ("a=b", "day=a%3Db"),
        ("%2e", "day=%252e"),
        ("Zürich", "day=Z%C3%BCrich"),
    ],
)
def test_ordinary_keys_stay_readable(key: str, segment: str) -> None:
    """Dates and tickers stand in the path as they are; the rest is percent-encoded."""
    assert partition_segments({"day": key}) == (segment,)
    assert read_segments((segment,)).key == key


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "is empty"),
        ("a\0b", "NUL"),
        ("x" * 300, "too long"),
        ("日" * 90, "too long"),
        ("\ud800", "not Unicode"),
        ("__HIVE_DEFAULT_PARTITION__", "missing key"),
    ],
)
def test_keys_that_no_path_can_hold_are_refused(key: str, message: str) -> None:
    """Empty, NUL, too long, no Unicode, hive's own word for nothing: one clear line each."""
    with pytest.raises(PartitionError, match=message):
        partition_segments({"day": key})


def test_the_order_of_dimensions_moves_no_file() -> None:
    """Two dimensions give one path, however the mapping is ordered."""
    one = output_path("/s", "n", "o", PartitionKey("", {"b": "2", "a": "1"}))
    two = output_path("/s", "n", "o", PartitionKey("", {"a": "1", "b": "2"}))
    assert one == two == "/s/n/o/a=1/b=2/part-0.parquet"


@pytest.mark.parametrize("name", ["", "a b", "a-b", "../a", "1a", "a.b", "x" * 248, "é" * 124])
def test_outputs_are_named_as_variables(name: str) -> None:
    """What is no identifier is no output's name."""
    with pytest.raises(StoreError):
        check_output_name(name)


@pytest.mark.parametrize(("letter", "most"), [("x", 247), ("é", 123)])
def test_the_longest_names(tmp_path: Path, letter: str, most: int) -> None:
    """Names count in bytes: the longest are files and folders that the disk takes."""
    notebook = "/".join((letter * (255 // len(letter.encode())),) * 2)
    path = Path(output_path(str(tmp_path), notebook, letter * most))
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(StoreError, match="not a valid notebook name"):
        output_path(str(tmp_path), f"{letter}{notebook}", "x")


def test_identifiers_are_what_python_makes_of_them() -> None:
    """`ﬁt` and `fit` are one variable in Python, and one output here."""
    assert check_output_name("\ufb01t") == "fit"


def test_a_url_is_a_path_too() -> None:
    """Behind a URL the same layout holds."""
    assert output_path("s3://b/data/", "a.b", "x") == "s3://b/data/a/b/x.parquet"


def test_no_pickle_in_the_room() -> None:
    """Nothing in the store imports a module that runs code from data (fault 22)."""
    import ast

    banned = {
        "pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "marshal",
        "shelve",
        "joblib",
        "jsonpickle",
    }
    import research_jobs.store

    folder = Path(research_jobs.store.__file__).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[Any] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Attribute):
                names = [node.attr] if "pickle" in node.attr else []
            elif isinstance(node, ast.Name):
                names = [node.id] if node.id in ("eval", "exec") else []
            assert not {name.split(".")[0] for name in names} & (banned | {"eval", "exec"}), path
            assert not [name for name in names if "pickle" in name], path
