"""Prompts, answers made elsewhere and columns of other runs join a run in pieces: all of them are seen, or none."""

from collections.abc import Iterator

import pytest
from sqlalchemy import update

from tasks.conversation import NewPrompt
from tasks.errors import Conflict, InvalidInput, NotFound, Unavailable
from tasks.ledger import Ledger, additions, importing
from tasks.ledger.records import NewAnswer
from tasks.ledger.submission import ABANDONED_SECONDS
from tasks.ledger.tables import run as runs
from tasks.states import FinishReason, Origin, RunState
from tests.unit.growth_rows import claims, covered, number_of_rows, rows, submit, work_off


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (additions, importing):
        monkeypatch.setattr(module, "PIECE", 3)


def more(number: int, start: int = 0) -> list[NewPrompt]:
    return [NewPrompt(f"more {i}", custom_id=f"id {i}") for i in range(start, start + number)]


def stop(ledger: Ledger, run_id: str) -> None:
    """As if the process that is adding had been killed long ago."""
    with ledger.database.write() as connection:
        seen = runs.c.growth_seen - ABANDONED_SECONDS - 1
        connection.execute(update(runs).where(runs.c.id == run_id).values(growth_seen=seen))


def test_prompts_join_a_finished_run_as_if_they_had_come_with_it(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 4, samples=2)
    work_off(each_ledger, run.id)
    before = rows(each_ledger, run.id)

    def looked_at() -> Iterator[NewPrompt]:
        yield from more(7)
        assert each_ledger.runs.get(run.id).prompts == 4 == len(each_ledger.runs.prompts(run.id))
        assert not list(claims(each_ledger, "a"))
        with pytest.raises(Conflict, match="adding"):
            each_ledger.growth.add_prompts(run.id, more(1, 50), {})
        with pytest.raises(Conflict, match="adding"):
            each_ledger.growth.follow(run.id, NewPrompt("then?", follows=0))
        yield NewPrompt("turn", follows=6)

    each_ledger.growth.add_prompts(run.id, looked_at(), {"a": 3, "b": 1})
    grown = each_ledger.runs.get(run.id)
    assert (grown.prompts, grown.state, grown.counts.pending) == (12, RunState.RUNNING, 32)
    added = each_ledger.runs.prompts(run.id, 4)
    assert [one.text for one in added] == [*(one.text for one in more(7)), "turn"]
    assert added[-1].follows == 10 and all(one.created for one in added)
    ended = work_off(each_ledger, run.id)
    assert (ended.state, ended.counts.done) == (RunState.DONE, 48)
    assert all(old <= rows(each_ledger, run.id)[table] for table, old in before.items())
    for model in "ab":
        assert covered(each_ledger, run.id, model) == [(idx, sample) for idx in range(12) for sample in range(2)]
    whole = submit(each_ledger, [*each_ledger.runs.prompts(run.id, 0, 4), *more(7), NewPrompt("turn", follows=10)])
    assert whole.prompt_set == ended.prompt_set


@pytest.mark.parametrize("good", [0, 2, 7])
def test_prompts_that_are_not_handed_in_to_their_end_leave_nothing(each_ledger: Ledger, good: int) -> None:
    run = submit(each_ledger, more(3, 100))
    left = number_of_rows(each_ledger)

    def bad(error: BaseException) -> Iterator[NewPrompt]:
        yield from more(good)
        raise error

    with pytest.raises(InvalidInput, match="line 7"):
        each_ledger.growth.add_prompts(run.id, bad(InvalidInput("line 7")), {})
    with pytest.raises(InvalidInput, match="'id 101'"):
        each_ledger.growth.add_prompts(run.id, [*more(good), *more(1, 101)], {})
    with pytest.raises(InvalidInput, match="'id 101'"):
        each_ledger.growth.follow(run.id, NewPrompt("then?", follows=0, custom_id="id 101"))
    with pytest.raises(InvalidInput, match="no prompt"):
        each_ledger.growth.add_prompts(run.id, [], {})
    assert number_of_rows(each_ledger) == left
    assert each_ledger.runs.get(run.id) == run
    each_ledger.growth.add_prompts(run.id, more(1), {})


