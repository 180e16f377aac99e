"""One run on several workers: the same frames to the bit for every number of slices and every executor."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest
from cases import dask_executor, scenario, scenarios, service
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from shadowsim import InputError, default_scenario, simulate
from shadowsim.engine import parallel
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns

EXAMPLES, MANY = 6, 200
RULES = [(rule, instant) for rule in ("coin", "counter", "hash") for instant in ("arrival", "response")]
# Of these two in every run, of the others among the slow proofs.
SOON = [("coin", "arrival"), ("hash", "response")]
ALL_RULES = [rule if rule in SOON else pytest.param(*rule, marks=pytest.mark.slow) for rule in RULES]


def same_to_the_bit(a, b):
    for name in ("windows", "latency", "requests"):
        one, other = getattr(a, name), getattr(b, name)
        if not one.equals(other):  # which is quick, and does not say where
            assert_frame_equal(one, other, check_exact=True, obj=name)


def stable(rule="coin", instant="arrival", routing="RANDOM", process="poisson", **more):
    """A pool that forgets within seconds, over 120 windows: slices meet."""
    traffic = {
        "process": process,
        "profile": {"kind": "diurnal", "base_per_s": 20.0, "peak_per_s": 60.0},
        "sessions": 40,
        "request_bytes": {"law": "exponential", "mean_bytes": 50.0},
    } | ({"scv": 3.0} if process == "gamma" else {})
    return scenario(
        traffic,
        service("lognormal", 0.05, 3, queue_limit=4, slowdown=[1.0, 1.1]),
        service("exponential", 0.04, 2, error_5xx=0.1),
        source_instances=2,
        endpoint={"routing": routing, "timeout_s": 0.4},
        mirror={"rule": rule, "instant": instant} | more,
        horizon_s=7200.0,
        period_s=60.0,
        sample_requests=3000,
    )


def same_however_cut(s, *numbers):
    single = simulate(s, workers=1)
    assert single.how == "in one piece"
    for workers in numbers:
        same_to_the_bit(single, simulate(s, workers=workers))


@settings(max_examples=EXAMPLES)
@given(scenarios(), st.sampled_from([2, 3, 7]))
def test_small_and_nasty_scenarios(s, workers):
    """Slices of overloaded pools mostly never reach the true state: they are run again, and `how` tells so."""
    same_however_cut(s, workers)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(scenarios())
def test_many_more_nasty_scenarios_however_they_are_cut(s):
    same_however_cut(s, 2, 3, 7)


@pytest.mark.parametrize(
    ("process", "rule", "instant"),
    [
        ("poisson", "coin", "arrival"),
        ("gamma", "counter", "response"),
        *(pytest.param("poisson", *rule, marks=pytest.mark.slow) for rule in RULES[1:]),
        pytest.param("constant", "hash", "response", marks=pytest.mark.slow),
    ],
)
def test_slices_meet(process, rule, instant):
    s = stable(rule, instant, process=process)
    single = simulate(s, workers=1)
    for workers in (2, 7):
        cut = simulate(s, workers=workers)
        same_to_the_bit(single, cut)
        assert cut.how.startswith(f"in {workers} slices")
        assert "from scratch" not in cut.how
        again = int(cut.how.split(" slices, ")[1].split(" ")[0])
        assert workers - 1 <= again <= 3 * (workers - 1)


@pytest.mark.parametrize("cap", [{"max_in_flight": 2}, {"max_per_s": 9}, {"max_body_bytes": 60}])
def test_caps_are_part_of_the_state(cap):
    s = stable(**cap)
    single = simulate(s, workers=1)
    assert single.windows.filter(like="copies_lost").sum().sum() > 100
    same_to_the_bit(single, simulate(s, workers=5))


@pytest.mark.parametrize(("rule", "instant"), ALL_RULES)
def test_least_outstanding_requests_in_two(rule, instant):
    s = stable(rule, instant, "LEAST_OUTSTANDING_REQUESTS")
    single, two = simulate(s, workers=1), simulate(s, workers=2)
    assert two.how == "the source's side beside the shadow's"
    same_to_the_bit(single, two)


def test_a_pipeline_of_many_batches(monkeypatch):
    monkeypatch.setattr(parallel, "_REQUESTS_PER_CALL", 20_000)
    s = stable("counter", "response", "LEAST_OUTSTANDING_REQUESTS")
    same_to_the_bit(simulate(s, workers=1), simulate(s, workers=2))


def test_a_slice_that_never_meets_is_run_again(monkeypatch):
    s = scenario({"process": "poisson", "rate_per_s": 12.0}, service(mean_s=0.1), horizon_s=6000.0, period_s=20.0)
    cut = simulate(s, workers=3)
    assert "slices re-run from scratch: 2" in cut.how
    same_to_the_bit(simulate(s, workers=1), cut)


def test_more_workers_than_windows():
    s = scenario({"process": "poisson", "rate_per_s": 5.0}, horizon_s=150.0)
    cut = simulate(s, workers=50)
    assert cut.how.startswith("in 3 slices")
    same_to_the_bit(simulate(s, workers=1), cut)


@pytest.mark.slow
def test_executors():
    s = stable("counter", "response")
    single = simulate(s, workers=1)
    with ThreadPoolExecutor(3) as threads:
        same_to_the_bit(single, simulate(s, executor=threads))
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(2, mp_context=context) as processes:
        cut = simulate(s, workers=4, executor=processes)
    assert cut.how.startswith("in 4 slices")
    same_to_the_bit(single, cut)


@pytest.mark.slow
def test_a_dask_cluster():
    s = stable("counter", "response")
    with dask_executor() as executor:
        cut = simulate(s, workers=4, executor=executor)
    assert cut.how.startswith("in 4 slices")
    same_to_the_bit(simulate(s, workers=1), cut)


@pytest.mark.slow
@pytest.mark.parametrize("routing", ["RANDOM", "LEAST_OUTSTANDING_REQUESTS"])
def test_a_week_of_days(routing):
    """Seven days of 30 million requests, a twentieth of the rate of a week's default experiment."""
    s = default_scenario().replace(
        {
            "traffic.profile": {"kind": "diurnal", "base_per_s": 20.0, "peak_per_s": 80.0, "weekend_factor": 0.7},
            "horizon_s": 7 * 86_400.0,
            "source.instance_count": 3,
            "source.workers": 1,
            "source.queue_limit": 1,
            "source.time.mean_s": 0.03,
            "shadow.workers": 1,
            "shadow.queue_limit": 1,
            "shadow.time.mean_s": 0.035,
            "mirror.rule": "counter",
            "mirror.instant": "response",
            "endpoint.routing": routing,
        }
    )
    one, two = simulate(s, workers=1), simulate(s, workers=2)
    with dask_executor() as executor:
        far = simulate(s, executor=executor)
    same_to_the_bit(one, two)
    same_to_the_bit(one, far)
    assert one.how == "in one piece"
    assert "from scratch" not in two.how + far.how
    if routing == "RANDOM":
        assert two.how.startswith("in 2 slices")
        assert far.how.startswith("in 8 slices")
    for _, part in one.windows.groupby("role"):
        assert part["Invocation5XXErrors"].sum() > 1000  # the queue limits bite
        assert part["Invocations"].sum() > 10e6


