"""What the host needs of Dagster and Alembic, and what happens where they lack it."""

from __future__ import annotations

from functools import partial

import dagster as dg
import pytest
from alembic.script import ScriptDirectory
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from hosted import Hosted
from sqlalchemy.pool import NullPool, StaticPool

from research_jobs.orchestration.compat import run_worker
from research_jobs.orchestration.compat.engines import remember_engines
from research_jobs.orchestration.compat.instance import open_instance
from research_jobs.orchestration.compat.migrations import remember_migrations


def test_an_instance_as_text(own: Hosted) -> None:
    """An instance that travels as text is the same one: a run stored in one is in the other."""
    home = own.root / "home"
    with open_instance(home) as instance:
        run = instance.create_run_for_job(dg.GraphDefinition("empty").to_job())
        text = run_worker.instance_text(instance)
    with run_worker.instance_from_text(text) as other:
        assert other.get_run_by_id(run.run_id) == run


@pytest.mark.parametrize(("module", "name"), run_worker._NEEDED)
def test_where_dagster_lacks_a_name(
    module: str, name: str, own: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one of the names nothing is asked of the host: the code server launches the run."""
    with open_instance(own.root / "home") as instance, monkeypatch.context() as patch:
        patch.delattr(f"{module}.{name}")
        with pytest.raises(ImportError):
            run_worker.instance_text(instance)


def test_migrations_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripts of one folder are one object afterwards, with the same newest revision."""
    from dagster._core.storage.sql import get_alembic_config

    original = ScriptDirectory.from_config
    config = get_alembic_config(dg.__file__.replace("__init__.py", "_core/storage/runs/x.py"))
    plain = ScriptDirectory.from_config(config)
    monkeypatch.setattr(ScriptDirectory, "from_config", partial(original))
    remember_migrations()
    remembered = ScriptDirectory.from_config(config)
    assert remembered is ScriptDirectory.from_config(config)
    assert remembered.get_current_head() == plain.get_current_head()
    once = ScriptDirectory.from_config
    remember_migrations()
    assert ScriptDirectory.from_config is once


def test_a_file_has_one_engine(own: Hosted) -> None:
    """Questions about one file share an engine, which keeps what it has compiled; files do not."""
    remember_engines()
    made = sqlite_run_storage.create_engine
    remember_engines()
    assert sqlite_run_storage.create_engine is made
    one, other = f"sqlite:///{own.root}/one.db", f"sqlite:///{own.root}/other.db"
    engine = made(one, poolclass=NullPool)
    assert made(one, poolclass=NullPool) is engine
    assert made(one, poolclass=NullPool, connect_args={"timeout": 1}) is not engine
    assert made(other, poolclass=NullPool) is not engine
    assert made(one, poolclass=StaticPool) is not made(one, poolclass=StaticPool)
    with open_instance(own.root / "home") as instance:
        run = instance.create_run_for_job(dg.GraphDefinition("empty").to_job())
        instance.report_run_failed(run, "on purpose")
        assert instance.get_run_by_id(run.run_id) != run
        assert len(instance.all_logs(run.run_id)) == 1
