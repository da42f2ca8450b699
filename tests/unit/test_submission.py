"""A submission is streamed into the ledger in short transactions, and is there wholly or not at all."""

import threading
import tracemalloc
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, text

from tasks.conversation import NewPrompt
from tasks.errors import Conflict, InvalidInput, Unavailable
from tasks.ledger import Ledger
from tasks.ledger.records import NewRun, Run
from tasks.ledger.submission import ABANDONED_SECONDS, PIECE
from tasks.ledger.tables import chunk, prompt, run, run_model
from tasks.states import RunKind, RunState

NEW = NewRun(RunKind.BULK, "owner", {"a": 7, "b": 300}, {"temperature": 0.5}, samples=2)
BOTH = {RunKind.ARENA: 100, RunKind.BULK: 100}


def some(number: int) -> Iterator[NewPrompt]:
    return (NewPrompt(f"prompt {i}") for i in range(number))


def rows(ledger: Ledger) -> int:
    with ledger.database.read() as connection:
        tables = (run, run_model, prompt, chunk)
        return sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in tables)


@pytest.mark.parametrize("number", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_every_prompt_is_in_one_chunk_of_each_model(each_ledger: Ledger, number: int) -> None:
    stored, is_new = each_ledger.runs.submit(NEW, some(number))
    assert is_new and stored.prompts == number
    assert {model: counts.total for model, counts in stored.models.items()} == {"a": 2 * number, "b": 2 * number}
    assert [p.text for p in each_ledger.runs.prompts(stored.id, 0, number)] == [p.text for p in some(number)]
    for model, size in NEW.chunk_sizes.items():
        query = select(chunk.c.first, chunk.c.count).where(chunk.c.model == model).order_by(chunk.c.first)
        with each_ledger.database.read() as connection:
            chunks = [(row[0], row[1]) for row in connection.execute(query)]
        assert chunks == [(first, min(size, number - first)) for first in range(0, number, size)]


def test_nothing_is_seen_of_a_run_before_all_of_it_is_there(each_ledger: Ledger) -> None:
    def looked_at() -> Iterator[NewPrompt]:
        yield from some(2 * PIECE)
        assert rows(each_ledger) > PIECE  # it is being stored already
        assert each_ledger.runs.newest() == [] and each_ledger.runs.total() == 0
        assert each_ledger.outbox.dispatch("a", BOTH) == []
        each_ledger.sweeper.sweep(10)  # which closes runs of which nothing is pending
        yield from some(1)

    stored, _ = each_ledger.runs.submit(NEW, looked_at())
    assert (stored.prompts, stored.state, stored.finished) == (2 * PIECE + 1, RunState.PENDING, None)
    assert len(each_ledger.outbox.dispatch("a", BOTH)) == 100


@pytest.mark.parametrize("good", [0, PIECE + 5, 2 * PIECE])
def test_an_error_leaves_nothing(each_ledger: Ledger, good: int) -> None:
    def bad() -> Iterator[NewPrompt]:
        yield from some(good)
        raise InvalidInput("line 7 is bad", "file")

    with pytest.raises(InvalidInput, match="line 7"):
        each_ledger.runs.submit(NEW, bad())
    with pytest.raises(InvalidInput, match="no prompt"):
        each_ledger.runs.submit(NEW, [])
    assert rows(each_ledger) == 0


def test_what_a_stopped_process_left_is_swept_away_and_cannot_come_back(each_ledger: Ledger) -> None:
    each_ledger.runs.submit(NEW, some(3))
    kept = rows(each_ledger)
    begun, go_on = threading.Event(), threading.Event()
    raised: list[BaseException] = []

    def stopping() -> Iterator[NewPrompt]:
        yield from some(2 * PIECE)
        begun.set()
        go_on.wait(20)
        yield from some(1)

    def submit() -> None:
        try:
            each_ledger.runs.submit(NEW, stopping())
        except Unavailable as error:
            raised.append(error)

    thread = threading.Thread(target=submit)
    thread.start()
    assert begun.wait(20)
    assert each_ledger.runs.discard_abandoned() == 0
    with each_ledger.database.write() as connection:
        connection.execute(text(f"UPDATE run SET created = created - {ABANDONED_SECONDS + 1} WHERE prompts = 0"))
    assert each_ledger.runs.discard_abandoned() == 1
    assert rows(each_ledger) == kept
    go_on.set()
    thread.join(20)
    assert len(raised) == 1 and rows(each_ledger) == kept


def test_a_key_used_twice_at_once_makes_one_run(each_ledger: Ledger) -> None:
    keyed = NewRun(NEW.kind, NEW.owner, NEW.chunk_sizes, NEW.sampling, idempotency_key="k")
    together = threading.Barrier(4, timeout=20)
    found: list[tuple[Run, bool]] = []

    def meeting() -> Iterator[NewPrompt]:
        yield from some(PIECE + 3)
        together.wait()

    threads = [
        threading.Thread(target=lambda: found.append(each_ledger.runs.submit(keyed, meeting()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({stored.id for stored, _ in found}) == 1
    assert sorted(is_new for _, is_new in found) == [False, False, False, True]
    left = rows(each_ledger)
    with pytest.raises(Conflict):
        each_ledger.runs.submit(keyed, some(PIECE + 4))
    assert rows(each_ledger) == left


def test_memory_does_not_grow_with_the_number_of_prompts(ledger: Ledger) -> None:
    def peak(number: int) -> int:
        tracemalloc.start()
        try:
            ledger.runs.submit(NEW, some(number))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(PIECE)  # what is made once
    assert peak(8 * PIECE) < 1.5 * peak(2 * PIECE)
