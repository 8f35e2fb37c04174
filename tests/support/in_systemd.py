"""Boot a systemd of our own, install deploy/ in it as its README says, and interrupt everything.

The machine is a Debian that debootstrap makes once, in a cache folder. Each boot is a layer above
it: processes, mounts, network and cgroups of its own. What happens in it is `interruptions.py`.

It needs root, Linux, unshare, overlayfs and cgroups of version 2. Debian and Ubuntu:
``apt install debootstrap``. The first boot takes some minutes more, to make the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = "trixie"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "ca-certificates", "make", "git"),
    *("python3-venv", "postgresql", "chromium"),
)
LIBRARIES = ("numba",)
PROJECT = "srv/research-jobs"
# Where a machine keeps the authorities that its network needs.
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"

BUILD = """
set -e
root=$1 suite=$2 packages=$3 project=$4
debootstrap --variant=minbase "$suite" "$root" >&2
mount --bind /proc "$root/proc"
cp /etc/resolv.conf "$root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
chroot "$root" apt-get -qq update
chroot "$root" apt-get -qq install --yes --no-install-recommends $packages >&2
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
mkdir -p "$root/$project"
cp -a "$5/." "$root/$project"
"""
# What README.md's first lines do, and what the notebooks of the proof import.
INSTALL = """
set -e
mount -t proc proc /proc
sh -e -c "$2"
runuser -u research -- "$1/.venv/bin/pip" install --quiet $3
find "$1" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -r {} +
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
WorkingDirectory=/{project}
Environment=PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ExecStart=/usr/bin/python3 /{project}/tests/support/interruptions.py {words}
ExecStopPost=/bin/sh -c 'journalctl --no-pager --output=short-precise > /mnt/exchange/journal'
StandardOutput=append:/mnt/exchange/account
StandardError=append:/mnt/exchange/account
"""


def main(words: list[str]) -> int:
    """Boot it, show the account, and return the account's exit code."""
    problem = _missing()
    if problem is not None:
        sys.stderr.write(f"{problem}\n")
        return 2
    machine = _machine()
    with tempfile.TemporaryDirectory(prefix="rj-systemd-") as folder:
        work = Path(folder)
        for name in ("upper", "work", "root", "exchange"):
            (work / name).mkdir()
        work.chmod(0o755)
        (work / "upper").chmod(0o755)
        _fill(work / "upper", machine, words)
        status = _boot(work, machine)
        journal = Path(tempfile.gettempdir(), "research-jobs-systemd.journal")
        if (work / "exchange" / "journal").exists():
            shutil.copyfile(work / "exchange" / "journal", journal)
            print(f"The journal: {journal}")
    return status


def _missing() -> str | None:
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


def _readme_commands() -> list[str]:
    """The commands of the first block of deploy/README.md."""
    text = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    block = text.partition("```sh\n")[2].partition("```")[0]
    return [line for line in block.splitlines() if line.strip()]


def _checkout(target: Path) -> None:
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
            shutil.copyfile(ROOT / name, target / name)


def _machine() -> Path:
    """The machine's file system, made when it is not there or needs other packages."""
    versions = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    parts = [*PACKAGES, *LIBRARIES, SUITE, versions, *_readme_commands()[:3]]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "research-jobs"
    machine = cache / f"systemd-{key}"
    if machine.exists():
        return machine
    print(f"Making a machine in {machine}: some minutes, once", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    making = cache / f"systemd-{key}.part"
    shutil.rmtree(making, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        _checkout(Path(folder))
        install = "\n".join(_readme_commands()[:3])
        words = [str(making), SUITE, " ".join(PACKAGES), PROJECT]
        build = ["sh", "-c", BUILD, "sh", *words, folder]
        inside = ["sh", "-c", INSTALL, "sh", f"/{PROJECT}", install, " ".join(LIBRARIES)]
        for command in (build, ["chroot", str(making), *inside]):
            subprocess.run(["unshare", "--mount", *command], check=True)
    making.rename(machine)
    return machine


def _fill(upper: Path, machine: Path, words: list[str]) -> None:
    """Put this checkout and the proof's unit over the machine's own files."""
    project = upper / PROJECT
    project.mkdir(parents=True)
    _checkout(project)
    shutil.rmtree(project / "notebooks")  # the proof brings its own
    owner = (machine / PROJECT).stat()
    (upper / "srv").chmod(0o755)
    for folder, _, files in os.walk(project):
        for name in (".", *files):
            os.chown(Path(folder, name), owner.st_uid, owner.st_gid)
    (upper / "mnt" / "exchange").mkdir(parents=True)
    commands = "\n".join(_readme_commands()[3:])
    (upper / "mnt" / "install.sh").write_text(commands + "\n", encoding="utf-8")
    units = upper / "etc" / "systemd" / "system"
    (units / "multi-user.target.wants").mkdir(parents=True)
    text = UNIT.format(project=PROJECT, words=" ".join(words))
    (units / "proof.service").write_text(text, encoding="utf-8")
    (units / "multi-user.target.wants" / "proof.service").symlink_to("../proof.service")


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


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