def test_a_run_takes_only_so_many_prompts(each_ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    run = submit(each_ledger, 4)
    monkeypatch.setattr(additions, "MAX_PROMPTS", 9)
    with pytest.raises(InvalidInput, match="too many"):
        each_ledger.growth.add_prompts(run.id, more(6), {})
    each_ledger.growth.add_prompts(run.id, more(5), {})
    assert each_ledger.runs.get(run.id).prompts == 9


@pytest.mark.parametrize("by", ["scorer", "next"])
def test_what_a_killed_process_left_is_cleared_and_its_late_pieces_are_refused(each_ledger: Ledger, by: str) -> None:
    run = submit(each_ledger, 4)
    left = number_of_rows(each_ledger)

    def slow() -> Iterator[NewPrompt]:
        yield from more(4)
        assert number_of_rows(each_ledger) == left + 3
        assert each_ledger.runs.discard_abandoned() == 0
        stop(each_ledger, run.id)
        if by == "scorer":
            assert each_ledger.runs.discard_abandoned() == 1
            assert number_of_rows(each_ledger) == left
        else:
            assert each_ledger.growth.follow(run.id, NewPrompt("then?", follows=0)) == 4
        yield from more(9, 20)

    with pytest.raises(Unavailable, match="slowly"):
        each_ledger.growth.add_prompts(run.id, slow(), {})
    assert each_ledger.runs.get(run.id).prompts == (4 if by == "scorer" else 5)
    each_ledger.growth.add_prompts(run.id, more(1), {})


def test_a_run_that_is_deleted_while_prompts_come_is_gone(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 4)

    def deleting() -> Iterator[NewPrompt]:
        yield from more(4)
        each_ledger.control.delete(run.id)
        yield from more(4, 10)

    with pytest.raises(Unavailable):
        each_ledger.growth.add_prompts(run.id, deleting(), {})
    each_ledger.sweeper.sweep(60)
    assert number_of_rows(each_ledger) == 0


def test_answers_made_elsewhere_become_a_column_that_nothing_computes(each_ledger: Ledger) -> None:
    talk = [NewPrompt("one", custom_id="x"), NewPrompt("two", follows=0), NewPrompt("same"), NewPrompt("same")]
    run = submit(each_ledger, talk, models="a")
    ended = work_off(each_ledger, run.id)
    before = rows(each_ledger, run.id)

    def answers() -> Iterator[NewAnswer]:
        yield NewAnswer("to one", custom_id="x", line=1)
        yield NewAnswer("to two", custom_id="x", turn=1, line=2)
        yield NewAnswer("first", prompt=" same\n", line=3)
        assert each_ledger.runs.get(run.id) == ended
        yield NewAnswer("second", prompt="same", line=4)
        yield NewAnswer("third", prompt="same", line=5)
        yield NewAnswer("nothing", custom_id="y", line=6)
        yield NewAnswer("no such sample", custom_id="x", sample=1, line=7)
        yield NewAnswer("again", custom_id="x", line=8)
        assert {row.model for row in each_ledger.completions.page(run.id)} == {"a"}

    imported = each_ledger.growth.import_answers(run.id, answers(), "GPT")
    assert imported.columns == ("GPT (imported)",)
    assert (imported.taken, imported.unmatched_count, imported.unmatched) == (4, 4, (5, 6, 7, 8))
    grown = each_ledger.runs.get(run.id)
    assert (grown.state, grown.finished, grown.counts.pending) == (RunState.DONE, ended.finished, 0)
    assert (grown.origins["GPT (imported)"], grown.growing) == (Origin.IMPORTED, ["a"])
    column = each_ledger.completions.page(run.id, "GPT (imported)")
    assert [row.text for row in column] == ["to one", "to two", "first", "second"]
    assert all(row.origin is Origin.IMPORTED and row.claimed is None for row in column)
    assert all(old <= rows(each_ledger, run.id)[table] for table, old in before.items())
    unscored = [each_ledger.scores.of_chunk(chunk) for chunk in each_ledger.scores.unscored()]
    assert [c.text for found in unscored for *_, c in found if c.model != "a"] == [row.text for row in column]
    with pytest.raises(Conflict, match="GPT"):
        each_ledger.growth.import_answers(run.id, [NewAnswer("x", custom_id="x")], "GPT")
    assert each_ledger.control.retry(run.id) == 0
    each_ledger.growth.add_samples(run.id, 1, {})
    assert each_ledger.runs.get(run.id).models["GPT (imported)"].total == 4
    assert work_off(each_ledger, run.id).counts.done == 12
    each_ledger.control.delete(run.id)
    assert number_of_rows(each_ledger) == 0


@pytest.mark.parametrize("bad", [NewAnswer("\x00", "id 0", line=9), NewAnswer("\ud800", "id 0", line=9)])
def test_answers_that_cannot_be_stored_leave_nothing(each_ledger: Ledger, bad: NewAnswer) -> None:
    run = submit(each_ledger, more(6))
    left = number_of_rows(each_ledger)
    good = [NewAnswer("fine", f"id {i}") for i in range(4)]
    with pytest.raises(InvalidInput, match="Line 9"):
        each_ledger.growth.import_answers(run.id, [*good, bad], "L")
    with pytest.raises(InvalidInput, match="label"):
        each_ledger.growth.import_answers(run.id, good, None)
    with pytest.raises(InvalidInput, match="label"):
        each_ledger.growth.import_answers(run.id, good, "x" * 60)
    assert number_of_rows(each_ledger) == left
    assert each_ledger.growth.import_answers(run.id, [NewAnswer("?", "none")], "L").columns == ()
    assert each_ledger.runs.get(run.id) == run


def test_columns_of_a_run_of_the_same_prompts_are_merged_in(each_ledger: Ledger) -> None:
    run = submit(each_ledger, 4, models="a")
    work_off(each_ledger, run.id, FinishReason.ERROR)
    other = submit(each_ledger, 4, models="ab", samples=2)
    work_off(each_ledger, other.id)
    before, theirs = rows(each_ledger, run.id), rows(each_ledger, other.id)
    each_ledger.growth.merge(run.id, other.id)
    merged = each_ledger.runs.get(run.id)
    assert list(merged.models) == ["a", "a (2)", "b"] and merged.growing == ["a"]
    assert merged.merged == {"a (2)": other.id, "b": other.id} and merged.samplings["b"] == other.sampling
    assert (merged.models["b"].done, merged.models["b"].total, merged.counts.pending) == (4, 4, 0)
    assert {row.text for row in each_ledger.completions.page(run.id, "a (2)")} == {f"a ({i}, 0)" for i in range(4)}
    assert each_ledger.completions.rendering(run.id, "b", 2) is not None
    assert all(old <= rows(each_ledger, run.id)[table] for table, old in before.items())
    assert rows(each_ledger, other.id) == theirs
    assert each_ledger.control.retry(run.id) == 4
    assert work_off(each_ledger, run.id).counts.done == 12


def test_runs_that_cannot_be_merged_are_told_why(each_ledger: Ledger) -> None:
    run, fewer = submit(each_ledger, 4, samples=2), submit(each_ledger, 4)
    open_run = submit(each_ledger, 4, samples=2)
    differs = submit(each_ledger, [NewPrompt(f"prompt {i}" if i != 2 else "else") for i in range(4)])
    shorter = submit(each_ledger, 1, samples=2)
    left = number_of_rows(each_ledger)
    for other, why in (
        (run, "itself"),
        (fewer, "add samples"),
        (open_run, "finished"),
        (differs, "prompt 3 differs"),
        (shorter, "has 4, the other 1"),
    ):
        with pytest.raises(Conflict, match=why):
            each_ledger.growth.merge(run.id, other.id)
    with pytest.raises(NotFound):
        each_ledger.growth.merge(run.id, "none")
    assert number_of_rows(each_ledger) == left
    assert each_ledger.runs.get(run.id) == run


def test_runs_are_found_and_sets_have_names(each_ledger: Ledger) -> None:
    first = submit(each_ledger, 2, title="About 100% tea", models="a")
    others = [submit(each_ledger, 3, title=f"Coffee {i}") for i in range(3)]
    digest = others[0].prompt_set or ""
    assert [(one.prompts, one.runs, one.name) for one in each_ledger.sets.all()] == [(3, 3, None), (2, 1, None)]
    for name in ("Beans", "Hot beans"):
        assert each_ledger.sets.name(digest, name).name == name
    with pytest.raises(NotFound):
        each_ledger.sets.name("none", "x")
    search = each_ledger.runs.search
    assert [one.id for one in search("TEA")[0]] == [one.id for one in search("100%")[0]] == [first.id]
    assert search("1%")[0] == search("_")[0] == []
    assert [one.id for one in search(first.id)[0]] == [first.id]
    assert {one.set_name for one in search("hot BEANS")[0]} == {"Hot beans"}
    assert len(search(prompt_set=digest, model="b", state=RunState.PENDING, owner="owner")[0]) == 3
    assert search(owner="else") == search(state=RunState.DONE) == ([], None)
    found, after = search(limit=3)
    rest, end = search(limit=3, after=after)
    assert [one.id for one in (*found, *rest)] == [one.id for one in each_ledger.runs.newest()] and end is None
    with pytest.raises(InvalidInput):
        search(after="x")
