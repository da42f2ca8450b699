"""How models stand over a sample of completions: what pages, reports and figures show, free of their looks."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.ledger import Ledger
from tasks.ledger.samples import Sample
from tasks.measures.answers import times_of
from tasks.measures.grace import AxisScore, axes_of
from tasks.measures.latency import LatencySummary, phases_of, summarise
from tasks.states import Origin


@dataclass(frozen=True)
class Standing:
    """Axis scores and latency of models over one sample.

    ``latency`` has each model with a completion that was computed for its run; ``service`` its service times in
    seconds, one a completion that reached its end. Stored and imported answers count in the scores alone.
    """

    scores: tuple[AxisScore, ...]
    latency: Mapping[str, LatencySummary]
    service: Mapping[str, tuple[float, ...]]


def standing_of(ledger: Ledger, sample: Sample) -> Standing:
    """How the models of a sample stand. Raises `Unavailable` where the ledger is away."""
    rows = ledger.completions.sample(sample)
    computed = [row for row in rows if row.origin is Origin.COMPUTED]
    times = {name: [times_of(row) for row in computed if row.model == name] for name in sample.models}
    service = {
        name: tuple(phases.service for time in known if (phases := phases_of(time)).service is not None)
        for name, known in times.items()
    }
    return Standing(
        scores=axes_of(ledger.scores.of_sample(sample)),
        latency={name: summarise(known) for name, known in times.items() if known},
        service=service,
    )
