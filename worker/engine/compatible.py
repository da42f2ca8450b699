"""An engine for models that continuous batching cannot run: slow, and right for whatever transformers runs."""

import heapq
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from tasks.states import FinishReason
from worker.engine.admission import NO_CHOICE, NO_MEMORY, Admission, Emit, end_tokens, is_out_of_memory, report
from worker.engine.compatible_model import CompatibleModel, State
from worker.engine.native import Native
from worker.engine.protocol import Request
from worker.engine.sampler import NO_TOKEN, sample
from worker.engine.sequence import NO_TEXT, Sequence


@dataclass(eq=False)
class Running(Sequence):
    """A sequence with what the model has kept of it, None before it is read."""

    state: State | None = None

    def forget(self) -> None:
        """Have the model read everything anew."""
        self.state, self.cached = None, 0


class CompatibleEngine:
    """Implements `worker.engine.protocol.Engine` by the model's own forward, attention and cache.

    The ``slots`` most urgent requests run, each in passes of its own, so that what shares a step cannot change a
    request's bits. A step makes one token for each of them and reads at most one prompt. A request that a more urgent
    one displaces keeps its state. For want of memory ``slots`` may shrink.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        slots: int,
        max_context: int,
        add_special_tokens: bool = False,
        stop_tokens: Collection[int] = (),
        native: Native | None = None,
    ):
        """``model`` and ``tokenizer`` as transformers loads them; the model is not changed.

        ``max_context`` tokens of prompt and completion together. ``stop_tokens`` end a text beside those that the
        model names. ``native`` are the kernels that sample on a CPU, None for torch's. Raises `ModelError` for a model
        that does not run in transformers.
        """
        self.slots = slots
        self.max_context = max_context
        self.ends = end_tokens(model) | frozenset(stop_tokens)
        self.progress = 0
        self._native = native if torch.device(model.device).type == "cpu" else None
        self._model = CompatibleModel(model, max_context)
        self._most_slots = slots
        self._sequences: list[Running] = []
        self._admission = Admission(tokenizer, self._model.vocabulary, max_context, add_special_tokens)

    @property
    def active(self) -> int:
        """Admission that are waiting or running."""
        return len(self._sequences)

    @property
    def recomputes(self) -> bool:
        """Whether every token costs a pass over its whole sequence, as the model has no cache that can be trusted."""
        return self._model.recomputes

    def add(self, request: Request) -> None:
        """Take a request in. It ends in exactly one `Result`, also when it is impossible (then with an error)."""
        self._sequences.append(self._admission.sequence(request, Running))

    def cancel(self, request_id: str) -> None:
        """End a request at the next step and keep its partial text; unknown ids are ignored."""
        self._admission.cancel(request_id)

    def step(self, emit: Emit) -> None:
        """Do one unit of work and emit what came of it, in order."""
        for sequence in self._admission.end_from_outside(self._sequences):
            report(sequence, emit)
        self._drop_ended()
        turn = self._turn()
        with torch.inference_mode():
            for sequence in turn:
                sequence.admitted = sequence.admitted or time.monotonic()
                sequence.batch_size = max(sequence.batch_size, len(turn))
                self._advance(sequence)
                report(sequence, emit)
                self.progress += 1
        self._drop_ended()

    def _drop_ended(self) -> None:
        self._sequences = [sequence for sequence in self._sequences if sequence.reason is None]
        if not self._sequences:
            self._admission.forget_cancelled()

    def _most_urgent(self) -> list[Running]:
        return heapq.nsmallest(self.slots, self._sequences, key=lambda sequence: sequence.urgency)

    def _turn(self) -> list[Running]:
        """Who gets a token in this step: at most one of them has more to read than its last one."""
        running = self._most_urgent()
        reading = next((sequence for sequence in running if sequence.pending > 1), None)
        return [sequence for sequence in running if sequence.pending == 1 or sequence is reading]

    def _advance(self, sequence: Running) -> None:
        """Make a sequence's next token. Whatever fails ends this sequence and touches no other."""
        try:
            logits, sequence.state = self._model.read(sequence.tokens, sequence.cached, sequence.state)
            sequence.cached = len(sequence.tokens)
            (choice,) = sample(logits, [sequence.draw], self._native)
        except Exception as error:
            sequence.forget()
            if is_out_of_memory(error):
                self._make_room(sequence)
            else:
                _fail(sequence, f"The model failed on this prompt: {type(error).__name__}: {error}")
            return
        if choice.token == NO_TOKEN:
            _fail(sequence, NO_CHOICE)
            return
        try:
            sequence.push(choice.token, choice.logprob, self.ends)
        except Exception as error:
            # A tokenizer may raise anything here, too.
            _fail(sequence, NO_TEXT.format(type(error).__name__, error))

    def _make_room(self, sequence: Running) -> None:
        """Go on with half the slots; whoever loses one reads anew later. One that is alone ends: all slots are back."""
        others = [other for other in self._sequences if other is not sequence and other.state is not None]
        if not others:
            sequence.end(FinishReason.ERROR, NO_MEMORY)
            self.slots = self._most_slots
            return
        self.slots = max(1, self.slots // 2)
        kept = {id(running) for running in self._most_urgent()}
        for other in others:
            if id(other) not in kept:
                other.forget()


def _fail(sequence: Running, error: str) -> None:
    sequence.reason, sequence.error = FinishReason.ERROR, error
