"""The JSON schema that editors use, and the models it is made from."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import jsonschema
import pytest
import yaml

from research_jobs.manifest import manifest_schema
from research_jobs.manifest.schema import schema_text

ROOT = Path(__file__).parents[2]


def _plain(value):
    """Data as an editor's YAML reader sees it: dates are texts."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def _check(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(manifest_schema())
    return [error.json_path for error in validator.iter_errors(_plain(yaml.safe_load(text)))]


def test_the_shipped_schema_is_the_models():
    """`notebooks/manifest.schema.json` is what `python -m research_jobs.manifest` writes."""
    shipped = ROOT / "notebooks" / "manifest.schema.json"
    assert shipped.read_text(encoding="utf-8") == schema_text(), (
        "run: python -m research_jobs.manifest"
    )


def test_the_command_writes_the_schema(tmp_path):
    """The command that the message above names does what it says."""
    target = tmp_path / "schema.json"
    subprocess.run(
        [sys.executable, "-m", "research_jobs.manifest", str(target)],
        check=True,
        capture_output=True,
    )
    assert json.loads(target.read_text(encoding="utf-8")) == manifest_schema()


def test_the_schema_is_a_schema():
    """Editors can use it: it follows its own meta-schema."""
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


@pytest.mark.parametrize(
    "text",
    [
        "defaults: {timeout: 30m, retries: {max: 2, delay: 30s}}",
        "defaults: {timeout: 90, retries: 2, tags: [a], memory: 2GiB}",
        "notebooks: {a: {outputs: [x]}, b: {outputs: {x: {min_rows: 1}, y: }}, c: }",
        "notebooks: {a: {partitions: {by: day, start: 2018-01-02, parameter: d}}}",
        "notebooks: {a: {partitions: {by: year, start: 2018}, automation: {on_cron: '@daily'}}}",
        "notebooks: {a: {automation: eager, after: b, watch: [x/*.csv], freshness: 24h}}",
        "notebooks: {a: {outputs: {x: {range: {c: [0, 1]}, fresh_within: 3d, schema: 'm:N'}}}}",
        "notebooks: {a: {outputs: {x: {changed: {max_share: 20%, max_change: {c: 0.5}}}}}}",
        "notebooks: {a: {variants: {eu: {r: 1}, us: }, deps: [raw/x, [a, b]]}}",
        "schedules: {s: {cron: '0 6 * * *', notebooks: a, catch_up: none}}",
        "schedules: {s: {cron: ['0 6 * * *'], notebooks: [a], catch_up: 7, enabled: false}}",
        "secrets: [A]\nreports: {url: 'https://x', keep: 3}",
        "alerts: {ops: {email: a@b.ch, quiet: '22:00-07:00', kinds: failed, remind: none}}",
        "alerts: {ops: {email: {to: [a@b.ch], from: b@b.ch}, for: {tags: [x]}, remind: 12h}}",
        "alerts: {ops: {url: '${X}', kinds: [late], quiet: {from: '22:00', to: '07:00'}}}",
        "notebooks: {a: {alerts: none}, b: {alerts: [ops]}, c: {alerts: {severity: critical}}}",
        "notebooks: {a: {deliver: a@b.ch}, b: {deliver: [ops, a@b.ch]}, c: {deliver: none}}",
        "defaults: {deliver: {to: ops, when: changed, runs: all, attach: true}}",
        "heartbeat: https://x",
        "heartbeat: {url: '${X}', every: 5m}",
        "backup: /mnt/backup",
        "backup: {to: 'sftp:h:/b', keep: {daily: 7}, password_file: /etc/p, verify: 8d}",
        "notebooks: {a: {deterministic: true}}",
        "remotes: {server: {ssh: a@b, project: /srv/x, command: /y}}",
        "retention: {runs: 60d, keep: 20, most: 500, reports: 30d, cron: '@daily', enabled: false}",
    ],
)
def test_an_editor_accepts_what_loads(text):
    """Short and long forms alike have no red line under them."""
    assert _check(text) == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("notebooks: {a: {outptus: [x]}}", "$.notebooks.a"),
        ("notebook: {}", "$"),
        ("schedules: {s: {cron: '0 6 * * *'}}", "$.schedules.s"),
        ("defaults: {concurrency: many}", "$.defaults"),
        ("notebooks: {a: {isolation: forc}}", "$.notebooks.a"),
        ("alerts: {ops: {kinds: [faild]}}", "$.alerts.ops"),
        ("alerts: {ops: {email: {host: x}}}", "$.alerts.ops"),
        ("heartbeat: {every: 5m}", "$.heartbeat"),
        ("backup: {keep: {daily: many}}", "$.backup"),
        ("remotes: {server: {ssh: a}}", "$.remotes.server"),
        ("retention: {keep: many}", "$.retention"),
    ],
)
def test_an_editor_marks_what_does_not_load(text, place):
    """Unknown keys, missing ones and wrong types are marked while they are typed."""
    found = _check(text)
    assert found
    assert all(path.startswith(place) for path in found)
