"""Brings the ledger's tables to a version, up or down; the newest is the one that this code knows."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text

from tasks.errors import ConfigurationError
from tasks.ledger.database import Database
from tasks.ledger.locality import note_home
from tasks.settings import Settings

MIGRATION_LOCK = 7_061_002


def migrate(settings: Settings, revision: str = "head") -> None:
    """Create or change tables until they are at ``revision``, in one transaction, and note whose machine they are on.

    Raises `Unavailable`, and `ConfigurationError` for a revision that there is not.
    """
    database = Database(settings.database_url)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    script = ScriptDirectory.from_config(config)
    try:
        with database.write() as connection:
            if not database.is_sqlite:
                # Several services may start at once: one migrates, the others wait for it, as long as it takes.
                connection.execute(text("SET LOCAL lock_timeout = 0"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            current = MigrationContext.configure(connection).get_current_revision()
            (command.downgrade if _is_below(script, revision, current) else command.upgrade)(config, revision)
    except CommandError as error:
        known = ", ".join(one.revision for one in script.walk_revisions())
        raise ConfigurationError(f"There is no way to revision {revision} ({error}); there are {known}.") from None
    finally:
        database.engine.dispose()
    note_home(settings)


def _is_below(script: ScriptDirectory, revision: str, current: str | None) -> bool:
    """Whether the way from ``current`` to ``revision`` leads down."""
    if current is None or revision == "head":
        return False
    if revision == "base":
        return True
    return revision != current and revision in {one.revision for one in script.iterate_revisions(current, "base")}
