"""The GRACE axes: what is stored for one answer, and the scores from 0 to 5 that follow for a model.

A formula that changes gets a new version: the metric's name ends in ``@version``, and stored values of an older one
are never mixed with those of a newer one.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tasks.measures.diversity import diversity
from tasks.measures.identification import identification
from tasks.measures.latency import CPU, Objectives, Phases, meets
from tasks.measures.statistics import Estimate, cluster_bootstrap, clustered_share
from tasks.measures.validity import is_valid, strip_echo
from tasks.states import FinishReason, Outcome

TOP = 5.0
VALID = "valid@1"
IDENTIFICATION = "identification@1"
DIVERSITY = "diversity@1"
MIN_CATEGORIES = 4
MIN_PROMPTS = 8


class Axis(StrEnum):
    """The four axes, and ``A_D``: the repetition part of artistry, which is no axis of the radar by itself."""

    GENERALIZATION = "G"
    RELEVANCE = "R"
    ARTISTRY = "A"
    EFFICIENCY = "E"
    ARTISTRY_REPETITION = "A_D"


RADAR_AXES = (Axis.GENERALIZATION, Axis.RELEVANCE, Axis.ARTISTRY, Axis.EFFICIENCY)


@dataclass(frozen=True)
class Answer:
    """One completion with what it answers. ``sample`` counts the answers of one model to one prompt from 0.

    ``phases`` is None where the text was not computed for its run: then it has no latency.
    """

    model: str
    prompt_idx: int
    sample: int
    prompt: str
    category: str | None
    text: str
    finish_reason: FinishReason
    phases: Phases | None = field(default_factory=Phases)


class StoredScore(NamedTuple):
    """One stored value as the ledger gives it: joined with the prompt's category."""

    model: str
    prompt_idx: int
    category: str | None
    metric: str
    value: float


# What `StoredScore` is to a type checker: the ledger's plain tuples serve as well.
Row = tuple[str, int, str | None, str, float]


@dataclass(frozen=True)
class AxisScore:
    """Score of one model on one axis. ``estimate`` runs from 0 to 5; its ``n`` counts completions.

    ``definition`` and ``weakness`` are keys into `tasks.measures.grace_texts`, ``estimate.reason`` another.
    ``detail`` is what the number depends on: the worst category for G, the profile for E.
    """

    model: str
    axis: Axis
    version: int
    estimate: Estimate
    definition: str
    weakness: str
    detail: str | None = None


def goodput_metric(objectives: Objectives) -> str:
    """Name under which meeting ``objectives`` is stored; profiles never mix."""
    return f"goodput.{objectives.profile}@1"


def score_answer(answer: Answer, objectives: Objectives = CPU) -> dict[str, float]:
    """Everything that is stored for one answer, by versioned metric name; 0–1 each.

    A metric is left out where it does not apply: all for a cancelled answer, those of the text for a failed one
    except validity, diversity for a text too short for it, goodput for a cold start or for what was not computed.
    """
    outcome = answer.finish_reason.outcome
    if outcome is Outcome.CANCELLED:
        return {}
    scores: dict[str, float] = {}
    if answer.phases is not None and not answer.phases.cold:
        scores[goodput_metric(objectives)] = float(outcome is Outcome.DONE and meets(answer.phases, objectives))
    if outcome is Outcome.FAILED:
        return scores | {VALID: 0.0}
    text = strip_echo(answer.text, answer.prompt)
    scores[VALID] = float(is_valid(answer.prompt, text, answer.finish_reason))
    scores[IDENTIFICATION] = identification(answer.prompt, text)
    varied = diversity(text)
    return scores if varied is None else scores | {DIVERSITY: varied}


def axes_of(rows: Iterable[Row], objectives: Objectives = CPU) -> tuple[AxisScore, ...]:
    """Every axis of every model in ``rows``, models in the order of their first row.

    Rows may be any tuples in the order of `StoredScore`. Metrics that are not known here are ignored, so that an
    older version's values do no harm.
    """
    return tuple(score for values in _by_model(rows).values() for score in _axes(values, objectives))


def validity_by_category(rows: Iterable[Row]) -> dict[str, dict[str, Estimate]]:
    """Share of valid answers times 5 by model and category, whatever the category's size."""
    return {model: dict(_valid_shares(values.series[VALID])) for model, values in _by_model(rows).items()}


@dataclass
class _Series:
    """Values of one metric of one model, as columns."""

    prompts: list[int] = field(default_factory=list)
    categories: list[str | None] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass
class _ModelValues:
    model: str
    series: defaultdict[str, _Series] = field(default_factory=lambda: defaultdict(_Series))


def _by_model(rows: Iterable[Row]) -> Mapping[str, _ModelValues]:
    models: dict[str, _ModelValues] = {}
    for model, prompt_idx, category, metric, value in rows:
        values = models.get(model)
        if values is None:
            values = models[model] = _ModelValues(model)
        series = values.series[metric]
        series.prompts.append(prompt_idx)
        series.categories.append(category)
        series.values.append(value)
    return models


def _axes(values: _ModelValues, objectives: Objectives) -> Iterator[AxisScore]:
    worst, category = _generalization(values.series[VALID])
    goodput = values.series[goodput_metric(objectives)]
    varied = values.series[DIVERSITY]
    of = values.model
    yield _score(of, Axis.GENERALIZATION, worst, category)
    yield _score(of, Axis.RELEVANCE, _relevance(values.series[IDENTIFICATION]))
    yield _score(of, Axis.ARTISTRY, Estimate.missing("fluency_not_measured", len(varied.values)))
    yield _score(of, Axis.EFFICIENCY, clustered_share(goodput.values, goodput.prompts).scaled(TOP), objectives.profile)
    yield _score(of, Axis.ARTISTRY_REPETITION, cluster_bootstrap(varied.values, varied.prompts).scaled(TOP))


def _score(model: str, axis: Axis, estimate: Estimate, detail: str | None = None) -> AxisScore:
    return AxisScore(model, axis, 1, estimate, f"{axis}.definition", f"{axis}.weakness", detail)


def _relevance(series: _Series) -> Estimate:
    """5·max(0, 2·AUC − 1); the interval goes through the same formula, which keeps order."""
    return cluster_bootstrap(series.values, series.prompts).scaled(2 * TOP, -TOP, floor=0.0)


def _generalization(series: _Series) -> tuple[Estimate, str | None]:
    """The worst category's share of valid answers, and that category's name."""
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    for prompt_idx, category in zip(series.prompts, series.categories, strict=True):
        if category is not None:
            sizes[category].add(prompt_idx)
    enough = {category for category, prompts in sizes.items() if len(prompts) >= MIN_PROMPTS}
    if len(enough) < MIN_CATEGORIES:
        return Estimate.missing("too_few_categories", len(series.values)), None
    shares = {category: share for category, share in _valid_shares(series) if category in enough}
    worst = min(sorted(shares), key=lambda category: shares[category].value or 0.0)
    return shares[worst], worst


def _valid_shares(series: _Series) -> Iterator[tuple[str, Estimate]]:
    columns: defaultdict[str, _Series] = defaultdict(_Series)
    for prompt_idx, category, value in zip(series.prompts, series.categories, series.values, strict=True):
        if category is not None:
            columns[category].prompts.append(prompt_idx)
            columns[category].values.append(value)
    for category, column in columns.items():
        yield category, clustered_share(column.values, column.prompts).scaled(TOP)
