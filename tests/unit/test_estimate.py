"""How long runs take: what is measured gives a range, what was never measured gives a reason and no number."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy import update

from tasks.conversation import NewPrompt
from tasks.ledger import Ledger
from tasks.ledger.records import Completion, Environment, NewRun, Run
from tasks.ledger.speeds import Measured, Recent
from tasks.ledger.tables import completion
from tasks.ledger.turns import Queued, Waiting, ahead, share
from tasks.measures.estimate import ModelEstimate, NoEstimate, Situation, combined, estimate_model, too_long
from tasks.measures.estimator import Estimator, new_run
from tasks.measures.speed import Span, Spell, Work, spells_of, time_of, tokens_a_character
from tasks.registry import Registry
from tasks.settings import Settings
from tasks.states import FinishReason, Origin, RunKind, WorkerState
from tests.web.filled import register, take

SPELL = Spell(completions=100, seconds=50.0, in_flight=32, characters=20.0, limit=64)
WORK = Work(completions=100, characters=20.0, limit=64, slots=32)
READY = Situation(1)
MODEL = "poet-small"


def measured(start: float, seconds: float, **facts: Any) -> Measured:
    given: dict[str, Any] = {"run": "r", "characters": 20, "prompt_tokens": 30, "output_tokens": 64, "batch_size": 32}
    given |= {"finish_reason": FinishReason.LENGTH, "worker": "w", "cold": False, "sampling": {}, "beside": frozenset()}
    given |= {"created": start, "claimed": start + 0.1, "admitted": start + 0.2, "written": start + seconds}
    return Measured(**given | facts)


def test_the_same_work_takes_what_it_took() -> None:
    found = time_of(WORK, [SPELL] * 8)
    assert found.low < 50.0 < found.high < 3.0 * found.low
    assert found.middle == pytest.approx(50.0, rel=0.15)


def test_twice_the_work_takes_twice_the_time_where_the_model_was_busy_all_along() -> None:
    assert time_of(replace(WORK, completions=200), [SPELL] * 8).middle == pytest.approx(100.0, rel=0.15)
    assert time_of(replace(WORK, workers=2), [SPELL] * 8).middle == pytest.approx(25.0, rel=0.15)


def test_what_was_measured_alone_tells_little_of_a_batch() -> None:
    alone = Spell(completions=1, seconds=2.0, in_flight=1, characters=20.0, limit=64)
    found = time_of(replace(WORK, completions=32), [alone])
    assert found.low < 2.0 and found.high > 64.0, "at best side by side, at worst one after the other"
    assert time_of(replace(WORK, completions=32), [alone, replace(SPELL, completions=32, seconds=9.0)]).high < 64.0


def test_models_on_the_same_cores_may_slow_each_other_down_unless_that_was_measured() -> None:
    crowded = replace(WORK, beside=frozenset({"other"}))
    assert time_of(crowded, [SPELL]).high > 1.9 * time_of(WORK, [SPELL]).high
    together = replace(SPELL, beside=frozenset({"other"}))
    assert time_of(crowded, [together]).high == pytest.approx(time_of(WORK, [SPELL]).high)


def test_another_limit_of_tokens_counts_for_answers_that_were_cut_only() -> None:
    cut = replace(SPELL, answers=((64, True), (32, False)))
    longer, shorter = (time_of(replace(WORK, limit=limit), [cut]) for limit in (640, 16))
    assert longer.high > 300.0 and longer.low < 50.0
    assert shorter.high < 30.0


spell = st.builds(
    Spell,
    completions=st.integers(1, 10**6),
    seconds=st.floats(1e-2, 1e5),
    in_flight=st.floats(1, 64),
    characters=st.floats(1, 1e4),
    limit=st.integers(1, 4096),
    answers=st.lists(st.tuples(st.integers(1, 4096), st.booleans()), max_size=3).map(tuple),
    workers=st.integers(1, 4),
)
work = st.builds(
    Work,
    completions=st.integers(1, 10**6),
    characters=st.none() | st.floats(1, 1e4),
    limit=st.integers(1, 4096),
    slots=st.integers(1, 64),
    workers=st.integers(1, 4),
)


@given(st.lists(spell, min_size=1, max_size=5), work)
def test_every_range_is_one(spells: list[Spell], asked: Work) -> None:
    found = time_of(asked, spells)
    assert 0 < found.low < found.high < float("inf")


@given(st.lists(spell, min_size=1, max_size=4), work, st.floats(0.1, 100))
def test_a_run_that_goes_on_is_told_by_its_own_speed(history: list[Spell], asked: Work, seconds: float) -> None:
    assume(asked.completions > asked.slots * asked.workers)
    recent = Recent(100_000, seconds)
    found = estimate_model(asked, history, READY, recent)
    assert found.low and found.high
    expected = seconds * asked.completions / 100_000
    assert found.low / 1.5 < expected < found.high * 1.5 and found.high < 6 * found.low


def test_the_range_narrows_while_a_run_goes_on() -> None:
    widths = []
    for done in (0, 32, 320, 3200):
        found = estimate_model(WORK, [SPELL], READY, Recent(done, done / 2.0) if done else None)
        assert found.low and found.high
        widths.append(found.high / found.low)
    assert widths == sorted(widths, reverse=True) and widths[-1] < widths[0] / 1.1


def test_without_a_measurement_there_is_a_reason_and_no_number() -> None:
    assert estimate_model(WORK, [], READY) == ModelEstimate(reason=NoEstimate.NOT_MEASURED)
    assert estimate_model(WORK, [SPELL], Situation(0)).reason is NoEstimate.NO_WORKER
    assert estimate_model(WORK, [SPELL], Situation(1, load=None)).reason is NoEstimate.FIRST_LOAD
    assert all("; " in reason.words for reason in NoEstimate)
    assert estimate_model(replace(WORK, completions=0), [], Situation(0)) == ModelEstimate(0.0, 0.0)


def test_others_and_loading_come_on_top() -> None:
    own = estimate_model(WORK, [SPELL], READY)
    late = estimate_model(WORK, [SPELL], Situation(1, Span(5.0, 10.0), ahead=200))
    assert own.low and own.high and late.low and late.high
    assert late.low > own.low + 5.0 + 30.0 and late.high > own.high + 10.0 + 100.0
    assert late.wait == pytest.approx(100.0, rel=0.15) and 5.0 < late.load < 10.0


def test_the_slowest_model_decides() -> None:
    models = {"a": ModelEstimate(1.0, 9.0), "b": ModelEstimate(2.0, 3.0)}
    assert (combined(models).low, combined(models).high) == (2.0, 9.0)
    unknown = combined(models | {"c": ModelEstimate(reason=NoEstimate.NOT_MEASURED)})
    assert (unknown.low, unknown.high) == (2.0, None)
    nothing = combined({"c": ModelEstimate(reason=NoEstimate.NOT_MEASURED)})
    assert (nothing.low, nothing.high) == (None, None)


def test_spells_end_where_nothing_is_in_flight_and_loading_is_none_of_them() -> None:
    rows = [measured(0.0, 4.0), measured(2.0, 4.0), measured(100.0, 2.0, worker="v", sampling={"max_new_tokens": 9})]
    cold = measured(200.0, 60.0, cold=True, admitted=259.0)
    newest, short, long = spells_of([cold, *reversed(rows)], {"max_new_tokens": 32}, 64)
    assert (long.completions, long.seconds, long.limit, long.in_flight, long.workers) == (2, 6.0, 32, 32, 1)
    assert (short.completions, short.limit, newest.seconds) == (1, 9, pytest.approx(1.0))


def test_time_in_a_queue_is_not_the_models() -> None:
    (spell,) = spells_of([measured(0.0, 101.0, claimed=100.0, admitted=100.1)], {}, 64)
    assert spell.seconds == pytest.approx(1.0)


def test_prompts_that_are_too_long_are_counted_and_a_guess_is_called_one() -> None:
    lengths = {10: 5, 100: 3, 1000: 2}
    assert too_long(lengths, 100, 0.5) == (2, False)
    assert too_long(lengths, 100, None) == (5, True)
    assert too_long(lengths, 10**6, None) == (0, False)
    assert too_long(lengths, None, None) == (0, False)
    rows = [measured(0, 1, characters=100, prompt_tokens=50), measured(0, 1, characters=1, prompt_tokens=30)]
    assert tokens_a_character(rows) == 0.5, "a short prompt's tokens are the template's"
    assert tokens_a_character(rows[1:]) == 30.0 and tokens_a_character([]) is None


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 30), st.integers(0, 1)), max_size=6), st.integers(1, 30)
)
def test_what_comes_first_is_what_taking_turns_comes_to(others: list[tuple[str, int, int]], number: int) -> None:
    """Plays the queue out, a completion a turn."""
    mine = Queued("mine", "x", RunKind.BULK, 0, number)
    queued = [Queued(str(i), owner, RunKind.BULK, prio, n) for i, (owner, n, prio) in enumerate(others)]
    left = {one.run: one.completions for one in [*queued, mine]}
    served: dict[str, float] = dict.fromkeys(left, 0.0)
    turn = 0
    while left["mine"]:
        waiting = [
            Waiting(one.run, one.owner, one.priority, served[one.run], 1.0, number)
            for number, one in enumerate([*queued, mine])
            if left[one.run]
        ]
        turn += 1
        (run,) = share(waiting, 1)
        left[run] -= 1
        served[run] = float(turn)
    came_first = sum(one.completions - left[one.run] for one in queued)
    # An owner that had runs that ended may be a turn ahead.
    assert abs(ahead(queued, mine) - came_first) <= 3 * len(queued) + 1


def test_arena_and_priority_come_first_and_what_comes_later_does_not() -> None:
    mine = Queued("mine", "x", RunKind.BULK, 1, 10)
    arena, urgent = Queued("a", "y", RunKind.ARENA, 0, 7), Queued("b", "y", RunKind.BULK, 2, 100)
    assert ahead([arena, urgent, Queued("c", "y", RunKind.BULK, 0, 1000), mine], mine) == 107


@pytest.fixture
def estimator(ledger: Ledger, settings: Settings) -> Estimator:
    return Estimator(ledger, Registry.load(settings.models))


def submitted(ledger: Ledger, settings: Settings, prompts: int = 10, **given: Any) -> Run:
    entries = {MODEL: Registry.load(settings.models).get(MODEL)}
    new = NewRun(RunKind.BULK, given.pop("owner", "o"), {MODEL: 5}, {}, entries=entries, **given)
    return ledger.runs.submit(new, [NewPrompt("春" * 100)] * prompts)[0]


def answered(ledger: Ledger, chunks: int = 99, origin: Origin = Origin.COMPUTED, seconds: float = 4.0) -> None:
    """Answer so many chunks, each within ``seconds``."""
    for _, claim in zip(range(chunks), take(ledger, MODEL), strict=False):
        times = {"created": claim.claimed, "enqueued": claim.claimed, "claimed": claim.claimed}
        ends: Mapping[str, float] = {"admitted": claim.claimed + 0.1, "last_token": claim.claimed + seconds}
        rows = [
            Completion(claim.run, MODEL, idx, sample, "好", FinishReason.STOP, prompt_tokens=50, output_tokens=9,
                       characters=1, batch_size=5, origin=origin, worker="w", **times, **ends)
            for idx, sample in claim.missing
        ]  # fmt: skip
        assert ledger.chunks.write(claim, rows, Environment("e", {}))
        ledger.chunks.finish(claim)
    # `written` is the ledger's clock: a test does not wait for it.
    later = update(completion).values(written=completion.c.claimed + seconds)
    ledger.database.transact(lambda connection: connection.execute(later))


def before(estimator: Estimator, prompts: int = 10, **lengths: int) -> ModelEstimate:
    sizes = {int(name[1:]): number for name, number in lengths.items()} or {100: prompts}
    return estimator.before([MODEL], sizes, prompts, 1, {}, new_run("o", RunKind.BULK)).models[MODEL]


def test_a_ledger_tells_how_long_a_run_will_take(each_ledger: Ledger, settings: Settings) -> None:
    estimator = Estimator(each_ledger, Registry.load(settings.models))
    assert before(estimator).reason is NoEstimate.NO_WORKER
    register(each_ledger, MODEL, facts={"context": 40})
    assert before(estimator).reason is NoEstimate.NOT_MEASURED
    assert (before(estimator, c10=9, c41=1).too_long, before(estimator, c10=9, c41=1).guessed) == (1, True)
    submitted(each_ledger, settings)
    answered(each_ledger, origin=Origin.CACHED)
    assert before(estimator).reason is NoEstimate.NOT_MEASURED, "a stored answer measures nothing"
    submitted(each_ledger, settings)
    answered(each_ledger)
    found = before(estimator)
    assert found.low and found.high and found.low < 4.0 < found.high < 20.0
    assert (before(estimator, c60=9, c90=1).too_long, before(estimator, c60=9, c90=1).guessed) == (1, False)
    submitted(each_ledger, settings, prompts=1000, owner="other")
    crowded = before(estimator)
    assert crowded.low and crowded.low > found.low and crowded.wait == pytest.approx(found.low * 1.5, rel=0.9)


def test_another_model_of_that_name_was_not_measured(estimator: Estimator, ledger: Ledger, settings: Settings) -> None:
    register(ledger, MODEL)
    submitted(ledger, settings)
    answered(ledger)
    assert before(estimator).reason is None
    entry = estimator.registry.models[MODEL]
    estimator.registry.models[MODEL] = entry.model_copy(update={"source": "./other"})
    register(ledger, MODEL)
    assert before(estimator).reason is NoEstimate.NOT_MEASURED


def test_a_model_that_loads_takes_that_time_too(estimator: Estimator, ledger: Ledger, settings: Settings) -> None:
    register(ledger, MODEL)
    submitted(ledger, settings)
    answered(ledger)
    ready = before(estimator)
    register(ledger, MODEL, WorkerState.LOADING)
    assert before(estimator).reason is NoEstimate.FIRST_LOAD
    register(ledger, MODEL, WorkerState.LOADING, load_seconds=60.0)
    loading = before(estimator)
    assert loading.low and ready.low and loading.low > ready.low + 30.0 and loading.load > 30.0


def test_what_is_left_of_a_run_gets_less_until_nothing_is(
    estimator: Estimator, ledger: Ledger, settings: Settings
) -> None:
    register(ledger, MODEL)
    submitted(ledger, settings)
    answered(ledger)
    run = submitted(ledger, settings, prompts=40)
    highs = [estimator.remaining(ledger.runs.get(run.id)).high]
    answered(ledger, chunks=4)
    highs.append(estimator.remaining(ledger.runs.get(run.id)).high)
    ledger.control.pause(run.id)
    assert estimator.remaining(ledger.runs.get(run.id)).models[MODEL].reason is NoEstimate.PAUSED
    ledger.control.resume(run.id)
    answered(ledger)
    done = estimator.remaining(ledger.runs.get(run.id))
    assert highs[0] and highs[1] and highs[0] > highs[1] > 0 and (done.low, done.high) == (0.0, 0.0)
