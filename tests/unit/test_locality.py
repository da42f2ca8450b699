"""An SQLite ledger is for one host (I13)."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import ConfigurationError
from tasks.ledger.locality import check_home, note_home
from tasks.settings import Settings

ELSEWHERE = "redis://192.0.2.7:6379/0"  # an address that is nobody's


@pytest.fixture
def home(settings: Settings) -> Path:
    return Path(f"{settings.data / 'touchstone.db'}.home")


def test_a_ledger_at_home_may_be_used(settings: Settings, home: Path) -> None:
    assert home.exists(), "migrating notes it"
    check_home(settings)


def test_a_ledger_of_another_host_is_refused(settings: Settings, home: Path) -> None:
    home.write_text("another-machine\nanother-boot")
    with pytest.raises(ConfigurationError, match=r"another host.*PostgreSQL") as raised:
        check_home(settings)
    assert len(raised.value.message.splitlines()) == 1


@pytest.mark.parametrize("kept", [0, 1])
def test_a_restart_or_a_container_leaves_it_at_home(settings: Settings, home: Path, kept: int) -> None:
    known = home.read_text().split()
    if len(known) < 2:
        pytest.skip("this system has one identity only")
    home.write_text(f"other\n{known[kept]}")
    check_home(settings)


def test_a_redis_elsewhere_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.7.*PostgreSQL"):
        check_home(replace(settings, redis_url=ELSEWHERE))


def test_postgresql_may_be_anywhere(settings: Settings) -> None:
    far = replace(settings, redis_url=ELSEWHERE, database_url="postgresql://touchstone@192.0.2.7/touchstone")
    note_home(far)
    check_home(far)
