"""Many threads at once on one ledger: workers, sweeps, people. Afterwards every count is right and nothing is lost."""

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from tasks.conversation import NewPrompt
from tasks.errors import Conflict, NotFound
from tasks.ledger import Ledger
from tasks.ledger.records import Claim, Completion, Environment, NewRun
from tasks.ledger.tables import completion
from tasks.states import FinishReason, Outcome, RunKind, RunState
from tests.clock import pass_time

SECONDS = 2.0
LEASE = 0.1  # seconds: short, so that leases run out while their workers still write
MODELS = ("a", "b")
WISHES = (*("pause", "resume", "retry") * 4, "prioritise", "give_up", "cancel", "delete")
REASONS = (FinishReason.STOP, FinishReason.STOP, FinishReason.ERROR)
ALL = {RunKind.ARENA: 4, RunKind.BULK: 6}
REST = {RunKind.ARENA: 100, RunKind.BULK: 100}


class Storm:
    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        ledger.chunks.lease = LEASE
        self.until = time.monotonic() + SECONDS
        self.raised: list[BaseException] = []

    def submit(self, some: random.Random) -> None:
        new = NewRun(some.choice(list(RunKind)), some.choice("xy"), dict.fromkeys(MODELS, 3), {}, some.randint(1, 2))
        self.ledger.runs.submit(new, [NewPrompt("x")] * some.randint(1, 30))

    def work(self, some: random.Random) -> None:
        for item in self.ledger.outbox.dispatch(some.choice(MODELS), ALL):
            claim = self.ledger.chunks.claim(item.chunk, "w")
            if claim and some.random() < 0.9:  # else it is as if the worker had died
                self.hand_in(claim, some)

    def hand_in(self, claim: Claim, some: random.Random) -> None:
        rows = [
            Completion(claim.run, claim.model, i, s, claim.token, some.choice(REASONS), "why", attempt=claim.attempt)
            for i, s in claim.missing
        ]
        half = some.randint(0, len(rows))
        made_with = Environment("e", {})
        if self.ledger.chunks.write(claim, rows[:half], made_with) and self.ledger.chunks.renew(claim):
            self.ledger.chunks.write(claim, rows[half:], made_with, last=True)

    def sweep(self, some: random.Random) -> None:
        time.sleep(LEASE)
        self.ledger.sweeper.sweep(some.choice([-1.0, 10.0]))

    def wish(self, some: random.Random) -> None:
        time.sleep(LEASE / 4)
        for seen in self.ledger.runs.newest(3):
            wish = some.choice(WISHES)
            try:
                self.ledger.growth.follow(seen.id, NewPrompt("then?", follows=some.randrange(seen.prompts)))
                more: dict[str, list[Any]] = {
                    "prioritise": [some.randint(-2, 2)],
                    "give_up": [some.choice(MODELS), "no use"],
                }
                getattr(self.ledger.control, wish)(seen.id, *more.get(wish, []))
            except (Conflict, NotFound):
                continue  # its state did not allow it, or somebody was faster

    def repeat(self, act: Callable[[random.Random], None], seed: int) -> None:
        some = random.Random(seed)
        try:
            while time.monotonic() < self.until:
                act(some)
        except BaseException as error:
            self.raised.append(error)

    def rage(self) -> None:
        acts = [self.submit, self.work, self.work, self.work, self.sweep, self.sweep, self.wish, self.wish]
        threads = [threading.Thread(target=self.repeat, args=(act, seed)) for seed, act in enumerate(acts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_a_storm_leaves_no_lie_behind(each_ledger: Ledger) -> None:
    ledger, some = each_ledger, random.Random(0)
    storm = Storm(ledger)
    storm.rage()
    assert storm.raised == []
    runs = ledger.runs.newest(10_000)
    for run in runs:
        if run.state is RunState.PAUSED:
            ledger.control.resume(run.id)
    while any(ledger.runs.get(run.id).finished is None for run in runs):
        pass_time(ledger, 40.0)
        ledger.sweeper.sweep(-1.0)
        for model in MODELS:
            for item in ledger.outbox.dispatch(model, REST):
                if claim := ledger.chunks.claim(item.chunk, "w"):  # else it follows a turn that comes first
                    storm.hand_in(claim, some)
    outcomes = select(completion.c.run, completion.c.finish_reason, func.count()).group_by(
        completion.c.run, completion.c.finish_reason
    )
    with ledger.database.read() as connection:
        rows = [(row[0], FinishReason(row[1]).outcome, row[2]) for row in connection.execute(outcomes)]
    assert len(rows) > 3
    for run in runs:
        counts = ledger.runs.get(run.id).counts
        stored = {o: sum(n for id_, outcome, n in rows if (id_, outcome) == (run.id, o)) for o in Outcome}
        assert stored == {Outcome.DONE: counts.done, Outcome.FAILED: counts.failed, Outcome.CANCELLED: counts.cancelled}
        assert counts.pending == 0 and sum(stored.values()) == counts.total
