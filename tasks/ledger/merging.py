"""Columns of another run of the same prompts, on their way into a run."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, and_, func, insert, literal, or_, select

from tasks.errors import Conflict
from tasks.ledger.closing import is_there, missing
from tasks.ledger.columns import free_name, positions, refuse_present
from tasks.ledger.database import Database
from tasks.ledger.planning import Samples, insert_chunks, parts
from tasks.ledger.staging import Staging
from tasks.ledger.submission import PIECE
from tasks.ledger.tables import completion, prompt, rendering, run, run_model, score
from tasks.states import ChunkState, FinishReason, Outcome, RunKind

SCORED_CHUNK = 256  # prompts whose answers are scored together
CHANGED = "The other run has changed meanwhile, so nothing was merged; try again."


class Merging:
    """Copies the columns of run ``other_id`` of which nothing is pending into run ``run_id``, each as it is.

    A name that is taken gets a number. Copied columns are never gone on with: their settings are those of their run.
    """

    def __init__(self, database: Database, run_id: str, other_id: str):
        self.database, self.run_id, self.other_id = database, run_id, other_id
        self.staging = Staging(database, run_id)
        self._names: dict[str, str] = {}  # in this run, by that in the other

    def merge(self) -> None:
        """Copy the columns: all of them are there at the end, or none.

        Raises `NotFound`, and `Conflict` where the prompts are others, the other run has fewer samples or no column
        that is finished, it changes meanwhile, or somebody else is adding.
        """
        with self.staging.held() as of_run:
            with self.database.read() as connection:
                other = self._other(connection, of_run)
                finished = [row.model for row in self._columns(connection) if _is_finished(row)]
                taken = set(positions(connection, self.run_id))
            if not finished:
                raise Conflict("No model of the other run has finished; wait until it has, or cancel it.")
            for model in finished:
                self._names[model] = free_name(model, {*taken, *self._names.values()})
            for model, name in self._names.items():
                for first in range(0, of_run.prompts, PIECE):
                    with self.database.write() as connection:
                        self.staging.renew(connection)
                        # A model that was added meanwhile under this name answers for itself.
                        refuse_present(positions(connection, self.run_id), [name])
                        for table in (completion, rendering, score):
                            connection.execute(self._copy(table, model, name, first, of_run))
            self.staging.seal(lambda connection, locked: self._seal(connection, locked, other))

    def _other(self, connection: Connection, of_run: Any) -> Any:
        other = connection.execute(select(run).where(run.c.id == self.other_id, is_there)).first()
        if other is None:
            raise missing(self.other_id)
        if other.id == of_run.id:
            raise Conflict("A run cannot be merged with itself; give another run of the same prompts.")
        if other.prompt_set is None or other.prompt_set != of_run.prompt_set:
            raise Conflict(
                f"Only runs of the same prompts can be merged: {self._difference(connection, of_run, other)}"
            )
        if other.samples < of_run.samples:
            raise Conflict(
                f"The other run has {other.samples} samples of each prompt and this one {of_run.samples}; add samples "
                "to the other one first."
            )
        return other

    def _difference(self, connection: Connection, of_run: Any, other: Any) -> str:
        if of_run.prompts != other.prompts:
            return f"this one has {of_run.prompts}, the other {other.prompts}."
        mine, theirs = prompt.alias(), prompt.alias()
        same_place = and_(theirs.c.run == other.id, theirs.c.idx == mine.c.idx)
        differs = or_(*(mine.c[name].is_distinct_from(theirs.c[name]) for name in ("text", "system", "follows")))
        query = select(func.min(mine.c.idx)).select_from(mine.join(theirs, same_place))
        first = connection.execute(query.where(mine.c.run == of_run.id, differs)).scalar()
        return "what was said before them differs." if first is None else f"prompt {first + 1} differs."

    def _columns(self, connection: Connection) -> Sequence[Any]:
        of_other = select(run_model).where(run_model.c.run == self.other_id)
        return connection.execute(of_other.order_by(run_model.c.position)).all()

    def _copy(self, table: Table, model: str, name: str, first: int, of_run: Any) -> Any:
        kept = [column for column in table.columns if column.name not in ("run", "model")]
        part = table.c.idx.between(first, min(first + PIECE, of_run.prompts) - 1) & (table.c.sample < of_run.samples)
        rows = select(literal(self.run_id), literal(name), *kept).where(table.c.run == self.other_id, part)
        columns = ["run", "model", *(column.name for column in kept)]
        return insert(table).from_select(columns, rows.where(table.c.model == model), include_defaults=False)

    def _seal(self, connection: Connection, of_run: Any, other: Any) -> None:
        there = connection.execute(select(run.c.id).where(run.c.id == self.other_id, is_there)).first()
        columns = {row.model: row for row in self._columns(connection) if there and _is_finished(row)}
        position = max(positions(connection, self.run_id).values(), default=-1)
        for model, name in self._names.items():
            position += 1
            counts = self._counts(connection, self.run_id, name, of_run)
            if model not in columns or counts != self._counts(connection, self.other_id, model, of_run):
                raise Conflict(CHANGED)
            source = columns[model]
            kept = {key: getattr(source, key) for key in ("entry", "identity", "origin")}
            kept |= {"merged_from": self.other_id, "sampling": source.sampling or other.sampling}
            row = {"run": self.run_id, "model": name, "position": position, "total": sum(counts.values())}
            connection.execute(insert(run_model).values(row | kept | counts))
            # Scored again only where scores are missing: the scorer leaves those that are there.
            samples = Samples(0, of_run.samples)
            ranges = parts(0, of_run.prompts, SCORED_CHUNK, ())
            insert_chunks(connection, self.run_id, name, RunKind(of_run.kind), samples, ranges, ChunkState.DONE)

    def _counts(self, connection: Connection, run_id: str, model: str, of_run: Any) -> dict[str, int]:
        """Completions of a column by outcome: those that this run has a place for."""
        here = (completion.c.run == run_id) & (completion.c.model == model)
        here &= (completion.c.idx < of_run.prompts) & (completion.c.sample < of_run.samples)
        query = select(completion.c.finish_reason, func.count()).where(here).group_by(completion.c.finish_reason)
        counts = dict.fromkeys((outcome.value for outcome in Outcome), 0)
        for reason, number in connection.execute(query):
            counts[FinishReason(reason).outcome] += number
        return counts


def _is_finished(row: Any) -> bool:
    return row.total > 0 and row.total == row.done + row.failed + row.cancelled
