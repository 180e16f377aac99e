"""Figures of comparisons and noise floors show the figures of their frames."""

import numpy as np
import pandas as pd
import pytest

from shadowsim import InputError
from shadowsim.plots import comparison
from shadowsim.plots.style import TEXTS
from shadowsim.statistics.comparison import COLUMNS
from shadowsim.verdict import PoolVerdict, Verdict

SAME_NAME = comparison.OUTCOME_STYLES["same"][2]


def compared(*rows):
    """Return a frame of `compare` from some columns of its rows."""
    blank = {"unit": "s", "source": 0.1, "shadow": 0.1, "margin": 0.01, "outcome": "same", "method": "sections"}
    return pd.DataFrame([blank | row for row in rows], columns=list(COLUMNS))


FRAME = compared(
    {"metric": "mean", "ratio": 1.02, "ratio_low": 1.01, "ratio_high": 1.04},
    {"metric": "p99", "ratio": 1.3, "ratio_low": 1.2, "ratio_high": 1.5, "outcome": "worse"},
    {"metric": "p99.9", "ratio": 1.1, "outcome": "not_enough"},
    {"metric": "paired_mean", "difference": -0.02, "low": -0.03, "high": -0.015, "outcome": "better"},
    {"metric": "paired_p5", "difference": -0.05, "low": -0.06, "high": -0.04, "outcome": ""},
    {"metric": "error_rate", "unit": "share", "difference": 0.002, "low": 0.0005, "high": 0.004, "margin": 0.001,
     "outcome": "worse"},
)  # fmt: skip


def marks(figure):
    """Return {metric: (value, low, high, legend)} of all panels of a figure of differences."""
    drawn = {}
    for trace in figure.data:
        for i, name in enumerate(trace.y):
            x, more, less = trace.x[i], trace.error_x.array[i], trace.error_x.arrayminus[i]
            drawn[name] = (x, x - less, x + more, trace.name)
    return drawn


def test_unequal_loads_are_said_above():
    frame = FRAME.copy()
    frame.attrs["load"] = {"source": 0.83, "shadow": 0.42, "same_requests": False, "note": ""}
    title = comparison.differences(frame).layout.title
    assert "The shadow is at 42 % load against 83 %." in f"{title.text} {title.subtitle.text}"
    assert "load" not in str(comparison.differences(FRAME).layout.title)


def test_a_mark_is_the_difference_with_its_interval_in_the_margins_unit():
    drawn = marks(comparison.differences(FRAME))
    assert list(drawn) == ["p99", "p99.9", "mean", "paired_mean", "error_rate"]  # by verdict; paired_p5 is none
    assert drawn["mean"] == (pytest.approx(2.0), pytest.approx(1.0), pytest.approx(4.0), SAME_NAME)
    assert drawn["p99"] == (pytest.approx(30.0), pytest.approx(20.0), pytest.approx(50.0), "worse")
    # Paired differences have no ratio: -20 ms of a source's 100 ms.
    assert drawn["paired_mean"] == (pytest.approx(-20.0), pytest.approx(-30.0), pytest.approx(-15.0), "better")
    assert drawn["error_rate"] == (pytest.approx(0.2), pytest.approx(0.05), pytest.approx(0.4), "worse")
    value, low, high, name = drawn["p99.9"]
    assert value == pytest.approx(10.0)
    assert np.isnan([low, high]).all()
    assert name == "not enough data"


