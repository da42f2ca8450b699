"""Which engine runs a model: continuous batching where the model allows it, transformers' own way where not."""

import gc
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from tasks.errors import ModelError
from worker.engine.admission import is_out_of_memory
from worker.engine.batch import BatchMetadata, Span
from worker.engine.cache import ATTENTION, SlotCache
from worker.engine.compatible import CompatibleEngine
from worker.engine.engine import ContinuousEngine
from worker.engine.native import Native
from worker.engine.runner import LOOSE, TOLERANCE, TRIAL_TOKENS

logger = logging.getLogger(__name__)

# Layers of other kinds differ from these only after many tokens, which no short trial shows.
LAYERS = frozenset(("full_attention", "sliding_attention"))


class EngineKind(StrEnum):
    CONTINUOUS = "continuous"
    COMPATIBLE = "compatible"


@dataclass(frozen=True)
class Choice:
    """The engine that runs a model. ``reason`` says in one line why it is not the continuous one, if it is not."""

    engine: ContinuousEngine | CompatibleEngine
    kind: EngineKind
    reason: str | None = None


def make_engine(
    model: Any,
    tokenizer: Any,
    *,
    slots: int,
    max_context: int,
    add_special_tokens: bool = False,
    stop_tokens: Collection[int] = (),
    deterministic: bool = False,
    prefill_tokens: int | None = None,
    native: Native | None = None,
    reload: Callable[[], Any] | None = None,
) -> Choice:
    """The continuous engine for ``model``, or else the compatible one, with a log line that says why.

    The options are those of both engines; the compatible one is always deterministic and reads prompts whole.
    ``stop_tokens`` end a text beside those that the model names.

    Whether the engine's attention fits is found out before the model is changed. Should taking it over fail even so,
    ``reload`` makes the same model once more. Raises `ModelError` for a model that runs on neither, or without
    ``reload`` where it would be needed.
    """
    name = type(model).__name__
    shared: dict[str, Any] = {"slots": slots, "max_context": max_context, "add_special_tokens": add_special_tokens}
    shared["native"] = native
    reason = why_not_continuous(model.eval(), max_context)
    if reason is None:
        try:
            engine = ContinuousEngine(
                model, tokenizer, deterministic=deterministic, prefill_tokens=prefill_tokens, **shared
            )
            engine.ends |= frozenset(stop_tokens)
            return Choice(engine, EngineKind.CONTINUOUS)
        except Exception as error:
            # Packing and recording go through the model's own code, which may raise anything.
            if is_out_of_memory(error):
                raise
            reason = _one_line(error)
            if reload is None:
                raise ModelError(f"{name} cannot be taken over by the engine: {reason}") from error
        model = None
        gc.collect()  # or there would be two for a while
        model = reload()
    logger.warning("%s runs by transformers' own cache, compatible but slow: %s", name, reason)
    compatible = CompatibleEngine(model, tokenizer, stop_tokens=stop_tokens, **shared)
    return Choice(compatible, EngineKind.COMPATIBLE, reason)


def why_not_continuous(model: Any, max_context: int) -> str | None:
    """Why the engine's attention does not fit a model, in one line; None where it does. The model stays as it was."""
    return _unknown_kind(model) or _changing_positions(model, max_context) or _unlike_its_own(model, max_context)


def _unknown_kind(model: Any) -> str | None:
    """What a model says of itself that the engine has nothing for."""
    if getattr(model, "_is_stateful", False):
        return "it keeps states between tokens, which the engine has no place for"
    kinds = sorted(set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - LAYERS)
    return f"it has layers that the engine does not know: {', '.join(kinds)}" if kinds else None


def _changing_positions(model: Any, max_context: int) -> str | None:
    """Some rotary positions are others as soon as a text is longer than what the model was first trained with.

    In a step of many sequences they would be those of the longest for all.
    """
    config = model.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) or {}
    for each in [rotary] if "rope_type" in rotary else rotary.values():
        kind = each.get("rope_type") if isinstance(each, dict) else None
        if kind in ("dynamic", "longrope"):
            length = each.get("original_max_position_embeddings") or config.max_position_embeddings
            if length < max_context:
                return (
                    f"its positions change where a text grows beyond {length} tokens ({kind}); "
                    f"with max_context = {length} or less the engine runs it"
                )
    return None


