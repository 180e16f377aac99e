"""The engine against the oracle, request by request, and invariants that hold on every sample path."""

import math
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import naive
import numpy as np
import pandas as pd
import pytest
from cases import scenario, scenarios, service
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from shadowsim import InputError, default_scenario, simulate
from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.parallel import Job

JIT = not os.environ.get("NUMBA_DISABLE_JIT")
EXAMPLES, MANY = 15, 50
ROLES = ("source", "shadow")


def same_to_the_bit(a, b):
    for name in ("windows", "latency", "requests"):
        one, other = getattr(a, name), getattr(b, name)
        if not one.equals(other):  # which is quick, and does not say where
            assert_frame_equal(one, other, check_exact=True, obj=name)


def role(frame, name):
    return frame[frame["role"] == name].reset_index(drop=True)


def check_requests(result, c, everything, name):
    pool = getattr(c, name)
    expected = sorted((r for r in everything if not r.lost), key=lambda r: r.number)
    rows = role(result.requests, name)
    assert rows["request"].tolist() == [r.number for r in expected]
    assert rows["arrival_s"].tolist() == [r.arrival for r in expected]
    assert rows["instance"].tolist() == [r.instance for r in expected]
    assert rows["status"].tolist() == [naive.status(c, pool, r) for r in expected]
    for column, of in (
        ("wait_s", lambda r: r.wait),
        ("service_s", lambda r: r.service),
        ("latency_s", lambda r: min(r.latency, pool.timeout_s)),
    ):
        want = [math.nan if r.refused else of(r) for r in expected]
        np.testing.assert_array_equal(rows[column].to_numpy(), np.array(want, float), err_msg=column)


def check_windows(result, c, everything, in_flight, name):
    pool = getattr(c, name)
    rows = role(result.windows, name)
    expected = [r for r in everything if not r.lost]
    by_window = {}
    for r in everything:
        by_window.setdefault(naive.window_of(c, r.arrival), []).append(r)
    for w in range(c.n_windows):
        row, (begin, end) = rows.iloc[w], naive.bounds(c, w)
        here = [r for r in by_window.get(w, []) if not r.lost]
        accepted = [r for r in here if not r.refused]
        status = [naive.status(c, pool, r) for r in here]
        assert row["time_s"] == begin
        assert row["Invocations"] == len(here)
        assert row["ModelLatency_SampleCount"] == len(accepted)
        assert row["Invocation4XXErrors"] == status.count("error_4xx")
        assert row["Invocation5XXErrors"] == status.count("error_5xx") + status.count("refused")
        assert row["InvocationModelErrors"] == len(here) - status.count("answered")
        if name == "shadow":
            lost = [r.lost for r in by_window.get(w, [])]
            assert row["copies_made"] == len(here)
            assert row["copies_lost_max_in_flight"] == lost.count("max_in_flight")
            assert row["copies_lost_max_per_s"] == lost.count("max_per_s")
        if in_flight.get(w):
            assert row["ConcurrentRequestsPerModel_Minimum"] == min(in_flight[w])
            assert row["ConcurrentRequestsPerModel_Maximum"] == max(in_flight[w])
        else:
            assert math.isnan(row["ConcurrentRequestsPerModel_Maximum"])
        worked = math.fsum(max(0.0, min(r.finish, end) - max(r.start, begin)) for r in expected if not r.refused)
        capacity = (end - begin) * pool.n_instances * pool.n_workers
        assert row["utilisation"] == pytest.approx(worked / capacity, abs=1e-9)
        offered = math.fsum(r.service for r in here) / capacity
        assert row["offered_load"] == pytest.approx(offered, rel=1e-12)
        if not accepted:
            assert math.isnan(row["ModelLatency_Average"])
            continue
        # one accumulator a window, added in order of arrival: the very same sums
        latencies = [min(r.latency, pool.timeout_s) for r in accepted]
        total, waits = 0.0, 0.0
        for r, x in zip(accepted, latencies, strict=True):
            total, waits = total + x, waits + r.wait
        assert row["ModelLatency_Average"] == total / len(accepted) * 1e6
        assert row["wait_mean_s"] == waits / len(accepted)
        assert row["ModelLatency_Minimum"] == min(latencies) * 1e6
        assert row["ModelLatency_Maximum"] == max(latencies) * 1e6
        for column, q in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99_9", 0.999)):
            exact = sorted(latencies)[math.ceil(q * len(latencies)) - 1] * 1e6
            assert row[f"ModelLatency_{column}"] == pytest.approx(exact, rel=1 / 128)