def test_by_default_short_runs_are_not_cut_and_long_ones_are():
    assert simulate(stable()).how == "in one piece"
    long = simulate(default_scenario().replace({"horizon_s": 4 * 3600.0}))
    assert ("slices" in long.how) == (slices_of_this_machine() > 1)


def slices_of_this_machine():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def test_progress_reaches_the_end_however_it_is_run():
    s = stable()
    with ThreadPoolExecutor(2) as threads:
        for workers, executor in ((1, None), (3, None), (3, threads)):
            moved = []
            arrivals = arrivals_of(s)
            parallel.run(parallel.Job(columns(s, arrivals), arrivals, 4096, 0, 0), workers, executor, moved.append)
            assert sum(moved) == s.n_windows


@pytest.mark.parametrize("workers", [0, -1])
def test_at_least_one_worker(workers):
    with pytest.raises(InputError, match="workers: must be a whole number >= 1"):
        simulate(default_scenario(), workers=workers)


# ---- Pools that batch, scale, fail or are retried ----

CHANGES = {
    "batching": {"max_size": 4, "max_delay_s": 0.02, "marginal": 0.3},
    "scaling": {"metric": "InvocationsPerInstance", "target": 600, "min": 1, "max": 6, "delay_s": 30.0, "in_points": 3},
    "cold_start_s": 45.0,
    "outages": {"mtbf_s": 900.0, "mttr_s": 60.0},
}
RETRIED = {"mode": "standard", "timeout_s": 0.3, "quota": 500, "clients": 3, "on": ["timeout", "outage", "refused"]}


