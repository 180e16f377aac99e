"""Verdicts of runs whose truth is known."""

import numpy as np
import pandas as pd
import pytest
from cases import scenario, service

from shadowsim import default_scenario, simulate
from shadowsim.verdict import clock, verdict


def poisson(rate, **more):
    return {"process": "poisson", "rate_per_s": rate} | more


def judged(s):
    v = simulate(s.replace({"run.sample_requests": 0})).verdict  # the verdict needs windows only
    return v, {"source": v.source, "shadow": v.shadow}


def test_the_built_in_scenario_is_stable():
    v, pools = judged(default_scenario())
    assert v.status == "STABLE"
    assert [p.status for p in v.pools] == ["STABLE", "STABLE"]
    # 640 requests/s of 20 ms on 4 x 4 workers, and half of that on 2 x 4
    assert pools["source"].peak_load == pytest.approx(0.8, rel=1e-3)
    assert pools["shadow"].peak_load == pytest.approx(0.8, rel=1e-3)


@pytest.mark.parametrize(("load", "status"), [(0.9, "STABLE"), (1.0, "OVERLOADED"), (1.01, "OVERLOADED")])
def test_capacity_is_the_border(load, status):
    s = scenario(poisson(load * 100.0), service(mean_s=0.01), service(mean_s=0.001), horizon_s=3600.0)
    v, pools = judged(s)
    assert v.status == pools["source"].status == status
    assert pools["shadow"].status == "STABLE"


def test_what_rounding_leaves_of_the_horizon_is_no_window_with_a_load():
    s = scenario(poisson(85.0), service(mean_s=0.01), share=100, horizon_s=2040.0, period_s=20.4)
    assert s.n_windows == 101  # 2040 / 20.4 is more than 100
    assert judged(s)[0].status == "STABLE"


def test_the_excess_and_the_instances_needed():
    s = scenario(
        poisson(500.0),
        service(mean_s=0.01, workers=4),
        source_instances=2,
        shadow_instances=1,
        share=100,
        horizon_s=600.0,
    )
    v, pools = judged(s.replace({"shadow.workers": 2}))
    assert v.status == pools["shadow"].status == "OVERLOADED"
    assert pools["source"].status == "STABLE"
    assert pools["shadow"].peak_load == pytest.approx(2.5)
    assert pools["shadow"].instances_needed == 3
    assert (pools["shadow"].from_s, pools["shadow"].to_s) == (0.0, 600.0)
    assert "Shadow receives 2.50 times its capacity from 00:00:00 to 00:10:00" in str(v)
    assert "It would need 3 instances (it has 1), which just keep up (load 0.83); for a latency goal run" in str(v)
    enough = s.replace({"shadow.workers": 2, "shadow.instance_count": 3})
    assert judged(enough)[1]["shadow"].peak_load == pytest.approx(2.5 / 3)
    assert judged(enough)[0].status == "STABLE"


def test_exactly_full_needs_one_more():
    s = scenario(poisson(200.0), service(mean_s=0.01), source_instances=2, share=0, horizon_s=600.0)
    assert judged(s)[1]["source"].instances_needed == 3


@pytest.mark.slow
def test_an_overload_at_the_peak_of_the_day_says_when():
    s = default_scenario().replace({"shadow.instance_count": 1, "horizon_s": 3 * 86400.0})
    v, pools = judged(s)
    p = pools["shadow"]
    assert v.status == "OVERLOADED"
    # 160 + 240 (1 + cos) >= 400 of a source rate: the half of the day round the peak at 15:00
    assert p.from_s == pytest.approx(9 * 3600, abs=120)
    assert p.to_s == pytest.approx(21 * 3600, abs=120)
    assert p.n_stretches == 3
    first, second, third = (np.array(stretch) for stretch in p.stretches)
    assert (second - first == 86400.0).all()
    assert (third - second == 86400.0).all()
    assert p.peak_load == pytest.approx(1.6, rel=1e-3)
    assert p.instances_needed == 2
    assert "the first of 3 such stretches" in p.why


