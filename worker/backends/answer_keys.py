"""Keys of answers: digests of everything that decides an answer, under which it is stored and found again."""

import hashlib
import json
from array import array
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tasks.ledger.records import Rendered
from tasks.sampling import GREEDY_BELOW, Sampling

KEY_LENGTH = 32  # hexadecimal digits


class AnswerKeys:
    """The keys of one model's answers; ``facts`` are what decides them whatever is asked, as JSON values."""

    def __init__(self, facts: Mapping[str, Any]):
        self._of_model = hashlib.sha256(_bytes_of(facts))

    def key(self, sampling: Sampling, sample: int, prompt: bytes, **more: Any) -> str:
        """The key of a sample; ``more`` are JSON values."""
        made = self._of_model.copy()
        made.update(_bytes_of(more | {"sampling": deciding(sampling).to_dict(), "sample": sample}))
        made.update(prompt)
        return made.hexdigest()[:KEY_LENGTH]


class LocalKeys(AnswerKeys):
    """Those of our own engine with room for ``context`` tokens of prompt and completion."""

    def __init__(self, facts: Mapping[str, Any], context: int):
        super().__init__(facts)
        self.context = context

    def of_prompt(self, rendered: Rendered, sampling: Sampling, sample: int, apart: bool) -> str:
        """``apart``: the answer is a message of its own, which white space before it does not belong to.

        How large the context is only matters to an answer that may fill it.
        """
        room = self.context - len(rendered.tokens)
        prompt = array("q", rendered.tokens).tobytes() if rendered.tokens else (rendered.text or "").encode()
        fills = room if room < sampling.max_new_tokens else None
        return self.key(sampling, sample, prompt, apart=apart, room=fills, tokens=len(rendered.tokens))


def deciding(sampling: Sampling) -> Sampling:
    """What of the settings decides an answer: where nothing is left to chance the seed does not, and is 0."""
    return replace(sampling, seed=0) if sampling.temperature < GREEDY_BELOW else sampling


def _bytes_of(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, sort_keys=True).encode() + b"\n"
