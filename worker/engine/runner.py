"""The one file that runs the model."""

import ctypes
import gc
import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tasks.errors import ModelError
from worker.engine.batch import BatchMetadata, Span
from worker.engine.cache import ATTENTION, SlotCache
from worker.engine.native import Native
from worker.engine.packed import multiplies_by_row, pack
from worker.engine.recorder import record
from worker.engine.replay import CapturedSteps, Inputs
from worker.engine.scheduler import Chunk, Copy
from worker.engine.tracer import Program

logger = logging.getLogger(__name__)

TRIAL_TOKENS = 6
TOLERANCE = {torch.float32: 1e-3}
LOOSE = 0.1  # for the narrow formats


class ModelRunner:
    """Reads chunks of tokens into the cache and returns the logits that follow them.

    Takes the model over: its attention becomes the one of `worker.engine.cache`, and on a CPU its linear layers are
    packed. Raises `ModelError` where the model then computes something else than before.
    """

    def __init__(
        self,
        model: Any,
        *,
        slots: int,
        max_context: int,
        chunk_tokens: int,
        deterministic: bool,
        native: Native | None,
    ):
        """With ``deterministic`` a token's bits do not depend on what shares its pass.

        Where every kernel is the engine's own they never do. Elsewhere a pass is filled up, which ``fills`` tells:
        one over single tokens has always ``slots`` rows, any other is over one sequence and ``chunk_tokens``.
        """
        self.model = model
        self.device = torch.device(model.device)
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self.max_context = max_context
        self.chunk_tokens = chunk_tokens
        self.fills = deterministic
        self.rows = slots
        # Its own object, as it captures the calls of a step.
        self._native = None if native is None else Native(native.library)
        # Four dimensions tell transformers that the mask is made: it neither makes one nor warns.
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        self.cache = SlotCache(slots, max_context, self._native)
        self._program: Program = self._call_model_with_cache
        self._only_kernels = False  # what the program computes by
        self._captured: CapturedSteps | None = None
        with torch.inference_mode():
            self._take_over()

    def reset(self, slots: int) -> None:
        """An empty cache of ``slots`` slots. The old one's memory is given back first."""
        self.cache.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.cache = SlotCache(slots, self.max_context, self._native)
        self._forget_captured()

    def copy(self, copies: Sequence[Copy]) -> None:
        for each in copies:
            self.cache.copy(each)

    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits ``[sampling chunks, vocabulary]`` that follow the chunks that sample, in their order."""
        if not self.fills:
            return self._forward(chunks, 0)
        singles = [chunk for chunk in chunks if chunk.count == 1]
        parts = {id(chunk): self._forward([chunk], self.chunk_tokens) for chunk in chunks if chunk.count > 1}
        if singles:
            logits = self._forward(singles, self.rows)
            parts |= {id(chunk): logits[row : row + 1] for row, chunk in enumerate(singles)}
        wanted = [parts[id(chunk)] for chunk in chunks if chunk.samples]
        return torch.cat(wanted) if wanted else self._forward(chunks[:0], 0)

    def _forward(self, chunks: Sequence[Chunk], least: int) -> Tensor:
        """Like `run`, in one pass over at least ``least`` tokens; those that fill up belong to no slot."""
        spans: list[Span] = []
        ids: list[int] = []
        last: list[int] = []
        for chunk in chunks:
            spans.append(Span(chunk.sequence.slot, len(ids), chunk.count, chunk.length))
            ids += chunk.sequence.tokens[chunk.start : chunk.length]
            if chunk.samples:
                last.append(len(ids) - 1)
        if not spans:
            return torch.empty(0, self.vocabulary, device=self.device)
        fill = max(0, least - len(ids))
        # The number of rows of the output layer is part of the shape, too.
        kept = last + [last[0]] * (least - len(last)) if last and len(spans) > 1 and least else last or [0]
        logits = self._compute(BatchMetadata(spans, self.fills, self.device), ids + [ids[0]] * fill, kept)
        return logits[0, : len(last)]

    def _compute(self, batch: BatchMetadata, ids: list[int], kept: list[int]) -> Tensor:
        """Logits ``[1, kept, vocabulary]`` of the places ``kept`` among ``ids``; the first ids are the batch's."""
        self.cache.begin(batch)
        positions = torch.nn.functional.pad(batch.positions, (0, len(ids) - batch.tokens))
        inputs = Inputs(
            torch.tensor([ids]).to(self.device, non_blocking=True),
            positions[None].long(),
            torch.tensor(kept).to(self.device, non_blocking=True),
        )
        if self._captured is not None:
            return self._captured.run(inputs, self.cache)
        return self._program(inputs.ids, inputs.positions, inputs.kept)

    def _call_model_with_cache(self, ids: Tensor, positions: Tensor, kept: Tensor) -> Tensor:
        return self._call(ids, positions, kept, slot_cache=self.cache)

    def _call(self, ids: Tensor, positions: Tensor, kept: Tensor, **options: Any) -> Tensor:
        return self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._no_mask,
            use_cache=False,
            logits_to_keep=kept,
            **options,
        ).logits

    def _take_over(self) -> None:
        """Change the model and make sure that it still computes the same. Raises `ModelError` where it does not."""
        tokens = [(7 * at + 3) % self.vocabulary for at in range(min(TRIAL_TOKENS, self.max_context))]
        expected = self.model(input_ids=torch.tensor([tokens], device=self.device), use_cache=False).logits[0].float()
        packed = pack(self.model, self._native)
        self.model.set_attn_implementation(ATTENTION)
        name = type(self.model).__name__
        try:
            distance = _distance(self._trial(tokens), expected)
        except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
            raise ModelError(f"{name} does not run on the engine: {type(error).__name__}: {error}") from error
        tolerance = TOLERANCE.get(self.model.dtype, LOOSE)
        if not distance <= tolerance:
            raise ModelError(
                f"{name} computes something else on the engine than by itself (off by {distance:.2g}, {packed} packed "
                "layers): its attention is of a kind that the engine does not know. Use another model."
            )
        self._record()
        try:
            same = _distance(self._trial(tokens), expected) <= tolerance
        except RuntimeError as error:
            logger.warning("%s fails when it is recorded: %s", name, error)
            same = False
        if not same:
            logger.warning("%s computes something else when it is recorded; it is run module by module", name)
            self._program, self._only_kernels = self._call_model_with_cache, False
        self.fills = self.fills and not (multiplies_by_row(self.model) and self.cache.attends_by_token)
        # Only the trial tells whether attention is over keys that the kernel has code for.
        self._only_kernels = self._only_kernels and self.cache.attends_by_token
        self.cache.clear()
        self._forget_captured()
        _give_memory_back()

    def _forget_captured(self) -> None:
        """Captured steps know where keys and values lie."""
        native = self._native if self._only_kernels else None
        self._captured = None if native is None else CapturedSteps(self._program, native)

    def _record(self) -> None:
        """Do without the model's modules, if its code depends on no more than it is given."""
        computed_by: dict[Any, Any] = {torch.ops.touchstone.attention.default: lambda *call: self.cache.attend(*call)}
        if self._native is not None:
            computed_by[torch.ops.touchstone.linear.default] = self._native.linear
            computed_by[torch.ops.touchstone.embed.default] = self._native.embed

        def forward(ids: Tensor, positions: Tensor, kept: Tensor) -> Tensor:
            return self._call(ids, positions, kept)

        try:
            made = record(forward, self.device, computed_by, self._native, self.max_context)
            self._program, self._only_kernels = made.run, made.only_kernels
        except Exception as error:
            # Recording may fail in as many ways as there are models; each runs as well without, only slower.
            logger.info("%s cannot be recorded: %s", type(self.model).__name__, error)

    def _trial(self, tokens: list[int]) -> Tensor:
        """Logits ``[tokens, vocabulary]``, read in pieces: several tokens at first, then one, then the rest.

        The rows of a piece are asked for one by one: a program may leave out what no row needs that is kept.
        """
        cuts = sorted({0, len(tokens) // 2, min(len(tokens) // 2 + 1, len(tokens)), len(tokens)})
        pieces = []
        for start, end in pairwise(cuts):
            batch = BatchMetadata([Span(0, 0, end - start, end)], True, self.device)
            pieces += [self._compute(batch, tokens[start:end], [row])[0] for row in range(end - start)]
        return torch.cat(pieces)


def _distance(actual: Tensor, expected: Tensor) -> float:
    """How far off, as a share of what is expected; not a number where something is not."""
    return float((actual.float() - expected).norm() / expected.norm().clamp(min=1e-6))


def _give_memory_back() -> None:
    """What taking a model over left behind goes back to the system, where the C library can do that."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
