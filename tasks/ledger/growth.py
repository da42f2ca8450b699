"""Adding to a run that is there: no row of it changes but its counts (I15)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from tasks.conversation import MAX_PROMPTS, NewPrompt, set_digest
from tasks.errors import Conflict, InvalidInput
from tasks.ledger.additions import Addition, refuse_known_ids
from tasks.ledger.closing import existing, reopened
from tasks.ledger.columns import add_to_totals, growing, positions, refuse_present
from tasks.ledger.database import Database, now
from tasks.ledger.importing import Importing
from tasks.ledger.merging import Merging
from tasks.ledger.planning import Samples, Turns, insert_chunks, lane_of, parts, size_for
from tasks.ledger.records import Imported, NewAnswer, columns_of, prompt_of
from tasks.ledger.staging import clear_abandoned, refuse_staged, refuse_while_adding
from tasks.ledger.tables import prompt, run, run_model
from tasks.registry import ModelEntry
from tasks.run_schema import MAX_SAMPLES
from tasks.states import RunKind, RunState

SOME_PROMPTS = 8  # to a chunk of a model of which nobody said how many


@dataclass(frozen=True)
class NewColumn:
    """A model that is to answer a run's prompts: its entry in the registry, and how many prompts go into a chunk."""

    entry: ModelEntry
    chunk_size: int


