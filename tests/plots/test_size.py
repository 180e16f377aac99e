"""Figures of designs show the values of the frames, and mark the cheapest design that meets the goals."""

import numpy as np
import pandas as pd
import pytest

from shadowsim import InputError
from shadowsim.plots import size
from shadowsim.plots.style import COLOURS

SLO = "p99 <= 250ms and error_rate < 0.1%"


def size_frame(**more):
    rows = pd.DataFrame(
        {
            "role": "shadow",
            "instance_type": ["ml.c5.xlarge", "ml.m5.xlarge", "ml.p5.48xlarge"],
            "instance_count": pd.array([3, 5, None], "Int64"),
            "p99_s": [0.22, 0.24, np.nan],
            "p99_s_error": [0.002, 0.003, np.nan],
            "error_rate": [0.0, 0.0005, np.nan],
            "error_rate_error": [0.0, 0.0001, np.nan],
            "cost_usd": [100.0, 190.0, np.nan],
            "binding": ["p99 <= 250ms", "p99 <= 250ms", ""],
            "one_fewer": "",
        }
    )
    rows.attrs |= more
    return rows


def tried_count(kind, n, p99_s, cost_usd):
    common = {"error_rate": 0.0, "error_rate_error": 0.0, "p99_s_error": 0.001, "role": "shadow"}
    return common | {"instance_type": kind, "instance_count": n, "p99_s": p99_s, "cost_usd": cost_usd}


TRIED = [
    tried_count("ml.c5.xlarge", 2, 50.0, 67.0),
    tried_count("ml.c5.xlarge", 3, 9.0, 100.0),
    tried_count("ml.c5.xlarge", 4, 0.2, 130.0),
]


