"""What is asked of everything that is measured."""

import random
from dataclasses import dataclass
from typing import Any

SHORTEST = 4
MOST_CONTEXT = 4096


@dataclass(frozen=True)
class Load:
    """``requests`` prompts of ``prompt_tokens``, ``concurrency`` of them in flight at a time, ``new_tokens`` for each.

    ``model`` is a folder as transformers saves it, ``openvino`` the same model as OpenVINO GenAI reads it. Greedy where
    ``temperature`` is 0.
    """

    model: str
    openvino: str | None
    requests: int
    concurrency: int
    prompt_tokens: int
    new_tokens: int
    temperature: float
    top_p: float
    ignore_eos: bool
    dtype: str
    device: str
    threads: int
    deterministic: bool
    native: bool


def make_prompts(tokenizer: Any, load: Load) -> list[str]:
    """Different prompts of as many tokens as asked for, as nearly as the tokenizer allows; the same at every call."""
    rng = random.Random(0)
    made = []
    for _ in range(load.requests):
        ids = [rng.randrange(SHORTEST, len(tokenizer)) for _ in range(load.prompt_tokens)]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        # Rubbish may be cut into more tokens than it was made of.
        made.append(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][: load.prompt_tokens]))
    return made


def context_of(config: Any) -> int:
    """Tokens that prompt and completion may have together, for a model of this configuration."""
    return min(getattr(config, "max_position_embeddings", MOST_CONTEXT), MOST_CONTEXT)
