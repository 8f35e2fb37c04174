"""Every key of the manifest changes what is loaded; none is read and forgotten."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from research_jobs.manifest import (
    DimensionSpec,
    NotebookSpec,
    OutputSpec,
    ReportsSpec,
    RetrySpec,
    ScheduleSpec,
)
from research_jobs.manifest.alerts import (
    Audience,
    ChannelSpec,
    EmailSpec,
    HeartbeatSpec,
    NotebookAlerts,
    QuietSpec,
)
from research_jobs.manifest.backup import BackupSpec, KeepSpec
from research_jobs.manifest.deliver import DeliverSpec
from research_jobs.manifest.models import Defaults, ProjectSpec
from research_jobs.manifest.remotes import RemoteSpec
from research_jobs.manifest.retention import RetentionSpec
from research_jobs.manifest.sample import SampleSpec

SHARED: dict[str, Any] = {
    "timezone": "Asia/Tokyo",
    "timeout": "10m",
    "memory": "1GiB",
    "retries": 3,
    "pool": "heavy",
    "isolation": "spawn",
    "python": "/opt/python",
    "io_manager": "duckdb",
    "owners": ["a@b.ch"],
    "tags": ["nightly"],
    "group": "desk",
    "kinds": ["pandas"],
    "environment": {"SEED": 7},
    "alerts": "none",
    "deliver": "none",
}
NOTEBOOK = SHARED | {
    "outputs": ["prices"],
    "description": "Prices.",
    "parameters": {"n": 1},
    "variants": {"eu": {"n": 2}},
    "partitions": {"by": "day", "start": "2020-01-01"},
    "dependencies": ["pandas<3"],
    "deps": ["raw/x"],
    "after": ["performance_report"],
    "automation": "eager",
    "watch": ["in/*.csv"],
    "freshness": "24h",
    "deterministic": True,
    "test": {"skip": "needs a network"},
}
OUTPUT: dict[str, Any] = {
    "description": "Closing prices.",
    "min_rows": 1,
    "max_rows": 9,
    "columns": ["a"],
    "not_null": ["a"],
    "unique": ["a"],
    "range": {"a": [0, 1]},
    "fresh_within": "3d",
    "schema": "checks:Prices",
    "changed": {"max_share": "20%", "max_change": {"a": "10%"}},
    "severity": "warn",
    "time": "a",
    "known_after": "1d",
    "compression": "gzip",
    "compression_level": 5,
    "row_group_size": 10,
    "keep": 2,
}
SCHEDULE: dict[str, Any] = {
    "cron": "@daily",
    "timezone": "Asia/Tokyo",
    "notebooks": ["volatility/garch"],
    "enabled": False,
    "catch_up": 3,
    "deliver": "a@b.ch",
    "parameters": {"n": 1},
    "description": "Nightly.",
    "tags": {"desk": "rates"},
}
DIMENSION: dict[str, Any] = {
    "by": "week",
    "start": "2021-01-01",
    "end": "2026-01-01",
    "timezone": "Asia/Tokyo",
    "offset": 1,
    "shift": "17h",
    "format": "%Y%m%d",
    "calendar": "XNYS",
    "parameter": "run_date",
}
EMAIL: dict[str, Any] = {
    "to": ["ops@example.com"],
    "from": "a@example.com",
    "host": "mail.example.com",
    "port": 2525,
    "user": "ops",
    "password": "${SMTP_PASSWORD}",
    "encryption": "tls",
}
CHANNEL: dict[str, Any] = {
    "email": "ops@example.com",
    "url": "${SLACK_URL}",
    "kinds": ["failed", "late"],
    "severity": "warning",
    "for": {"tags": {"desk": "rates"}},
    "quiet": "22:00-07:00",
    "remind": "none",
}
TABLES: list[tuple[type[BaseModel], dict[str, Any], list[str], dict[str, Any]]] = [
    (NotebookSpec, NOTEBOOK, ["notebooks", "market_data"], {}),
    (OutputSpec, OUTPUT, ["notebooks", "market_data", "outputs", "x"], {}),
    (
        ScheduleSpec,
        SCHEDULE,
        ["schedules", "s"],
        {"cron": "0 6 * * *", "notebooks": ["market_data"]},
    ),
    (
        DimensionSpec,
        DIMENSION,
        ["notebooks", "market_data", "partitions"],
        {"by": "day", "start": "2020-01-01"},
    ),
    (
        Defaults,
        SHARED | {"concurrency": 3, "working_directory": "project", "sys_path": ["lib"]},
        ["defaults"],
        {},
    ),
    (
        ReportsSpec,
        {"url": "https://r.example.com", "dagster": "https://d.example.com", "keep": 3},
        ["reports"],
        {},
    ),
    (
        RetrySpec,
        {"max": 3, "delay": "3s", "backoff": "linear", "jitter": "full"},
        ["defaults", "retries"],
        {},
    ),
    (ProjectSpec, {"prefix": "desk", "group": "research"}, [], {}),
    (EmailSpec, EMAIL, ["alerts", "ops", "email"], {"to": "a@b.ch"}),
    (ChannelSpec, CHANNEL, ["alerts", "ops"], {}),
    (
        Audience,
        {
            "notebooks": ["volatility/*"],
            "tags": ["nightly"],
            "groups": ["desk"],
            "owners": ["a@b.ch"],
        },
        ["alerts", "ops", "for"],
        {"notebooks": ["market_data"]},
    ),
    (
        QuietSpec,
        {"from": "21:00", "to": "6:30", "timezone": "Asia/Tokyo"},
        ["alerts", "ops", "quiet"],
        {"from": "22:00", "to": "07:00"},
    ),
    (
        NotebookAlerts,
        {"channels": ["ops"], "kinds": ["failed"], "severity": "critical"},
        ["notebooks", "market_data", "alerts"],
        {},
    ),
    (
        DeliverSpec,
        {"to": "a@b.ch", "when": "rows(prices) > 1", "runs": "all", "attach": True},
        ["notebooks", "market_data", "deliver"],
        {"to": "b@b.ch"},
    ),
    (
        SampleSpec,
        {
            "inputs": {"volatility/garch.fit": "fit.parquet"},
            "parameters": {"n": 1},
            "partition": "2020-01-01",
            "strict": True,
            "checks": False,
            "skip": "needs a network",
        },
        ["notebooks", "market_data", "test"],
        {},
    ),
    (
        HeartbeatSpec,
        {"url": "https://b.example.com", "every": "1m"},
        ["heartbeat"],
        {"url": "https://a.example.com"},
    ),
    (
        BackupSpec,
        {
            "to": "/mnt/other",
            "keep": {"daily": 7},
            "password_file": "/etc/password",
            "verify": "3d",
        },
        ["backup"],
        {"to": "/mnt/backup"},
    ),
    (
        KeepSpec,
        dict.fromkeys(("last", "hourly", "daily", "weekly", "monthly", "yearly"), 3),
        ["backup", "keep"],
        {},
    ),
    (
        RetentionSpec,
        {
            "runs": "60d",
            "keep": 50,
            "most": 500,
            "reports": "90d",
            "cron": "0 2 * * *",
            "enabled": False,
        },
        ["retention"],
        {},
    ),
    (
        RemoteSpec,
        {
            "ssh": "server",
            "project": "/srv/research",
            "command": "/opt/bin/research-jobs",
            "ui_port": 3010,
            "reports_port": 3011,
        },
        ["remotes", "other"],
        {},
    ),
]
CASES = [
    (path, key, value, beside)
    for _, values, path, beside in TABLES
    for key, value in values.items()
]
# Keys that say what the others mean, each with a test of its own in `test_manifest_load.py`.
ELSEWHERE = {"cron", "values", "dynamic"}


def write(path: list[str], entry: dict[str, Any]) -> str:
    """An entry of a manifest at its place, with what a channel cannot be without."""
    if path[-1:] == ["email"] and not {"user", "password"}.isdisjoint(entry):
        entry = {"user": "x", "password": "${X}"} | entry
    entry = dict(entry)
    for part in reversed(path):
        entry = {part: entry}
    if path[:1] == ["alerts"] and "url" not in (channel := entry["alerts"]["ops"]):
        channel.setdefault("email", "a@b.ch")
    elif path[-1:] == ["alerts"]:
        entry["alerts"] = {"ops": {"email": "a@b.ch"}}
    elif path[-1:] == ["deliver"]:
        entry["notebooks"]["market_data"]["outputs"] = ["prices"]
    elif path[-1:] == ["test"]:
        entry["notebooks"]["volatility/garch"] = {"outputs": ["fit"]}
    elif path == ["remotes", "other"]:
        entry["remotes"]["other"] = {"ssh": "host", "project": "/x"} | entry["remotes"]["other"]
    elif path == ["backup", "keep"]:
        entry["backup"]["to"] = "/mnt/backup"
    return yaml.safe_dump(entry)


@pytest.mark.parametrize(("model", "values"), [(t[0], t[1]) for t in TABLES])
def test_the_tables_have_every_key(model, values):
    """A key that is added has to say here what it changes."""
    keys = {field.alias or name for name, field in model.model_fields.items()}
    missing = keys - set(values)
    assert missing <= (ELSEWHERE if model is DimensionSpec else set())


@pytest.mark.parametrize(
    ("path", "key", "value", "beside"), CASES, ids=[".".join([*c[0], c[1]]) for c in CASES]
)
def test_a_key_changes_what_is_loaded(load, path, key, value, beside):
    """With the key the manifest is another one than without it, and has no mistake."""
    without = load(write(path, beside))
    with_key = load(write(path, beside | {key: value}))
    assert [str(problem.error) for problem in (*without.problems, *with_key.problems)] == []
    assert without != with_key


@pytest.mark.parametrize("key", SHARED)
def test_a_default_reaches_the_notebooks_and_gives_way(load, key):
    """What a notebook does not say comes from `defaults`; what it says itself stays."""
    of_its_own = load(write(["notebooks", "market_data"], {key: SHARED[key]}))
    by_default = load(write(["defaults"], {key: SHARED[key]}))
    assert getattr(by_default.spec("market_data"), key) == getattr(
        of_its_own.spec("market_data"), key
    )
    others = deepcopy(SHARED) | {"tags": ["other"], "environment": {"SEED": 8}, "timeout": "3h"}
    entry = {"notebooks": {"market_data": {key: SHARED[key]}}, "defaults": {key: others[key]}}
    other = load(yaml.safe_dump(entry))
    mine = getattr(other.spec("market_data"), key)
    expected = getattr(of_its_own.spec("market_data"), key)
    assert mine == ({**expected, "other": ""} if key == "tags" else expected)


NOTEBOOK = "notebooks: {market_data: {KEY: x}}"
SCHEDULE = "schedules: {a: {KEY: x}}"
PARTITIONS = "notebooks: {market_data: {partitions: {KEY: x}}}"
OUTPUT = "notebooks: {market_data: {outputs: {x: {KEY: x}}}}"
OTHER_NAMES = {
    NOTEBOOK: "output=outputs owner=owners tag=tags retry=retries params=parameters"
    " depends_on=deps env=environment partition=partitions interpreter=python mem=memory"
    " tz=timezone tests=test sample=test",
    SCHEDULE: "notebook=notebooks tz=timezone time_zone=timezone schedule=cron"
    " catchup=catch_up active=enabled params=parameters",
    PARTITIONS: "from=start to=end until=end tz=timezone fmt=format schedule=cron keys=values",
    OUTPUT: "notnull=not_null non_null=not_null",
    "defaults: {KEY: x}": "retry=retries env=environment",
    "alerts: {ops: {KEY: x}}": "on=kinds when=kinds kind=kinds events=kinds mail=email smtp=email"
    " apprise=url webhook=url quiet_hours=quiet reminder=remind level=severity only=for",
    "alerts: {ops: {email: {KEY: x}}}": "sender=from recipients=to server=host username=user"
    " login=user tls=encryption starttls=encryption ssl=encryption",
    "alerts: {ops: {quiet: {KEY: x}}}": "start=from end=to tz=timezone",
    "alerts: {ops: {for: {KEY: x}}}": "notebook=notebooks tag=tags group=groups owner=owners",
    "notebooks: {market_data: {alerts: {KEY: x}}}": "channel=channels to=channels on=kinds"
    " kind=kinds level=severity",
    "notebooks: {market_data: {deliver: {KEY: x}}}": "channels=to channel=to email=to"
    " recipients=to if=when condition=when on=runs attachment=attach",
    "notebooks: {market_data: {test: {KEY: x}}}": "input=inputs data=inputs samples=inputs"
    " params=parameters",
    "heartbeat: {KEY: x}": "interval=every",
    "backup: {KEY: x}": "target=to repository=to repo=to retention=keep password=password_file"
    " max_age=verify",
    "backup: {to: x, keep: {KEY: 1}}": "days=daily weeks=weekly months=monthly years=yearly",
    "remotes: {server: {ssh: a, project: b, KEY: x}}": "program=command",
    "remotes: {server: {KEY: x}}": "host=ssh address=ssh path=project folder=project",
    "retention: {KEY: x}": "age=runs days=runs after=runs last=keep max=most schedule=cron"
    " active=enabled",
}


@pytest.mark.parametrize(
    ("text", "names"),
    [(text, pair) for text, pairs in OTHER_NAMES.items() for pair in pairs.split()],
    ids=lambda value: value,
)
def test_another_tools_name_of_a_key_is_answered_with_ours(load, text, names):
    """A key by another tool's name gets a hint with its name here."""
    theirs, ours = names.split("=")
    said = [str(problem.error) for problem in load(text.replace("KEY", theirs)).problems]
    assert any(f"unknown key '{theirs}'" in line and f"'{ours}'" in line for line in said), said
