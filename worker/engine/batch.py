"""The first engine: batches of requests through transformers' own generate."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.logits_process import (
    LogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tasks.sampling import Sampling
from tasks.states import FinishReason
from worker.engine.protocol import Delta, Event, Request
from worker.engine.row import Row
from worker.engine.seeded import gumbel_noise
from worker.engine.text import GrowingText

Emit = Callable[[Event], None]
TOO_LONG = "The prompt has {} tokens, the model's context only {}; shorten the prompt."
NOTHING = "The prompt has no token that the model knows; write it differently."


class BatchEngine:
    """Runs up to ``slots`` requests of equal decoding settings at a time; the next batch starts when all have ended."""

    def __init__(self, model: Any, tokenizer: Any, *, slots: int, max_context: int, add_special_tokens: bool):
        """``model`` and ``tokenizer`` as transformers loads them; ``max_context`` tokens of prompt and completion."""
        self.model = model
        self.tokenizer = tokenizer
        self.slots = slots
        self.max_context = max_context
        self.add_special_tokens = add_special_tokens
        self.progress = 0
        self.ends = _end_tokens(model)
        self._waiting: list[Row] = []
        self._running: list[Row] = []
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()

    @property
    def active(self) -> int:
        return len(self._waiting) + len(self._running)

    def add(self, request: Request) -> None:
        """Take a request in. It ends in exactly one `Result`, also when it is impossible (then with an error)."""
        prompt = list(self.tokenizer(request.prompt, add_special_tokens=self.add_special_tokens)["input_ids"])
        room = self.max_context - len(prompt)
        wanted = request.sampling.max_new_tokens
        reason = FinishReason.LENGTH if wanted <= room else FinishReason.CONTEXT
        text = GrowingText(self.tokenizer, request.sampling.stop)
        row = Row(request, prompt, text, min(wanted, room), reason)
        if not prompt:
            row.fail(FinishReason.ERROR, NOTHING)
        elif room < 1:
            row.fail(FinishReason.ERROR, TOO_LONG.format(len(prompt), self.max_context))
        self._waiting.append(row)

    def cancel(self, request_id: str) -> None:
        """End a request at the next step and keep its partial text; unknown ids are ignored."""
        with self._lock:
            self._cancelled.add(request_id)

    def step(self, emit: Emit) -> None:
        """Generate one batch of the most urgent requests to its end."""
        cancelled = self._cancelled_now()
        ended = [row for row in self._waiting if row.end_from_outside(cancelled)]
        self._waiting = [row for row in self._waiting if row.reason is None]
        for row in ended:
            emit(row.result(0))
        if self._waiting:
            self._running = self._take_batch()
            self._run(self._running, emit)
            self._running = []
        if not self._waiting:
            with self._lock:
                self._cancelled.clear()

    def _cancelled_now(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._cancelled)

    def _take_batch(self) -> list[Row]:
        self._waiting.sort(key=lambda row: row.request.priority)
        first = _group(self._waiting[0].request)
        batch = [row for row in self._waiting if _group(row.request) == first][: self.slots]
        taken = {row.request.id for row in batch}
        self._waiting = [row for row in self._waiting if row.request.id not in taken]
        return batch

    def _run(self, rows: list[Row], emit: Emit) -> None:
        """Generate ``rows``; where that fails, in two halves, so that only the row at fault ends with an error."""
        try:
            self._generate(rows, emit)
        except (MemoryError, RuntimeError, ValueError, IndexError) as error:
            rest = [row for row in rows if row.reason is None]
            if len(rest) > 1:
                if isinstance(error, torch.OutOfMemoryError | MemoryError):
                    self.slots = max(1, self.slots // 2)
                for row in rest:
                    row.restart()
                self._run(rest[: len(rest) // 2], emit)
                self._run(rest[len(rest) // 2 :], emit)
            elif rest:
                rest[0].fail(FinishReason.ERROR, f"The model failed on this prompt: {error}")
                emit(rest[0].result(len(rows)))

    @torch.inference_mode()
    def _generate(self, rows: list[Row], emit: Emit) -> None:
        width = max(len(row.prompt) for row in rows)
        pad = next(iter(self.ends), 0)
        ids = torch.full((len(rows), width), pad)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[i, width - len(row.prompt) :] = 1
            row.admitted = time.monotonic()
        self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=max(row.limit for row in rows),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=pad,
            logits_processor=_processors(rows, width),
            stopping_criteria=StoppingCriteriaList([_Watch(self, rows, emit)]),
        )

    def accept(self, rows: list[Row], tokens: list[int], emit: Emit) -> list[bool]:
        """Take in one token a row and emit what came of it; returns which rows have ended."""
        self.progress += 1
        cancelled = self._cancelled_now()
        for row, token in zip(rows, tokens, strict=True):
            if row.reason is not None:
                continue
            if not row.end_from_outside(cancelled):
                row.push(token, self.ends)
            if news := row.news():
                emit(Delta(row.request.id, news))
            if row.reason is not None:
                emit(row.result(len(rows)))
        return [row.reason is not None for row in rows]


class _Watch(StoppingCriteria):
    """Shows the engine every new token and stops the rows that have ended."""

    def __init__(self, engine: BatchEngine, rows: list[Row], emit: Emit):
        self.engine, self.rows, self.emit = engine, rows, emit

    def __call__(self, input_ids: Tensor, scores: Any, **options: Any) -> Any:
        """``input_ids`` ``[rows, length]``; returns bool ``[rows]``."""
        ended = self.engine.accept(self.rows, input_ids[:, -1].tolist(), self.emit)
        return torch.tensor(ended, device=input_ids.device)


class _PromptOnly(LogitsProcessor):
    """Lets a processor that looks back see no padding: row by row, from the prompt's first token."""

    def __init__(self, inner: Any, starts: list[int]):
        self.inner, self.starts = inner, starts

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        rows = zip(input_ids, scores, self.starts, strict=True)
        return torch.cat([self.inner(ids[start:].unsqueeze(0), row.unsqueeze(0)) for ids, row, start in rows])


class _SeededChoice(LogitsProcessor):
    """Adds each row's own noise, so that the greatest sum is a draw from the row's distribution."""

    def __init__(self, seeds: list[int], width: int):
        self.seeds, self.width = seeds, width

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        position = input_ids.shape[1] - self.width
        noise = torch.stack([gumbel_noise(seed, position, scores.shape[1]) for seed in self.seeds])
        return scores.float() + noise.to(scores.device)


def _processors(rows: list[Row], width: int) -> LogitsProcessorList:
    """The rows' decoding settings in transformers' order. Greedy rows get no noise."""
    sampling = rows[0].request.sampling
    starts = [width - len(row.prompt) for row in rows]
    chosen = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chosen.append(_PromptOnly(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty), starts))
    if sampling.no_repeat_ngram:
        chosen.append(_PromptOnly(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram), starts))
    if sampling.temperature == 0:
        return chosen
    if sampling.temperature != 1:
        chosen.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(sampling.top_p))
    chosen.append(_SeededChoice([row.request.sampling.seed for row in rows], width))
    return chosen


def _group(request: Request) -> tuple[int, Sampling]:
    """Requests of one group can share a call of generate: only seeds, lengths and stop strings may differ."""
    return request.priority, replace(request.sampling, seed=0, max_new_tokens=1, stop=())


def _end_tokens(model: Any) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    return frozenset(() if ends is None else [ends] if isinstance(ends, int) else ends)
