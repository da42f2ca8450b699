"""The one file that runs the model."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tasks.errors import ModelError
from worker.engine.cache import ATTENTION, Layout, SlotCache, Span
from worker.engine.packed import pack
from worker.engine.scheduler import Chunk, Copy

TRIAL_TOKENS = 6
TOLERANCE = {torch.float32: 1e-3}
LOOSE = 0.1  # for the narrow formats


class ModelRunner:
    """Reads chunks of tokens into the cache and returns the logits that follow them.

    Takes the model over: its attention becomes the one of `worker.engine.cache`, and on a CPU its linear layers are
    packed. Raises `ModelError` where the model then computes something else than before.
    """

    def __init__(self, model: Any, *, slots: int, max_context: int, chunk_tokens: int, deterministic: bool):
        """With ``deterministic`` a pass over single tokens always has ``slots`` rows, any other ``chunk_tokens``."""
        self.model = model
        self.device = torch.device(model.device)
        self.vocabulary = int(model.get_input_embeddings().num_embeddings)
        self.max_context = max_context
        self.chunk_tokens = chunk_tokens
        self.deterministic = deterministic
        self.rows = slots
        # Single queries over narrow keys are slow on a CPU; an accelerator keeps the model's format.
        self._dtype = torch.float32 if self.device.type == "cpu" else None
        # Four dimensions tell transformers that the mask is made: it neither makes one nor warns.
        self._no_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device)
        self.cache = SlotCache(slots, max_context, self._dtype)
        with torch.inference_mode():
            self._take_over()

    def reset(self, slots: int) -> None:
        """An empty cache of ``slots`` slots. The old one's memory is given back first."""
        self.cache.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.cache = SlotCache(slots, self.max_context, self._dtype)

    def copy(self, copies: Sequence[Copy]) -> None:
        for each in copies:
            self.cache.copy(each)

    def run(self, chunks: Sequence[Chunk]) -> Tensor:
        """Logits ``[sampling chunks, vocabulary]`` that follow the chunks that sample, in their order."""
        if not self.deterministic:
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
        layout = Layout(spans, self.deterministic, self.device)
        fill = max(0, least - len(ids))
        positions = torch.nn.functional.pad(layout.positions, (0, fill))
        self.cache.begin(layout)
        # The number of rows of the output layer is part of the shape, too.
        kept = last + [last[0]] * (least - len(last)) if last and len(spans) > 1 and least else last or [0]
        logits = self.model(
            input_ids=torch.tensor([ids + [ids[0]] * fill]).to(self.device, non_blocking=True),
            position_ids=positions[None],
            attention_mask=self._no_mask,
            use_cache=False,
            logits_to_keep=torch.tensor(kept).to(self.device, non_blocking=True),
            slot_cache=self.cache,
        ).logits
        return logits[0, : len(last)]

    def _take_over(self) -> None:
        tokens = [(7 * at + 3) % self.vocabulary for at in range(min(TRIAL_TOKENS, self.max_context))]
        expected = self.model(input_ids=torch.tensor([tokens], device=self.device), use_cache=False).logits[0].float()
        packed = pack(self.model)
        self.model.set_attn_implementation(ATTENTION)
        name = type(self.model).__name__
        try:
            actual = self._trial(tokens).float()
        except (TypeError, RuntimeError, AttributeError, KeyError, NotImplementedError) as error:
            raise ModelError(f"{name} does not run on the engine: {type(error).__name__}: {error}") from error
        distance = float((actual - expected).norm() / expected.norm().clamp(min=1e-6))
        if not distance <= TOLERANCE.get(self.model.dtype, LOOSE):
            raise ModelError(
                f"{name} computes something else on the engine than by itself (off by {distance:.2g}, {packed} packed "
                "layers): its attention is of a kind that the engine does not know. Use another model."
            )
        self.cache.clear()

    def _trial(self, tokens: list[int]) -> Tensor:
        """Logits ``[tokens, vocabulary]``, read in two pieces."""
        rows = []
        for start, end in ((0, len(tokens) // 2), (len(tokens) // 2, len(tokens))):
            layout = Layout([Span(0, 0, end - start, end)], True, self.device)
            self.cache.begin(layout)
            out = self.model(
                input_ids=torch.tensor([tokens[start:end]], device=self.device),
                position_ids=layout.positions[None],
                attention_mask=self._no_mask,
                use_cache=False,
                slot_cache=self.cache,
            )
            rows.append(out.logits[0])
        return torch.cat(rows)
