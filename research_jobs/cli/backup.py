"""``research-jobs backup``: store the whole project with restic, or prove the last backup."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.cli.output import print_json
from research_jobs.errors import BackupError
from research_jobs.project import Project, find_project
from research_jobs.units import readable_size
from research_jobs.upkeep.restic import KEEP, Repository

if TYPE_CHECKING:
    from research_jobs.orchestration.operations.backup import Made
    from research_jobs.orchestration.operations.prove import Proven
    from research_jobs.upkeep.proof import Checked

__all__ = ["add_arguments", "checked_line", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--to",
        metavar="TARGET",
        help="a restic repository: a folder, sftp:user@host:/path, s3:https://host/bucket "
        "(default: backup.to in the manifest)",
    )
    parser.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="the repository's password (default: the manifest's, else RESTIC_PASSWORD)",
    )
    for name in KEEP:
        parser.add_argument(
            f"--keep-{name}",
            type=int,
            metavar="N",
            help=f"keep N {name} snapshots, and remove the others that nothing keeps",
        )
    parser.add_argument(
        "--new-repository",
        action="store_true",
        help="begin a new one, or take the one that is there, in place of the one of earlier "
        "backups",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="store nothing; restore the last backup beside the project, load every output, and "
        "run deterministic notebooks again",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Exit code: 1 if what was verified is not whole, 2 if it failed."


def run(arguments: argparse.Namespace) -> int:
    """Back up, or prove."""
    from research_jobs.manifest import load_manifest
    from research_jobs.orchestration.model.instance import enter_project
    from research_jobs.orchestration.operations.backup import back_up
    from research_jobs.orchestration.operations.prove import prove

    project = find_project(arguments.project)
    password = arguments.password_file.expanduser().resolve() if arguments.password_file else None
    enter_project(project)
    spec = load_manifest(project, ()).backup
    target = arguments.to or (spec.to if spec is not None else None)
    if target is None:
        raise BackupError(
            "no repository is named", hint="Add --to TARGET, or backup: {to: ...} to the manifest."
        )
    if password is None and spec is not None and spec.password_file is not None:
        password = project.root / Path(spec.password_file).expanduser()
    keep = {
        name: count for name in KEEP if (count := getattr(arguments, f"keep_{name}")) is not None
    }
    if not keep and spec is not None and spec.keep is not None:
        keep = spec.keep.rules
    repository = Repository(target, password)
    if arguments.verify:
        proven = prove(project, repository)
        if arguments.json:
            print_json(asdict(proven) | {"wrong": proven.wrong})
        else:
            _show_proof(proven)
        return 1 if proven.wrong else 0
    made = back_up(project, repository, keep, anew=arguments.new_repository)
    if arguments.json:
        print_json(asdict(made))
    else:
        _show(project, target, made)
    return 0


def _show(project: Project, target: str, made: Made) -> None:
    stored = made.stored
    print(
        f"Snapshot {stored.snapshot} in {target}: {stored.files:,} files, "
        f"{readable_size(stored.bytes)}; {readable_size(stored.added)} were new."
    )
    if made.removed:
        print(f"Removed {made.removed} older ones.")
    if not project.store_is_local:
        print(f"The outputs in {project.store} are not in it.")
    for path in made.point.left_out:
        print(f"Left out, as it cannot be read: {path}")


def checked_line(checked: Checked | None) -> str:
    """What a check of a store has found, in one line."""
    if checked is None:
        return "The outputs are in a remote store, of which no backup is made."
    line = f"{checked.outputs:,} outputs in {checked.versions:,} versions were read"
    if checked.unproven:
        line += f" ({checked.unproven:,} without a recorded hash)"
    return f"{line}: {f'{len(checked.damaged)} damaged' if checked.damaged else 'all are whole'}."


def _show_proof(proven: Proven) -> None:
    print(f"Snapshot {proven.snapshot.id} was restored. {checked_line(proven.checked)}")
    if proven.same:
        print(f"Ran again with the same outputs: {', '.join(proven.same)}.")
    for line in proven.wrong:
        print(f"  {line}")
    for line in proven.changed:
        print(f"  note: {line}, although its last two runs had made the same")
