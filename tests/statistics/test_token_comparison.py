"""Rows and standard errors of services in tokens: values of the run, intervals that cover, and every kind of frames."""

import math

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service
from token_pairs import MISSED, SERVED, token_pair

from shadowsim import InputError, assert_no_regression, compare, compare_runs, noise_floor, replicate, simulate
from shadowsim.frames import FIRST_TOKEN, PER_TOKEN
from shadowsim.report.comparison_text import compare_saved
from shadowsim.statistics.standard_errors import standard_errors_of

TIMES = [f"{short}_{name}" for short in ("ttft", "tpot") for name in ("mean", "p50", "p95", "p99")]
LIMITS = {"ttft_slo_s": 0.15, "tpot_slo_s": "50ms"}
RUNS = 60


@pytest.fixture(scope="module")
def run():
    return simulate(token_pair(12_000, 1.1, sample_requests=10**6))


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    return run.save(tmp_path_factory.mktemp("run"))


def test_rows_are_those_of_the_run(run, saved):
    table = compare(run, **LIMITS)
    metrics = table["metric"].tolist()
    assert metrics[6:14] == TIMES  # after those of latency
    assert metrics[17:20] == [MISSED, "ttft_slo_miss", "tpot_slo_miss"]  # after those of errors
    rows, summary = table.set_index("metric"), run.summary().set_index("role")
    for role in ("source", "shadow"):
        variant = {"source": "Source", "shadow": "Shadow"}[role]
        for short, measure in (("ttft", FIRST_TOKEN), ("tpot", PER_TOKEN)):
            assert rows[role][f"{short}_mean"] == pytest.approx(summary[f"{short}_mean_s"][role], rel=1e-12)
            assert rows[role][f"{short}_p95"] == pytest.approx(run.quantile(0.95, measure)[variant], rel=1e-12)
        assert rows[role][MISSED] == pytest.approx(1.0 - summary["goodput_share_1"][role])
        mine = run.requests[run.requests["role"] == role]
        late = (mine["first_token_s"] > 0.15).mean()
        assert rows[role]["ttft_slo_miss"] == pytest.approx(late, abs=0.01)  # interpolated in the limit's bucket
    assert (rows["outcome"][["ttft_mean", "tpot_mean", "tpot_p95", MISSED]] == "worse").all()
    pd.testing.assert_frame_equal(compare(saved, **LIMITS), table)


def test_every_kind_of_frames_has_them(run):
    rows = compare(run).set_index("metric")
    of_requests = compare(run, method="requests").set_index("metric")
    of_windows = compare({"windows": run.windows}).set_index("metric")
    for metric in TIMES:
        # a bucket is at most 0.8 % wide
        assert of_requests["shadow"][metric] == pytest.approx(rows["shadow"][metric], rel=0.008)
        assert metric in of_windows.index
    assert of_windows["shadow"]["tpot_mean"] == pytest.approx(rows["shadow"]["tpot_mean"], rel=1e-12)
    assert of_windows["method"]["ttft_p95"] == "windows, median of 200 differences of their p95"
    many = compare([simulate(token_pair(500, 1.1, seed=r)) for r in range(10)], ttft_slo_s=0.15).set_index("metric")
    assert many["method"]["tpot_p95"] == "replications, 10 groups"
    assert many["outcome"]["tpot_mean"] == "worse"
    assert {MISSED, "ttft_slo_miss"} <= set(many.index)


def test_a_variant_without_tokens_is_not_compared_in_them():
    mixed = scenario({"process": "poisson", "rate_per_s": 5.0}, {"tokens": SERVED}, service(mean_s=0.1), share=100)
    result = simulate(mixed)
    assert not set(compare(result)["metric"]) & {*TIMES}
    with pytest.raises(InputError, match="tpot_slo_s: is for services in tokens, which these runs do not compare"):
        compare(result, tpot_slo_s="50ms")
    assert "ttft_slo_miss" in set(compare_runs(result, result, ttft_slo_s=1.0)["metric"])  # of the source
    plain = simulate(scenario({"process": "poisson", "rate_per_s": 5.0}, service(mean_s=0.1)))
    with pytest.raises(InputError, match="ttft_slo_s: is for services in tokens"):
        compare_runs(plain, plain, ttft_slo_s=1.0)


