"""Mean waits against queueing theory.

A batch is a window of at least 100 relaxation times of the queue, so batch means are as good as independent; the mean
of 64 of them (the first, which starts empty, left out) must lie within four of its standard errors of the exact value,
and must not when the mean service time is 1 % longer at a load of 0.95: the test can tell. One seed, never changed.
"""

import math

import numpy as np
import pytest
from cases import scenario, scenarios, service
from hypothesis import given, settings

from shadowsim import simulate

BATCHES = 64
LOADS = [0.5, 0.8, 0.95]
SCV = 2.0


def erlang_c_wait(load, workers):
    """Mean wait of M/M/c in service times (Erlang, 1917)."""
    a = load * workers
    below = sum(a**n / math.factorial(n) for n in range(workers))
    top = a**workers / math.factorial(workers) / (1 - load)
    return top / (below + top) / (workers * (1 - load))


def pollaczek_khinchine(load, scv):
    """Mean wait of M/G/1 in service times (Pollaczek, 1930; Khinchine, 1932)."""
    return load * (1 + scv) / (2 * (1 - load))


def crommelin_wait(load, workers):
    """Mean wait of M/D/c in service times (Crommelin, 1932).

    Whoever is in service now has left a service time later, and nobody who is not: so the number there goes from n to
    max(n - c, 0) plus a Poisson number of arrivals, and its stationary law is that at any time. The mean number that
    waits is the wait by Little's law. 1,000 states hold all but 10^-40 of the time at loads up to 0.95.
    """
    states, a = np.arange(1000), load * workers
    arrivals = np.exp(states * math.log(a) - a - np.array([math.lgamma(n + 1) for n in states]))
    step = np.zeros((1000, 1000))
    for n in states:
        left = max(n - workers, 0)
        step[n, left:] = arrivals[: 1000 - left]
    # p (step - 1) = 0, of which one equation is replaced by sum(p) = 1
    balance = (step - np.eye(1000)).T
    balance[-1] = 1.0
    chance = np.linalg.solve(balance, np.eye(1000)[-1])
    return float(chance @ np.maximum(states - workers, 0)) / a


def test_crommelins_wait_with_one_worker_is_that_of_m_d_1():
    for load in LOADS:
        assert crommelin_wait(load, 1) == pytest.approx(pollaczek_khinchine(load, 0.0), rel=1e-9)


def batch_s(load, workers, scv):
    """100 relaxation times, (1 + SCV) / 2 / (c (1 - sqrt(load))^2) each for a mean service of 1 s, and 1,000 s more."""
    return 1000.0 + 100.0 * (1 + scv) / 2 / (workers * (1 - math.sqrt(load)) ** 2)


# name: (service, workers, SCV, mean wait in service times)
QUEUES = {
    "M/M/1": (service("exponential", 1.0, 1), 1.0, lambda load: pollaczek_khinchine(load, 1.0)),
    "M/M/4": (service("exponential", 1.0, 4), 1.0, lambda load: erlang_c_wait(load, 4)),
    "M/D/1": (service("deterministic", 1.0, 1), 0.0, lambda load: pollaczek_khinchine(load, 0.0)),
    "M/D/4": (service("deterministic", 1.0, 4), 0.0, lambda load: crommelin_wait(load, 4)),
    "M/G/1 lognormal": (service("lognormal", 1.0, 1, scv=SCV), SCV, lambda load: pollaczek_khinchine(load, SCV)),
    "M/G/1 gamma": (service("gamma", 1.0, 1, scv=SCV), SCV, lambda load: pollaczek_khinchine(load, SCV)),
}
AMPLE = service("deterministic", 0.01, 64)


