"""Figures over settings show the values of the frames, and mark the latency of overloaded pools."""

import numpy as np
import pandas as pd
import pytest

from shadowsim import InputError
from shadowsim.plots import heatmap
from shadowsim.plots.style import COLOURS


def sweep_frame(settings, replications=2, overloaded=()):
    """Return a frame of `sweep`: p99 is (cell + 2 replication) ms, and 1 s more for the source."""
    rows = []
    for i, cell in enumerate(settings):
        for r in range(replications):
            for role in ("source", "shadow"):
                is_overloaded = role == "shadow" and i in overloaded
                figures = {"p99_s": 1e-3 * (i + 2 * r) + (role == "source"), "utilisation": 0.1 * i}
                verdict = "OVERLOADED" if is_overloaded and r == 0 else "STABLE"
                rows.append(cell | {"replication": r, "role": role, "variant": role, "verdict": verdict} | figures)
    return pd.DataFrame(rows)


TWO = [{"share": s, "shadow.instance_count": n} for s in (10, 50, 100) for n in (1, 2)]


def test_one_setting_makes_one_line_per_pool_of_means_with_errors():
    cells = [{"shadow.instance_count": n, "seed": 1} for n in (4, 1, 2)]
    source, shadow = heatmap.sweep(sweep_frame(cells)).data
    assert (source.name, shadow.name) == ("source", "shadow")
    assert list(shadow.x) == [1, 2, 4]
    assert shadow.y == pytest.approx([2.0, 3.0, 1.0])  # ms
    assert source.y == pytest.approx([1002.0, 1003.0, 1001.0])
    assert shadow.error_y.array == pytest.approx([2.0] * 3)  # of 0 and 2 ms the standard error is 1
    assert source.line.color == COLOURS["source"]


def test_an_overloaded_cell_of_a_line_is_a_cross():
    figure = heatmap.sweep(sweep_frame([{"n": 1}, {"n": 2}], overloaded=[0]))
    assert list(figure.data[1].marker.symbol) == ["x", "circle"]
    assert list(figure.data[0].marker.symbol) == ["circle", "circle"]
    assert "OVERLOADED" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text == "n"
    assert figure.layout.yaxis.title.text.startswith("p99 (ms")


def test_two_settings_make_a_map_of_means_where_overload_is_a_word():
    figure = heatmap.sweep(sweep_frame(TWO, overloaded=[4]))
    (heat,) = figure.data
    assert list(heat.x) == ["1", "2"]
    assert list(heat.y) == ["10", "50", "100"]
    expected = np.arange(6.0).reshape(3, 2) + 1.0  # ms
    expected[2, 0] = np.nan
    np.testing.assert_allclose(heat.z, expected)
    assert heat.text.tolist() == [["1.00", "2.00"], ["3.00", "4.00"], ["", "6.00"]]
    (word,) = figure.layout.annotations
    assert (word.text, word.x, word.y) == ("OVERLOADED", 0, 2)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("shadow: instance count", "share")
    assert heat.colorbar.title.text == "ms"


def test_settings_are_titles_with_units_and_bright_is_good():
    assert heatmap.setting_title("sampling_percentage") == "share copied (%)"
    assert heatmap.setting_title("shadow.time.mean_s") == "shadow: time.mean (s)"
    assert heatmap.setting_title("endpoint.routing") == "endpoint.routing"
    least_is_best, most_is_best = (
        heatmap.sweep(sweep_frame(TWO).assign(requests=1.0), metric).data[0].colorscale
        for metric in ("p99_s", "requests")
    )
    assert least_is_best[0][1] == most_is_best[-1][1] != least_is_best[-1][1]


def test_the_map_is_of_the_role_and_the_metric_asked_for():
    heat = heatmap.sweep(sweep_frame(TWO), "utilisation", "source").data[0]
    np.testing.assert_allclose(heat.z, 10.0 * np.arange(6.0).reshape(3, 2))
    assert heat.colorbar.title.text == "%"


