"""Texts of analyses state the figures and the conclusions of frames written by hand or made by short runs."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from shadowsim import default_scenario, sweep
from shadowsim.planning.costs import cost
from shadowsim.planning.sheet import NOT_MEASURED
from shadowsim.planning.slo import parse_slo
from shadowsim.report.analysis_text import data_text, figure, goals_text, noise_text, plan_text, sizing_text, sweep_text
from shadowsim.text import time_text

BASE = default_scenario().replace({"horizon_s": 120})
# 12,000 requests: 120 answers lie beyond p99 and 12 beyond p99.9, of which 20 are needed
SHORT = BASE.replace({"rate_per_s": 100, "sampling_percentage": 100})


def fitting(text):
    """Return a text after a check that it is ASCII and fits 100 columns."""
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    return text


def lines_by_first_word(text):
    return {line.split()[0]: line for line in text.splitlines() if line.strip()}


def goal_lines(slo, values, errors):
    slo = parse_slo(slo)
    frame = pd.DataFrame({"value": values, "standard_error": errors})
    frame["margin"] = [g.margin(v) for g, v in zip(slo.goals, values, strict=True)]
    frame["met"] = [g.met(v) for g, v in zip(slo.goals, values, strict=True)]
    return goals_text(frame, slo).splitlines()


def test_goals():
    lines = goal_lines("p99 <= 200ms and error_rate < 1%", [0.15, 0.02], [0.001, 0.0001])
    assert lines[0] == "goal  p99 <= 200ms      150 ms +- 1.96 ms  met"
    assert lines[1] == "goal  error_rate < 1%  2.00 % +- 0.0196 %  missed"


def test_a_goal_within_its_error_is_not_certain_and_one_without_a_value_is_not_met():
    assert goal_lines("p99 <= 200ms", [0.199], [0.001])[0].endswith("met, too close to be certain")
    assert goal_lines("p99 <= 200ms", [0.201], [0.001])[0].endswith("missed, too close to be certain")
    assert goal_lines("p99 <= 200ms", [math.nan], [math.nan])[0].endswith("-  unknown, so not met")


def test_a_figure_has_a_half_width_where_one_is_known():
    goal = parse_slo("p99 < 1s").goals[0]
    assert figure(goal, 0.1, 0.01) == "100 ms +- 10.0 ms"
    assert figure(goal, 0.1, math.nan) == "100 ms"
    assert figure(goal, math.nan) == "-"


def size_frame(*rows):
    default = {
        "role": "shadow", "instance_type": "ml.m5.xlarge", "instance_count": 2, "p99_s": 0.08, "p99_s_error": 0.001,
        "utilisation": 0.5, "price_usd_per_h": 0.23, "cost_usd": 77.28, "binding": "p99 <= 100ms",
        "one_fewer": "p99 0.2 s, against p99 <= 100ms", "certain": True, "quota": "", "note": "",
    }  # fmt: skip
    return pd.DataFrame([default | row for row in rows]).astype({"instance_count": "Int64"})


def test_sizes():
    unmeasured = {"instance_type": "ml.c5.xlarge", "instance_count": pd.NA, "certain": False, "p99_s": math.nan}
    unmeasured |= {"binding": "", "one_fewer": "", "note": "not measured: no service", "cost_usd": math.nan}
    unpriced = {"instance_type": "ml.new.large", "price_usd_per_h": math.nan, "cost_usd": math.nan, "certain": False}
    text = fitting(sizing_text(size_frame({}, unpriced, unmeasured), parse_slo("p99 <= 100ms"), 7 * 86_400.0))
    rows = lines_by_first_word(text)
    assert "goals: p99 <= 100ms" in text
    table = [line.split() for line in text.splitlines()[2:6]]
    assert table[1] == ["ml.m5.xlarge", "2", "80.0", "ms", "+-", "1.96", "ms", "50.0", "%", "0.230", "77.28", "yes"]
    assert table[2][-3:] == ["unknown", "unknown", "no"]
    assert table[3] == ["ml.c5.xlarge", "-", "-", "50.0", "%", "0.230", "-", "-"]
    assert "ml.c5.xlarge: not measured: no service" in text
    assert "one fewer: p99 0.2 s, against p99 <= 100ms" in text
    assert rows["Cheapest"] == "Cheapest for the shadow: 2 x ml.m5.xlarge, 77.28 USD for 7 days."


def test_a_loss_that_is_one_instance_and_a_third_is_said_once():
    goals, one = parse_slo("p99 <= 100ms"), "1 of 2: overloaded; 3 instances hold the goals with one down"
    same = {"one_lost": one, "zone_lost": one.replace("one down", "a third down")}
    text = sizing_text(size_frame(same), goals, 3600.0)
    assert "one or a third down: 1 of 2" in text
    assert text.count("overloaded") == 1
    text = sizing_text(size_frame(same | {"zone_lost": "2 of 6: overloaded"}), goals, 3600.0)
    assert "one down: 1 of 2" in text
    assert "a third down: 2 of 6" in text


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"certain": False}, "Enough for the shadow: 2 x ml.m5.xlarge, 77.28 USD for 7 days, which is not certain."),
        ({"cost_usd": math.nan}, "The shadow needs 2 x ml.m5.xlarge, at an unknown price."),
        ({"instance_count": pd.NA}, "No type meets the goals of the shadow."),
        (
            {"instance_count": pd.NA, "note": NOT_MEASURED, "role": "source"},
            "No type could be judged for the source: its service has no times for them. Give measured times, as in "
            """--set 'source.by_instance_type={"ml.m5.xlarge": {"time": {"mean_s": 0.03}}}'""",
        ),
    ],
)
def test_conclusions_from_sizes(row, says):
    slo = parse_slo("source.p99 <= 100ms and p99 <= 100ms")
    last = sizing_text(size_frame(row), slo, 7 * 86_400.0).rpartition("\n\n")[2]
    assert " ".join(last.split()) == says


def test_a_goal_of_utilisation_needs_no_second_column():
    frame = size_frame({"utilisation_error": 0.01})
    text = sizing_text(frame, parse_slo("p99 <= 100ms and utilisation < 60%"), 3600.0)
    assert text.splitlines()[2].count("utilisation") == 1


def test_a_noise_floor():
    row = {"metric": "p99", "unit": "s", "value": 0.07, "typical": 0.0001, "most": 0.0003, "typical_pct": 0.143,
           "most_pct": 0.429, "worse": 0.1, "better": 0.0, "same": 0.8, "not_enough": 0.1, "n_source": 34.6e6,
           "n_shadow": 17.3e6, "n": 10, "sampling_percentage": 50, "instance_count": 2, "too_short": 0.0}  # fmt: skip
    no_errors = row | {
        "unit": "share",
        "value": 0.0,
        "typical": 0.0,
        "most": 0.0,
        "typical_pct": math.nan,
        "worse": 0.0,
    }
    frame = pd.DataFrame(
        [row, *(no_errors | {"metric": m} for m in ("error_rate_4xx", "error_rate_5xx", "error_rate"))]
    )
    text = fitting(noise_text(frame, 86_400.0))
    assert " ".join(text.split()).startswith(
        "The source against itself: 10 runs of 1 day; as shadow, 2 instances for 50 % of the requests: "
        "34.6M requests and 17.3M copies per run."
    )
    assert "A difference of p99 below 0.43 % (300 us) is noise in this set-up." in text
    assert "False alarms (share of runs called worse or better): p99 in 10 %." in text
    assert "errors  0.000 %" in text
    frame["too_short"] = 0.3
    assert noise_text(frame, 86_400.0).startswith("TOO SHORT: 30 % of the runs; their quantiles say little.\n")
    assert "4XX" not in text
    assert noise_text(frame.assign(worse=0.0), 86_400.0).endswith("No run gave a false alarm.")


PATHS = ("sampling_percentage", "shadow.instance_count", "horizon_s")


def test_a_sweep():
    frame = sweep(BASE, {"sampling_percentage": [10, 50], "shadow.instance_count": [1, 2], "horizon_s": [120]})
    text = fitting(sweep_text(frame, PATHS))
    lines = text.splitlines()
    assert lines[0] == "in all cells: horizon_s = 120"
    assert lines[2].split() == ["shadow."]  # a long path takes two lines
    table = [line.split() for line in lines[4:9]]
    assert [row[0] for row in table] == ["source"] + ["shadow"] * 4
    assert [row[1:3] for row in table[1:]] == [["10", "1"], ["10", "2"], ["50", "1"], ["50", "2"]]
    shadow = frame[frame["role"] == "shadow"]
    assert [float(row[3]) for row in table[1:]] == pytest.approx(1e3 * shadow["p50_s"], rel=5e-3)
    assert "The source is the same in all cells." in " ".join(lines[-2:])


def test_a_sweep_that_changes_the_source_shows_it_in_each_cell():
    frame = sweep(BASE, {"rate_per_s": [50, 100]}, replications=2)
    text = sweep_text(frame, ["rate_per_s"])
    assert text.count("\nsource") == text.count("\nshadow") == 2
    assert "Figures are means over 2 replications." in text
    p99 = frame[(frame["role"] == "source") & (frame["rate_per_s"] == 50)]["p99_s"].mean()
    row = next(line.split() for line in text.splitlines() if line.startswith("source"))
    assert float(row[4]) == pytest.approx(1e3 * p99, rel=5e-3)


def test_a_sweep_marks_overloaded_cells():
    frame = sweep(BASE, {"shadow.time.mean_s": [0.02, 0.2]})
    text = fitting(sweep_text(frame, ["shadow.time.mean_s"]))
    assert "2 cells: 1 " in text
    row = next(line for line in text.splitlines() if line.endswith("OVERLOADED"))
    assert row.count(" s*") == 3
    assert "\n* the pool is OVERLOADED" in text


def test_a_sweep_shows_no_quantile_of_too_short_a_run():
    grid = {"shadow.time.mean_s": [0.02, 0.03]}
    frame = sweep(SHORT, grid)
    assert set(frame["uncertain"]) == {"p99_9_s"}
    text = fitting(sweep_text(frame, grid))
    rows = [line.split() for line in text.splitlines() if line.startswith("shadow ")]
    p99_ms = 1e3 * frame[frame["role"] == "shadow"]["p99_s"]
    assert [float(row[4]) for row in rows] == pytest.approx(p99_ms, rel=5e-3)  # three digits
    assert [row[6] for row in rows] == ["-", "-"]
    assert "Quantiles that a run is too short for are shown as dashes." in " ".join(text.split())
    assert "dashes" not in sweep_text(frame.assign(uncertain=""), grid)


def test_replications_show_the_interval_of_a_quantile_that_each_is_too_short_for():
    grid = {"shadow.time.mean_s": [0.02]}
    frame = sweep(SHORT, grid, replications=3)
    values = frame[frame["role"] == "shadow"]["p99_9_s"]
    half = 4.303 * values.std() / 3**0.5  # Student's t of 2 degrees of freedom
    assert f"{time_text(values.mean())} +- {time_text(half)}" in fitting(sweep_text(frame, grid))


def plan_frame(*rows):
    default = {
        "sampling_percentage": 50, "duration_s": 86_400.0, "duration_h": 24.0, "power": 0.9, "power_error": 0.03,
        "false_alarm": 0.05, "false_alarm_error": 0.02, "visible_pct": 4.2, "seen_none_pct": 0.0,
        "seen_effect_pct": 5.0, "n_copies": 1e6, "shadow_instances": 2, "cost_usd": 33.12, "reaches": True,
        "scale": 1.01, "how": "simulated", "simulated_h": 24.0, "note": "",
    }  # fmt: skip
    return pd.DataFrame([default | row for row in rows])


def test_a_plan():
    weak = {"sampling_percentage": 10, "power": 0.3, "reaches": False, "visible_pct": np.nan, "shadow_instances": 1,
            "cost_usd": 27.6, "how": "extrapolated", "simulated_h": 0.5, "note": "sees 10 % of it; a day"}  # fmt: skip
    text = fitting(plan_text(plan_frame(weak, {"note": "sees 50 % of it"}), "p99 +5%", 0.8))
    table = [line.split("  ") for line in text.splitlines()[1:3]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert cells[0] == ["10 %", "1 day", "30 % +- 3", "5 % +- 2", "-", "1", "27.60", "-", "a b"]
    assert cells[1] == ["50 %", "1 day", "90 % +- 3", "5 % +- 2", "4.2 %", "2", "33.12", "yes", "a"]
    assert "1 of 2 rows are extrapolated from rehearsals of 30 min." in text
    assert "\na: sees 10, 50 % of it.\nb: a day.\n" in text
    assert " ".join(text.split()).endswith(
        "Cheapest that finds it in 80 % of tests: 50 % of the requests for 1 day on 2 shadow instances, for 33.12 USD."
    )


def test_a_plan_without_an_answer():
    better = plan_text(plan_frame({}), "p99 -10%", 0.8)
    assert "call the shadow better when it is (p99 -10%)" in better
    assert "call the shadow worse when it is (p99 +5%)" in plan_text(plan_frame({}), "p99 +5%", 0.8)
    text = plan_text(plan_frame({"reaches": False}), "error_rate +1%", 0.8)
    assert text.endswith("No share and duration finds it in 80 % of tests.")
    assert " 4.2 pt " in text  # a share differs by points


def test_costs_of_data_are_shown_where_they_are_known():
    assert data_text(cost(BASE)) == ""
    size = {"law": "deterministic", "mean_bytes": 1000.0}
    text = data_text(cost(BASE.replace({"traffic.request_bytes": size})))
    assert text.startswith("\ndata in  ")
    assert "data out" not in text
