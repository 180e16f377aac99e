"""The figure of metrics against the rate: marks, arrows, the goal and the interval."""

import math

import numpy as np
import pandas as pd
import pytest

from shadowsim import InputError
from shadowsim.plots import latency_against_rate


def frame(**answer):
    made = pd.DataFrame(
        [{"role": "shadow", "binding": "p99 <= 100ms", "low_per_s": 190.0, "high_per_s": 210.0} | answer]
    )
    rows = [(250.0, 0.9, math.nan, 1), (100.0, 0.05, math.nan, 1), (200.0, 0.1, 0.002, 8)]
    names = ("rate_per_s", "p99_s", "p99_s_error", "replications")
    made.attrs["tried"] = [{"role": "shadow"} | dict(zip(names, row, strict=True)) for row in rows]
    return made


def test_marks_are_in_order_with_errors_and_far_ones_are_arrows():
    figure = latency_against_rate(frame())
    marks, arrows = figure.data
    assert list(marks.x) == [100.0, 200.0, 250.0]
    np.testing.assert_allclose(marks.y, [50.0, 100.0, math.nan])  # in ms; the last is beyond three times the goal
    np.testing.assert_allclose(marks.error_y["array"], [math.nan, 4.0, math.nan])
    assert list(marks.marker.size)[:2] == [7, 13]
    assert (list(arrows.x), list(arrows.y)) == ([250.0], [pytest.approx(300.0)])
    goal, band = figure.layout.shapes
    assert (goal.y0, goal.label.text) == (100.0, "p99 &lt;= 100ms")
    assert (band.x0, band.x1) == (190.0, 210.0)


def test_the_axis_shows_the_rates_that_were_tried_and_arrows_are_explained_if_there_are_any():
    figure = latency_against_rate(frame())
    assert "Arrows are beyond 3 times the goal." in figure.layout.title.subtitle.text
    assert next(figure.select_xaxes()).range == (pytest.approx(88.0), pytest.approx(262.0))  # 8 % of 150 to each side
    near = frame()
    near.attrs["tried"] = near.attrs["tried"][1:]
    assert "Arrows" not in latency_against_rate(near).layout.title.subtitle.text


def test_an_interval_without_an_end_has_no_band():
    figure = latency_against_rate(frame(high_per_s=math.inf), "p99 <= 100ms")
    assert len(figure.layout.shapes) == 1
    assert next(figure.select_xaxes()).range[1] == pytest.approx(262.0)


def test_what_cannot_be_drawn():
    with pytest.raises(InputError, match="slo: is required"):
        latency_against_rate(frame(binding="stability"))
    with pytest.raises(InputError, match="frame: needs the rates that `capacity` tried, with p50_s"):
        latency_against_rate(frame(), "p50 <= 1s")