def test_the_margin_is_shaded_and_named():
    figure = comparison.differences(FRAME)
    shades = [(s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"]
    assert shades == [(pytest.approx(-10.0), pytest.approx(10.0)), (pytest.approx(-0.1), pytest.approx(0.1))]
    assert "± 10 % and ± 0.1 points" in figure.layout.title.subtitle.text
    for axis, (low, high) in zip(figure.select_xaxes(), [(20.0, 50.0), (0.1, 0.4)], strict=True):
        assert axis.range[0] < -low
        assert axis.range[1] > high
    assert [axis.title.text for axis in figure.select_xaxes()] == [
        "difference in % of the source's",
        "difference in percentage points",
    ]


def test_differences_far_to_one_side_get_most_of_the_axis():
    far = compared({"metric": "p99", "ratio": 9.0, "ratio_low": 8.0, "ratio_high": 10.0, "outcome": "worse"})
    (axis,) = comparison.differences(far).select_xaxes()
    assert axis.range[1] > 900.0
    assert -0.1 * axis.range[1] < axis.range[0] < -10.0


def test_tenfold_differences_are_multiples_on_a_logarithmic_axis():
    near = {"metric": "p50", "ratio": 1.02, "ratio_low": 1.01, "ratio_high": 1.03, "outcome": "no difference"}
    far = {"metric": "p99", "ratio": 2000.0, "ratio_low": 1900.0, "ratio_high": 2100.0, "outcome": "worse"}
    figure = comparison.differences(compared(near, far))
    (axis,) = figure.select_xaxes()
    assert (axis.type, axis.title.text) == ("log", "times the source's (logarithmic)")
    assert axis.range[0] < 0.0 < np.log10(2100.0) < axis.range[1]
    (drawn,) = (trace for trace in figure.data if trace.name == "worse")
    assert (drawn.x[0], drawn.error_x.array[0]) == (pytest.approx(2000.0), pytest.approx(100.0))
    assert drawn.customdata[0][1] == "1,900 to 2,100"
    none, margin = figure.layout.shapes
    assert (none.x0, margin.x0, margin.x1) == (1.0, pytest.approx(0.9), pytest.approx(1.1))


def test_the_rows_of_a_variant_of_two_runs_are_named_by_their_sides():
    renamed = FRAME.rename(columns={"source": "baseline", "shadow": "result"})
    figure = comparison.differences(renamed, name="Shadow-01<b>")
    assert figure.layout.title.text == "Shadow-01&lt;b&gt;: result against baseline"
    assert next(figure.select_xaxes()).title.text == "difference in % of the baseline's"
    drawn, expected = marks(figure), marks(comparison.differences(FRAME))
    assert list(drawn) == list(expected)
    assert drawn["p99"] == expected["p99"]


def test_outcomes_have_marks_and_are_named_once():
    figure = comparison.differences(FRAME)
    assert len({trace.marker.symbol for trace in figure.data}) == 4
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == sorted({trace.name for trace in figure.data})


def test_both_sides_values_stand_beside_in_their_colours():
    texts = [a.text for a in comparison.differences(FRAME).layout.annotations]
    assert len(texts) == 5 + 1
    assert texts[0].count("100 ms") == 2
    assert TEXTS["source"] in texts[0]
    assert TEXTS["shadow"] in texts[0]


def test_an_overloaded_pool_is_named():
    pools = (
        PoolVerdict("source", "a", "STABLE", 0.5, (), None, ""),
        PoolVerdict("shadow", "b", "OVERLOADED", 2, (), 2, ""),
    )
    figure = comparison.differences(FRAME, Verdict("OVERLOADED", pools))
    assert figure.layout.title.subtitle.text.startswith("Shadow OVERLOADED")
    assert "OVERLOADED" not in comparison.differences(FRAME).layout.title.subtitle.text


def test_a_frame_without_outcomes_is_refused():
    with pytest.raises(InputError, match="compared: lacks the column outcome"):
        comparison.differences(FRAME.drop(columns="outcome"))


def test_one_kind_of_metric_is_one_panel_and_none_is_refused():
    assert len(list(comparison.differences(FRAME[FRAME["unit"] == "s"]).select_xaxes())) == 1
    with pytest.raises(InputError, match="no row"):
        comparison.differences(FRAME[:0])


def test_the_noise_floor_shows_sizes_and_shares_of_verdicts():
    row = {"metric": "p99", "unit": "s", "value": 0.2, "typical": 0.002, "most": 0.006, "typical_pct": 1.0}
    row |= {"most_pct": 3.0, "worse": 0.1, "better": 0.0, "same": 0.7, "not_enough": 0.2, "n": 40}
    rate = row | {"metric": "error_rate", "unit": "share", "typical_pct": np.nan, "most_pct": np.nan}
    figure = comparison.noise_floor(pd.DataFrame([row, rate]))
    first, second = (trace for trace in figure.data if trace.type == "scatter")
    assert (first.x[0], first.error_x.array[0]) == (1.0, 2.0)  # per cent
    assert (second.x[0], second.error_x.array[0]) == (pytest.approx(0.2), pytest.approx(0.4))  # points
    shares = {trace.name: trace.x[0] for trace in figure.data if trace.type == "bar"}
    assert shares == {"worse": 0.1, "better": 0.0, SAME_NAME: 0.7, "not enough data": 0.2}
    assert "40 runs" in figure.layout.title.subtitle.text
    assert {axis.title.text for axis in figure.select_xaxes()} == {
        "% of the source's", "percentage points", "share of runs",
    }  # fmt: skip
