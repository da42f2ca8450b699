import json
import math

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.measures.grace import IDENTIFICATION, axes_of
from tasks.measures.statistics import Estimate
from web.chart_style import COLOURS, style_of
from web.charts import Source, interval_chart, latency_ecdf, radar_data, radar_plot

SCORES = {"G": 4.0, "R": 3.5, "A": 1.0, "E": 5.0}


def curves(figure):
    return [trace for trace in figure.data if trace.mode == "lines+markers"]


def test_scores_stand_where_they_are_on_a_fixed_scale():
    figure = radar_plot([SCORES], ["m"])
    (curve,) = curves(figure)
    assert list(curve.r) == [4.0, 3.5, 1.0, 5.0, 4.0]
    assert list(curve.theta) == [0, 90, 180, 270, 0]
    assert curve.fill is None and curve.connectgaps is False
    assert tuple(figure.layout.polar.radialaxis.range) == (0, 5)
    assert list(figure.layout.polar.radialaxis.tickvals) == [1, 2, 3, 4, 5]


def test_close_scores_look_close_however_few_are_shown():
    figure = radar_plot([{"G": 4.0}, {"G": 3.5}], ["a", "b"])
    assert [curve.r[0] for curve in curves(figure)] == [4.0, 3.5]


@pytest.mark.parametrize("missing", [None, math.nan, Estimate.missing("fluency_not_measured", 9)])
def test_a_gap_is_never_a_zero(missing):
    figure = radar_plot([SCORES | {"A": missing}], ["m"])
    assert curves(figure)[0].r[2] is None
    assert json.loads(figure.to_json())["data"][0]["r"][2] is None
    assert "Artistry A: m" in figure.layout.annotations[0].text


def test_a_missing_dimension_is_a_gap_of_that_model_alone():
    figure = radar_plot([{"G": 1.0, "R": 2.0, "E": 3.0}, {"G": 1.0, "E": 3.0}], ["a", "b"])
    assert [list(curve.r) for curve in curves(figure)] == [[1, 2, 3, 1], [1, None, 3, 1]]
    assert ": b (" in figure.layout.annotations[0].text


def test_equal_scores_are_drawn_under_both_ranges():
    data = [dict.fromkeys("GRAE", 2.0)] * 2
    assert curves(radar_plot(data, ["a", "b"]))[1].r[0] == 2
    assert curves(radar_plot(data, ["a", "b"], ranges="data"))[1].r[0] == 2.5


def test_data_ranges_follow_hugging_face_by_hand():
    # 10 and 20: from 10 − 0.1·10 = 9 to 20 + 0.1·(20 − 9) = 21.1; 10 lies at 5 · 1 / 12.1.
    data = [{"accuracy": 10.0, "latency": 10.0}, {"accuracy": 20.0, "latency": 20.0}]
    figure = radar_plot(data, ["a", "b"], invert_range=["latency"], ranges="data")
    first = curves(figure)[0]
    assert first.r[0] == pytest.approx(5 / 12.1)
    assert first.r[1] == pytest.approx(5 - 5 / 12.1)
    assert figure.layout.polar.radialaxis.showticklabels is False
    assert figure.layout.polar.angularaxis.ticktext[1] == "latency<br>(21.1 → 9)"


def test_a_spoke_can_have_its_own_range():
    figure = radar_plot([{"share": 0.5, "G": 5.0}], ["m"], ranges={"share": (0, 1)}, invert_range=["G"])
    assert list(curves(figure)[0].r)[:2] == [2.5, 0.0]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.dictionaries(st.sampled_from("GRAEC"), st.none() | st.floats(0, 5), min_size=1), min_size=1, max_size=7)
)
def test_any_scores_can_be_drawn(data):
    names = [f"m{number}" for number in range(len(data))]
    figure = radar_plot(data, names)
    interval_chart(data, names)
    drawn = [r for curve in curves(figure) for r in list(curve.r)[:-1]]
    keys = {key for results in data for key in results}
    assert sum(r is None for r in drawn) == sum(results.get(key) is None for results in data for key in keys)
    for curve in curves(figure):
        assert curve.r[0] == curve.r[-1] and curve.theta[0] == curve.theta[-1]
    figure.to_json()


