"""Decisions of the scheduler, and how attention's calls are shared out. No model."""

from itertools import product

import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.sampling import Sampling
from tasks.states import FinishReason
from tests.engine.tiny import character_tokenizer
from worker.engine.batch import Span, partition
from worker.engine.detokenizer import Detokenizer
from worker.engine.protocol import Request
from worker.engine.scheduler import Copy, Plan, Scheduler
from worker.engine.sequence import Sequence


def sequence(order: int, tokens: list[int], priority: int = 0) -> Sequence:
    request = Request(str(order), "", Sampling(), priority)
    return Sequence(request, order, tokens, 9, FinishReason.LENGTH, Detokenizer(character_tokenizer()))


def play(scheduler: Scheduler) -> Plan:
    """One step in which every sequence that may gets token 7."""
    plan = scheduler.plan()
    for chunk in plan.chunks:
        chunk.sequence.cached = chunk.length
        if chunk.samples:
            chunk.sequence.tokens.append(7)
    return plan


steps = st.lists(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 1), st.integers(1, 6)), max_size=3), min_size=1, max_size=12
)


@given(steps, st.integers(1, 9), st.integers(1, 20), st.booleans())
def test_every_sequence_is_read_once_in_order(
    arrivals: list[list[tuple[int, int, int]]], slots: int, prefill: int, fixed: bool
) -> None:
    scheduler = Scheduler(slots, prefill, fixed_chunks=fixed)
    left: dict[Sequence, int] = {}
    number = 0
    content: dict[int, list[int]] = {slot: [] for slot in range(slots)}
    for _ in range(2000):
        for length, priority, wanted in arrivals.pop(0) if arrivals else []:
            number += 1
            made = sequence(number, [5, 6] * length, priority)
            left[made] = wanted
            scheduler.add(made)
        if not arrivals and not scheduler.count:
            break
        plan = scheduler.plan()
        assert len(plan.chunks) or not scheduler.count
        for copy in plan.copies:
            content[copy.target] = content[copy.source][: copy.count]
        slots_used = [chunk.sequence.slot for chunk in plan.chunks]
        assert slots_used == sorted(set(slots_used))
        assert sum(s.request.priority > 0 for s in scheduler.running) <= slots - scheduler.reserve
        for chunk in plan.chunks:
            owner = chunk.sequence
            assert owner.cached == chunk.start and chunk.count >= 1
            held = content[owner.slot]
            assert held[: chunk.start] == owner.tokens[: chunk.start]
            content[owner.slot] = owner.tokens[: chunk.length]
            owner.cached = chunk.length
            if chunk.samples:
                owner.tokens.append(7)
                left[owner] -= 1
                if left[owner] == 0:
                    owner.reason = FinishReason.LENGTH
        assert sum(chunk.count for chunk in plan.chunks if chunk.count > 1) <= prefill * 4
        scheduler.drop_ended()
    assert not scheduler.count and all(wanted == 0 for wanted in left.values())


def test_a_running_row_waits_for_no_more_than_the_share_of_prompts() -> None:
    scheduler = Scheduler(4, 8)
    scheduler.add(sequence(1, [1]))
    play(scheduler)
    scheduler.add(sequence(2, [2] * 50))
    assert [chunk.count for chunk in play(scheduler).chunks] == [1, 8]


def test_the_urgent_take_the_slot_of_the_last_that_can_wait() -> None:
    scheduler = Scheduler(4, 8)
    for order in range(1, 7):
        scheduler.add(sequence(order, [order], priority=1))
    play(scheduler)
    assert [s.order for s in scheduler.running] == [1, 2, 3, 4]
    urgent = sequence(9, [9])
    scheduler.add(urgent)
    play(scheduler)
    assert [s.order for s in scheduler.running] == [1, 2, 3, 9]
    urgent.reason = FinishReason.LENGTH
    scheduler.drop_ended()
    again = play(scheduler).chunks[-1]
    assert (again.sequence.order, again.sequence.tokens, again.start, again.count) == (4, [4, 7, 7], 0, 2)


def test_where_nobody_leaves_a_slot_is_kept_for_the_urgent() -> None:
    scheduler = Scheduler(4, 8, fixed_chunks=True)
    for order in range(1, 7):
        scheduler.add(sequence(order, [order], priority=1))
    play(scheduler)
    assert [s.order for s in scheduler.running] == [1, 2, 3]
    scheduler.add(sequence(9, [9]))
    play(scheduler)
    assert [s.order for s in scheduler.running] == [1, 2, 3, 9]


def test_a_shared_beginning_is_copied_and_not_read_again() -> None:
    scheduler = Scheduler(3, 100)
    poem = list(range(30))
    first = sequence(1, [*poem, 40])
    scheduler.add(first)
    play(scheduler)
    scheduler.add(sequence(2, [*poem, 41, 42]))
    plan = play(scheduler)
    assert plan.copies == (Copy(0, 1, 30),) and [(c.start, c.count) for c in plan.chunks] == [(31, 1), (30, 2)]
    first.reason = FinishReason.STOP
    scheduler.drop_ended()
    scheduler.add(sequence(3, [*poem, 40]))
    plan = play(scheduler)
    assert plan.copies == () and plan.chunks[0].start == 30 and plan.chunks[0].sequence.slot == 0


def test_what_failed_is_no_beginning_for_others() -> None:
    scheduler = Scheduler(1, 100)
    first = sequence(1, list(range(30)))
    scheduler.add(first)
    play(scheduler)
    first.reason = FinishReason.ERROR
    scheduler.drop_ended()
    scheduler.add(sequence(2, list(range(30))))
    assert play(scheduler).chunks[0].start == 0


def cost(runs: list[list[Span]], call: int) -> int:
    return sum(call + max(span.length for span in run) * len(run) for run in runs)


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=7), st.integers(1, 50))
def test_attention_is_shared_out_at_the_least_cost(wanted: list[tuple[int, bool]], call: int) -> None:
    spans, slot = [], 0
    for first, (length, gap) in enumerate(wanted):
        slot += 2 if gap else 1
        spans.append(Span(slot, first, 1, length))
    made = [list(run) for run in partition(spans, call)]
    assert [span for run in made for span in run] == spans
    assert all(run[-1].slot - run[0].slot == len(run) - 1 for run in made)
    others = []
    for cuts in product([False, True], repeat=len(spans) - 1):
        runs = [[spans[0]]]
        for cut, span in zip(cuts, spans[1:], strict=True):
            if cut or span.slot != runs[-1][-1].slot + 1:
                runs.append([])
            runs[-1].append(span)
        others.append(cost(runs, call))
    assert cost(made, call) == min(others)
    assert partition(spans, 0) == [[span] for span in spans]
    assert torch.tensor([len(run) for run in made]).sum() == len(spans)
