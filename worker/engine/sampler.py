"""The next token of every row at once, in the order of transformers' logits processors.

Repetition penalty, no-repeat n-gram, temperature, top-k, top-p, then a draw by inverting the distribution function
at a random number of the row's own. The function is summed up in the order of token ids whatever way the candidates
were found, so that a row's token does not depend on its neighbours. On a CPU the engine's own kernel does this, where
there is one; what stands here is for accelerators and for machines without a compiler.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.sampling import Sampling
from worker.engine.arguments import DrawRow
from worker.engine.native import Native

NO_TOKEN = -1
FIRST_WIDTH = 64  # candidates looked at before more are sorted
WIDER = 8
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = 2**64 - 1


@dataclass(eq=False)
class Draw:
    """What a row's next token depends on beside its logits: ``tokens`` read so far, ``made`` of them sampled.

    The same one serves all tokens of a sequence, and so does its row for the kernel.
    """

    sampling: Sampling
    tokens: Sequence[int]
    made: int = 0
    wants_logprob: bool = False
    _row: DrawRow = field(init=False, repr=False)

    def __post_init__(self) -> None:
        s = self.sampling
        settings = (s.temperature, s.top_p, s.repetition_penalty, s.top_k, s.no_repeat_ngram)
        self._row = DrawRow(None, 0, s.seed, 0, *settings, self.wants_logprob)
        self._looks_back = s.repetition_penalty != 1 or s.no_repeat_ngram > 0

    def row(self, arrays: list["array[int]"]) -> DrawRow:
        """For the kernel; what it points to is put into ``arrays``, which must live until the kernel has read it."""
        row = self._row
        row.count = len(self.tokens)
        row.position = self.made
        if self._looks_back and self.tokens:
            arrays.append(array("i", self.tokens))
            row.tokens = arrays[-1].buffer_info()[0]
        return row


class Choice(NamedTuple):
    """A row's token; `NO_TOKEN` where none is possible: a logit is not a number, or every token is excluded.

    ``logprob`` is the token's natural log-probability under the model alone, before any setting; None if not wanted.
    """

    token: int
    logprob: float | None


@dataclass(frozen=True)
class Candidates:
    """Token ids, ascending, and their probabilities (float64), each ``[rows, candidates]``; the rest is excluded."""

    rows: Tensor
    ids: Tensor
    probabilities: Tensor


def sample(logits: Tensor, draws: Sequence[Draw], native: Native | None = None) -> list[Choice]:
    """A choice for each row of ``logits`` ``[rows, vocabulary]``."""
    if native is not None and native.computes(logits.dtype):
        arrays: list[array[int]] = []
        tokens, logprobs = native.sample(logits, [draw.row(arrays) for draw in draws])
    else:
        tokens = _sample(logits, draws)
        logprobs = _logprobs(logits, tokens) if any(draw.wants_logprob for draw in draws) else [0.0] * len(draws)
    return [Choice(t, p if draw.wants_logprob else None) for t, p, draw in zip(tokens, logprobs, draws, strict=True)]


def _logprobs(logits: Tensor, tokens: list[int]) -> list[float]:
    places = torch.tensor([max(token, 0) for token in tokens]).to(logits.device)[:, None]
    return torch.log_softmax(logits.float(), -1).gather(1, places).squeeze(1).tolist()


def _sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    scores = process(logits, draws)
    best, chosen = scores.max(dim=-1)
    for candidates in distributions(scores, draws):
        numbers = [uniform(draws[row].sampling.seed, draws[row].made) for row in candidates.rows.tolist()]
        chosen[candidates.rows] = _invert(candidates, torch.tensor(numbers, dtype=torch.float64, device=scores.device))
    return torch.where(best.isfinite(), chosen, NO_TOKEN).tolist()


def process(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Float32 copy of ``logits`` after the settings that look back at the tokens."""
    scores = logits.to(torch.float32, copy=True)
    _penalize(scores, draws)
    rows: list[int] = []
    banned: list[int] = []
    for row, draw in enumerate(draws):
        found = repeating(draw.tokens, draw.sampling.no_repeat_ngram)
        tokens = [token for token in found if token < scores.shape[1]]
        rows += [row] * len(tokens)
        banned += tokens
    if rows:
        scores[torch.tensor(rows).to(scores.device), torch.tensor(banned).to(scores.device)] = float("-inf")
    return scores


