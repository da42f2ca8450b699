"""Migrations: up and down again on both databases, and no difference from the tables that the code knows."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from tasks.errors import ConfigurationError
from tasks.ledger import Ledger
from tasks.ledger.tables import metadata
from tasks.migrate import migrate
from tasks.settings import Settings


def test_migrated_tables_are_those_of_the_code(each_ledger: Ledger) -> None:
    with each_ledger.database.write() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_down_leaves_nothing_and_up_again_works(settings: Settings) -> None:
    ledger = Ledger(settings)
    migrate(settings, "base")
    assert set(inspect(ledger.database.engine).get_table_names()) <= {"alembic_version"}
    migrate(settings)
    ledger.ping()
    ledger.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "nonsense"])
def test_an_impossible_database_is_named(settings: Settings, url: str) -> None:
    from_environment = Settings.from_environment({"TOUCHSTONE_DATABASE_URL": url})
    with pytest.raises(ConfigurationError, match=r"TOUCHSTONE_DATABASE_URL|ledger"):
        Ledger(from_environment)
