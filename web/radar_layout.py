"""Spokes, ranges and settings of a radar: everything but the curves in it."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from tasks.measures.statistics import Estimate
from web.chart_style import GREY, legend_above

TOP = 5.0
COLUMNS = 2
ROW_HEIGHT = 340
CONFIG: dict[str, Any] = {
    "rad_ln_args": {"visible": True},
    "outer_ring": {"visible": True},
    "angle_ln_args": {"visible": True},
    "rgrid_tick_lbls_args": {"fontsize": 12},
    "theta_tick_lbls": {"fontsize": 12},
    "theta_tick_lbls_pad": 3,
    "theta_tick_lbls_brk_lng_wrds": True,
    "theta_tick_lbls_txt_wrap": 15,
    "incl_endpoint": True,
    "marker": None,
    "markersize": 8,
    "legend_loc": None,
    "bbox_to_anchor": None,
}
MARKERS = {
    "o": "circle",
    "s": "square",
    "D": "diamond",
    "^": "triangle-up",
    "v": "triangle-down",
    "x": "x",
    "*": "star",
}
_CORNERS = {
    "upper left": ("left", "top"),
    "upper right": ("right", "top"),
    "lower left": ("left", "bottom"),
    "lower right": ("right", "bottom"),
}


@dataclass(frozen=True)
class Spoke:
    """One dimension: its label, and the values at its centre and rim."""

    key: str
    label: str
    centre: float
    rim: float

    def place(self, value: float) -> float:
        """Distance from the centre, 0–5."""
        return TOP * (value - self.centre) / (self.rim - self.centre)


def settings_of(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Every setting with its default. Raises ValueError for an unknown one, a marker or a corner that is not there."""
    if unknown := set(config or {}) - set(CONFIG):
        raise ValueError(f"unknown config: {', '.join(sorted(unknown))}; there are {', '.join(CONFIG)}")
    settings = CONFIG | dict(config or {})
    if settings["marker"] not in (None, *MARKERS):
        raise ValueError(f"config marker must be one of {', '.join(MARKERS)}")
    if settings["legend_loc"] not in (None, *_CORNERS):
        raise ValueError(f"config legend_loc must be one of {', '.join(_CORNERS)}")
    return settings


def spoke_of(key: str, label: str, column: Sequence[Estimate], ranges: Any, inverted: bool) -> Spoke:
    """Spoke that holds every value of ``column``. Raises ValueError where its range does not hold them all."""
    values = [estimate.value for estimate in column if estimate.value is not None]
    if ranges == "data":
        low, high = _data_range(values)
    elif isinstance(ranges, Mapping):
        low, high = ranges.get(key, (0.0, TOP))
    elif ranges == "fixed":
        low, high = 0.0, TOP
    else:
        raise ValueError('ranges must be "fixed", "data", or a mapping from metric to (centre, rim)')
    if low == high:
        raise ValueError(f"the range of {key} is empty")
    if off := [value for value in values if not min(low, high) <= value <= max(low, high)]:
        raise ValueError(f'{key} is {off[0]:g}, off its range {low:g}–{high:g}; give another or ranges="data"')
    return Spoke(key, label, high, low) if inverted else Spoke(key, label, low, high)


def _data_range(values: Sequence[float]) -> tuple[float, float]:
    """The data's range with a margin of a tenth below and, of the range so widened, above, as theirs has it."""
    if not values:
        return 0.0, TOP
    low, high = min(values), max(values)
    if low == high:
        return low - 0.5, high + 0.5
    low -= 0.1 * (high - low)
    return low, high + 0.1 * (high - low)


def polar(
    spokes: Sequence[Spoke], angles: Sequence[float], settings: Mapping[str, Any], domain: Mapping[str, Any]
) -> dict[str, Any]:
    """Layout of one polar subplot with its first spoke at the top and the others clockwise."""
    plain = all((spoke.centre, spoke.rim) == (0.0, TOP) for spoke in spokes)
    ticks = [1, 2, 3, 4, 5] if settings["incl_endpoint"] else [1, 2, 3, 4]
    return {
        "domain": domain,
        "bgcolor": "rgba(0,0,0,0)",
        "radialaxis": {
            "range": [0, TOP],
            "tickvals": ticks,
            # One row of numbers can only be true where all spokes share it; else each label tells its own ends.
            "showticklabels": plain,
            "tickfont": {"size": settings["rgrid_tick_lbls_args"].get("fontsize", 12)},
            "showgrid": settings["rad_ln_args"].get("visible", True),
            "gridcolor": GREY,
            "griddash": "dot",
            "showline": False,
            "angle": 90,
        },
        "angularaxis": {
            "type": "linear",
            "rotation": 90,
            "direction": "clockwise",
            "tickmode": "array",
            "tickvals": list(angles),
            "ticktext": [_spoke_text(spoke, plain, settings) for spoke in spokes],
            "tickfont": {"size": settings["theta_tick_lbls"].get("fontsize", 12)},
            "ticks": "outside",
            "ticklen": settings["theta_tick_lbls_pad"],
            "tickcolor": "rgba(0,0,0,0)",
            "showgrid": settings["angle_ln_args"].get("visible", True),
            "gridcolor": GREY,
            "showline": settings["outer_ring"].get("visible", True),
            "linecolor": GREY,
        },
    }


def _spoke_text(spoke: Spoke, plain: bool, settings: Mapping[str, Any]) -> str:
    lines = textwrap.wrap(
        spoke.label,
        settings["theta_tick_lbls_txt_wrap"],
        break_long_words=settings["theta_tick_lbls_brk_lng_wrds"],
    )
    if not plain:
        lines.append(f"({spoke.centre:.3g} → {spoke.rim:.3g})")
    return "<br>".join(escape(line, quote=False) for line in lines)


def place_legend(figure: go.Figure, settings: Mapping[str, Any], entries: int, rows: int, below: int) -> None:
    """Legend above the radar, or where the settings ask for it; ``rows`` of radars, ``below`` pixels under them."""
    legend_above(figure, entries, ROW_HEIGHT * rows, below)
    if settings["legend_loc"] is not None or settings["bbox_to_anchor"] is not None:
        horizontal, vertical = _CORNERS[settings["legend_loc"] or "upper right"]
        x, y = settings["bbox_to_anchor"] or (1.0 if horizontal == "right" else 0.0, 1.0 if vertical == "top" else 0.0)
        legend = {"orientation": "v", "x": x, "y": y, "xanchor": horizontal, "yanchor": vertical, "yref": "paper"}
        figure.update_layout(legend=legend)


def domain_of(number: int, panels: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Horizontal and vertical share of the figure for one of several radars, with room for labels around it."""
    if panels == 1:
        return (0.0, 1.0), (0.0, 1.0)
    columns, rows = min(panels, COLUMNS), math.ceil(panels / COLUMNS)
    column, row = number % COLUMNS, number // COLUMNS
    return ((column + 0.22) / columns, (column + 0.78) / columns), (1 - (row + 0.85) / rows, 1 - (row + 0.3) / rows)
