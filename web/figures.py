"""Figures of how models stand, computed beside the requests and kept until the ledger changes."""

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from plotly.io import to_json

from tasks.ledger.samples import Sample
from tasks.measures.grace import Axis, AxisScore
from tasks.measures.grace_texts import Language, text
from tasks.measures.latency import LatencySummary
from tasks.measures.standing import Standing, standing_of
from tasks.service import Service
from web.charts import interval_chart, latency_ecdf
from web.radar import radar_data, radar_plot

KEPT = 64
PATIENCE_SECONDS = 0.05
SWITCH_SECONDS = 0.0005
SPACING_SECONDS = 2.0  # between two computations of the same, while its run goes on
# Until fluency is measured, artistry is shown by its repetition part, under that name.
SPOKES = (Axis.GENERALIZATION, Axis.RELEVANCE, Axis.ARTISTRY_REPETITION, Axis.EFFICIENCY)
SERVICE = {Language.ZH: "服务时间（秒）", Language.EN: "service time (s)"}


@dataclass(frozen=True)
class Drawn:
    """How models stand, with the figures of it as Plotly's JSON; those of which nothing is known are empty.

    ``is_latest`` is false where newer ones are being computed.
    """

    standing: Standing
    radar: str
    intervals: str
    ecdf: str
    is_latest: bool = True

    @property
    def scores(self) -> tuple[AxisScore, ...]:
        return self.standing.scores

    @property
    def latency(self) -> Mapping[str, LatencySummary]:
        return self.standing.latency


@dataclass(frozen=True)
class Wanted:
    """What figures are of, and the language of their texts."""

    language: Language
    sample: Sample


@dataclass(frozen=True)
class Kept:
    """What was drawn, with the state of the ledger that it is of and the point of `time.monotonic` it was made at."""

    state: tuple[float, ...]
    made: float
    drawn: Drawn


class Figures:
    """Keeps what was computed until the ledger changes, and computes beside the requests.

    A page waits `PATIENCE_SECONDS` for its figures; then it shows those from before, or says that they are coming.
    """

    def __init__(self, service: Service):
        self.service = service
        self._kept: OrderedDict[Wanted, Kept] = OrderedDict()
        self._coming: dict[Wanted, Future[Drawn]] = {}
        self._lock = threading.Lock()
        # One after the other: they are pure Python, and pages must go on being answered. A page asks the ledger a dozen
        # questions, and after each it would wait for a thread that computes to give way, by default 5 ms.
        sys.setswitchinterval(SWITCH_SECONDS)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="figures")

    def standing(
        self, language: Language, models: Iterable[str], run_id: str | None = None, patience: float = PATIENCE_SECONDS
    ) -> Drawn | None:
        """How ``models`` stand over all runs or in one; None where that is still being computed."""
        wanted = Wanted(language, Sample(tuple(models), run_id))
        state = self.service.ledger.scores.state(wanted.sample)
        with self._lock:
            kept = self._kept.get(wanted)
            if kept and kept.state == state:
                self._kept.move_to_end(wanted)
                return kept.drawn
            coming = self._coming.get(wanted)
            if coming is None and (kept is None or time.monotonic() - kept.made > SPACING_SECONDS):
                coming = self._coming[wanted] = self._pool.submit(self._make, wanted, state)
        try:
            if coming:
                return coming.result(patience)
        except TimeoutError:
            pass  # what was kept is shown meanwhile
        return replace(kept.drawn, is_latest=False) if kept else None

    def wait(self) -> None:
        """Return when nothing is being computed any more."""
        with self._lock:
            coming = list(self._coming.values())
        wait(coming)

    def _make(self, wanted: Wanted, state: tuple[float, ...]) -> Drawn:
        try:
            labels = {
                name: entry.text("label", wanted.language) for name, entry in self.service.registry.models.items()
            }
            made = draw(standing_of(self.service.ledger, wanted.sample), labels, wanted.language)
            with self._lock:
                self._kept[wanted] = Kept(state, time.monotonic(), made)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return made
        finally:
            with self._lock:
                del self._coming[wanted]


def draw(standing: Standing, labels: Mapping[str, str], language: Language) -> Drawn:
    """The figures of a standing; ``labels`` are what models are called."""
    axes = {axis.value: text(f"{axis}.name", language) for axis in Axis}
    data, names = radar_data(standing.scores, SPOKES)
    every, _ = radar_data(standing.scores, list(Axis))
    shown = [labels.get(name, name) for name in names]
    waits = {labels.get(name, name): list(standing.service.get(name, ())) for name in names}
    return Drawn(
        standing=standing,
        radar=_json(radar_plot(data, shown, labels=axes, language=language)) if names else "",
        intervals=_json(interval_chart(every, shown, labels=axes, language=language)) if names else "",
        ecdf=_json(latency_ecdf(waits, label=SERVICE[language], language=language)) if any(waits.values()) else "",
    )


def _json(figure: Any) -> str:
    # Stands inside a script element, which '</' would end.
    return str(to_json(figure)).replace("</", "<\\/")
