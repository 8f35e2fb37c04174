"""An S3 server that people run in production, on this machine's loopback: Ceph's gateway.

A monitor, an object store in memory and the gateway, from Debian's ``ceph-mon``, ``ceph-osd`` and
``radosgw``. It takes some ten seconds to start.
"""

from __future__ import annotations

import subprocess
import tempfile
import urllib.request
import uuid
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from keeping import free_port, wait_until

CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2}/0,v1:127.0.0.1:{v1}/0]
auth cluster required = none
auth service required = none
auth client required = none
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
mon data = {folder}/mon
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 8589934592
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
[mon.a]
host = localhost
[client.rgw]
ms mon client mode = crc
rgw data = {folder}/rgw
rgw gc obj min wait = 1
rgw gc processor period = 10
rgw gc processor max time = 10
rgw frontends = beast endpoint=127.0.0.1:{port}
"""


@contextmanager
def ceph_server(key: str, secret: str) -> Generator[str]:
    """Start one for a user with this key; its address."""
    with tempfile.TemporaryDirectory(prefix="ceph-") as name, ExitStack() as stack:
        folder, store = Path(name), str(uuid.uuid4())
        for each in ("mon", "osd", "rgw"):
            (folder / each).mkdir()
        v2, v1, port = free_port(), free_port(), free_port()
        values = {"fsid": uuid.uuid4(), "folder": folder, "v2": v2, "v1": v1, "port": port}
        (folder / "ceph.conf").write_text(CONFIGURATION.format(**values))

        def command(program: str, *arguments: str) -> list[str]:
            return [program, "--conf", str(folder / "ceph.conf"), *arguments]

        def once(program: str, *arguments: str) -> None:
            """Run to the end."""
            done = subprocess.run(
                command(program, *arguments), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

        def start(program: str, *arguments: str) -> None:
            with (folder / f"{program}.out").open("wb") as out:
                process = subprocess.Popen(
                    command(program, "--no-mon-config", "-f", *arguments),
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
            stack.callback(process.wait)
            stack.callback(process.kill)

        monitors = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        names = ("--create", "--fsid", str(values["fsid"]), "--addv", "a", monitors)
        subprocess.run(["monmaptool", *names, folder / "map"], check=True, capture_output=True)
        once("ceph-mon", "-i", "a", "--mkfs", "--monmap", str(folder / "map"))
        start("ceph-mon", "-i", "a")
        once("ceph", "--connect-timeout", "30", "osd", "new", store, "0")
        once("ceph-osd", "-i", "0", "--no-mon-config", "--mkfs", "--osd-uuid", store)
        start("ceph-osd", "-i", "0")
        start("radosgw", "-n", "client.rgw")
        address = f"http://127.0.0.1:{port}"
        wait_until("the gateway", lambda: _answers(address))
        user = ("--uid", key, "--display-name", key, "--access-key", key, "--secret-key", secret)
        once("radosgw-admin", "user", "create", *user)
        yield address


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=30).close()
    except OSError:
        return False
    return True
