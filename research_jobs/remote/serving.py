"""The far side: ``research-jobs remote-serve``, which ssh starts, answers on stdin and stdout.

It reads the store, and writes nothing but temporary files and what runs for the other side.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from research_jobs.errors import OutputNotFoundError, ResearchJobsError, StoreError, innermost_line
from research_jobs.project import Project, enter_environment, find_project
from research_jobs.remote import detached
from research_jobs.remote.frames import BLOCK, GREETING, PROTOCOL, CutError, Frames, new_digest
from research_jobs.remote.naming import chosen_notebooks, chosen_partitions
from research_jobs.remote.worktree import (
    TREE,
    TreeFile,
    commit_of,
    files_of,
    lay_out,
    link_the_rest,
    put_file,
)
from research_jobs.store.backends import backend_of
from research_jobs.store.backends.base import current_version
from research_jobs.store.layout import read_segments
from research_jobs.store.origin import Cut
from research_jobs.store.records import Version
from research_jobs.store.stored import published_files

__all__ = ["serve", "serve_process"]

Header = Mapping[str, Any]


def serve_process(version: str) -> int:
    """Answer on this process's stdin and stdout, as this version of research_jobs."""
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between frames
    with sink:
        serve(sys.stdin.buffer, sink, version)
    return 0


def serve(source: BinaryIO, sink: BinaryIO, version: str) -> None:
    """Greet, then answer one request after the other."""
    frames = Frames(source, sink)
    project: Project | None = None
    try:
        sink.write(GREETING)
        sink.flush()
        while True:
            header, _ = frames.receive()
            try:
                if header.get("ask") == "hello":
                    project = find_project(os.path.expanduser(str(header["project"])))  # noqa: PTH111 - its error names the folder
                    enter_environment(project)
                    frames.send(_hello(version))
                elif project is None:
                    raise StoreError("nobody has said hello")  # noqa: TRY301
                else:
                    _answer(project, frames, header)
            except CutError:
                raise
            except ResearchJobsError as error:
                frames.send({"error": {"what": error.what, "hint": error.hint}})
            except OSError as error:
                # What a write says of a full disk has no name.
                place = error.filename or (project.root if project is not None else "")
                what = f"{place}: {error.strerror or error}"
                frames.send({"error": {"what": what, "hint": None}})
            except Exception as error:  # noqa: BLE001 - the other side says it
                frames.send({"error": {"what": innermost_line(error), "hint": None}})
    except (CutError, BrokenPipeError):
        return


def _hello(version: str) -> dict[str, Any]:
    return {
        "protocol": PROTOCOL,
        "version": version,
        "can": sorted(_ANSWERS),
        "host": socket.gethostname(),
    }


def _answer(project: Project, frames: Frames, header: Header) -> None:
    answer = _ANSWERS.get(str(header.get("ask")))
    if answer is None:
        raise StoreError(f"research_jobs cannot do {header.get('ask')!r} there")
    answer(project, frames, header)


def _list(project: Project, frames: Frames, header: Header) -> None:
    """What is published of the notebooks and outputs that are named."""
    backend = backend_of(project.store)
    cut = Cut.of(header["cut"])
    found: list[dict[str, Any]] = []
    wanted = chosen_notebooks(backend.notebooks(), header["names"], partial(_outputs_of, backend))
    for notebook, outputs in wanted.items():
        units = {unit: read_segments(unit.segments) for unit in backend.units(notebook)}
        keys = {key.key for unit, key in units.items() if unit.segments}
        inside = chosen_partitions(notebook, keys, header.get("partitions"))
        for unit, key in units.items():
            if unit.segments and key.key not in inside:
                continue
            version = current_version(backend, unit)
            if outputs is not None and outputs.isdisjoint(version.outputs):
                continue
            rest = _within_window(version, cut)
            if rest is not None:
                found.append(_described(notebook, unit.segments, version, outputs, rest))
    frames.send({"units": found})


def _outputs_of(backend: Any, notebook: str) -> set[str]:
    """The outputs of a notebook that are published, of any partition."""
    units = backend.units(notebook)
    return {name for unit in units for name in current_version(backend, unit).outputs}


def _within_window(version: Version, cut: Cut) -> Cut | None:
    """The cut of a partition of time: all of it, if it ends after `since`; None if before."""
    if cut.since is None or version.window is None:
        return cut
    end = datetime.fromisoformat(version.window[1])
    since = datetime.fromisoformat(cut.since)
    if since.tzinfo is None or end.tzinfo is None:
        since = since.replace(tzinfo=end.tzinfo)
    return Cut(cut.rows, None, cut.columns) if end > since else None


def _described(
    notebook: str,
    segments: tuple[str, ...],
    version: Version,
    wanted: Collection[str] | None,
    cut: Cut,
) -> dict[str, Any]:
    from research_jobs.store.codec.registry import is_table

    outputs = {
        name: dict(item) | {"cut": asdict(cut) if cut and is_table(str(item["kind"])) else None}
        for name, item in version.outputs.items()
        if wanted is None or name in wanted
    }
    return {
        "notebook": notebook,
        "segments": list(segments),
        "version": version.id,
        "run_id": version.run_id,
        "published_at": version.published_at,
        "window": version.window,
        "by": dict(version.by),
        "data_version": version.data_version if len(outputs) == len(version.outputs) else "",
        "outputs": outputs,
    }


def _read(project: Project, frames: Frames, header: Header) -> None:
    """A file from an offset on, and at the end the digest of all of it."""
    with (
        published_files(project.store, *_address(header)) as published,
        _file(published, header).open("rb") as stream,
    ):
        _send_file(frames, stream, int(header["offset"]), {})


