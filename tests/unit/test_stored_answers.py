"""Stored answers in the ledger: found by their keys, marked while they are computed, taken over from who is gone."""

from dataclasses import replace

import pytest
from sqlalchemy import select, text

from tasks.conversation import NewPrompt
from tasks.ledger import Ledger
from tasks.ledger.records import Claim, Completion, NewRun
from tasks.ledger.stored_answers import Found
from tasks.ledger.tables import in_flight
from tasks.states import FinishReason, Origin, RunKind
from tests.unit.test_ledger import MADE_WITH, expire, take


def claimed(ledger: Ledger, prompts: int = 1, **options: bool) -> Claim:
    """A chunk of a new run, taken by a worker."""
    new = NewRun(RunKind.BULK, "owner", {"a": prompts}, {}, **options)
    ledger.runs.submit(new, [NewPrompt("Hi")] * prompts)
    return take(ledger, "a")[0]


def answer(claim: Claim, key: str | None, said: str = "said", idx: int = 0, **changes: object) -> Completion:
    row = Completion(claim.run, "a", idx, 0, said, FinishReason.STOP, attempt=1, cache_key=key)
    return replace(row, **changes)


def write(ledger: Ledger, claim: Claim, *rows: Completion, last: bool = True) -> None:
    settled = [row.cache_key for row in rows if row.cache_key]
    assert ledger.chunks.write(claim, rows, MADE_WITH, last, settled=settled)


def marks(ledger: Ledger) -> list[str]:
    with ledger.database.read() as connection:
        return sorted(connection.execute(select(in_flight.c.key)).scalars())


def test_an_answer_is_found_with_all_that_was_stored_of_it(each_ledger: Ledger) -> None:
    ledger, first = each_ledger, claimed(each_ledger)
    assert ledger.stored_answers.take(first, ["k"]) == Found(ours=frozenset("k"))
    numbers = {"prompt_tokens": 3, "output_tokens": 5, "thinking": "hm", "thinking_tokens": 2}
    write(ledger, first, answer(first, "k", **numbers))
    found = ledger.stored_answers.take(claimed(ledger), ["k", "other"])
    assert found.ours == {"other"} and found.answers.keys() == {"k"}
    stored = found.answers["k"]
    assert (stored.text, stored.finish_reason, stored.environment) == ("said", FinishReason.STOP, MADE_WITH.id)
    assert {name: getattr(stored, name) for name in numbers} == numbers


def test_what_is_being_computed_is_nobody_elses_until_its_lease_ends(each_ledger: Ledger) -> None:
    ledger, first = each_ledger, claimed(each_ledger)
    second = claimed(ledger)
    ledger.stored_answers.take(first, ["k"])
    assert ledger.stored_answers.take(second, ["k"]) == Found()
    assert ledger.stored_answers.take(first, ["k"]).ours == {"k"}, "a chunk may come back to what is its own"
    expire(ledger)
    ledger.chunks.renew(second)
    third = claimed(ledger)
    assert ledger.stored_answers.take(second, ["k"]).ours == {"k"}
    assert ledger.stored_answers.take(third, ["k"]) == Found(), "only one takes it over"


@pytest.mark.parametrize("end", ["fail", "release", "finish", "write"])
def test_however_a_chunk_ends_its_marks_keep_nobody_waiting(each_ledger: Ledger, end: str) -> None:
    ledger, first = each_ledger, claimed(each_ledger)
    ledger.stored_answers.take(first, ["k"])
    match end:
        case "fail":
            ledger.chunks.fail(first)
        case "release":
            ledger.chunks.release([first])
        case "finish":
            ledger.chunks.finish(first)
        case "write":
            write(ledger, first, answer(first, None))
    assert ledger.stored_answers.take(claimed(ledger), ["k"]).ours == {"k"}


def test_what_has_come_to_nothing_is_free_before_its_chunk_ends(each_ledger: Ledger) -> None:
    ledger, first = each_ledger, claimed(each_ledger, prompts=2)
    ledger.stored_answers.take(first, ["k", "l"])
    failed = answer(first, None, finish_reason=FinishReason.ERROR, error="no")
    assert ledger.chunks.write(first, [failed], MADE_WITH, settled=["k"])
    assert marks(ledger) == ["l"]
    assert ledger.stored_answers.take(claimed(ledger), ["k", "l"]).ours == {"k"}


def test_the_oldest_answer_counts_and_a_copy_is_none(each_ledger: Ledger) -> None:
    ledger = each_ledger
    for said in ("first", "second"):
        one = claimed(ledger)
        write(ledger, one, answer(one, "k", said))
    copied = claimed(ledger)
    write(ledger, copied, answer(copied, "copied", origin=Origin.CACHED))
    found = ledger.stored_answers.take(claimed(ledger), ["k", "copied"])
    assert found.answers["k"].text == "first" and found.ours == {"copied"}


def test_a_deleted_runs_answers_are_gone(each_ledger: Ledger) -> None:
    ledger, first = each_ledger, claimed(each_ledger)
    write(ledger, first, answer(first, "k"))
    ledger.control.delete(first.run)
    assert ledger.stored_answers.take(claimed(ledger), ["k"]).ours == {"k"}


def test_a_chunk_whose_run_was_swept_away_computes_without_a_mark(each_ledger: Ledger) -> None:
    ledger, first = each_ledger, claimed(each_ledger)
    ledger.control.delete(first.run)
    ledger.sweeper.sweep(60)
    assert ledger.stored_answers.take(first, ["k"]).ours == {"k"} and marks(ledger) == []


def test_more_keys_than_a_statement_takes(each_ledger: Ledger) -> None:
    ledger, first = each_ledger, claimed(each_ledger, prompts=700)
    keys = [f"k{idx}" for idx in range(700)]
    assert ledger.stored_answers.take(first, keys).ours == set(keys)
    write(ledger, first, *(answer(first, key, key, idx) for idx, key in enumerate(keys)))
    found = ledger.stored_answers.take(claimed(ledger), keys)
    assert {key: one.text for key, one in found.answers.items()} == {key: key for key in keys}
    assert marks(ledger) == []


def test_the_look_up_goes_through_its_index(ledger: Ledger) -> None:
    first = claimed(ledger)
    write(ledger, first, answer(first, "k"))
    query = "SELECT text FROM completion WHERE cache_key IN ('k', 'l') AND completion.origin = 'computed'"
    with ledger.database.read() as connection:
        plan = str(connection.execute(text(f"EXPLAIN QUERY PLAN {query}")).all())
    assert "completion_by_cache_key" in plan
