"""Run the tests that need a delegated cgroup in a Linux of their own, as an ordinary process.

User-mode Linux is a kernel that runs as a program, without privileges and without a disk image:
it sees this machine's files, read-only. In it we do as systemd does for a unit with
``Delegate=memory`` and ``DelegateSubgroup=main``, and run the tests as an ordinary user.

Debian and Ubuntu: ``apt install user-mode-linux``. It takes a minute or two.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["tests/faults/test_cgroup.py", "tests/resident/test_memory.py"]

# What the kernel starts instead of an init. The last line asks it to power off.
INIT = """#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=1777 tmp /mnt
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
unit=/sys/fs/cgroup/system.slice/jobs.service
mkdir -p $unit
echo +memory > /sys/fs/cgroup/cgroup.subtree_control
echo +memory > /sys/fs/cgroup/system.slice/cgroup.subtree_control
mkdir $unit/main
chown 1000:1000 $unit $unit/cgroup.{{procs,threads,subtree_control}} $unit/main $unit/main/cgroup.*
{python} -c 'import os, sys; os.setxattr(sys.argv[1], "user.delegate", b"1")' $unit
cd {root}
export HOME=/mnt TMPDIR=/mnt PYTHONDONTWRITEBYTECODE=1
(
    echo $BASHPID > $unit/main/cgroup.procs
    # It may read whatever root may, for the checkout may be anywhere, and write as anybody.
    exec setpriv --reuid=1000 --regid=1000 --clear-groups \\
        --inh-caps=-all,+dac_read_search --ambient-caps=-all,+dac_read_search \\
        {python} -m pytest -p no:cacheprovider --basetemp=/mnt/pytest {words}
)
status=$?
mount -t hostfs -o {exchange} none /mnt
echo $status > /mnt/status
umount /mnt
echo o > /proc/sysrq-trigger
sleep 10
"""


def main(words: list[str]) -> int:
    """Boot it, show what pytest says, and give pytest's exit code."""
    kernel = shutil.which("linux.uml")
    if kernel is None:
        sys.stderr.write("linux.uml is not there: apt install user-mode-linux\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="rj-uml-") as folder:
        init, status = Path(folder) / "init", Path(folder) / "status"
        init.write_text(
            INIT.format(
                python=shlex.quote(sys.executable),
                root=shlex.quote(str(ROOT)),
                words=shlex.join(words or TESTS),
                exchange=shlex.quote(folder),
            ),
            encoding="utf-8",
        )
        init.chmod(0o755)
        subprocess.run(
            [
                *(kernel, "mem=2G", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
                *(f"init={init}", "con=null", "con0=fd:0,fd:1", "quiet"),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            # Its memory is a file: where files are memory, that is quicker.
            env=os.environ | {"TMPDIR": "/dev/shm"},
        )
        return int(status.read_text()) if status.exists() else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
