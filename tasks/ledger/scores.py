"""Scores of completions, a value a metric."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, select, update

from tasks.ledger.completions import completion_of
from tasks.ledger.database import Database, now
from tasks.ledger.records import Completion, ScoreRow
from tasks.ledger.samples import KEY, Sample, keys_of, prompts_of
from tasks.ledger.tables import chunk, completion, prompt, run_model, score
from tasks.states import ChunkState

FOLLOW_SECONDS = 600.0  # how long after the newest completion its scores are looked for
LOOK_SECONDS = 5.0


class Scores:
    def __init__(self, database: Database):
        self.database = database

    def of_chunk(self, chunk_id: int) -> list[tuple[str, str | None, Completion]]:
        """Completions of an ended chunk, each with its prompt's text and category."""
        in_chunk = (
            (completion.c.run == chunk.c.run)
            & (completion.c.model == chunk.c.model)
            & (completion.c.idx >= chunk.c.first)
            & (completion.c.idx < chunk.c.first + chunk.c.count)
            & (completion.c.sample >= chunk.c.first_sample)
            & (completion.c.sample < chunk.c.first_sample + chunk.c.samples)
        )
        same_prompt = (prompt.c.run == completion.c.run) & (prompt.c.idx == completion.c.idx)
        joined = chunk.join(completion, in_chunk).join(prompt, same_prompt)
        prompt_text = prompt.c.text.label("prompt_text")
        query = select(completion, prompt_text, prompt.c.category).select_from(joined).where(chunk.c.id == chunk_id)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings()
            return [(row["prompt_text"], row["category"], completion_of(row)) for row in rows]

    def of_completions(self, rows: Sequence[Completion]) -> list[ScoreRow]:
        """The scores of these completions of one run, in their order; those without any are there, too."""
        if not rows:
            return []
        numbers = [row.idx for row in rows]
        here = (score.c.run == rows[0].run) & score.c.model.in_({row.model for row in rows})
        query = select(score).where(here, score.c.idx.between(min(numbers), max(numbers)))
        found: dict[tuple[str, int, int], dict[str, float]] = {}
        with self.database.read() as connection:
            for row in connection.execute(query):
                found.setdefault((row.model, row.idx, row.sample), {})[row.metric] = row.value
        return [
            ScoreRow(row.run, row.model, row.idx, row.sample, found.get((row.model, row.idx, row.sample), {}))
            for row in rows
        ]

    def unscored(self, limit: int = 100) -> list[int]:
        """Ended chunks whose completions have no scores yet, oldest first."""
        ended = [ChunkState.DONE, ChunkState.FAILED, ChunkState.CANCELLED]
        query = select(chunk.c.id).where(~chunk.c.scored, chunk.c.state.in_(ended)).order_by(chunk.c.id).limit(limit)
        with self.database.read() as connection:
            return list(connection.execute(query).scalars())

    def write(self, chunk_id: int, rows: Sequence[ScoreRow]) -> None:
        """Store the scores of a chunk and mark it as scored; scores that are there already stay."""
        values = [
            {"run": r.run, "model": r.model, "idx": r.idx, "sample": r.sample, "metric": metric, "value": value}
            for r in rows
            for metric, value in r.values.items()
        ]

        def store(connection: Connection) -> None:
            # Whoever deletes the run or puts its failures back takes its row first, so that no score is left behind.
            of_chunk = (chunk.c.id == chunk_id) & ~chunk.c.scored
            marked = update(chunk).where(of_chunk).values(scored=True).returning(chunk.c.run, chunk.c.model)
            for run_id, model in connection.execute(marked).all():
                here = (run_model.c.run == run_id) & (run_model.c.model == model)
                connection.execute(update(run_model).where(here).values(scored=run_model.c.scored + 1))
            self.database.insert_new(connection, score, values)

        self.database.transact(store)

    def state(self, sample: Sample) -> tuple[float, ...]:
        """Changes whenever the figures of a sample could be others, from what is kept: nothing is counted.

        Of all runs it changes with the newest completion, and for a while after it with the time, as scores follow.
        """
        if sample.run is not None:
            kept = (run_model.c.done, run_model.c.failed, run_model.c.cancelled, run_model.c.scored)
            of_run = select(*kept).where(run_model.c.run == sample.run, run_model.c.model.in_(sample.models))
            with self.database.read() as connection:
                rows = connection.execute(of_run.order_by(run_model.c.position))
                return tuple(value for row in rows for value in row)
        with self.database.read() as connection:
            newest = [
                connection.execute(select(func.max(completion.c.written)).where(completion.c.model == model)).scalar()
                for model in sample.models
            ]
            time = connection.execute(select(now())).scalar_one()
        last = max((written for written in newest if written is not None), default=0.0)
        return (*(written or 0.0 for written in newest), min(time, last + FOLLOW_SECONDS) // LOOK_SECONDS)

    def of_sample(self, sample: Sample) -> list[tuple[str, int, str | None, str, float]]:
        """Scores of the completions of a sample.

        Rows are (model, number of the prompt, category, metric, value), as `tasks.measures.grace.axes_of` takes them;
        prompts are numbered across runs.
        """
        numbers: dict[tuple[str, int], int] = {}
        found = []
        with self.database.read() as connection:
            for model in sorted(sample.models):
                for run_id, idx, category, metric, value in connection.execute(_of(connection, sample, model)):
                    number = numbers.setdefault((run_id, idx), len(numbers))
                    found.append((model, number, category, metric, value))
        return found


def _of(connection: Connection, sample: Sample, model: str) -> Any:
    """Scores of a model in a sample. Those of one run are found by their own key, without their completions."""
    asked = (prompt.c.run == score.c.run) & (prompt.c.idx == score.c.idx)
    query = select(score.c.run, score.c.idx, prompt.c.category, score.c.metric, score.c.value)
    if sample.run is not None:
        here = (score.c.run == sample.run) & (score.c.model == model)
        found = score.c.idx.in_(prompts_of(connection, sample, model))
        return query.select_from(score).join(prompt, asked).where(here, found)
    keys = keys_of(connection, sample, model)
    same = and_(*(score.c[column.name] == keys.c[column.name] for column in KEY))
    return query.select_from(keys).join(score, same).join(prompt, asked)
