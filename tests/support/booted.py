"""A Debian that debootstrap makes once, in a cache folder, and boots under a systemd of its own.

Each boot is a layer above the machine: processes, mounts, network and cgroups of its own. What
happens in it is a unit's command, which says what it finds in files of /mnt/exchange.

It needs root, Linux, unshare, overlayfs and cgroups of version 2. Debian and Ubuntu:
``apt install debootstrap``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import tomllib

__all__ = ["PROJECT", "ROOT", "boot", "checkout", "machine", "missing", "own"]

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "srv/research-jobs"

BUILD = """
set -e
root=$1 suite=$2 packages=$3
debootstrap --variant=minbase "$suite" "$root" >&2
mount --bind /proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq install --yes --no-install-recommends $packages >&2
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
mkdir -p "$root/mnt/checkout"
cp -a "$4/." "$root/mnt/checkout"
# A root that is a mount of its own can have namespaces.
mount --bind "$root" "$root"
chroot "$root" sh -ec "mount -t proc proc /proc; $5" >&2
"""

# Runs in namespaces of its own, as process 1 of them, and becomes systemd.
BOOT = """
set -e
work=$1 lower=$2
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" "$work/root"
cd "$work/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir -p dev/pts dev/shm mnt/exchange mnt/old
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    set -- $node
    mknod -m 666 "dev/$1" c "$2" "$3"
done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount --bind "$work/exchange" mnt/exchange
ip link set lo up
hostname research
pivot_root . mnt/old
exec env -i container=unshare PATH=/usr/sbin:/usr/bin \\
    sh -c 'umount -l /mnt/old && exec /lib/systemd/systemd --log-target=journal' \\
    </dev/null >/dev/null 2>&1
"""

UNIT = """
[Unit]
Description=The proof
After=postgresql.service network.target
Wants=postgresql.service
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
Type=exec
WorkingDirectory=/
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ExecStart={command}
ExecStopPost=/bin/sh -c 'journalctl --no-pager --output=short-precise > /mnt/exchange/journal'
StandardOutput=append:/mnt/exchange/account
StandardError=append:/mnt/exchange/account
"""


def machine(suite: str, packages: Sequence[str], finish: str) -> Path:
    """The machine's file system, made when it is not there or was made from something else.

    Parameters
    ----------
    suite : str
    packages : sequence of str
    finish : str
        Commands of a shell in it, with a network, the checkout in /mnt/checkout.
    """
    # Which packages of Python's it has.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    words = [suite, *packages, finish, repr(project), pinned]
    key = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "research-jobs"
    made = cache / f"{suite}-{key}"
    if made.exists():
        return made
    print(f"Making a machine in {made}: some minutes, once", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    making = cache / f"{made.name}.part"
    shutil.rmtree(making, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        checkout(Path(folder))
        words = [str(making), suite, " ".join(packages), folder, finish]
        subprocess.run(["unshare", "--mount", "sh", "-c", BUILD, "sh", *words], check=True)
    making.rename(made)
    return made


def boot(below: Path, name: str, command: str, fill: Callable[[Path], None]) -> int:
    """Boot a machine, show the account while it is written; the exit code that it ends with.

    Parameters
    ----------
    below : Path
        The machine.
    name : str
        Of the files with journal and account that are left in the folder of temporary files.
    command : str
        What the proof's unit runs.
    fill : callable
        Takes the layer above the machine, and writes into it.
    """
    with tempfile.TemporaryDirectory(prefix="rj-systemd-") as folder:
        work = Path(folder)
        for one in ("upper", "work", "root", "exchange"):
            (work / one).mkdir()
        work.chmod(0o755)
        upper = work / "upper"
        upper.chmod(0o755)
        (upper / "mnt" / "exchange").mkdir(parents=True)
        units = upper / "etc" / "systemd" / "system"
        (units / "multi-user.target.wants").mkdir(parents=True)
        (units / "proof.service").write_text(UNIT.format(command=command), encoding="utf-8")
        (units / "multi-user.target.wants" / "proof.service").symlink_to("../proof.service")
        fill(upper)
        status = _boot(work, below)
        for one in ("journal", "account"):
            target = Path(tempfile.gettempdir(), f"{name}.{one}")
            if (work / "exchange" / one).exists():
                shutil.copyfile(work / "exchange" / one, target)
                print(f"The {one}: {target}")
    return status


def own(folder: Path, like: Path) -> None:
    """Give a folder and what is in it to the owner of another one."""
    owner = like.stat()
    for place, _, files in os.walk(folder):
        for name in (".", *files):
            os.chown(Path(place, name), owner.st_uid, owner.st_gid)


def missing() -> str | None:
    if os.geteuid() != 0:
        return "only root can boot a machine in namespaces"
    if shutil.which("debootstrap") is None:
        return "debootstrap is not there: apt install debootstrap"
    return None if _cgroups() else "no cgroups of version 2 are mounted"


def _cgroups() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    return None


def checkout(target: Path) -> None:
    """Copy what Git knows of this checkout, as it is now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def _boot(work: Path, machine: Path) -> int:
    """Show the account while it is written; return the exit code that it ends with."""
    cgroups = _cgroups()
    assert cgroups is not None
    own = cgroups / f"research-jobs-{os.getpid()}"
    own.mkdir()
    account, status = work / "exchange" / "account", work / "exchange" / "status"
    account.touch()
    machine_process = subprocess.Popen(
        [
            # The first cgroup that the machine sees is the one that its first process is in.
            *("sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', str(own)),
            *("unshare", "--pid", "--mount", "--uts", "--ipc", "--net", "--cgroup", "--fork"),
            *("--kill-child", "--propagation", "private"),
            *("bash", "-c", BOOT, "boot", str(work), str(machine)),
        ],
    )
    try:
        with account.open(encoding="utf-8", errors="replace") as lines:
            while True:
                over = machine_process.poll() is not None
                print(lines.read(), end="", flush=True)
                if over:
                    break
                time.sleep(0.5)
    finally:
        machine_process.kill()
        machine_process.wait()
        _remove(own)
    if not status.exists():
        print("The machine ended without an account.")
        return 1
    return int(status.read_text())


def _remove(group: Path) -> None:
    """Remove a cgroup and those below it, once their processes are gone."""
    for _ in range(100):
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if not group.exists():
            return
        time.sleep(0.1)
