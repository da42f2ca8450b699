"""Brings the ledger's tables to the version that this code knows."""

from alembic import command
from alembic.config import Config

from tasks.ledger.database import Database
from tasks.locality import note_home
from tasks.settings import ROOT, Settings


def migrate(settings: Settings, revision: str = "head") -> None:
    """Create or change tables up to ``revision``, in one transaction, and note whose machine they are on.

    Raises `Unavailable`.
    """
    database = Database(settings.database_url)
    config = Config()
    config.set_main_option("script_location", str(ROOT / "tasks" / "migrations"))
    try:
        with database.write() as connection:
            config.attributes["connection"] = connection
            (command.downgrade if revision == "base" else command.upgrade)(config, revision)
    finally:
        database.engine.dispose()
    note_home(settings)
