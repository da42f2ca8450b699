"""Prompt identification: can an answer be told to belong to its own prompt among a pool of others?"""

import json
import math
import re
from collections import Counter
from collections.abc import KeysView, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

from tasks.measures.diversity import HAN

POOL_FILE = Path(__file__).with_name("distractors.json")
MIN_POOL = 50
SAME_PROMPT = 0.8
# Coverages are sums in varying order; a difference in their last bits must not turn a tie into a win.
TIE = 1e-9
_IS_HAN = re.compile(f"[{HAN}]")
_OTHER_WORD = re.compile(rf"[^\W\d_{HAN}]+")
_SPACE_AT_HAN = re.compile(rf"(?<=[{HAN}])\s+|\s+(?=[{HAN}])")
_SPACE = re.compile(r"\s+")


class Pool:
    """A fixed pool of distractor prompts with TF-IDF weights of their character 1–2-grams.

    The similarity of a text to a prompt is the share of the prompt's TF-IDF weight whose n-grams occur in the text.
    Cosine would favour long prompts: with it, answers to other questions of AlignBench "identified" a prompt of more
    than 300 characters in 98% of comparisons, and in 81% over all lengths, where chance is 50%; so it is 59%.
    """

    def __init__(self, prompts: tuple[str, ...]):
        if len(prompts) < MIN_POOL:
            raise ValueError(f"a pool needs at least {MIN_POOL} prompts, not {len(prompts)}")
        counts = [grams(prompt) for prompt in prompts]
        self.size = len(prompts)
        self._documents = Counter(gram for count in counts for gram in count)
        self._postings: dict[str, list[tuple[int, float]]] = {}
        for number, count in enumerate(counts):
            for gram, weight in self._weights(count).items():
                self._postings.setdefault(gram, []).append((number, weight))

    def _weights(self, count: Mapping[str, int]) -> dict[str, float]:
        """TF-IDF weights that add up to 1."""
        weights = {
            gram: (1 + math.log(n)) * math.log((1 + self.size) / (1 + self._documents[gram]))
            for gram, n in count.items()
        }
        total = sum(weights.values())
        return {gram: weight / total for gram, weight in weights.items()} if total else {}

    def _coverages(self, found: KeysView[str]) -> list[float]:
        """Similarity of a text, given as its n-grams, to every distractor."""
        coverages = [0.0] * self.size
        for gram in found:
            for number, weight in self._postings.get(gram, ()):
                coverages[number] += weight
        return coverages

    def auc(self, prompt: str, answer: str) -> float:
        """Share of distractors that the answer is less similar to than to its own prompt; ties count half.

        0.5 is chance, and the value of an empty answer. Distractors that the prompt nearly contains are left out.
        """
        own, found = grams(prompt), grams(answer).keys()
        similarity = sum(weight for gram, weight in self._weights(own).items() if gram in found)
        rivals = [
            rival
            for rival, contained in zip(self._coverages(found), self._coverages(own.keys()), strict=True)
            if contained < SAME_PROMPT
        ]
        if not rivals:
            return 0.5
        below = sum(rival < similarity - TIE for rival in rivals)
        level = sum(abs(rival - similarity) <= TIE for rival in rivals)
        return (below + level / 2) / len(rivals)


def grams(text: str) -> Counter[str]:
    """Counts of character 1-grams and 2-grams in lower case; white space beside a Chinese character is dropped."""
    plain = _SPACE.sub(" ", _SPACE_AT_HAN.sub("", text.strip().lower()))
    counts = Counter(map("".join, pairwise(plain)))
    counts.update(plain.replace(" ", ""))
    return counts


def identification(prompt: str, answer: str) -> float:
    """AUC of identifying ``prompt`` by ``answer`` among the distractors of the prompt's own script.

    Another script's distractors would be told apart by their letters alone, and any Chinese text would seem relevant.
    """
    han, words = len(_IS_HAN.findall(prompt)), len(_OTHER_WORD.findall(prompt))
    return pool("han" if han >= max(1, words) else "other").auc(prompt, answer)


@cache
def pool(script: str) -> Pool:
    """The shipped pool for ``han`` or ``other`` prompts."""
    return Pool(tuple(json.loads(POOL_FILE.read_text(encoding="utf-8"))[script]))