def changing(rule, instant, sides, retries="none"):
    changes = {f"{side}.{key}": value for side in sides for key, value in CHANGES.items()}
    return busy_later(rule, instant).replace(changes | {"traffic.retries": retries})


def busy_later(rule, instant):
    steps = [
        {"from_s": 0, "rate_per_s": 20.0},
        {"from_s": 2000, "rate_per_s": 60.0},
        {"from_s": 4000, "rate_per_s": 20},
    ]
    s = stable(rule, instant, "LEAST_OUTSTANDING_REQUESTS")
    return s.replace({"traffic.profile": {"kind": "steps", "steps": steps}})


def assert_everything_happened(windows, sides, retried):
    for side in sides:
        rows = windows[windows["role"] == side]
        assert rows["requests_failed"].sum() > 0
        assert rows["desired_instance_count"].nunique() > 1
        assert rows["batch_size_mean"].max() > 1.1
    if retried:
        assert windows["retries"].sum() > 100
        assert (windows["calls_answered"] < windows["calls"]).any()


@pytest.mark.parametrize(("rule", "instant"), ALL_RULES)
def test_everything_that_changes_pools_together(rule, instant, monkeypatch):
    monkeypatch.setattr(parallel, "_REQUESTS_PER_CALL", 80_000)  # a dozen batches
    s = changing(rule, instant, ("source", "shadow"), RETRIED)
    single = simulate(s, workers=1)
    assert_everything_happened(single.windows, ("source", "shadow"), retried=True)
    assert single.requests["attempt"].max() >= 1
    for workers in (2, 3):
        same_to_the_bit(single, simulate(s, workers=workers))
    same_to_the_bit(single, simulate(s, workers=2, chunk=100))


@pytest.mark.parametrize(
    ("side", "instant"),
    [
        ("source", "response"),
        ("shadow", "arrival"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("source", "arrival"), ("shadow", "response"))),
    ],
)
def test_a_pool_that_changes_beside_one_that_does_not(side, instant, monkeypatch):
    monkeypatch.setattr(parallel, "_REQUESTS_PER_CALL", 80_000)
    s = changing("counter", instant, (side,))
    single = simulate(s, workers=1)
    assert_everything_happened(single.windows, (side,), retried=False)
    plain = simulate(busy_later("counter", instant), workers=1)
    other = "shadow" if side == "source" else "source"
    if (other, instant) != ("shadow", "response"):  # whose copies come when the other pool answers
        one, two = (r.windows.loc[r.windows["role"] == other, plain.windows.columns] for r in (single, plain))
        assert_frame_equal(one, two, check_exact=True)
    for workers in (2, 3):
        same_to_the_bit(single, simulate(s, workers=workers))


@pytest.mark.slow
def test_a_dask_cluster_with_pools_that_change():
    s = changing("hash", "response", ("source", "shadow"), RETRIED)
    with dask_executor() as executor:
        same_to_the_bit(simulate(s, workers=1), simulate(s, executor=executor))
