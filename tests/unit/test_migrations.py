"""Migrations: up and down on both databases, from nothing and from an older ledger with data in it."""

from dataclasses import replace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from tasks.errors import ConfigurationError
from tasks.ledger import Ledger
from tasks.ledger.migrate import migrate
from tasks.ledger.tables import metadata
from tasks.settings import Settings
from tasks.states import RunKind, RunState

FIRST = "0001"
OLD_ROWS = {
    "run": {
        "id": "old",
        "kind": "bulk",
        "state": "running",
        "owner": "o",
        "title": "",
        "sampling": '{"seed": 1}',
        "samples": 1,
        "prompts": 2,
        "created": 1.0,
        "fingerprint": "",
    },
    "run_model": {"run": "old", "model": "a", "position": 0, "total": 2, "done": 1, "dispatched": 0}
    | {"failed": 0, "cancelled": 0},
    "completion": {"run": "old", "model": "a", "idx": 0, "sample": 0, "text": "kept", "finish_reason": "stop"}
    | {"characters": 4, "written": 2.0, "cold": False, "attempt": 1},
}
OLD_PROMPTS = [{"run": "old", "idx": idx, "text": f"prompt {idx}"} for idx in range(2)]
OLD_CHUNKS = [
    {"run": "old", "model": "a", "first": idx, "count": 1, "lane": "bulk", "state": state, "attempt": 0}
    | {"not_before": 0, "scored": False}
    for idx, state in enumerate(["done", "pending"])
]


@pytest.fixture
def settings_of(each_ledger: Ledger, settings: Settings) -> Settings:
    url = each_ledger.database.engine.url.render_as_string(hide_password=False)
    return replace(settings, database_url=url.replace("postgresql+psycopg", "postgresql"))


def insert(ledger: Ledger, table: str, row: dict[str, Any]) -> None:
    columns, places = ", ".join(row), ", ".join(f":{name}" for name in row)
    with ledger.database.write() as connection:
        connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({places})"), row)


def test_migrated_tables_are_those_of_the_code(each_ledger: Ledger) -> None:
    with each_ledger.database.write() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_down_leaves_nothing_and_up_again_works(each_ledger: Ledger, settings_of: Settings) -> None:
    migrate(settings_of, "base")
    assert set(inspect(each_ledger.database.engine).get_table_names()) <= {"alembic_version"}
    migrate(settings_of)
    each_ledger.ping()


def test_an_older_ledger_keeps_its_data_up_and_down(each_ledger: Ledger, settings_of: Settings) -> None:
    ledger = each_ledger
    migrate(settings_of, FIRST)
    rows = [*OLD_ROWS.items(), *(("prompt", row) for row in OLD_PROMPTS), *(("chunk", row) for row in OLD_CHUNKS)]
    for table, row in rows:
        insert(ledger, table, row)
    migrate(settings_of)
    run = ledger.runs.get("old")
    assert (run.state, run.priority, run.deadline, run.counts.done) == (RunState.RUNNING, 0, None, 1)
    assert [row.text for row in ledger.completions.page("old")] == ["kept"]
    item = ledger.outbox.dispatch("a", {RunKind.ARENA: 1, RunKind.BULK: 1})[0]
    claim = ledger.chunks.claim(item.chunk, "w")
    assert claim and claim.missing == ((1, 0),)
    ledger.control.pause("old")
    migrate(settings_of, FIRST)
    with ledger.database.read() as connection:
        assert connection.execute(text("SELECT state FROM run")).scalars().all() == ["pending"]
        for table, number in (("prompt", 2), ("completion", 1), ("chunk", 2)):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == number
    migrate(settings_of)
    assert ledger.runs.get("old").state is RunState.PENDING


def test_an_unknown_revision_is_named(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match="9999"):
        migrate(settings, "9999")


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "nonsense"])
def test_an_impossible_database_is_named(settings: Settings, url: str) -> None:
    from_environment = Settings.from_environment({"TOUCHSTONE_DATABASE_URL": url})
    with pytest.raises(ConfigurationError, match=r"TOUCHSTONE_DATABASE_URL|ledger"):
        Ledger(from_environment)
