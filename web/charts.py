"""Charts of the benchmark page. Every function is pure and returns a plotly figure."""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from tasks.measures.grace_texts import Language
from web.chart_style import (
    GREY,
    Source,
    Value,
    as_estimate,
    describe,
    dress,
    hover_text,
    label_of,
    legend_above,
    series_name,
    style_of,
    word,
)
from web.radar import radar_data, radar_plot

__all__ = ["Source", "interval_chart", "latency_ecdf", "radar_data", "radar_plot"]

TOP = 5.0
MAX_POINTS = 1000


def interval_chart(
    data: Sequence[Mapping[str, Value]],
    model_names: Sequence[str],
    *,
    sources: Sequence[Source] | None = None,
    labels: Mapping[str, str] | None = None,
    title: str | None = None,
    language: Language | str = Language.EN,
    dark: bool = False,
) -> go.Figure:
    """Dots with 95% intervals, a row an axis and within it a line a model; takes what `radar_plot` takes.

    A gap is a grey sentence at the left of its line, never a dot. Human scores have filled dots, automatic ones
    open dots, where ``sources`` are given.
    """
    if len(data) != len(model_names) or (sources is not None and len(sources) != len(data)):
        raise ValueError("every result needs one model name, and one source where there are any")
    figure = go.Figure()
    dress(figure, title, dark)
    keys = list(dict.fromkeys(key for results in data for key in results))
    names = list(dict.fromkeys(model_names))
    for row, (name, results) in enumerate(zip(model_names, data, strict=True)):
        source = sources[row] if sources else None
        style = style_of(names.index(name))
        estimates = [as_estimate(results.get(key)) for key in keys]
        lines = [number + (row + 1) / (len(data) + 1) - 0.5 for number in range(len(keys))]
        drawn = [(y, e, key) for y, e, key in zip(lines, estimates, keys, strict=True) if e.value is not None]
        figure.add_scatter(
            x=[e.value for _, e, _ in drawn],
            y=[y for y, _, _ in drawn],
            mode="markers",
            marker={
                "color": style.colour,
                "symbol": style.symbol + ("-open" if source is Source.AUTOMATIC else ""),
                "size": 9,
                "line": {"color": style.colour, "width": 2},
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [_reach(e.value, e.high) for _, e, _ in drawn],
                "arrayminus": [_reach(e.low, e.value) for _, e, _ in drawn],
                "color": style.colour,
                "thickness": 2,
            },
            text=[hover_text(name, label_of(key, labels, language), e, language) for _, e, key in drawn],
            hoverinfo="text",
            name=series_name(name, source, estimates, language),
        )
        for y, estimate in zip(lines, estimates, strict=True):
            if estimate.value is None:
                figure.add_annotation(
                    x=0,
                    y=y,
                    text=escape(f"{name}: {describe(estimate, language)}", quote=False),
                    xanchor="left",
                    showarrow=False,
                    font={"color": GREY, "size": 11},
                )
    figure.update_xaxes(
        range=[-0.05, TOP + 0.05], dtick=1, title=word("score", language), gridcolor=GREY, griddash="dot"
    )
    figure.update_yaxes(
        range=[len(keys) - 0.5, -0.5],
        automargin=True,
        tickvals=list(range(len(keys))),
        ticktext=[escape(label_of(key, labels, language), quote=False) for key in keys],
        showgrid=False,
        zeroline=False,
    )
    figure.update_layout(margin={"l": 180})
    legend_above(figure, len(data), body=28 * len(keys) * (len(data) + 1))
    return figure


def latency_ecdf(
    series: Mapping[str, Sequence[float]],
    *,
    label: str | None = None,
    failed: Mapping[str, int] | None = None,
    objective: float | None = None,
    logarithmic: bool = False,
    title: str | None = None,
    language: Language | str = Language.EN,
    dark: bool = False,
) -> go.Figure:
    """Empirical distribution of one phase, a step curve a model; ``label`` names the phase with its unit (seconds).

    ``failed`` counts completions that never got there: a curve then ends below 1, instead of hiding them.
    ``objective`` draws the limit. Long series are thinned to `MAX_POINTS` steps, each of which is exact.
    """
    figure = go.Figure()
    dress(figure, title, dark)
    for number, (name, values) in enumerate(series.items()):
        style = style_of(number)
        lost = (failed or {}).get(name, 0)
        steps = np.sort(np.asarray(values, float))
        n = len(steps)
        ranks = np.unique(np.linspace(0, n - 1, min(n, MAX_POINTS)).round().astype(int)) if n else np.empty(0, int)
        counts = f"n = {n}" + (f", {word('failed', language)} {lost}" if lost else "")
        figure.add_scatter(
            x=steps[ranks].tolist(),
            y=((ranks + 1) / max(1, n + lost)).tolist(),
            mode="lines",
            line={"shape": "hv", "color": style.colour, "dash": style.dash, "width": 2},
            name=escape(f"{name} ({counts})", quote=False),
        )
    if objective is not None:
        figure.add_vline(
            x=objective,
            line={"color": GREY, "dash": "dash"},
            annotation_text=f"{word('objective', language)} {objective:g}",
        )
    figure.update_xaxes(
        title=escape(label or word("seconds", language), quote=False),
        type="log" if logarithmic else "linear",
        gridcolor=GREY,
        griddash="dot",
    )
    figure.update_yaxes(range=[0, 1.02], title=word("share", language), gridcolor=GREY, griddash="dot")
    legend_above(figure, len(series), body=360)
    return figure


def _reach(start: float | None, end: float | None) -> float:
    return 0.0 if start is None or end is None else end - start