def sweep_frame(n=4, replications=2, **more):
    rows = [
        {"shadow.instance_count": c, "replication": r, "role": role, "instance_type": "ml.m5.xlarge"}
        | {"instance_count": c, "p99_s": 0.1 + 0.2 / c + 0.01 * r + (role == "source"), "verdict": "STABLE"} | more
        for c in range(n, 0, -1) for r in range(replications) for role in ("source", "shadow")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def lines(figure):
    return {t.name: t for t in figure.data if t.mode == "lines+markers"}


def test_answers_stand_at_their_counts_with_errors_below_the_line_of_the_goal():
    figure = size.latency_against_instances(size_frame(), SLO)
    first, second = lines(figure).values()  # of the second panel
    assert (first.name, list(first.x), list(first.y)) == ("ml.c5.xlarge", [3], [0.0])
    assert list(second.y) == [pytest.approx(0.05)]  # per cent
    p99 = [t for t in figure.data if t.mode == "lines+markers" and t.yaxis == "y"]
    assert [list(t.y) for t in p99] == [[pytest.approx(220.0)], [pytest.approx(240.0)]]
    assert [list(t.error_y.array) for t in p99] == [[pytest.approx(4.0)], [pytest.approx(6.0)]]
    goals = [(s.y0, s.y1, s.label.text) for s in figure.layout.shapes]
    assert goals == [
        (250.0, 250.0, "p99 &lt;= 250ms"),
        (pytest.approx(0.1), pytest.approx(0.1), "error_rate &lt; 0.1%"),
    ]
    assert [a.title.text for a in figure.select_yaxes()] == ["shadow's p99 (ms)", "shadow's error rate (%)"]
    assert [a.title.text for a in figure.select_xaxes()] == [None, "instances"]


def test_of_equal_costs_the_first_in_the_frame_is_the_cheapest():
    frame = size_frame()
    frame["cost_usd"] = 100.0
    frame["instance_count"] = pd.array([5, 3, None], "Int64")
    names = [trace.name for trace in size.cost_frontier(frame, SLO).data]
    assert [name for name in names if "cheapest" in name] == ["<b>cheapest that does: 5 × ml.c5.xlarge, 100.00 USD</b>"]


def test_the_goals_are_those_that_decided_when_none_are_given():
    (goal,) = size.latency_against_instances(size_frame()).layout.shapes
    assert goal.y0 == 250.0
    with pytest.raises(InputError, match="slo"):
        size.latency_against_instances(sweep_frame())
    with pytest.raises(InputError, match="p50_s"):
        size.latency_against_instances(size_frame(), "p50 <= 1s")


def test_counts_tried_make_a_line_and_far_values_are_arrows():
    figure = size.latency_against_instances(size_frame(tried=TRIED), "p99 <= 250ms")
    line = lines(figure)["ml.c5.xlarge"]
    assert list(line.x) == [2, 3, 4]
    assert list(line.customdata) == [
        pytest.approx(x) for x in (50_000.0, 220.0, 200.0)
    ]  # the answer, not the earlier trial of its count
    np.testing.assert_allclose(line.y, [np.nan, 220.0, 200.0])  # no line leads to what is off the scale
    assert line.marker.size[1] > line.marker.size[2]
    arrows = [t for t in figure.data if t.marker.symbol == "triangle-up-open" and len(t.x)]
    assert [(list(t.x), list(t.y), list(t.customdata)) for t in arrows] == [([2], [750.0], [pytest.approx(50_000.0)])]
    assert figure.layout.yaxis.range[1] > 750.0


def test_a_sweep_of_counts_makes_a_line_of_means():
    figure = size.latency_against_instances(sweep_frame(), "p99 <= 250ms")
    (line,) = lines(figure).values()
    assert list(line.x) == [1, 2, 3, 4]
    assert line.y == pytest.approx(1e3 * (0.105 + 0.2 / np.arange(1, 5)))
    assert line.error_y.array == pytest.approx([10.0] * 4)  # of 0 and 10 ms the standard error is 5
    assert line.marker.color == COLOURS["shadow"]
    twice = pd.concat([sweep_frame(), sweep_frame()])
    with pytest.raises(InputError, match="shadow's instances"):
        size.latency_against_instances(twice, "p99 <= 250ms")


def test_the_frontier_joins_designs_that_no_cheaper_one_equals():
    figure = size.cost_frontier(size_frame(tried=TRIED), SLO)
    frontier, meets, misses, arrows, best = figure.data
    assert list(frontier.x) == [67.0, 100.0, 130.0]
    assert list(meets.x) == [100.0, 130.0, 190.0]
    assert len(misses.x) == 0
    assert list(arrows.x) == [67.0]
    assert (list(best.x), list(best.y)) == ([100.0], [pytest.approx(220.0)])
    assert "3 × ml.c5.xlarge, 100.00 USD" in best.name
    assert figure.layout.shapes[0].y0 == 250.0
    assert "Left out" not in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text == "cost of the test (USD)"


def test_the_goals_text_stands_away_from_where_the_frontier_crosses_it():
    dear = size_frame(tried=TRIED[:1])[:1]
    cheap = size_frame(tried=[tried_count("ml.c5.xlarge", 9, 0.1, 300.0)])[:1]
    labels = [size.cost_frontier(frame, SLO).layout.shapes[0].label for frame in (dear, cheap)]
    assert [label.textposition for label in labels] == ["start", "end"]


def test_a_design_without_a_price_is_left_out_and_counted():
    frame = size_frame()
    frame.loc[0, "cost_usd"] = np.nan
    figure = size.cost_frontier(frame, SLO)
    assert "Left out: 1" in figure.layout.title.subtitle.text
    assert "5 × ml.m5.xlarge" in figure.data[-1].name


def test_a_plans_frontier_is_of_power():
    plan = pd.DataFrame(
        {
            "sampling_percentage": [10, 50, 100, 100],
            "duration_s": [86400.0, 86400.0, 86400.0, 7200.0],
            "power": [0.3, 0.85, 0.8, 0.99],
            "cost_usd": [10.0, 20.0, 30.0, 40.0],
            "shadow_instances": 1,
            "reaches": [False, True, True, True],
        }
    )
    figure = size.cost_frontier(plan, 0.8)
    frontier, meets, misses, best = figure.data
    assert best.cliponaxis is False  # at a power of 1 its ring reaches over the edge
    assert list(frontier.x) == [10.0, 20.0, 40.0]
    assert list(meets.y) == [85.0, 80.0, 99.0]
    assert list(misses.y) == [30.0]
    assert "50 % for 1 day, 20.00 USD" in best.name
    assert figure.layout.shapes[0].y0 == 80.0
    assert figure.layout.yaxis.title.text == "power (%)"
    assert not size.cost_frontier(plan).layout.shapes
    assert len(size.cost_frontier(plan.assign(reaches=False)).data) == 3