def test_intervals_and_counts_are_shown():
    estimate = Estimate(4.0, 3.5, 4.5, 120)
    figure = radar_plot([{"G": estimate, "R": Estimate(2.0, 1.0, 2.5, 90)}], ["m"])
    curve, interval = figure.data
    assert curve.name == "m (n = 90–120)"
    assert "4.00 [3.50, 4.50], n = 120" in curve.text[0]
    assert list(interval.r) == [3.5, 4.5, None, 1.0, 2.5, None] and interval.showlegend is False


def test_models_differ_in_colour_dash_and_symbol():
    figure = radar_plot([SCORES] * 4, list("abcd"))
    for looks in zip(*((c.line.color, c.line.dash, c.marker.symbol) for c in curves(figure)), strict=True):
        assert len(set(looks)) == 4
    styles = [style_of(number) for number in range(24)]
    assert len({(style.colour, style.dash) for style in styles}) == 24


def test_the_first_four_colours_show_on_white_and_on_black():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in COLOURS[:4]:
        assert 1.05 / (luminance(colour) + 0.05) >= 3 - 0.05
        assert (luminance(colour) + 0.05) / 0.05 >= 3


def test_human_is_solid_and_automatic_is_dashed():
    figure = radar_plot([SCORES, SCORES], ["m", "m"], sources=[Source.HUMAN, Source.AUTOMATIC], language="zh")
    human, automatic = curves(figure)
    assert (human.line.dash, automatic.line.dash) == ("solid", "dash")
    assert human.line.color == automatic.line.color
    assert (human.name, automatic.name) == ("m · 人工", "m · 自动")


def test_more_than_four_models_become_small_multiples_of_one_scale():
    figure = radar_plot([SCORES] * 5, list("abcde"))
    subplots = [curve.subplot for curve in curves(figure)]
    assert subplots == ["polar", "polar2", "polar3", "polar4", "polar5"]
    assert all(tuple(figure.layout[subplot].radialaxis.range) == (0, 5) for subplot in subplots)
    assert len({(figure.layout[s].domain.x, figure.layout[s].domain.y) for s in subplots}) == 5
    assert [annotation.text for annotation in figure.layout.annotations] == [f"<b>{name}</b>" for name in "abcde"]
    assert len({curve.subplot for curve in curves(radar_plot([SCORES] * 4, list("abcd")))}) == 1


def test_both_sources_of_four_models_share_one_radar():
    figure = radar_plot([SCORES] * 8, list("abcd") * 2, sources=[Source.HUMAN] * 4 + [Source.AUTOMATIC] * 4)
    assert {curve.subplot for curve in curves(figure)} == {"polar"}


def test_a_figure_can_be_drawn_into():
    figure = go.Figure()
    assert radar_plot([SCORES], ["m"], fig=figure) is figure and len(curves(figure)) == 1


