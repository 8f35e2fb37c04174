"""Rules: what the manifest says, and what of it outlives a mistake."""

from __future__ import annotations

from research_jobs.notify.rules import Rules, rules_of

GOOD = """
alerts:
  ops: {email: a@b.ch}
  desk: {url: "${HOOK}", quiet: 22:00-07:00}
notebooks:
  garch: {alerts: none}
  risk/var: {alerts: [desk]}
heartbeat: https://x.example.com
"""


def test_rules_survive_their_record(write):
    """What is kept as JSON is the same when it is read again, and has no secret in it."""
    rules = rules_of(write(GOOD), Rules())
    assert list(rules.channels) == ["ops", "desk"]
    assert Rules.model_validate_json(rules.model_dump_json(by_alias=True)) == rules


def test_of_what_is_broken_the_last_good_version_counts(write):
    """A channel, the section, the file or a notebook's entry: only what cannot be read is kept."""
    good = rules_of(write(GOOD), Rules())
    assert rules_of(write("alerts: {"), good) == good
    assert rules_of(write("- x"), good) == good
    broken = rules_of(write(GOOD.replace("email: a@b.ch", "emial: a@b.ch")), good)
    assert broken == good
    assert rules_of(write("alerts: [x]"), good).channels == good.channels
    entry = rules_of(write(GOOD.replace("alerts: none", "alerts: none, x: 1")), good)
    assert entry == good
    changed = rules_of(write("alerts: {new: {email: a@b.ch}, ops: {emial: a@b.ch}}"), good)
    assert set(changed.channels) == {"new", "ops"}
    assert rules_of(write("notebooks: {}"), good) == Rules()


def test_what_channels_need_is_masked_in_runs_too(write):
    """The variables of passwords, addresses and the heartbeat are secrets of the project."""
    manifest = write("""
secrets: [TOKEN]
alerts:
  ops: {email: {to: a@b.ch, host: "${HOST}", user: x, password: "${PASSWORD}"}}
  desk: {url: "slack://${SLACK}"}
heartbeat: "https://x.example.com/${PING}"
""")
    assert manifest.masked == ("TOKEN", "PING", "PASSWORD", "SLACK")
