"""The files that pages share: style, scripts, plotly's script of the version that made a figure.

Each is kept in ``reports/assets/`` once, under a name with its content's hash: a page keeps
finding the one that it was made with.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from functools import lru_cache
from pathlib import Path

from research_jobs.filesystem import make_folder, temporary_path, write_atomically

__all__ = [
    "ASSETS",
    "UI_SCRIPT",
    "asset_text",
    "install_asset",
    "install_plotly",
    "write_atomically",
]

ASSETS = "assets"
UI_SCRIPT = "ui.js"
"""No file: a script, which the server makes for each reader, that says where Dagster's UI is."""

_HERE = Path(__file__).parent / "assets"


@lru_cache(maxsize=16)
def asset_text(name: str) -> str:
    """One of our own files: ``page.css``, ``gallery.css``, ``page.js``, ``morning.js``."""
    return (_HERE / name).read_text(encoding="utf-8")


def install_asset(reports: Path, name: str) -> str:
    """Put one of our scripts where pages find it.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    name : str
        ``"page.js"``.

    Returns
    -------
    str
        Its path below `reports`.
    """
    text = asset_text(name)
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    stem, _, suffix = name.rpartition(".")
    path = f"{ASSETS}/{stem}-{digest}.{suffix}"
    if not (reports / path).exists():
        write_atomically(reports / path, text.encode())
    return path


def install_plotly(reports: Path, named: str | None) -> str | None:
    """Put plotly's script where pages find it.

    Parameters
    ----------
    reports : Path
        The reports' folder.
    named : str or None
        Where the notebook's process had it; else this interpreter's plotly is looked for.

    Returns
    -------
    str or None
        Its path below `reports`; None when there is no plotly here.
    """
    source = _plotly_script(named)
    if source is None:
        return None
    status = source.stat()
    # Size and time of an installed file say which one it is; reading 5 MB per run would not pay.
    key = f"{source}:{status.st_size}:{status.st_mtime_ns}"
    mark = reports / ASSETS / f".plotly-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        path = mark.read_text(encoding="utf-8")
        if (reports / path).exists():
            return path
    except OSError:
        pass
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:10]
    path = f"{ASSETS}/plotly-{digest}.min.js"
    if not (reports / path).exists():
        make_folder(reports / ASSETS)
        temporary = temporary_path(reports / path)
        try:
            shutil.copyfile(source, temporary)
            temporary.replace(reports / path)
        finally:
            temporary.unlink(missing_ok=True)
    write_atomically(mark, path.encode())
    return path


def _plotly_script(named: str | None) -> Path | None:
    candidates: list[Path] = []
    if named is not None and named.endswith("plotly.min.js"):
        candidates.append(Path(named))
    spec = importlib.util.find_spec("plotly")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "package_data" / "plotly.min.js")
    return next((path for path in candidates if path.is_file()), None)