def waits(load, block, scv, *, role="source", share=50, instances=1, longer=1.0, streams=(1.0,)):
    """Batch means of the wait, in seconds, of a pool whose mean service time is `longer` seconds.

    `streams` are the shares of the traffic that come from as many Poisson processes.
    """
    block = block | {"time": block["time"] | {"mean_s": longer}}
    period = batch_s(load, block["workers"], scv)
    rate = load * block["workers"] * instances
    rate *= 100 / share if role == "shadow" else 1
    pools = (AMPLE, block) if role == "shadow" else (block, AMPLE)
    s = scenario(
        [{"process": "poisson", "rate_per_s": part * rate} for part in streams],
        *pools,
        share=share,
        **{f"{role}_instances": instances},
        endpoint={"timeout_s": 1e9},
        horizon_s=(BATCHES + 1) * period,
        period_s=period,
        seed=2026,
        sample_requests=0,
    )
    w = simulate(s).windows
    w = w[w["role"] == role].iloc[1:]
    assert len(w) == BATCHES
    # a ratio estimator: batches hold nearly, not quite, the same number of requests
    return w["wait_mean_s"].to_numpy() * (w["Invocations"] / w["Invocations"].mean()).to_numpy()


def errors_from(batches, expected):
    """How many standard errors the mean of batch means is away from the expectation."""
    return (batches.mean() - expected) / (batches.std(ddof=1) / math.sqrt(len(batches)))


@pytest.mark.parametrize("load", [0.5, 0.8, pytest.param(0.95, marks=pytest.mark.slow)])
@pytest.mark.parametrize("queue", QUEUES)
def test_mean_wait(queue, load):
    block, scv, wait = QUEUES[queue]
    assert abs(errors_from(waits(load, block, scv), wait(load))) < 4


@pytest.mark.parametrize("queue", ["M/D/4", *(pytest.param(q, marks=pytest.mark.slow) for q in QUEUES if q != "M/D/4")])
def test_a_service_longer_by_one_percent_is_seen(queue):
    block, scv, wait = QUEUES[queue]
    assert errors_from(waits(0.95, block, scv, longer=1.01), wait(0.95)) > 4


@pytest.mark.parametrize("load", [0.5, 0.8, pytest.param(0.95, marks=pytest.mark.slow)])
def test_the_shadow_of_a_coin_is_an_m_g_1_at_its_share_of_the_rate(load):
    block, scv, wait = QUEUES["M/G/1 lognormal"]
    assert abs(errors_from(waits(load, block, scv, role="shadow", share=30), wait(load))) < 4


@pytest.mark.slow
def test_the_shadows_test_has_power_too():
    block, scv, wait = QUEUES["M/G/1 lognormal"]
    assert errors_from(waits(0.95, block, scv, role="shadow", share=30, longer=1.01), wait(0.95)) > 4


def test_random_routing_over_instances_is_as_many_queues():
    block, scv, wait = QUEUES["M/M/4"]
    assert abs(errors_from(waits(0.8, block, scv, instances=5), wait(0.8))) < 4


@pytest.mark.parametrize("load", [0.5, 0.8, pytest.param(0.95, marks=pytest.mark.slow)])
def test_poisson_streams_together_make_an_m_m_1(load):
    block, scv, wait = QUEUES["M/M/1"]
    assert abs(errors_from(waits(load, block, scv, streams=(0.25, 0.75)), wait(load))) < 4


@pytest.mark.slow
def test_the_streams_test_has_power_too():
    block, scv, wait = QUEUES["M/M/1"]
    assert errors_from(waits(0.95, block, scv, streams=(0.25, 0.75), longer=1.01), wait(0.95)) > 4


@pytest.mark.slow
def test_batches_are_long_enough_to_be_independent():
    """Lag-1 correlation of the batch means within what 64 independent ones show (four standard errors of 1/8)."""
    for queue in QUEUES:
        block, scv, _ = QUEUES[queue]
        b = waits(0.95, block, scv)
        assert abs(np.corrcoef(b[:-1], b[1:])[0, 1]) < 4 / math.sqrt(BATCHES)


def windows_of(s, role):
    w = simulate(s).windows
    return w[w["role"] == role].iloc[1:]


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (4, 0.8), (8, 1.2)])
@pytest.mark.parametrize("law", ["exponential", "lognormal"])
def test_erlang_b(workers, load, law):
    """M/G/c/c loses Erlang's B (1917) of its requests, whatever the law of service (Sevastyanov, 1957)."""
    a = load * workers
    lost = 1.0
    for n in range(1, workers + 1):
        lost = a * lost / (n + a * lost)
    s = scenario(
        {"process": "poisson", "rate_per_s": a}, service(law, 1.0, workers, queue_limit=0), AMPLE,
        horizon_s=(BATCHES + 1) * 5000.0, period_s=5000.0, seed=2026, sample_requests=0,
    )  # fmt: skip
    w = windows_of(s, "source")
    shares = (w["Invocation5XXErrors"] / w["Invocations"]).to_numpy()
    assert abs(errors_from(shares, lost)) < 4
    assert abs(errors_from(shares, 1.03 * lost)) > 4