def test_hugging_faces_config_is_taken():
    config = {
        "rad_ln_args": {"visible": False},
        "outer_ring": {"visible": False},
        "rgrid_tick_lbls_args": {"fontsize": 8},
        "theta_tick_lbls": {"fontsize": 9},
        "theta_tick_lbls_txt_wrap": 4,
        "incl_endpoint": False,
        "marker": "s",
        "markersize": 3,
        "legend_loc": "lower left",
        "bbox_to_anchor": (1.5, 0.5),
    }
    figure = radar_plot([{"a long name": 1.0}], ["m"], None, config)
    polar, (curve,) = figure.layout.polar, curves(figure)
    assert (polar.radialaxis.showgrid, polar.angularaxis.showline) == (False, False)
    assert (polar.radialaxis.tickfont.size, polar.angularaxis.tickfont.size) == (8, 9)
    assert polar.angularaxis.ticktext[0] == "a<br>long<br>name"
    assert list(polar.radialaxis.tickvals) == [1, 2, 3, 4]
    assert (curve.marker.symbol, curve.marker.size) == ("square", 3)
    assert (figure.layout.legend.xanchor, figure.layout.legend.x) == ("left", 1.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([SCORES], ["a", "b"]), "as many model names"),
        (([SCORES], ["a"], ["latency"]), "not in the data: latency"),
        (([SCORES], ["a"], None, {"colour": 1}), "unknown config: colour"),
        (([SCORES], ["a"], None, {"marker": "?"}), "marker"),
        (([{"G": 5.1}], ["a"]), "off its range"),
        (([{"G": -0.1}], ["a"]), "off its range"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        radar_plot(*arguments)


def test_markup_in_names_is_inert():
    name = "<b>x</b><a href='javascript:1'>y</a>"
    for figure in (
        radar_plot([{name: None, "G": 1.0}], [name], title=name),
        interval_chart([{name: None, "G": 1.0}], [name], title=name),
        latency_ecdf({name: [1.0]}, label=name, title=name),
    ):
        text = figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
        assert "<a href" not in text and "<b>x" not in text


def test_axis_scores_become_data():
    data, names = radar_data(axes_of([("m", idx, None, IDENTIFICATION, 0.9) for idx in range(5)]))
    assert names == ["m"] and list(data[0]) == ["G", "R", "A", "E"]
    figure = radar_plot(data, names, language="zh")
    assert [None if r is None else round(r, 6) for r in curves(figure)[0].r] == [None, 4.0, None, None, None]
    assert "流畅度 F 尚未测量" in figure.layout.annotations[0].text


def test_interval_chart_by_hand():
    data = [{"G": Estimate(4.0, 3.5, 4.25, 50), "R": None}, {"G": 2.0, "R": Estimate(1.0, None, None, 1)}]
    figure = interval_chart(data, ["a", "b"])
    first, second = figure.data
    assert list(first.x) == [4.0] and list(second.x) == [2.0, 1.0]
    assert (first.error_x.array[0], first.error_x.arrayminus[0]) == (0.25, 0.5)
    assert list(second.error_x.array) == [0, 0]
    assert first.y[0] < second.y[0] < 0.5
    assert [annotation.text for annotation in figure.layout.annotations] == ["a: no data"]
    with pytest.raises(ValueError, match="one model name"):
        interval_chart(data, ["a"])


def test_open_dots_are_automatic():
    figure = interval_chart([SCORES] * 2, ["m", "m"], sources=[Source.HUMAN, Source.AUTOMATIC])
    assert [trace.marker.symbol for trace in figure.data] == ["circle", "circle-open"]


def test_ecdf_by_hand_ends_below_one_where_some_failed():
    figure = latency_ecdf({"a": [3.0, 1.0, 2.0], "b": []}, label="TTFT (s)", failed={"a": 1}, objective=2.5)
    curve, empty = figure.data
    assert list(curve.x) == [1, 2, 3] and list(curve.y) == [0.25, 0.5, 0.75]
    assert curve.line.shape == "hv" and curve.name == "a (n = 3, failed 1)"
    assert list(empty.x) == [] and empty.name == "b (n = 0)"
    assert figure.layout.shapes[0].x0 == 2.5


def test_a_thinned_ecdf_stays_exact():
    values = np.random.default_rng(0).random(20_000)
    (curve,) = latency_ecdf({"a": values}, label="s").data
    assert len(curve.x) <= 1000 and curve.y[-1] == 1
    for x, y in zip(curve.x[::97], curve.y[::97], strict=True):
        assert (values <= x).mean() == pytest.approx(y)
