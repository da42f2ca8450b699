"""Connection to the ledger's database, SQLite or PostgreSQL, through the same queries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float

from tasks.errors import ConfigurationError, Unavailable

BUSY_SECONDS = 5.0


class now(FunctionElement[float]):  # noqa: N801 (it reads as the SQL function that it is)
    """Seconds since 1970 by the database's clock: the only clock that leases are measured with."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


class Database:
    """Hands out transactions. A lost or busy database is `Unavailable`, after a bounded wait."""

    def __init__(self, url: str):
        """``url`` as SQLAlchemy takes it: ``sqlite:///file`` or ``postgresql://…`` (psycopg 3)."""
        self.engine = _create(url)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed at the end and rolled back by any exception."""
        connect = self.engine.connect
        with self._translated(), connect().execution_options(writes=True) as opened, opened.begin():
            yield opened

    def insert_new(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> list[Any]:
        """Insert ``rows`` but those whose key is there already; returns the primary keys that are new, as rows."""
        if not rows:
            return []
        insert: Any = sqlite.insert if self.is_sqlite else postgresql.insert
        statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key.columns)
        return list(connection.execute(statement.values(rows)))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, DBAPIError) as error:
            if isinstance(error, OperationalError) or error.connection_invalidated:
                reason = str(error.orig).splitlines()[0] if error.orig else "no connection"
                raise Unavailable(
                    f"The ledger cannot be used now ({reason}). Nothing was changed; try again."
                ) from error
            raise


def _create(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except Exception as error:
        raise ConfigurationError(f"TOUCHSTONE_DATABASE_URL is not a database URL: {error}") from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("The ledger needs a file: set TOUCHSTONE_DATABASE_URL to sqlite:///path/to/file.")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None}, pool_size=8)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(f"The ledger runs on SQLite or PostgreSQL, not on {parsed.get_backend_name()!r}.")
    options = f"-c lock_timeout={BUSY_SECONDS:.0f}s -c statement_timeout=60s"
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": 5, "options": options},
        pool_pre_ping=True,
        pool_size=8,
        pool_timeout=BUSY_SECONDS,
    )


def _prepare_sqlite(connection: Any, record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for the write lock, so writers take it at once.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
