"""A model as transformers runs it: its own forward, its own attention, its own cache, one sequence at a time."""

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.errors import ModelError

logger = logging.getLogger(__name__)

# What transformers' models call what they read on from: keys and values, the states of Mamba, those of RWKV.
CACHES = ("past_key_values", "cache_params", "state")
OPTIONS = ("use_cache", "position_ids", "logits_to_keep")
TRIAL_TOKENS = 6
TRIAL_PROMPT = 3
TOLERANCE = {torch.float32: 1e-3}
LOOSE = 0.1  # for the narrow formats


@dataclass(frozen=True)
class State:
    """What a model has kept of the tokens that it has read, and the argument of its forward that takes it back.

    A model changes it in place while it reads on, so it is of no use after a pass that failed.
    """

    name: str
    value: Any


class CompatibleModel:
    """Reads tokens and returns the logits that follow the last of them.

    ``recomputes`` tells that each call reads a sequence from its start: the model has no cache, or one that gives
    other logits than a pass over the whole sequence, or one that cannot be kept apart for each sequence.
    """

    def __init__(self, model: Any, max_context: int):
        """``model`` as transformers loads it; nothing in it is changed. Raises `ModelError` where it does not run."""
        self.model = model.eval()
        self.device = torch.device(model.device)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        parameters = inspect.signature(model.forward).parameters
        takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
        self._caches = [name for name in CACHES if name in parameters]
        self._takes = {name for name in OPTIONS if name in parameters}
        self._takes |= {"use_cache"} if takes_any and self._caches else set()
        self.recomputes = not self._caches or "use_cache" not in self._takes
        with torch.inference_mode():
            self._try(max(2, min(TRIAL_TOKENS, max_context)))

    def read(self, tokens: list[int], cached: int, state: State | None) -> tuple[Tensor, State | None]:
        """Logits ``[1, vocabulary]`` after ``tokens``, and the state that holds them all.

        ``state`` holds the first ``cached``; None means that all are to be read.
        """
        if self.recomputes:
            return self._call(tokens, 0, use_cache=False).logits[:, -1], None
        known = {} if state is None else {state.name: state.value}
        out = self._call(tokens, 0 if state is None else cached, use_cache=True, **known)
        return out.logits[:, -1], self._state(out)

    def _state(self, out: Any) -> State:
        for name in self._caches:
            value = getattr(out, name, None)
            if value is not None:
                return State(name, value)
        raise NotImplementedError("the model returns no cache")

    def _call(self, tokens: list[int], cached: int, *, use_cache: bool, **known: Any) -> Any:
        """A pass over all but the first ``cached`` of ``tokens``.

        Positions are given because not every model counts on from those that its cache holds.
        """
        options = {
            "use_cache": use_cache,
            "position_ids": torch.arange(cached, len(tokens), device=self.device)[None],
            "logits_to_keep": 1,
        }
        taken = {name: value for name, value in options.items() if name in self._takes}
        return self.model(input_ids=torch.tensor([tokens[cached:]], device=self.device), **taken, **known)

    def _try(self, length: int) -> None:
        """Find out whether the cache can be trusted: two sequences by turns, against a pass over each whole one."""
        name = type(self.model).__name__
        sequences = [[(factor * at + 3) % self.vocabulary for at in range(length)] for factor in (7, 11)]
        ends = range(min(TRIAL_PROMPT, length - 1), length + 1)
        try:
            expected = [[self._call(s[:end], 0, use_cache=False).logits[:, -1] for s in sequences] for end in ends]
        except Exception as error:
            raise ModelError(f"{name} does not run in transformers: {type(error).__name__}: {error}") from error
        if self.recomputes:
            logger.info("%s has no cache; every token reads its whole sequence", name)
            return
        try:
            distance = self._distance(sequences, ends, expected)
        except Exception as error:
            # A cache may fail in as many ways as there are models; each runs as well without, only slower.
            logger.warning("%s fails with its cache, so every token reads its whole sequence: %s", name, error)
            self.recomputes = True
            return
        if not distance <= TOLERANCE.get(self.model.dtype, LOOSE):
            logger.warning("%s is off by %.2g with its cache, so every token reads its whole sequence", name, distance)
            self.recomputes = True

    def _distance(self, sequences: list[list[int]], ends: range, expected: list[list[Tensor]]) -> float:
        """How far off the cache is, as a share of the logits; not a number where something is not."""
        states: list[State | None] = [None] * len(sequences)
        worst = torch.zeros(())
        cached = 0
        for end, wanted in zip(ends, expected, strict=True):
            for at, tokens in enumerate(sequences):
                logits, states[at] = self.read(tokens[:end], cached, states[at])
                off = (logits.float() - wanted[at].float()).norm() / wanted[at].float().norm().clamp(min=1e-6)
                worst = torch.maximum(worst, off.cpu())
            cached = end
        return float(worst)
