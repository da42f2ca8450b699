"""What is written of a completion: of one that was computed here, and of the copy of a stored answer."""

import resource

from tasks.ledger.records import Claim, Completion
from tasks.ledger.stored_answers import StoredAnswer
from tasks.states import Origin
from worker.backends.protocol import Answer, Generation
from worker.chunk_work import Key


def computed(claim: Claim, key: Key, answer: Answer, *, seed: int, worker: str, clock: float, cold: bool) -> Completion:
    """The row of an answer; ``clock`` is what to add to `time.monotonic` for the ledger's time."""
    idx, sample = key
    points = (answer.admitted, answer.first_token, answer.last_token, answer.answer_started)
    times = [None if point is None else point + clock for point in points]
    return Completion(
        run=claim.run,
        model=claim.model,
        idx=idx,
        sample=sample,
        text=answer.text,
        finish_reason=answer.finish_reason,
        error=answer.error,
        prompt_tokens=answer.prompt_tokens,
        output_tokens=answer.output_tokens,
        characters=len(answer.text),
        created=max(claim.prompts[idx].created or 0.0, claim.created),
        enqueued=claim.enqueued,
        claimed=claim.claimed,
        admitted=times[0],
        first_token=times[1],
        last_token=times[2],
        batch_size=answer.batch_size,
        cold=cold,
        attempt=claim.attempt,
        seed=seed,
        worker=worker,
        peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        thinking=answer.thinking or None,
        thinking_tokens=answer.thinking_tokens,
        answer_started=times[3],
        retries=answer.retries,
    )


def copied(claim: Claim, key: Key, stored: StoredAnswer, generation: Generation, worker: str) -> Completion:
    """The row of a stored answer. It has no times: nothing was computed."""
    idx, sample = key
    return Completion(
        run=claim.run,
        model=claim.model,
        idx=idx,
        sample=sample,
        text=stored.text,
        finish_reason=stored.finish_reason,
        prompt_tokens=stored.prompt_tokens,
        output_tokens=stored.output_tokens,
        characters=len(stored.text),
        attempt=claim.attempt,
        seed=generation.sampling.seed,
        worker=worker,
        environment=stored.environment,
        thinking=stored.thinking,
        thinking_tokens=stored.thinking_tokens,
        origin=Origin.CACHED,
        cache_key=generation.answer_key,
    )
