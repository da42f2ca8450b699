"""Keys and values of all running sequences, and attention over them.

Attention finds in a `worker.engine.batch.BatchMetadata` which token of a step belongs to whom.
"""

import math
import mmap
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from worker.engine.batch import BatchMetadata, Group, Span
from worker.engine.native import Native
from worker.engine.scheduler import Copy

ATTENTION = "touchstone"
FIRST_CAPACITY = 128  # positions a slot has at first; doubled when a sequence outgrows it


class SlotCache:
    """Keys and values ``[slots, capacity, heads, head_dim]`` of each layer, made when a layer first writes.

    The capacity follows the longest sequence, up to ``max_context``.
    """

    def __init__(self, slots: int, max_context: int, native: Native | None):
        self.slots, self.max_context, self.native = slots, max_context, native
        self.capacity = min(FIRST_CAPACITY, max_context)
        self.attends_by_token = True  # no outcome so far depends on what else the step reads
        self.batch: BatchMetadata
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def nbytes(self) -> int:
        return sum(states.nbytes for both in self._layers.values() for states in both)

    def begin(self, batch: BatchMetadata) -> None:
        """Get ready for a step."""
        self.batch = batch
        longest = max(span.length for span in batch.spans)
        while self.capacity < longest:
            self.capacity = min(self.capacity * 2, self.max_context)

    def copy(self, copy: Copy) -> None:
        for both in self._layers.values():
            for states in both:
                states[copy.target, : copy.count] = states[copy.source, : copy.count]

    def write(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the step's ``key`` and ``value`` ``[1, heads, tokens, head_dim]``; returns the whole layer's."""
        keys, values = self.layer(layer, key, value)
        rows = self.batch.rows(self.capacity)
        for states, new in ((keys, key), (values, value)):
            used = new[0, :, : self.batch.tokens].transpose(0, 1)
            states.flatten(0, 1).index_copy_(0, rows, used.to(states.dtype))
        return keys, values

    def layer(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, made or widened for ones like ``key`` and ``value`` where they are too small."""
        old = self._layers.get(layer)
        if old is None or old[0].shape[1] < self.capacity:
            made = []
            for index, new in enumerate((key, value)):
                shape = (self.slots, self.capacity, new.shape[1], new.shape[3])
                states = _zeros(shape, self._dtype(new), new.device)
                if old is not None:
                    states[:, : old[index].shape[1]] = old[index]
                made.append(states)
            self._layers[layer] = (made[0], made[1])
        return self._layers[layer]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float, window: int, softcap: float
    ) -> Tensor:
        """Attention of the step's tokens, each over its own slot up to itself: ``[1, tokens, query_heads, head_dim]``.

        ``query`` ``[1, query_heads, tokens, head_dim]``, ``key`` and ``value`` ``[1, heads, tokens, head_dim]``. Only
        the last ``window`` positions are seen, if it is not 0. A ``softcap`` that is not 0 bounds the scores: they
        become ``softcap * tanh(score / softcap)``.
        """
        batch = self.batch
        native = self.kernel(query, key, value)
        if native is not None:
            places = (*self.layer(layer, key, value), batch.slots, batch.positions)
            return native.attend(query[0], key[0], value[0], *places, scale, window, softcap)[None]
        self.attends_by_token = False
        keys, values = self.write(layer, key, value)
        queries = query[0].transpose(0, 1)
        out = queries.new_zeros(queries.shape[0], queries.shape[1], values.shape[3])
        windowed = window > 0 and any(span.length > window for span in batch.spans)
        if not windowed:
            for group in batch.groups(2 * keys.shape[2] * keys.shape[3] * keys.element_size()):
                _attend_singly(group, queries, keys, values, out, scale, softcap)
        for span in batch.spans:
            if windowed or span.count > 1:
                _attend_span(span, queries, keys, values, out, scale, window, softcap)
        return out.unsqueeze(0)

    def kernel(self, query: Tensor, key: Tensor, value: Tensor) -> Native | None:
        """The engine's own code for attention over these, if there is any."""
        alike = key.shape == value.shape and query.dtype == key.dtype == value.dtype
        rows = all(each.stride(3) == 1 for each in (query, key, value))
        fits = self.native is not None and self.native.attends(key.dtype, key.shape[3])
        return self.native if fits and alike and rows else None

    def _dtype(self, new: Tensor) -> torch.dtype:
        """Torch attends slowly to narrow keys by single queries on a CPU; all else keeps the model's format."""
        narrow_is_slow = new.device.type == "cpu" and self.kernel(new, new, new) is None
        return torch.float32 if narrow_is_slow else new.dtype

    def wipe(self, slot: int) -> None:
        """Forget a slot whose numbers went bad: even a masked position spreads one that is not finite."""
        for both in self._layers.values():
            for states in both:
                states[slot].zero_()

    def clear(self) -> None:
        """Give the memory back."""
        self._layers.clear()
        self.capacity = min(FIRST_CAPACITY, self.max_context)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, not rubbish: a masked position counts for nothing only if it is finite.

    On a CPU fresh from the system, so that only what is written takes memory, and goes back at once. Raises
    `MemoryError`.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = math.prod(shape) * dtype.itemsize
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{size} bytes of keys or values") from error
    return torch.frombuffer(pages, dtype=dtype).view(shape)


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    slot_cache: SlotCache | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers' models call: `SlotCache.attend`, or its operator where there is no cache.

    Raises `NotImplementedError` for a kind of attention that the engine does not know.
    """
    if s_aux is not None or position_bias is not None:
        raise NotImplementedError("attention with sinks or position bias")
    compute = attention if slot_cache is None else slot_cache.attend
    scale = float(key.shape[3]) ** -0.5 if scaling is None else float(scaling)
    return compute(query, key, value, int(module.layer_idx), scale, sliding_window or 0, softcap or 0.0), None  # type: ignore[arg-type]


@torch.library.custom_op("touchstone::attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float, window: int, softcap: float
) -> Tensor:
    """Stands for `SlotCache.attend` where a model is recorded; never computed."""
    raise NotImplementedError("attention without a cache")


@attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float, window: int, softcap: float) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


def _attend_singly(
    group: Group, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, scale: float, softcap: float
) -> None:
    """One token a slot. Query heads that share a key head are taken as its queries, so that keys are read once."""
    count, longest = len(group.lengths), max(group.lengths)
    tokens, slots = slice(group.first, group.first + count), slice(group.slot, group.slot + count)
    query = queries[tokens].reshape(count, keys.shape[2], -1, keys.shape[3]).to(keys.dtype)
    mask = None if group.mask is None else group.mask.to(keys.dtype)
    key, value = (states[slots, :longest].transpose(1, 2) for states in (keys, values))
    seen = _attend(query, key, value, mask, scale, softcap)
    out[tokens] = seen.reshape(count, -1, values.shape[3])


def _attend_span(
    span: Span, queries: Tensor, keys: Tensor, values: Tensor, out: Tensor, scale: float, window: int, softcap: float
) -> None:
    """Some tokens of one slot, each over the positions up to its own, the last ``window`` of them if it is not 0."""
    heads = keys.shape[2]
    tokens = slice(span.first, span.first + span.count)
    start = span.length - span.count
    low = 0 if window == 0 else max(0, start + 1 - window)
    key, value = (states[span.slot, low : span.length].transpose(0, 1) for states in (keys, values))
    shares = queries.shape[1] // heads
    query = queries[tokens].transpose(0, 1).to(keys.dtype)
    plain = shares == 1 and start == 0 and (window == 0 or span.length <= window) and softcap == 0
    mask = None
    if not plain:
        own = torch.arange(start, span.length, device=keys.device)[:, None]
        other = torch.arange(low, span.length, device=keys.device)
        seen = other <= own if window == 0 else (other <= own) & (other > own - window)
        mask = torch.zeros(seen.shape, dtype=keys.dtype, device=keys.device).masked_fill_(~seen, float("-inf"))
        mask = mask.repeat(shares, 1)
    shared = query.reshape(1, heads, -1, keys.shape[3])
    made = _attend(shared, key[None], value[None], mask, scale, softcap, is_causal=plain)
    out[tokens] = made.reshape(queries.shape[1], span.count, -1).transpose(0, 1)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float,
    is_causal: bool = False,
) -> Tensor:
    """Torch's attention, which knows no soft capping: with one, step by step and without ``is_causal``."""
    if softcap == 0:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal, scale=scale)
    scores = softcap * torch.tanh(query @ key.transpose(-1, -2) * scale / softcap)
    return torch.softmax(scores if mask is None else scores + mask, -1) @ value


AttentionInterface.register(ATTENTION, attend)
