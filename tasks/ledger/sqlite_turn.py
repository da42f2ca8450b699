"""SQLite's one writer: how its connections are prepared, and how a transaction that writes waits for its turn."""

import random
import sqlite3
import threading
import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from tasks.errors import Unavailable

ASK_SECONDS = 0.002  # on average, between two tries
PRIMARY = 0xFF  # of an error's code the part without the details


class SqliteTurn:
    """Begins the transactions of one engine.

    SQLite lets nobody queue for the write lock: whoever waits has to ask again. Its own busy handler soon asks but ten
    times a second, and where other writers leave gaps of less than a millisecond it may miss all of them for seconds.
    Here one thread of a process asks, hundreds of times a second, and the others wait behind it.
    """

    def __init__(self, patience: float):
        """``patience``: seconds after which a wait ends with `Unavailable`."""
        self.patience = patience
        self._asking = threading.Lock()

    def prepare(self, connection: Any, _record: Any) -> None:
        """Set a new connection of the driver up."""
        for pragma in ("journal_mode=WAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    def begin(self, connection: Connection) -> None:
        """Begin a transaction; one with the option ``writes`` takes the write lock, for which it waits."""
        options = connection.get_execution_options()
        if not options.get("writes"):
            connection.exec_driver_sql("BEGIN")
            return
        until = time.monotonic() + self.patience
        if not self._asking.acquire(timeout=self.patience):
            raise _locked()
        try:
            connection.exec_driver_sql(f"PRAGMA synchronous={'FULL' if options['durable'] else 'NORMAL'}")
            connection.exec_driver_sql("PRAGMA busy_timeout=0")
            # A transaction that reads first and writes later could not wait for the write lock: it is taken at once.
            while not _begins(connection):
                if time.monotonic() > until:
                    raise _locked()
                time.sleep(random.uniform(0.5, 1.5) * ASK_SECONDS)
        finally:
            self._asking.release()
            connection.exec_driver_sql(f"PRAGMA busy_timeout={self.patience * 1000:.0f}")


def _begins(connection: Connection) -> bool:
    try:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except OperationalError as error:
        code = error.orig.sqlite_errorcode if isinstance(error.orig, sqlite3.Error) else sqlite3.SQLITE_OK
        if code & PRIMARY == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True


def _locked() -> Unavailable:
    return Unavailable("The ledger cannot be used now (database is locked). Nothing was changed; try again.")
