"""Latency of completions phase by phase, and the objectives that a completion can meet.

Names and definitions follow vLLM's serving benchmark. Points of time are seconds since 1970, durations are seconds
unless the name says otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.measures.statistics import Estimate, Percentiles, percentiles, union_length, wilson
from tasks.states import Outcome


@dataclass(frozen=True)
class Times:
    """What is stored of one completion; a point of time that was never reached is None.

    ``cold``: its worker had to load the model for it. ``warm_up``: a declared warm-up. Neither counts among the
    others in a summary.
    """

    created: float | None = None
    enqueued: float | None = None
    claimed: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    last_token: float | None = None
    written: float | None = None
    output_tokens: int | None = None
    characters: int | None = None
    cold: bool = False
    warm_up: bool = False
    outcome: Outcome = Outcome.DONE


@dataclass(frozen=True)
class Phases:
    """Derived phases of one completion; None where a point of time is missing or two clocks contradict each other.

    ``queue`` is backlog and never part of a model's latency. Between claim and admission lies either ``load``
    (cold) or ``slot_wait`` (warm). ``tpot`` needs two tokens. Rates are those of this completion alone; a model's
    rate is in `LatencySummary`. ``ms_a_character`` compares models whose tokenizers differ.
    """

    queue: float | None = None
    load: float | None = None
    slot_wait: float | None = None
    ttft: float | None = None
    tpot: float | None = None
    service: float | None = None
    e2e: float | None = None
    output_rate: float | None = None
    characters_per_second: float | None = None
    ms_a_character: float | None = None
    output_tokens: int | None = None
    characters: int | None = None
    cold: bool = False


@dataclass(frozen=True)
class Objectives:
    """Upper limits that a completion must keep to count as good; None sets no limit.

    ``profile`` names the hardware that the limits are meant for: shares under two profiles cannot be compared.
    """

    profile: str
    ttft_seconds: float | None = None
    tpot_seconds: float | None = None
    ms_a_character: float | None = None
    service_seconds: float | None = None

    def __post_init__(self) -> None:
        limits = (self.ttft_seconds, self.tpot_seconds, self.ms_a_character, self.service_seconds)
        if all(limit is None for limit in limits):
            raise ValueError("objectives need at least one limit")
        if any(limit is not None and limit <= 0 for limit in limits):
            raise ValueError("a limit must be above zero")


# Two seconds to the first token is what a person at the arena is promised. Silent reading takes about 230 ms a
# Chinese character and 50 ms a Latin letter (Brysbaert 2019, 260 characters and 238 words a minute): on a CPU the
# text must stay ahead of a Chinese reader by a factor of two, on a GPU ahead of an English one by the same.
CPU = Objectives("cpu", ttft_seconds=2.0, ms_a_character=100.0)
GPU = Objectives("gpu", ttft_seconds=0.5, ms_a_character=25.0)
PROFILES = {objectives.profile: objectives for objectives in (CPU, GPU)}


@dataclass(frozen=True)
class LatencySummary:
    """Latency of many completions of one model under one set of objectives.

    ``n`` counts warm completions that ended well; the phases are theirs. ``cold_load`` and ``cold_ttft`` are the
    series of the cold ones. ``failed`` is the share of failed and timed-out ones among all that were not cancelled.
    ``output_rate`` (tokens/s), ``characters_per_second`` and ``goodput_rate`` (completions/s that meet the
    objectives) are sums divided by ``busy_seconds``, the union of all [admitted, last token]; they are not means of
    rates. ``goodput`` is the share of warm, not cancelled completions that meet the objectives.
    """

    n: int
    cold: int
    warm_ups: int
    objectives: Objectives
    queue: Percentiles | None
    slot_wait: Percentiles | None
    ttft: Percentiles | None
    tpot: Percentiles | None
    service: Percentiles | None
    e2e: Percentiles | None
    ms_a_character: Percentiles | None
    cold_load: Percentiles | None
    cold_ttft: Percentiles | None
    busy_seconds: float
    output_rate: float | None
    characters_per_second: float | None
    goodput_rate: float | None
    goodput: Estimate
    failed: Estimate


def phases_of(times: Times) -> Phases:
    """Derive every phase that the stored points of time allow."""
    before = _span(times.claimed, times.admitted)
    service = _span(times.admitted, times.last_token)
    tokens, characters = times.output_tokens, times.characters
    decode = _span(times.first_token, times.last_token)
    return Phases(
        queue=_span(times.enqueued, times.claimed),
        load=before if times.cold else None,
        slot_wait=None if times.cold else before,
        ttft=_span(times.admitted, times.first_token),
        tpot=None if decode is None or not tokens or tokens < 2 else decode / (tokens - 1),
        service=service,
        e2e=_span(times.created, times.written),
        output_rate=_ratio(tokens, service),
        characters_per_second=_ratio(characters, service),
        ms_a_character=None if service is None or not characters else 1000 * service / characters,
        output_tokens=tokens,
        characters=characters,
        cold=times.cold,
    )


def meets(phases: Phases, objectives: Objectives) -> bool:
    """Whether a completion keeps every limit. What was not measured does not meet its limit.

    The exception is TPOT of a single token: there is no time between tokens to be limited.
    """
    one_token = phases.output_tokens == 1 and phases.ttft is not None
    return all(
        limit is None or (measured is not None and measured <= limit)
        for measured, limit in (
            (phases.ttft, objectives.ttft_seconds),
            (0.0 if one_token else phases.tpot, objectives.tpot_seconds),
            (phases.ms_a_character, objectives.ms_a_character),
            (phases.service, objectives.service_seconds),
        )
    )


def summarise(completions: Iterable[Times], objectives: Objectives = CPU) -> LatencySummary:
    """Summary of one model's completions; cancelled ones are left out altogether."""
    counted = [times for times in completions if times.outcome is not Outcome.CANCELLED]
    usual = [times for times in counted if not times.warm_up]
    ended = [times for times in usual if times.outcome is Outcome.DONE]
    warm = [times for times in ended if not times.cold]
    phases = [phases_of(times) for times in warm]
    cold = [phases_of(times) for times in ended if times.cold]
    timed = [times for times in warm if _span(times.admitted, times.last_token) is not None]
    busy = union_length([(times.admitted or 0.0, times.last_token or 0.0) for times in timed])
    good = sum(meets(one, objectives) for one in phases)
    failed = len(usual) - len(ended)
    failed_warm = sum(times.outcome is Outcome.FAILED and not times.cold for times in usual)
    return LatencySummary(
        n=len(warm),
        cold=len(cold),
        warm_ups=len(counted) - len(usual),
        objectives=objectives,
        queue=_percentiles(phases, "queue"),
        slot_wait=_percentiles(phases, "slot_wait"),
        ttft=_percentiles(phases, "ttft"),
        tpot=_percentiles(phases, "tpot"),
        service=_percentiles(phases, "service"),
        e2e=_percentiles(phases, "e2e"),
        ms_a_character=_percentiles(phases, "ms_a_character"),
        cold_load=_percentiles(cold, "load"),
        cold_ttft=_percentiles(cold, "ttft"),
        busy_seconds=busy,
        output_rate=_ratio(sum(times.output_tokens or 0 for times in timed), busy),
        characters_per_second=_ratio(sum(times.characters or 0 for times in timed), busy),
        goodput_rate=_ratio(good, busy),
        goodput=wilson(good, len(warm) + failed_warm),
        failed=wilson(failed, len(usual)),
    )


def _span(start: float | None, end: float | None) -> float | None:
    if start is None or end is None or end < start:
        return None
    return end - start


def _ratio(amount: float | None, seconds: float | None) -> float | None:
    return None if amount is None or not seconds else amount / seconds


def _percentiles(phases: Sequence[Phases], name: str) -> Percentiles | None:
    return percentiles([value for one in phases if (value := getattr(one, name)) is not None])
