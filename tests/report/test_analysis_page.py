"""Pages of analyses begin with the answer, have figures and tables with units, and all foreign text escaped."""

import re

import numpy as np
import pandas as pd
import pytest
from cases import REQUEST, scenario
from pages import figures_of

from shadowsim import InputError, Scenario, default_scenario, scaling_policy, simulate
from shadowsim.report import analysis, analysis_page
from shadowsim.report.comparison_text import compare_saved, compare_two_saved
from shadowsim.statistics.comparison import COLUMNS

EVIL = "</script><script>harm</script><b>"
SIZES = pd.DataFrame(
    {
        "role": "shadow",
        "instance_type": ["ml.c5.xlarge", "ml.p5.48xlarge"],
        "instance_count": pd.array([3, None], "Int64"),
        "p99_s": [0.22, np.nan],
        "p99_s_error": [0.002, np.nan],
        "utilisation": [0.5, np.nan],
        "price_usd_per_h": [0.2, np.nan],
        "cost_usd": [100.0, np.nan],
        "binding": ["p99 <= 250ms", ""],
        "one_fewer": ["p99 0.3 s", ""],
        "certain": [True, False],
        "quota": "",
        "note": ["", EVIL],
    }
)
SIZES.attrs |= {"goals": "p99 <= 250ms", "duration_s": 604_800.0}
PLAN = pd.DataFrame(
    {
        "sampling_percentage": [10, 50],
        "duration_s": [86_400.0, 3600.0],
        "power": [0.3, 0.85],
        "power_error": 0.02,
        "false_alarm": 0.05,
        "false_alarm_error": 0.01,
        "visible_pct": [8.0, 3.0],
        "shadow_instances": 1,
        "cost_usd": [40.0, 2.0],
        "reaches": [False, True],
        "how": "simulated",
        "simulated_h": 1.0,
        "note": EVIL,
    }
)
PLAN.attrs |= {"effect": "p99 +7%", "power": 0.8}
SWEEP = pd.DataFrame(
    {
        "shadow.model_name": [EVIL, EVIL, "b", "b"],
        "replication": 0,
        "role": ["source", "shadow"] * 2,
        "verdict": "STABLE",
        "mean_s": 0.05,
        "p50_s": 0.05,
        "p99_s": [0.1, 0.2, 0.1, 0.3],
        "p99_9_s": 0.4,
        "maximum_s": 0.5,
        "utilisation": 0.5,
        "error_rate": 0.0,
        "run_verdict": "STABLE",
    }
)
COMPARISON = pd.DataFrame(
    [{"metric": "p99", "unit": "s", "source": 0.1, "shadow": 0.2, "ratio": 2.0, "ratio_low": 1.5, "ratio_high": 3.0,
      "source_low": 0.09, "source_high": 0.11, "shadow_low": 0.19, "shadow_high": 0.21, "difference": 0.1, "low": 0.05,
      "high": 0.2, "n_eff": 40.0, "margin": 0.01, "outcome": "worse", "verdict": "worse", "method": EVIL}],
    columns=list(COLUMNS),
)  # fmt: skip
FLOOR = pd.DataFrame(
    [{"metric": "p99", "unit": "s", "value": 0.2, "typical": 0.002, "most": 0.006, "typical_pct": 1.0, "most_pct": 3.0,
      "worse": 0.0, "better": 0.05, "same": 0.95, "not_enough": 0.0, "n": 20, "too_short": 0.0, "n_source": 1e6,
      "n_shadow": 5e5, "instance_count": 2, "sampling_percentage": 50}]
)  # fmt: skip
FLOOR.attrs["horizon_s"] = 7200.0
# frame, figures, the answer, a cell or a note with its unit
FRAMES = {
    "size": (SIZES, ["instances", "cost"], "Enough for the shadow: 3 × ml.c5.xlarge, 100.00 USD for 7 days.",
             "<td>220 ms ± 3.92 ms</td>"),
    "plan": (PLAN, ["power", "cost"], "Cheapest that finds p99 +7% in 80 % of tests: 50 % of the requests for 1 h on 1 "
             "shadow instance, for 2.00 USD.", "<td>85 % ± 2</td>"),
    "sweep": (SWEEP, ["p99", "utilisation"], "2 cells: 2 STABLE.", "<td>300 ms</td>"),
    "compare": (COMPARISON, ["comparison"], "Worse: p99 +100 %.", "<td>+50.0 to +200</td>"),
    "noise_floor": (FLOOR, ["noise"], "A difference of p99 below 3.00 % (6.00 ms) is noise in this set-up.",
                    "<td>2.00 ms (1.00 %)</td>"),
}  # fmt: skip


@pytest.mark.parametrize("which", FRAMES)
def test_a_page_begins_with_the_answer_and_has_figures_and_a_table_with_units(which):
    frame, keys, said, cell = FRAMES[which]
    page = analysis_page.html(frame)
    (headline,) = re.findall('<p class="headline">(.*?)</p>', page)
    assert headline.replace("\xa0", " ") == said
    assert page.index(headline) < page.index("<figure>" if keys else "<table>")
    figures = figures_of(page)
    assert list(figures) == keys
    for key in keys:
        assert figures[key]["data"]
        (alt,) = re.findall(f'<div id="{key}" class="chart" role="group" aria-label="(.*?)"', page)
        assert re.search(r"\d", alt), "a description has figures"
    assert cell in page
    assert page.count("<script") == 4
    assert EVIL not in page


