"""The files of deploy/ that go elsewhere. What a person edited there is kept."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from server.host import HOME, PROJECT, SETTINGS, Host
from server.steps import DONE, Look, Step

__all__ = ["CADDY", "UNITS", "Shipped", "caddy_site", "file_steps"]

UNITS = Path("/etc/systemd/system")
CADDY = Path("/etc/caddy/research-jobs.caddy")
LOGINS = Path("/etc/caddy/research-jobs.logins")


@dataclass(frozen=True)
class Shipped:
    """A file as this version has it.

    Parameters
    ----------
    place : Path
        Where it goes.
    content : bytes
    mode : int
    group : str
        Who may read it, beside root.
    """

    place: Path
    content: bytes
    mode: int = 0o644
    group: str = "root"

    def step(self, host: Host) -> Step:
        """The step that puts it in place, unless a person has edited it."""

        def do() -> None:
            host.write(self.place, self.content, mode=self.mode, group=self.group)
            host.book.files[str(self.place)] = _digest(self.content)
            host.remember()

        return Step(str(self.place), lambda: self._look(host), do)

    def _look(self, host: Host) -> Look:
        path = host.path(self.place)
        if not path.exists():
            return Look("to do", "write it")
        there = path.read_bytes()
        if there == self.content:
            host.book.files[str(self.place)] = _digest(there)
            return DONE
        if host.book.files.get(str(self.place)) == _digest(there):
            return Look("to do", f"replace it by this version's\n{self._difference(there)}")
        return Look("kept", f"edited here; this version's differs\n{self._difference(there)}")

    def _difference(self, there: bytes) -> str:
        lines = (there.decode(errors="replace"), self.content.decode())
        there_lines, ours = (text.splitlines() for text in lines)
        diff = difflib.unified_diff(there_lines, ours, "there", "this version's", lineterm="", n=0)
        return "\n".join(list(diff)[:40])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def file_steps(host: Host, deploy: Path) -> list[Step]:
    """All files, as a checkout's deploy/ has them.

    Parameters
    ----------
    host : Host
    deploy : Path
        That folder.
    """
    steps = [_settings_step(host, deploy / "research-jobs.env")]
    steps += [one.step(host) for one in _shipped(host, deploy)]
    return steps


def _shipped(host: Host, deploy: Path) -> Iterator[Shipped]:
    yield Shipped(HOME / "dagster.yaml", (deploy / "dagster.yaml").read_bytes())
    yield Shipped(
        Path("/usr/local/bin/research-jobs"), (deploy / "research-jobs").read_bytes(), 0o755
    )
    drop_in = UNITS / "research-jobs-.service.d" / "hardening.conf"
    yield Shipped(drop_in, (deploy / "hardening.conf").read_bytes())
    for path in sorted(deploy.glob("research-jobs-*")):
        if path.suffix in (".service", ".timer"):
            yield Shipped(UNITS / path.name, path.read_bytes())
    yield Shipped(CADDY, caddy_site(host.book.options).encode())


def caddy_site(options: dict[str, str]) -> str:
    """The part of Caddy's configuration that is ours."""
    tls = "\n\ttls internal" if options["tls"] == "internal" else ""
    login = f"\n\tbasicauth {{\n\t\timport {LOGINS}\n\t}}"
    return f"""# By deploy/install. Further sites belong in the Caddyfile; logins in {LOGINS.name}.
{options["ui_host"]} {{{tls}{login}
	reverse_proxy 127.0.0.1:3000 {{
		# The login is Caddy's business alone.
		header_up -Authorization
	}}
}}

# A host name of their own: what a notebook put into its report cannot act as the UI.
{options["reports_host"]} {{{tls}{login}
	root * {PROJECT}/reports
	file_server
}}
"""


def _settings_step(host: Host, shipped: Path) -> Step:
    """The environment file: written once, and a person's from then on."""
    ours = {
        "RESEARCH_JOBS_UI_URL": f"https://{host.book.options['ui_host']}",
        "RESEARCH_JOBS_REPORTS_URL": f"https://{host.book.options['reports_host']}",
    }

    def text() -> str:
        lines = shipped.read_text(encoding="utf-8").splitlines()
        return "\n".join([*lines, *(f"{name}={value}" for name, value in ours.items())]) + "\n"

    def look() -> Look:
        if not host.path(SETTINGS).exists():
            return Look("to do", "write it, for root alone")
        there = host.settings()
        pairs = [line.split("=", 1) for line in text().splitlines() if line[:1].isalpha()]
        missing = [name for name, _ in pairs if name not in there]
        differs = [f"{name}={ours[name]}" for name in ours if there.get(name) != ours[name]]
        if missing or differs:
            return Look("kept", f"edited here; lacks {', '.join(differs or missing)}")
        return DONE

    def do() -> None:
        host.write(SETTINGS, text().encode(), mode=0o600)

    return Step(str(SETTINGS), look, do)
