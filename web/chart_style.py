"""Looks and words that every chart shares: colours, dashes, symbols, languages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from html import escape

import plotly.graph_objects as go

from tasks.measures import grace_texts
from tasks.measures.grace_texts import Language
from tasks.measures.statistics import Estimate

Value = float | Estimate | None

# Okabe & Ito 2008. The first four keep a contrast of at least 3:1 on white; black and yellow are left out, since
# each vanishes on one of the two backgrounds.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star")
GREY = "#808080"

_WORDS = {
    "automatic": ("自动", "automatic"),
    "human": ("人工", "human"),
    "gaps": ("缺失", "No value"),
    "missing": ("没有数据", "no data"),
    "score": ("得分（0–5，点为估计值，线为 95% 区间）", "Score (0–5; dot: estimate, line: 95% interval)"),
    "share": ("不超过该值的回答所占比例", "Share of answers at or below"),
    "seconds": ("秒", "Seconds"),
    "failed": ("失败", "failed"),
    "objective": ("目标", "objective"),
}


class Source(StrEnum):
    """Where a score comes from; the two are shown side by side and never mixed."""

    AUTOMATIC = "automatic"
    HUMAN = "human"


@dataclass(frozen=True)
class Style:
    """How one model is drawn in every chart of a page."""

    colour: str
    dash: str
    symbol: str


def style_of(number: int) -> Style:
    """Style of the model at position ``number``; colour, dash and symbol each tell four neighbours apart."""
    kinds = len(COLOURS)
    turn = number // kinds
    return Style(COLOURS[number % kinds], DASHES[(number + turn) % kinds], SYMBOLS[(number + turn) % kinds])


def word(key: str, language: Language | str) -> str:
    """One of the few words that charts write themselves."""
    chinese, english = _WORDS[key]
    return chinese if Language(language) is Language.ZH else english


def label_of(key: str, labels: Mapping[str, str] | None, language: Language | str) -> str:
    """What stands at an axis: the label given, else the name of a GRACE axis, else the key itself; not escaped."""
    if labels and key in labels:
        return labels[key]
    return grace_texts.text_or(f"{key}.name", language, key)


def as_estimate(value: Value) -> Estimate:
    """A plain number as an estimate without interval; None and NaN as a missing one."""
    if isinstance(value, Estimate):
        return value
    if value is None or math.isnan(value):
        return Estimate.missing("missing")
    return Estimate(float(value), None, None, 0)


def describe(estimate: Estimate, language: Language | str) -> str:
    """An estimate in words: value, interval and n, or the reason for having none."""
    if estimate.value is None:
        return reason_of(estimate, language)
    interval = "" if estimate.low is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{interval}" + (f", n = {estimate.n}" if estimate.n else "")


def reason_of(estimate: Estimate, language: Language | str) -> str:
    """Why an estimate has no value."""
    reason = estimate.reason or "missing"
    if reason in _WORDS:
        return word(reason, language)
    return grace_texts.text_or(reason, language, reason)


def count_of(estimates: Sequence[Estimate]) -> str:
    """`` (n = 120)`` or `` (n = 90–120)`` over several estimates; empty where no n is known."""
    counts = [estimate.n for estimate in estimates if estimate.value is not None and estimate.n]
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f" (n = {low})" if low == high else f" (n = {low}–{high})"


def series_name(name: str, source: Source | None, estimates: Sequence[Estimate], language: Language | str) -> str:
    """Escaped legend entry of one model's series."""
    origin = "" if source is None else f" · {word(source, language)}"
    return escape(f"{name}{origin}{count_of(estimates)}", quote=False)


def hover_text(name: str, label: str, estimate: Estimate, language: Language | str) -> str:
    """Escaped text that appears over one point."""
    return f"{escape(name, quote=False)}<br>{escape(f'{label}: {describe(estimate, language)}', quote=False)}"


def dress(figure: go.Figure, title: str | None, dark: bool) -> None:
    """Shared layout: no background of its own, so that the page's light or dark one shows."""
    figure.update_layout(
        template=go.layout.Template(),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#EEEEEE" if dark else "#222222", "family": "system-ui, sans-serif"},
        hovermode="closest",
    )
    if title is not None:
        figure.update_layout(title={"text": escape(title, quote=False)})


def legend_above(figure: go.Figure, entries: int, body: int, below: int = 60) -> None:
    """Put the legend between title and chart; ``body`` and ``below`` are heights in pixels.

    Room is kept for one entry a line, as a phone shows them: plotly does not move a title or a radar's labels away.
    """
    title = 40 if figure.layout.title.text else 10
    above = title + 25 * entries + 50
    height = above + body + below
    figure.update_layout(
        height=height,
        margin={"t": above, "b": below},
        showlegend=entries > 0,
        legend={"orientation": "h", "x": 0, "xanchor": "left", "yref": "container", "yanchor": "top"}
        | {"y": 1 - title / height},
    )
    figure.update_layout(title={"yref": "container", "y": 1 - 12 / height, "yanchor": "top"})
