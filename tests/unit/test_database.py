"""Waits have an end, a broken connection is tried once more, and what people wrote stands in no error."""

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from tasks.conversation import NewPrompt
from tasks.errors import Unavailable
from tasks.ledger import Ledger
from tasks.ledger.database import BUSY_SECONDS, Database
from tasks.ledger.records import NewRun
from tasks.ledger.tables import prompt, run
from tasks.states import RunKind

ALL = {RunKind.ARENA: 9, RunKind.BULK: 9}


@pytest.fixture
def postgres(postgres_url: str) -> Database:
    return Database(postgres_url)


def submit(ledger: Ledger, prompts: int = 2, size: int = 1) -> str:
    new = NewRun(RunKind.BULK, "owner", {"a": size, "b": size}, {})
    return ledger.runs.submit(new, (NewPrompt("geheim") for _ in range(prompts)))[0].id


def killed(database: Database, times: int) -> tuple[Callable[[Connection], int], list[int]]:
    """Work whose connection the server ends in its middle, the first ``times`` times; and a list of its attempts."""
    attempts: list[int] = []

    def work(connection: Connection) -> int:
        attempts.append(len(attempts))
        own = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        if len(attempts) <= times:
            with database.read() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own})
        return int(connection.execute(text("SELECT 7")).scalar_one())

    return work, attempts


def test_a_broken_connection_is_tried_once_more(postgres: Database) -> None:
    work, attempts = killed(postgres, 1)
    assert postgres.transact(work) == 7 and len(attempts) == 2
    work, attempts = killed(postgres, 2)
    with pytest.raises(Unavailable):
        postgres.transact(work)
    assert len(attempts) == 2
    assert postgres.transact(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1


def test_a_claim_whose_answer_got_lost_is_found_again(each_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = each_ledger
    submit(ledger)
    item = ledger.outbox.dispatch("a", ALL)[0]
    once = ledger.database.transact
    monkeypatch.setattr(ledger.database, "transact", lambda work: (once(work), once(work))[1])
    claim = ledger.chunks.claim(item.chunk, "w")
    assert claim and claim.attempt == 1


def test_a_lock_is_not_waited_for_without_end(each_ledger: Ledger) -> None:
    ledger = each_ledger
    run_id = submit(ledger)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.database.write() as connection:
            connection.execute(update(run).where(run.c.id == run_id).values(title="held"))
            held.set()
            done.wait(BUSY_SECONDS + 5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    asked = time.monotonic()
    with pytest.raises(Unavailable):
        ledger.control.pause(run_id)
    assert time.monotonic() - asked < BUSY_SECONDS + 2
    assert ledger.runs.get(run_id).title == ""
    done.set()
    holder.join()
    ledger.control.pause(run_id)


def test_a_server_that_is_not_there_is_unavailable() -> None:
    nobody = Database("postgresql://touchstone@127.0.0.1:1/postgres")
    asked = time.monotonic()
    with pytest.raises(Unavailable, match="ledger"):
        nobody.transact(lambda connection: connection.execute(text("SELECT 1")))
    assert time.monotonic() - asked < 12


def test_what_people_wrote_is_in_no_error(each_ledger: Ledger) -> None:
    submit(each_ledger)
    twice = [{"run": "none", "idx": 0, "text": "geheim"}] * 2
    with pytest.raises(IntegrityError) as raised:
        each_ledger.database.transact(lambda connection: connection.execute(insert(prompt), twice))
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize("wish", ["cancel", "delete"])
def test_of_a_large_run_the_sweep_does_the_rest(each_ledger: Ledger, wish: str) -> None:
    ledger = each_ledger
    run_id = submit(ledger, prompts=3000)
    getattr(ledger.control, wish)(run_id)
    assert ledger.outbox.dispatch("a", ALL) == []
    with ledger.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(prompt)).scalar_one() > 0
    if wish == "cancel":
        assert 0 < ledger.runs.get(run_id).counts.pending < 6000
    while ledger.sweeper.sweep(10.0).closed:
        pass
    if wish == "cancel":
        assert ledger.runs.get(run_id).counts.cancelled == 6000
        assert ledger.runs.get(run_id).finished is not None
    else:
        with ledger.database.read() as connection:
            assert connection.execute(select(func.count()).select_from(prompt)).scalar_one() == 0
            assert connection.execute(select(func.count()).select_from(run)).scalar_one() == 0
