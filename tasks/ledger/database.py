"""Connection to the ledger's database, SQLite or PostgreSQL, through the same queries."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float

from tasks.errors import ConfigurationError, Unavailable

T = TypeVar("T")

# Longest waits: for a lock, for an answer, for a process that sleeps inside a transaction.
BUSY_SECONDS = 5.0
STATEMENT_SECONDS = 30
IDLE_SECONDS = 15
# A peer that vanished without a word (a pulled cable) is noticed after these seconds.
SILENT_SECONDS = 10
SERIALIZATION_FAILURE, DEADLOCK = "40001", "40P01"


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
        with self._translated(), self._transaction() as connection:
            yield connection

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` in one transaction, and once more when its connection broke or it was chosen to end a deadlock.

        ``work`` must do no harm when done twice: a connection that breaks in a commit does not tell if it got through.
        """
        with self._translated():
            try:
                with self._transaction() as connection:
                    return work(connection)
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if not error.connection_invalidated and state not in (SERIALIZATION_FAILURE, DEADLOCK):
                    raise
            with self._transaction() as connection:
                return work(connection)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.connect().execution_options(writes=True) as opened, opened.begin():
            yield opened

    def try_lock(self, connection: Connection, number: int) -> bool:
        """Take the lock ``number`` until the transaction ends; False when another transaction has it.

        SQLite has one writer at a time anyway.
        """
        if self.is_sqlite:
            return True
        return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(:number)"), {"number": number}).scalar())

    def insert_new(
        self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]], **computed: Any
    ) -> list[Any]:
        """Insert ``rows`` but those whose key is there already; returns the primary keys that are new, as rows.

        ``computed`` are columns whose value is an SQL expression, the same for every row.
        """
        if not rows:
            return []
        insert: Any = sqlite.insert if self.is_sqlite else postgresql.insert
        statement = insert(table).values(**computed) if computed else insert(table)
        statement = statement.on_conflict_do_nothing().returning(*table.primary_key.columns)
        return list(connection.execute(statement, list(rows)))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise _unavailable("every connection is in use") from error
        except DBAPIError as error:
            if isinstance(error, OperationalError) or error.connection_invalidated:
                raise _unavailable(str(error.orig).splitlines()[0] if error.orig else "no connection") from error
            raise


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(f"The ledger cannot be used now ({reason}). Nothing was changed; try again.")


def _create(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except Exception as error:
        raise ConfigurationError(f"TOUCHSTONE_DATABASE_URL is not a database URL: {error}") from None
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise ConfigurationError("The ledger needs a file: set TOUCHSTONE_DATABASE_URL to sqlite:///path/to/file.")
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed,
            connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
            pool_size=8,
            pool_timeout=BUSY_SECONDS,
            hide_parameters=True,
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(f"The ledger runs on SQLite or PostgreSQL, not on {parsed.get_backend_name()!r}.")
    limits = {
        "lock_timeout": BUSY_SECONDS,
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    keepalives = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    return create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": 5,
            "options": " ".join(f"-c {name}={seconds:.0f}s" for name, seconds in limits.items()),
            "tcp_user_timeout": SILENT_SECONDS * 1000,
            **keepalives,
        },
        pool_pre_ping=True,
        pool_size=8,
        pool_timeout=BUSY_SECONDS,
        # The parameters are what people wrote: they belong into no log.
        hide_parameters=True,
    )


def _prepare_sqlite(connection: Any, record: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later cannot wait for the write lock, so writers take it at once.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