def _sample(project: Project, frames: Frames, header: Header) -> None:
    """A file that has a part of the rows and columns."""
    from research_jobs.remote.cutting import cut_file

    with (
        published_files(project.store, *_address(header)) as published,
        tempfile.TemporaryDirectory(prefix="research_jobs-sample-") as folder,
    ):
        path, target = _file(published, header), Path(folder) / "sample.pq"
        try:
            rows, of_rows = cut_file(path, target, Cut.of(header["cut"]))
        except StoreError as error:  # of a file that only this machine knows
            name = f"{header['notebook']}.{header['output']}"
            raise StoreError(error.what.replace(str(path), name), hint=error.hint) from error
        with target.open("rb") as stream:
            _send_file(frames, stream, 0, {"rows": rows, "of_rows": of_rows})


def _address(header: Header) -> tuple[str, tuple[str, ...], str]:
    return str(header["notebook"]), tuple(map(str, header["segments"])), str(header["version"])


def _file(published: tuple[str, Mapping[str, Path]] | None, header: Header) -> Path:
    if published is None or header["output"] not in published[1]:
        raise OutputNotFoundError(
            f"version {header['version']} of {header['notebook']} is no longer there",
            hint="A newer one has replaced it: pull again.",
        )
    return published[1][str(header["output"])]


def _send_file(frames: Frames, stream: BinaryIO, offset: int, facts: Header) -> None:
    size = os.fstat(stream.fileno()).st_size
    frames.send({"size": size} | dict(facts))
    digest = new_digest()
    place = 0
    while block := stream.read(BLOCK):
        digest.update(block)
        if place + len(block) > offset:
            frames.send({"more": True}, block[max(offset - place, 0) :])
        place += len(block)
    frames.send({"more": False, "digest": digest.hexdigest()})


# -- what runs here for the other side -------------------------------------------------------


def _commit(project: Project, frames: Frames, _: Header) -> None:
    """Which code the project has."""
    commit, edited = commit_of(project)
    frames.send({"commit": commit, "edited": edited})


def _tree(project: Project, frames: Frames, header: Header) -> None:
    """Lay out a tree of what is here; the answer is what is not."""
    detached.tidy(project)
    run = str(header["run"])
    runs = detached.kept(project)
    missing: list[str] = []
    if not any(one.run == run for one in runs):  # it would change below what runs
        detached.folder_of(project, run)
        folder = project.make_state_folder(detached.RUNS, run)
        files = [TreeFile(**each) for each in header["files"]]
        missing = lay_out(project, folder, files, [one.folder for one in runs if one.tree])
    frames.send({"missing": missing})


def _put(project: Project, frames: Frames, header: Header) -> None:
    """Files of a tree, one after the other, in frames that follow; then which came damaged."""
    folder = detached.folder_of(project, str(header["run"]))
    wanted = files_of(folder)
    damaged: list[str] = []
    refused: Exception | None = None
    for path in header["paths"]:
        blocks = _blocks(frames)
        try:
            if refused is None and not put_file(folder / TREE, wanted[path], blocks):
                damaged.append(path)
        except (OSError, KeyError, ResearchJobsError) as error:
            if isinstance(error, CutError):
                raise
            refused = error
        for _ in blocks:  # what is on its way is no request
            pass
    if refused is not None:
        raise refused
    frames.send({"damaged": damaged})


def _blocks(frames: Frames) -> Iterator[bytes]:
    while True:
        header, body = frames.receive()
        if not header.get("more"):
            return
        yield body


def _start(project: Project, frames: Frames, header: Header) -> None:
    """Start a command, in the tree that was sent or in the project; once, however often asked."""
    run, words = str(header["run"]), [str(word) for word in header["words"]]
    folder = detached.folder_of(project, run)
    if not words or words[0] not in ("run", "backfill", "try"):
        raise StoreError(f"'{' '.join(words[:1])}' cannot be run for another machine")
    if header["tree"]:
        link_the_rest(project, folder, header.get("commit"))
        if words[0] == "try":
            words += ["--prints", "--reports", str(folder / detached.PAGES)]
    started = detached.start(project, run, words, header["shown"], tree=bool(header["tree"]))
    frames.send(started.described())


def _find(project: Project, frames: Frames, header: Header) -> None:
    """One run; with `end`, it is interrupted."""
    found = detached.find(project, header.get("run"), to_end=bool(header.get("end")))
    if header.get("end"):
        found.end()
    frames.send(found.described())


def _runs(project: Project, frames: Frames, _: Header) -> None:
    frames.send({"runs": [one.described() for one in detached.kept(project)]})


def _follow(project: Project, frames: Frames, header: Header) -> None:
    """The log of a run as it comes; then how it ended."""
    found = detached.find(project, str(header["run"]))
    for block in found.log(int(header["offset"]), frames.source.fileno()):
        frames.send({"more": True}, block)
    frames.send({"more": False} | found.described())


def _fetch(project: Project, frames: Frames, header: Header) -> None:
    """A page of a run, or without a name its result."""
    folder, name = detached.find(project, str(header["run"])).folder, header.get("page")
    path = folder / detached.RESULT if name is None else folder / detached.PAGES / Path(name).name
    with path.open("rb") as stream:
        _send_file(frames, stream, 0, {})


_ANSWERS: Mapping[str, Callable[[Project, Frames, Header], None]] = {
    "list": _list,
    "read": _read,
    "sample": _sample,
    "commit": _commit,
    "tree": _tree,
    "put": _put,
    "start": _start,
    "find": _find,
    "runs": _runs,
    "follow": _follow,
    "fetch": _fetch,
}
