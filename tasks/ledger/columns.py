"""Columns of a run: a model each, whether it answers here, was made elsewhere or comes from another run."""

from collections.abc import Collection

from sqlalchemy import Connection, and_, select, update

from tasks.errors import Conflict
from tasks.ledger.tables import run_model
from tasks.states import Origin

MAX_NAME = 64  # characters

# A column that was made elsewhere, or with the settings of another run, is never gone on with.
grows = and_(run_model.c.origin == Origin.COMPUTED, run_model.c.merged_from.is_(None))


def positions(connection: Connection, run_id: str) -> dict[str, int]:
    """The columns of a run with their places."""
    of_run = select(run_model.c.model, run_model.c.position).where(run_model.c.run == run_id)
    return {row.model: row.position for row in connection.execute(of_run.order_by(run_model.c.position))}


def growing(connection: Connection, run_id: str) -> list[str]:
    """The models of a run that answer what is added to it."""
    of_run = select(run_model.c.model).where(run_model.c.run == run_id, grows)
    return list(connection.execute(of_run.order_by(run_model.c.position)).scalars())


def add_to_totals(connection: Connection, run_id: str, models: Collection[str], number: int) -> None:
    """Expect ``number`` more completions of each of these models."""
    for model in sorted(models):  # in the order in which whoever closes chunks takes them
        here = (run_model.c.run == run_id) & (run_model.c.model == model)
        connection.execute(update(run_model).where(here).values(total=run_model.c.total + number))


def refuse_present(there: Collection[str], names: Collection[str]) -> None:
    """Raises `Conflict` where one of ``names`` is among the columns that are there."""
    if twice := next((name for name in names if name in there), None):
        raise Conflict(
            f"This run has a column {twice!r} already; leave it out, or ask the same prompts in another run and merge "
            "that one in."
        )


def free_name(wanted: str, taken: Collection[str]) -> str:
    """``wanted``, with a number behind it where there is such a column already."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        end = f" ({number})"
        name = wanted[: MAX_NAME - len(end)] + end
    return name