@pytest.mark.parametrize(
    ("workers", "load", "room"),
    [(1, 0.8, 3), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((4, 1.5, 10), (8, 0.95, 20)))],
)
def test_m_m_c_k(workers, load, room):
    """A queue with room for `room`: losses and the mean wait of the others, from the stationary birth-death process.

    Poisson arrivals see time averages (Wolff, 1982): a request is lost with the chance that all places are taken, and
    one that finds n >= c there waits for n - c + 1 of the departures, which come at rate c.
    """
    states = np.arange(workers + room + 1)
    chance = np.cumprod(np.append(1.0, load * workers / np.minimum(states[1:], workers)))
    chance /= chance.sum()
    lost = chance[-1]
    wait = chance[:-1] @ np.maximum(states[:-1] - workers + 1, 0) / workers / (1 - lost)
    s = scenario(
        {"process": "poisson", "rate_per_s": load * workers}, service("exponential", 1.0, workers, queue_limit=room),
        AMPLE, endpoint={"timeout_s": 1e9}, horizon_s=(BATCHES + 1) * 60_000.0, period_s=60_000.0, seed=2026,
        sample_requests=0,
    )  # fmt: skip
    w = windows_of(s, "source")
    losses = (w["Invocation5XXErrors"] / w["Invocations"]).to_numpy()
    accepted = w["ModelLatency_SampleCount"]
    waits = w["wait_mean_s"].to_numpy() * (accepted / accepted.mean()).to_numpy()
    assert abs(errors_from(losses, lost)) < 4
    assert abs(errors_from(waits, wait)) < 4
    assert abs(errors_from(losses, 1.03 * lost)) > 4
    assert abs(errors_from(waits, 1.03 * wait)) > 4


@pytest.mark.parametrize("scv", [0.2, 4.0])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_gi_m_1(scv, load):
    """Mean wait sigma / (1 - sigma) service times, sigma the root of sigma = A*(1 - sigma) (Kendall, 1953).

    A* is the gamma gap's Laplace transform at service rate 1.
    """
    shape = 1 / scv
    sigma = 0.5
    for _ in range(10_000):
        sigma = (1 + (1 - sigma) / (load * shape)) ** -shape
    batch = 5000.0 + 200.0 * (1 + scv) / (1 - math.sqrt(load)) ** 2
    s = scenario(
        {"process": "gamma", "rate_per_s": load, "scv": scv}, service("exponential", 1.0, 1), AMPLE,
        endpoint={"timeout_s": 1e9}, horizon_s=(BATCHES + 1) * batch, period_s=batch, seed=2026, sample_requests=0,
    )  # fmt: skip
    w = windows_of(s, "source")
    waits = w["wait_mean_s"].to_numpy() * (w["Invocations"] / w["Invocations"].mean()).to_numpy()
    assert abs(errors_from(waits, sigma / (1 - sigma))) < 4


@pytest.mark.parametrize(
    "law", ["uniform", *(pytest.param(law, marks=pytest.mark.slow) for law in ("deterministic", "exponential"))]
)
def test_m_g_infinity(law):
    """With workers for all, the number in service is Poisson, whatever the law (Takacs, 1962).

    It is sampled every 10 s, as long as ten mean services, which makes 20,000 samples as good as independent; the
    mean's variance is 20 / n and the variance's 20² (2 + 1 / 20) / n (Kendall and Stuart, 1977, for a Poisson law).
    """
    block = service(law, 1.0, 100)
    block["time"] |= {"scv": 0.3} if law == "uniform" else {}
    s = scenario(
        {"process": "poisson", "rate_per_s": 20.0}, block,
        AMPLE, horizon_s=200_010.0, period_s=10.0, seed=2026, sample_requests=0,
    )  # fmt: skip
    w = windows_of(s, "source")
    number, n = w["ConcurrentRequestsPerModel_Maximum"].to_numpy(float), len(w)
    assert (number == w["ConcurrentRequestsPerModel_Minimum"]).all()
    assert abs(number.mean() - 20.0) < 4 * math.sqrt(20.0 / n)
    assert abs(number.var(ddof=1) - 20.0) < 4 * 20.0 * math.sqrt(2.05 / n)
    assert abs(number.mean() - 20.0 * 1.02) > 4 * math.sqrt(20.0 / n)  # services longer by 2 % are seen


