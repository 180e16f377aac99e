"""Draws, the logarithm, tables and buckets: what is published and must never change."""

import math
import re
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import pytest
from cases import scenario, service
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from shadowsim import default_scenario, simulate
from shadowsim.engine import _kernel as k
from shadowsim.engine.arrivals import arrivals_of
from shadowsim.engine.columns import columns
from shadowsim.engine.event_run import new_event_side
from shadowsim.engine.run_state import NO_ARRIVALS, new_sample

BITS = 2**64
WORDS = st.integers(0, BITS - 1)


def mix(z):
    """splitmix64's finaliser in Python's own integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % BITS
    return z ^ (z >> 31)


def word(seed, column, window, i):
    golden = 0x9E3779B97F4A7C15
    key = mix((mix((mix(seed) + golden * (column + 1)) % BITS) + golden * (window + 1)) % BITS)
    return mix((key + golden * i) % BITS)


def engine_word(seed, column, window, i):
    with np.errstate(over="ignore"):
        key = np.uint64(k.key(np.uint64(seed), column, window))
        return int(k.mix(key + k.GOLDEN * np.uint64(i)))


def test_the_finaliser_is_splitmix64():
    """The first outputs of splitmix64 seeded with 0, as its authors print them."""
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F, 0xF88BB8A8724C81EC, 0x1B39896A51A8749B]
    with np.errstate(over="ignore"):
        assert [int(k.mix(k.GOLDEN * np.uint64(i + 1))) for i in range(5)] == known


@pytest.mark.parametrize(
    ("seed", "column", "window", "i", "expected"),
    [
        (7, k.ARRIVAL, 0, 0, 0x28645F5B62C2ADA4),
        (7, k.SHADOW_SERVICE, 10079, 59999, 0x55F26D146827D301),
        (BITS - 1, k.REQUEST_BYTES, 2**31, 2**31, 0xBE2D23E7541E81FC),
    ],
)
def test_published_vectors(seed, column, window, i, expected):
    assert engine_word(seed, column, window, i) == word(seed, column, window, i) == expected


@given(WORDS, st.integers(0, 1000), st.integers(0, 2**40), st.integers(0, 2**40))
def test_draws_are_the_published_function(seed, column, window, i):
    assert engine_word(seed, column, window, i) == word(seed, column, window, i)


def test_columns_are_a_published_table():
    assert [k.ARRIVAL, k.COPY] == [0, 1]
    assert [k.SOURCE_SERVICE, k.SOURCE_ROUTE, k.SOURCE_ERROR, k.SOURCE_RESPONSE_BYTES] == [2, 3, 4, 5]
    assert [k.SHADOW_SERVICE, k.SHADOW_ROUTE, k.SHADOW_ERROR, k.SHADOW_RESPONSE_BYTES] == [6, 7, 8, 9]
    assert k.REQUEST_BYTES == 10
    assert [k.SESSION, k.SESSION_COPY, k.MODULATION] == [11, 12, 13]


@given(WORDS)
def test_uniforms_lie_in_the_half_open_interval(z):
    u = k.uniform(np.uint64(z))
    assert 0.0 < u <= 1.0
    assert u == ((z >> 11) + 1) / 2**53


def uniforms(seed, column, window, n):
    out = np.empty(n)
    with np.errstate(over="ignore"):
        k.uniform_all(np.uint64(k.key(np.uint64(seed), column, window)), np.arange(n), out)
    return out


@pytest.mark.parametrize("column", range(11))
@pytest.mark.parametrize("window", [0, 10079])
def test_draws_are_uniform_and_independent(column, window):
    """Kolmogorov-Smirnov and serial correlations at lags 1..3, each at the level 1e-5: 88 tests, one alarm in 1,000."""
    n = 20_000
    u = uniforms(7, column, window, n)
    assert stats.kstest(u, "uniform").pvalue > 1e-5
    for lag in (1, 2, 3):
        r = np.corrcoef(u[:-lag], u[lag:])[0, 1]
        assert abs(r) * math.sqrt(n) < stats.norm.isf(0.5e-5)


def test_columns_windows_and_seeds_are_uncorrelated():
    """All 351 pairs of 27 series, at the level 1e-4 together (Bonferroni)."""
    n = 20_000
    series = [uniforms(s, c, w, n) for s in (0, 1, 2) for c in (0, 1, 2) for w in (0, 1, 2)]
    r = np.corrcoef(series)[np.triu_indices(len(series), 1)]
    assert r.size == 351
    assert np.abs(r).max() * math.sqrt(n) < stats.norm.isf(0.5e-4 / r.size)


def exact_neg_log(u):
    with localcontext() as context:
        context.prec = 40
        return -Decimal(u).ln()


EDGES = [2.0**-53, 1.0 - 2.0**-53, 0.5, 0.6875, math.nextafter(0.6875, 0), 0.75, 1.0 - 2.0**-8, 1.0 - 2.0**-7]


@given(st.integers(1, 2**53).map(lambda n: n * 2.0**-53) | st.sampled_from(EDGES))
def test_the_logarithm_is_accurate(u):
    x, exact = k.neg_log(u), exact_neg_log(u)
    assert abs(Decimal(x) - exact) <= Decimal("4e-16") * max(1, exact)


def test_the_logarithm_at_one_and_near_it():
    assert k.neg_log(1.0) == 0.0
    near = [k.neg_log(1.0 - i * 2.0**-53) for i in range(1, 2000)]
    assert near[0] == 2.0**-53
    assert all(a < b for a, b in pairwise(near))


@given(st.floats(0, 1e6))
def test_a_latency_lies_in_its_bucket(x):
    edges = k.bucket_edges()
    b = k.bucket_of(x)
    assert b == 0 or edges[b] <= x
    assert b == k.BUCKETS - 1 or x < edges[b + 1]


def test_buckets_are_log_linear_and_narrow():
    edges = k.bucket_edges()
    assert edges[0] == 2.0**-20
    assert edges[-1] == 2.0**12
    width = np.diff(edges) / edges[:-1]
    assert width.max() <= 0.008
    assert [k.bucket_of(e) for e in edges[:-1]] == list(range(k.BUCKETS))


@given(WORDS)
def test_a_draw_interpolates_its_table(z):
    """Against numpy's interpolation of the quantile as a function of the tail probability."""
    v = k.table_tails()
    lower, upper = -1.0 / v, 1.0 / v
    table = np.concatenate([lower, lower[-1:], upper, upper[-1:]])
    tail = ((z >> 11) + 1) / 2**54
    expected = np.interp(tail, v, upper if z & 1 else lower)
    assert k.draw(np.uint64(z), table) == pytest.approx(expected, rel=1e-12)


