"""What a ledger must say after what was done to it, and whether it does: the base of `test_interleavings`."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant
from sqlalchemy import select

from tasks.errors import NotFound
from tasks.ledger import MAX_ATTEMPTS, Ledger
from tasks.ledger.tables import chunk, completion, prompt, rendering, run_model
from tasks.states import ChunkState, FinishReason, Outcome, RunState

Key = tuple[str, str, int, int]
MODELS = ("a", "b")
ADDED = "c"  # a model that joins later
EVERY = (*MODELS, ADDED)
ACTIVE = (ChunkState.PENDING, ChunkState.QUEUED, ChunkState.LEASED)


class Truth(RuleBasedStateMachine):
    """Keeps account beside the ledger of what was asked, attempted, written and cancelled."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger
        self.keys: dict[str, set[Key]] = {}  # what each run that was not deleted must end with
        self.deleted: set[str] = set()
        self.cancelled: dict[str, float] = {}  # seconds since then
        self.revived: set[str] = set()  # had ended cancelled before something was added
        self.rows: dict[Key, tuple[FinishReason, str]] = {}
        self.attempts: Counter[Key] = Counter()

    def stored(self) -> Sequence[Any]:
        with self.ledger.database.read() as connection:
            return connection.execute(select(completion)).all()

    def chunks(self) -> Sequence[Any]:
        with self.ledger.database.read() as connection:
            return connection.execute(select(chunk).order_by(chunk.c.id)).all()

    @invariant()
    def nothing_lies(self) -> None:
        stored = self.stored()
        for row in stored:
            key = (row.run, row.model, row.idx, row.sample)
            if row.run in self.keys:
                # What the ledger itself closed is learned here; nothing that is there ever changes.
                assert self.rows.setdefault(key, (FinishReason(row.finish_reason), row.text)) == (
                    row.finish_reason,
                    row.text,
                )
        there = {(row.run, row.model, row.idx, row.sample) for row in stored if row.run in self.keys}
        assert there == self.rows.keys()
        chunks = self.chunks()
        for run_id, keys in self.keys.items():
            self.check_run(run_id, keys & there, keys)
            self.check_chunks([one for one in chunks if one.run == run_id], keys - there, run_id)
        assert all(number <= MAX_ATTEMPTS for number in self.attempts.values())
        for run_id in self.deleted:
            with pytest.raises(NotFound):
                self.ledger.runs.get(run_id)

    def check_run(self, run_id: str, there: set[Key], keys: set[Key]) -> None:
        seen = self.ledger.runs.get(run_id)
        outcomes = Counter(self.rows[key][0].outcome for key in there)
        assert set(seen.models) == {key[1] for key in keys}
        for model in seen.models:
            assert seen.models[model].total == len([key for key in keys if key[1] == model])
        counts = seen.counts
        assert {Outcome.DONE: counts.done, Outcome.FAILED: counts.failed, Outcome.CANCELLED: counts.cancelled} == {
            outcome: outcomes[outcome] for outcome in Outcome
        }
        assert counts.pending == len(keys) - len(there) >= 0
        assert (seen.state is RunState.CANCELLED) == (run_id in self.cancelled)
        if seen.finished is not None:
            assert seen.state.is_final and counts.pending == 0
        assert seen.state is not RunState.DONE or seen.finished is not None

    def check_chunks(self, chunks: Sequence[Any], missing: set[Key], run_id: str) -> None:
        """What is missing is still to be done by one chunk; no two would do the same; only leases have tokens."""
        assert all((one.state == ChunkState.LEASED) == (one.token is not None) for one in chunks)
        assert all(one.attempt <= MAX_ATTEMPTS for one in chunks)
        assert run_id in {*self.cancelled, *self.revived} or all(one.state != ChunkState.CANCELLED for one in chunks)
        active = [one for one in chunks if one.state in ACTIVE]
        doing = Counter(
            (one.model, idx, sample)
            for one in active
            for idx in range(one.first, one.first + one.count)
            for sample in range(one.first_sample, one.first_sample + one.samples)
        )
        assert all(number == 1 for number in doing.values())
        assert all(key[1:] in doing for key in missing)

    def is_left(self) -> bool:
        """Whether a run has not ended, or something is there of a deleted one."""
        if any(self.ledger.runs.get(run_id).finished is None for run_id in self.keys):
            return True
        with self.ledger.database.read() as connection:
            return any(
                connection.execute(select(table.c.run).where(table.c.run.in_(self.deleted))).first()
                for table in (prompt, chunk, completion, rendering, run_model)
            )
