"""How requests come into an engine and out of it: what every engine does alike, whatever it computes with."""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch

from tasks.states import FinishReason
from worker.engine.detokenizer import Detokenizer
from worker.engine.protocol import Delta, Event, Request
from worker.engine.sequence import LATE, Sequence

Emit = Callable[[Event], None]
S = TypeVar("S", bound=Sequence)

TOO_LONG = (
    "The prompt has {} tokens; this model's context holds {}, and the completion needs at least one of them. "
    "Shorten the prompt."
)
NOTHING = "The prompt has no token that the model knows; write it differently."
UNKNOWN_TOKEN = "The prompt has token {}, but the model knows only {}: tokenizer and model do not belong together."
NO_CHOICE = "The model gave no usable probabilities for the next token; try other decoding settings or another dtype."
NO_MEMORY = "There is not enough memory for this prompt, even alone. Shorten it or ask for fewer tokens."
_MEMORY_WORDS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


class Admission:
    """Makes sequences of requests and ends those that were cancelled or are late.

    Only `cancel` may be called from another thread.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, max_context: int, add_special_tokens: bool):
        """``vocabulary``: tokens that the model knows; ``max_context``: tokens of prompt and completion together."""
        self.tokenizer, self.vocabulary, self.max_context = tokenizer, vocabulary, max_context
        self.add_special_tokens = add_special_tokens
        self._singles: dict[int, str] = {}
        self._order = 0
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()

    def sequence(self, request: Request, kind: type[S]) -> S:
        """A request as a sequence of this kind; one that is impossible has ended with an error already."""
        tokens: list[int] = []
        try:
            tokens = self._tokens(request.prompt)
            problem = self._problem(tokens)
        except Exception as error:
            # A tokenizer may raise anything; it is this request's failure and nobody else's.
            problem = f"The prompt cannot be tokenized: {type(error).__name__}: {error}"
        room = self.max_context - len(tokens)
        wanted = request.sampling.max_new_tokens
        self._order += 1
        sequence = kind(
            request=request,
            order=self._order,
            tokens=tokens,
            limit=min(wanted, room),
            limit_reason=FinishReason.LENGTH if wanted <= room else FinishReason.CONTEXT,
            text=Detokenizer(self.tokenizer, request.sampling.stop, self._singles),
        )
        if problem is not None:
            sequence.reason, sequence.error = FinishReason.ERROR, problem
        return sequence

    def cancel(self, request_id: str) -> None:
        """End a request with the next `end_from_outside`; unknown ids are ignored."""
        with self._lock:
            self._cancelled.add(request_id)

    def end_from_outside(self, sequences: Iterable[S]) -> list[S]:
        """Those that were cancelled, are late, or have ended without a step."""
        with self._lock:
            cancelled = frozenset(self._cancelled)
        now = time.monotonic()
        ended = []
        for sequence in sequences:
            if sequence.reason is None and sequence.request.id in cancelled:
                sequence.end(FinishReason.CANCELLED)
            elif sequence.reason is None and sequence.is_late(now):
                sequence.end(FinishReason.DEADLINE, LATE)
            if sequence.reason is not None:
                ended.append(sequence)
        return ended

    def forget_cancelled(self) -> None:
        """To be called where nothing runs: until then the request of a cancelled id may be on its way."""
        with self._lock:
            self._cancelled.clear()

    def _tokens(self, prompt: str | tuple[int, ...]) -> list[int]:
        """A prompt of token ids is taken as it is."""
        if isinstance(prompt, tuple):
            return list(prompt)
        return list(self.tokenizer(prompt, add_special_tokens=self.add_special_tokens)["input_ids"])

    def _problem(self, tokens: list[int]) -> str | None:
        if not tokens:
            return NOTHING
        if len(tokens) >= self.max_context:
            return TOO_LONG.format(len(tokens), self.max_context)
        unknown = next((token for token in tokens if not 0 <= token < self.vocabulary), None)
        return None if unknown is None else UNKNOWN_TOKEN.format(unknown, self.vocabulary)


def report(sequence: Sequence, emit: Emit) -> None:
    """Emit what is new of a sequence."""
    if sequence.request.streams and (text := sequence.take_text()):
        emit(Delta(sequence.request.id, text))
    if sequence.reason is not None:
        emit(sequence.result())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; a CPU allocator says so only in its message."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def end_tokens(model: Any) -> frozenset[int]:
    """Ids of the tokens that end a text, from the generation config or else the model's."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = getattr(model.config, "eos_token_id", None) if ends is None else ends
    return frozenset(() if ends is None else [ends] if isinstance(ends, int) else ends)
