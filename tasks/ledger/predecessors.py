"""Prompts that follow others: which turns they need, and whether those are answered."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, func, select

from tasks.ledger.records import Answered, Prompt, prompt_of
from tasks.ledger.tables import chunk, completion, prompt
from tasks.states import FinishReason


def waits_for_predecessor() -> ColumnElement[bool]:
    """A condition on a chunk: one of its prompts follows a turn outside of it whose answers are not all there."""
    answered = (
        select(func.count())
        .select_from(completion)
        .where(completion.c.run == prompt.c.run, completion.c.model == chunk.c.model)
        .where(completion.c.idx == prompt.c.follows, completion.c.sample >= chunk.c.first_sample)
        .where(completion.c.sample < chunk.c.first_sample + chunk.c.samples)
        .scalar_subquery()
        .correlate(prompt, chunk)
    )
    in_chunk = (
        (prompt.c.run == chunk.c.run)
        & (prompt.c.idx >= chunk.c.first)
        & (prompt.c.idx < chunk.c.first + chunk.c.count)
        & (prompt.c.follows < chunk.c.first)
    )
    return select(prompt.c.idx).where(in_chunk, answered < chunk.c.samples).correlate(chunk).exists()


def ancestors_of(connection: Connection, run_id: str, prompts: Collection[Prompt]) -> dict[int, Prompt]:
    """The prompts that these follow, and those that they follow, without these themselves."""
    known = {each.idx for each in prompts}
    wanted = {each.follows for each in prompts if each.follows is not None} - known
    if not wanted:
        return {}
    chain = select(prompt).where(prompt.c.run == run_id, prompt.c.idx.in_(wanted)).cte("chain", recursive=True)
    before = select(prompt).where(prompt.c.run == run_id, prompt.c.idx == chain.c.follows)
    found = connection.execute(select(chain.union_all(before)))
    return {row.idx: prompt_of(row) for row in found if row.idx not in known}


def answers_to(
    connection: Connection, run_id: str, model: str, prompts: Collection[Prompt]
) -> dict[tuple[int, int], Answered]:
    """What a model has answered to those of the prompts that others of them follow, by (idx, sample)."""
    followed = {each.follows for each in prompts if each.follows is not None}
    if not followed:
        return {}
    here = (completion.c.run == run_id) & (completion.c.model == model) & completion.c.idx.in_(followed)
    return {
        (row.idx, row.sample): Answered(row.text, FinishReason(row.finish_reason), row.error)
        for row in connection.execute(select(completion).where(here))
    }
