"""The sections `alerts` and `heartbeat`: what is refused, and what a mistake takes away."""

from __future__ import annotations

import os
import time
from typing import get_args

import pytest

from research_jobs.manifest.alerts import _KIND_NAMES, QuietSpec
from research_jobs.manifest.kinds import Kind

REFUSED = [
    ("{}", "it has neither email nor url. Write email: ops@example.com"),
    ("{email: a@b.ch, url: '${X}'}", "it has email and url"),
    ("{email: nobody}", "'nobody' is not an address"),
    ("{email: []}", "nobody is named"),
    ("{email: {host: x}}", "'to' is missing in email. Write to: [ops@example.com]"),
    ("{email: {to: a@b.ch, user: x}}", "user and password belong together"),
    ("{email: {to: a@b.ch, user: x, password: hunter2}}", "the password is written out"),
    (
        "{email: {to: a@b.ch, host: m.ch, user: x, password: '${P}', encryption: none}}",
        "a password would travel unencrypted",
    ),
    ("{email: {to: a@b.ch, from: '$FROM'}}", "has a $ that begins no variable"),
    ("{email: {to: a@b.ch, encryption: ssl}}", "'ssl' is not one of starttls, tls, none"),
    ("{url: slack}", "this is not a URL"),
    ("{url: 'slack://a/b/c'}", "the address of slack is written out. Keep it in an environment"),
    ("{url: 'https://x.ch/y'}", "A plain webhook is jsons://..."),
    ("{url: 'json://me:pass@x.ch'}", "the address of json is written out"),
    ("{email: a@b.ch, kinds: [faild]}", "'faild' is not a kind of alert. Did you mean 'failed'"),
    ("{email: a@b.ch, severity: warn}", "Did you mean 'warning'?"),
    ("{email: a@b.ch, quiet: nights}", "'nights' are not hours"),
    ("{email: a@b.ch, quiet: 25:00-07:00}", "'25:00' is not a time of day"),
    ("{email: a@b.ch, quiet: 07:00-07:00}", "the quiet hours begin when they end"),
    ("{email: a@b.ch, quiet: 22:00-07:00 Europe/Zagre}", "Did you mean 'Europe/Zagreb'"),
    ("{email: a@b.ch, remind: 5m}", "'5m' is too often"),
    ("{email: a@b.ch, for: {}}", "for names nothing"),
    ("{email: a@b.ch, tags: [x]}", "Write for: {tags: [...]}"),
    ("[a@b.ch]", "channel ops is not a mapping. Its keys are email, url, kinds"),
]


@pytest.mark.parametrize(("entry", "said"), REFUSED, ids=[entry for entry, _ in REFUSED])
def test_a_channel_that_cannot_work_is_refused_alone(load, entry, said):
    """Each mistake has its line and a hint, and takes away that channel only."""
    manifest = load(f"alerts:\n  good: {{email: a@b.ch}}\n  ops: {entry}")
    assert list(manifest.alerts) == ["good"]
    lines = [str(problem.error) for problem in manifest.problems]
    assert any(said in line for line in lines), lines
    assert all(line.startswith("notebooks/manifest.yaml:3:") for line in lines)
    assert {(problem.scope, problem.name) for problem in manifest.problems} == {("channel", "ops")}


