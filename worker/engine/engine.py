"""Continuous batching: a request joins the running batch at the next step and leaves it the moment it ends."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tasks.states import FinishReason
from worker.engine.admission import NO_CHOICE, NO_MEMORY, Admission, Emit, end_tokens, is_out_of_memory, report
from worker.engine.native import Native
from worker.engine.protocol import Request
from worker.engine.runner import ModelRunner
from worker.engine.sampler import NO_TOKEN, Choice, sample
from worker.engine.scheduler import Chunk, Plan, Scheduler
from worker.engine.sequence import NO_TEXT
from worker.engine.sequence import Sequence as Running

PREFILL_TOKENS = {"cpu": 128, "cuda": 2048}  # of prompts a step, which running rows wait for


@dataclass
class Timings:
    """Seconds spent since the engine was made, and the ``steps`` that took them."""

    schedule: float = 0.0
    model: float = 0.0
    sample: float = 0.0
    text: float = 0.0
    steps: int = 0


class ContinuousEngine:
    """Implements `worker.engine.protocol.Engine` for any causal language model of transformers.

    Each step reads one token for every running row and some tokens of prompts, in one pass. ``slots`` may shrink for
    want of memory. `step` may be called from any thread, one at a time.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        slots: int,
        max_context: int,
        add_special_tokens: bool = False,
        deterministic: bool = False,
        prefill_tokens: int | None = None,
        native: Native | None = None,
        stop_tokens: Collection[int] = (),
    ):
        """``model`` and ``tokenizer`` as transformers loads them; the model is changed in place and belongs to this.

        ``max_context`` tokens of prompt and completion together. ``deterministic``: a request gives the same bits
        whatever shares the batch; free with ``native`` and bfloat16, else for the price of always computing ``slots``
        rows. ``prefill_tokens``: how many tokens of prompts a step may read. ``native`` are the kernels to use on a
        CPU, None for torch's. ``stop_tokens`` end a text like the model's own end tokens. Raises `ModelError` for a
        model that the engine cannot run.
        """
        tokens = prefill_tokens or PREFILL_TOKENS.get(torch.device(model.device).type, PREFILL_TOKENS["cpu"])
        self.slots = slots
        self.max_context = max_context
        self.ends = end_tokens(model) | frozenset(stop_tokens)
        self.progress = 0
        self.timings = Timings()
        self._native = native if torch.device(model.device).type == "cpu" else None
        self._most_slots = slots
        self._runner = ModelRunner(
            model.eval(),
            slots=slots,
            max_context=max_context,
            chunk_tokens=tokens,
            deterministic=deterministic,
            native=self._native,
        )
        self._scheduler = Scheduler(slots, tokens, fixed_chunks=self._runner.fills)
        self._admission = Admission(tokenizer, self._runner.vocabulary, max_context, add_special_tokens)

    @property
    def active(self) -> int:
        """Admission that are waiting or running."""
        return self._scheduler.count

    @property
    def cache_bytes(self) -> int:
        """Memory that keys and values take."""
        return self._runner.cache.nbytes

    def add(self, request: Request) -> None:
        """Take a request in. It ends in exactly one `Result`, also when it is impossible (then with an error)."""
        self._scheduler.add(self._admission.sequence(request, Running))

    def cancel(self, request_id: str) -> None:
        """End a request at the next step and keep its partial text; unknown ids are ignored."""
        self._admission.cancel(request_id)

    def step(self, emit: Emit) -> None:
        """Do one unit of work and emit what came of it, in order."""
        started = time.perf_counter()
        for sequence in self._admission.end_from_outside(self._scheduler.sequences):
            report(sequence, emit)
        self._scheduler.drop_ended()
        if not self.active:
            self._admission.forget_cancelled()
        plan = self._scheduler.plan()
        self.timings.schedule += time.perf_counter() - started
        if not plan.chunks:
            return
        _note_start(plan.chunks)
        with torch.inference_mode():
            choices = self._run(plan)
        started = time.perf_counter()
        for chunk, choice in choices:
            self._accept(chunk, choice)
            report(chunk.sequence, emit)
        self._scheduler.drop_ended()
        self.progress += 1
        self.timings.text += time.perf_counter() - started
        self.timings.steps += 1

    def _run(self, plan: Plan) -> list[tuple[Chunk, Choice | None]]:
        """Each chunk that was read with the token that follows it, None where none does."""
        try:
            self._runner.copy(plan.copies)
            return self._read(plan.chunks)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        return self._shrink(plan.chunks)

    def _read(self, chunks: Sequence[Chunk]) -> list[tuple[Chunk, Choice | None]]:
        """Like `_run`. A chunk that raises ends its own sequence; only a lack of memory is raised."""
        try:
            return self._compute(chunks)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            if len(chunks) == 1:
                self._fail(chunks[0], f"The model failed on this prompt: {type(error).__name__}: {error}")
                return [(chunks[0], None)]
        # Whose fault it is shows when each is read alone; what was written to the cache is written again.
        return [pair for chunk in chunks for pair in self._read([chunk])]

    def _compute(self, chunks: Sequence[Chunk]) -> list[tuple[Chunk, Choice | None]]:
        started = time.perf_counter()
        logits = self._runner.run(chunks)
        between = time.perf_counter()
        sampling = [chunk for chunk in chunks if chunk.samples]
        choices = iter(sample(logits, [chunk.sequence.draw for chunk in sampling], self._native))
        self.timings.model += between - started
        self.timings.sample += time.perf_counter() - between
        return [(chunk, next(choices) if chunk.samples else None) for chunk in chunks]

    def _accept(self, chunk: Chunk, choice: Choice | None) -> None:
        sequence = chunk.sequence
        if sequence.reason is not None:
            return
        sequence.cached = chunk.length
        if choice is None:
            return
        if choice.token == NO_TOKEN:
            self._fail(chunk, NO_CHOICE)
        else:
            try:
                sequence.push(choice.token, choice.logprob, self.ends)
            except Exception as error:
                # A tokenizer may raise anything here, too.
                self._fail(chunk, NO_TEXT.format(type(error).__name__, error))

    def _fail(self, chunk: Chunk, error: str) -> None:
        chunk.sequence.reason, chunk.sequence.error = FinishReason.ERROR, error
        with torch.inference_mode():
            self._runner.cache.wipe(chunk.sequence.slot)

    def _shrink(self, chunks: Sequence[Chunk]) -> list[tuple[Chunk, Choice | None]]:
        """Start over with half the slots. A sequence that finds no memory even alone ends; then all slots are back."""
        failed: list[tuple[Chunk, Choice | None]] = []
        if self.slots == 1:
            for chunk in chunks:
                chunk.sequence.end(FinishReason.ERROR, NO_MEMORY)
                failed.append((chunk, None))
            self._scheduler.drop_ended()
        self.slots = self.slots // 2 or self._most_slots
        self._runner.reset(self.slots)
        self._scheduler.resize(self.slots)
        return failed


def _note_start(chunks: Sequence[Chunk]) -> None:
    now = time.monotonic()
    for chunk in chunks:
        chunk.sequence.admitted = chunk.sequence.admitted or now
        chunk.sequence.batch_size = max(chunk.sequence.batch_size, len(chunks))
