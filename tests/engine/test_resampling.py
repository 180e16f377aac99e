"""A resampled trace is another one of the same kind: a function of the seed, in blocks, with all columns."""

import math

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import shadowsim as ss
from shadowsim.engine.resampling import trace_of

N = 600


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    rng = np.random.default_rng(3)
    gap_s = rng.exponential(0.5, N)
    table = pd.DataFrame({"t": np.cumsum(gap_s).round(6), "tokens": np.arange(1, N + 1)})
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    table.to_csv(path, index=False)
    return path


def scenario(file, resample, seed=7, **changes):
    traffic = {"process": "trace", "path": str(file), "time_column": "t", "time_unit": "s", "resample": resample}
    time = {"law": "linear", "base_s": 0.1, "tokens": 0.001}
    base = ss.default_scenario().replace({"traffic": traffic, "services.AllTraffic.time": time, "seed": seed})
    return base.replace({"run.sample_requests": 10_000, **changes})


def test_the_seed_alone_decides(file):
    one, again, other = (trace_of(scenario(file, True, seed)) for seed in (7, 7, 8))
    assert one.arrival_s.tolist() == again.arrival_s.tolist()
    assert one.arrival_s.tolist() != other.arrival_s.tolist()
    assert trace_of(scenario(file, False)).arrival_s.size == N


def test_blocks_keep_rows_in_order_with_their_gaps(file):
    plain, drawn = trace_of(scenario(file, None)), trace_of(scenario(file, {"mean_block": 20}))
    row = drawn.columns["tokens"].astype(int) - 1
    gap = np.diff(plain.arrival_s, prepend=plain.arrival_s[-1] - plain.pass_s)
    np.testing.assert_allclose(np.diff(drawn.arrival_s), gap[row[1:]], rtol=0, atol=1e-9)
    begins = 1 + np.count_nonzero(np.diff(row) % N != 1)
    # a block begins with probability 1/20, and 1 in N of those follow on by chance
    mean = row.size / 20 * (1 - 1 / N)
    assert abs(begins - mean) < 4 * math.sqrt(mean * 0.95)
    assert drawn.arrival_s[0] == 0.0
    assert drawn.arrival_s[-1] < scenario(file, None).horizon_s


def test_the_places_of_blocks_are_uniform(file):
    # with blocks of one request, rows are independent: a chi-square over 20 parts of the trace
    rows = np.concatenate([trace_of(scenario(file, {"mean_block": 1}, s)).columns["tokens"] for s in range(20)]) - 1
    counts = np.bincount((rows * 20 // N).astype(int), minlength=20)
    statistic = float(((counts - rows.size / 20) ** 2 / (rows.size / 20)).sum())
    assert statistic < 19 + 4 * math.sqrt(2 * 19)


def test_frames_do_not_depend_on_workers(file):
    one = ss.simulate(scenario(file, True), workers=1)
    two = ss.simulate(scenario(file, True), workers=3)
    for name in ("windows", "latency", "requests"):
        assert_frame_equal(getattr(one, name), getattr(two, name))
    # the work of each request is that of its own row
    source = one.requests[one.requests["role"] == "source"]
    tokens = trace_of(scenario(file, True)).columns["tokens"][source["request"].to_numpy()]
    np.testing.assert_allclose(source["service_s"], 0.1 + 0.001 * tokens)


def test_replications_of_a_trace_differ_and_give_an_interval(file):
    fixed, drawn = (ss.summarise(ss.replicate(scenario(file, r), 5)) for r in (None, True))
    requests = drawn[(drawn["figure"] == "requests") & (drawn["role"] == "source")]
    assert float(requests["half_width"].iloc[0]) > 0.0
    assert float(fixed[(fixed["figure"] == "requests") & (fixed["role"] == "source")]["half_width"].iloc[0]) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("law", ["exponential", "bursts"])
def test_the_interval_covers_what_other_recordings_would_show(tmp_path, law):
    # 60 recordings of a renewal process; each is resampled 8 times. The mean over recordings of the variance between
    # resamples must be near the variance between recordings: both have chi-square scatter, 59 and 420 degrees of
    # freedom, so that their ratio lies within 1 +- 4 sqrt(2/59 + 2/420).
    rng = np.random.default_rng(17)
    counts, within = [], []
    for i in range(60):
        gap_s = rng.exponential(1.0, 900) if law == "exponential" else rng.gamma(0.25, 4.0, 900)
        at = np.cumsum(gap_s)
        at = at[at < 400.0]
        counts.append(at.size)
        path = tmp_path / f"{i}.csv"
        pd.DataFrame({"t": at.round(6)}).to_csv(path, index=False)
        drawn = []
        for seed in range(8):
            traffic = {"process": "trace", "path": str(path), "time_column": "t", "time_unit": "s", "span_s": 400.0,
                       "resample": {"mean_block": 3}}  # fmt: skip
            made = ss.default_scenario().replace({"traffic": traffic, "seed": seed, "horizon_s": 400.0})
            drawn.append(trace_of(made).arrival_s.size)
        within.append(np.var(drawn, ddof=1))
    ratio = float(np.mean(within) / np.var(counts, ddof=1))
    assert abs(ratio - 1.0) < 4.0 * math.sqrt(2 / 59 + 2 / 420)
