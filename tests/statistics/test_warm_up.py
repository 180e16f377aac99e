"""The beginning of a run that its figures leave out: by MSER-5, or as asked; the frames stay whole."""

import numpy as np
import pandas as pd
import pytest
from aa_pairs import alike

from shadowsim import compare, simulate
from shadowsim.frames import MOST_SECTIONS
from shadowsim.planning.slo import measure, parse_slo
from shadowsim.statistics.warm_up import LEAST_WINDOWS, mser5, warm_up
from shadowsim.verdict import uncertain_quantiles, verdict


def windows(source, shadow, period_s=60.0):
    """Return a frame of windows with these mean latencies."""
    parts = [
        pd.DataFrame({"time_s": period_s * np.arange(len(x)), "role": role, "ModelLatency_Average": x})
        for role, x in (("source", source), ("shadow", shadow))
    ]
    return pd.concat(parts, ignore_index=True)


def by_definition(x):
    """Return what MSER-5 leaves out, straight from White's definition."""
    z = [np.mean(x[5 * i : 5 * i + 5]) for i in range(len(x) // 5)]
    n = len(z)
    marks = [sum((y - np.mean(z[d:])) ** 2 for y in z[d:]) / (n - d) ** 2 for d in range(n - 5)]
    least = marks.index(min(marks))
    return None if least >= n / 2 else 5 * least


@pytest.mark.parametrize("seed", range(5))
def test_the_rule_is_whites(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(10.0, 1.0, 203) - 5.0 * np.exp(-np.arange(203) / 20.0)
    assert mser5(x) == by_definition(x)
    assert mser5(x + 1e9) == mser5(x)  # no digits are lost to a large mean


def test_a_step_is_left_out_to_the_batch():
    x = np.where(np.arange(200) < 40, 0.0, 10.0) + np.tile([0.1, -0.1], 100)
    assert mser5(x) == 40


def test_a_series_that_still_changes_in_its_second_half_is_refused():
    assert mser5(np.arange(200.0)) is None
    assert mser5(np.where(np.arange(200) < 150, 0.0, 10.0)) is None
    assert mser5(np.ones(LEAST_WINDOWS - 1)) is None


def test_a_steady_series_is_rarely_refused():
    # of independent values, the rule refuses 4.5 % in runs of 200 windows and 0.05 % in runs of 1440
    rng = np.random.default_rng(1)
    refused = [sum(mser5(rng.normal(size=n)) is None for _ in range(1000)) for n in (LEAST_WINDOWS, 1440)]
    assert refused[0] < 50 + 4 * np.sqrt(50)
    assert refused[1] < 5


def test_both_variants_leave_out_the_longer_warm_up_in_whole_sections():
    rng = np.random.default_rng(2)
    noise = rng.normal(0.0, 0.1, (2, 1000))
    source = noise[0] + np.where(np.arange(1000) < 33, 0.0, 10.0)
    warm = warm_up(windows(source, noise[1] + 5.0), "auto", MOST_SECTIONS)
    assert warm.by_role_s["source"] == 60.0 * 35  # seven batches of five, of which the last holds the step
    assert warm.by_role_s["shadow"] < 60.0 * 100
    end_s = max(warm.by_role_s.values())
    assert warm.from_s == 600.0 * np.ceil(end_s / 600.0)  # sections of ten windows
    assert warm.first_section == warm.from_s / 600.0
    assert warm.unsettled == ()


def test_windows_without_answers_do_not_move_the_end():
    x = np.where(np.arange(300) < 40, 0.0, 10.0) + np.tile([0.1, -0.1], 150)
    x[[3, 5, 7, 8, 9]] = np.nan  # a batch's worth
    assert warm_up(windows(x, np.full(300, np.nan)), "auto", 100).by_role_s == {"source": 60.0 * 40, "shadow": 0.0}


def test_a_variant_that_does_not_settle_leaves_out_nothing():
    warm = warm_up(windows(np.ones(200), np.arange(200.0)), "auto", 100)
    assert (warm.first_section, warm.from_s, warm.unsettled) == (0, 0.0, ("shadow",))


@pytest.mark.parametrize(("asked_s", "section"), [(0.0, 0), (1.0, 1), (59.9, 1), (60.0, 1), (61.0, 2), (1200.0, 20)])
def test_a_given_number_of_seconds_is_rounded_up_to_sections(asked_s, section):
    warm = warm_up(windows(np.ones(100), np.ones(100)), asked_s, 100)
    assert (warm.first_section, warm.from_s) == (section, 60.0 * section)


@pytest.fixture(scope="module")
def whole():
    return simulate(alike("exponential", 0.6, 50_000, 3, sample_requests=100_000))


@pytest.fixture(scope="module")
def cut(whole):
    return simulate(whole.scenario.replace({"run.warmup_s": 0.25 * whole.scenario.horizon_s}))


def test_frames_stay_whole_and_every_figure_is_of_the_rest(whole, cut):
    for name in ("windows", "latency", "requests"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(cut, name))
    from_s = cut.warm_up.from_s
    kept = whole.requests[whole.requests["arrival_s"] >= from_s]
    summary = cut.summary()
    for role, variant in (("source", "Source"), ("shadow", "Shadow")):
        part = kept[kept["role"] == role]
        row = summary.loc[variant]
        assert row["requests"] == len(part)
        assert row["rate_per_s"] == pytest.approx(len(part) / (cut.scenario.horizon_s - from_s))
        assert row["mean_s"] == pytest.approx(part["latency_s"].mean())
        assert row["wait_mean_s"] == pytest.approx(part["wait_s"].mean())
        assert row["maximum_s"] == pytest.approx(part["latency_s"].max())
        assert row["p99_s"] == pytest.approx(part["latency_s"].quantile(0.99), rel=0.01)
        assert cut.quantile(0.5)[variant] == pytest.approx(part["latency_s"].quantile(0.5), rel=0.01)
        for text, value in (("mean", part["latency_s"].mean()), ("share(wait > 0)", (part["wait_s"] > 0.0).mean())):
            (goal,) = parse_slo(f"{role}.{text} < {'1s' if text == 'mean' else '1'}").goals
            assert measure(goal, cut)[0] == pytest.approx(value)
    compared = compare(cut).set_index("metric")
    assert compared["n_source"]["mean"] == summary["requests"]["Source"]
    assert compared["source"]["mean"] == pytest.approx(summary["mean_s"]["Source"])
    assert compared["source"]["p99"] == pytest.approx(summary["p99_s"]["Source"])


def test_a_saved_run_leaves_out_the_same(cut, tmp_path):
    cut.save(tmp_path)
    pd.testing.assert_frame_equal(compare(tmp_path), compare(cut))


def test_a_pool_at_capacity_never_settles():
    # its waits grow with the square root of time
    run = simulate(alike("exponential", 0.99999, 400_000, 7, period_s=40.0, warmup_s="auto"))
    assert run.warm_up.unsettled == ("source", "shadow")
    assert run.settled is run
    assert run.verdict.status == "TOO SHORT"
    assert all(len(names) == 5 for names in run.uncertain.values())


def test_the_verdict_and_the_quantiles_of_an_unsettled_pool(whole):
    judged = verdict(whole.windows, whole.scenario, unsettled=("shadow",))
    assert (judged.source.status, judged.shadow.status, judged.status) == ("STABLE", "TOO SHORT", "TOO SHORT")
    assert "MSER-5" in str(judged)
    uncertain = uncertain_quantiles(whole.windows, whole.scenario, unsettled=("shadow",))
    assert len(uncertain["Shadow"]) == 5
    assert len(uncertain["Source"]) < 5
