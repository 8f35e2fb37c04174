"""``research-jobs deliver``: a notebook's last report as a mail, sent now or looked at."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from research_jobs.cli.output import complain, print_json
from research_jobs.cli.report import add_choice, find_report
from research_jobs.errors import ResearchJobsError, did_you_mean
from research_jobs.project import find_project

if TYPE_CHECKING:
    from research_jobs.manifest.alerts import ChannelSpec
    from research_jobs.manifest.manifest import Manifest

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("notebook", metavar="NOTEBOOK")
    add_choice(parser)
    parser.add_argument(
        "--to",
        metavar="NAME",
        action="append",
        default=[],
        help="a channel of alerts or an e-mail address (default: those of the notebook's deliver)",
    )
    parser.add_argument(
        "--preview",
        metavar="FILE",
        type=Path,
        help="write the mail as a page to look at in a browser, and send nothing",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.epilog = "Conditions are not asked. Exit code: 1 when somebody did not get it."


def run(arguments: argparse.Namespace) -> int:
    """Make the mail, then write or send it."""
    from research_jobs.notify.notifier import masker_of
    from research_jobs.notify.trying import send_report
    from research_jobs.orchestration.model.addresses import report_address
    from research_jobs.orchestration.model.catalog import load_catalog
    from research_jobs.orchestration.model.instance import enter_project
    from research_jobs.orchestration.operations.entries import find_entries
    from research_jobs.report.mail_order import MailOrder
    from research_jobs.report.making import make_mail

    project = find_project(arguments.project)
    enter_project(project)
    catalog = load_catalog(project)
    entry = find_entries(catalog, [arguments.notebook])[0]
    report = find_report(project, entry.name, arguments)
    said = entry.spec.deliver
    names = arguments.to or (list(said.to) if said is not None else [])
    if not names and arguments.preview is None:
        complain(f"{entry.name} says nothing of deliver. Name somebody: --to quant@example.com.")
        return 2
    manifest = catalog.manifest
    channels = {} if arguments.preview else _channels(manifest, names)
    link = report_address(catalog, report.html)
    attach = said.attach if said is not None else None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "mail.eml"
        order = MailOrder(
            project.root.name,
            (None,),
            link is None if attach is None else attach,
            str(target),
            link,
            entry.spec.timezone or manifest.defaults.timezone,
        )
        mailed = make_mail(report.html.parent, order)
        if arguments.preview is not None:
            from research_jobs.report.mail import mail_html

            arguments.preview.write_text(mail_html(target.read_bytes()), encoding="utf-8")
            print(f"Wrote {arguments.preview}")
            return 0
        masker = masker_of(manifest, channels)
        tried = send_report(project, channels, masker, mailed.title, mailed.text, str(target))
    if arguments.json:
        print_json([asdict(one) for one in tried])
    else:
        for one in tried:
            how = "delivered" if one.ok else "not delivered"
            print(f"{one.channel}: {how} ({one.description}): {one.answer}")
    return 0 if all(one.ok for one in tried) else 1


def _channels(manifest: Manifest, names: Sequence[str]) -> dict[str, ChannelSpec]:
    from research_jobs.notify.reports import address_channel

    channels: dict[str, ChannelSpec] = {}
    for name in names:
        spec = manifest.alerts.get(name) or address_channel(name, manifest.alerts)
        if spec is None:
            hint = did_you_mean(name, manifest.alerts, label="Channels")
            raise ResearchJobsError(f"there is no channel '{name}'", hint=hint or None)
        channels[name] = spec
    return channels
