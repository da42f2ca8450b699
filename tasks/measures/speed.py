"""How long work takes a model, as a range, from stretches of time in which it was measured.

Nothing is assumed of a model but this: with more completions in flight it is no slower in all, and at best faster in
proportion. What was measured under other conditions so gives a range of its own, wide where the conditions differ much.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median
from typing import Any

from tasks.ledger.speeds import Measured
from tasks.states import FinishReason

CONFIDENCE = 0.8
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
PAUSE_SECONDS = 0.5  # without anything in flight, after which another spell begins
START_SECONDS = 2.0  # a claim that came later than this waited for something else
SPREAD = 0.4  # of the logarithm of a time, before it is known how much spells of a model differ
SPREAD_WEIGHT = 2.0  # in spells
STEADINESS = 0.25  # of the same logarithm, however much of a run is known: its second half is not its first
FASTER = 0.25  # of the same logarithm: spells hold beginnings and ends, of which other work may have fewer
OLDER = 0.9  # how much less each older spell weighs
LONGER_PROMPTS = 50  # characters from which on a prompt's tokens are hardly those of the template


@dataclass(frozen=True)
class Spell:
    """A stretch of time in which a model computed without a pause.

    ``in_flight`` completions were computed at a time by each of ``workers``. ``characters`` is the mean length of the
    prompts, ``answers`` the output tokens of each completion with whether it was cut at ``limit``, ``beside`` the
    models that answered beside it.
    """

    completions: float
    seconds: float
    in_flight: float
    characters: float
    limit: int
    answers: tuple[tuple[int, bool], ...] = ()
    workers: int = 1
    beside: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Work:
    """What is asked of a model: so many completions, with prompts of a mean length, of at most ``limit`` tokens.

    Each of ``workers`` computes up to ``slots`` at a time; ``beside`` are the models that compute on the same cores at
    the same time.
    """

    completions: float
    characters: float | None
    limit: int
    slots: int
    workers: int = 1
    beside: frozenset[str] = frozenset()

    @property
    def in_flight(self) -> int:
        return max(1, min(self.slots, math.ceil(self.completions / self.workers)))


@dataclass(frozen=True)
class Span:
    """A time in seconds that lies between ``low`` and ``high`` in about `CONFIDENCE` of all cases."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        return math.sqrt(self.low * self.high)

    def __add__(self, other: "Span") -> "Span":
        return Span(self.low + other.low, self.high + other.high)


NONE = Span(0.0, 0.0)


def spells_of(measured: Sequence[Measured], decoding: Mapping[str, Any], limit: int) -> list[Spell]:
    """The spells of a model, newest first. ``decoding`` is that of its entry, ``limit`` holds where none is set."""
    found: list[list[Measured]] = []
    end = -math.inf
    for one in sorted(measured, key=_start):
        if not found or _start(one) > end + PAUSE_SECONDS:
            found.append([])
        found[-1].append(one)
        end = max(end, one.written)
    return [_spell(rows, decoding, limit) for rows in reversed(found)]


def time_of(work: Work, spells: Sequence[Spell], now: Spell | None = None, trust: float = 0.0) -> Span:
    """How long ``work`` takes by what was measured; ``now`` is how fast it goes, which weighs as ``trust`` spells.

    Raises ValueError where nothing was measured.
    """
    weighed = [(spell, OLDER**age * _likeness(spell, work)) for age, spell in enumerate(spells)]
    if now and trust:
        weighed.append((now, trust))
    if not weighed:
        raise ValueError("nothing was measured")
    total = sum(weight for _, weight in weighed)
    bounds = [(math.log(low), math.log(high)) for low, high in (_bounds(spell, work) for spell, _ in weighed)]
    weights = [weight for _, weight in weighed]
    middle = sum(w * (low + high) / 2 for w, (low, high) in zip(weights, bounds, strict=True)) / total
    doubt = sum(w * (high - low) / 2 for w, (low, high) in zip(weights, bounds, strict=True)) / total
    differences = sum(w * ((low + high) / 2 - middle) ** 2 for w, (low, high) in zip(weights, bounds, strict=True))
    variance = (differences + SPREAD_WEIGHT * SPREAD**2) / (total + SPREAD_WEIGHT)
    known = max(variance / max(1.0, trust / SPREAD_WEIGHT), STEADINESS**2)
    half = doubt + Z * math.sqrt(known + _chance(weighed[0][0], work))
    return Span(math.exp(middle - half - FASTER), math.exp(middle + half))