def test_an_overload_shorter_than_a_window_is_a_burst():
    spikes = {"kind": "spikes", "base_per_s": 10.0, "spikes": [{"at_s": 300.0, "for_s": 5.0, "factor": 15.0}]}
    s = scenario({"process": "poisson", "profile": spikes}, service(mean_s=0.01), horizon_s=1200.0)
    assert judged(s)[1]["source"].status == "STABLE"
    assert judged(s.replace({"run.period_s": 5.0}))[1]["source"].status == "OVERLOADED"


def test_too_few_requests():
    v, pools = judged(scenario(poisson(40.0), service(mean_s=0.001), share=1, horizon_s=100.0))
    assert v.status == "TOO SHORT"
    assert pools["source"].status == "STABLE"
    assert "received 41 requests, 0 of them beyond p99" in pools["shadow"].why
    assert judged(scenario(poisson(40.0), share=0))[1]["shadow"].why == (
        "Shadow received no requests, since 0 % of the requests are copied; a longer run would not help."
    )


def test_too_short_for_its_load():
    """At 0.99 of one exponential server of 10 ms a relaxation takes 0.01 / (1 - sqrt(0.99))^2 = 398 s."""
    s = scenario(poisson(99.0), service(mean_s=0.01), share=1, horizon_s=3600.0)
    p = judged(s)[1]["source"]
    assert p.status == "TOO SHORT"
    assert "has a relaxation time of 398 s" in p.why
    assert judged(s.replace({"horizon_s": 4200.0}))[1]["source"].status == "STABLE"


@pytest.mark.parametrize("rate", [100.0 * (1.0 - 1e-13), 99.9999, 99.99])
def test_at_capacity_no_run_is_long_enough(rate):
    s = scenario(poisson(rate), service(mean_s=0.01), share=1, horizon_s=3600.0)
    p = judged(s)[1]["source"]
    assert p.status == "TOO SHORT"
    advice = "of capacity, where no run is long enough: add an instance or lower the rate."
    assert p.why == f"Source is at {rate / 100.0:.3f} {advice}"


def test_a_random_load_that_reaches_1_by_chance_alone_is_not_called_full():
    """In a tenth of this run the load is greater than 1, and 0.9 in the mean."""
    flips = {"process": "mmpp", "rates_per_s": [0.0, 64.0], "mean_sojourn_s": 5.0}
    loads = []
    for seed in range(10):
        s = scenario(flips, service(mean_s=0.9 / 32.0), service(mean_s=0.001), horizon_s=3600.0, seed=seed)
        p = judged(s)[1]["source"]
        assert "no run" not in p.why
        loads.append(p.peak_load)
    assert np.mean(loads) == pytest.approx(0.95, abs=0.05)


def trace_run(tmp_path, gaps, size):
    t = np.cumsum(gaps)
    pd.DataFrame({"time": t - t[0], "size": size}).to_csv(tmp_path / "t.csv", index=False)
    traffic = {"process": "trace", "path": "t.csv"}
    linear = {"time": {"law": "linear", "base_s": 0.0, "size": 1.0}, "workers": 1}
    return judged(scenario(traffic, linear, linear, base_dir=tmp_path, share=100, horizon_s=float(t[-1]) + 60.0))


@pytest.mark.parametrize(("load", "status"), [(0.7, "STABLE"), (0.9, "STABLE"), (1.1, "OVERLOADED")])
def test_a_trace_is_judged_beyond_chance(tmp_path, load, status):
    """120 requests per window: the load of single windows passes 1 by chance, which is no overload."""
    rng = np.random.default_rng(1)
    v, pools = trace_run(tmp_path, rng.exponential(0.5, 20_000), rng.exponential(0.5 * load, 20_000))
    assert v.status == pools["source"].status == status
    if load == 0.9:
        assert pools["source"].peak_load < 1.0


