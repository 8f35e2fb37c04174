"""A real S3 server on this machine's loopback, one for a test session."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "tester",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass(frozen=True)
class S3Server:
    """Where it listens."""

    address: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to find it."""
        return CREDENTIALS | {"AWS_ENDPOINT_URL": self.address}

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        request = urllib.request.Request(f"{self.address}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=30).close()
        return name

    def buckets(self) -> str:
        """The list of buckets as the server gives it."""
        with urllib.request.urlopen(self.address, timeout=30) as answer:
            return answer.read().decode()


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Start a server of its own, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | CREDENTIALS,
    )
    server = S3Server(f"http://127.0.0.1:{port}")
    try:
        for _ in range(300):
            try:
                server.buckets()
                break
            except OSError:
                assert process.poll() is None, "the S3 server ended"
                time.sleep(0.1)
        else:
            raise AssertionError("the S3 server does not answer")
        yield server
    finally:
        process.kill()
        process.wait()
