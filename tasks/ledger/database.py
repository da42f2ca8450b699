"""Connection to the ledger's database, SQLite or PostgreSQL, through the same queries."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import Float

from tasks.errors import ConfigurationError, Unavailable
from tasks.ledger.sqlite_turn import SqliteTurn

T = TypeVar("T")

# Longest waits: for a lock, for an answer, for a process that sleeps inside a transaction.
BUSY_SECONDS = 5.0
STATEMENT_SECONDS = 30
IDLE_SECONDS = 6
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
        # On PostgreSQL each statement that reads is a transaction of its own, which saves two round trips.
        self._reader = self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction, committed for good at the end and rolled back by any exception."""
        with self._translated(), self._transaction(durable=True) as connection:
            yield connection

    def transact(self, work: Callable[[Connection], T], durable: bool = False) -> T:
        """Do ``work`` in one transaction, and once more when its connection broke or it was chosen to end a deadlock.

        What is not ``durable`` survives the end of any process of ours, but the last moments of it may be undone by a
        loss of power, or a crash of PostgreSQL, and be done again: that is right for work, not for people's wishes.

        ``work`` must do no harm when done twice: a connection that breaks in a commit does not tell if it got through.
        """
        with self._translated():
            try:
                with self._transaction(durable) as connection:
                    return work(connection)
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if not error.connection_invalidated and state not in (SERIALIZATION_FAILURE, DEADLOCK):
                    raise
            with self._transaction(durable) as connection:
                return work(connection)

    @contextmanager
    def _transaction(self, durable: bool) -> Iterator[Connection]:
        with self.engine.connect().execution_options(writes=True, durable=durable) as opened, opened.begin():
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
        key = table.primary_key.columns
        if self.is_sqlite:
            statement = sqlite.insert(table).values(**computed) if computed else sqlite.insert(table)
            return list(connection.execute(statement.on_conflict_do_nothing().returning(*key), list(rows)))
        # All rows in one parameter: thousands of parameters cost the driver more time than PostgreSQL the rows.
        columns = [Column(name, table.c[name].type) for name in rows[0]]
        given = func.json_to_recordset(bindparam("rows", type_=JSON)).table_valued(*columns, name="given")
        values = select(*given.render_derived(with_types=True).c, *computed.values())
        insert = postgresql.insert(table).from_select([*rows[0], *computed], values).on_conflict_do_nothing()
        return list(connection.execute(insert.returning(*key), {"rows": list(rows)}))

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
        turn = SqliteTurn(BUSY_SECONDS)
        event.listen(engine, "connect", turn.prepare)
        event.listen(engine, "begin", turn.begin)
        return engine
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(f"The ledger runs on SQLite or PostgreSQL, not on {parsed.get_backend_name()!r}.")
    limits = {
        "lock_timeout": BUSY_SECONDS,
        "statement_timeout": STATEMENT_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    keepalives = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": 5,
            "options": " ".join(["-c synchronous_commit=off", *(f"-c {k}={v:.0f}s" for k, v in limits.items())]),
            "tcp_user_timeout": SILENT_SECONDS * 1000,
            **keepalives,
        },
        pool_pre_ping=True,
        pool_size=8,
        pool_timeout=BUSY_SECONDS,
        # The parameters are what people wrote: they belong into no log.
        hide_parameters=True,
    )
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get("durable"):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
