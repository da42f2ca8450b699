"""Whatever happens in whatever order, no state of the ledger lies (I2–I6, I11): hypothesis thinks of the orders."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from tasks.conversation import NewPrompt
from tasks.errors import Conflict
from tasks.ledger import Lease, Ledger
from tasks.ledger.closing import CANCEL_GRACE, WAITING
from tasks.ledger.records import Claim, Completion, Environment, NewRun, Rendered, Worker
from tasks.ledger.tables import chunk, run, worker
from tasks.states import ChunkState, FinishReason, RunKind, RunState, WorkerState
from tests.clock import pass_time
from tests.unit.ledger_model import EVERY, MODELS
from tests.unit.ledger_wishes import SOME, Wishes, pick

MADE_WITH = Environment("e", {})
EXAMPLES = {"sqlite": 50, "postgresql": 12}


class Interleavings(Wishes):
    """Two models, a few small runs, workers that die, messages lost or sent twice, people who change their minds."""

    def __init__(self, ledger: Ledger):
        super().__init__(ledger)
        self.messages: list[int] = []
        self.held: list[Claim] = []  # claims whose worker believes in them
        self.tokens: set[str] = set()

    @initialize()
    def empty(self) -> None:
        with self.ledger.database.write() as connection:
            for table in (run, worker):
                connection.execute(delete(table))
        self.beat()
        self.submit(3, 2, 1, RunKind.BULK, turns=True)

    @rule()
    def beat(self) -> None:
        self.ledger.workers.register(Worker("w", "a", WorkerState.READY, "host", 1, "cpu", "", "float32", 8))

    @precondition(lambda self: len(self.keys) < 4)
    @rule(
        prompts=st.integers(1, 4),
        size=st.integers(1, 3),
        samples=st.integers(1, 2),
        kind=st.sampled_from(RunKind),
        turns=st.booleans(),
    )
    def submit(self, prompts: int, size: int, samples: int, kind: RunKind, turns: bool) -> None:
        new = NewRun(kind, "owner", dict.fromkeys(MODELS, size), {}, samples)
        handed_in = [NewPrompt("x", follows=idx - 1 if turns and idx % 2 else None) for idx in range(prompts)]
        made, _ = self.ledger.runs.submit(new, handed_in)
        self.keys[made.id] = {(made.id, m, i, s) for m in MODELS for i in range(prompts) for s in range(samples)}

    @precondition(lambda self: self.keys)
    @rule(which=SOME, follows=SOME)
    def follow(self, which: int, follows: int) -> None:
        """A later turn, whatever has become of the turn before it."""
        run_id = pick(list(self.keys), which)
        before = self.ledger.runs.get(run_id)
        if before.prompts >= 6:
            return
        turn = NewPrompt("then?", follows=follows % before.prompts)
        if before.state is RunState.CANCELLED:
            with pytest.raises(Conflict):
                self.ledger.growth.follow(run_id, turn)
            return
        idx = self.ledger.growth.follow(run_id, turn)
        self.keys[run_id] |= {(run_id, m, idx, s) for m in before.models for s in range(before.samples)}

    @rule(model=st.sampled_from(EVERY))
    def dispatch(self, model: str) -> None:
        capacity = {RunKind.ARENA: 2, RunKind.BULK: 3}
        items = self.ledger.outbox.dispatch(model, capacity)
        assert all(number <= capacity[lane] for lane, number in Counter(item.lane for item in items).items())
        self.messages += [item.chunk for item in items]

    @precondition(lambda self: self.messages)
    @rule(which=SOME, again=st.booleans())
    def claim(self, which: int, again: bool) -> None:
        message = pick(self.messages, which)
        if not again:
            self.messages.remove(message)
        claim = self.ledger.chunks.claim(message, "w")
        if claim is None:
            return
        assert self.ledger.runs.get(claim.run).state is RunState.RUNNING
        assert claim.token not in self.tokens
        self.tokens.add(claim.token)
        self.held.append(claim)
        for idx, sample in claim.missing:
            before = (claim.prompts[idx].follows, sample)
            assert before[0] is None or before in {*claim.missing, *claim.answers}
            self.attempts[claim.run, claim.model, idx, sample] += 1

    @precondition(lambda self: self.held)
    @rule(which=SOME, seconds=st.sampled_from([1.0, 5.0]))
    def cancel_held(self, which: int, seconds: float) -> None:
        """A cancel while a worker that lives holds something, which then hands in, in time or not."""
        claim = pick(self.held, which)
        self.beat()
        if claim.run in self.keys and not self.ledger.runs.get(claim.run).state.is_final:
            self.ledger.control.cancel(claim.run)
            self.cancelled[claim.run] = 0.0
            self.wait(seconds)
            self.hand_in(claim, 1, FinishReason.STOP, last=False)
            if seconds > CANCEL_GRACE:
                self.sweep(10.0)
                assert self.ledger.runs.get(claim.run).finished is not None

    @rule(model=st.sampled_from(EVERY))
    def dies_before_closing(self, model: str) -> None:
        """A worker writes the last completion of a chunk and dies: the chunk is done, not done again."""
        self.take(model)
        claim = self.held.pop() if self.held else None
        if claim and self.hand_in(claim, len(claim.missing), FinishReason.STOP, last=False):
            self.wait(31.0)
            self.sweep(10.0)
            assert [one.state for one in self.chunks() if one.id == claim.chunk] == [ChunkState.DONE]

    @precondition(lambda self: self.held)
    @rule(which=SOME, count=st.integers(1, 3), reason=st.sampled_from(["stop", "error", "deadline", "cancelled"]))
    def write(self, which: int, count: int, reason: str) -> None:
        self.hand_in(pick(self.held, which), count, FinishReason(reason), last=False)

    @precondition(lambda self: self.held)
    @rule(which=SOME, reason=st.sampled_from(["stop", "length", "error"]), separately=st.booleans())
    def finish(self, which: int, reason: str, separately: bool) -> None:
        claim = pick(self.held, which)
        self.held.remove(claim)
        if self.hand_in(claim, len(claim.missing), FinishReason(reason), last=not separately) and separately:
            assert self.ledger.chunks.finish(claim)

    def hand_in(self, claim: Claim, count: int, reason: FinishReason, last: bool) -> bool:
        valid = self.is_valid(claim) and self.cancelled.get(claim.run, 0.0) < CANCEL_GRACE
        rows = [
            Completion(claim.run, claim.model, idx, sample, claim.token, reason, "why", attempt=claim.attempt)
            for idx, sample in claim.missing[:count]
        ]
        rendered = {(row.idx, row.sample): Rendered("x", (1,)) for row in rows}
        written = self.ledger.chunks.write(claim, rows, MADE_WITH, last, rendered)
        assert written == valid
        for row in rows if written else []:
            self.rows.setdefault((row.run, row.model, row.idx, row.sample), (reason, claim.token))
        return written

    def is_valid(self, claim: Claim) -> bool:
        with self.ledger.database.read() as connection:
            query = select(chunk.c.token).where(chunk.c.id == claim.chunk)
            return connection.execute(query).scalar() == claim.token

    @rule(model=st.sampled_from(EVERY))
    def take(self, model: str) -> None:
        """What most often happens: chunks are sent and claimed at once."""
        self.dispatch(model)
        while self.messages:
            self.claim(0, again=False)

    @rule(model=st.sampled_from(EVERY), times=st.integers(1, 4), swept=st.booleans())
    def everybody_dies(self, model: str, times: int, swept: bool) -> None:
        for _ in range(times):
            self.take(model)
            self.held.clear()
            self.wait(31.0)
            if swept:
                self.sweep(10.0)

    @precondition(lambda self: self.held)
    @rule(which=SOME, how=st.sampled_from(["dies", "fails", "releases", "renews"]))
    def end(self, which: int, how: str) -> None:
        claim = pick(self.held, which)
        valid = self.is_valid(claim)
        if how == "renews":
            self.ledger.chunks.renew(claim)
            return
        self.held.remove(claim)
        if how == "fails":
            self.ledger.chunks.fail(claim)
        elif how == "releases":
            self.ledger.chunks.release([claim])
            for idx, sample in claim.missing if valid else ():
                self.attempts[claim.run, claim.model, idx, sample] -= 1

    @rule(seconds=st.sampled_from([1.0, 5.0, 31.0]))
    def wait(self, seconds: float) -> None:
        pass_time(self.ledger, seconds)
        self.cancelled = {run_id: since + seconds for run_id, since in self.cancelled.items()}

    @rule(lost_after=st.sampled_from([-1.0, 10.0]))
    def sweep(self, lost_after: float) -> None:
        self.ledger.sweeper.sweep(lost_after)

    @rule(model=st.sampled_from(EVERY))
    def is_overtaken(self, model: str) -> None:
        """A worker whose lease ran out, and whose chunk most often another has by now, changes nothing of it."""
        self.take(model)
        if not self.held:
            return
        claim = self.held[-1]
        self.wait(31.0)
        self.sweep(10.0)
        self.wait(5.0)
        self.take(claim.model)
        before = self.chunks()
        assert not self.ledger.chunks.finish(claim)
        assert self.ledger.chunks.renew(claim) is Lease.LOST
        self.ledger.chunks.fail(claim)
        self.ledger.chunks.release([claim])
        self.hand_in(claim, 1, FinishReason.STOP, last=False)
        assert self.chunks() == before

    @precondition(lambda self: self.keys)
    @rule(model=st.sampled_from(EVERY), which=SOME, wish=st.sampled_from(["pause", "pause", "cancel"]))
    def stop_amid(self, model: str, which: int, wish: str) -> None:
        """Messages that arrive when their run was stopped meanwhile."""
        run_id = pick(list(self.keys), which)
        self.dispatch(model)
        self.wish(run_id, wish, 0)
        while self.messages:
            self.claim(0, again=False)
        if wish == "pause":
            self.wish(run_id, "resume", 0)

    @rule(model=st.sampled_from(EVERY), released=st.booleans())
    def retry_amid(self, model: str, released: bool) -> None:
        """A retry when something has failed of a chunk that is still open."""
        self.take(model)
        if not self.held:
            return
        claim = self.held[-1]
        self.hand_in(claim, 1, FinishReason.ERROR, last=False)
        if released:
            self.end(-1, "releases")
        if claim.run in self.keys:
            self.wish(claim.run, "retry", 0)

    @rule(reason=st.sampled_from(["stop", "error"]))
    def work_off(self, reason: str) -> None:
        """Do all that waits, well or badly; then everything that failed is to be done again."""
        self.wait(5.0)
        for model in EVERY:
            self.take(model)
            while self.held:
                self.finish(0, reason, separately=False)
        for one in self.chunks():
            assert one.state in WAITING or self.ledger.chunks.claim(one.id, "w") is None
        for run_id in self.keys:
            self.wish(run_id, "retry", 0)

    def teardown(self) -> None:
        """Work until nothing is left to do: then every run has ended with exactly what it must have."""
        for run_id in self.keys:
            if self.ledger.runs.get(run_id).state is RunState.PAUSED:
                self.ledger.control.resume(run_id)
        for _ in range(20):
            if not self.is_left():
                break
            self.wait(40.0)
            self.sweep(-1.0)
            for model in EVERY:
                self.take(model)
            while self.held:
                self.finish(0, "stop", separately=False)
            self.nothing_lies()
        assert not self.is_left()
        assert self.rows.keys() == {key for keys in self.keys.values() for key in keys}


def test_no_interleaving_makes_a_state_lie(each_ledger: Ledger) -> None:
    name = each_ledger.database.engine.dialect.name
    run_state_machine_as_test(
        lambda: Interleavings(each_ledger),
        settings=hypothesis_settings(
            max_examples=EXAMPLES[name],
            stateful_step_count=50,
            deadline=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
