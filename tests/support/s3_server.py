"""A real S3 server on this machine's loopback, one for a test session.

moto by default; ``RESEARCH_JOBS_TEST_S3=ceph`` takes Ceph's gateway.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ceph_server import ceph_server
from keeping import free_port

IS_MOTO = os.environ.get("RESEARCH_JOBS_TEST_S3") != "ceph"

KEYS = {"aws_access_key_id": "tester", "aws_secret_access_key": "tester"}
CREDENTIALS = {
    **{name.upper(): value for name, value in KEYS.items()},
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

    @cached_property
    def client(self) -> Any:
        """boto3's."""
        import boto3

        return boto3.client("s3", **KEYS, region_name="us-east-1", endpoint_url=self.address)

    def make_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"bucket-{secrets.token_hex(6)}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, root: str, contents: Mapping[str, bytes]) -> None:
        """Make objects below ``bucket/folder``."""
        bucket, _, folder = root.partition("/")
        for path, content in contents.items():
            self.client.put_object(Bucket=bucket, Key=f"{folder}/{path}", Body=content)

    def buckets(self) -> str:
        """The list of buckets as the server gives it."""
        with urllib.request.urlopen(self.address, timeout=30) as answer:
            return answer.read().decode()


@contextmanager
def s3_server() -> Generator[S3Server]:
    """Start a server of its own, in a process of its own."""
    if not IS_MOTO:
        with ceph_server(*KEYS.values()) as address:
            yield S3Server(address)
        return
    port = free_port()
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
