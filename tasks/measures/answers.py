"""Completions of the ledger as the measures see them."""

from tasks.ledger.records import Completion
from tasks.measures.grace import Answer
from tasks.measures.latency import Phases, Times, phases_of
from tasks.states import Origin


def times_of(completion: Completion) -> Times:
    """The points of time of a completion; it was created when it was asked for: with its run, later, or once more.

    One that was not computed for its run has none: what it took says nothing of its model.
    """
    if completion.origin is not Origin.COMPUTED:
        return Times(
            output_tokens=completion.output_tokens,
            characters=completion.characters,
            outcome=completion.finish_reason.outcome,
        )
    return Times(
        created=completion.created,
        enqueued=completion.enqueued,
        claimed=completion.claimed,
        admitted=completion.admitted,
        first_token=completion.first_token,
        last_token=completion.last_token,
        written=completion.written,
        output_tokens=completion.output_tokens,
        characters=completion.characters,
        cold=completion.cold,
        outcome=completion.finish_reason.outcome,
    )


def completion_phases(completion: Completion) -> Phases:
    """The latency of a completion, phase by phase."""
    return phases_of(times_of(completion))


def answer_of(prompt: str, category: str | None, completion: Completion) -> Answer:
    """A completion with what it answers."""
    return Answer(
        model=completion.model,
        prompt_idx=completion.idx,
        sample=completion.sample,
        prompt=prompt,
        category=category,
        text=completion.text,
        finish_reason=completion.finish_reason,
        phases=completion_phases(completion) if completion.origin is Origin.COMPUTED else None,
    )
