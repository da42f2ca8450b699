"""Adding to a run that is there: no row of it changes but its counts (I15)."""

from sqlalchemy import Connection, insert, select, update

from tasks.conversation import NewPrompt, set_digest
from tasks.errors import Conflict, InvalidInput, NotFound
from tasks.ledger.closing import lock_run
from tasks.ledger.database import Database, now
from tasks.ledger.records import columns_of, prompt_of
from tasks.ledger.tables import chunk, prompt, run, run_model
from tasks.states import ChunkState, RunState


class Growth:
    def __init__(self, database: Database):
        self.database = database

    def follow(self, run_id: str, new: NewPrompt) -> int:
        """Add a later turn to a run, with a chunk of its own for each model; returns its idx.

        It starts once the turn it follows is answered. Raises `NotFound` for a run or turn that is not there and
        `Conflict` for a cancelled run.
        """

        added: list[int] = []

        def add(connection: Connection) -> int:
            of_run = lock_run(connection, run_id)
            if of_run is None:
                raise NotFound(f"There is no run {run_id!r}; it may have been deleted.")
            if of_run.state == RunState.CANCELLED:
                raise Conflict("This run was cancelled; submit the conversation anew.")
            if new.follows is None or not 0 <= new.follows < of_run.prompts:
                there = f"there are 0 to {of_run.prompts - 1}"
                raise InvalidInput(f"follows is {new.follows}, which is no prompt of this run; {there}.", "follows")
            # A transaction that is done again, because its first answer got lost, finds the turn that it added.
            if added and _is_there(connection, run_id, added[0], new):
                return added[0]
            idx: int = of_run.prompts
            added[:] = [idx]
            row = {"run": run_id, "idx": idx, "created": now()} | columns_of(new)
            connection.execute(insert(prompt).values(row))
            models = list(connection.execute(select(run_model.c.model).where(run_model.c.run == run_id)).scalars())
            part = {"run": run_id, "first": idx, "count": 1, "lane": of_run.kind, "state": ChunkState.PENDING}
            part["samples"] = of_run.samples
            connection.execute(insert(chunk), [part | {"model": model} for model in models])
            grown = {"total": run_model.c.total + of_run.samples}
            connection.execute(update(run_model).where(run_model.c.run == run_id).values(grown))
            state = RunState.RUNNING if of_run.state == RunState.DONE else of_run.state
            digest = set_digest(of_run.prompt_set, new) if of_run.prompt_set else None
            again = {"prompts": idx + 1, "finished": None, "state": state, "prompt_set": digest}
            connection.execute(update(run).where(run.c.id == run_id).values(again))
            return idx

        return self.database.transact(add, durable=True)


def _is_there(connection: Connection, run_id: str, idx: int, new: NewPrompt) -> bool:
    row = connection.execute(select(prompt).where(prompt.c.run == run_id, prompt.c.idx == idx)).first()
    return row is not None and columns_of(prompt_of(row)) == columns_of(new)