class Growth:
    """Every method raises `NotFound` for a run that is not there and `Conflict` where its state forbids it.

    A run that has ended goes on with what is added, a paused one stays paused, and what is cancelled stays so. Of a
    model that was given up, what is added fails with the same reason, until a retry takes it back.
    """

    def __init__(self, database: Database):
        self.database = database

    def follow(self, run_id: str, new: NewPrompt) -> int:
        """Add a later turn to a run, with a chunk of its own for each model; returns its idx.

        It starts once the turn it follows is answered. Raises `NotFound` for a run or turn that is not there and
        `Conflict` for a cancelled run, or while somebody adds prompts.
        """
        added: list[int] = []

        def add(connection: Connection) -> int:
            of_run = existing(connection, run_id)
            if of_run.state == RunState.CANCELLED:
                raise Conflict("This run was cancelled; submit the conversation anew.")
            refuse_while_adding(of_run)
            if new.follows is None or not 0 <= new.follows < of_run.prompts:
                there = f"there are 0 to {of_run.prompts - 1}"
                raise InvalidInput(f"follows is {new.follows}, which is no prompt of this run; {there}.", "follows")
            # A transaction that is done again, because its first answer got lost, finds the turn that it added.
            if added and _is_there(connection, run_id, added[0], new):
                return added[0]
            if of_run.prompts >= MAX_PROMPTS:
                raise InvalidInput(f"This run has {of_run.prompts} prompts; a run takes {MAX_PROMPTS}.", "prompts")
            refuse_known_ids(connection, of_run, [new])
            idx: int = of_run.prompts
            added[:] = [idx]
            row = {"run": run_id, "idx": idx, "created": now()} | columns_of(new)
            connection.execute(insert(prompt).values(row))
            again: dict[str, Any] = {"prompts": idx + 1}
            again["prompt_set"] = set_digest(of_run.prompt_set, new) if of_run.prompt_set else None
            if models := growing(connection, run_id):
                for model in models:
                    samples = Samples(0, of_run.samples)
                    insert_chunks(connection, run_id, model, RunKind(of_run.kind), samples, [(idx, 1)], added=True)
                add_to_totals(connection, run_id, models, of_run.samples)
                again |= reopened(of_run)
            connection.execute(update(run).where(run.c.id == run_id).values(again))
            return idx

        clear_abandoned(self.database, run_id)
        return self.database.transact(add, durable=True)

    def add_models(self, run_id: str, columns: Mapping[str, NewColumn]) -> None:
        """Let further models answer all prompts of a run; they stand after those that are there.

        Raises `Conflict` where the run has such a column, or one is just being merged in.
        """
        placed: dict[str, int] = {}
        turns = Turns(self.database, run_id)

        def add(connection: Connection) -> None:
            of_run = existing(connection, run_id)
            there = positions(connection, run_id)
            if placed and placed.items() <= there.items():
                return  # it is done again because the answer to its commit got lost
            refuse_present(there, columns)
            refuse_staged(connection, run_id, columns)
            again = reopened(of_run)
            first = max(there.values(), default=-1) + 1
            placed.update({model: position for position, model in enumerate(columns, first)})
            total = of_run.prompts * of_run.samples
            rows = [
                {"run": run_id, "model": model, "position": placed[model], "total": total}
                | {"entry": new.entry.snapshot(), "identity": new.entry.identity}
                for model, new in columns.items()
            ]
            connection.execute(insert(run_model), rows)
            lane, samples = lane_of(of_run, of_run.prompts), Samples(0, of_run.samples)
            whole = turns.of_first(connection, of_run.prompts)
            for model, new in columns.items():
                ranges = parts(0, of_run.prompts, size_for(of_run.prompts, new.chunk_size), whole)
                insert_chunks(connection, run_id, model, lane, samples, ranges, added=True)
            connection.execute(update(run).where(run.c.id == run_id).values(again))

        clear_abandoned(self.database, run_id)
        self.database.transact(add, durable=True)

    def add_samples(self, run_id: str, number: int, sizes: Mapping[str, int]) -> None:
        """Ask every model that answers here for ``number`` more answers to each prompt.

        ``sizes`` says how many prompts go into a chunk of each model. Raises `InvalidInput` where it would be too many
        samples, and `Conflict` where no model of the run answers here.
        """
        turns = Turns(self.database, run_id)
        before: list[int] = []

        def add(connection: Connection) -> None:
            of_run = existing(connection, run_id)
            if before and of_run.samples == before[0] + number:
                return  # it is done again because the answer to its commit got lost
            before[:] = [of_run.samples]
            if not 1 <= number <= MAX_SAMPLES - of_run.samples:
                problem = (
                    f"The run has {of_run.samples} samples, and a run takes {MAX_SAMPLES}: {number} more do not fit."
                )
                raise InvalidInput(problem, "samples")
            models = growing(connection, run_id)
            if not models:
                raise Conflict("All columns of this run were made elsewhere; add a model first.")
            again = reopened(of_run) | {"samples": of_run.samples + number}
            lane, samples = lane_of(of_run, of_run.prompts), Samples(of_run.samples, number)
            whole = turns.of_first(connection, of_run.prompts)
            for model in models:
                size = size_for(of_run.prompts, sizes.get(model, SOME_PROMPTS))
                ranges = parts(0, of_run.prompts, size, whole)
                insert_chunks(connection, run_id, model, lane, samples, ranges, added=True)
            add_to_totals(connection, run_id, models, of_run.prompts * number)
            connection.execute(update(run).where(run.c.id == run_id).values(again))

        self.database.transact(add, durable=True)

    def add_prompts(self, run_id: str, prompts: Iterable[NewPrompt], sizes: Mapping[str, int]) -> int:
        """Add prompts to a run, each for every model that answers here; returns the idx of the first.

        All of them are there at the end, or none.

        ``prompts`` is read once, as a stream; what they ``follow`` counts from 0 among themselves. ``sizes`` says how
        many go into a chunk of each model. Raises `InvalidInput` (no prompt, too many, a custom_id that the run has),
        `Conflict` while somebody else is adding, `Unavailable` where they came too slowly, and whatever ``prompts``
        raises.
        """
        with Addition(self.database, run_id).held() as addition:
            addition.store(prompts)
            addition.seal(lambda connection, of_run: self._seal(connection, of_run, addition, sizes))
            return addition.first

    def _seal(self, connection: Connection, of_run: Any, addition: Addition, sizes: Mapping[str, int]) -> None:
        again: dict[str, Any] = {"prompts": addition.total, "prompt_set": addition.digest}
        if models := growing(connection, of_run.id):
            again |= reopened(of_run)
            lane, samples = lane_of(of_run, addition.total - of_run.prompts), Samples(0, of_run.samples)
            for model in models:
                size = size_for(addition.total - of_run.prompts, sizes.get(model, SOME_PROMPTS))
                ranges = parts(of_run.prompts, addition.total, size, addition.followers)
                insert_chunks(connection, of_run.id, model, lane, samples, ranges, added=True)
            number = (addition.total - of_run.prompts) * of_run.samples
            add_to_totals(connection, of_run.id, models, number)
        connection.execute(update(run).where(run.c.id == of_run.id).values(again))

    def import_answers(self, run_id: str, answers: Iterable[NewAnswer], label: str | None = None) -> Imported:
        """Add answers that were made elsewhere, as columns of their own; see `Importing.take`."""
        return Importing(self.database, run_id, label).take(answers)

    def merge(self, run_id: str, other_id: str) -> None:
        """Add the columns of another run of the same prompts; see `Merging.merge`."""
        Merging(self.database, run_id, other_id).merge()


def _is_there(connection: Connection, run_id: str, idx: int, new: NewPrompt) -> bool:
    row = connection.execute(select(prompt).where(prompt.c.run == run_id, prompt.c.idx == idx)).first()
    return row is not None and columns_of(prompt_of(row)) == columns_of(new)
