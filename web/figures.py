"""Axis scores of completions and the figures and tables that show them."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from plotly.io import to_json

from tasks.answers import times_of
from tasks.grace import Axis, AxisScore, axes_of
from tasks.grace_texts import Language, text
from tasks.latency import LatencySummary, phases_of, summarise
from tasks.service import Service
from web.charts import interval_chart, latency_ecdf
from web.radar import radar_data, radar_plot

RECENT = 5000
# Until fluency is measured, artistry is shown by its repetition part, under that name.
SPOKES = (Axis.GENERALIZATION, Axis.RELEVANCE, Axis.ARTISTRY_REPETITION, Axis.EFFICIENCY)
SERVICE = {Language.ZH: "服务时间（秒）", Language.EN: "service time (s)"}


@dataclass(frozen=True)
class Standing:
    """How models stand: their axis scores, their latency, and the figures as Plotly's JSON."""

    scores: tuple[AxisScore, ...]
    latency: dict[str, LatencySummary]
    radar: str
    intervals: str
    ecdf: str


def standing(service: Service, language: Language, models: Collection[str], run_id: str | None = None) -> Standing:
    """Compare ``models`` over the newest completions, or over those of one run. Kept until the ledger changes."""
    return _standing(service, language, tuple(models), run_id, service.ledger.scores.state(models, run_id))


@lru_cache(maxsize=64)
def _standing(
    service: Service, language: Language, models: tuple[str, ...], run_id: str | None, state: tuple[int, float]
) -> Standing:
    scores = axes_of(service.ledger.scores.recent(models, run_id, RECENT))
    rows = service.ledger.completions.recent(models, run_id, RECENT)
    by_model = {name: [times_of(row) for row in rows if row.model == name] for name in models}
    latency = {name: summarise(times) for name, times in by_model.items() if times}
    labels = {name: spec.label[language] for name, spec in service.registry.models.items()}
    axes = {axis.value: text(f"{axis}.name", language) for axis in Axis}
    data, names = radar_data(scores, SPOKES)
    every, _ = radar_data(scores, list(Axis))
    shown = [labels.get(name, name) for name in names]
    waits = {
        labels.get(name, name): [
            phases.service for time in by_model[name] if (phases := phases_of(time)).service is not None
        ]
        for name in names
    }
    return Standing(
        scores=scores,
        latency=latency,
        radar=_json(radar_plot(data, shown, labels=axes, language=language)) if names else "",
        intervals=_json(interval_chart(every, shown, labels=axes, language=language)) if names else "",
        ecdf=_json(latency_ecdf(waits, label=SERVICE[language], language=language)) if any(waits.values()) else "",
    )


def _json(figure: Any) -> str:
    # Stands inside a script element, which '</' would end.
    return str(to_json(figure)).replace("</", "<\\/")