def tokens_a_character(measured: Sequence[Measured]) -> float | None:
    """Tokens that a model makes of a character of a prompt, template and system message included; None: not known."""
    known = [(one.characters, one.prompt_tokens) for one in measured if one.prompt_tokens and one.characters]
    long = [pair for pair in known if pair[0] >= LONGER_PROMPTS] or known
    return sum(tokens for _, tokens in long) / sum(characters for characters, _ in long) if long else None


def _start(one: Measured) -> float:
    """When a model began with a completion, its way through the queue included where it did not wait there."""
    if one.cold:
        return one.admitted
    return one.created if one.claimed - one.created < START_SECONDS else one.claimed


def _spell(rows: Sequence[Measured], decoding: Mapping[str, Any], limit: int) -> Spell:
    limits = [int(({"max_new_tokens": limit} | dict(decoding) | dict(one.sampling))["max_new_tokens"]) for one in rows]
    workers = len({one.worker for one in rows})
    sizes = [one.batch_size for one in rows if one.batch_size]
    return Spell(
        completions=len(rows),
        seconds=max(max(one.written for one in rows) - min(_start(one) for one in rows), 1e-3),
        in_flight=median(sizes) if sizes else len(rows) / workers,
        characters=fmean(one.characters for one in rows),
        limit=round(median(limits)),
        answers=tuple(
            (one.output_tokens, one.finish_reason is FinishReason.LENGTH) for one in rows if one.output_tokens
        ),
        workers=workers,
        beside=frozenset().union(*(one.beside for one in rows)),
    )


def _bounds(spell: Spell, work: Work) -> tuple[float, float]:
    """The least and the most seconds that ``work`` takes, if the model is as fast as in ``spell``."""
    fewest, most = _tokens(spell, work.limit)
    crowd = (1 + len(work.beside)) / (1 + len(spell.beside & work.beside))
    batching = spell.in_flight / work.in_flight
    seconds = spell.seconds * work.completions / spell.completions * spell.workers / work.workers
    low = seconds * min(1.0, batching) * fewest
    return low, max(seconds * max(1.0, batching) * most * crowd, low)


def _tokens(spell: Spell, limit: int) -> tuple[float, float]:
    """By what the tokens of the answers grow under another limit: at least, at most."""
    had = sum(tokens for tokens, _ in spell.answers)
    if not had or limit == spell.limit:
        return 1.0, 1.0
    fewest = sum(min(tokens, limit) for tokens, _ in spell.answers)
    most = sum(max(limit, tokens) if cut and limit > tokens else min(tokens, limit) for tokens, cut in spell.answers)
    return fewest / had, most / had


def _likeness(spell: Spell, work: Work) -> float:
    """How much a spell tells of ``work``, 1 where it was just the same."""
    apart = 0.5 * abs(math.log(spell.completions / work.completions))
    apart += abs(math.log(spell.in_flight / work.in_flight))
    apart += 0.5 * abs(math.log(spell.limit / work.limit))
    if work.characters and spell.characters:
        apart += 0.3 * abs(math.log(spell.characters / work.characters))
    apart += len(work.beside - spell.beside) / (1 + len(work.beside))
    return math.exp(-min(apart, 20.0))


def _chance(spell: Spell, work: Work) -> float:
    """Variance of the logarithm that comes from how long answers happen to be."""
    tokens = [number for number, _ in spell.answers]
    mean = fmean(tokens) if tokens else 0.0
    if not mean:
        return 0.0
    return fmean((number / mean - 1) ** 2 for number in tokens) / work.completions