def _penalize(scores: Tensor, draws: Sequence[Draw]) -> None:
    """Repetition penalty: logits of tokens seen are divided by it if positive, else multiplied (arXiv 1909.05858)."""
    vocabulary = scores.shape[1]  # an embedding may know more tokens than the output layer
    penalized = [(row, draw) for row, draw in enumerate(draws) if draw.sampling.repetition_penalty != 1]
    seen = [(row, token) for row, draw in penalized for token in set(draw.tokens) if token < vocabulary]
    if seen:
        rows, tokens = torch.tensor(seen).to(scores.device).unbind(1)
        factors = torch.tensor([draw.sampling.repetition_penalty for draw in draws]).to(scores.device)[rows]
        found = scores[rows, tokens]
        scores[rows, tokens] = torch.where(found < 0, found * factors, found / factors)


def repeating(tokens: Sequence[int], size: int) -> list[int]:
    """Tokens that would complete a run of ``size`` tokens that is there already; none for ``size`` 0."""
    if size == 0 or len(tokens) + 1 < size:
        return []
    tail = list(tokens[len(tokens) - size + 1 :])
    first = tail[0] if tail else None
    return [
        tokens[at + size - 1]
        for at in range(len(tokens) - size + 1)
        if first is None or (tokens[at] == first and list(tokens[at : at + size - 1]) == tail)
    ]


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on ``seed`` and ``position`` alone (SplitMix64 of one, then of the other)."""
    return (_mix(_mix(seed) + position) >> 11) * 2.0**-53


def _mix(word: int) -> int:
    """SplitMix64 (Steele, Lea, Flood 2014): 64 bits to 64 bits."""
    word = (word + _GOLDEN) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def distributions(scores: Tensor, draws: Sequence[Draw]) -> Iterator[Candidates]:
    """What the rows that are not greedy draw from. ``scores`` ``[rows, vocabulary]`` come from `process`."""
    drawn = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    whole = [row for row in drawn if not _truncates(draws[row].sampling)]
    if whole:
        rows = torch.tensor(whole).to(scores.device)
        heated = scores[rows] / _column([draws[row].sampling.temperature for row in whole], scores)
        probabilities = torch.softmax(heated, dim=-1, dtype=torch.float64)
        yield Candidates(rows, torch.arange(scores.shape[1], device=scores.device).expand_as(heated), probabilities)
    rest = [row for row in drawn if _truncates(draws[row].sampling)]
    width = max([FIRST_WIDTH, *(draws[row].sampling.top_k + 1 for row in rest)])
    while rest:
        width = min(width, scores.shape[1])
        candidates, enough = _truncated(scores, draws, rest, width)
        yield Candidates(candidates.rows[enough], candidates.ids[enough], candidates.probabilities[enough])
        rest = candidates.rows[~enough].tolist()
        width *= WIDER


def _truncates(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1


def _truncated(scores: Tensor, draws: Sequence[Draw], numbers: list[int], width: int) -> tuple[Candidates, Tensor]:
    """Top-k and top-p among the ``width`` best of the rows ``numbers``, and which rows need no more than these."""
    settings = [draws[row].sampling for row in numbers]
    vocabulary = scores.shape[1]
    rows = torch.tensor(numbers).to(scores.device)
    heated = scores[rows] / _column([s.temperature for s in settings], scores)
    values, ids = heated.topk(width, dim=-1)
    top_k = torch.tensor([min(s.top_k or vocabulary, vocabulary) for s in settings]).to(scores.device)[:, None]
    limited = top_k <= width
    least = values.gather(1, (top_k - 1).clamp(max=width - 1))
    kept = (values >= least) | ~limited
    # The mass that top-p shares out: that of the tokens which top-k left, or of the whole vocabulary.
    left = values.masked_fill(~kept, float("-inf"))
    total = torch.where(limited, left.logsumexp(-1, keepdim=True), heated.logsumexp(-1, keepdim=True))
    probabilities = (left - total).to(torch.float64).exp()
    reached = probabilities.cumsum(-1)
    top_p = _column([s.top_p for s in settings], reached)
    # A token stays if the more probable ones together are short of top_p: the first stays always.
    kept &= (reached - probabilities < top_p) | (top_p >= 1)
    enough = torch.where(limited, values[:, -1:] < least, (reached[:, -1:] >= top_p) & (top_p < 1)).squeeze(1)
    if width == vocabulary:
        enough = torch.ones_like(enough)
    ids, order = ids.sort(dim=-1)
    probabilities = probabilities.masked_fill(~kept, 0.0).gather(1, order)
    return Candidates(rows, ids, probabilities / probabilities.sum(-1, keepdim=True)), enough


def _invert(candidates: Candidates, numbers: Tensor) -> Tensor:
    """Token id of each row at which the distribution function passes the row's number: ``[rows]``."""
    reached = candidates.probabilities.cumsum(-1)
    at = (reached <= numbers[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
    return candidates.ids.gather(1, at.clamp(max=reached.shape[1] - 1)).squeeze(1)


def _column(values: list[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype).to(like.device)[:, None]
