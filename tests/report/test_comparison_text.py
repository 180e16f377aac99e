"""Comparisons of saved runs: whether a run passes, and the text."""

from __future__ import annotations

import json
import math
import shutil

import pandas as pd
import pytest
from aa_pairs import alike
from cases import scenario, service

from shadowsim import default_scenario, replicate, simulate
from shadowsim.cli.console import plain
from shadowsim.errors import InputError
from shadowsim.report.comparison_text import (
    change,
    compare_saved,
    compare_two_saved,
    interval,
    outcome_text,
    signed,
    values,
)
from shadowsim.statistics.terms import NOT_ENOUGH_DATA, SAME

BASE = default_scenario().replace({"horizon_s": 600, "run.period_s": 10})
BUSY = {"source.time.mean_s": 0.055, "sampling_percentage": 20}  # a load of 0.78, and half of it on equal shadows


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directories of runs by name: equal variants, a shadow that takes 50 % longer, one that is overloaded."""
    place = tmp_path_factory.mktemp("runs")
    changes = {
        "equal": {},
        "slow": {"shadow.time.mean_s": 0.03},
        "overloaded": {"shadow.time.mean_s": 0.2},
        "idle": BUSY | {"shadow.time.mean_s": 0.055},
    }
    for name, edits in changes.items():
        simulate(BASE.replace(edits)).save(place / name)
    for r, result in enumerate(replicate(BASE.replace({"horizon_s": 60}), 11)):
        result.save(place / "many" / f"replication-{r}")
    return place


def test_equal_variants_pass(saved):
    compared = compare_saved(saved / "equal")
    assert not compared.worse
    assert compared.overloaded == ()
    windows = pd.read_parquet(saved / "equal" / "windows.parquet")
    n = windows.groupby("role")["Invocations"].sum()
    assert compared.head == f"source AllTraffic: {n['source']:,} requests; shadow Shadow-01: {n['shadow']:,} requests"


def test_a_slower_shadow_does_not_pass(saved):
    compared = compare_saved(saved / "slow")
    assert compared.worse
    assert {"mean", "p50", "p99"} <= set(compared.table.loc[compared.table["outcome"] == "worse", "metric"])
    assert not compared.only(["error_rate"]).worse
    assert compared.only(["p99"]).worse


def test_an_overloaded_shadow_does_not_pass_whatever_its_metrics(saved):
    compared = compare_saved(saved / "overloaded")
    assert compared.overloaded == ("Shadow-01 is OVERLOADED, and the source is not",)
    assert compared.only(["error_rate_4xx"]).worse
    assert "\nShadow-01 is OVERLOADED, and the source is not.\n" in str(compared)
    again = compare_two_saved(saved / "overloaded", saved / "overloaded", None)
    assert not again.worse  # it was before, too


def test_an_unknown_metric_is_refused(saved):
    with pytest.raises(InputError, match=r"--metric: must be one of mean, p50.*got 'p98'; did you mean"):
        compare_saved(saved / "equal").only(["p98"])


def test_replications_are_taken_together(saved):
    compared = compare_saved(saved / "many")
    assert compared.head.endswith(", of 11 replications")
    assert set(compared.table["method"].str.partition(",")[0]) == {"replications"}
    # all eleven, in whatever order a directory lists them
    n = sum(pd.read_parquet(f)["Invocations"].sum() for f in (saved / "many").glob("*/windows.parquet"))
    assert compared.table["n_source"].max() + compared.table["n_shadow"].max() == n


def test_an_export_of_windows_alone(saved, tmp_path):
    windows = pd.read_parquet(saved / "slow" / "windows.parquet")
    windows.to_parquet(tmp_path / "windows.parquet", index=False)
    compared = compare_saved(tmp_path)
    assert compared.worse
    assert "p99" in set(compared.table["metric"])


def plain_words(text):
    return " ".join(text.split())


def test_unequal_loads_are_said_first(saved):
    compared = compare_saved(saved / "idle")
    text = plain_words(str(compared))
    source, shadow = (f"{100 * x:.0f} %" for x in (compared.loads.source, compared.loads.shadow))
    assert text.startswith(
        f"The sides do not carry the same load: the source's workers are {source} busy, the shadow's {shadow}. "
        "At the source's load (simulated: all requests to 4 instances, "
    )
    assert "the difference that remains is the model's, the rest is due to load." in text
    assert f"Better, at {shadow} load against {source}: mean -" in text
    assert f"No metric is worse, at {shadow} load against {source}." in text
    mean = next(line for line in str(compared).splitlines() if line.startswith("mean "))
    assert mean.endswith(f"better at {shadow} load")
    document = compared.to_dict()
    assert document["load"]["note"] in text
    remaining = {row["metric"]: row for row in document["load"]["at_source_load"]["metrics"]}["mean"]
    assert remaining["outcome"] == "same"
    assert json.dumps(document, default=str)


def test_equal_loads_are_not_mentioned(saved):
    compared = compare_saved(saved / "equal")
    assert compared.to_dict()["load"] is None
    assert "load" not in str(compared)


def test_a_model_that_cannot_carry_the_sources_load_is_said_to_be_overloaded(tmp_path):
    simulate(BASE.replace(BUSY | {"shadow.time.mean_s": 0.09})).save(tmp_path)
    assert "Shadow-01 would be OVERLOADED, at " in plain_words(str(compare_saved(tmp_path)))


def test_loads_of_frames_without_a_scenario_are_noted_alone(saved, tmp_path):
    for name in ("windows", "latency"):
        shutil.copy(saved / "idle" / f"{name}.parquet", tmp_path)
    compared = compare_saved(tmp_path)
    assert compared.equal_load is None
    assert plain_words(str(compared)).startswith("The sides do not carry the same load")
    assert "simulated" not in str(compared)


def test_a_saved_run_is_judged_with_its_scenario(tmp_path):
    """The windows alone tell less: the load of two streams of known rates is no matter of chance."""
    streams = [{"process": "poisson", "rate_per_s": 10.0}] * 2
    served = service(mean_s=0.0499)  # a load of 0.998
    result = simulate(scenario(streams, served, service(mean_s=0.001), horizon_s=600.0, seed=1))
    result.save(tmp_path)
    assert compare_saved(tmp_path).overloaded == ()
    over = simulate(scenario(streams, service(mean_s=0.001), service(mean_s=0.05), share=100, horizon_s=600.0))
    over.save(tmp_path)
    assert compare_saved(tmp_path).overloaded == ("Shadow is OVERLOADED, and the source is not",)


def test_a_run_and_itself(saved):
    compared = compare_two_saved(saved / "slow", saved / "slow", None)
    assert not compared.worse
    assert str(compared).count("the same in both runs, to the bit") == 2
    assert "p99" not in str(compared).partition("No metric")[0]


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


@pytest.mark.parametrize("name", ["equal", "slow", "overloaded", "idle", "many"])
def test_its_text_fits_and_is_ascii(saved, name):
    text = str(compare_saved(saved / name, slo_s=0.06))
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
    assert "  \n" not in text
    assert "SLO missed" in text


def test_a_row_shows_the_difference_in_the_unit_of_its_metric(saved):
    compared = compare_saved(saved / "slow", slo_s=0.06)
    rows = {line[:10].strip(): line for line in str(compared).splitlines()}
    metrics = compared.table.set_index("metric")
    p99, miss = metrics.loc["p99"], metrics.loc["slo_miss"]
    assert f"+{100 * (p99['ratio'] - 1):.1f} %" in rows["p99"]
    assert f"+{100 * miss['difference']:.2f} pt" in rows["SLO missed"]
    assert "4XX errors" not in rows  # there are none of any kind, which the row of all says
    assert "errors" in rows


def test_too_little_is_unsure_and_not_worse(tmp_path):
    simulate(BASE.replace({"horizon_s": 30})).save(tmp_path)
    compared = compare_saved(tmp_path)
    assert compared.unsure
    assert not compared.worse
    assert NOT_ENOUGH_DATA in str(compared)


def test_the_note_names_the_margins_that_were_asked_for(saved):
    text = " ".join(str(compare_saved(saved / "equal", margin_pct=80.0, margin_points=0.5)).split())
    assert "no difference: the whole interval lies within the margin, 80 % or 0.5 points." in text


def test_for_json(saved):
    compared = plain(compare_saved(saved / "equal").to_dict())
    assert json.loads(json.dumps(compared, allow_nan=False)) == compared
    assert compared["worse"] is False
    assert [m["metric"] for m in compared["metrics"]][:2] == ["mean", "p50"]
    assert compared["metrics"][0]["outcome"]
    assert compared["metrics"][0]["verdict"]


NAN = math.nan
LATENCY = {"unit": "s", "difference": 0.002, "low": 0.001, "high": 0.003}
RATIO = {"ratio": 1.1, "ratio_low": 1.05, "ratio_high": 1.15}
NO_RATIO = dict.fromkeys(RATIO, NAN)


@pytest.mark.parametrize(
    ("row", "change_text", "interval_text"),
    [
        (LATENCY | RATIO, "+10.0 %", "+5.00 to +15.0"),
        (LATENCY | {"ratio": 590.4, "ratio_low": 588.0, "ratio_high": 1234.0}, "590 times", "588 to 1,234"),
        (LATENCY | NO_RATIO, "+2.00 ms", "+1.00 to +3.00"),
        (LATENCY | NO_RATIO | {"difference": -2.0, "low": -3.0, "high": -1.0}, "-2.00 s", "-3.00 to -1.00"),
        ({"unit": "share", "difference": 0.01, "low": 0.0, "high": 0.02} | NO_RATIO, "+1.00 pt", "0 to +2.00"),
        (LATENCY | RATIO | {"ratio_low": NAN}, "+10.0 %", "-"),
        (LATENCY | {"ratio": math.inf, "ratio_low": 1.0, "ratio_high": math.inf}, "-", "0 to +inf"),
    ],
)
def test_a_change_and_its_interval(row, change_text, interval_text):
    row = {"metric": "mean"} | row
    assert (change(row), interval(row)) == (change_text, interval_text)


def test_a_quantile_without_an_interval_is_not_shown():
    sides = {"source": 0.02, "shadow": 0.022} | dict.fromkeys(("source_low", "source_high"), NAN)
    row = LATENCY | RATIO | sides | {"metric": "p99", "shadow_low": NAN, "shadow_high": NAN, "low": NAN, "high": NAN}
    assert (values(row), change(row)) == (["-", "-"], "-")
    assert values(row | {"metric": "mean"}) == ["20.0 ms", "22.0 ms"]
    own = row | {"source_low": 0.019, "source_high": 0.021}
    assert values(own) == ["20.0 ms", "-"]
    worse = own | {"shadow_low": 0.03, "shadow_high": math.inf, "low": 0.009, "high": math.inf}
    assert values(worse) == ["20.0 ms", "> 30.0 ms"]
    by_periods = row | {"low": 0.001, "high": 0.003}  # the median of differences has an interval, its sides have none
    assert values(by_periods) == ["20.0 ms", "22.0 ms"]


@pytest.mark.parametrize(("x", "text"), [(12.06, "+12.1"), (-0.314, "-0.31"), (0.0, "0"), (-math.inf, "-inf")])
def test_numbers_with_signs(x, text):
    assert signed(x) == text


def test_too_short_stands_above_the_table(tmp_path):
    short, long = tmp_path / "short", tmp_path / "long"
    simulate(BASE.replace({"horizon_s": 5, "run.period_s": 0.1})).save(short)
    simulate(BASE).save(long)
    compared = compare_saved(short)
    assert str(compared).startswith("TOO SHORT: AllTraffic received ")
    assert compared.to_dict()["too_short"] == list(compared.too_short)
    assert len(compared.too_short) == 2
    assert compare_saved(long).to_dict()["too_short"] == []
    assert not str(compare_saved(long)).startswith("TOO SHORT")
    pair = compare_two_saved(long, short, "source")
    assert str(pair).startswith("TOO SHORT:")
    assert len(pair.too_short) == 1
    assert pair.too_short[0].startswith(f"{short}: AllTraffic received ")


def test_a_relaxation_time_that_windows_do_not_tell_makes_a_run_too_short(tmp_path):
    simulate(alike("exponential", 0.97, 20_000, 1)).save(tmp_path / "run")
    assert "relaxation time" in compare_saved(tmp_path / "run").too_short[0]


@pytest.mark.parametrize(
    ("outcome", "verdict", "text"),
    [
        ("worse", "worse", "worse"),
        ("worse", "worse, at 100 % load against 42 %", "worse at 100 % load"),
        (SAME, "no difference larger than 10 %, at 42 % load against 83 %", "no difference at 42 % load"),
    ],
)
def test_a_verdict_in_a_table_is_short(outcome, verdict, text):
    row = {"outcome": outcome, "verdict": verdict, "low": 0.0, "high": 1.0}
    assert outcome_text(row) == text
