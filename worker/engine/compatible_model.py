"""A model as transformers' generate runs it: its own forward, attention and cache, one sequence at a time."""

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
TRIAL_PROMPT = 3
TRIAL_TOKENS = 3  # made after the prompt
TRIAL_FACTORS = (7, 11)  # which make two different prompts
TOLERANCE = {torch.float32: 1e-3}
LOOSE = 0.1  # for the narrow formats


@dataclass(frozen=True)
class State:
    """What a model has kept of the tokens that it has read, and the argument that takes it back.

    A model changes it in place while it reads on, so it is of no use after a pass that failed.
    """

    name: str
    value: Any


@dataclass(frozen=True)
class Trial:
    """A prompt and what generate made of it: all ``tokens``, and the ``logits`` ``[1, vocabulary]`` of each new one."""

    tokens: list[int]
    logits: tuple[Tensor, ...]

    def length(self, step: int) -> int:
        """Tokens that were read before the logits of a step."""
        return len(self.tokens) - len(self.logits) + step


class CompatibleModel:
    """Reads tokens and returns the logits that follow the last of them: those that the model's generate would see.

    ``recomputes`` tells that each call reads a sequence from its start: the model has no cache, or one that cannot be
    trusted, or one that it does not keep apart for each sequence.
    """

    def __init__(self, model: Any, max_context: int):
        """``model`` as transformers loads it; its weights and code are not changed.

        Raises `ModelError` where it does not run, or not as in its own generate.
        """
        self.model = model.eval()
        self.device = torch.device(model.device)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self._parameters = inspect.signature(model.forward).parameters
        self._caches = [name for name in CACHES if name in self._parameters]
        self._rotaries = [module for module in model.modules() if "dynamic" in str(getattr(module, "rope_type", ""))]
        self.recomputes = not self._caches
        with torch.inference_mode():
            self._try(max_context)

    def read(self, tokens: list[int], cached: int, state: State | None) -> tuple[Tensor, State | None]:
        """Logits ``[1, vocabulary]`` after ``tokens``, and the state that holds them all.

        ``state`` holds the first ``cached``; None means that all are to be read.
        """
        self._reset_rotaries()
        if self.recomputes:
            return self._call(tokens, None, use_cache=False).logits[:, -1], None
        if state is None:
            out = self._call(tokens, None, use_cache=True)
        else:
            out = self._call(tokens, len(tokens) - cached, use_cache=True, **{state.name: state.value})
        return out.logits[:, -1], self._state(out)

    def _state(self, out: Any) -> State:
        for name in self._caches:
            value = getattr(out, name, None)
            if value is not None:
                return State(name, value)
        raise NotImplementedError("the model returns no cache")

    def _call(self, tokens: list[int], count: int | None, **known: Any) -> Any:
        """A pass over the last ``count`` of ``tokens``, None for all.

        The model itself says what it is to be given: some leave a cache behind on the way, as Phi 3 where its
        positions change, and some do not count positions on from those that their cache holds.
        """
        options: dict[str, Any] = {"is_first_iteration": True} if count is None else {}
        if "attention_mask" in self._parameters:
            options["attention_mask"] = torch.ones(1, len(tokens), dtype=torch.long, device=self.device)
        if "position_ids" in self._parameters:
            options["position_ids"] = torch.arange(len(tokens), device=self.device)[None]
        if "logits_to_keep" in self._parameters:
            options["logits_to_keep"] = 1
        ids = torch.tensor([tokens], device=self.device)
        inputs = self.model.prepare_inputs_for_generation(ids, next_sequence_length=count, **options, **known)
        return self.model(**inputs, return_dict=True)

    def _reset_rotaries(self) -> None:
        """Undo what rotary positions that grow with the longest text ("dynamic") have kept of other sequences."""
        for module in self._rotaries:
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
                setattr(module, name, module.original_max_seq_len)
            for name, buffer in list(module.named_buffers(recurse=False)):
                original = getattr(module, name.replace("inv_freq", "original_inv_freq"), buffer)
                if original is not buffer:
                    module.register_buffer(name, original.to(self.device, copy=True), persistent=False)

    def _try(self, max_context: int) -> None:
        """Find out how the model gives what its generate sees. Raises `ModelError` where it does not at all."""
        name = type(self.model).__name__
        try:
            trials = [self._generate(factor, max_context) for factor in TRIAL_FACTORS]
            problem = None if self.recomputes else self._problem(trials)
            if problem is not None:
                logger.warning("%s: every token reads its whole sequence, as %s", name, problem)
                self.recomputes = True
            distance = self._distance(trials)
        except Exception as error:
            # A model may fail in as many ways as there are models.
            raise ModelError(f"{name} does not run in transformers: {type(error).__name__}: {error}") from error
        if not distance <= self._tolerance:
            raise ModelError(
                f"{name} computes something else step by step than in transformers' own generate "
                f"(off by {distance:.2g}). Use another model."
            )

    @property
    def _tolerance(self) -> float:
        return TOLERANCE.get(self.model.dtype, LOOSE)

    def _problem(self, trials: list[Trial]) -> str | None:
        """Why the cache cannot be trusted, None where it can."""
        try:
            distance = self._distance(trials)
        except Exception as error:
            # Each model runs as well without its cache, only slower.
            return f"its cache fails: {type(error).__name__}: {error}"
        return None if distance <= self._tolerance else f"it is off by {distance:.2g} with its cache"

    def _generate(self, factor: int, max_context: int) -> Trial:
        prompt = [(factor * at + 3) % self.vocabulary for at in range(min(TRIAL_PROMPT, max_context))]
        ids = torch.tensor([prompt], device=self.device)
        count = max(1, min(TRIAL_TOKENS, max_context - len(prompt)))
        options = {
            "attention_mask": torch.ones_like(ids),
            "max_new_tokens": count,
            "min_new_tokens": count,
            "do_sample": False,
            "disable_compile": True,
            "pad_token_id": 0,
            "output_logits": True,
            "return_dict_in_generate": True,
        }
        try:
            out = self.model.generate(ids, **options)
        except Exception as error:
            if self.recomputes:
                raise
            logger.info("generate fails with the cache of %s: %s", type(self.model).__name__, error)
            out = self.model.generate(ids, use_cache=False, **options)
        return Trial(out.sequences[0].tolist(), out.logits)

    def _distance(self, trials: list[Trial]) -> float:
        """How far off the logits are, as a share of those of generate, where sequences are read by turns.

        A model that keeps something of a sequence in itself would take it for the other's. Not a number where a logit
        is none.
        """
        states: list[State | None] = [None] * len(trials)
        worst = torch.zeros(())
        for step in range(min(len(trial.logits) for trial in trials)):
            for at, trial in enumerate(trials):
                length = trial.length(step)
                logits, states[at] = self.read(trial.tokens[:length], length - 1, states[at])
                expected = trial.logits[step].to(logits.device)
                off = (logits.float() - expected).norm() / expected.norm().clamp(min=1e-6)
                worst = torch.maximum(worst, off.cpu())
        return float(worst)