def test_a_sweep_shows_no_quantile_of_too_short_a_run():
    frame = SWEEP.assign(uncertain=["", "", "", "p99_s, p99_9_s"])
    page = analysis_page.html(frame)
    assert "300 ms" in analysis_page.html(SWEEP)
    assert "300 ms" not in page
    assert "p99_9_s" not in page  # dashes tell it
    drawn_ms = analysis_page.analysis_of(frame).charts[0].figure.data[1].y
    np.testing.assert_array_equal(drawn_ms, [200.0, np.nan])
    read_back = frame.assign(uncertain=[np.nan, np.nan, np.nan, "p99_s, p99_9_s"])  # as read_csv has it
    assert analysis_page.html(read_back) == page


def test_the_goal_is_drawn():
    assert figures_of(analysis_page.html(SIZES, "p99 <= 300ms"))["cost"]["layout"]["shapes"][0]["y0"] == 300.0
    assert figures_of(analysis_page.html(PLAN, 0.9))["cost"]["layout"]["shapes"][0]["y0"] == 90.0


def test_the_scenario_gives_the_name_and_stands_at_the_end():
    described = Scenario.of(REQUEST | {"Description": EVIL}, rate_per_s=1.0)
    page = analysis_page.html(FLOOR, scenario=described)
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
    assert "<script" not in page
    assert "select rows of the frame" in page
    assert "No type meets the goals of the shadow." in analysis_page.html(SIZES[1:])


def test_what_the_answer_says_is_not_repeated_below_a_chart():
    page = analysis_page.html(SIZES)
    assert page.count("Enough for the shadow: 3") == 2  # the answer, and the chart's name for those who cannot see it
    assert page.count('class="gist"') == 1


def test_scaling_policies_are_said_and_their_documents_are_open():
    scaling = {"metric": "InvocationsPerInstance", "target": 1500, "min": 1, "max": 9}
    scaled = default_scenario().replace({"shadow.scaling": scaling})
    page = analysis_page.html(scaling_policy(scaled), scenario=scaled)
    (headline,) = re.findall('<p class="headline">(.*?)</p>', page)
    assert headline == "Shadow-01 has 1 to 9 instances, so that InvocationsPerInstance stays at 1,500 per minute."
    assert "<details open>\n<summary>The documents, as AWS takes them" in page
    assert "<details>\n<summary>The scenario, as JSON" in page
    assert "Data table" not in page


def test_overloaded_cells_of_a_sweep_are_named():
    over = (SWEEP["role"] == "shadow") & (SWEEP["shadow.model_name"] == "b")
    page = analysis_page.html(SWEEP.assign(verdict=np.where(over, "OVERLOADED", "STABLE")))
    assert "OVERLOADED: the shadow at shadow: model name b." in page


def test_words_stand_left_in_a_table_and_figures_right():
    rows = [["", "p99", "change", "verdict"], ["a", "20 ms", "-", "worse, at 30 % load"], ["b", "> 3 s", "+2 %", "-"]]
    page = analysis.table_of(rows)
    assert '<td>20 ms</td><td>–</td><td class="text">worse, at 30 % load</td>' in page
    assert '<td>&gt; 3 s</td><td>+2 %</td><td class="text">–</td>' in page
    assert '<th scope="col">change</th><th scope="col" class="text">verdict</th>' in page


def test_a_long_table_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(analysis, "MAX_ROWS", 2)
    page = analysis_page.html(SWEEP)
    assert "The first 2 rows; 1 more are left out." in page  # the source's row is one for all cells


def test_a_page_is_written_unchanged(tmp_path):
    file = analysis_page.write(FLOOR, tmp_path / "page.html")
    assert file.read_bytes() == analysis_page.html(FLOOR).encode()


def test_anything_else_is_refused():
    with pytest.raises(InputError, match="size, capacity, plan, sweep, compare or noise_floor"):
        analysis_page.html(pd.DataFrame({"x": [1]}))
    with pytest.raises(InputError, match="what an analysis"):
        analysis_page.html({})


def test_saved_runs_are_compared_with_the_note_on_loads(tmp_path):
    service = {"time": {"law": "exponential", "mean_s": 0.05}, "workers": 4}
    run = scenario({"process": "poisson", "rate_per_s": 20.0}, service, horizon_s=610.0)
    before, after = (
        simulate(s).save(tmp_path / name)
        for name, s in (("before", run), ("after", run.replace({"shadow.time.mean_s": 0.2})))
    )
    page = analysis_page.html(compare_saved(after))
    assert "<h1>case</h1>" in page
    assert "The sides do not carry the same load" in page
    page = analysis_page.html(compare_two_saved(before, after, None))
    assert "<h1>after against before</h1>" in page
    assert "Source: the same in both runs, to the bit." in page
    assert '<h2 id="verdict">Worse</h2>' in page
    assert list(figures_of(page)) == ["comparison"]  # of the variant that differs
