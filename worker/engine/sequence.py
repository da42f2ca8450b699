"""One request on its way through the engine."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from tasks.states import FinishReason
from worker.engine.detokenizer import Detokenizer
from worker.engine.protocol import Request, Result
from worker.engine.sampler import Draw

NO_TEXT = "The model's tokens cannot be decoded: {}: {}"
LATE = "The deadline passed before the completion ended; allow more time or fewer tokens."


@dataclass(eq=False)
class Sequence:
    """A request, its tokens and where it stands.

    ``tokens`` are the prompt's and then those made so far; the cache of ``slot`` holds the first ``cached`` of them.
    ``limit`` is how many tokens may be made, ``limit_reason`` what it means to reach it. Times are points of
    `time.monotonic` in seconds. ``reason`` is set when the sequence has ended.
    """

    request: Request
    order: int
    tokens: list[int]
    limit: int
    limit_reason: FinishReason
    text: Detokenizer
    prompt_tokens: int = field(init=False)
    draw: Draw = field(init=False)
    slot: int = -1
    cached: int = 0
    batch_size: int = 0
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    reason: FinishReason | None = None
    error: str | None = None
    logprobs: list[float] = field(default_factory=list)
    _unseen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = len(self.tokens)
        self.draw = Draw(self.request.sampling, self.tokens, wants_logprob=self.request.logprobs)
        self._is_read = self.request.streams or bool(self.request.sampling.stop)

    @property
    def urgency(self) -> tuple[int, int]:
        """Sorts the sequences: lower priority first, then first come, first served."""
        return self.request.priority, self.order

    @property
    def pending(self) -> int:
        """Tokens that the model has not read; 1 for a sequence that is past its prompt."""
        return len(self.tokens) - self.cached

    @property
    def made(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    def push(self, token: int, logprob: float | None, ends: Collection[int]) -> None:
        """Take in a sampled token, which may end the sequence. ``ends`` are the end-of-text tokens."""
        self.last_token = time.monotonic()
        self.first_token = self.first_token or self.last_token
        if token in ends:
            self.end(FinishReason.STOP)
            return
        self.tokens.append(token)
        self.draw.made += 1
        if logprob is not None:
            self.logprobs.append(logprob)
        if self._is_read:
            self._unseen.append(self.text.push(token))
        else:
            self.text.hold(token)
        if self.text.stopped:
            self.reason = FinishReason.STOP_STRING
        elif self.made >= self.limit:
            self.end(self.limit_reason)

    def end(self, reason: FinishReason, error: str | None = None) -> None:
        """End the sequence with the text it has."""
        self.reason, self.error = reason, error
        try:
            self._unseen.append(self.text.finish())
        except Exception as failure:
            # A tokenizer may raise anything; it is this sequence's failure and nobody else's.
            self.reason, self.error = FinishReason.ERROR, NO_TEXT.format(type(failure).__name__, failure)

    def take_text(self) -> str:
        """Text that has come since the last call."""
        text = "".join(self._unseen)
        self._unseen.clear()
        return text

    def is_late(self, now: float) -> bool:
        return self.request.deadline is not None and now > self.request.deadline

    def result(self) -> Result:
        """Needs ``reason``. A token that ends the text is not counted as output."""
        assert self.reason is not None
        return Result(
            request_id=self.request.id,
            text=self.text.text,
            finish_reason=self.reason,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.made,
            admitted=self.admitted,
            first_token=self.first_token,
            last_token=self.last_token,
            batch_size=self.batch_size,
            error=self.error,
            logprobs=tuple(self.logprobs) if self.request.logprobs else None,
        )
