"""Pools that batch, scale, fail and are retried, against the oracle: every attempt, action and count."""

import math
from dataclasses import replace

import naive
import naive_events as events
import numpy as np
import pytest
from cases import scenario, scenarios_for_events, service
from event_dynamics import BATCHINGS, OUTAGES, RETRIES, SCALINGS
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowsim.engine import _event_kernel as e
from shadowsim.engine import parallel
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.run_frames import check_conserved, requests_frame, windows_frame

NAMES = ("source", "shadow")
EXAMPLES, MANY = 8, 400


def role(frame, name):
    return frame[frame["role"] == name].reset_index(drop=True)


def run(c, s, arrivals, chunk, workers=1):
    """The frames of a run with these columns, and its evented sides by role."""
    job = parallel.Job(c, arrivals, chunk, s.sample_requests, 0)
    counts = parallel.run(job, workers, None, lambda _: None)
    check_conserved(counts.tallies, counts.arrived)
    windows = windows_frame(s, c, counts)
    return windows, requests_frame(s, c, s.sample_requests, counts.samples, counts.tallies[0]), counts.evented


def reached(history):
    return [a for a in history.attempts if not a.status.startswith("lost")]


def check_attempts(rows, history):
    expected = sorted(reached(history), key=lambda a: (a.number, a.attempt))
    assert rows["request"].tolist() == [a.number for a in expected]
    assert rows["attempt"].tolist() == [a.attempt for a in expected]
    assert rows["arrival_s"].tolist() == [a.arrival for a in expected]
    assert rows["instance"].tolist() == [a.instance for a in expected]
    assert rows["status"].tolist() == [a.status for a in expected]
    for column, values in (
        ("wait_s", [a.start - a.arrival for a in expected]),
        ("service_s", [a.service for a in expected]),
        ("latency_s", [a.latency for a in expected]),
    ):
        np.testing.assert_array_equal(rows[column].to_numpy(), np.array(values, float), err_msg=column)


def check_windows(rows, c, history, name):
    pool, evented = c.pool(name), c.dynamics(name).evented
    here = [[] for _ in range(c.n_windows)]
    for a in history.attempts:
        here[naive.window_of(c, a.arrival)].append(a)
    samples = [[] for _ in range(c.n_windows)]
    for t, present in history.samples:
        samples[naive.window_of(c, t)] += present.values()
    sizes = [[] for _ in range(c.n_windows)]
    for t, size in history.batches:
        if t < c.horizon_s:
            sizes[naive.window_of(c, t)].append(size)
    for w, (_, row) in enumerate(rows.iterrows()):
        attempts = [a for a in here[w] if not a.status.startswith("lost")]
        counts = {status: sum(a.status == status for a in here[w]) for status in {a.status for a in here[w]}}

        def n(*statuses, counts=counts):
            return sum(counts.get(status, 0) for status in statuses)

        latencies = [a.latency for a in attempts if not math.isnan(a.latency)]
        assert row["Invocations"] == len(attempts)
        assert row["ModelLatency_SampleCount"] == len(latencies)
        assert row["Invocation4XXErrors"] == n("error_4xx")
        assert row["Invocation5XXErrors"] == n("error_5xx", "refused", "unavailable")
        assert row["InvocationModelErrors"] == n("error_4xx", "error_5xx", "refused", "timed_out", "failed")
        if name == "shadow":
            assert row["copies_lost_max_in_flight"] == n("lost_max_in_flight")
            assert row["copies_lost_max_per_s"] == n("lost_max_per_s")
        if latencies:
            assert row["ModelLatency_Average"] == pytest.approx(math.fsum(latencies) / len(latencies) * 1e6, rel=1e-12)
            assert row["ModelLatency_Minimum"] == min(latencies) * 1e6
            assert row["ModelLatency_Maximum"] == max(latencies) * 1e6
            exact = sorted(latencies)[math.ceil(0.9 * len(latencies)) - 1] * 1e6
            assert row["ModelLatency_p90"] == pytest.approx(exact, rel=1 / 128)
        begin, end = naive.bounds(c, w)
        if evented:
            length = end - begin
            assert row["requests_unavailable"] == n("unavailable")
            assert row["requests_failed"] == n("failed")
            assert row["serving_instance_count"] * length == pytest.approx(history.serving_s[w], abs=1e-9)
            assert row["existing_instance_count"] * length == pytest.approx(history.existing_s[w], abs=1e-9)
            up_s = history.up_s[w] * pool.n_workers
            if up_s > 0.0:
                assert row["utilisation"] * up_s == pytest.approx(history.busy_s[w], abs=1e-9)
            assert row["batches"] == len(sizes[w])
            if sizes[w]:
                assert row["batch_size_mean"] == sum(sizes[w]) / len(sizes[w])
            if samples[w]:
                assert row["ConcurrentRequestsPerModel_Minimum"] == min(samples[w])
                assert row["ConcurrentRequestsPerModel_Maximum"] == max(samples[w])


