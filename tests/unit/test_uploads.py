"""Files that are handed in: kept whole or not at all, under names that every database takes."""

import io
import os
from pathlib import Path

import pytest

from tasks.errors import NotFound, Unavailable
from tasks.files.uploads import KEEP_SECONDS, UploadStore
from tasks.ledger import Ledger
from tasks.ledger.database import now
from tasks.ledger.tables import upload


@pytest.fixture
def store(each_ledger: Ledger, tmp_path: Path) -> UploadStore:
    return UploadStore(each_ledger, tmp_path / "uploads")


def test_a_name_with_characters_that_no_database_stores_is_kept_without_them(store: UploadStore) -> None:
    kept = store.store(io.BytesIO(b"one"), "a\x00b\ud800.txt", "owner")
    assert kept.name == "a\ufffdb\ufffd.txt"
    with store.open(kept.id, "owner") as (found, file):
        assert (found, file.read()) == (kept, b"one")


def test_a_file_that_the_ledger_does_not_take_leaves_no_bytes(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(new: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(store.ledger.uploads, "add", away)
    with pytest.raises(Unavailable):
        store.store(io.BytesIO(b"one"), "a.txt", "owner")
    assert list(store.folder.iterdir()) == []


def test_what_another_process_has_removed_meanwhile_hinders_nobody(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.store(io.BytesIO(b"one"), "old.txt", "owner")
    with store.ledger.database.write() as connection:
        connection.execute(upload.update().values(created=now() - 2 * KEEP_SECONDS))
    store.delete(old.id)
    monkeypatch.setattr(store.ledger.uploads, "outdated", lambda *_: [old.id])
    new = store.store(io.BytesIO(b"two"), "new.txt", "owner")
    assert [path.name for path in store.folder.iterdir()] == [new.id]
    with pytest.raises(NotFound):
        store.ledger.uploads.get(old.id)


def test_bytes_that_nobody_knows_go_after_a_day(store: UploadStore) -> None:
    kept = store.store(io.BytesIO(b"one"), "kept.jsonl", "owner", "batch")
    for name in ("file-orphan", "file-draft.part", "file-new"):
        (store.folder / name).write_bytes(b"left by a process that was killed")
    for name in (kept.id, "file-orphan", "file-draft.part"):
        os.utime(store.folder / name, (0, 0))
    new = store.store(io.BytesIO(b"two"), "new.txt", "owner")
    assert {path.name for path in store.folder.iterdir()} == {kept.id, "file-new", new.id}
