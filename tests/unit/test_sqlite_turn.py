"""Who waits for SQLite's write lock finds the short gaps that busy writers leave, and gives up in time."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from tasks.errors import Unavailable
from tasks.ledger import database
from tasks.ledger.database import Database

HOLD_SECONDS, GAP_SECONDS = 0.1, 0.002
TRIES = 12
MOST_GAPS = 24  # who asks as seldom as SQLite itself does, ten times a second at last, finds one in three or four


def test_a_writer_finds_a_short_gap(tmp_path: Path) -> None:
    # Engines share nothing but the file, as processes do.
    busy, waiting = (Database(f"sqlite:///{tmp_path / 'ledger.db'}") for _ in range(2))
    gaps = [0]
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            busy.transact(lambda connection: time.sleep(HOLD_SECONDS))
            gaps[0] += 1
            time.sleep(GAP_SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    passed = 0
    for _ in range(TRIES):
        time.sleep(HOLD_SECONDS / 2)
        before = gaps[0]
        waiting.transact(touch)
        passed += gaps[0] - before
    over.set()
    holder.join()
    assert passed <= MOST_GAPS


def touch(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def test_what_waited_in_vain_leaves_its_connection_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    ledger = Database(f"sqlite:///{tmp_path / 'ledger.db'}")
    with ledger.write(), pytest.raises(Unavailable, match="locked"):
        Database(str(ledger.engine.url)).transact(touch)
    with ledger.read() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar_one() == 200
