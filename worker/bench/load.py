"""What is asked of everything that is measured."""

import random
from dataclasses import dataclass
from typing import Any

SHORTEST = 4


@dataclass(frozen=True)
class Load:
    """Prompts, of which ``concurrency`` are in flight at any time, each for ``new_tokens`` tokens."""

    prompts: tuple[str, ...]
    concurrency: int
    new_tokens: int
    temperature: float
    top_p: float
    ignore_eos: bool


def make_prompts(tokenizer: Any, count: int, tokens: int) -> tuple[str, ...]:
    """``count`` different prompts of ``tokens`` tokens each, as nearly as the tokenizer allows."""
    rng = random.Random(0)
    made = []
    for _ in range(count):
        ids = [rng.randrange(SHORTEST, len(tokenizer)) for _ in range(tokens)]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        # Rubbish may be cut into more tokens than it was made of.
        made.append(tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]))
    return tuple(made)
