"""Files that were handed in: what the ledger knows of them. Their bytes lie in the data folder."""

from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, literal, select

from tasks.errors import NotFound
from tasks.ledger.database import Database, now
from tasks.ledger.records import Upload
from tasks.ledger.tables import upload


class Uploads:
    def __init__(self, database: Database):
        self.database = database

    def add(self, new: Upload) -> Upload:
        """Note a file whose bytes are stored; ``created`` is set here."""

        def add(connection: Connection) -> None:
            connection.execute(delete(upload).where(upload.c.id == new.id))
            connection.execute(insert(upload).values(asdict(new) | {"created": now()}))

        self.database.transact(add, durable=True)
        return self.get(new.id)

    def get(self, upload_id: str, owner: str | None = None) -> Upload:
        """Raises `NotFound`."""
        query = select(upload).where(upload.c.id == upload_id)
        if owner is not None:
            query = query.where(upload.c.owner == owner)
        with self.database.read() as connection:
            found = connection.execute(query).first()
        if found is None:
            raise NotFound(f"There is no file {upload_id!r}; it may have been deleted. Upload it again.")
        return Upload(**found._asdict())

    def known(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that a file has."""
        with self.database.read() as connection:
            return set(connection.execute(select(upload.c.id).where(upload.c.id.in_(ids))).scalars())

    def newest(
        self, owner: str, purpose: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[Upload]:
        """Files of an owner, newest first: those that come ``after`` the one with this id."""
        query = select(upload).where(upload.c.owner == owner).order_by(upload.c.created.desc(), upload.c.id.desc())
        if purpose is not None:
            query = query.where(upload.c.purpose == purpose)
        if after is not None:
            last = self.get(after, owner)
            earlier = (upload.c.created == last.created) & (upload.c.id < last.id)
            query = query.where((upload.c.created < last.created) | earlier)
        with self.database.read() as connection:
            return [Upload(**row._asdict()) for row in connection.execute(query.limit(limit))]

    def delete(self, upload_id: str) -> None:
        """Forget a file; one that is not there stays so."""
        gone = delete(upload).where(upload.c.id == upload_id)
        self.database.transact(lambda connection: connection.execute(gone), durable=True)

    def outdated(self, purpose: str, seconds: float) -> list[str]:
        """Ids of the files of a purpose that were handed in longer ago."""
        old = select(upload.c.id).where(upload.c.purpose == purpose, upload.c.created < now() - literal(seconds))
        with self.database.read() as connection:
            return list(connection.execute(old).scalars())