def test_a_burst_in_a_trace_is_found(tmp_path):
    rng = np.random.default_rng(2)
    gaps = np.full(20_000, 0.5)
    gaps[8000:10_000] = 0.25
    v, pools = trace_run(tmp_path, gaps, rng.exponential(0.35, 20_000))
    p = pools["source"]
    assert v.status == "OVERLOADED"
    assert p.from_s == pytest.approx(4000.0, abs=120.0)
    assert p.to_s == pytest.approx(4500.0, abs=120.0)
    assert p.peak_load == pytest.approx(1.4, rel=0.1)


def twice(rate, **more):
    return [poisson(rate / 2.0) | more] * 2


@pytest.mark.parametrize(
    ("load", "status"),
    [
        pytest.param(0.8, "STABLE", marks=pytest.mark.slow),
        (0.95, "STABLE"),
        (1.0, "OVERLOADED"),
        pytest.param(1.1, "OVERLOADED", marks=pytest.mark.slow),
    ],
)
def test_superposed_streams_of_known_rates_leave_no_doubt(load, status):
    """Whatever the dispersion of counts (25) and of work (16)."""
    gamma = twice(32.0, process="gamma", scv=25.0)
    s = scenario(gamma, service("lognormal", load / 32.0, scv=16.0), service(mean_s=0.001), horizon_s=7200.0)
    v = judged(s.replace({"run.seed": 3}))[0]
    assert (v.source.status == "OVERLOADED") == (status == "OVERLOADED")
    assert v.source.peak_load == pytest.approx(load)


def test_streams_overload_together_when_their_peaks_meet():
    steps = {"kind": "steps", "steps": [{"from_s": 0.0, "rate_per_s": 20.0}, {"from_s": 1800.0, "rate_per_s": 60.0}]}
    s = scenario([poisson(50.0), {"process": "poisson", "profile": steps}], service(mean_s=0.01), horizon_s=3600.0)
    p = judged(s)[1]["source"]
    assert (p.status, p.from_s, p.to_s) == ("OVERLOADED", 1800.0, 3600.0)
    assert p.peak_load == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("slowdown", "load"), [([1.0, 1.0], 0.8), ([1.0, 1.2], 0.96), ([1.0, 1.5], 1.2), ([2.0, 1.0], 0.8), ([1.5], 1.2)]
)
def test_a_slowdown_is_that_of_saturated_workers(slowdown, load):
    served = service("lognormal", 0.05, 2, scv=16.0, slowdown=slowdown)
    p = judged(scenario(poisson(32.0), served, service(mean_s=0.001), horizon_s=7200.0))[1]["source"]
    assert p.peak_load == pytest.approx(load)
    assert (p.status == "OVERLOADED") == (load >= 1.0)


@pytest.mark.parametrize(
    ("batching", "load"),
    [
        ({"max_size": 1}, 1.6),
        ({"max_size": 4, "marginal": 0.0}, 0.4),
        ({"max_size": 4, "factors": [1.0, 3.0]}, 1.2),
        ({"max_size": 8, "marginal": 1.0}, 1.6),
    ],
)
def test_the_load_of_a_batcher_is_that_of_full_batches(batching, load):
    s = scenario(poisson(32.0), service("exponential", 0.1, 2), service(mean_s=0.001), horizon_s=7200.0)
    run = simulate(s.replace({"source.time.mean_s": 0.01, "run.sample_requests": 0}))  # without a backlog
    p = verdict(run.windows, s.replace({"source.batching": batching})).source
    assert p.peak_load == pytest.approx(load)
    assert (p.status == "OVERLOADED") == (load >= 1.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("load", "over"), [(0.9, False), (1.1, True)])