def _unlike_its_own(model: Any, max_context: int) -> str | None:
    own = model.config._attn_implementation
    try:
        with torch.inference_mode():
            expected = _expected(model, max_context)
            model.set_attn_implementation(ATTENTION)
            if model.config._attn_implementation != ATTENTION:
                return "its code has an attention of its own that cannot be exchanged"
            cache = _WatchedCache(1, max_context, None)
            distance = _distance_from(expected, model, cache)
    except NotImplementedError as error:
        return f"it needs what the engine does not have: {error}"
    except Exception as error:
        # A model may fail at what it was not made for in as many ways as there are models.
        if is_out_of_memory(error):
            raise
        return _one_line(error)
    finally:
        if model.config._attn_implementation != own:
            model.set_attn_implementation(own)
    if cache.repeats:
        return "its layers attend more than once a pass, and the engine keeps one cache for each"
    if not distance <= TOLERANCE.get(model.dtype, LOOSE):
        return f"its attention is of a kind that the engine does not know (off by {distance:.2g})"
    window = _window(model.config.get_text_config())
    if window and window < max_context and window not in cache.windows:
        return f"its window of {window} tokens is in its mask alone, which the engine does not read"
    return None


def _window(config: Any) -> int:
    """Tokens that a window of attention is long, 0 where there is none."""
    kinds = getattr(config, "layer_types", None)
    used = kinds is None or "sliding_attention" in kinds
    return int(getattr(config, "sliding_window", None) or 0) if used else 0


class _WatchedCache(SlotCache):
    """Notes the windows that attention is called with, and whether a layer is called twice in one pass."""

    def __init__(self, slots: int, max_context: int, native: Native | None):
        super().__init__(slots, max_context, native)
        self.windows: set[int] = set()
        self.repeats = False
        self._called: set[int] = set()

    def begin(self, batch: BatchMetadata) -> None:
        self._called.clear()
        super().begin(batch)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, layer: int, scale: float, window: int, softcap: float
    ) -> Tensor:
        self.windows.add(window)
        self.repeats |= layer in self._called
        self._called.add(layer)
        return super().attend(query, key, value, layer, scale, window, softcap)


def _trial_tokens(model: Any, max_context: int) -> Tensor:
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    tokens = [(7 * at + 3) % vocabulary for at in range(min(TRIAL_TOKENS, max_context))]
    return torch.tensor([tokens], device=model.device)


def _expected(model: Any, max_context: int) -> Tensor:
    """Logits ``[tokens, vocabulary]`` of the model by itself."""
    return model(input_ids=_trial_tokens(model, max_context), use_cache=False).logits[0].float()


def _distance_from(expected: Tensor, model: Any, cache: SlotCache) -> float:
    """How far from ``expected`` the logits are with the engine's attention, as a share of it.

    The tokens are read in pieces: several at first, then one, then the rest.
    """
    ids = _trial_tokens(model, cache.max_context)
    count = ids.shape[1]
    pieces = []
    for start, end in pairwise(sorted({0, count // 2, min(count // 2 + 1, count), count})):
        cache.begin(BatchMetadata([Span(0, 0, end - start, end)], True, ids.device))
        out = model(
            input_ids=ids[:, start:end],
            position_ids=torch.arange(start, end, device=ids.device)[None],
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=ids.device),
            use_cache=False,
            logits_to_keep=torch.arange(end - start, device=ids.device),
            slot_cache=cache,
        )
        pieces.append(out.logits[0])
    return float((torch.cat(pieces).float() - expected).norm() / expected.norm().clamp(min=1e-6))


def _one_line(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, ModelError) else f"{type(error).__name__}: {text}"
