"""Publishing to and loading from a store behind a URL, beside the clients that there are.

A frame of 200 MB (500 with ``--full``) goes to an S3 server on this machine and comes back, by a
new process each time. The server is Ceph's gateway where it is installed, else moto, which is
slower than any client and reads a whole object for each range of it. Ours includes the digest, the
conditional pointer, the copy for other tools and fsync; the others move bytes. Memory is how far
the process's resident size rises above what it was before.

``python -m benchmarks transfers``
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import PYTHON, Goal, Options, clean_environment, ratio, scratch, seconds
from benchmarks.table import Figure, Table, in_turns

__all__ = ["run"]

MB = 1e6
ROWS_OF_A_MB = 15_600  # of eight columns of eight bytes
PEERS = ("pyarrow", "s3fs", "obstore")
PARTITIONS = 10_000
WAYS = ("publish", "fetch", "load")
_BLOCK = 8 * 2**20


# -- one transfer, in a process of its own ----------------------------------------------------


def _ours(url: str, file: Path) -> dict[str, Callable[[], Any]]:
    from research_jobs.store.backends import backend_of
    from research_jobs.store.codec import write_output
    from research_jobs.store.commit import open_staging, publish
    from research_jobs.store.load import load

    def put() -> None:
        with open_staging(url, "run") as staging:
            small = write_output("x", 1, staging.path / "x", options={}, metadata={})
            os.link(file, staging.path / "large")
            large = replace(small, path=str(staging.path / "large"), bytes=file.stat().st_size)
            publish(url, "a", [large], staging=staging, partition=None, run_id="run")

    def fetch() -> None:
        backend = backend_of(url)
        unit = backend.unit("a", None)
        assert unit is not None
        backend.hold(unit).version.file("x")

    os.environ["RESEARCH_JOBS_STORE"] = url
    return {"publish": put, "fetch": fetch, "load": lambda: load("a", "x")}


def _file_system(system: Any, path: str, file: Path) -> dict[str, Callable[[], Any]]:
    import pandas as pd

    return {
        "publish": lambda: system.put_file(str(file), path),
        "fetch": lambda: system.get_file(path, f"{file}.fetched"),
        "load": lambda: pd.read_parquet(path, filesystem=system),
    }


def _s3fs(url: str, file: Path) -> dict[str, Callable[[], Any]]:
    import s3fs

    return _file_system(s3fs.S3FileSystem(), f"{url.partition('://')[2]}/x.parquet", file)


def _pyarrow(url: str, file: Path) -> dict[str, Callable[[], Any]]:
    import pandas as pd
    from pyarrow import fs

    endpoint = os.environ["AWS_ENDPOINT_URL"].partition("://")[2]
    system = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", request_timeout=120)
    path, local = f"{url.partition('://')[2]}/x.parquet", fs.LocalFileSystem()
    return {
        "publish": lambda: fs.copy_files(str(file), path, local, system, chunk_size=_BLOCK),
        "fetch": lambda: fs.copy_files(path, f"{file}.fetched", system, local, chunk_size=_BLOCK),
        "load": lambda: pd.read_parquet(path, filesystem=system),
    }


def _obstore(url: str, file: Path) -> dict[str, Callable[[], Any]]:
    import obstore
    import pandas as pd
    from obstore.store import S3Store

    endpoint = os.environ["AWS_ENDPOINT_URL"]
    store: Any = S3Store.from_url(url, endpoint=endpoint, client_options={"allow_http": True})

    def fetch() -> None:
        with Path(f"{file}.fetched").open("wb") as target:
            target.writelines(obstore.get(store, "x.parquet").stream(min_chunk_size=_BLOCK))

    def load() -> Any:
        fetch()
        return pd.read_parquet(f"{file}.fetched")

    return {"publish": lambda: obstore.put(store, "x.parquet", file), "fetch": fetch, "load": load}


_CLIENTS = {"ours": _ours, "s3fs": _s3fs, "pyarrow": _pyarrow, "obstore": _obstore}


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


def _transfer(client: str, way: str, url: str, file: Path, small: Path) -> dict[str, float]:
    """What one transfer takes, after a small one has opened the connection."""
    warm = _CLIENTS[client](f"{url}/warm", small)
    warm["publish"]()
    warm[way]()
    work = _CLIENTS[client](url, file)[way]
    Path("/proc/self/clear_refs").write_text("5")  # the peak is measured anew
    before, used = _resident("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    kept = work()
    taken, ended = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = ended.ru_utime + ended.ru_stime - used.ru_utime - used.ru_stime
    del kept
    return {"seconds": taken, "cpu": cpu, "memory": (_resident("VmHWM") - before) / MB}


# -- all of them -------------------------------------------------------------------------------


def _write(folder: Path, rows: int) -> Path:
    """A file as our codec writes it, of numbers that do not compress."""
    import numpy as np
    import pandas as pd

    from research_jobs.store.codec import write_output

    values = np.random.default_rng(0).normal(size=(rows, 8))
    frame = pd.DataFrame(values, columns=[f"c{n}" for n in range(8)])
    path = folder / f"{rows}.parquet"
    write_output("x", frame, path, options={}, metadata={})
    return path


def run(options: Options) -> tuple[list[Table], list[Goal]]:
    """Measure."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
    if shutil.which("radosgw"):
        os.environ["RESEARCH_JOBS_TEST_S3"] = "ceph"
    from s3_server import s3_server

    with scratch() as folder, s3_server() as server:
        large = 500 if options.full else 200
        sizes = (large, large // 2)  # at both, all parts are in memory at once
        files = {size: _write(folder, size * ROWS_OF_A_MB) for size in sizes}
        small = _write(folder, 10)
        buckets = {name: f"s3://{server.make_bucket()}/data" for name in sizes}
        found: dict[tuple[int, str, str], dict[str, Figure]] = {}
        for size, file in files.items():
            clients = ("ours", *PEERS) if size == large else ("ours",)
            for way in WAYS:
                takes: dict[str, list[dict[str, float]]] = {name: [] for name in clients}

                def measure(name: str, file: Path = file, size: int = size, way: str = way,
                            takes: Any = takes) -> float:  # fmt: skip
                    home = folder / "home" / f"{time.time_ns()}"  # nothing is cached
                    home.mkdir(parents=True)
                    url = f"{buckets[size]}/{name}"
                    done = subprocess.run(
                        [PYTHON, "-m", "benchmarks.transfers", name, way, url, file, small],
                        env=clean_environment(
                            **server.environment,
                            RESEARCH_JOBS_PROJECT=_project(folder),
                            XDG_CACHE_HOME=str(home),
                            # Without it pyarrow's uploads to Ceph fail, and it does not say so.
                            AWS_REQUEST_CHECKSUM_CALCULATION="when_required",
                        ),
                        stdout=subprocess.PIPE,
                        check=True,
                    )
                    takes[name].append(json.loads(done.stdout))
                    return takes[name][-1]["seconds"]

                in_turns(
                    options.slow_runs,
                    {name: lambda name=name: measure(name) for name in clients},
                )
                for name in clients:
                    found[size, way, name] = {
                        kind: Figure(tuple(take[kind] for take in takes[name]))
                        for kind in ("seconds", "cpu", "memory")
                    }
        listed = _partitions(server)
    return _tables(sizes, found, *listed)


def _project(folder: Path) -> str:
    (folder / "project" / "notebooks").mkdir(parents=True, exist_ok=True)
    return str(folder / "project")


def _partitions(server: Any) -> tuple[int, int, float]:
    """A list of all partitions: its pages, the other requests that it takes, and how long."""
    from faulty_proxy import faulty_proxy

    from research_jobs.store.stored import stored_partitions

    bucket = server.make_bucket()
    paths = [f".partitions/k={number}/current.json" for number in range(PARTITIONS)]
    partitioning = b'{"format": 1, "root": ".partitions", "by": {"k": "k"}}'
    contents = {".partitioning.json": partitioning, **dict.fromkeys(paths, b"{}")}
    server.put(f"{bucket}/data/a", contents)
    with faulty_proxy(server.address) as proxy:
        os.environ |= server.environment | {"AWS_ENDPOINT_URL": proxy.address}
        began = time.perf_counter()
        count = len(stored_partitions(f"s3://{bucket}/data", "a"))
        taken = time.perf_counter() - began
    if count != PARTITIONS:
        raise RuntimeError(f"{count} partitions were listed")
    pages = sum("list-type" in request for request in proxy.requests)
    return pages, len(proxy.requests) - pages, taken


def _tables(
    sizes: tuple[int, int],
    found: dict[tuple[int, str, str], dict[str, Figure]],
    pages: int,
    others: int,
    taken: float,
) -> tuple[list[Table], list[Goal]]:
    large, small = sizes
    moved = Table(
        f"A frame of {large} MB to an S3 server and back",
        ["", "by", "seconds", "times ours", "CPU of the client", "memory, MB"],
    )
    for way in WAYS:
        ours = found[large, way, "ours"]
        for name in ("ours", *PEERS):
            one = found[large, way, name]
            times = "" if name == "ours" else str(ratio(one["seconds"], ours["seconds"]))
            cpu, memory = one["cpu"].median, one["memory"].median
            moved.add(way, name, seconds(one["seconds"]), times, f"{cpu:.1f} s", f"{memory:.0f}")
    moved.notes.append("publish: from a file. fetch: to a file. load: into a pandas frame.")
    grown = Table("Memory of ours by the file's size, MB", ["", *(f"{size} MB" for size in sizes)])
    for way in WAYS:
        risen = [found[size, way, "ours"]["memory"].median for size in sizes]
        grown.add(way, *(f"{each:.0f}" for each in risen))
    listed = Table(f"A list of {PARTITIONS:,} partitions", ["pages", "other requests", "seconds"])
    listed.add(str(pages), str(others), f"{taken:.1f}")
    listed.notes.append("A page has at most 1,000 names. Ceph's gateway gives fewer.")
    memory = {
        way: found[large, way, "ours"]["memory"].median - found[small, way, "ours"]["memory"].median
        for way in ("publish", "fetch")
    }
    return [moved, grown, listed], [
        *(
            Goal.at_most(f"memory to {way} {large} MB beyond that of {small} MB", 16, more, " MB")
            for way, more in memory.items()
        ),
        Goal.at_most("requests to list 10,000 partitions, beside the pages", 2, others),
    ]


if __name__ == "__main__":
    _client, _way, _url, _file, _small = sys.argv[1:]
    print(json.dumps(_transfer(_client, _way, _url, Path(_file), Path(_small))))
