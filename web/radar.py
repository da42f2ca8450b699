"""The radar over several scores, after `evaluate.visualization.radar_plot` of Hugging Face evaluate 0.4.6."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import plotly.graph_objects as go

from tasks.measures.grace import RADAR_AXES, Axis, AxisScore
from tasks.measures.grace_texts import Language
from tasks.measures.statistics import Estimate
from web.chart_style import (
    Source,
    Style,
    Value,
    as_estimate,
    dress,
    hover_text,
    label_of,
    reason_of,
    series_name,
    style_of,
    word,
)
from web.radar_layout import COLUMNS, MARKERS, TOP, Spoke, domain_of, place_legend, polar, settings_of, spoke_of

MAX_MODELS = 4
# Characters in a line under the figure; Chinese ones are twice as wide.
WRAP = {Language.ZH: 42, Language.EN: 80}
# What lets the labels of neighbouring radars keep out of each other's way.
SMALL = {"theta_tick_lbls": {"fontsize": 10}, "theta_tick_lbls_txt_wrap": 10, "theta_tick_lbls_brk_lng_wrds": False}


@dataclass(frozen=True)
class _Series:
    number: int
    name: str
    source: Source | None
    style: Style
    estimates: tuple[Estimate, ...]


def radar_plot(
    data: Sequence[Mapping[str, Value]],
    model_names: Sequence[str],
    invert_range: Sequence[str] | None = None,
    config: Mapping[str, Any] | None = None,
    fig: go.Figure | None = None,
    *,
    ranges: Literal["fixed", "data"] | Mapping[str, tuple[float, float]] = "fixed",
    sources: Sequence[Source] | None = None,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    language: Language | str = Language.EN,
    dark: bool = False,
) -> go.Figure:
    """Radar of ``data``, one mapping from metric to value for each of ``model_names``.

    A value is a number, an `Estimate` (its interval and n are then shown), or None: a gap, which is named under the
    figure and never drawn. Metrics that a model lacks are gaps too. Every spoke runs from 0 to 5, or to the data
    shown with ``ranges="data"`` as Hugging Face's does, or between the (centre, rim) that a mapping gives.
    ``invert_range`` turns spokes round. ``config`` takes their keys (all but ``axes_args``). ``sources`` says whose
    scores each mapping holds: human ones are solid then, automatic ones dashed. More than four models are drawn one
    by one at the same scale. ``fig`` is a plotly figure to draw into.

    Raises ValueError for lengths that do not match, metrics and options that do not exist, and values off a fixed
    range.
    """
    settings = settings_of(config)
    if len(data) != len(model_names):
        raise ValueError(f"{len(data)} results need as many model names, not {len(model_names)}")
    if sources is not None and len(sources) != len(data):
        raise ValueError(f"{len(data)} results need as many sources, not {len(sources)}")
    keys = list(dict.fromkeys(key for results in data for key in results))
    if unknown := set(invert_range or ()) - set(keys):
        raise ValueError(f"invert_range names metrics that are not in the data: {', '.join(sorted(unknown))}")
    columns = {key: [as_estimate(results.get(key)) for results in data] for key in keys}
    spokes = [
        spoke_of(key, label_of(key, labels, language), columns[key], ranges, key in (invert_range or ()))
        for key in keys
    ]
    names = list(dict.fromkeys(model_names))
    series = [
        _Series(
            row,
            name,
            sources[row] if sources else None,
            _style(names.index(name), sources[row] if sources else None, settings),
            tuple(columns[key][row] for key in keys),
        )
        for row, name in enumerate(model_names)
    ]
    figure = go.Figure() if fig is None else fig
    dress(figure, title, dark)
    panels = [series] if len(names) <= MAX_MODELS else [[one for one in series if one.name == name] for name in names]
    if len(panels) > 1:
        settings |= SMALL
        figure.update_layout(margin={"l": 40, "r": 40})
    for number, panel in enumerate(panels):
        _draw(figure, number, len(panels), panel, spokes, settings, language)
    gaps = _name_gaps(figure, series, spokes, language)
    entries = len(series) if len(panels) == 1 or sources else 0
    rows = 1 if len(panels) == 1 else math.ceil(len(panels) / COLUMNS)
    place_legend(figure, settings, entries, rows, below=50 + 17 * gaps)
    return figure


def radar_data(
    scores: Sequence[AxisScore], axes: Sequence[Axis] = RADAR_AXES
) -> tuple[list[dict[str, Value]], list[str]]:
    """``data`` and ``model_names`` of `radar_plot` from axis scores."""
    models: dict[str, dict[str, Value]] = {}
    for score in scores:
        if score.axis in axes:
            models.setdefault(score.model, {})[score.axis.value] = score.estimate
    return list(models.values()), list(models)


def _style(number: int, source: Source | None, settings: Mapping[str, Any]) -> Style:
    style = style_of(number)
    symbol = style.symbol if settings["marker"] is None else MARKERS[settings["marker"]]
    dash = style.dash if source is None else ("solid" if source is Source.HUMAN else "dash")
    return Style(style.colour, dash, symbol)


def _draw(
    figure: go.Figure,
    number: int,
    panels: int,
    series: Sequence[_Series],
    spokes: Sequence[Spoke],
    settings: Mapping[str, Any],
    language: Language | str,
) -> None:
    subplot = "polar" if number == 0 else f"polar{number + 1}"
    angles = [360 * spoke / len(spokes) for spoke in range(len(spokes))]
    for one in series:
        places = [None if e.value is None else s.place(e.value) for s, e in zip(spokes, one.estimates, strict=True)]
        hover = [hover_text(one.name, s.label, e, language) for s, e in zip(spokes, one.estimates, strict=True)]
        figure.add_scatterpolar(
            r=_closed(places),
            theta=_closed(angles),
            mode="lines+markers",
            connectgaps=False,
            line={"color": one.style.colour, "dash": one.style.dash, "width": 2},
            marker={"color": one.style.colour, "symbol": one.style.symbol, "size": settings["markersize"]},
            name=series_name(one.name, one.source, one.estimates, language),
            text=_closed(hover),
            hoverinfo="text",
            legendgroup=str(one.number),
            subplot=subplot,
        )
        _add_intervals(figure, subplot, one, spokes, angles)
    across, along = domain_of(number, panels)
    if panels > 1:
        figure.add_annotation(
            text=f"<b>{escape(series[0].name, quote=False)}</b>",
            x=sum(across) / 2,
            y=along[1],
            yshift=36,
            xref="paper",
            yref="paper",
            xanchor="center",
            yanchor="bottom",
            showarrow=False,
        )
    domain = {"x": across, "y": along}
    figure.update_layout({subplot: polar(spokes, angles, settings, domain)})


def _add_intervals(
    figure: go.Figure, subplot: str, one: _Series, spokes: Sequence[Spoke], angles: Sequence[float]
) -> None:
    reach: list[float | None] = []
    theta: list[float | None] = []
    for spoke, angle, estimate in zip(spokes, angles, one.estimates, strict=True):
        if estimate.low is not None and estimate.high is not None:
            ends = (spoke.place(estimate.low), spoke.place(estimate.high))
            reach += [*(min(TOP, max(0.0, end)) for end in ends), None]
            theta += [angle, angle, None]
    if reach:
        figure.add_scatterpolar(
            r=reach,
            theta=theta,
            mode="lines",
            connectgaps=False,
            line={"color": one.style.colour, "width": 5},
            opacity=0.35,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=str(one.number),
            subplot=subplot,
        )


def _name_gaps(figure: go.Figure, series: Sequence[_Series], spokes: Sequence[Spoke], language: Language | str) -> int:
    """Say under the figure which values are missing and why; returns the number of lines."""
    gaps: dict[tuple[str, str], list[str]] = {}
    for one in series:
        for spoke, estimate in zip(spokes, one.estimates, strict=True):
            if estimate.value is None:
                origin = "" if one.source is None else f" · {word(one.source, language)}"
                gaps.setdefault((spoke.label, reason_of(estimate, language)), []).append(one.name + origin)
    if not gaps:
        return 0
    width = WRAP[Language(language)]
    sentences = [f"{label}: {', '.join(names)} ({reason})" for (label, reason), names in gaps.items()]
    lines = [f"{word('gaps', language)}:", *(line for one in sentences for line in textwrap.wrap(one, width))]
    figure.add_annotation(
        text="<br>".join(escape(line, quote=False) for line in lines),
        x=0,
        y=0,
        yshift=-34,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="top",
        align="left",
        showarrow=False,
        font={"size": 12},
    )
    return len(lines)


def _closed(points: Sequence[Any]) -> list[Any]:
    return [*points, *points[:1]]
