"""Scenes on each of the two databases; what their processes said is shown when a test fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tasks.errors import ConfigurationError
from tasks.host.redis_server import find_binary
from tests.conftest import require
from tests.faults.deployment import REAL, Scene
from tests.postgres import Cluster, find_binaries


@contextmanager
def database_of(request: pytest.FixtureRequest, kind: str, folder: Path) -> Iterator[str]:
    """URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'touchstone.db'}"
        return
    server = request.getfixturevalue("postgres_url")
    name = f"scene_{folder.name}".replace("-", "_").lower()[:60]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    try:
        yield server.replace("/postgres?", f"/{name}?")
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def opened(request: pytest.FixtureRequest, database: str, folder: Path, **options: Any) -> Iterator[Scene]:
    try:
        find_binary()
    except ConfigurationError:
        require(False, "redis-server")
    with database_of(request, database, folder) as url:
        scene = Scene(folder, url, **options)
        try:
            yield scene
        finally:
            scene.end()
            print(scene.logs())


@pytest.fixture(params=["sqlite", "postgresql"])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A scene on each database."""
    with opened(request, request.param, tmp_path) as made:
        yield made


@pytest.fixture
def sqlite_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with opened(request, "sqlite", tmp_path) as made:
        yield made


@pytest.fixture
def postgres_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    with opened(request, "postgresql", tmp_path) as made:
        yield made


@pytest.fixture
def real_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A scene whose workers run a real demo model, on PostgreSQL."""
    with opened(request, "postgresql", tmp_path, kind=REAL) as made:
        yield made


@pytest.fixture
def calm_scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    """A scene with a real demo model and the intervals that everybody has by default."""
    with opened(request, "sqlite", tmp_path, kind=REAL, times={}) as made:
        yield made


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that this test may stop."""
    binaries = find_binaries()
    require(binaries is not None, "PostgreSQL")
    assert binaries is not None
    with Cluster.running(binaries) as cluster:
        yield cluster