def test_a_rate_that_jumps_within_windows_is_chance(seed, load, over):
    flips = {"process": "mmpp", "rates_per_s": [0.0, 64.0], "mean_sojourn_s": 1.0}
    s = scenario(flips, service(mean_s=load / 32.0), service(mean_s=0.001), horizon_s=7200.0, seed=seed)
    assert (judged(s)[1]["source"].status == "OVERLOADED") == over
    alone = verdict(simulate(s.replace({"run.sample_requests": 0})).windows)
    assert (alone.source.status == "OVERLOADED") == over


@pytest.mark.parametrize("sojourn_s", [5.0, 30.0, 59.0])
def test_a_rate_that_jumps_within_windows_counts_with_its_mean(sojourn_s):
    """However few its jumps: the pool at 1.1 has no steady state, and that at 0.9 has one."""
    for load, over in ((0.9, False), (1.1, True)):
        flips = {"process": "mmpp", "rates_per_s": [0.0, 64.0], "mean_sojourn_s": sojourn_s}
        p = judged(scenario(flips, service(mean_s=load / 32.0), service(mean_s=0.001), horizon_s=3600.0))[1]["source"]
        assert p.peak_load == pytest.approx(load)
        assert (p.status == "OVERLOADED") == over


def test_a_rate_that_jumps_rarely_is_load():
    slow = {"process": "mmpp", "rates_per_s": [20.0, 130.0], "mean_sojourn_s": 3600.0}
    p = judged(scenario(slow, service(mean_s=0.01), service(mean_s=0.001), horizon_s=6 * 3600.0, seed=1))[1]["source"]
    assert p.status == "OVERLOADED"
    assert p.peak_load == pytest.approx(1.3, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "over"), [(0.8, False), (1.1, True)])
def test_a_trace_of_bursts_and_heavy_work_is_judged_beyond_its_dispersion(tmp_path, load, over):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n, sigma = 200_000, np.sqrt(np.log(17.0))
        work = load / 32.0 * rng.lognormal(-(sigma**2) / 2.0, sigma, n)
        p = trace_run(tmp_path, rng.gamma(1.0 / 25.0, 25.0 / 32.0, n), work)[1]["source"]
        assert (p.status == "OVERLOADED") == over


@pytest.mark.parametrize("length_s", [5.0, 30.0, 60.0, 200.0])
@pytest.mark.parametrize(("load", "over"), [(0.5, False), (2.0, True)])
def test_even_arrivals_of_a_trace_leave_no_doubt(tmp_path, length_s, load, over):
    pd.DataFrame({"time": np.arange(0.0, length_s, 0.1)}).to_csv(tmp_path / "t.csv", index=False)
    traffic = {"process": "trace", "path": "t.csv", "time_unit": "s"}
    served = service("deterministic", 0.1 * load)
    s = scenario(traffic, served, base_dir=tmp_path, share=100, horizon_s=length_s)
    assert (judged(s)[1]["source"].status == "OVERLOADED") == over


def test_without_a_scenario_a_growing_backlog_tells():
    """As for a live run, whose offered load is not known."""

    def live(rate):
        s = scenario(
            poisson(rate),
            service(mean_s=0.01),
            service(mean_s=0.001),
            horizon_s=1200.0,
            period_s=10.0,
            sample_requests=0,
        )
        return verdict(simulate(s).windows.assign(offered_load=np.nan))

    assert live(80.0).status == "STABLE"
    over = live(120.0)
    assert over.status == "OVERLOADED"
    assert over.pools[0].instances_needed is None
    assert "Source's backlog keeps growing from" in str(over)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "00:00:00"),
        (60, "00:01:00"),
        (125, "00:02:05"),
        (3600, "01:00:00"),
        (5400, "01:30:00"),
        (86399.7, "1 d 00:00:00"),
        (2 * 86400 + 23400, "2 d 06:30:00"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_run_of_one_window_lasts_as_long_as_that_window():
    s = scenario(poisson(100.0), service(mean_s=0.005), share=100, horizon_s=60.0)
    assert judged(s)[0].status == "STABLE"
