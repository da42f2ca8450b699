"""The generated Markdown report of one run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tasks.measures import grace_texts
from tasks.measures.grace import Axis, AxisScore
from tasks.measures.grace_texts import Language
from tasks.measures.latency import LatencySummary, Objectives
from tasks.measures.markdown import inert, table
from tasks.measures.report_texts import text
from tasks.measures.statistics import Estimate, Percentiles

FEW = 30
EXAMPLE_CHARACTERS = 300
PHASES = ("queue", "slot_wait", "ttft", "tpot", "service", "e2e", "ms_a_character", "cold_load", "cold_ttft")
GAP = "–"


@dataclass(frozen=True)
class ReportModel:
    """One model of the run. ``environment`` holds facts such as device, dtype and library versions."""

    name: str
    revision: str
    done: int
    failed: int
    cancelled: int
    pending: int
    latency: LatencySummary | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportExample:
    """One prompt and what each model answered to it, by model name."""

    prompt: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class RunReport:
    """Everything that a report of one run is written from. ``created`` is in seconds since 1970.

    ``automatic`` and ``human`` hold axis scores as `tasks.measures.grace.axes_of` and the ratings give them.
    """

    run: str
    title: str
    created: float
    prompts: int
    samples: int
    sampling: Mapping[str, object]
    touchstone: str
    models: Sequence[ReportModel]
    automatic: Sequence[AxisScore] = ()
    human: Sequence[AxisScore] = ()
    examples: Sequence[ReportExample] = ()


def render(report: RunReport, language: Language | str = Language.EN) -> str:
    """The report as Markdown. Every text from outside is inert in it: names, titles, settings, prompts, answers."""
    sections = (_head, _models, _automatic, _human, _latency, _examples, _methods, _limits, _environment)
    lines: list[str] = []
    for section in sections:
        lines += [*section(report, Language(language)), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _head(report: RunReport, language: Language) -> Iterator[str]:
    created = datetime.fromtimestamp(report.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
    settings = ", ".join(f"{inert(str(name))} = {inert(str(value))}" for name, value in report.sampling.items())
    yield f"# {text('title', language)}" + (f" · {inert(report.title)}" if report.title else "")
    yield ""
    yield f"- {text('run', language)}: {inert(report.run)} · Touchstone {inert(report.touchstone)}"
    yield f"- {text('created', language)}: {created}"
    yield f"- {text('prompts', language)}: {report.prompts} · {text('samples', language)}: {report.samples}"
    yield f"- {text('sampling', language)}: {settings or GAP}"
    if any(model.pending for model in report.models):
        yield f"- **{text('incomplete', language)}**"


def _models(report: RunReport, language: Language) -> Iterator[str]:
    heads = ("model", "revision", "done", "failed", "cancelled", "pending")
    yield f"## {text('models', language)}"
    yield ""
    yield from table(
        [text(head, language) for head in heads],
        (
            [inert(m.name), inert(m.revision) or GAP, *map(str, (m.done, m.failed, m.cancelled, m.pending))]
            for m in report.models
        ),
    )
    for m in report.models:
        settings = ", ".join(f"{inert(name)} = {inert(str(value))}" for name, value in m.settings.items())
        if settings:
            yield ""
            yield f"- {inert(m.name)}, {text('settings', language)}: {settings}"


def _automatic(report: RunReport, language: Language) -> Iterator[str]:
    yield f"## {text('automatic', language)}"
    yield ""
    yield text("cell", language)
    yield ""
    yield from _axes(report.automatic, language)


def _human(report: RunReport, language: Language) -> Iterator[str]:
    yield f"## {text('human', language)}"
    yield ""
    yield text("human_cell" if report.human else "no_human", language)
    if report.human:
        yield ""
        yield from _axes(report.human, language)


def _axes(scores: Sequence[AxisScore], language: Language) -> Iterator[str]:
    by_model: dict[str, dict[Axis, AxisScore]] = {}
    for score in scores:
        by_model.setdefault(score.model, {})[score.axis] = score
    axes = [axis for axis in Axis if any(score.axis is axis for score in scores)]
    yield from table(
        [text("model", language), *(grace_texts.text(f"{axis}.name", language) for axis in axes)],
        (
            [inert(model), *(_score(of[axis], language) if axis in of else GAP for axis in axes)]
            for model, of in by_model.items()
        ),
    )


def _score(score: AxisScore, language: Language) -> str:
    detail = f" · {text('detail', language)}: {inert(score.detail)}" if score.detail else ""
    return _estimate(score.estimate, language) + detail


def _estimate(estimate: Estimate, language: Language) -> str:
    if estimate.value is None:
        return f"{GAP} ({_known(estimate.reason or '', language)})"
    interval = GAP if estimate.low is None else f"{estimate.low:.2f}, {estimate.high:.2f}"
    return f"{estimate.value:.2f} \\[{interval}\\], n = {estimate.n}"


def _known(key: str, language: Language) -> str:
    """A text of ours, else the key itself: another's measure may bring a sentence instead of a key."""
    return grace_texts.text_or(key, language, inert(key))


