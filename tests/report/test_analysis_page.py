"""Pages of analyses have the right figures, the frame's values in a table, and all foreign text escaped."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from cases import REQUEST

from shadowsim import InputError, Scenario
from shadowsim.report import analysis_page
from shadowsim.statistics.comparison import COLUMNS

EVIL = "</script><script>harm</script><b>"
SIZES = pd.DataFrame(
    {
        "role": "shadow",
        "instance_type": ["ml.c5.xlarge", "ml.p5.48xlarge"],
        "instance_count": pd.array([3, None], "Int64"),
        "p99_s": [0.22, np.nan],
        "p99_s_error": [0.002, np.nan],
        "cost_usd": [100.0, np.nan],
        "binding": ["p99 <= 250ms", ""],
        "one_fewer": ["p99 0.3 s", ""],
        "note": ["", EVIL],
    }
)
PLAN = pd.DataFrame(
    {
        "sampling_percentage": [10, 50],
        "duration_s": [86_400.0, 3600.0],
        "power": [0.3, 0.85],
        "shadow_instances": 1,
        "cost_usd": [40.0, 2.0],
        "reaches": [False, True],
        "note": EVIL,
    }
)
SWEEP = pd.DataFrame(
    {
        "shadow.model_name": [EVIL, EVIL, "b", "b"],
        "replication": 0,
        "role": ["source", "shadow"] * 2,
        "verdict": "STABLE",
        "p99_s": [0.1, 0.2, 0.1, 0.3],
        "utilisation": 0.5,
        "run_verdict": "STABLE",
    }
)
COMPARISON = pd.DataFrame(
    [{"metric": "p99", "unit": "s", "source": 0.1, "shadow": 0.2, "ratio": 2.0, "ratio_low": 1.5, "ratio_high": 3.0,
      "margin": 0.01, "outcome": "worse", "verdict": "worse", "method": EVIL}],
    columns=list(COLUMNS),
)  # fmt: skip
FLOOR = pd.DataFrame(
    [{"metric": "p99", "unit": "s", "value": 0.2, "typical": 0.002, "most": 0.006, "typical_pct": 1.0, "most_pct": 3.0,
      "worse": 0.0, "better": 0.0, "same": 1.0, "not_enough": 0.0, "n": 20}]
)  # fmt: skip
FRAMES = {
    "size": (SIZES, ["instances", "cost"], "250 ms"),
    "plan": (PLAN, ["power", "cost"], "85.0 %"),
    "sweep": (SWEEP, ["p99", "utilisation"], "300 ms"),
    "compare": (COMPARISON, ["comparison"], "worse"),
    "noise_floor": (FLOOR, ["noise"], "3.00 %"),
}


def figures_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


@pytest.mark.parametrize("which", FRAMES)
def test_a_frame_has_a_page_of_its_figures_and_its_table(which):
    frame, keys, _ = FRAMES[which]
    page = analysis_page.html(frame)
    figures = figures_of(page)
    assert list(figures) == keys
    for key in keys:
        assert figures[key]["data"]
        assert f'<div id="{key}"' in page
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count("<tr>") == len(frame)
    assert page.count("<script") == 3
    assert EVIL not in page


def test_a_sweep_shows_no_quantile_of_too_short_a_run():
    frame = SWEEP.assign(p95_s=[0.11, 0.12, 0.13, 0.14], uncertain=["", "", "", "p99_s, p99_9_s"])
    page = analysis_page.html(frame)
    assert "300 ms" in analysis_page.html(SWEEP)
    assert "300 ms" not in page
    assert "140 ms" in page
    assert "p99_9_s" not in page  # dashes tell it
    drawn_ms = analysis_page.kind_of(frame).figures(frame, None)["p99"].data[1].y
    np.testing.assert_array_equal(drawn_ms, [200.0, np.nan])
    read_back = frame.assign(uncertain=[np.nan, np.nan, np.nan, "p99_s, p99_9_s"])  # as read_csv has it
    assert analysis_page.html(read_back) == page


def test_the_goal_is_drawn():
    assert figures_of(analysis_page.html(SIZES, "p99 <= 300ms"))["cost"]["layout"]["shapes"][0]["y0"] == 300.0
    assert figures_of(analysis_page.html(PLAN, 0.9))["cost"]["layout"]["shapes"][0]["y0"] == 90.0


def test_the_scenario_gives_the_name_and_stands_at_the_end():
    scenario = Scenario.of(REQUEST | {"Description": EVIL}, rate_per_s=1.0)
    page = analysis_page.html(FLOOR, scenario=scenario)
    assert "<h1>case</h1>" in page
    assert "The scenario, as JSON" in page
    assert EVIL not in page
    assert "The scenario, as JSON" not in analysis_page.html(FLOOR)


def test_a_frame_that_cannot_be_drawn_still_has_its_table():
    varied = SWEEP.assign(replication=0)
    varied.insert(0, "a", [1, 1, 2, 2])
    varied.insert(0, "b", [1, 1, 2, 2])
    page = analysis_page.html(varied)
    assert figures_of(page) == {}
    assert "select rows of the frame" in page
    unanswered = analysis_page.html(SIZES[1:])
    assert figures_of(unanswered) == {}
    assert "<td>unknown</td>" in unanswered


def test_a_long_table_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(analysis_page, "MAX_ROWS", 3)
    page = analysis_page.html(SWEEP)
    assert "The first 3 rows; 1 more are left out." in page


def test_a_page_is_written_unchanged(tmp_path):
    file = analysis_page.write(FLOOR, tmp_path / "page.html")
    assert file.read_bytes() == analysis_page.html(FLOOR).encode()


def test_another_frame_is_refused():
    with pytest.raises(InputError, match="size, capacity, plan, sweep, compare, noise_floor or predict"):
        analysis_page.html(pd.DataFrame({"x": [1]}))