def test_two_runs_are_compared_and_asserted():
    old, new = (simulate(token_pair(6000, slower)) for slower in (1.0, 1.1))
    table = compare_runs(new, old, **LIMITS).set_index(["role", "metric"])
    assert table["outcome"]["shadow", "tpot_p95"] == "worse"
    assert (table["difference"]["source"] == 0.0).all()
    assert table["outcome"]["shadow", MISSED] == "worse"
    with pytest.raises(AssertionError, match="Shadow: tpot_p95 is worse"):
        assert_no_regression(new, old, "5%", metrics=["tpot_p95"])
    assert_no_regression(old, old, metrics=["ttft_p99", MISSED])


def test_text_shows_them(saved):
    compared = compare_saved(saved, **LIMITS)
    text = str(compared)
    for label in ("ttft p99", "tpot mean", "missed 150 ms / 50 ms", "ttft SLO missed"):
        assert f"\n{label} " in text
    assert "ttft, tpot: times from arrival to the first token, and per token after it." in text
    only = str(compared.only(["ttft_p99"]))
    assert "\nttft p99 " in only
    assert "tpot" not in only.partition("ttft, tpot")[0]


def test_the_noise_floor_has_them():
    floor = noise_floor(token_pair(2000), replications=3, workers=1, ttft_slo_s=0.15).set_index("metric")
    assert {*TIMES, MISSED, "ttft_slo_miss"} <= set(floor.index)
    assert 0.0 < floor["typical_pct"]["tpot_mean"] < 5.0


def test_standard_errors_are_half_of_what_compare_calls_an_interval(run):
    errors, rows = standard_errors_of(run), compare(run).set_index("metric")
    for metric in ("ttft_mean", "ttft_p95", "tpot_mean", "tpot_p95"):
        # Both sides alone and together choose batches of the same 100 sections, within a factor of 1.6; Student's t of
        # 16 to 30 batches is 2.05 to 2.13
        width = (rows["source_high"][metric] - rows["source_low"][metric]) / 4.2
        assert 1 / 1.6 < errors[f"{metric}_s"]["source"] / width < 1.6
    summary = run.summary()
    assert summary["tpot_p95_s_error"]["Source"] == errors["tpot_p95_s"]["source"]
    assert summary["output_tokens_per_s_error"]["Source"] > 0.0
    assert summary["goodput_share_1_error"]["Shadow"] > 0.0
    assert "tpot_p90_s_error" not in summary  # the figure itself is not there
    short = simulate(token_pair(300)).summary()
    assert math.isnan(short["ttft_p99_s_error"]["Source"])


@pytest.mark.slow
def test_errors_are_as_large_as_the_scatter_between_runs_and_intervals_cover():
    runs = replicate(token_pair(20_000), RUNS)
    table = pd.concat([one.summary() for one in runs])
    known = ["ttft_mean_s", "ttft_p50_s", "tpot_mean_s", "tpot_p95_s", "output_tokens_per_s", "goodput_share_1"]
    for figure in (*known, "ttft_p99_s"):
        for variant in ("Source", "Shadow"):
            scatter = table.loc[variant, figure].std(ddof=1)
            errors = table.loc[variant, f"{figure}_error"].dropna()
            assert len(errors) > RUNS / 2
            ratio = math.sqrt(float((errors**2).mean())) / scatter
            # as for latency (test_standard_errors.py): 4 x 9 % + 5 %
            assert abs(ratio - 1.0) < 4.0 / math.sqrt(2.0 * (RUNS - 1)) + 0.05, (figure, variant, ratio)
    rows = pd.concat([compare(one, **LIMITS) for one in runs])
    for metric, part in rows[rows["metric"].isin([*TIMES, MISSED, "ttft_slo_miss"])].groupby("metric"):
        part = part.dropna(subset=["low", "high"])
        covered = float(((part["low"] <= 0.0) & (part["high"] >= 0.0)).mean())
        # of 95 %, less 4 standard errors of a share of so many runs
        assert covered >= 0.95 - 4.0 * np.sqrt(0.95 * 0.05 / max(len(part), 1)), metric
