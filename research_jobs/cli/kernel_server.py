"""A Jupyter server for one kept process.

``python -m research_jobs.cli.kernel_server FOLDER PID NAME`` is that server. Every kernel that it
starts is that process: a provisioner attaches to it instead of starting one. A session exists from
the start, because that is where VS Code finds running kernels.
"""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_server.serverapp import ServerApp

from research_jobs.cli.serving_kernel import READY
from research_jobs.runtime import processes

_KERNEL = "research_jobs"


class Attached(KernelProvisionerBase):
    """The kept process, which is neither started nor ended here."""

    pid: ClassVar[int]
    connection: ClassVar[dict[str, Any]]

    @property
    def has_process(self) -> bool:
        return True

    async def poll(self) -> int | None:
        return None if processes.alive(self.pid) else 1

    async def wait(self) -> int | None:
        return 0

    async def send_signal(self, signum: int) -> None:
        if signum == signal.SIGINT:
            processes.signal_group(self.pid, signal.SIGINT)

    async def kill(self, restart: bool = False) -> None: ...

    async def terminate(self, restart: bool = False) -> None: ...

    async def cleanup(self, restart: bool = False) -> None: ...

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        manager: Any = self.parent
        manager.session.key = self.connection["key"]
        return await super().pre_launch(cmd=[], **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        del cmd, kwargs
        self.connection_info = self.connection
        return self.connection


class Specs(KernelSpecManager):
    """Knows one kind of kernel: the kept process."""

    spec: ClassVar[KernelSpec]
    folder: ClassVar[str]

    def find_kernel_specs(self) -> dict[str, str]:
        return {_KERNEL: self.folder}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        del kernel_name
        return self.spec

    def get_all_specs(self) -> dict[str, Any]:
        return {_KERNEL: {"resource_dir": self.folder, "spec": self.spec.to_dict()}}


class _Point(EntryPoint):
    """The way to the provisioner, which is not installed for other servers."""

    def load(self) -> Any:
        return Attached


def _main(folder: Path, pid: int, label: str) -> None:
    info = json.loads((folder / "kernel.json").read_bytes())
    Attached.pid, Attached.connection = pid, {**info, "key": info["key"].encode()}
    provisioners: Any = KernelProvisionerFactory.provisioners
    provisioners[_KERNEL] = _Point(_KERNEL, "attached", "attached")
    Specs.folder = str(folder)
    Specs.spec = KernelSpec(
        argv=["attached"],
        display_name=label,
        language="python",
        metadata={"kernel_provisioner": {"provisioner_name": _KERNEL, "config": {}}},
    )
    root = folder / "jupyter"
    root.mkdir(exist_ok=True)
    lab = importlib.util.find_spec("jupyterlab") is not None
    app: Any = ServerApp.instance(
        kernel_spec_manager_class=Specs,
        ip="127.0.0.1",
        port=0,
        open_browser=False,
        allow_root=True,
        terminals_enabled=False,
        root_dir=str(root),
        jpserver_extensions={"jupyterlab": True} if lab else {},
    )
    app.initialize([], find_extensions=False)
    app.kernel_manager.default_kernel_name = _KERNEL

    async def announce() -> None:
        await app.session_manager.create_session(
            path=f"{label}.ipynb", name=label, type="notebook", kernel_name=_KERNEL
        )
        part = folder / f"{READY}.part"
        part.write_text(json.dumps({"port": app.port}))
        part.replace(folder / READY)

    app.io_loop.add_callback(announce)
    app.start()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