@given(WORDS.filter(bool), st.data())
def test_the_mth_set_bit(word, data):
    places = [i for i in range(64) if word >> i & 1]
    m = data.draw(st.integers(0, len(places) - 1))
    with np.errstate(over="ignore"):
        assert k.select(np.uint64(word), np.uint64(m)) == places[m]


def test_each_variant_of_the_kernel_is_compiled_once():
    """A second compilation would mean that a caller passed other types: an int for a float, a strided array."""
    poisson, constant = {"process": "poisson", "rate_per_s": 1}, {"process": "constant", "rate_per_s": 2.5}
    several = {"source.instance_count": 2}  # one instance needs no choice
    for least in ({}, several | {"endpoint": {"routing": "LEAST_OUTSTANDING_REQUESTS"}}):
        simulate(scenario(poisson, service("deterministic", 1)).replace(least))
        simulate(scenario(poisson | {"rate_per_s": 2.5}, service(), share=7).replace(least))
        simulate(scenario(constant | {"request_bytes": 3}, service(queue_limit=2), share=7).replace(least))
    variants = [signature[2:4] for signature in getattr(k.run, "signatures", [])]
    assert len(set(variants)) == len(variants) == (0 if numba.config.DISABLE_JIT else 3)


def test_pools_with_events_have_three_variants(tmp_path):
    """For tokens, for prefix caches and for all else; a further one, by a read-only array, takes most of a minute."""
    (tmp_path / "t.csv").write_text("time,who,n,names\n0,7,1,5 6\n1,8,1,5\n")
    drawn = {"prompt": {"law": "deterministic", "mean_tokens": 1}, "output": {"law": "deterministic", "mean_tokens": 1}}
    room = {"max_sequences": 1, "max_step_tokens": 16, "kv_tokens": 1024, "step": {"base_s": 0.01}}
    recorded = {"prompt": "n", "output": "n", "prefix": {"hashes": "names", "hash_tokens": 16, "cache_tokens": 99}}
    groups = {"prefix": {"length": 16, "groups": 2, "cache_tokens": 99}}
    poisson = {"process": "poisson", "rate_per_s": 1.0, "retries": "legacy", "request_bytes": 3}
    trace = {"process": "trace", "path": "t.csv", "sessions": "who"}
    policy = {"metric": "InvocationsPerInstance", "target": 60, "min": 1, "max": 2}
    outage = {"outages": [{"instance": 0, "at_s": 1.0, "for_s": 1.0}]}
    linear = {"time": {"law": "linear", "base_s": 0.1, "n": 0.1}, "workers": 1}
    batches = {"batching": {"max_size": 2, "max_delay_s": 0.1, "marginal": 0.1}}

    def types(traffic, block, **more):
        s = scenario(traffic, block, base_dir=tmp_path, horizon_s=2.0, **more)
        arrivals = arrivals_of(s)
        c = columns(s, arrivals)
        for role in ("source", "shadow"):
            side = new_event_side(c, role, arrivals, 64, new_sample(0, 1.0, 0, 1, True))
            for some in (NO_ARRIVALS, arrivals.of_windows(0, 1)):
                yield tuple(map(numba.typeof, side._arguments(0, some)))

    plain = {*types(poisson, service() | batches | outage), *types(trace, linear | outage, mirror={"rule": "hash"})}
    plain |= {*types(poisson, service(slowdown=[2.0], error_5xx=0.1) | {"scaling": policy})}
    tokens = {*types(poisson, {"tokens": drawn | room})}
    prefixes = {*types(poisson, {"tokens": drawn | room | groups})}
    prefixes |= {*types(trace, {"tokens": room | recorded}, mirror={"rule": "hash", "instant": "response"})}
    assert (len(plain), len(tokens), len(prefixes)) == (1, 1, 1)


def test_the_kernel_uses_no_function_whose_bits_vary():
    """No call into a mathematics library: only sqrt, floor and ceil, which IEEE 754 fixes."""
    source = Path(k.__file__).read_text()
    assert set(re.findall(r"math\.(\w+)", source)) <= {"sqrt", "floor", "ceil"}
    called = set(re.findall(r"np\.(\w+)\(", source))
    assert called <= {"float64", "int64", "uint64", "int32", "uint32", "empty", "arange"}
    assert "**" not in re.sub(r"2\.0\s?\*\*\s?-?[\w(]|10\*\*", "", source.split('"""', 2)[2])
    assert "fastmath" not in source.replace("no fastmath", "")


def test_tables_are_rebuilt_to_the_bit():
    a, b = (columns(default_scenario(), arrivals_of(default_scenario())) for _ in range(2))
    assert a.source.table.tobytes() == b.source.table.tobytes()
