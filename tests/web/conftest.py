"""Fixtures of the pages' tests."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import ConfigurationError
from tasks.host import redis_server
from tasks.settings import Settings
from tests.conftest import require


@pytest.fixture
def redis_settings(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """The settings of a ledger, and of a Redis that answers."""
    try:
        redis_server.find_binary()
    except ConfigurationError:
        require(False, "redis-server")
    prepared = redis_server.prepare(tmp_path / "redis")
    process = subprocess.Popen(prepared.argv, stdout=subprocess.DEVNULL)
    redis_server.wait_until_up(prepared.url)
    yield replace(settings, redis_url=prepared.url)
    process.terminate()
    process.wait(10)
