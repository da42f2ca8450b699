"""Units of text and how often their n-grams repeat."""

import re
from collections.abc import Sequence

HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
ORDERS = (2, 3, 4)
_UNIT = re.compile(rf"[{HAN}]|[^\W{HAN}]+(?:['’][^\W{HAN}]+)*|[^\w\s]")


def units(text: str) -> list[str]:
    """Split text into Chinese characters, lower-case words of other scripts, and single punctuation marks."""
    return _UNIT.findall(text.lower())


def repetition(tokens: Sequence[str], n: int) -> float | None:
    """rep-n: share of n-grams that occurred before, 1 − unique / all (Welleck et al. 2020); None without any."""
    total = len(tokens) - n + 1
    if total < 1:
        return None
    return 1 - len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / total


def diversity(text: str) -> float | None:
    """Product of 1 − rep-n for n = 2, 3, 4 (Su et al. 2022, "A Contrastive Framework for Neural Text Generation").

    1 where nothing repeats, near 0 in a loop; None for a text of fewer than four units.
    """
    tokens = units(text)
    product = 1.0
    for n in ORDERS:
        repeated = repetition(tokens, n)
        if repeated is None:
            return None
        product *= 1 - repeated
    return product
