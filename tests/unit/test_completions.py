"""Reading completions: pages that follow each other without gap or repetition, and samples of bounded size."""

import itertools

import pytest

from tasks.conversation import NewPrompt
from tasks.ledger import Ledger
from tasks.ledger.completions import place_of
from tasks.ledger.records import Completion, Environment, NewRun, ScoreRow
from tasks.ledger.samples import Sample, spread
from tasks.states import FinishReason, RunKind

BULK = {RunKind.ARENA: 0, RunKind.BULK: 1000}


def done(ledger: Ledger, prompts: int, samples: int = 2) -> str:
    """A run of two models, of which all is done and scored but the last prompt of the second."""
    new = NewRun(RunKind.BULK, "owner", {"b": 4, "a": 4}, {}, samples)
    run, _ = ledger.runs.submit(new, (NewPrompt(f"prompt {i}", category="x") for i in range(prompts)))
    for model in ("a", "b"):
        for item in ledger.outbox.dispatch(model, BULK):
            claim = ledger.chunks.claim(item.chunk, "w")
            assert claim
            keys = [key for key in claim.missing if (model, key[0]) != ("a", prompts - 1)]
            rows = [Completion(run.id, model, *key, f"{model}{key}", FinishReason.STOP) for key in keys]
            ledger.chunks.write(claim, rows, Environment("e", {}))
            ledger.scores.write(item.chunk, [ScoreRow(run.id, model, *key, {"m": 0.5}) for key in keys])
    return run.id


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
@pytest.mark.parametrize("model", [None, "a"])
def test_pages_follow_each_other(each_ledger: Ledger, limit: int, model: str | None) -> None:
    run = done(each_ledger, 9)
    done(each_ledger, 2)
    pages, after = [], None
    while page := each_ledger.completions.page(run, model, after, limit):
        assert len(page) <= limit
        pages.append(page)
        after = place_of(page[-1])
    places = [(row.idx, row.model, row.sample) for row in itertools.chain(*pages)]
    every = itertools.product(range(9), [model] if model else ["a", "b"], range(2))
    assert places == [place for place in every if place[:2] != (8, "a")]
    if model is None:
        assert [place_of(row) for row in each_ledger.completions.every(run)] == [
            place_of(row) for page in pages for row in page
        ]
        assert [row.idx for row in each_ledger.completions.for_prompts(run, 7, 50)] == [7] * 4 + [8] * 2


def test_a_sample_is_spread_over_a_run_or_is_the_newest_of_all(each_ledger: Ledger) -> None:
    older, newer = done(each_ledger, 20), done(each_ledger, 20)
    of_run = Sample(("a", "b"), older, size=24)
    rows = each_ledger.completions.sample(of_run)
    assert {row.run for row in rows} == {older} and len(rows) == 24
    assert [row.idx for row in rows if (row.model, row.sample) == ("b", 0)] == [0, 3, 6, 10, 13, 16]
    assert {row.run for row in each_ledger.completions.sample(Sample(("a", "b"), size=24))} == {newer}
    assert len(each_ledger.completions.sample(Sample(("a", "b"), older))) == 78
    scores = each_ledger.scores.of_sample(of_run)
    assert len(scores) == 24 and {row[2:] for row in scores} == {("x", "m", 0.5)}
    assert len({row[1] for row in scores}) == 6 + 6 - len({0, 3, 6, 9, 12, 15} & {0, 3, 6, 10, 13, 16})


def test_what_figures_are_kept_by_changes_with_every_score(each_ledger: Ledger) -> None:
    run = done(each_ledger, 4)
    state = each_ledger.scores.state(Sample(("a", "b"), run))
    done(each_ledger, 4)
    assert each_ledger.scores.state(Sample(("a", "b"), run)) == state
    assert each_ledger.scores.state(Sample(("b",), run)) != state
    assert state.count(1.0) == 2  # one chunk of each model is scored
    of_all = each_ledger.scores.state(Sample(("a", "b")))
    done(each_ledger, 4)
    assert each_ledger.scores.state(Sample(("a", "b"))) != of_all


def test_a_spread_begins_at_the_start_and_covers_all() -> None:
    assert spread(0, 5) == [] and spread(3, 5) == [0, 1, 2]
    chosen = spread(1_000_000, 1000)
    assert chosen == list(range(0, 1_000_000, 1000))
