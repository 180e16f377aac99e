"""Gates: two variants or two runs, saved, and what closes the gate."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from shadowsim import default_scenario, replicate, simulate
from shadowsim.cli.console import plain
from shadowsim.errors import InputError
from shadowsim.report.comparison_text import change, compare_saved, compare_two_saved, interval, signed
from shadowsim.statistics.terms import NOT_ENOUGH_DATA

BASE = default_scenario().replace({"horizon_s": 600, "run.period_s": 10})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directories of runs by name: equal variants, a shadow that takes 50 % longer, one that is overloaded."""
    place = tmp_path_factory.mktemp("runs")
    changes = {"equal": {}, "slow": {"shadow.time.mean_s": 0.03}, "overloaded": {"shadow.time.mean_s": 0.2}}
    for name, edits in changes.items():
        simulate(BASE.replace(edits)).save(place / name)
    for r, result in enumerate(replicate(BASE.replace({"horizon_s": 60}), 11)):
        result.save(place / "many" / f"replication-{r}")
    return place


def test_equal_variants_open_the_gate(saved):
    found = compare_saved(saved / "equal")
    assert not found.worse
    assert found.overloaded == ()
    windows = pd.read_parquet(saved / "equal" / "windows.parquet")
    n = windows.groupby("role")["Invocations"].sum()
    assert found.head == f"source AllTraffic: {n['source']:,} requests; shadow Shadow-01: {n['shadow']:,} requests"


def test_a_slower_shadow_closes_it(saved):
    found = compare_saved(saved / "slow")
    assert found.worse
    assert {"mean", "p50", "p99"} <= set(found.table.loc[found.table["outcome"] == "worse", "metric"])
    assert not found.only(["error_rate"]).worse
    assert found.only(["p99"]).worse


def test_an_overloaded_shadow_closes_it_whatever_its_metrics_say(saved):
    found = compare_saved(saved / "overloaded")
    assert found.overloaded == ("Shadow-01 is OVERLOADED, and the source is not",)
    assert found.only(["error_rate_4xx"]).worse
    assert "\nShadow-01 is OVERLOADED, and the source is not.\n" in str(found)
    again = compare_two_saved(saved / "overloaded", saved / "overloaded", None)
    assert not again.worse  # it was before, too


def test_a_metric_that_there_is_not(saved):
    with pytest.raises(InputError, match=r"--metric: must be one of mean, p50.*got 'p98'; did you mean"):
        compare_saved(saved / "equal").only(["p98"])


def test_replications_are_taken_together(saved):
    found = compare_saved(saved / "many")
    assert found.head.endswith(", of 11 replications")
    assert set(found.table["method"].str.partition(",")[0]) == {"replications"}
    # all eleven, in whatever order a directory lists them
    n = sum(pd.read_parquet(f)["Invocations"].sum() for f in (saved / "many").glob("*/windows.parquet"))
    assert found.table["n_source"].max() + found.table["n_shadow"].max() == n


def test_an_export_of_windows_alone(saved, tmp_path):
    windows = pd.read_parquet(saved / "slow" / "windows.parquet")
    windows.to_parquet(tmp_path / "windows.parquet", index=False)
    found = compare_saved(tmp_path)
    assert found.worse
    assert "p99" in set(found.table["metric"])


def test_a_run_and_itself(saved):
    found = compare_two_saved(saved / "slow", saved / "slow", None)
    assert not found.worse
    assert str(found).count("the same in both runs, to the bit") == 2
    assert "p99" not in str(found).partition("No metric")[0]


def test_two_runs_by_role(saved):
    both = compare_two_saved(saved / "equal", saved / "slow", None)
    assert both.worse
    assert set(both.table["variant"]) == {"AllTraffic", "Shadow-01"}
    assert "AllTraffic: the same in both runs, to the bit." in str(both)
    assert not compare_two_saved(saved / "equal", saved / "slow", "source").worse
    better = compare_two_saved(saved / "slow", saved / "equal", "shadow")  # the later run is the one that is judged
    assert not better.worse
    assert "\nNo metric is worse.\nBetter: Shadow-01 mean -" in str(better)
    with pytest.raises(InputError, match="--role: must be source or shadow"):
        compare_two_saved(saved / "equal", saved / "slow", "both")


@pytest.mark.parametrize("name", ["equal", "slow", "overloaded", "many"])
def test_what_it_says_fits_and_is_plain(saved, name):
    text = str(compare_saved(saved / name, slo_s=0.06))
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    assert "  \n" not in text
    assert "SLO missed" in text


def test_a_row_says_the_difference_in_the_unit_of_its_metric(saved):
    found = compare_saved(saved / "slow", slo_s=0.06)
    rows = {line[:10].strip(): line for line in str(found).splitlines()}
    metrics = found.table.set_index("metric")
    p99, miss = metrics.loc["p99"], metrics.loc["slo_miss"]
    assert f"+{100 * (p99['ratio'] - 1):.1f} %" in rows["p99"]
    assert f"+{100 * miss['difference']:.2f} pt" in rows["SLO missed"]
    assert "4XX errors" not in rows  # there are none of any kind, which the row of all says
    assert "errors" in rows


def test_too_little_is_unsure_and_not_worse(tmp_path):
    simulate(BASE.replace({"horizon_s": 30})).save(tmp_path)
    found = compare_saved(tmp_path)
    assert found.unsure
    assert not found.worse
    assert NOT_ENOUGH_DATA in str(found)


def test_the_note_names_the_margins_that_were_asked_for(saved):
    text = " ".join(str(compare_saved(saved / "equal", margin_pct=80.0, margin_points=0.5)).split())
    assert "no difference: the whole interval lies within the margin, 80 % or 0.5 points." in text


def test_for_json(saved):
    found = plain(compare_saved(saved / "equal").to_dict())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["worse"] is False
    assert [m["metric"] for m in found["metrics"]][:2] == ["mean", "p50"]
    assert found["metrics"][0]["outcome"]
    assert found["metrics"][0]["verdict"]


NAN = math.nan
LATENCY = {"unit": "s", "difference": 0.002, "low": 0.001, "high": 0.003}
RATIO = {"ratio": 1.1, "ratio_low": 1.05, "ratio_high": 1.15}
NO_RATIO = dict.fromkeys(RATIO, NAN)


@pytest.mark.parametrize(
    ("row", "said", "between"),
    [
        (LATENCY | RATIO, "+10.0 %", "+5.00 to +15.0"),
        (LATENCY | NO_RATIO, "+2.00 ms", "+1.00 to +3.00"),
        (LATENCY | NO_RATIO | {"difference": -2.0, "low": -3.0, "high": -1.0}, "-2.00 s", "-3.00 to -1.00"),
        ({"unit": "share", "difference": 0.01, "low": 0.0, "high": 0.02} | NO_RATIO, "+1.00 pt", "0 to +2.00"),
        (LATENCY | RATIO | {"ratio_low": NAN}, "+10.0 %", "-"),
        (LATENCY | {"ratio": math.inf, "ratio_low": 1.0, "ratio_high": math.inf}, "-", "0 to +inf"),
    ],
)
def test_a_change_and_its_interval(row, said, between):
    assert (change(row), interval(row)) == (said, between)


@pytest.mark.parametrize(("x", "text"), [(12.06, "+12.1"), (-0.314, "-0.31"), (0.0, "0"), (-math.inf, "-inf")])
def test_numbers_with_signs(x, text):
    assert signed(x) == text
