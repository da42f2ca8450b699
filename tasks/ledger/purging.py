"""Removing the rows of deleted runs, a portion a transaction, so that nobody waits long for the database."""

from sqlalchemy import Connection, and_, delete, func, select

from tasks.ledger.tables import chunk, completion, prompt, rendering, run, run_model, score
from tasks.states import RunState

SOME_COMPLETIONS = 5000

is_deleted = and_(run.c.finished.is_(None), run.c.state == RunState.DELETED)


def purge_some(connection: Connection) -> bool | None:
    """Remove a portion of some deleted run; True when it is gone with it, None when there is no deleted run."""
    query = select(run.c.id).where(is_deleted).limit(1)
    run_id = connection.execute(query.with_for_update(skip_locked=True)).scalar()
    return None if run_id is None else purge_portion(connection, run_id)


def purge_portion(connection: Connection, run_id: str) -> bool:
    """Remove the next prompts of a deleted run with all that hangs on them; True when nothing of the run is left."""
    connection.execute(delete(chunk).where(chunk.c.run == run_id))
    samples = connection.execute(select(run.c.samples).where(run.c.id == run_id)).scalar_one()
    models = list(connection.execute(select(run_model.c.model).where(run_model.c.run == run_id)).scalars())
    first, last = connection.execute(
        select(func.min(prompt.c.idx), func.max(prompt.c.idx)).where(prompt.c.run == run_id)
    ).one()
    if first is not None:
        stop = first + max(1, SOME_COMPLETIONS // (len(models) * samples))
        for table in (score, rendering, completion):
            for model in models:
                of_model = (table.c.run == run_id) & (table.c.model == model)
                connection.execute(delete(table).where(of_model, table.c.idx >= first, table.c.idx < stop))
        connection.execute(delete(prompt).where(prompt.c.run == run_id, prompt.c.idx >= first, prompt.c.idx < stop))
        if stop <= last:
            return False
    connection.execute(delete(run).where(run.c.id == run_id))
    return True
