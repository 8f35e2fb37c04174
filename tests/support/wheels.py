"""Tiny wheels in a folder, so that uv and pip install without an index."""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
) -> None:
    """Write a wheel; by default a module of its name that says its version."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    content = {
        **(files if files is not None else {f"{name}.py": f"__version__ = {version!r}\n"}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*content, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in (*content.items(), (f"{info}/RECORD", record)):
            wheel.writestr(path, text)


def write_pyarrow(folder: Path, aside: Path) -> None:
    """Write a wheel of pyarrow that leads to the one installed here, and to nothing beside it."""
    found = importlib.util.find_spec("pyarrow")
    assert found is not None
    assert found.origin is not None
    aside.mkdir(parents=True)
    (aside / "pyarrow").symlink_to(Path(found.origin).parent)
    write_wheel(folder, "pyarrow", "99.0", files={"pyarrow_is_there.pth": f"{aside}\n"})


def offline(folder: Path, cache: Path) -> dict[str, str]:
    """Variables by which uv and pip take packages from a folder alone."""
    return {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_INDEX": "1",
        "UV_CACHE_DIR": str(cache),
        "UV_FIND_LINKS": str(folder),
        "UV_NO_CONFIG": "1",
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
    }