def test_names_that_do_not_exist_are_told_and_disable_nothing(load):
    """A notebook with an unknown channel still runs, a channel for an unknown one still tells."""
    manifest = load(
        "alerts: {ops: {email: a@b.ch, for: {notebooks: [market_dat, volatility/*]}}}\n"
        "defaults: {alerts: opss}\n"
        "notebooks:\n"
        "  market_data: {alerts: [ops, op]}\n"
        "  volatility.garch: {alerts: {channels: desk}}\n"
    )
    assert list(manifest.alerts) == ["ops"]
    assert set(manifest.notebooks) == {"market_data", "volatility/garch"}
    assert [problem.error.headline.partition("yaml:")[2] for problem in manifest.problems] == [
        "1:49: channel ops, for: there is no notebook 'market_dat'. Did you mean 'market_data'?",
        "2:20: defaults, alerts: there is no channel 'opss'. Did you mean 'ops'?",
        "4:31: notebook market_data, alerts: there is no channel 'op'. Did you mean 'ops'?",
        "5:41: notebook volatility.garch, alerts: there is no channel 'desk'. Channels: ops.",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("heartbeat: ping", "heartbeat, url: this is not a URL"),
        ("heartbeat: {every: 5m}", "heartbeat: 'url' is missing. Write url: https://..."),
        ("heartbeat: {url: 'https://x', every: 1s}", "a heartbeat is not that often"),
        ("heartbeat: 5", "heartbeat: 5 is not a mapping"),
        ("backup: {keep: {daily: 7}}", "backup, to: no repository is named. Write to: /mnt/backup"),
        ("backup: {to: x, verify: 1m}", "backup, verify: backups are not proven that often"),
        ("remotes: {a: {ssh: -x, project: y}}", "remote a, ssh: '-x' is not a host. Write a host"),
        ("remotes: {a: {ssh: x}}", "remote a: 'project' is missing"),
        ("backup: {to: x, keep: {daily: 0}}", "backup, keep.daily: "),
        ("retention: {runs: 1d}", "retention, runs: a week is the least that is kept. Write 90d."),
        ("retention: {keep: 3}", "retention, keep: the morning page shows the last 14 runs"),
        ("retention: {keep: 90, most: 20}", "retention: most (20) is less than keep (90)"),
        ("alerts: [ops]", "alerts is not a mapping. Write ops: {email: ops@example.com}"),
        ("alerts: {a: {email: a@b.ch}, a: {email: b@b.ch}}", "channel a: duplicate key 'a'"),
    ],
)
def test_a_mistake_around_channels_disables_no_notebook(load, text, said):
    """The section or the heartbeat is told of with its place; notebooks go on."""
    manifest = load(f"{text}\nnotebooks: {{market_data: {{outputs: [x]}}}}")
    assert [said in str(problem.error) for problem in manifest.problems] == [True]
    assert (manifest.heartbeat, list(manifest.notebooks)) == (None, ["market_data"])
    assert manifest.unreadable is None


def test_quiet_hours_take_the_time_zone_of_the_defaults(load):
    """Their own zone wins."""
    manifest = load(
        "defaults: {timezone: Europe/Zagreb}\n"
        "alerts:\n"
        "  a: {email: a@b.ch, quiet: 22:00-07:00}\n"
        "  b: {email: a@b.ch, quiet: 22:00-07:00 Asia/Tokyo}\n"
    )
    zones = [spec.quiet.timezone for spec in manifest.alerts.values()]
    assert zones == ["Europe/Zagreb", "Asia/Tokyo"]


@pytest.mark.parametrize(
    ("hours", "covered"),
    [
        (("22:00", "07:00"), [22, 23, 0, 1, 2, 3, 4, 5, 6]),
        (("9:00", "12:00"), [9, 10, 11]),
    ],
)
def test_quiet_hours_may_go_over_midnight(hours, covered, monkeypatch):
    """They begin with their first minute and end before the last; the machine's zone is nothing."""
    monkeypatch.setitem(os.environ, "TZ", "Asia/Tokyo")
    time.tzset()
    spec = QuietSpec.model_validate({"from": hours[0], "to": hours[1], "timezone": "Etc/GMT-2"})
    midnight = 1_764_000_000 // 86400 * 86400 - 2 * 3600  # there
    try:
        found = [hour for hour in range(24) if spec.covers(midnight + hour * 3600)]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert sorted(found) == sorted(covered)


def test_the_schema_offers_every_kind():
    """An editor completes the kinds that exist."""
    assert list(get_args(_KIND_NAMES)) == [kind.value for kind in Kind]
