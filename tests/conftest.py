"""Fixtures that every test may use: a ledger in a folder of its own and a registry of the demo models."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import ConfigurationError
from tasks.ledger import Ledger
from tasks.ledger.migrate import migrate
from tasks.settings import ROOT, Settings
from tests.postgres import cluster, find_binaries
from worker.engine import processor  # before any test imports torch, so that TOUCHSTONE_PROCESSOR limits torch, too


def pytest_configure() -> None:
    """Refuse to run on a processor that cannot be chosen, instead of running on another."""
    try:
        processor.chosen()
    except ConfigurationError as error:
        raise pytest.UsageError(error.message) from error


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an SQLite ledger with its tables, and of a Redis that is not there."""
    made = Settings(
        redis_url="redis://127.0.0.1:1/0",
        database_url=f"sqlite:///{tmp_path / 'touchstone.db'}",
        data=tmp_path,
        models=ROOT / "models.toml",
    )
    migrate(made)
    return made


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    binaries = find_binaries()
    require(binaries is not None, "PostgreSQL")
    assert binaries is not None
    with cluster(binaries) as url:
        yield url


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    opened = Ledger(settings)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def each_ledger(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Ledger]:
    """An empty ledger on each of the two databases."""
    if request.param == "postgresql":
        settings = replace(settings, database_url=request.getfixturevalue("postgres_url"))
        migrate(settings)
    opened = Ledger(settings)
    yield opened
    opened.close()
    if request.param == "postgresql":
        migrate(settings, "base")


def require(present: bool, what: str) -> None:
    """Skip where ``what`` is missing; fail instead where services are demanded, as in CI."""
    if not present and os.environ.get("TOUCHSTONE_REQUIRE_SERVICES"):
        pytest.fail(f"{what} is missing, and TOUCHSTONE_REQUIRE_SERVICES demands it")
    if not present:
        pytest.skip(f"{what} is missing: install it to run this test")
