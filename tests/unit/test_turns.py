"""Whose turn it is: priority, then owners, then their runs, each as often as the next."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tasks.ledger.turns import Waiting, share


def test_runs_take_turns_and_the_longest_waiting_goes_first() -> None:
    waiting = [Waiting("a", "o", 0, 5.0, 1.0, 1), Waiting("b", "o", 0, 0.0, 3.0, 3), Waiting("c", "o", 0, 0.0, 2.0, 2)]
    assert share(waiting, 5) == ["c", "b", "a", "c", "b"]


def test_of_runs_made_within_one_tick_the_first_goes_first() -> None:
    for owners in ("oo", "xy", "yx"):
        waiting = [Waiting("b", owners[0], 0, 0.0, 1.0, 7), Waiting("a", owners[1], 0, 0.0, 1.0, 8)]
        assert share(waiting, 3) == ["b", "a", "b"]


def test_an_owner_of_many_runs_gets_no_more_than_one_of_a_single_run() -> None:
    many = [Waiting(f"a{i}", "many", 0, 0.0, float(i), i) for i in range(9)]
    waiting = [*many, Waiting("b", "one", 0, 0.0, 99.0, 99)]
    assert share(waiting, 6) == ["a0", "b", "a1", "b", "a2", "b"]


def test_a_higher_priority_goes_first() -> None:
    waiting = [Waiting("low", "x", 0, 0.0, 1.0, 1), Waiting("high", "y", 3, 9.0, 2.0, 2)]
    assert share(waiting, 2) == ["high", "high"]
    assert share([], 3) == []


times = st.floats(0, 9)
run = st.builds(
    Waiting, st.uuids().map(str), st.sampled_from("xyz"), st.integers(0, 1), times, times, st.integers(0, 9)
)


@given(st.lists(run, min_size=1, max_size=12, unique_by=lambda one: one.run), st.integers(0, 60))
def test_every_share_is_fair(waiting: list[Waiting], places: int) -> None:
    turns = share(waiting, places)
    assert len(turns) == places
    owner_of = {one.run: one.owner for one in waiting}
    highest = [one for one in waiting if one.priority == max(one.priority for one in waiting)]
    assert set(turns) <= {one.run for one in highest}
    for group in ([*{one.owner for one in highest}], *([r.run for r in highest if r.owner == o] for o in "xyz")):
        counts = Counter(owner_of[turn] if turn not in group else turn for turn in turns)
        given = [counts[member] for member in group]
        assert not given or max(given) - min(given) <= 1