def check_callers(rows, c, side, history):
    """The callers' books: calls by the window of their first attempt, and what is left of their tokens."""
    by_window = [[] for _ in range(c.n_windows)]
    for call in history.calls.values():
        by_window[naive.window_of(c, call.first_arrival)].append(call)
    for w, (_, row) in enumerate(rows.iterrows()):
        calls = by_window[w]
        assert row["calls"] == len(calls)
        assert row["calls_answered"] == sum(call.success for call in calls)
        if calls:
            total = math.fsum(call.end - call.first_arrival for call in calls)
            assert row["call_latency_mean_s"] == pytest.approx(total / len(calls), rel=1e-12, abs=1e-12)
    if c.source_dynamics.retries.quota >= 0:
        assert side.machines.tokens.tolist() == history.tokens


def check(s, c, arrivals, chunk, workers=1):
    *histories, kept_back = events.simulate(c, arrivals)
    windows, requests, sides = run(c, s, arrivals, chunk, workers)
    for name, history in zip(NAMES, histories, strict=True):
        check_attempts(role(requests, name), history)
        check_windows(role(windows, name), c, history, name)
        if name in sides:
            log = np.array(history.log, float).reshape(-1, e.ACTION_WIDTH)
            np.testing.assert_array_equal(sides[name].actions, log)
    if c.source_dynamics.retries.max_attempts > 1:
        check_callers(role(windows, "source"), c, sides["source"], histories[0])
    lost = role(windows, "shadow")["copies_lost_max_body_bytes"].tolist()
    assert lost == [kept_back.get(w, 0) for w in range(c.n_windows)]


def with_events(s, batching, scaled, outages, retries, sides):
    """Columns of a scenario with these events on the source's and the shadow's side; retries make both evented."""
    arrivals = arrivals_of(s)
    source = events.dynamics(batching, scaled, outages, retries)
    shadow = source._replace(retries=events.NO_RETRIES, outages=outages._replace(column=e.SHADOW_OUTAGE))
    if retries.max_attempts == 1:
        source, shadow = (d if here else events.PLAIN for d, here in zip((source, shadow), sides, strict=True))
    c = replace(columns(s, arrivals), source_dynamics=source, shadow_dynamics=shadow, forgets=False)
    return c, arrivals


SIDES = st.sampled_from([(True, True), (True, False), (False, True)])
ANY = (scenarios_for_events(), BATCHINGS, SCALINGS, OUTAGES, RETRIES, SIDES)
CHUNKS = st.sampled_from([1, 2, 7, 64, 4096])


@settings(max_examples=EXAMPLES)
@given(*ANY, CHUNKS, st.sampled_from([1, 2]))
def test_equals_the_oracle_attempt_by_attempt(s, batching, scaled, outages, retries, sides, chunk, workers):
    s = s.replace({"horizon_s": 150.0})
    c, arrivals = with_events(s, batching, scaled, outages, retries, sides)
    check(s, c, arrivals, chunk, workers)


@pytest.mark.slow
@settings(max_examples=MANY)
@given(*ANY, CHUNKS, st.sampled_from([1, 2]))
def test_equals_the_oracle_in_many_more_mixtures(s, batching, scaled, outages, retries, sides, chunk, workers):
    s = s.replace({"horizon_s": 150.0})
    c, arrivals = with_events(s, batching, scaled, outages, retries, sides)
    check(s, c, arrivals, chunk, workers)


def test_an_evented_side_grows_while_it_runs():
    """More requests at once than the first arrays hold, more windows open, and more instances than at first."""
    s = scenario({"process": "poisson", "rate_per_s": 60.0}, service(mean_s=1.0), horizon_s=300.0, period_s=10.0)
    scaled = e.Scaling(e.INVOCATIONS, 60.0, 1, 50, 0.0, 0.0, 1, 1, 0.0, 0.0)
    c, arrivals = with_events(s, events.NO_BATCHING, scaled, events.outages(), events.NO_RETRIES, (True, True))
    check(s, c, arrivals, 64)
    job = parallel.Job(c, arrivals, 64, 0, 0)
    machines = parallel.run(job, 1, None, lambda _: None).evented["source"].machines
    assert machines.node.shape[0] > 1024
    assert machines.open_n.size > 4
    assert machines.count[e.M_NEXT_NUMBER] > 20


def test_work_far_longer_than_usual_ends_in_its_turn(tmp_path):
    """Most work takes half a second, and ends at the same instants; some a thousand turns of the timing wheel."""
    times = [i // 3 * 0.5 for i in range(600)] + [200.0 + 50.0 * i for i in range(16)]
    rows = [f"{t},{900.0 if i % 150 == 7 else 700.0 if i % 211 == 9 else 0.5}" for i, t in enumerate(times)]
    (tmp_path / "t.csv").write_text("time,size\n" + "\n".join(rows) + "\n")
    traffic = {"process": "trace", "path": "t.csv", "time_column": "time"}
    served = {"time": {"law": "linear", "base_s": 0.0, "size": 1.0}, "workers": 3}
    s = scenario(traffic, served, source_instances=3, shadow_instances=2, base_dir=tmp_path, horizon_s=950.0)
    # listed failures, one while workers of the instance are to end at one instant
    outages = events.outages([(1, 20.25, 5.0), (0, 300.0, 2.0)])
    c, arrivals = with_events(s, events.NO_BATCHING, events.NO_SCALING, outages, events.NO_RETRIES, (True, True))
    for mean_s in (c.source.mean_s, 1e-3):  # the wheel is made for the mean, which may mislead
        pools = {name: c.pool(name)._replace(mean_s=mean_s, buckets_per_s=64.0 / mean_s) for name in NAMES}
        check(s, replace(c, **pools), arrivals, 64)
