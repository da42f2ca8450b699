"""Scores of completions, a value a metric."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, select, update

from tasks.ledger.completions import completion_of
from tasks.ledger.database import Database
from tasks.ledger.records import Completion, ScoreRow
from tasks.ledger.tables import chunk, completion, prompt, score
from tasks.states import ChunkState


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
        )
        same_prompt = (prompt.c.run == completion.c.run) & (prompt.c.idx == completion.c.idx)
        joined = chunk.join(completion, in_chunk).join(prompt, same_prompt)
        prompt_text = prompt.c.text.label("prompt_text")
        query = select(completion, prompt_text, prompt.c.category).select_from(joined).where(chunk.c.id == chunk_id)
        with self.database.read() as connection:
            rows = connection.execute(query).mappings()
            return [(row["prompt_text"], row["category"], completion_of(row)) for row in rows]

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
            connection.execute(update(chunk).where(chunk.c.id == chunk_id).values(scored=True))
            self.database.insert_new(connection, score, values)

        self.database.transact(store)

    def state(self, models: Collection[str], run_id: str | None = None) -> tuple[int, float]:
        """Changes whenever `recent` could give something else: how many chunks are scored, when was last written."""
        scored = select(func.count()).select_from(chunk).where(chunk.c.scored, chunk.c.model.in_(models))
        written = select(func.max(completion.c.written)).where(completion.c.model.in_(models))
        if run_id:
            scored, written = scored.where(chunk.c.run == run_id), written.where(completion.c.run == run_id)
        with self.database.read() as connection:
            return connection.execute(scored).scalar_one(), connection.execute(written).scalar_one() or 0.0

    def recent(
        self, models: Collection[str] | None = None, run_id: str | None = None, limit: int = 5000
    ) -> list[tuple[str, int, str | None, str, float]]:
        """Scores of the newest ``limit`` completions, of some models or of one run.

        Rows are (model, number of the prompt, category, metric, value), as `tasks.grace.axes_of` takes them; prompts
        are numbered across runs.
        """
        newest = select(completion.c.run, completion.c.model, completion.c.idx, completion.c.sample)
        if models is not None:
            newest = newest.where(completion.c.model.in_(models))
        if run_id:
            newest = newest.where(completion.c.run == run_id)
        chosen = newest.order_by(completion.c.written.desc()).limit(limit).subquery()
        same = (score.c.run == chosen.c.run) & (score.c.model == chosen.c.model)
        same &= (score.c.idx == chosen.c.idx) & (score.c.sample == chosen.c.sample)
        asked = (prompt.c.run == chosen.c.run) & (prompt.c.idx == chosen.c.idx)
        joined = chosen.join(score, same).join(prompt, asked)
        query = select(score, prompt.c.category).select_from(joined).order_by(score.c.model)
        numbers: dict[tuple[str, int], int] = {}
        with self.database.read() as connection:
            return [
                (row.model, numbers.setdefault((row.run, row.idx), len(numbers)), row.category, row.metric, row.value)
                for row in connection.execute(query)
            ]