def _latency(report: RunReport, language: Language) -> Iterator[str]:
    measured = [(model.name, model.latency) for model in report.models if model.latency is not None]
    yield f"## {text('latency', language)}"
    yield ""
    yield text("latency_note", language)
    yield ""
    yield from table(
        [text(head, language) for head in ("model", "phase", "percentiles")] + ["n"],
        (
            [inert(name), text(phase, language), *_percentiles(percentiles)]
            for name, summary in measured
            for phase in PHASES
            if (percentiles := getattr(summary, phase)) is not None
        ),
    )
    yield ""
    yield f"### {text('rates', language)}"
    yield ""
    yield text("rates_note", language)
    yield ""
    heads = ("model", "output_rate", "characters_per_second", "goodput_rate", "goodput", "failed_share")
    yield from table(
        [text(head, language) for head in heads],
        (
            [
                inert(name),
                _number(summary.output_rate),
                _number(summary.characters_per_second),
                _number(summary.goodput_rate),
                _estimate(summary.goodput, language),
                _estimate(summary.failed, language),
            ]
            for name, summary in measured
        ),
    )
    for objectives in dict.fromkeys(summary.objectives for _, summary in measured):
        yield ""
        yield f"{text('objectives', language)}: {_objectives(objectives)}"


def _percentiles(percentiles: Percentiles) -> tuple[str, str]:
    values = (percentiles.p50, percentiles.p90, percentiles.p95, percentiles.p99)
    return " / ".join(map(_number, values)), str(percentiles.n)


def _objectives(objectives: Objectives) -> str:
    limits = {
        "TTFT": (objectives.ttft_seconds, "s"),
        "TPOT": (objectives.tpot_seconds, "s"),
        "ms/character": (objectives.ms_a_character, "ms"),
        "service": (objectives.service_seconds, "s"),
    }
    listed = ", ".join(f"{name} ≤ {limit:g} {unit}" for name, (limit, unit) in limits.items() if limit is not None)
    return f"{inert(objectives.profile)} ({listed})"


def _number(value: float | None) -> str:
    return GAP if value is None else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _examples(report: RunReport, language: Language) -> Iterator[str]:
    if not report.examples:
        return
    yield f"## {text('examples', language)}"
    for example in report.examples:
        yield ""
        yield f"**{text('prompt', language)}**: {inert(example.prompt, EXAMPLE_CHARACTERS)}"
        yield ""
        for model, answer in example.answers.items():
            yield f"- {inert(model)}: {inert(answer, EXAMPLE_CHARACTERS) or GAP}"


def _methods(report: RunReport, language: Language) -> Iterator[str]:
    used = dict.fromkeys(
        (score.axis, score.version, score.definition, score.weakness) for score in (*report.automatic, *report.human)
    )
    yield f"## {text('methods', language)}"
    for axis, version, definition, weakness in used:
        yield ""
        yield f"### {grace_texts.text(f'{axis}.name', language)} · {text('version', language)} {version}"
        yield ""
        yield f"- {text('definition', language)}: {_known(definition, language)}"
        yield f"- {text('weakness', language)}: {_known(weakness, language)}"


def _limits(report: RunReport, language: Language) -> Iterator[str]:
    scores = (*report.automatic, *report.human)
    few = any(score.estimate.value is not None and score.estimate.n < FEW for score in scores)
    yield f"## {text('limits', language)}"
    yield ""
    for key in ("form_only", "failures", "overlap", *(["few"] if few else [])):
        yield f"- {text(key, language)}"


def _environment(report: RunReport, language: Language) -> Iterator[str]:
    yield f"## {text('environment', language)}"
    for model in report.models:
        yield ""
        facts = ", ".join(f"{inert(name)}: {inert(value)}" for name, value in model.environment.items())
        yield f"- {inert(model.name)}: {facts or GAP}"
