"""What people wish of a run: that it grows, pauses, goes on, ends; a part of `test_interleavings`."""

from collections.abc import Sequence
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tasks.conversation import NewPrompt
from tasks.errors import Conflict
from tasks.ledger.closing import WAITING
from tasks.ledger.growth import NewColumn
from tasks.states import ChunkState, Outcome, RunState
from tests.unit.growth_rows import entry
from tests.unit.ledger_model import ADDED, EVERY, MODELS, Truth

T = TypeVar("T")
SOME = st.integers(0, 99)
WISHES = (*("pause", "resume", "retry") * 3, "give_up", "prioritise", "cancel", "delete")  # what ends a run is rarer


def pick(some: Sequence[T], number: int) -> T:
    return some[number % len(some)]


class Wishes(Truth):
    """People who change their minds about runs, and what the ledger must say then."""

    @precondition(lambda self: self.keys)
    @rule(which=SOME, what=st.sampled_from(["models", "samples", "prompts"]), number=st.integers(1, 2))
    def grow(self, which: int, what: str, number: int) -> None:
        """Something joins a run, whatever its state; no row that is there changes (see `nothing_lies`)."""
        run_id = pick(list(self.keys), which)
        before = self.ledger.runs.get(run_id)
        if before.samples + number > 3 or before.prompts + number > 6 or (what == "models" and ADDED in before.models):
            return
        sizes = dict.fromkeys(EVERY, number)
        turns = [NewPrompt("more", follows=idx - 1 if idx else None) for idx in range(number)]
        acts: dict[str, Any] = {
            "models": lambda: self.ledger.growth.add_models(run_id, {ADDED: NewColumn(entry(), number)}),
            "samples": lambda: self.ledger.growth.add_samples(run_id, number, sizes),
            "prompts": lambda: self.ledger.growth.add_prompts(run_id, turns, sizes),
        }
        if before.state is RunState.CANCELLED and before.finished is None:
            with pytest.raises(Conflict):
                acts[what]()
            return
        acts[what]()
        after = self.ledger.runs.get(run_id)
        self.keys[run_id] = {
            (run_id, m, i, s) for m in after.models for i in range(after.prompts) for s in range(after.samples)
        }
        if self.cancelled.pop(run_id, None) is not None:
            self.revived.add(run_id)
        assert after.state is (RunState.RUNNING if before.state.is_final else before.state)

    @precondition(lambda self: self.keys)
    @rule(which=SOME, wish=st.sampled_from(WISHES), priority=SOME)
    def control(self, which: int, wish: str, priority: int) -> None:
        self.wish(pick(list(self.keys), which), wish, priority)

    def wish(self, run_id: str, wish: str, priority: int) -> None:
        before = self.ledger.runs.get(run_id).state
        act = getattr(self.ledger.control, wish)
        try:
            more: dict[str, list[Any]] = {"prioritise": [priority], "give_up": [pick(MODELS, priority), "no use"]}
            act(run_id, *more.get(wish, []))
        except Conflict:
            assert before is RunState.CANCELLED or (before is RunState.DONE and wish != "retry")
            return
        if wish == "delete":
            del self.keys[run_id]
            self.deleted.add(run_id)
            self.rows = {key: row for key, row in self.rows.items() if key[0] != run_id}
            return
        after = self.ledger.runs.get(run_id).state
        if wish == "cancel" and before is not RunState.DONE:
            assert after is RunState.CANCELLED
            self.cancelled.setdefault(run_id, 0.0)
        elif wish == "pause":
            assert after is RunState.PAUSED
            assert not any(one.run == run_id and one.state == ChunkState.QUEUED for one in self.chunks())
        elif wish == "resume":
            assert after in (RunState.PENDING, RunState.RUNNING)
        elif wish == "give_up":
            waiting = {(one.run, one.model) for one in self.chunks() if one.state in WAITING}
            assert (run_id, pick(MODELS, priority)) not in waiting
        elif wish == "retry":
            assert before is not RunState.CANCELLED
            self.forget_retried(run_id)

    def forget_retried(self, run_id: str) -> None:
        there = {(row.run, row.model, row.idx, row.sample) for row in self.stored()}
        for key in [key for key in self.rows if key[0] == run_id and key not in there]:
            assert self.rows.pop(key)[0].outcome is Outcome.FAILED
            self.attempts[key] = 0