def check(s, chunk):
    result = simulate(s, chunk=chunk)
    arrivals = arrivals_of(s)
    c = columns(s, arrivals)
    source, shadow, kept_back = naive.simulate(c, arrivals)
    for name, (requests, in_flight) in (("source", source), ("shadow", shadow)):
        check_requests(result, c, requests, name)
        check_windows(result, c, requests, in_flight, name)
    lost = role(result.windows, "shadow")["copies_lost_max_body_bytes"].tolist()
    assert lost == [kept_back.get(w, 0) for w in range(c.n_windows)]


@settings(max_examples=EXAMPLES)
@given(scenarios(), st.sampled_from([1, 2, 7, 64, 4096]))
def test_equals_the_oracle_request_by_request(s, chunk):
    check(s, chunk)


@pytest.mark.slow
@settings(max_examples=15 * MANY)
@given(scenarios(), st.sampled_from([1, 2, 7, 64, 4096]))
def test_equals_the_oracle_in_many_more_scenarios(s, chunk):
    check(s, chunk)


TRACES = (
    st.lists(st.integers(0, 600), min_size=1, max_size=40),
    st.sampled_from([1, 3]),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([None, 0, 2]),
    st.sampled_from([1, 2, 64]),
)


@settings(max_examples=EXAMPLES // 3)
@given(*TRACES)
def test_equals_the_oracle_on_traces(tenths, repeat, speed, queue_limit, chunk):
    check_trace(tenths, repeat, speed, queue_limit, chunk)


@pytest.mark.slow
@settings(max_examples=5 * MANY)
@given(*TRACES)
def test_equals_the_oracle_on_many_more_traces(tenths, repeat, speed, queue_limit, chunk):
    check_trace(tenths, repeat, speed, queue_limit, chunk)


def check_trace(tenths, repeat, speed, queue_limit, chunk):
    assume(repeat == 1 or len(set(tenths)) > 1)
    with tempfile.TemporaryDirectory() as folder:
        rows = "\n".join(f"{t / 10},{1 + t % 7}" for t in sorted(tenths))
        Path(folder, "t.csv").write_text("time,size\n" + rows + "\n")
        s = scenario(
            {"process": "trace", "path": "t.csv", "time_column": "time", "repeat": repeat, "speed": speed},
            {"time": {"law": "linear", "base_s": 0.25, "size": 0.5}, "workers": 2, "queue_limit": queue_limit},
            {"time": {"law": "linear", "base_s": 0.0, "size": 0.25}, "workers": 1},
            base_dir=Path(folder),
            period_s=20.0,
            horizon_s=45.0,
        )
        check(s, chunk)


LEAST = {"routing": "LEAST_OUTSTANDING_REQUESTS"}


def burst(n, then_per_s, mean_s, timeout_s, instances, **more):
    """About n requests in 15 us, and few ones afterwards."""
    spike = {"at_s": 0.0, "for_s": 15e-6, "rate_per_s": n / 15e-6}
    traffic = {"process": "poisson", "profile": {"kind": "spikes", "base_per_s": then_per_s, "spikes": [spike]}}
    endpoint = LEAST | {"timeout_s": timeout_s}
    served, pools = service("exponential", mean_s), {"source_instances": instances, "shadow_instances": instances}
    return scenario(traffic, served, **pools, endpoint=endpoint, horizon_s=3e3, period_s=10.0, **more)


@pytest.mark.parametrize(
    ("instances", "timeout_s"),
    [(3, 1e3), *(pytest.param(n, 9e3, marks=pytest.mark.slow) for n in (1, 2, 65))],
)
def test_a_backlog_of_hundreds_per_instance_equals_the_oracle(instances, timeout_s):
    check(burst(1200, 0.05, 1.6 * instances, timeout_s, instances, mirror={"max_in_flight": 500}), 4096)


def test_a_backlog_reaches_every_part_of_the_structures_that_hold_it():
    s = burst(1200, 0.05, 4.0, 9e3, 2)
    arrivals = arrivals_of(s)
    state = Job(columns(s, arrivals), arrivals, 4096, 0, 0).new_state()
    for window in range(1, s.n_windows + 1):
        state.advance(window)
        flight = state.source.flight
        in_flight, base = int(flight.counts[k.F_TOTAL]), int(flight.counts[k.F_BASE])
        far = int(flight.counts[k.F_FAR])
        assert flight.outstanding.sum() == in_flight >= far
        assert base <= flight.outstanding.max() < base + k.LEVELS
        assert flight.at_level.sum() == 2
        if window == 1:
            assert far > 500
            assert base > 500
            assert [bool((lists >= 0).any()) for lists in flight.far] == [False, True, True, False]
    assert far < 200
    assert base < 200


@pytest.mark.slow
def test_a_week_of_constant_arrivals_is_exact():
    s = scenario({"process": "constant", "rate_per_s": 3.0}, service("deterministic", 0.25), horizon_s=604800.0)
    windows = role(simulate(s).windows, "source")
    assert len(windows) == 7 * 1440
    assert (windows["Invocations"] == 180).all()


@settings(max_examples=EXAMPLES // 3)
@given(scenarios())
def test_a_change_of_the_shadow_leaves_the_source_as_it_was(s):
    keeps_the_source(s)


@pytest.mark.slow
@settings(max_examples=2 * MANY)
@given(scenarios())
def test_many_more_changes_of_the_shadow_leave_the_source_as_it_was(s):
    keeps_the_source(s)


def keeps_the_source(s):
    other = s.replace(
        {
            "shadow.instance_count": 3,
            "shadow.time": {"law": "exponential", "mean_s": 9.0},
            "shadow.queue_limit": 1,
            "sampling_percentage": 77,
        }
    )
    a, b = simulate(s), simulate(other)
    for name in ("windows", "latency", "requests"):
        assert_frame_equal(role(getattr(a, name), "source"), role(getattr(b, name), "source"), check_exact=True)


@settings(max_examples=EXAMPLES // 3)
@given(scenarios(), st.integers(0, 100), st.integers(0, 100))
def test_a_greater_share_keeps_every_copy(s, a, b):
    keeps_copies(s, a, b)


@pytest.mark.slow
@settings(max_examples=2 * MANY)
@given(scenarios(), st.integers(0, 100), st.integers(0, 100))
def test_many_more_shares_keep_every_copy(s, a, b):
    keeps_copies(s, a, b)


def keeps_copies(s, a, b):
    """By a coin and by a hash, without caps; a counter spaces its copies differently."""
    rule = s.mirror_rule if s.mirror_rule != "counter" else "coin"
    s = s.replace({"mirror": {"rule": rule, "instant": "arrival"}})
    few, many = (
        set(role(simulate(s.replace({"sampling_percentage": p})).requests, "shadow")["request"]) for p in sorted((a, b))
    )
    assert few <= many


def test_the_share_has_no_edge_cases():
    s = scenario({"process": "poisson", "rate_per_s": 50.0}, horizon_s=200.0)
    for percent in (0, 100):
        w = simulate(s.replace({"sampling_percentage": percent})).windows
        assert role(w, "shadow")["Invocations"].sum() == role(w, "source")["Invocations"].sum() * percent / 100


def test_same_seed_same_bits_and_another_seed_others():
    s = default_scenario().replace({"horizon_s": 1800.0})
    first = simulate(s)
    same_to_the_bit(first, simulate(s))
    same_to_the_bit(first, simulate(s, chunk=777))
    other = simulate(s.replace({"seed": 8}))
    assert not first.windows["ModelLatency_Average"].equals(other.windows["ModelLatency_Average"])


def test_compiled_and_uncompiled_code_give_the_same_bits(tmp_path):
    s = scenario(
        {
            "process": "poisson",
            "profile": {"kind": "linear", "from_per_s": 5.0, "to_per_s": 30.0, "to_s": 100.0},
            "request_bytes": {"law": "lognormal", "mean_bytes": 900.0, "scv": 3.0},
            "response_bytes": 64,
        },
        service("lognormal", 0.05, 2, queue_limit=3, error_4xx=0.01, error_5xx=0.02),
        service("gamma", 0.07, 1),
        source_instances=2,
        endpoint={"timeout_s": 0.3},
        capture=True,
        horizon_s=130.0,
        sample_requests=500,
    )
    s.save(tmp_path / "s.json")
    code = "import sys; from shadowsim import simulate; simulate(sys.argv[1]).save(sys.argv[2])"
    env = os.environ | {"NUMBA_DISABLE_JIT": "1" if JIT else "0"}  # the other way than here
    subprocess.run([sys.executable, "-c", code, tmp_path / "s.json", tmp_path / "there"], env=env, check=True)
    simulate(s).save(tmp_path / "here")
    for name in ("windows", "latency", "requests"):
        here, there = (pd.read_parquet(tmp_path / where / f"{name}.parquet") for where in ("here", "there"))
        assert len(here) > 0
        assert_frame_equal(here, there, check_exact=True)


def test_doubling_every_time_doubles_every_latency_to_the_bit():
    def run(factor):
        s = scenario(
            {"process": "poisson", "rate_per_s": 40.0 / factor},
            service("lognormal", 0.06 * factor, 3, queue_limit=4),
            service("exponential", 0.04 * factor, 1),
            endpoint={"timeout_s": 0.25 * factor},
            horizon_s=300.0 * factor,
            period_s=30.0 * factor,
        )
        return simulate(s).requests

    once, twice = run(1.0), run(2.0)
    assert once["status"].value_counts().min() > 10
    assert_frame_equal(once[["request", "instance", "status"]], twice[["request", "instance", "status"]])
    for column in ("arrival_s", "wait_s", "service_s", "latency_s"):
        np.testing.assert_array_equal(2.0 * once[column], twice[column])


def test_one_more_server_makes_no_request_wait_longer():
    s = scenario({"process": "poisson", "rate_per_s": 20.0}, service("lognormal", 0.2, 3, scv=3.0), horizon_s=600.0)
    waits = [role(simulate(s.replace({"source.workers": n})).requests, "source")["wait_s"] for n in (3, 4, 5, 8, 9)]
    for fewer, more in pairwise(waits):
        assert (more <= fewer).all()
        assert more.sum() < fewer.sum()


@settings(max_examples=EXAMPLES // 3)
@given(scenarios())
def test_requests_are_conserved(s):
    conserved(s)


@pytest.mark.slow
@settings(max_examples=2 * MANY)
@given(scenarios())
def test_many_more_requests_are_conserved(s):
    conserved(s)


def conserved(s):
    r = simulate(s)
    for name in ROLES:
        w, q, bucket = role(r.windows, name), role(r.requests, name), role(r.latency, name)
        assert w["Invocations"].sum() == len(q)
        assert bucket["count"].sum() == w["ModelLatency_SampleCount"].sum() == (q["status"] != "refused").sum()
        assert w["InvocationModelErrors"].sum() == (q["status"] != "answered").sum()
        latency = q["latency_s"].dropna().to_numpy()
        inside = [
            ((b.low_s <= latency) & (latency < b.high_s)).sum()
            for b in bucket.groupby("low_s").first().reset_index().itertuples()
        ]
        assert inside == bucket.groupby("low_s")["count"].sum().tolist()
    shadow = role(r.windows, "shadow")
    assert shadow["copies_made"].tolist() == shadow["Invocations"].tolist()
    assert role(r.windows, "source")["copies_made"].isna().all()


def test_the_sample_is_the_first_by_a_hash_and_holds_whole_pairs():
    s = scenario({"process": "poisson", "rate_per_s": 200.0}, service(mean_s=0.001, workers=4), horizon_s=150.0)
    everything = simulate(s).requests
    c = columns(s, arrivals_of(s))
    n_before = np.concatenate([[0], np.cumsum(role(simulate(s).windows, "source")["Invocations"])])

    def order(request):
        window = int(np.searchsorted(n_before, request, side="right")) - 1
        return int(naive.z(c, k.COPY, window, request - int(n_before[window]))) & 0xFFFFFFFF

    numbers = role(everything, "source")["request"]
    first = sorted(numbers, key=lambda n: (order(n), n))
    for wanted in (0, 1, 300):
        sample = simulate(s.replace({"run.sample_requests": wanted})).requests
        assert role(sample, "source")["request"].tolist() == sorted(first[:wanted])
        expected = everything[everything["request"].isin(first[:wanted])].reset_index(drop=True)
        assert_frame_equal(sample, expected, check_exact=True)


def test_payloads_are_captured_on_both_sides():
    traffic = {
        "process": "poisson",
        "rate_per_s": 30.0,
        "request_bytes": {"law": "exponential", "mean_bytes": 1000.0},
        "response_bytes": 10,
    }
    refusing = service("exponential", 0.1, 1, queue_limit=0)
    r = simulate(scenario(traffic, refusing, capture=True, share=100))
    for name in ROLES:
        w, q = role(r.windows, name), role(r.requests, name)
        assert w["captured_records"].sum() == len(q)
        answered = q["response_bytes"].notna()
        assert (answered == q["status"].isin(["answered", "error_4xx", "error_5xx"])).all()
        assert 0 < answered.sum() < len(q)
        assert w["captured_bytes"].sum() == q["request_bytes"].sum() + 10 * answered.sum()
    source, shadow = role(r.requests, "source"), role(r.requests, "shadow")
    assert source["request_bytes"].tolist() == shadow["request_bytes"].tolist()
    off = simulate(scenario(traffic, refusing)).windows
    assert off["captured_records"].sum() == off["captured_bytes"].sum() == 0
    unknown = simulate(scenario({"process": "poisson", "rate_per_s": 3.0}, capture=True)).windows
    assert unknown["captured_bytes"].isna().all()
    assert unknown["captured_records"].sum() > 0


def test_windows_say_what_the_pools_are():
    w = simulate(scenario({"process": "poisson", "rate_per_s": 3.0}, source_instances=3)).windows
    assert w["role"].tolist() == list(ROLES) * (len(w) // 2)
    assert role(w, "source")["instance_count"].eq(3).all()
    assert (role(w, "source")["InvocationsPerInstance"] * 3 == role(w, "source")["Invocations"]).all()
    assert w["OverheadLatency_Average"].eq(2000.0).all()


@pytest.mark.parametrize("chunk", [0, -5])
def test_a_chunk_holds_at_least_one_request(chunk):
    with pytest.raises(InputError, match="chunk: must be a whole number >= 1"):
        simulate(default_scenario(), chunk=chunk)


def test_progress_is_silent_unless_wanted(capfd):
    s = default_scenario().replace({"horizon_s": 180})
    simulate(s)
    assert capfd.readouterr() == ("", "")
    simulate(s, progress=True)
    assert "windows" in capfd.readouterr().err


def test_a_run_of_one_window_shows_no_frozen_bar(capfd):
    simulate(default_scenario().replace({"horizon_s": 50}), progress=True)
    assert capfd.readouterr().err == ""