def test_nobody_waits_for_a_worker_where_there_are_enough():
    s = scenario({"process": "poisson", "rate_per_s": 20.0}, service("lognormal", 1.0, 100, scv=4.0), horizon_s=3600.0)
    assert (simulate(s).requests["wait_s"] == 0.0).all()


@pytest.mark.parametrize(
    "traffic",
    [
        {"process": "gamma", "rate_per_s": 0.9, "scv": 3.0},
        {"process": "mmpp", "rates_per_s": [0.2, 3.0], "mean_sojourn_s": 30.0},
        pytest.param(
            [{"process": "constant", "rate_per_s": 0.4}, {"process": "poisson", "rate_per_s": 0.4}],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_lindleys_recursion(traffic):
    """G/G/1 (Lindley, 1952): each wait from the one before, its service and the gap; up to rounding of the sums."""
    s = scenario(traffic, service("lognormal", 1.0, 1), horizon_s=20_000.0, endpoint={"timeout_s": 1e9})
    q = simulate(s).requests
    q = q[q["role"] == "source"]
    t, work, waits = (q[c].to_numpy() for c in ("arrival_s", "service_s", "wait_s"))
    wait = np.zeros(len(t))
    for i in range(1, len(t)):
        wait[i] = max(0.0, wait[i - 1] + work[i - 1] - (t[i] - t[i - 1]))
    np.testing.assert_allclose(waits, wait, rtol=0, atol=1e-8)
    assert waits.max() > 5.0


@pytest.mark.parametrize("horizon", [50_000.0, pytest.param(200_000.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "traffic",
    [
        {"process": "poisson", "rate_per_s": 3.0},
        pytest.param({"process": "constant", "rate_per_s": 3.0}, marks=pytest.mark.slow),
        pytest.param({"process": "gamma", "rate_per_s": 3.0, "scv": 0.2}, marks=pytest.mark.slow),
        {"process": "gamma", "rate_per_s": 3.0, "scv": 9.0},
        {"process": "mmpp", "rates_per_s": [1.0, 10.0], "mean_sojourn_s": [20.0, 5.0]},
        pytest.param(
            {"process": "mmpp", "rates_per_s": [0.0, 2.0, 9.0], "mean_sojourn_s": 3.0}, marks=pytest.mark.slow
        ),
        [{"process": "poisson", "rate_per_s": 1.0}, {"process": "poisson", "rate_per_s": 2.0}],
    ],
)
def test_arrivals_have_the_rate_and_the_scv_that_are_promised(traffic, horizon):
    """The rate within four standard errors from the index of dispersion; the SCV within four, from 50 batches."""
    s = scenario(traffic, AMPLE, horizon_s=horizon, share=0, seed=2026)
    t = simulate(s).requests["arrival_s"].to_numpy()
    rate, dispersion = s.traffic.mean_rate(horizon), s.traffic.dispersion
    assert abs(len(t) - rate * horizon) <= 4 * math.sqrt(dispersion * rate * horizon) + 1
    gaps = np.diff(t)
    batches = [part.var() / gaps.mean() ** 2 for part in np.array_split(gaps, 50)]
    # batches of a long-run process scatter round a mean gap of their own, which the spread between them shows
    spread = np.std([part.mean() for part in np.array_split(gaps, 50)]) ** 2 / gaps.mean() ** 2
    error = np.std(batches, ddof=1) / math.sqrt(50)
    assert abs(np.mean(batches) + spread - s.traffic.scv) <= 4 * error + 1e-9


def gaps_of(traffic):
    return np.diff(simulate(scenario(traffic, AMPLE, horizon_s=20_000.0, share=0, seed=2026)).requests["arrival_s"])


def distance(gaps, rate):
    """Kolmogorov's distance from the exponential law, times sqrt(n)."""
    below = -np.expm1(-rate * np.sort(gaps))
    n = len(gaps)
    return max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max()) * math.sqrt(n)


# Passed with the chance 2 exp(-2 x²) (Kolmogorov, 1933), here that of four standard errors, 6.3e-5.
FAR = math.sqrt(math.log(2 / 6.3e-5) / 2)


def test_poisson_streams_together_are_one():
    """Gaps of three streams are exponential, of the rates' sum, and know nothing of each other."""
    gaps = gaps_of([{"process": "poisson", "rate_per_s": rate} for rate in (0.5, 1.0, 3.5)])
    n = len(gaps)
    assert abs(gaps.mean() * 5.0 - 1.0) < 4 / math.sqrt(n)
    assert abs(gaps.var() / gaps.mean() ** 2 - 1.0) < 4 * math.sqrt(8 / n)  # by the delta method, of an exponential
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 4 / math.sqrt(n)
    assert distance(gaps, 5.0) < FAR
    # 2.5 % of another rate is seen, and that a fifth of the rate comes evenly
    assert distance(gaps, 5.0 * 1.025) > FAR
    mixed = gaps_of([{"process": "poisson", "rate_per_s": 4.0}, {"process": "constant", "rate_per_s": 1.0}])
    assert distance(mixed, 5.0) > FAR


@pytest.mark.parametrize(
    "parts",
    [
        [{"process": "gamma", "rate_per_s": 1.0, "scv": 0.2}, {"process": "gamma", "rate_per_s": 2.0, "scv": 4.0}],
        *(
            pytest.param(parts, marks=pytest.mark.slow)
            for parts in (
                [{"process": "constant", "rate_per_s": 2.0}, {"process": "gamma", "rate_per_s": 1.0, "scv": 2.0}],
                [{"process": "poisson", "rate_per_s": 1.0}] + 3 * [{"process": "gamma", "rate_per_s": 0.7, "scv": 0.5}],
            )
        ),
    ],
)
def test_renewal_streams_together(parts):
    """Rates add up, and so do the variances of the numbers that come: scv times rate each (Cox, 1962).

    In windows of 1,000 s a renewal's variance is off its limit by at most (1 + scv²) / 6, one in 800 here.
    """
    s = scenario(
        [dict(part) for part in parts], AMPLE, share=0, horizon_s=2_000_000.0, period_s=1000.0, seed=2026,
        sample_requests=0,
    )  # fmt: skip
    counts = windows_of(s, "source")["Invocations"].to_numpy()
    rate = sum(part["rate_per_s"] for part in parts)
    variance = sum(part["rate_per_s"] * part.get("scv", part["process"] == "poisson") for part in parts)
    assert abs(counts.mean() - 1000.0 * rate) < 4 * math.sqrt(1000.0 * variance / len(counts))
    off = counts.var(ddof=1) / (1000.0 * variance) - 1
    assert abs(off) < 4 * math.sqrt(2 / len(counts))
    assert s.traffic.mean_rate(s.horizon_s) == pytest.approx(rate)
    assert s.traffic.dispersion == pytest.approx(variance / rate)


def number_in(begin, end, horizon=math.inf):
    """The integral of how many of the stretches begin..end are under way, over time up to the horizon; the greatest.

    By a sweep over the ends, which knows only the number.
    """
    t = np.minimum(np.concatenate([begin, end]), horizon)
    step = np.repeat([1, -1], len(begin))
    order = np.lexsort((-step, t))
    number = np.cumsum(step[order])
    return math.fsum(number[:-1] * np.diff(t[order])), int(number.max(initial=0))


def littles_law(s):
    """L = rate x time of callers, of those who wait, and of workers' work (Little, 1961), whatever the pools do.

    The number comes from a sweep over the requests, time and rate from the windows' own sums; that of work ends at the
    horizon, like the windows. An end is rounded by the spacing of numbers u near the last end T, and so is each step
    of the sweep, which counts N of them: (2 n N + n) u T. A window's sum is rounded once a request, and a
    few times when it is divided: (n + 8) u times the sum; work is also taken from a backlog of at most the whole
    time that n workers need after a boundary, so that each window adds a rounding for each.
    """
    result = simulate(s)
    for role in ("source", "shadow"):
        w = result.windows[result.windows["role"] == role]
        q = result.requests[(result.requests["role"] == role) & (result.requests["status"] != "refused")]
        n, accepted = len(q), w["ModelLatency_SampleCount"].to_numpy()
        assert n == accepted.sum()
        if n == 0:
            continue
        arrive, wait, busy, latency = (q[c].to_numpy() for c in ("arrival_s", "wait_s", "service_s", "latency_s"))
        workers = getattr(s, f"{role}_workers") * getattr(s.experiment, role).pool.instance_count
        length = np.minimum(s.period_s, s.horizon_s - w["time_s"].to_numpy())
        some = accepted > 0
        sums = {
            "callers": math.fsum((w["ModelLatency_Average"] / 1e6 * accepted)[some]),
            "waiting": math.fsum((w["wait_mean_s"] * accepted)[some]),
            "work": math.fsum(w["utilisation"] * length * workers),
        }
        begin = arrive + wait
        areas = {
            "callers": number_in(arrive, arrive + latency),
            "waiting": number_in(arrive, begin),
            "work": number_in(begin, begin + busy, s.horizon_s),
        }
        last = max((begin + busy).max(), (arrive + latency).max(), s.horizon_s)
        for what, (area, most) in areas.items():
            u = np.finfo(float).eps
            roundings = (2 * n * most + n) * last + (n + 8) * max(sums[what], area)
            if what == "work":
                roundings += 2 * len(w) * workers * last + (n + 8) * busy.sum()
            assert abs(area - sums[what]) <= u * roundings, what
            assert u * roundings < latency.min()  # a request more or less would be seen


@settings(max_examples=10)
@given(scenarios())
def test_littles_law_on_every_path(s):
    littles_law(s)


@pytest.mark.slow
@settings(max_examples=300)
@given(scenarios())
def test_littles_law_on_many_more_paths(s):
    littles_law(s)


SCV_OF_SIGMA_06 = math.exp(0.36) - 1


def tail(rule, instant, percent, *, load=0.8, workers=1):
    """Mean and p99 latency in service times of a shadow with that load, whose source has as much room as it has."""
    block = service("lognormal", 1.0, workers, scv=SCV_OF_SIGMA_06)
    s = scenario(
        {"process": "poisson", "rate_per_s": load * workers * 100 / percent},
        block if instant == "response" else AMPLE, block, share=percent, mirror={"rule": rule, "instant": instant},
        endpoint={"timeout_s": 1e9}, horizon_s=2_000_000.0, period_s=20_000.0, seed=2026, sample_requests=0,
    )  # fmt: skip
    row = simulate(s).summary().loc["Shadow"]
    return row["mean_s"], row["p99_s"]


@pytest.mark.parametrize(
    ("case", "mean", "p99"),
    [
        pytest.param(("coin", "arrival", 10), 3.81, 16.4, marks=pytest.mark.slow),
        pytest.param(("counter", "arrival", 10), 1.88, 7.7, marks=pytest.mark.slow),
        (("coin", "arrival", 50), 3.86, 16.6),
        (("counter", "arrival", 50), 2.76, 11.5),
    ],
)
def test_what_the_copy_rule_does_to_the_shadow(case, mean, p99):
    """A counter thins Poisson traffic into a nearly regular stream, and makes a shadow look twice as good as a coin.

    The figures are those of another simulation of the same pools, from shorter runs: 6 % is their own error.
    """
    assert tail(*case) == pytest.approx((mean, p99), rel=0.06)


@pytest.mark.slow
@pytest.mark.parametrize(("load", "at_arrival", "at_response"), [(0.8, 5.12, 4.63), (0.95, 16.9, 14.4)])
def test_a_copy_at_the_response_meets_a_smoother_stream(load, at_arrival, at_response):
    """The source's departures are smoother than its arrivals. 10 % is the error of the figures' own runs."""
    _, early = tail("coin", "arrival", 100, load=load, workers=4)
    _, late = tail("coin", "response", 100, load=load, workers=4)
    assert late < early
    assert (early, late) == pytest.approx((at_arrival, at_response), rel=0.1)
