"""Greedy tokens of an engine against those of transformers' own generate, over tiny models that make varied text."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.sampling import Sampling
from tasks.states import FinishReason
from worker.backends.weights import open_weights
from worker.bench.families import CONTEXT, FIRST_CHARACTER, VOCABULARY, Family, character_tokenizer
from worker.engine import native
from worker.engine.choice import Choice, make_engine
from worker.engine.protocol import Delta, Event, Request, Result

PROMPTS = 8
NEW_TOKENS = 24
SLOTS = 4
CANCELLED_AFTER = 3  # tokens
VARIED = 40  # different tokens that are looked for; what counts as a check at all is less
LEAST_GAP = 1e-4  # between the two best logits, in standard deviations: nearer ones may change places by rounding
TRIES = tuple((factor, seed) for seed in (0, 1) for factor in (4.0, 8.0, 2.0))


@dataclass(frozen=True)
class Reference:
    """What generate made of each prompt: ``distinct`` different tokens in all.

    ``undecided`` are steps whose two best tokens were nearly as good, or whose logits were not numbers.
    """

    texts: tuple[str, ...]
    distinct: int
    undecided: int


def make_prompts() -> list[str]:
    """``PROMPTS`` texts and one more, of different lengths from 2 tokens on, the same at every call."""
    rng = random.Random(0)
    texts = [[rng.randrange(VOCABULARY) for _ in range(2 + 2 * at)] for at in range(PROMPTS + 1)]
    return ["".join(chr(FIRST_CHARACTER + token) for token in tokens) for tokens in texts]


def save_varied(family: Family, folder: Path, prompts: Sequence[str]) -> Reference:
    """Save the family's model with weights that make varied tokens, none of them by a hair.

    Raises `ValueError` where no weights that are tried do.
    """
    found: list[tuple[int, float, int]] = []
    for factor, seed in TRIES:
        family.save(folder, seed, factor)
        reference = _generate(folder, prompts, family.cached)
        if reference.undecided == 0:
            if reference.distinct >= VARIED:
                return reference
            found.append((reference.distinct, factor, seed))
    if not found:
        raise ValueError("the two best tokens are nearly as good with all weights that were tried")
    _, factor, seed = max(found)
    family.save(folder, seed, factor)
    return _generate(folder, prompts, family.cached)


def open_engine(folder: Path, dtype: torch.dtype) -> Choice:
    """The engine that a worker would run the folder's model on. Raises `ModelError`."""
    return make_engine(
        _open(folder, dtype),
        character_tokenizer(),
        slots=SLOTS,
        max_context=CONTEXT,
        native=native.load(),
        reload=lambda: _open(folder, dtype),
    )


def right_alone(choice: Choice, prompts: Sequence[str], expected: Reference) -> int:
    """How many tokens are those of generate where each of the first ``PROMPTS`` prompts runs by itself."""
    results = [run(choice, [prompt])[prompt] for prompt in prompts[:PROMPTS]]
    return sum(_right(result, text) for result, text in zip(results, expected.texts, strict=False))


def right_together(choice: Choice, prompts: Sequence[str], expected: Reference) -> int:
    """The same where all run at once and the last prompt is cancelled; 0 if that did not keep a part of its text."""
    *kept, leaving = prompts
    made = 0

    def on_event(event: Event) -> None:
        nonlocal made
        if isinstance(event, Delta) and event.request_id == leaving:
            made += len(event.text)
            if made >= CANCELLED_AFTER:
                choice.engine.cancel(leaving)

    results = run(choice, [leaving, *kept], on_event)
    gone = results[leaving]
    if gone.finish_reason is not FinishReason.CANCELLED or not expected.texts[-1].startswith(gone.text):
        return 0
    return sum(_right(results[prompt], text) for prompt, text in zip(kept, expected.texts, strict=False))


def run(
    choice: Choice, prompts: Sequence[str], on_event: Callable[[Event], None] = lambda event: None
) -> dict[str, Result]:
    """Greedy results of prompts that come at once, by prompt."""
    results: dict[str, Result] = {}

    def emit(event: Event) -> None:
        on_event(event)
        if isinstance(event, Result):
            results[event.request_id] = event

    for prompt in prompts:
        choice.engine.add(Request(prompt, prompt, Sampling(NEW_TOKENS, 0.0)))
    while choice.engine.active:
        choice.engine.step(emit)
    return results


def _right(result: Result, expected: str) -> int:
    """Tokens before the first that is wrong. Raises `RuntimeError` for a request that failed."""
    if result.error is not None:
        raise RuntimeError(result.error)
    pairs = zip(result.text, expected, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(result.text), len(expected)))


def _open(folder: Path, dtype: torch.dtype) -> Any:
    model = open_weights(str(folder), dtype=dtype, local_files_only=True).eval()
    # Configuration classes name an end of text that these vocabularies do not have.
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model


def _generate(folder: Path, prompts: Sequence[str], cached: bool) -> Reference:
    tokenizer = character_tokenizer()
    texts = []
    seen: set[int] = set()
    undecided = 0
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
        # A new model for each, as some remember the longest text that they have seen.
        out = _open(folder, torch.float32).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            use_cache=cached,
            output_logits=True,
            return_dict_in_generate=True,
        )
        made = out.sequences[0, ids.shape[1] :].tolist()
        logits = torch.cat(out.logits).float()
        best = logits.topk(2).values
        undecided += int((best[:, 0] - best[:, 1] <= LEAST_GAP * logits.std(dim=1)).sum())
        undecided += int((~logits.isfinite()).any(dim=1).sum())
        seen |= set(made)
        texts.append(tokenizer.decode(made))
    return Reference(tuple(texts), len(seen), undecided)