@pytest.mark.parametrize(
    ("frame", "arguments", "path"),
    [
        (sweep_frame([{"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 2}]), {}, "frame"),
        (sweep_frame([{"a": 1}]), {}, "frame"),
        (sweep_frame(TWO).drop(columns="replication"), {}, "frame"),
        (sweep_frame(TWO), {"metric": "p98_s"}, "metric"),
        (sweep_frame(TWO), {"metric": "verdict"}, "metric"),
        (sweep_frame(TWO), {"role": "both"}, "role"),
    ],
)
def test_frames_that_cannot_be_drawn_are_refused(frame, arguments, path):
    with pytest.raises(InputError) as error:
        heatmap.sweep(frame, **arguments)
    assert error.value.path == path


def test_three_settings_make_a_map_for_each_value_of_one_in_one_scale_of_colours():
    cells = [{"sampling_percentage": s, "n": n, "x_s": x} for s in (10, 50, 100) for n in (1, 2, 3) for x in (0.1, 0.2)]
    maps = heatmap.sweep_maps(sweep_frame(cells, overloaded=[0]))
    titles = [figure.layout.title.text for _, figure in maps]
    assert titles == ["p99 of the shadow, x 100 ms", "p99 of the shadow, x 200 ms"]
    first, second = (figure.data[0] for _, figure in maps)
    assert np.isnan(first.z[0, 0])  # overloaded
    np.testing.assert_allclose(first.z[1], [7.0, 9.0, 11.0])
    np.testing.assert_allclose(second.z[0], [2.0, 4.0, 6.0])
    assert (first.zmin, first.zmax) == (second.zmin, second.zmax) == pytest.approx((2.0, 18.0))
    assert [set(rows["x_s"]) for rows, _ in maps] == [{0.1}, {0.2}]


def test_few_settings_make_one_figure_and_too_many_none():
    ((rows, figure),) = heatmap.sweep_maps(sweep_frame(TWO))
    assert (len(rows), figure) == (24, heatmap.sweep(sweep_frame(TWO)))
    cube = [{"a": a, "b": b, "c": c} for a in range(7) for b in range(7) for c in range(7)]
    with pytest.raises(
        InputError, match="at most 6 heat maps are drawn, so select rows of it, got '7 combinations of a'"
    ):
        heatmap.sweep_maps(sweep_frame(cube, replications=1))


def test_settings_are_said_with_their_units():
    assert heatmap.setting_in_words("sampling_percentage", 10) == "share copied 10 %"
    assert heatmap.setting_in_words("shadow.time.mean_s", 0.02) == "shadow: time.mean 20 ms"
    assert heatmap.setting_in_words("horizon_s", np.int64(3600)) == "length of the run 1 h"
    assert heatmap.setting_in_words("rate_per_s", 50.0) == "traffic 50 requests per second"
    assert heatmap.setting_in_words("endpoint.routing", "RANDOM") == "endpoint.routing RANDOM"


def test_values_of_a_grid_are_text_and_not_markup():
    heat = heatmap.sweep(sweep_frame([{"<i>": "<b>", "n": 1}, {"<i>": "c", "n": 2}])).data[0]
    assert list(heat.y) == ["&lt;b&gt;", "c"]
    assert "<i>" not in heat.hovertemplate


def test_a_map_of_power_shows_power_and_cost_and_frames_the_cheapest_that_reaches():
    plan = pd.DataFrame(
        {
            "sampling_percentage": [50, 10, 50, 10],
            "duration_s": [86400.0, 86400.0, 3600.0, 3600.0],
            "power": [0.95, 0.6, 0.85, 0.2],
            "cost_usd": [np.nan, 20.0, 12.0, 2.0],
            "shadow_instances": 1,
            "reaches": [True, False, True, False],
        }
    )
    figure = heatmap.power(plan)
    (heat,) = figure.data
    assert (list(heat.x), list(heat.y)) == (["1 h", "1 day"], ["10 %", "50 %"])
    np.testing.assert_array_equal(heat.z, [[0.2, 0.6], [0.85, 0.95]])
    assert heat.text.tolist() == [
        ["20 %<br>2.00 USD", "60 %<br>20.00 USD"],
        ["<b>85 %</b><br>12.00 USD", "<b>95 %</b><br>cost unknown"],
    ]
    (framed,) = figure.layout.shapes
    assert ((framed.x0 + framed.x1) / 2, (framed.y0 + framed.y1) / 2) == (0, 1)
    assert not heatmap.power(plan.assign(reaches=False)).layout.shapes
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("duration of the test", "share copied")


def test_a_quantile_of_too_short_a_run_is_a_gap_unless_an_error_bar_stands_beside_it():
    cells = [{"n": 1}, {"n": 2}]
    single, several = (sweep_frame(cells, replications=r) for r in (1, 2))
    for frame in (single, several):
        frame["uncertain"] = np.where((frame["role"] == "shadow") & (frame["n"] == 1), "p99_s, p99_9_s", "")
    figure = heatmap.sweep(single)
    assert np.isnan(figure.data[1].y).tolist() == [True, False]
    assert not np.isnan(figure.data[0].y).any()
    assert "too short" in figure.layout.title.subtitle.text
    assert not np.isnan(heatmap.sweep(single, "utilisation").data[1].y).any()
    figure = heatmap.sweep(several)
    assert figure.data[1].y == pytest.approx([1.0, 2.0])  # ms
    assert (np.asarray(figure.data[1].error_y.array) > 0.0).all()


def test_a_map_says_where_a_run_is_too_short():
    frame = sweep_frame(TWO, overloaded=[4])
    short = (frame["role"] == "shadow") & (frame["replication"] == 1) & (frame["share"] == 10)
    frame["uncertain"] = np.where(short, "p99_s, p99_9_s", "")
    figure = heatmap.sweep(frame)
    assert np.isnan(figure.data[0].z).tolist() == [[True, True], [False, False], [True, False]]
    assert [(a.text, a.x, a.y) for a in figure.layout.annotations] == [
        ("OVERLOADED", 0, 2), ("too short", 0, 0), ("too short", 1, 0),
    ]  # fmt: skip
