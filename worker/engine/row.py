"""One request on its way through an engine, from its prompt's tokens to its result."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from tasks.states import FinishReason
from worker.engine.protocol import Request, Result
from worker.engine.text import GrowingText

LATE = "The deadline passed before the completion ended; allow more time or fewer tokens."


@dataclass
class Row:
    """``limit`` is how many tokens may be made and ``limit_reason`` what it means to reach it.

    Times are points of `time.monotonic`. ``reason`` is set when the row has ended.
    """

    request: Request
    prompt: list[int]
    text: GrowingText
    limit: int
    limit_reason: FinishReason
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    shown: int = 0
    reason: FinishReason | None = None
    error: str | None = None

    def push(self, token: int, ends: Collection[int]) -> None:
        """Take in the next token; ``ends`` are the end-of-text tokens."""
        self.last_token = time.monotonic()
        self.first_token = self.first_token or self.last_token
        if token in ends:
            self.reason = FinishReason.STOP
        else:
            self.text.push(token)
            if self.text.stopped:
                self.reason = FinishReason.STOP_STRING
            elif len(self.text.tokens) >= self.limit:
                self.reason = self.limit_reason
        if self.reason is not None:
            self.text.finish()

    def end_from_outside(self, cancelled: Collection[str]) -> bool:
        """End the row if it was cancelled or is late, with the text that it has; tells whether it has ended."""
        if self.reason is None and self.request.id in cancelled:
            self.reason = FinishReason.CANCELLED
            self.text.finish()
        elif self.reason is None and self.request.deadline is not None and time.monotonic() > self.request.deadline:
            self.fail(FinishReason.DEADLINE, LATE)
        return self.reason is not None

    def fail(self, reason: FinishReason, error: str) -> None:
        self.reason, self.error = reason, error
        self.text.finish()

    def news(self) -> str:
        """Text that was not shown yet. A row that is run again shows nothing twice."""
        added = self.text.sent[self.shown :]
        self.shown += len(added)
        return added

    def restart(self) -> None:
        """Forget what was made, to be run again from the prompt: the same seed makes the same text."""
        self.text = GrowingText(self.text.tokenizer, self.text.stop)
        self.first_token = self.last_token = None

    def result(self, batch_size: int) -> Result:
        """Needs ``reason``."""
        assert self.reason is not None
        return Result(
            request_id=self.request.id,
            text=self.text.sent,
            finish_reason=self.reason,
            prompt_tokens=len(self.prompt),
            output_tokens=len(self.text.tokens),
            admitted=self.admitted,
            first_token=self.first_token,
            last_token=self.last_token,
            batch_size=batch_size,
            error=self.error,
        )
